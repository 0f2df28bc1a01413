//! What a URI says about TLS, with the parameters of libnbd.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::utf8_percent_encode;

use super::query::Query;
use super::{Address, KEEP, NbdUri, UriProblem};
use crate::tls::{ClientTls, Identity};

/// The name of a server on this machine.
const LOCAL: &str = "localhost";

/// How TLS is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UriTls {
    /// `tls-certificates`: a directory with `ca-cert.pem`, and `client-cert.pem` with `client-key.pem` if the server asks
    /// for them.
    pub certificates: Option<PathBuf>,
    /// `tls-hostname`: the name the server's certificate has to be for; `None`: the host that is dialled, `localhost` on a
    /// Unix socket.
    pub hostname: Option<String>,
    /// `tls-verify-peer`: the server is verified.
    pub verify_peer: bool,
    /// Who signs the certificate of the server; not part of the text.
    pub ca: Option<PathBuf>,
    /// What we show; not part of the text.
    pub identity: Option<Identity>,
}

impl Default for UriTls {
    fn default() -> Self {
        Self {
            certificates: None,
            hostname: None,
            verify_peer: true,
            ca: None,
            identity: None,
        }
    }
}

impl UriTls {
    pub(super) fn take(query: &mut Query) -> Result<Self, UriProblem> {
        let bad = |parameter: &str, value: String, can_be| {
            Err(UriProblem::BadValue {
                parameter: parameter.to_owned(),
                value,
                can_be,
            })
        };
        let verify_peer = match query.take("tls-verify-peer") {
            None => true,
            Some(value) => match value.to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" | "on" => true,
                "0" | "false" | "no" | "off" => false,
                _ => return bad("tls-verify-peer", value, "0 or 1"),
            },
        };
        if let Some(value) = query.take("tls-type").filter(|value| value != "x509") {
            return bad("tls-type", value, "x509");
        }
        Ok(Self {
            certificates: query.take("tls-certificates").map(PathBuf::from),
            hostname: query.take("tls-hostname"),
            verify_peer,
            ..Self::default()
        })
    }

    /// The parameters, each behind `separator` or `&`.
    pub(super) fn write(&self, mut separator: char, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directory = self.certificates.as_ref().map(|path| path.to_string_lossy());
        let parameters = [
            ("tls-certificates", directory.as_deref()),
            ("tls-hostname", self.hostname.as_deref()),
            ("tls-verify-peer", (!self.verify_peer).then_some("0")),
        ];
        for (name, value) in parameters {
            let Some(value) = value else { continue };
            write!(f, "{separator}{name}={}", utf8_percent_encode(value, KEEP))?;
            separator = '&';
        }
        Ok(())
    }
}

impl NbdUri {
    /// What a client has to be told to reach it; `None`: there is no TLS.
    pub fn client_tls(&self) -> Option<ClientTls> {
        let tls = self.tls.as_ref()?;
        let host = match &self.address {
            Address::Tcp { host, .. } => host.as_str(),
            Address::Unix(_) => LOCAL,
        };
        let mut settings = ClientTls {
            ca: tls.ca.clone(),
            identity: tls.identity.clone(),
            name: tls.hostname.as_deref().unwrap_or(host).to_owned(),
            anybody: !tls.verify_peer,
        };
        if let Some(directory) = &tls.certificates {
            settings.use_directory(directory);
        }
        Some(settings)
    }
}
