//! What goes into a [`Mirror`](crate::Mirror) and what comes out: ranges and decisions, never payloads.

use alloc::vec::Vec;

use crate::range::ByteRange;

/// A host request that changes data or flushes; chosen by the shell, small and dense (it indexes a table), free to
/// be used again after [`Output::Release`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u32);

/// A peer of this volume, by its place in [`MirrorConfig::peers`](crate::MirrorConfig).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(pub u8);

/// One connection to a peer. The shell gives every new connection of a peer a larger number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u32);

/// One resync request; unique for the life of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CopyId(pub u64);

/// One metadata transaction; at most one is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub u64);

/// How a mutation changes its range. To replication they are one thing; the kind is passed through to the legs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MutationKind {
    /// The request's payload is stored.
    Write,
    /// The range reads as zeroes afterwards; `no_hole` asks for it to stay allocated.
    Zero {
        /// NBD_CMD_FLAG_NO_HOLE.
        no_hole: bool,
    },
    /// The range is deallocated. On every leg it reads as zeroes afterwards, so that legs stay identical.
    Trim,
}

/// A change of one range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mutation {
    /// Bytes changed.
    pub range: ByteRange,
    /// How.
    pub kind: MutationKind,
    /// Force unit access: durable on the leg before it is reported done.
    pub fua: bool,
}

impl Mutation {
    /// Bytes it carries: what it costs to keep it for a peer.
    pub const fn payload_bytes(&self) -> u64 {
        match self.kind {
            MutationKind::Write => self.range.length,
            MutationKind::Zero { .. } | MutationKind::Trim => 0,
        }
    }
}

/// What a host asks of the mirror. Reads do not come here: the local leg answers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostOp {
    /// Change a range.
    Mutate(Mutation),
    /// Make every mutation answered so far durable on every leg the peers' modes name.
    Flush,
}

/// Why a leg did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The leg reported an I/O error.
    Io,
    /// The leg has no space.
    NoSpace,
}

/// Why a host request is answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The local leg failed it.
    Local(Failure),
    /// A peer with `on_disconnect = "fail"` is not connected.
    PeerGone(PeerIndex),
    /// A flush of the local leg or a metadata write has failed before: nothing can be promised any more (fatal,
    /// never retried).
    VolumeFailed,
    /// The mirror is stopping.
    Stopping,
}

/// What a resync request did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Copied {
    /// Bytes read here and sent as payload.
    pub shipped: u64,
    /// Bytes that were a hole here and were zeroed (or found zero) on the peer.
    pub zeroed: u64,
}

