//! PEM files with certificates and keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::{certificate, provider};

/// A file with certificates or a key that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}; {remedy}", path.display())]
pub struct FileProblem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

/// A certificate with its key, as files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The certificate, with those between it and the CA behind it; PEM.
    pub certificate: PathBuf,
    /// Its private key; PEM.
    pub key: PathBuf,
}

impl Identity {
    /// Read both and see whether they can be used: now, and together.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn check(&self) -> Result<(), FileProblem> {
        self.load().map(|_| ())
    }

    pub(super) fn load(&self) -> Result<Arc<CertifiedKey>, FileProblem> {
        let chain = certificates(&self.certificate)?;
        if let Some(leaf) = chain.first() {
            dates(&self.certificate, leaf)?;
        }
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|error| unreadable(&self.key, &error, "private key"))?;
        let pair = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => problem(
                &self.key,
                format!(
                    "the key does not belong to the certificate {}",
                    self.certificate.display()
                ),
                "name the two files that were made together",
            ),
            error => problem(
                &self.key,
                format!("the key and its certificate cannot be used: {error}"),
                "use an ECDSA (P-256, P-384), Ed25519 or RSA (2048 bits and more) key",
            ),
        })?;
        Ok(Arc::new(pair))
    }
}

/// Read a file of CA certificates and see whether they can be used now.
///
/// # Errors
/// What is wrong with it.
pub fn check_ca(path: &Path) -> Result<(), FileProblem> {
    roots(path).map(|_| ())
}

/// The CAs of a file.
pub(super) fn roots(path: &Path) -> Result<Arc<RootCertStore>, FileProblem> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        dates(path, &certificate)?;
        store.add(certificate).map_err(|error| {
            let remedy = "name the certificate of the CA (scripts/pki: ca-cert.pem)";
            problem(path, format!("a certificate in it cannot be a CA: {error}"), remedy)
        })?;
    }
    Ok(Arc::new(store))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileProblem> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| unreadable(path, &error, "certificate"))?;
    if found.is_empty() {
        return Err(unreadable(path, &pem::Error::NoItemsFound, "certificate"));
    }
    Ok(found)
}

fn dates(path: &Path, certificate: &CertificateDer<'_>) -> Result<(), FileProblem> {
    certificate::check_dates(certificate).map_err(|why| {
        let remedy = "have a new one made (is the clock of this machine right?)";
        problem(path, format!("the certificate {why}"), remedy)
    })
}

fn unreadable(path: &Path, error: &pem::Error, wanted: &str) -> FileProblem {
    match error {
        pem::Error::Io(error) => problem(
            path,
            format!("the {wanted} cannot be read: {error}"),
            "check the path and its permissions",
        ),
        pem::Error::NoItemsFound => problem(
            path,
            format!("no {wanted} is in it"),
            "name a PEM file: it has a line \"-----BEGIN ...-----\"",
        ),
        error => problem(path, format!("the {wanted} is damaged: {error}"), "make the file anew"),
    }
}

fn problem(path: &Path, problem: impl Into<String>, remedy: &str) -> FileProblem {
    FileProblem {
        path: path.to_owned(),
        problem: problem.into(),
        remedy: remedy.to_owned(),
    }
}
