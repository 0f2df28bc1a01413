//! What goes into a [`Mirror`](crate::Mirror) and what comes out: ranges and decisions, never payloads.

mod input;
mod order;
mod output;

pub use input::{Command, CopyFailure, Input};
pub use order::{LinkKind, Order, OrderRefusal, SyncPlan, Ticket, VolumeMessage};
pub use output::{DisconnectReason, Event, MetadataWrite, Output, ReadFrom, Transaction};

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
    /// The volume has failed before ([`Fatal`](crate::state::Fatal)): nothing can be promised any more.
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