/// Something happened outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A host request arrived.
    Host {
        /// Its name until `Release`.
        id: RequestId,
        /// What it asks.
        op: HostOp,
    },
    /// The connection of this request died: drop it if no leg has seen it. It is released without a reply, or
    /// goes on to the end as if nothing had happened. Unknown or released ids are ignored.
    Abandon(RequestId),
    /// The local leg finished [`Output::Local`].
    LocalDone {
        /// The request.
        id: RequestId,
        /// How it ended.
        outcome: Result<(), Failure>,
    },
    /// The local leg finished [`Output::LocalFlush`].
    LocalFlushDone(Result<(), Failure>),
    /// A peer finished [`Output::Peer`]; ignored when `connection` is not the present one.
    PeerDone {
        /// The peer.
        peer: PeerIndex,
        /// The connection it was sent on.
        connection: ConnectionId,
        /// The request.
        id: RequestId,
        /// How it ended.
        outcome: Result<(), Failure>,
    },
    /// A peer finished [`Output::PeerFlush`].
    PeerFlushDone {
        /// The peer.
        peer: PeerIndex,
        /// The connection it was sent on.
        connection: ConnectionId,
        /// How it ended.
        outcome: Result<(), Failure>,
    },
    /// A resync request ended: all of its range was copied, or it failed.
    CopyDone {
        /// The peer.
        peer: PeerIndex,
        /// The connection it was sent on.
        connection: ConnectionId,
        /// The resync request.
        copy: CopyId,
        /// What was moved, or which side failed.
        outcome: Result<Copied, CopyFailure>,
    },
    /// [`Output::Persist`] is on stable storage, or failed.
    Persisted {
        /// The transaction.
        id: TransactionId,
        /// How it ended; a failure is fatal for the volume.
        outcome: Result<(), Failure>,
    },
    /// A new connection to the peer is ready for commands. The shell promises that no request of an older connection
    /// to this peer can land any more (see the zombie-write rule in docs/ARCHITECTURE.md).
    PeerUp {
        /// The peer.
        peer: PeerIndex,
        /// The new connection.
        connection: ConnectionId,
        /// What is at its other end.
        link: LinkKind,
        /// Who has what the other lacks.
        plan: SyncPlan,
    },
    /// The connection is gone; none of its requests will be reported any more.
    PeerDown {
        /// The peer.
        peer: PeerIndex,
        /// The connection that is gone.
        connection: ConnectionId,
    },
    /// The resource asks for a durable change; answered by [`Output::OrderDone`].
    Order {
        /// Its name until it is done; chosen by the resource.
        ticket: Ticket,
        /// What.
        order: Order,
    },
    /// A peer's mirror of the same volume says something (see [`Output::ToPeer`]).
    FromPeer {
        /// The peer.
        peer: PeerIndex,
        /// The connection it came on.
        connection: ConnectionId,
        /// What.
        message: VolumeMessage,
    },
    /// [`Output::Fetch`] ended: what differed in its range was written here, or it failed.
    FetchDone {
        /// The peer.
        peer: PeerIndex,
        /// The connection it was asked on.
        connection: ConnectionId,
        /// The resync request.
        copy: CopyId,
        /// What was moved, or which side failed.
        outcome: Result<Copied, CopyFailure>,
    },
    /// [`Output::Compare`] ended.
    CompareDone {
        /// The peer.
        peer: PeerIndex,
        /// The connection it was asked on.
        connection: ConnectionId,
        /// The request.
        copy: CopyId,
        /// The parts of its range that differ, or which side failed.
        outcome: Result<Vec<ByteRange>, CopyFailure>,
    },
    /// The local leg failed a READ, or hangs: what `on_io_error` says is done.
    LocalReadFailed {
        /// Where.
        range: ByteRange,
        /// How.
        failure: Failure,
    },
    /// The operator asks.
    Command(Command),
    /// The time named by `next_timeout` has come.
    Timeout,
}

/// The name of an [`Order`] until it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u32);

/// What is at the other end of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// A plain NBD server: nothing is ordered there, its identity is kept here.
    #[default]
    Nbd,
    /// A blockmirror: one ordered stream for all volumes, epochs kept by the receiver.
    Stream,
}

/// Who has what the other lacks, as the handshake decided it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SyncPlan {
    /// What is dirty here is copied to the peer; nothing dirty: in step.
    #[default]
    Source,
    /// What is dirty here is fetched from the peer (this node is Primary), or will be pushed by it (it is not).
    Target,
}

/// A durable change of a volume's identity or leg, asked by the resource. Done when everything it means is on stable
/// storage here (and, where said, on the peers).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Become Primary: hosts may write when it is done. The data gets `generation` as its name, durably here and on
    /// every connected peer that is in step; a peer that is not connected holds what was current before, and one that
    /// is `doubtful` differs nobody knows where: all of it is dirty.
    Promote {
        /// The new name of the data.
        generation: u64,
        /// By peer index.
        doubtful: Vec<PeerIndex>,
    },
    /// Become Secondary: finish what is in flight, make every leg durable, leave clean metadata. Hosts have been shut
    /// out before.
    Demote,
    /// This leg is about to be overwritten by `source`: it is Inconsistent until [`VolumeMessage::SyncEnd`].
    BeginTarget {
        /// Who will overwrite it.
        source: PeerIndex,
    },
    /// Blocks the peer says differ: dirty from here on.
    Merge {
        /// The peer.
        peer: PeerIndex,
        /// Blocks.
        blocks: Vec<core::ops::Range<u64>>,
    },
    /// Nobody knows which blocks differ: all of the peer's are dirty.
    Fill {
        /// The peer.
        peer: PeerIndex,
    },
    /// The peer's data and ours are the same: take its generation and history for ours. Bits that are set stay (I9).
    Adopt {
        /// The peer.
        peer: PeerIndex,
        /// Its generation.
        current: u64,
        /// Its earlier ones.
        history: Vec<u64>,
    },
    /// The peer is this kind of server; remembered, so that a later start knows it before it has been reached.
    SetKind {
        /// The peer.
        peer: PeerIndex,
        /// What is there.
        kind: LinkKind,
    },
    /// Give the image up: it is Diskless from here on; requests go to a peer.
    Detach,
    /// The image is there (again). What was written meanwhile is dirty, to be fetched.
    Attach {
        /// It is not the image of before: nothing in it counts.
        replaced: bool,
    },
    /// The volume grows to `size` bytes: the image here and on every connected peer has them already.
    Resize {
        /// Bytes.
        size: u64,
        /// The new part is known to be zero everywhere: it is not copied.
        assume_clean: bool,
    },
    /// Compare everything with the peer.
    Verify {
        /// The peer.
        peer: PeerIndex,
        /// Copy what differs instead of only marking it.
        repair: bool,
        /// Go on where an earlier one stopped.
        resume: bool,
    },
    /// Stop the comparison with this peer.
    VerifyStop {
        /// The peer.
        peer: PeerIndex,
    },
    /// A new peer; its index is the next one.
    AddPeer(crate::config::PeerConfig),
    /// Forget a peer that is not connected. Its index is not used again before a restart.
    RemovePeer(PeerIndex),
}

