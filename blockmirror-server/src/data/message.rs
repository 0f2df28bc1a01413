//! What the control side and a data thread say to each other.

use std::path::PathBuf;
use std::time::Duration;

use blockmirror_client::admin::{ConnectionState, DiskState, PeerCommand, ReplicationState};
use blockmirror_client::stream::Wire;
use mirror_core::config::{PeerConfig, PeerKind};
use mirror_core::identity::Role;
use mirror_core::metadata::ImageIdentity;
use mirror_core::resource::event::{Answer, Command, HostAccess};
use mirror_core::resource::{ResourceStatus, Why};
use mirror_core::state::LocalDisk;
use mirror_core::status::{Limit, NoData, VerifyStatus};
use tokio::sync::oneshot;

use super::plan::{PartnerPlan, PeerPlan, ViewPlan, VolumePlan};
use super::resource::StreamHello;
use crate::image::Image;

/// From the control side to a data thread. `volume` numbers the volumes of all resources of
/// [`DataPlan::resources`](super::DataPlan), `resource` the resources, `peer` is an index into
/// [`ResourcePlan::peers`](super::ResourcePlan).
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
    /// A stream to a peer of a resource has been negotiated, dialled here or there.
    StreamReady(StreamHandover),
    /// The answer to `DialStream`: the peer was reached and does not know the replication stream.
    StreamPlain {
        /// The resource.
        resource: usize,
        /// The peer.
        peer: usize,
    },
    /// The answer to `DialStream`: the attempt failed; the data thread asks again with the next attempt number.
    StreamFailed {
        /// The resource.
        resource: usize,
        /// The peer.
        peer: usize,
        /// Why, for the operator.
        error: String,
    },
    /// The answer to `DialStream`: before it was begun, `RestStream` came.
    StreamRested {
        /// The resource.
        resource: usize,
        /// The peer.
        peer: usize,
    },
    /// Report the present state of every volume of this thread, in plan order.
    Status(oneshot::Sender<Vec<VolumeSnapshot>>),
    /// Report the present state of every resource of this thread, in plan order.
    Resources(oneshot::Sender<Vec<ResourceSnapshot>>),
    /// An operator's command to a resource.
    ResourceCommand {
        /// The resource.
        resource: usize,
        /// What is asked.
        command: ResourceOrder,
        /// Told when it is done, or why it is not. It may take as long as a switchover.
        answer: oneshot::Sender<Answer>,
    },
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
    /// Serve a branch, read-only.
    ServeBranch {
        /// The resource it belongs to.
        resource: usize,
        /// The branch.
        plan: Box<ViewPlan>,
        /// Told the number of the volume it is, in the thread.
        answer: oneshot::Sender<Result<usize, String>>,
    },
    /// Serve a branch no longer.
    DropBranch {
        /// The number of the volume it is.
        volume: usize,
        /// Told once its hosts have been let go.
        answer: oneshot::Sender<()>,
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
    pub socket: Wire,
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
    pub socket: Wire,
    /// What was agreed.
    pub negotiated: nbd_proto::client::Negotiated,
    /// Bytes received after the handshake's last reply.
    pub unread: Vec<u8>,
}

/// What an operator asks of a resource.
pub enum ResourceOrder {
    /// What the resource's state machine carries out. Volumes are numbered within the resource.
    Core(Command),
    /// A new peer; its number is the next one.
    AddPeer {
        /// For the core.
        config: PeerConfig,
        /// For the links of every volume.
        plan: PeerPlan,
        /// For the streams.
        partner: PartnerPlan,
    },
    /// Forget a peer that is not connected. Its number is not used again.
    RemovePeer(usize),
    /// A new volume; its number is the next one of the thread, told by `FromData::VolumeAdded`.
    AddVolume(Box<VolumePlan>),
    /// The image of a volume is there again, or another one in its place.
    Attach {
        /// Numbered within the resource.
        volume: usize,
        /// Opened.
        image: Box<Image>,
        /// It is not the image of before: nothing in it counts.
        replaced: bool,
        /// What the metadata is to know it by.
        identity: ImageIdentity,
    },
    /// Serve a volume no longer: hosts are let go, what is in flight ends. Numbered within the resource.
    RemoveVolume(usize),
}

