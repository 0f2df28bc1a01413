//! Why rustls gave up, in words that say what to do.

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

/// What was wrong.
pub(super) fn of(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(problem) => format!(
            "the certificate of the other side is not accepted: {}",
            certificate(problem)
        ),
        Error::NoCertificatesPresented => "the other side shows no certificate, and one is required".to_owned(),
        Error::AlertReceived(alert) => format!("the other side refuses TLS: {}", alert_received(*alert)),
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            // Before 1.2 nobody said what signatures they take.
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => "the other side has only versions of TLS older than 1.2".to_owned(),
        Error::InvalidMessage(_) => format!("what the other side says is not TLS ({error})"),
        Error::DecryptError => "a TLS record was damaged on its way".to_owned(),
        other => format!("TLS failed: {other}"),
    }
}

fn certificate(problem: &CertificateError) -> String {
    match problem {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired; it has to be renewed (are both clocks right?)".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet; are both clocks right?".to_owned()
        }
        CertificateError::UnknownIssuer => "wrong CA: no CA that is trusted here has signed it".to_owned(),
        CertificateError::BadSignature => "its signature is wrong".to_owned(),
        CertificateError::Revoked => "it has been revoked".to_owned(),
        CertificateError::NotValidForName => "wrong name: it is not for the name that was dialled".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "wrong name: it is not for \"{}\" but for {}",
            expected.to_str(),
            if presented.is_empty() {
                "no name at all (a common name does not count, it needs a subjectAltName)".to_owned()
            } else {
                presented.join(", ")
            }
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not made for this use (extendedKeyUsage: a server needs serverAuth, a client clientAuth)".to_owned()
        }
        other => other.to_string(),
    }
}

fn alert_received(alert: AlertDescription) -> String {
    let why = match alert {
        AlertDescription::CertificateRequired => "it requires a certificate",
        AlertDescription::CertificateExpired => "our certificate has expired",
        AlertDescription::UnknownCA => "wrong CA: it trusts no CA that has signed our certificate",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError => "it does not accept our certificate",
        AlertDescription::ProtocolVersion => "it accepts no version of TLS we have (1.2 and 1.3)",
        AlertDescription::HandshakeFailure => "nothing both sides can do; does it require a certificate?",
        AlertDescription::AccessDenied => "access denied",
        other => return format!("{other:?}"),
    };
    format!("{why} ({alert:?})")
}
