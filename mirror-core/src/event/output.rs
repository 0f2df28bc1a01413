//! What a mirror wants done.

use alloc::vec::Vec;

use super::{
    ConnectionId, CopyId, Failure, Mutation, OrderRefusal, PeerIndex, Refusal, RequestId, Ticket, TransactionId,
    VolumeMessage,
};
use crate::range::ByteRange;
use crate::state::{Fatal, LocalDisk, PeerState};

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
    /// The mirror stops, or is Secondary and the peer a plain server: do not reconnect.
    Stopping,
    /// The roles of the two nodes have changed in a way that the handshake has to decide anew: reconnect at once.
    Handshake,
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
        state: PeerState,
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
    /// Verify found that the legs differ there: it is dirty.
    Different {
        /// The peer.
        peer: PeerIndex,
        /// Where.
        range: ByteRange,
    },
    /// Verify has come to its end, or was stopped.
    VerifyFinished {
        /// The peer.
        peer: PeerIndex,
        /// Bytes found different.
        different: u64,
        /// Everything was compared.
        finished: bool,
    },
    /// The state of the local image changed, durably where it can be.
    Disk(LocalDisk),
    /// Nothing can be promised any more: the volume refuses every further change.
    VolumeFailed(Fatal),
    /// Stopped.
    Stopped {
        /// Everything is durable and the metadata says so; not on a volume that has failed.
        clean: bool,
    },
}

/// Who can serve a READ of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadFrom {
    /// The local leg.
    Local,
    /// This peer, on this connection.
    Peer(PeerIndex, ConnectionId),
    /// Nobody, as long as no peer comes that has the newest data of it.
    Nowhere,
}