/// Why an order is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OrderRefusal {
    /// Not in this role or state.
    WrongState,
    /// The volume has failed, or stops.
    Closed,
    /// A metadata write failed.
    Failed(Failure),
    /// No room for it: peers, or what the metadata file can hold.
    NoRoom,
    /// A newer order has replaced it, or the connection it depended on is gone.
    Overtaken,
}

/// What the mirrors of one volume on two nodes say to each other, in the order of the replication stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeMessage {
    /// From the Primary: the data is called `current` from here on in the stream; the peers in `outdated` (by node name)
    /// do not have it and hold `previous`.
    Generation {
        /// The new name.
        current: u64,
        /// The name before.
        previous: u64,
        /// Nodes that stay behind.
        outdated: Vec<alloc::string::String>,
    },
    /// The generation is durable here.
    GenerationDone {
        /// Which.
        current: u64,
    },
    /// From the source of a resync: everything is durable there; it is UpToDate under this name.
    SyncEnd {
        /// The source's generation.
        current: u64,
        /// The source's earlier ones.
        history: Vec<u64>,
    },
    /// From its target: durable; from here on it is in step.
    SyncEndDone {
        /// Which.
        current: u64,
    },
    /// From a Primary that was a target and has fetched everything: in step under this name.
    InStep {
        /// The common generation.
        current: u64,
    },
    /// From a Primary whose image is gone (Diskless) or back: its leg lacks every write from here on, or not.
    Leg {
        /// The state of its image.
        disk: crate::state::LocalDisk,
    },
}

/// Which side failed a resync request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CopyFailure {
    /// The local leg could not be read.
    Local(Failure),
    /// The peer could not be written.
    Peer(Failure),
}

/// What an operator asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// StandAlone to Connecting.
    Connect(PeerIndex),
    /// To StandAlone; stays there until `Connect`.
    Disconnect(PeerIndex),
    /// Mark every block of the peer dirty and copy all of them.
    Invalidate(PeerIndex),
    /// Stop: refuse new requests, finish what is in flight, make everything durable, leave clean metadata.
    Stop,
}

