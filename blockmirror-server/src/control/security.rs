//! Certificates in use: read at the start, and again when an operator asks, without a pause for anybody.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use blockmirror_client::tls::{Asked, ClientTls, FileProblem, ServerConfig, ServerTls, TlsClient, for_kernel};
use nbd_proto::server::TlsMode;

use crate::config::{self, ClientCertificates, KernelTls, Listen, Tls};
use crate::ring::kernel_tls;

/// Who seals and opens the records of a connection over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Records {
    /// The kernel, those that are for it.
    Kernel,
    /// The daemon, and why.
    UserSpace(String),
}

/// The certificates of the daemon, by what uses them: as many as the configuration has listeners and peers, at most.
#[derive(Debug, Default)]
pub(super) struct Keyring {
    kernel: KernelTls,
    /// Known as soon as there is a certificate.
    records: OnceLock<Records>,
    servers: Mutex<HashMap<ServerTls, Arc<ServerConfig>>>,
    clients: Mutex<HashMap<ClientTls, TlsClient>>,
}

/// How safely the clients of a listener come in.
#[derive(Clone, Debug)]
pub(super) struct Security {
    mode: TlsMode,
    /// What TLS is made of; `None` without.
    tls: Option<(ServerTls, Arc<Keyring>)>,
    /// Clients come by a Unix socket, which the kernel has no TLS for.
    is_unix: bool,
}

impl Keyring {
    pub(super) fn new(kernel: KernelTls) -> Self {
        Self {
            kernel,
            ..Self::default()
        }
    }

    fn server(&self, settings: &ServerTls) -> Result<Arc<ServerConfig>, FileProblem> {
        known(&self.servers, settings, |settings| self.load_server(settings))
    }

    /// For a peer.
    pub(super) fn client(&self, settings: &ClientTls) -> Result<TlsClient, FileProblem> {
        known(&self.clients, settings, |settings| self.load_client(settings))
    }

    fn load_server(&self, settings: &ServerTls) -> Result<Arc<ServerConfig>, FileProblem> {
        let config = settings.load()?;
        Ok(match self.records() {
            Records::Kernel => for_kernel(config),
            Records::UserSpace(_) => config,
        })
    }

    fn load_client(&self, settings: &ClientTls) -> Result<TlsClient, FileProblem> {
        let client = settings.load()?;
        Ok(match self.records() {
            Records::Kernel => client.for_kernel(),
            Records::UserSpace(_) => client,
        })
    }

    /// The kernel is asked once.
    fn records(&self) -> &Records {
        self.records.get_or_init(|| {
            let records = match self.kernel {
                KernelTls::Off => Records::UserSpace("the configuration says so".to_owned()),
                KernelTls::Auto => kernel_tls().map_or_else(Records::UserSpace, |()| Records::Kernel),
            };
            tracing::info!(records = %records, "TLS");
            records
        })
    }

    /// Where records are sealed and opened, in words; `None`: nothing has TLS.
    pub(super) fn describe(&self) -> Option<String> {
        self.records.get().map(Records::to_string)
    }

    /// Read all files again. What cannot be used leaves in place what was read before; the problems, each once.
    pub(super) fn reload(&self) -> Vec<String> {
        let mut problems = again(&self.servers, |settings| self.load_server(settings));
        problems.extend(again(&self.clients, |settings| self.load_client(settings)));
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
fn known<K, V>(loaded: &Loaded<K, V>, key: &K, load: impl Fn(&K) -> Result<V, FileProblem>) -> Result<V, FileProblem>
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

fn again<K, V>(loaded: &Loaded<K, V>, load: impl Fn(&K) -> Result<V, FileProblem>) -> Vec<String>
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
            is_unix: false,
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
            is_unix: matches!(listener.address, Listen::Unix(_)),
        })
    }

    /// What STARTTLS is answered.
    pub(super) fn mode(&self) -> TlsMode {
        self.mode
    }

    /// In words, for the log.
    pub(super) fn describe(&self) -> &'static str {
        let records = self.tls.as_ref().map(|(_, keyring)| keyring.records());
        let in_kernel = !self.is_unix && records == Some(&Records::Kernel);
        match (self.mode, in_kernel) {
            (TlsMode::Off, _) => "off",
            (TlsMode::Allow, false) => "allowed, in user space",
            (TlsMode::Allow, true) => "allowed, in the kernel",
            (TlsMode::Require, false) => "required, in user space",
            (TlsMode::Require, true) => "required, in the kernel",
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

impl fmt::Display for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => f.write_str("in the kernel"),
            Self::UserSpace(why) => write!(f, "in user space: {why}"),
        }
    }
}
