//! What the control side and a data thread say to each other.

use std::os::fd::OwnedFd;
use std::time::Duration;

use blockmirror_client::admin::{ConnectionState, DiskState, PeerCommand, ReplicationState};
use mirror_core::MirrorConfig;
use mirror_core::metadata::Restored;
use tokio::sync::oneshot;

use crate::image::Image;
use crate::ring::EngineChoice;

/// From the control side to a data thread. `volume` is an index into [`DataPlan::volumes`], `peer` into
/// [`MirrorPlan::peers`].
pub enum ToData {
    /// A host connection has been negotiated: serve its transmission phase.
    Client(ClientHandover),
    /// A connection to a peer has been negotiated.
    PeerReady(PeerHandover),
    /// One attempt to reach a peer failed; the data thread asks again with the next attempt number.
    PeerFailed {
        /// The volume.
        volume: usize,
        /// The peer.
        peer: usize,
        /// Why, for the operator.
        error: String,
    },
    /// Report the present state of every volume of this thread, in plan order.
    Status(oneshot::Sender<Vec<VolumeSnapshot>>),
    /// An operator's command.
    Command {
        /// The volume.
        volume: usize,
        /// The peer.
        peer: usize,
        /// What is asked.
        command: PeerCommand,
        /// Told once the command is taken, or why not.
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// Finish what is in flight, make everything durable, close; give up after `deadline`.
    Stop {
        /// Time allowed, from now.
        deadline: Duration,
    },
}

/// A host connection that enters its transmission phase.
pub struct ClientHandover {
    /// The volume it negotiated.
    pub volume: usize,
    /// The connected stream socket.
    pub socket: OwnedFd,
    /// What was agreed.
    pub negotiated: nbd_proto::server::Negotiated,
    /// Bytes received after the handshake's last option.
    pub unread: Vec<u8>,
    /// The client's address, for the log.
    pub address: String,
    /// Dropped when the connection ends: gives back its place under the connection limit.
    pub permit: Box<dyn Send>,
}

/// A connection to a peer that enters its transmission phase.
pub struct PeerHandover {
    /// The volume.
    pub volume: usize,
    /// The peer.
    pub peer: usize,
    /// The connected stream socket.
    pub socket: OwnedFd,
    /// What was agreed.
    pub negotiated: nbd_proto::client::Negotiated,
    /// Bytes received after the handshake's last reply.
    pub unread: Vec<u8>,
}

/// From a data thread to the control side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromData {
    /// Dial the peer and negotiate; answered by `PeerReady` or `PeerFailed`. At most one is open per peer.
    Connect {
        /// The volume.
        volume: usize,
        /// The peer.
        peer: usize,
        /// 0 for the first attempt since the last success; names the backoff before dialling.
        attempt: u32,
    },
    /// Stop dialling this peer; an answer that crosses this message is ignored by the data thread.
    CancelConnect {
        /// The volume.
        volume: usize,
        /// The peer.
        peer: usize,
    },
    /// The answer to `Stop`; the last message of a thread.
    Stopped {
        /// Every volume stopped in time and left clean metadata.
        clean: bool,
    },
    /// The thread cannot go on; the last message of a thread.
    Fatal(String),
}

/// Everything a data thread needs; made by the control side, consumed by [`spawn`](super::spawn).
pub struct DataPlan {
    /// Thread name, for the log and for `ps`; at most 15 bytes are shown.
    pub name: String,
    /// Which I/O engine.
    pub engine: EngineChoice,
    /// Its volumes.
    pub volumes: Vec<VolumePlan>,
    /// Bounds.
    pub limits: Limits,
}

/// One volume of a data thread.
pub struct VolumePlan {
    /// The export's name.
    pub export: String,
    /// The opened image.
    pub image: Image,
    /// The minimum block size the export advertises: a peer that asks for larger ones does not fit.
    pub minimum_block: u32,
    /// The mirror machinery; `None` (`mirror = false`): served plain, only overlapping mutations are ordered.
    pub mirror: Option<MirrorPlan>,
}

/// The mirror of one volume.
pub struct MirrorPlan {
    /// The core's configuration; its peers are in the order of `peers`.
    pub config: MirrorConfig,
    /// What the metadata file holds.
    pub restored: Restored,
    /// The metadata file, opened and locked.
    pub metadata: std::fs::File,
    /// The peers.
    pub peers: Vec<PeerPlan>,
}

/// One peer, as the data thread needs it.
pub struct PeerPlan {
    /// Its name, for the log.
    pub name: String,
    /// A request left unanswered for this long means that the connection is lost.
    pub request_timeout: Duration,
    /// How long a lost connection may keep the next one waiting until the peer is seen to have closed it.
    pub fence_timeout: Duration,
}

/// Bounds of a data thread.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of host payload in flight per volume; at least one request of the largest size.
    pub budget_bytes: u64,
    /// Host requests in flight per volume.
    pub budget_requests: u32,
    /// A host connection without a request in flight that stays silent for this long is closed; `None`: never.
    pub idle_timeout: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            budget_bytes: 64 << 20,
            budget_requests: 1024,
            idle_timeout: None,
        }
    }
}

/// The present state of one volume.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeSnapshot {
    /// The export's name.
    pub export: String,
    /// Its size.
    pub size_bytes: u64,
    /// How the image does its I/O, for the operator.
    pub image_engine: String,
    /// Host connections.
    pub connections: usize,
    /// Host requests in flight.
    pub requests_in_flight: usize,
    /// Their payload bytes.
    pub bytes_in_flight: u64,
    /// Extents that are hot in the activity log; 0 for a plain volume.
    pub hot_extents: usize,
    /// The current generation identifier in hexadecimal; `None` for a plain volume.
    pub generation: Option<String>,
    /// Why the volume refuses changes; `None`: it does not.
    pub failed: Option<String>,
    /// Its peers, in plan order.
    pub peers: Vec<PeerSnapshot>,
}

/// The present state of one peer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerSnapshot {
    /// Its name.
    pub name: String,
    /// The connection to it.
    pub connection_state: ConnectionState,
    /// What flows over it.
    pub replication_state: ReplicationState,
    /// How far its data can be trusted.
    pub disk_state: DiskState,
    /// Bytes marked dirty.
    pub dirty_bytes: u64,
    /// Requests sent and not answered.
    pub in_flight: usize,
    /// Payload bytes that wait in RAM for the peer.
    pub queue_bytes: u64,
    /// The resync under way.
    pub resync: Option<ResyncSnapshot>,
    /// The last resync that finished.
    pub last_resync: Option<ResyncSnapshot>,
    /// The last thing that went wrong with this peer.
    pub last_error: Option<String>,
    /// Connection attempts since the last success.
    pub attempts: u32,
}

/// Progress of one resync.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ResyncSnapshot {
    /// Dirty bytes when it started.
    pub dirty_at_start_bytes: u64,
    /// Of these, covered so far, as payload or as zeroes.
    pub done_bytes: u64,
    /// Bytes shipped as payload.
    pub copied_bytes: u64,
    /// Bytes zeroed, or found zero, on the peer.
    pub zeroed_bytes: u64,
    /// Dirty bytes left.
    pub remaining_bytes: u64,
    /// Time since it started (until it ended).
    pub elapsed: Duration,
}
