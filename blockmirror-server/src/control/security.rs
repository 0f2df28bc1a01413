//! Certificates in use: read at the start, and again when an operator asks, without a pause for anybody.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blockmirror_client::tls::{Asked, ClientTls, FileProblem, ServerConfig, ServerTls, TlsClient};
use nbd_proto::server::TlsMode;

use crate::config::{self, ClientCertificates, Tls};

/// The certificates of the daemon, by what uses them: as many as the configuration has listeners and peers, at most.
#[derive(Debug, Default)]
pub(super) struct Keyring {
    servers: Mutex<HashMap<ServerTls, Arc<ServerConfig>>>,
    clients: Mutex<HashMap<ClientTls, TlsClient>>,
}

/// How safely the clients of a listener come in.
#[derive(Clone, Debug)]
pub(super) struct Security {
    mode: TlsMode,
    /// What TLS is made of; `None` without.
    tls: Option<(ServerTls, Arc<Keyring>)>,
}

impl Keyring {
    fn server(&self, settings: &ServerTls) -> Result<Arc<ServerConfig>, FileProblem> {
        known(&self.servers, settings, ServerTls::load)
    }

    /// For a peer.
    pub(super) fn client(&self, settings: &ClientTls) -> Result<TlsClient, FileProblem> {
        known(&self.clients, settings, ClientTls::load)
    }

    /// Read all files again. What cannot be used leaves in place what was read before; the problems, each once.
    pub(super) fn reload(&self) -> Vec<String> {
        let mut problems = again(&self.servers, ServerTls::load);
        problems.extend(again(&self.clients, ClientTls::load));
        problems.sort();
        problems.dedup();
        problems
    }

    /// Nothing uses certificates.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.servers).is_empty() && lock(&self.clients).is_empty()
    }
}

type Loaded<K, V> = Mutex<HashMap<K, V>>;

/// What was read before, or is read now.
fn known<K, V>(loaded: &Loaded<K, V>, key: &K, load: fn(&K) -> Result<V, FileProblem>) -> Result<V, FileProblem>
where
    K: Clone + Eq + Hash,
    V: Clone,
{
    if let Some(value) = lock(loaded).get(key) {
        return Ok(value.clone());
    }
    let value = load(key)?;
    lock(loaded).insert(key.clone(), value.clone());
    Ok(value)
}

fn again<K, V>(loaded: &Loaded<K, V>, load: fn(&K) -> Result<V, FileProblem>) -> Vec<String>
where
    K: Clone + Eq + Hash,
{
    let keys: Vec<K> = lock(loaded).keys().cloned().collect();
    let mut problems = Vec::new();
    for key in keys {
        match load(&key) {
            Ok(value) => drop(lock(loaded).insert(key, value)),
            Err(problem) => problems.push(problem.to_string()),
        }
    }
    problems
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole values are put in and taken out.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Security {
    /// None.
    pub(super) fn off() -> Self {
        Self {
            mode: TlsMode::Off,
            tls: None,
        }
    }

    /// Of a listener; its certificates are read.
    pub(super) fn new(listener: &config::Listener, tls: &Tls, keyring: &Arc<Keyring>) -> Result<Self, FileProblem> {
        let mode = match listener.tls {
            config::TlsMode::Off => return Ok(Self::off()),
            config::TlsMode::Allow => TlsMode::Allow,
            config::TlsMode::Require => TlsMode::Require,
        };
        // A configuration without them is refused when it is read.
        let missing = |what: &str| FileProblem {
            path: what.into(),
            problem: "[tls] does not name it".to_owned(),
            remedy: "add it".to_owned(),
        };
        let client_ca = || tls.client_ca.clone().ok_or_else(|| missing("client_ca"));
        let settings = ServerTls {
            identity: tls.identity.clone().ok_or_else(|| missing("certificate"))?,
            asked: match listener.client_certificates {
                ClientCertificates::Ignore => Asked::No,
                ClientCertificates::Allow => Asked::Optional(client_ca()?),
                ClientCertificates::Require => Asked::Required(client_ca()?),
            },
        };
        keyring.server(&settings)?;
        Ok(Self {
            mode,
            tls: Some((settings, Arc::clone(keyring))),
        })
    }

    /// What STARTTLS is answered.
    pub(super) fn mode(&self) -> TlsMode {
        self.mode
    }

    /// In words, for the log.
    pub(super) fn describe(&self) -> &'static str {
        match self.mode {
            TlsMode::Off => "off",
            TlsMode::Allow => "allowed, in user space",
            TlsMode::Require => "required, in user space",
        }
    }

    /// Nobody comes in without TLS.
    pub(super) fn is_required(&self) -> bool {
        self.mode == TlsMode::Require
    }

    /// The certificates of now; `None`: there is no TLS.
    pub(super) fn present(&self) -> Option<Result<Arc<ServerConfig>, FileProblem>> {
        let (settings, keyring) = self.tls.as_ref()?;
        Some(keyring.server(settings))
    }
}
