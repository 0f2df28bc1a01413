//! The status report. Words are the glossary's (docs/GLOSSARY.md); bytes are bytes, times are seconds.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::roles::{BranchStatus, HostAccess, LinkKind, Loss, PartnerStatus, ResyncLimit, Role, VerifyStatus};

/// Everything `blockmirror status` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The node's name (`name` in its configuration).
    pub name: String,
    /// The daemon's version.
    pub version: String,
    /// What drives its I/O, in words: "io_uring" or "thread pool", and why.
    pub engine: String,
    /// Where the records of TLS are sealed and opened, in words: "in the kernel", or "in user space" and why; `None`:
    /// nothing has TLS.
    #[serde(default)]
    pub tls: Option<String>,
    /// It has told the kernel that memory is written out by it: a device of this machine may be served by it.
    #[serde(default)]
    pub io_flusher: bool,
    /// Where NBD clients connect, as the ready line has it: the best way first.
    #[serde(default)]
    pub uris: Vec<String>,
    /// Seconds since the daemon started.
    pub uptime_seconds: f64,
    /// In the order of the configuration.
    pub resources: Vec<ResourceStatus>,
}

/// One resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResourceStatus {
    /// Its name.
    pub name: String,
    /// In the order of the configuration.
    pub volumes: Vec<VolumeStatus>,
    /// Its role; `None`: it is not mirrored, and serves hosts as it is.
    #[serde(default)]
    pub role: Option<Role>,
    /// What hosts may do now.
    #[serde(default)]
    pub hosts: HostAccess,
    /// The other nodes it is shared with, as far as they are, or may be, blockmirrors.
    #[serde(default)]
    pub partners: Vec<PartnerStatus>,
    /// What needs somebody: a split brain, a missing Primary. In words, with the remedy.
    #[serde(default)]
    pub alerts: Vec<String>,
    /// What was saved before it was overwritten.
    #[serde(default)]
    pub branches: Vec<BranchStatus>,
}

/// One volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// What NBD clients open.
    pub export: String,
    /// The image's path, or "memory:".
    pub image: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// "buffered" or "direct".
    pub io: String,
    /// How the image is driven, in words.
    pub image_engine: String,
    /// NBD clients connected now.
    pub connections: u64,
    /// Host requests in flight.
    pub requests_in_flight: u64,
    /// Bytes reserved for them.
    pub bytes_in_flight: u64,
    /// Writes and flushes among them that wait for a peer to come back.
    #[serde(default)]
    pub requests_held: u64,
    /// Extents of the activity log that may have writes under way.
    pub hot_extents: u64,
    /// The current generation identifier, hexadecimal; `None` for a volume served plain.
    pub generation: Option<String>,
    /// Why the volume refuses changes; `None` while it works.
    pub failed: Option<String>,
    /// In the order of the configuration.
    pub peers: Vec<PeerStatus>,
    /// How far its own image can be trusted; `None` for a volume served plain.
    #[serde(default)]
    pub disk_state: Option<DiskState>,
    /// Who is connected, in the order they came; the first 256.
    #[serde(default)]
    pub clients: Vec<ClientStatus>,
}

/// One connection of an NBD client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientStatus {
    /// Its address and port; of a client on this machine, where it came in: "unix:/run/nbd.sock".
    pub address: String,
    /// Its process, as far as the kernel knows it.
    pub process: Option<i32>,
    /// Who runs it, as a user id.
    pub user: Option<u32>,
    /// Names of its certificate, which is verified; the first four. Empty: it showed none.
    pub certificate: Vec<String>,
    /// Version and cipher of TLS, and who seals its records; `None`: it is not encrypted.
    pub tls: Option<String>,
}

/// One peer of one volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub uri: String,
    /// When a write is answered.
    pub mode: Mode,
    /// What happens to writes without it.
    pub on_disconnect: OnDisconnect,
    /// The connection.
    pub connection_state: ConnectionState,
    /// What flows over it.
    pub replication_state: ReplicationState,
    /// How far the peer's data can be trusted, as we know it.
    pub disk_state: DiskState,
    /// Bytes the peer does not have (dirty blocks times the block size).
    pub dirty_bytes: u64,
    /// Requests sent to the peer and not answered.
    pub in_flight: u64,
    /// Bytes waiting to be sent (`mode = "async"`).
    pub queue_bytes: u64,
    /// The resync under way.
    pub resync: Option<ResyncStatus>,
    /// The latest resync that ended.
    pub last_resync: Option<ResyncStatus>,
    /// Why the latest connection ended or could not be made.
    pub last_error: Option<String>,
    /// Attempts to connect since the last success.
    pub attempts: u64,
    /// It has been away for so long, and hosts' writes wait for it (`on_disconnect = "suspend"`).
    #[serde(default)]
    pub waited_for_seconds: Option<f64>,
    /// What is spoken with it.
    #[serde(default)]
    pub link: LinkKind,
    /// The comparison under way.
    #[serde(default)]
    pub verify: Option<VerifyStatus>,
    /// The latest comparison that ended.
    #[serde(default)]
    pub last_verify: Option<VerifyStatus>,
}