/// What the shell has to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Apply the request's mutation to the local leg; answer `LocalDone`.
    Local {
        /// The request.
        id: RequestId,
        /// What to do.
        mutation: Mutation,
    },
    /// Make everything the local leg has completed durable; answer `LocalFlushDone`. One at a time.
    LocalFlush,
    /// Send the request's mutation to a peer; answer `PeerDone`.
    Peer {
        /// The peer.
        peer: PeerIndex,
        /// The connection to send it on.
        connection: ConnectionId,
        /// The request.
        id: RequestId,
        /// What to do.
        mutation: Mutation,
    },
    /// Send a flush; answer `PeerFlushDone`. One at a time per peer.
    PeerFlush {
        /// The peer.
        peer: PeerIndex,
        /// The connection to send it on.
        connection: ConnectionId,
    },
    /// Resync: read the range here and write it to the peer, holes as holes; answer `CopyDone`.
    Copy {
        /// The peer.
        peer: PeerIndex,
        /// The connection to send it on.
        connection: ConnectionId,
        /// Its name.
        copy: CopyId,
        /// Block-aligned, but for the end of the volume.
        range: ByteRange,
    },
    /// A stream peer, `async`: everything sent before it on the stream is durable there before anything sent after it
    /// is applied. Not answered.
    PeerBarrier {
        /// The peer.
        peer: PeerIndex,
        /// The connection to send it on.
        connection: ConnectionId,
    },
    /// Resync to this leg: have the peer compare the range with what is here, and write here what differs; answer
    /// `FetchDone`. The range is closed to the host meanwhile.
    Fetch {
        /// The peer.
        peer: PeerIndex,
        /// The connection to ask on.
        connection: ConnectionId,
        /// Its name.
        copy: CopyId,
        /// Block-aligned, but for the end of the volume.
        range: ByteRange,
    },
    /// Verify: compare the range here and there, change nothing; answer `CompareDone`.
    Compare {
        /// The peer.
        peer: PeerIndex,
        /// The connection to ask on.
        connection: ConnectionId,
        /// Its name.
        copy: CopyId,
        /// Block-aligned, but for the end of the volume.
        range: ByteRange,
    },
    /// Say this to the peer's mirror of the same volume, in the order of the stream.
    ToPeer {
        /// The peer.
        peer: PeerIndex,
        /// The connection to send it on.
        connection: ConnectionId,
        /// What.
        message: VolumeMessage,
    },
    /// An order is carried out, or not.
    OrderDone {
        /// Which.
        ticket: Ticket,
        /// How it ended.
        outcome: Result<(), OrderRefusal>,
    },
    /// Make the transaction durable; answer `Persisted`. One at a time.
    Persist(Transaction),
    /// Answer the host.
    Reply {
        /// The request.
        id: RequestId,
        /// Ok, or why not.
        outcome: Result<(), Refusal>,
    },
    /// No leg needs the request's payload any more; the id is free.
    Release(RequestId),
    /// Start connecting to the peer (backoff is the shell's).
    Connect(PeerIndex),
    /// Close this connection, or stop trying when there is none; the mirror has already forgotten it.
    Disconnect {
        /// The peer.
        peer: PeerIndex,
        /// The connection to close; `None`: only stop trying to connect.
        connection: Option<ConnectionId>,
        /// Why.
        reason: DisconnectReason,
    },
    /// Something an operator wants to read in the log.
    Event(Event),
}

/// Why the mirror closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DisconnectReason {
    /// The operator asked: do not reconnect.
    Operator,
    /// The peer answered a request with an error: reconnect after the backoff.
    PeerFailed(Failure),
    /// The mirror stops: do not reconnect.
    Stopping,
}

/// Metadata to make durable: all of `first`, a barrier (fdatasync), all of `then`, a barrier. An empty list needs no
/// barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its name.
    pub id: TransactionId,
    /// Written and made durable first: bitmap pages, superblock.
    pub first: Vec<MetadataWrite>,
    /// Written and made durable afterwards: the activity log, by which extents go cold.
    pub then: Vec<MetadataWrite>,
}

/// Bytes at an offset of the metadata file; both multiples of 4 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataWrite {
    /// Where in the file.
    pub offset: u64,
    /// What.
    pub bytes: Vec<u8>,
}

/// A change of state worth a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer's connection or replication state changed; ask `status` for the present one.
    PeerState {
        /// The peer.
        peer: PeerIndex,
        /// Its replication state now.
        state: crate::state::PeerState,
    },
    /// Writes are answered without this peer from now on; the new generation is durable.
    Degraded {
        /// The peer.
        peer: PeerIndex,
        /// The generation that names the data from here on.
        generation: u64,
    },
    /// Resync started with this many dirty bytes.
    ResyncStarted {
        /// The peer.
        peer: PeerIndex,
        /// Dirty bytes.
        dirty: u64,
    },
    /// Resync ended: the peer has everything, durably.
    ResyncFinished {
        /// The peer.
        peer: PeerIndex,
        /// Payload bytes sent.
        shipped: u64,
        /// Bytes zeroed.
        zeroed: u64,
    },
    /// The peer's queue was full (`mode = "async"`): it is Behind.
    FellBehind {
        /// The peer.
        peer: PeerIndex,
    },
    /// A local flush or a metadata write failed: the volume refuses every further change.
    VolumeFailed,
    /// Stopped.
    Stopped {
        /// Everything is durable and the metadata says so; not on a volume that has failed.
        clean: bool,
    },
}
