//! TLS as the client: whom to trust, who we are, whom we mean.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};

use super::fault::TlsFault;
use super::files::{self, FileProblem, Identity};
use super::{TlsStream, VERSIONS, provider};

/// What a client needs to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientTls {
    /// Who signs the certificate of the server.
    pub ca: Option<PathBuf>,
    /// What we show when we are asked.
    pub identity: Option<Identity>,
    /// The name the server's certificate has to be for: a DNS name or an address.
    pub name: String,
    /// Talk to any server, whoever it is: only encrypted, and safe from nobody in between.
    pub anybody: bool,
}

/// A client ready to begin TLS.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl ClientTls {
    /// Names of files as libnbd and QEMU have them: `ca-cert.pem`, and `client-cert.pem` with `client-key.pem` where
    /// they are.
    pub fn use_directory(&mut self, directory: &Path) {
        self.ca.get_or_insert_with(|| directory.join("ca-cert.pem"));
        let identity = Identity {
            certificate: directory.join("client-cert.pem"),
            key: directory.join("client-key.pem"),
        };
        if self.identity.is_none() && identity.certificate.exists() {
            self.identity = Some(identity);
        }
    }

    /// Read the files.
    ///
    /// # Errors
    /// What is wrong with which file, or what is missing.
    pub fn load(&self) -> Result<TlsClient, FileProblem> {
        let provider = provider();
        let broken = |error: &dyn fmt::Display| FileProblem {
            path: self.ca.clone().unwrap_or_default(),
            problem: format!("no TLS client can be made: {error}"),
            remedy: "check the certificates".to_owned(),
        };
        let verifier: Arc<dyn ServerCertVerifier> = match &self.ca {
            _ if self.anybody => Arc::new(Anybody(Arc::clone(&provider))),
            Some(ca) => WebPkiServerVerifier::builder_with_provider(files::roots(ca)?, Arc::clone(&provider))
                .build()
                .map_err(|error| broken(&error))?,
            None => {
                return Err(FileProblem {
                    path: PathBuf::from("TLS"),
                    problem: format!("nothing says who signs the certificate of {}", self.name),
                    remedy: "name a CA certificate: tls-certificates=DIR in the URI, or --tls-ca FILE".to_owned(),
                });
            }
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&VERSIONS)
            .map_err(|error| broken(&error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.identity {
            Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.load()?))),
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        let name = ServerName::try_from(self.name.clone()).map_err(|_| FileProblem {
            path: PathBuf::from("TLS"),
            problem: format!("\"{}\" cannot be the name in a certificate", self.name),
            remedy: "give the server's DNS name: tls-hostname=NAME in the URI, tls_name in a configuration".to_owned(),
        })?;
        Ok(TlsClient {
            config: Arc::new(config),
            name,
        })
    }
}

impl TlsClient {
    /// The same, for connections that go to the kernel when they are for it
    /// ([`Session::is_for_kernel`](super::Session::is_for_kernel)).
    #[must_use]
    pub fn for_kernel(mut self) -> Self {
        Arc::make_mut(&mut self.config).enable_secret_extraction = true;
        self
    }

    /// The handshake on `stream`, on which STARTTLS was agreed.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn secure<S>(&self, mut stream: S) -> Result<TlsStream<S>, TlsFault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let secured = super::connect(&mut stream, Arc::clone(&self.config), self.name.clone()).await?;
        Ok(TlsStream::new(stream, secured.session))
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Takes every certificate whose key its owner has.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
