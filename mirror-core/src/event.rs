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
    },
    /// The connection is gone; none of its requests will be reported any more.
    PeerDown {
        /// The peer.
        peer: PeerIndex,
        /// The connection that is gone.
        connection: ConnectionId,
    },
    /// The operator asks.
    Command(Command),
    /// The time named by `next_timeout` has come.
    Timeout,
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
