//! The configuration: TOML text to a [`Config`] that has no invalid state.
//!
//! Every mistake is reported with file, line, column, the offending text and the remedy, and all of them at once.
//! Shape and meaning of every key are in docs/CONFIGURATION.md.

mod access;
mod build;
mod explain;
mod files;
mod limits;
mod listen;
mod listener;
mod names;
mod peer;
mod problem;
mod resource;
mod section;
mod serve;
#[cfg(test)]
mod tests;
mod tls;
mod value;
mod volume;

use std::path::{Path, PathBuf};
use std::time::Duration;

use blockmirror_client::uri::NbdUri;

pub(crate) use access::LOCAL;
pub use access::{AccessRule, Permit, Who};
pub use blockmirror_client::tls::{ClientTls, Identity};
pub use limits::Limits;
pub use listen::{Listen, Sockets};
pub use problem::{ConfigError, Problem};
pub use serve::{SERVE, Serve};

/// Everything the daemon is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Name of this node.
    pub name: String,
    /// Path of the admin socket; `None`: no admin API.
    pub admin: Option<PathBuf>,
    /// Where NBD clients connect; empty only when the sockets are [`Sockets::Given`].
    pub listeners: Vec<Listener>,
    /// Certificates, ours and those we trust.
    pub tls: Tls,
    /// How images and sockets are driven.
    pub engine: Engine,
    /// Data threads wanted; `None`: one per core, never more than resources.
    pub data_threads: Option<usize>,
    /// Bounds.
    pub limits: Limits,
    /// Never empty.
    pub resources: Vec<Resource>,
}

/// Where NBD clients connect, and how safely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The address.
    pub address: Listen,
    /// Whether connections are encrypted.
    pub tls: TlsMode,
    /// Whether clients show who they are; `Ignore` without TLS.
    pub client_certificates: ClientCertificates,
    /// Other machines may come without TLS: somebody has said that their network can be trusted.
    pub trusted_network: bool,
}

/// Whether the connections of a listener are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TlsMode {
    /// Never.
    Off,
    /// When the client asks for it.
    Allow,
    /// Always: without it a client gets nothing.
    Require,
}

/// Whether the clients of a TLS listener show certificates. One that is shown is always verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked for one.
    Ignore,
    /// They are asked, and may have none.
    Allow,
    /// None, no connection.
    Require,
}

/// Certificates, ours and those we trust; PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// What this node shows: to clients, and to peers that have no other.
    pub identity: Option<Identity>,
    /// Who signs the certificates of clients.
    pub client_ca: Option<PathBuf>,
    /// Who signs the certificates of the servers we dial.
    pub ca: Option<PathBuf>,
    /// Who seals and opens records.
    pub kernel: KernelTls,
}

/// Whether the kernel does TLS after the handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelTls {
    /// Where it can.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// How the data threads drive their files and sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// io_uring where the kernel allows it, threads where not.
    Auto,
    /// io_uring, or do not start.
    Uring,
    /// A thread pool.
    Threads,
}

/// The unit of ordering, role, failover and thread.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Its name, unique in the daemon.
    pub name: String,
    /// `false`: served plain, with no mirror machinery and no metadata file; then `peers` is empty.
    pub mirror: bool,
    /// Extents of 4 MiB per volume that may be hot at once; `None`: the mirror's own default.
    pub hot_extents: Option<u32>,
    /// What it is after a restart of the daemon.
    pub role_after_restart: RoleAfterRestart,
    /// Hosts may read from it while it is Secondary.
    pub read_only_secondary: bool,
    /// Whose data is given up when the histories of two nodes have diverged.
    pub split_brain: SplitBrain,
    /// What becomes of an I/O error of an image.
    pub on_io_error: OnIoError,
    /// Bytes per second below which resync does not go for the sake of hosts.
    pub resync_min: u64,
    /// Bytes per second above which resync does not go; `None`: no cap.
    pub resync_max: Option<u64>,
    /// How often every volume is compared with its peers.
    pub verify: VerifySchedule,
    /// A scheduled comparison copies what differs.
    pub verify_repair: bool,
    /// Where branches are kept; `None`: beside the images.
    pub branch_dir: Option<PathBuf>,
    /// How long branches are kept.
    pub branch_keep: BranchKeep,
    /// Never empty.
    pub volumes: Vec<Volume>,
    /// Where its writes are replicated to.
    pub peers: Vec<Peer>,
}

/// What a resource is after a restart of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleAfterRestart {
    /// What it was before, once it is certain that nobody else has become Primary.
    Resume,
    /// Secondary, until somebody promotes it.
    Secondary,
}

/// Whose data is given up when the histories of two nodes have diverged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitBrain {
    /// Nobody's, before an operator says whose.
    Manual,
    /// Of the node that became Primary later.
    DiscardYounger,
    /// Of the node that changed less.
    DiscardLeastChanges,
    /// Of the node that changed nothing; an operator decides when both changed something.
    DiscardZeroChanges,
}

/// What becomes of an I/O error of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnIoError {
    /// The image is given up, and a peer that has everything serves in its place.
    Detach,
    /// The host gets it.
    Pass,
}

