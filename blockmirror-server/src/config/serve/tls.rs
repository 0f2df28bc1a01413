//! `--tls`, `--tls-certificates` and `--tls-verify-peer`: names, files and meaning are those of nbdkit.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::TlsMode;
use super::super::listen::Listen;
use super::{Serve, put_text};

/// What the three options come to.
pub(super) struct Encryption {
    /// Not off.
    mode: TlsMode,
    /// Absolute.
    certificates: PathBuf,
    verify_peer: bool,
}

impl Encryption {
    /// `None`: there is no TLS.
    pub(super) fn new(serve: &Serve) -> Result<Option<Self>, String> {
        let mode = match (serve.tls, &serve.certificates) {
            (Some(mode), _) => mode,
            (None, Some(_)) => TlsMode::Require,
            (None, None) => TlsMode::Off,
        };
        if mode == TlsMode::Off {
            return if serve.verify_peer {
                Err("--tls-verify-peer has no meaning without TLS: add --tls-certificates DIR, or remove it".to_owned())
            } else {
                Ok(None)
            };
        }
        let Some(certificates) = &serve.certificates else {
            return Err(
                "--tls needs --tls-certificates DIR, with server-cert.pem and server-key.pem in it (scripts/pki makes \
                 a set to try)"
                    .to_owned(),
            );
        };
        if serve.listen.is_empty() {
            return Err(
                "TLS is for sockets that this program makes: leave out --tls-certificates with --stdio, and where a \
                 socket is handed over (LISTEN_FDS)"
                    .to_owned(),
            );
        }
        let encryption = Self {
            mode,
            certificates: directory(certificates)?,
            verify_peer: serve.verify_peer,
        };
        encryption.check_others(serve)?;
        Ok(Some(encryption))
    }

    /// What other machines may do is said, and said once.
    fn check_others(&self, serve: &Serve) -> Result<(), String> {
        if self.mode != TlsMode::Require {
            return Ok(());
        }
        if serve.trusted_network {
            return Err(
                "--trusted-network has no meaning here: nothing goes over the network in the clear; remove it \
                 (--allow anyone lets everybody open the export)"
                    .to_owned(),
            );
        }
        // What is no address is shown as such later.
        let open = |address: &&String| address.parse::<Listen>().is_ok_and(|address| !address.is_local());
        match serve.listen.iter().find(open) {
            Some(address) if serve.allow.is_empty() && !self.verify_peer => Err(format!(
                "other machines can connect to {address}, and nothing says which of them may open the export: add \
                 --tls-verify-peer (those with a certificate that ca-cert.pem has signed), or --allow WHO"
            )),
            _ => Ok(()),
        }
    }

    /// Whoever gets through the handshake has shown who he is.
    pub(super) fn knows_clients(&self) -> bool {
        self.mode == TlsMode::Require && self.verify_peer
    }

    /// The keys of a listener.
    pub(super) fn put_listener(&self, text: &mut String) {
        let required = self.mode == TlsMode::Require;
        put_text(text, "tls", Some(if required { "require" } else { "allow" }));
        if self.verify_peer {
            put_text(text, "client_certificates", Some("require"));
        }
    }

    /// The table.
    pub(super) fn put_table(&self, text: &mut String) {
        text.push_str("[tls]\n");
        let mut file = |key, name| put_text(text, key, Some(&self.certificates.join(name).to_string_lossy()));
        file("certificate", "server-cert.pem");
        file("key", "server-key.pem");
        if self.verify_peer {
            file("client_ca", "ca-cert.pem");
        }
    }
}

