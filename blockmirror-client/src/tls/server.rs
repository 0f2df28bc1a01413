//! TLS as the server: who we are, and whether clients say who they are.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;

use super::files::{self, FileProblem, Identity};
use super::{VERSIONS, provider};

/// Whether clients show certificates. One that is shown is always verified.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    /// They are not asked.
    No,
    /// They may show one that a CA of this file has signed.
    Optional(PathBuf),
    /// They have to show one that a CA of this file has signed.
    Required(PathBuf),
}

/// What a server needs to be told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerTls {
    /// What we show.
    pub identity: Identity,
    /// Whether clients show certificates.
    pub asked: Asked,
}

impl ServerTls {
    /// Read the files.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn load(&self) -> Result<Arc<ServerConfig>, FileProblem> {
        let provider = provider();
        let broken = |error: &dyn fmt::Display| FileProblem {
            path: self.identity.certificate.clone(),
            problem: format!("no TLS server can be made: {error}"),
            remedy: "check the certificates".to_owned(),
        };
        let verifier: Arc<dyn ClientCertVerifier> = match &self.asked {
            Asked::No => Arc::new(NoClientAuth),
            Asked::Optional(ca) | Asked::Required(ca) => {
                let builder = WebPkiClientVerifier::builder_with_provider(files::roots(ca)?, Arc::clone(&provider));
                let builder = match self.asked {
                    Asked::Required(_) => builder,
                    _ => builder.allow_unauthenticated(),
                };
                builder.build().map_err(|error| broken(&error))?
            }
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&VERSIONS)
            .map_err(|error| broken(&error))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(self.identity.load()?)));
        config.ignore_client_order = true;
        // Connections live long: nobody resumes one.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}