/// How far a resync is, or how it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResyncStatus {
    /// Dirty when it began.
    pub dirty_at_start_bytes: u64,
    /// Of these, done.
    pub done_bytes: u64,
    /// Payload sent to the peer.
    pub copied_bytes: u64,
    /// Holes and zeroes, sent as zeroing.
    pub zeroed_bytes: u64,
    /// Left to do; grows when the peer is lost and writes go on.
    pub remaining_bytes: u64,
    /// Since it began.
    pub elapsed_seconds: f64,
    /// Of late.
    pub bytes_per_second: f64,
    /// Until it ends at this rate; `None` when there is no rate yet.
    pub eta_seconds: Option<f64>,
    /// Of what is done: found equal by digests, and not sent.
    #[serde(default)]
    pub equal_bytes: u64,
    /// What keeps it from being faster; `None` when it is over.
    #[serde(default)]
    pub limit: Option<ResyncLimit>,
}

/// The body of a refusal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What was refused, why, and what to do.
    pub error: String,
    /// It would be done if this were quoted back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_accept: Option<NeedsAccept>,
}

/// What an operator has to know, and to quote, before something is lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeedsAccept {
    /// What would be lost.
    pub loss: Loss,
    /// To be quoted back.
    pub token: String,
}

impl ErrorBody {
    /// A refusal in words.
    pub fn new(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            needs_accept: None,
        }
    }
}

/// When a WRITE is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// When it is applied here and on the peer.
    #[default]
    Sync,
    /// When it is applied here.
    Async,
}

/// What happens to writes while a peer is not connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDisconnect {
    /// Mark them dirty and go on alone.
    #[default]
    Continue,
    /// Hold them.
    Suspend,
    /// Answer them with an error.
    Fail,
}

/// The connection to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConnectionState {
    /// Not connected and not trying, by the operator's word or because the peer does not fit.
    #[default]
    StandAlone,
    /// Trying.
    Connecting,
    /// Connected.
    Connected,
}

/// What flows over the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReplicationState {
    /// Nothing: not connected.
    #[default]
    Off,
    /// Every write goes to the peer, and nothing is dirty.
    Established,
    /// Copying what is dirty to the peer.
    SyncSource,
    /// Receiving what is dirty.
    SyncTarget,
    /// Comparing, as the one who asks.
    VerifySource,
    /// Comparing, as the one who is asked.
    VerifyTarget,
    /// Writes are only marked, the peer is to follow by resync.
    Ahead,
    /// As Ahead, seen from the other side.
    Behind,
}

/// How far data can be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DiskState {
    /// There is no device.
    Diskless,
    /// A mixture of old and new, while a resync is not done.
    #[default]
    Inconsistent,
    /// Whole, but not the newest.
    Outdated,
    /// Whole; whether it is the newest is not known.
    Consistent,
    /// Whole and the newest.
    UpToDate,
}

/// Displays an enum as it is spelled in JSON.
macro_rules! display {
    ($($type:ident { $($variant:ident => $text:literal),+ $(,)? })+) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $($type::$variant => $text),+ })
            }
        }
    )+};
}

pub(super) use display;

display! {
    Mode { Sync => "sync", Async => "async" }
    OnDisconnect { Continue => "continue", Suspend => "suspend", Fail => "fail" }
    ConnectionState { StandAlone => "StandAlone", Connecting => "Connecting", Connected => "Connected" }
    ReplicationState {
        Off => "Off",
        Established => "Established",
        SyncSource => "SyncSource",
        SyncTarget => "SyncTarget",
        VerifySource => "VerifySource",
        VerifyTarget => "VerifyTarget",
        Ahead => "Ahead",
        Behind => "Behind",
    }
    DiskState {
        Diskless => "Diskless",
        Inconsistent => "Inconsistent",
        Outdated => "Outdated",
        Consistent => "Consistent",
        UpToDate => "UpToDate",
    }
}

impl StatusReport {
    /// The resource called `name`.
    pub fn resource(&self, name: &str) -> Option<&ResourceStatus> {
        self.resources.iter().find(|resource| resource.name == name)
    }

    /// The peer called `peer` of the volume exported as `export`.
    pub fn peer(&self, export: &str, peer: &str) -> Option<&PeerStatus> {
        let mut volumes = self.resources.iter().flat_map(|resource| &resource.volumes);
        volumes
            .find(|volume| volume.export == export)?
            .peers
            .iter()
            .find(|candidate| candidate.name == peer)
    }
}
