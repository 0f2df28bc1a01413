//! What a mirror is told.

use alloc::vec::Vec;

use super::{
    ConnectionId, Copied, CopyId, Failure, HostOp, LinkKind, Order, PeerIndex, RequestId, SyncPlan, Ticket,
    TransactionId, VolumeMessage,
};
use crate::range::ByteRange;

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
    /// The local leg finished [`Output::Local`](crate::event::Output::Local).
    LocalDone {
        /// The request.
        id: RequestId,
        /// How it ended.
        outcome: Result<(), Failure>,
    },
    /// The local leg finished [`Output::LocalFlush`](crate::event::Output::LocalFlush).
    LocalFlushDone(Result<(), Failure>),
    /// A peer finished [`Output::Peer`](crate::event::Output::Peer); ignored when `connection` is not the present one.
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
    /// A peer finished [`Output::PeerFlush`](crate::event::Output::PeerFlush).
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
    /// [`Output::Persist`](crate::event::Output::Persist) is on stable storage, or failed.
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
    /// The resource asks for a durable change; answered by [`Output::OrderDone`](crate::event::Output::OrderDone).
    Order {
        /// Its name until it is done; chosen by the resource.
        ticket: Ticket,
        /// What.
        order: Order,
    },
    /// A peer's mirror of the same volume says something (see [`Output::ToPeer`](crate::event::Output::ToPeer)).
    FromPeer {
        /// The peer.
        peer: PeerIndex,
        /// The connection it came on.
        connection: ConnectionId,
        /// What.
        message: VolumeMessage,
    },
    /// [`Output::Fetch`](crate::event::Output::Fetch) ended: what differed in its range was written here, or it failed.
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
    /// [`Output::Compare`](crate::event::Output::Compare) ended.
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

/// Which side failed a resync request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CopyFailure {
    /// The local leg could not be read, or written.
    Local(Failure),
    /// The peer has answered that it could not: it could not be read there, or written.
    Peer(Failure),
    /// No answer of the peer, or none that makes sense: the connection is worth nothing.
    Link(Failure),
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
    /// Another volume's queue for this peer was full: this volume falls Behind with it, so that what the peer holds of
    /// all volumes stays of one moment.
    FallBehind(PeerIndex),
    /// Stop: refuse new requests, finish what is in flight, make everything durable, leave clean metadata.
    Stop,
}