/// A connection that enters life as a replication stream.
pub struct StreamHandover {
    /// The resource.
    pub resource: usize,
    /// The peer.
    pub peer: usize,
    /// The connected stream socket.
    pub socket: Wire,
    /// Bytes received after the handshake's last message.
    pub unread: Vec<u8>,
    /// What the peer said of itself.
    pub hello: StreamHello,
    /// The volumes that this node named to the peer, in that order: others may be served by now.
    pub named: Vec<String>,
    /// This node has dialled: the volumes are numbered by its HELLO.
    pub dialled_by_us: bool,
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
    /// Reach the peer and ask for a stream, with the HELLO of the gate; answered by a `Stream*`. At most one per peer.
    DialStream {
        /// The resource.
        resource: usize,
        /// The peer.
        peer: usize,
        /// 0 for the first attempt since the last success; names the backoff before dialling.
        attempt: u32,
    },
    /// Stop trying to reach this peer; an answer that crosses this message is ignored by the data thread.
    CancelStream {
        /// The resource.
        resource: usize,
        /// The peer.
        peer: usize,
    },
    /// The peer's own connection is there: begin no new attempt; for one on its way the peer may have given its own up.
    RestStream {
        /// The resource.
        resource: usize,
        /// The peer.
        peer: usize,
    },
    /// A volume was added at run time and is served from now on.
    VolumeAdded {
        /// The resource.
        resource: usize,
        /// The export.
        export: String,
        /// Its number in the thread.
        volume: usize,
        /// Its number in the resource.
        number: usize,
    },
    /// The answer to `Stop`; the last message of a thread.
    Stopped {
        /// Every volume stopped in time and left clean metadata.
        clean: bool,
    },
    /// The thread cannot go on; the last message of a thread.
    Fatal(String),
}

/// The present state of a resource.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceSnapshot {
    /// Its name.
    pub name: String,
    /// Its role; `None`: it has none, for it is not mirrored.
    pub role: Option<Role>,
    /// What hosts may do.
    pub hosts: HostAccess,
    /// What the core says of itself; `None`: there is none.
    pub status: Option<ResourceStatus>,
    /// Why it is as it is; `None`: there is no core.
    pub why: Option<Why>,
    /// The time that [`Why`] counts in, now.
    pub now: Duration,
    /// Its streams, by peer.
    pub streams: Vec<StreamSnapshot>,
}

/// The present state of a stream to a peer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamSnapshot {
    /// The peer's name.
    pub peer: String,
    /// Connected.
    pub connected: bool,
    /// Requests sent and not answered, those held back for want of credit included.
    pub in_flight: usize,
    /// Payload bytes that wait for credit.
    pub bytes_waiting: u64,
    /// Age of the oldest request that is not answered.
    pub lag: Duration,
    /// The last heartbeat's way there and back.
    pub round_trip: Option<Duration>,
    /// Attempts to connect since the last success.
    pub attempts: u32,
    /// Connections that were lost to a wrong checksum.
    pub damaged: u64,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
}

/// The present state of one volume.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// The state of its image; `None` for a plain volume.
    pub disk: Option<LocalDisk>,
    /// An attach of an image is under way.
    pub attaching: bool,
    /// The current generation identifier in hexadecimal; `None` for a plain volume.
    pub generation: Option<String>,
    /// Why the volume refuses changes; `None`: it does not.
    pub failed: Option<String>,
    /// Changes of hosts that wait for a peer to come back.
    pub requests_held: usize,
    /// Nobody who is here has the data, though this node is Primary.
    pub no_data: Option<NoData>,
    /// The branch that is being written.
    pub branch: Option<BranchSnapshot>,
    /// Its peers, in plan order.
    pub peers: Vec<PeerSnapshot>,
}

/// What is saved before it is overwritten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BranchSnapshot {
    /// The file; `None`: it could not be made.
    pub file: Option<PathBuf>,
    /// Bytes of the volume it has.
    pub saved_bytes: u64,
    /// Why the copy that overwrites waits.
    pub trouble: Option<String>,
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
    /// What it is, as far as is known.
    pub kind: PeerKind,
    /// The comparison under way.
    pub verify: Option<VerifyStatus>,
    /// The last comparison that ended.
    pub last_verify: Option<VerifyStatus>,
    /// The last thing that went wrong with this peer.
    pub last_error: Option<String>,
    /// Connection attempts since the last success.
    pub attempts: u32,
    /// It has been away for so long, and changes of hosts wait for it.
    pub waited_for: Option<Duration>,
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
    /// Bytes found equal by digests.
    pub equal_bytes: u64,
    /// Dirty bytes left.
    pub remaining_bytes: u64,
    /// Bytes per second lately.
    pub bytes_per_second: Option<u64>,
    /// How long the rest will take at that speed.
    pub eta: Option<Duration>,
    /// Bytes per second that are allowed.
    pub allowed_bytes_per_second: u64,
    /// What keeps it from being faster.
    pub limit: Limit,
    /// Time since it started (until it ended).
    pub elapsed: Duration,
}
