//! What a certificate says: names and dates.

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::time::ASN1Time;

/// Names taken from one certificate, at most.
const NAMES_MAX: usize = 64;

/// The names a certificate is for: its subjectAltNames (DNS, URI, email), or its common name when it has none of them.
/// Of a certificate that was verified.
pub fn names(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return Vec::new();
    };
    let mut names: Vec<String> = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension
            .value
            .general_names
            .iter()
            .filter_map(text)
            .take(NAMES_MAX)
            .collect(),
        _ => Vec::new(),
    };
    if names.is_empty() {
        let common = certificate.subject().iter_common_name();
        names.extend(
            common
                .filter_map(|name| name.as_str().ok())
                .map(str::to_owned)
                .take(NAMES_MAX),
        );
    }
    names
}

fn text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => Some((*name).to_owned()),
        _ => None,
    }
}

/// Whether the certificate can be used now; what is wrong with its dates.
pub(super) fn check_dates(der: &[u8]) -> Result<(), String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| format!("is no certificate: {error}"))?;
    let (validity, now) = (certificate.validity(), ASN1Time::now());
    if now > validity.not_after {
        return Err(format!("expired on {}", validity.not_after));
    }
    if now < validity.not_before {
        return Err(format!("is not valid before {}", validity.not_before));
    }
    Ok(())
}