/// How often every volume is compared with its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifySchedule {
    /// Only when an operator asks.
    Never,
    /// This often.
    Every(Duration),
}

/// How long a branch is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BranchKeep {
    /// Until an operator removes it.
    Forever,
    /// So long.
    For(Duration),
}

/// One device of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The name NBD clients open, unique in the daemon.
    pub export: String,
    /// Text for people, shown by clients that list exports.
    pub description: String,
    /// Where the data is.
    pub image: ImageSource,
    /// Size in bytes: the image is created with it when absent, and refused when it has another.
    pub size: Option<u64>,
    /// Allocate all blocks when the image is created.
    pub preallocate: bool,
    /// How the image is read and written.
    pub io: Io,
    /// Refuse every change.
    pub read_only: bool,
    /// Smallest block NBD clients may address: a power of two, 1 to 4096.
    pub minimum_block: u32,
    /// The metadata file; `None` when the volume has none.
    pub metadata: Option<PathBuf>,
    /// Who may open it: the first rule that is about a client counts. Empty: whoever is on this machine.
    pub access: Vec<AccessRule>,
}

/// Where a volume's data is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// A regular file or block device; absolute.
    Path(PathBuf),
    /// RAM of this process: gone when it ends.
    Memory,
}

/// How an image is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// Through the page cache.
    Buffered,
    /// O_DIRECT.
    Direct,
}

/// One peer of a resource: the remote legs of its volumes, on a plain NBD server or another blockmirror.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    /// Its name, unique in the resource.
    pub name: String,
    /// Where it is. Without an export in it, each volume's own export name is used.
    pub uri: NbdUri,
    /// Who may come as this peer; empty: whoever is where the URI says.
    pub from: Vec<Who>,
    /// How TLS with it is done; `None`: without.
    pub tls: Option<ClientTls>,
    /// What is spoken with it.
    pub protocol: Protocol,
    /// When a write is acknowledged.
    pub mode: Mode,
    /// What happens to host writes while it is gone.
    pub on_disconnect: OnDisconnect,
    /// The remote image is known to be equal at the first start: copy nothing.
    pub skip_initial_sync: bool,
    /// Bytes the queue of an async peer may hold before the peer falls Behind.
    pub queue: u64,
    /// A request unanswered this long fails the connection.
    pub request_timeout: Duration,
    /// How long a connection that failed is waited out before the next one is made (zombie writes).
    pub fence_timeout: Duration,
    /// A partner is told this often that we live.
    pub heartbeat: Duration,
    /// A partner that says nothing for this long is lost.
    pub dead_after: Duration,
}

/// What is spoken with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A replication stream with another blockmirror, plain NBD with anything else.
    Auto,
    /// Plain NBD, whatever it is.
    Nbd,
    /// A replication stream, or nothing.
    Blockmirror,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Applied here and on the peer.
    Sync,
    /// Applied here.
    Async,
}

/// What happens to host writes while a peer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisconnect {
    /// Mark the blocks and go on alone.
    Continue,
    /// Hold writes until the peer is back.
    Suspend,
    /// Answer writes with an error.
    Fail,
}

impl Config {
    /// Read and check the file at `path`, and check the files it names (images, directories of sockets).
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_with(path, Sockets::Ours)
    }

    /// As [`Self::load`].
    pub fn load_with(path: &Path, sockets: Sockets) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
            file: file.clone(),
            error,
        })?;
        Self::check(&text, &file, sockets)
    }

    /// Check `text` and the files it names; `file` names it in errors.
    pub fn check(text: &str, file: &str, sockets: Sockets) -> Result<Self, ConfigError> {
        let (config, files) = build::parse(text, file, sockets)?;
        files.check(text, file)?;
        Ok(config)
    }

    /// Check `text`, looking at nothing but the text itself; `file` names it in errors.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        Ok(build::parse(text, file, Sockets::Ours)?.0)
    }

    /// What would be served and mirrored, in plain words.
    pub fn explain(&self) -> String {
        explain::explain(self)
    }

    /// How many data threads run for `cores` processor cores: never more than resources.
    pub fn thread_count(&self, cores: usize) -> usize {
        self.data_threads.unwrap_or(cores).clamp(1, self.resources.len().max(1))
    }
}

impl Listener {
    /// An address without TLS.
    pub fn plain(address: Listen) -> Self {
        Self {
            address,
            tls: TlsMode::Off,
            client_certificates: ClientCertificates::Ignore,
            trusted_network: false,
        }
    }
}

impl Resource {
    /// The default metadata file of an image: `<image>.blockmirror`, beside it.
    pub fn default_metadata(image: &Path) -> PathBuf {
        let mut name = image.as_os_str().to_owned();
        name.push(".blockmirror");
        PathBuf::from(name)
    }
}

impl Peer {
    /// The export opened on the peer for the volume whose export is `volume_export`.
    pub fn export_for<'a>(&'a self, volume_export: &'a str) -> &'a str {
        self.uri.export.as_deref().unwrap_or(volume_export)
    }
}