/// The directory, absolute.
fn directory(path: &Path) -> Result<PathBuf, String> {
    let wrong = |why: String| format!("--tls-certificates {}: {why}", path.display());
    let found = fs::metadata(path).map_err(|error| wrong(format!("the directory cannot be used: {error}")))?;
    if !found.is_dir() {
        return Err(wrong(
            "it is not a directory; name the one with server-cert.pem and server-key.pem".to_owned(),
        ));
    }
    std::path::absolute(path).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::super::{ClientCertificates, Config, SERVE, Sockets, Who};
    use super::*;

    /// With this directory of certificates, at one address.
    fn serve(certificates: &Path, address: &str) -> Serve {
        Serve {
            image: "memory:1MiB".to_owned(),
            listen: vec![address.to_owned()],
            certificates: Some(certificates.to_owned()),
            ..Serve::default()
        }
    }

    fn config(serve: &Serve) -> Config {
        Config::parse(&serve.text().unwrap(), SERVE).unwrap()
    }

    fn refused(serve: &Serve) -> String {
        serve.text().unwrap_err()
    }

    #[test]
    fn certificates_mean_that_tls_is_required() {
        let dir = tempfile::tempdir().unwrap();
        let mut serve = serve(dir.path(), "unix:/s");
        serve.listen.push("tcp:127.0.0.1:0".to_owned());
        let found = config(&serve);
        assert_eq!(found.listeners.len(), 2);
        for listener in &found.listeners {
            let seen = (listener.tls, listener.client_certificates, listener.trusted_network);
            assert_eq!(seen, (TlsMode::Require, ClientCertificates::Ignore, false));
        }
        let identity = found.tls.identity.unwrap();
        assert_eq!(identity.certificate, dir.path().join("server-cert.pem"));
        assert_eq!(identity.key, dir.path().join("server-key.pem"));
        assert_eq!(found.tls.client_ca, None, "who looks at nobody needs no CA");
        assert!(found.resources[0].volumes[0].access.is_empty(), "this machine");
        serve.tls = Some(TlsMode::Allow);
        assert_eq!(config(&serve).listeners[1].tls, TlsMode::Allow);
        serve.tls = Some(TlsMode::Off);
        let off = config(&serve);
        assert_eq!((off.listeners[0].tls, off.tls.identity), (TlsMode::Off, None));
    }

    #[test]
    fn other_machines_come_in_without_the_word_for_plaintext() {
        let dir = tempfile::tempdir().unwrap();
        let mut serve = serve(dir.path(), "tcp:0.0.0.0:0");
        assert!(refused(&serve).contains("nothing says which of them"));
        serve.verify_peer = true;
        let verified = config(&serve);
        let listener = &verified.listeners[0];
        let seen = (listener.tls, listener.client_certificates, listener.trusted_network);
        assert_eq!(seen, (TlsMode::Require, ClientCertificates::Require, false));
        assert_eq!(verified.tls.client_ca, Some(dir.path().join("ca-cert.pem")));
        assert_eq!(verified.resources[0].volumes[0].access[0].from, [Who::Anyone]);
        serve.verify_peer = false;
        serve.allow = vec!["192.0.2.1".to_owned()];
        let rules = &config(&serve).resources[0].volumes[0].access;
        assert_eq!(rules[0].from[0].to_string(), "192.0.2.1");
        serve.trusted_network = true;
        assert!(refused(&serve).contains("--trusted-network has no meaning"));
    }

    #[test]
    fn where_tls_is_a_choice_the_word_for_plaintext_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let mut serve = serve(dir.path(), "tcp:0.0.0.0:0");
        serve.tls = Some(TlsMode::Allow);
        serve.verify_peer = true;
        let exposed = Config::parse(&serve.text().unwrap(), SERVE).unwrap_err();
        assert!(exposed.to_string().contains("not encrypted"), "{exposed}");
        serve.trusted_network = true;
        serve.listen.push("tcp:[::1]:0".to_owned());
        let trusted: Vec<bool> = config(&serve)
            .listeners
            .iter()
            .map(|listener| listener.trusted_network)
            .collect();
        assert_eq!(trusted, [true, false]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let empty = serve(dir.path(), "unix:/s");
        let error = Config::check(&empty.text().unwrap(), SERVE, Sockets::Ours).unwrap_err();
        let name = dir.path().join("server-cert.pem").display().to_string();
        assert!(error.to_string().contains(&name), "{error}");
        let nowhere = refused(&serve(&dir.path().join("nowhere"), "unix:/s"));
        assert!(nowhere.contains("nowhere: the directory cannot be used"), "{nowhere}");
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(refused(&serve(&file, "unix:/s")).contains("not a directory"));
        let mut without = Serve {
            tls: Some(TlsMode::Require),
            ..serve(dir.path(), "unix:/s")
        };
        without.certificates = None;
        assert!(refused(&without).contains("--tls needs --tls-certificates"));
        without.tls = None;
        without.verify_peer = true;
        assert!(refused(&without).contains("no meaning without TLS"));
        let mut given = serve(dir.path(), "unix:/s");
        given.listen.clear();
        assert!(refused(&given).contains("--stdio"));
    }
}
