//! What a resource asks of a mirror, and what mirrors of one volume say to each other.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use super::{Failure, PeerIndex};
use crate::config::PeerConfig;
use crate::identity::Meeting;
use crate::state::LocalDisk;

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
    /// What is dirty here is copied to the peer. A plain server without dirty blocks is in step.
    #[default]
    Source,
    /// Nobody lacks anything.
    InStep,
    /// What is dirty here is fetched from the peer (this node is Primary), or will be pushed by it (it is not).
    Target,
    /// What is dirty here is fetched by the peer, which is Primary: nothing is copied from this side.
    Fetched,
}

/// A durable change of a volume's identity or leg, asked by the resource. Done when everything it means is on stable
/// storage here (and, where said, on the peers).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Could this node become Primary with this volume? Nothing is in flight, everything applied so far is durable, and
    /// the metadata can be written. Asked of all volumes of a resource before any of them is told to.
    Agree,
    /// Become Primary: hosts may write when it is done. The data gets `generation` as its name, durably here and on
    /// every connected peer that is in step; a peer that is not connected holds what was current before, and one that
    /// is `doubtful` differs nobody knows where: all of it is dirty.
    Promote {
        /// The new name of the data.
        generation: u64,
        /// By peer index.
        doubtful: Vec<PeerIndex>,
        /// When, in seconds since 1970 by this node's clock: remembered for policies that compare it.
        since: u64,
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
        blocks: Vec<Range<u64>>,
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
    /// The operator gives the present data here up for the peer's, or takes that back. It is forgotten when the data
    /// become others, or this node Primary.
    GiveUp {
        /// The peer.
        peer: PeerIndex,
        /// Or takes it back.
        given_up: bool,
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
    /// The two nodes have met: both tokens go into the peer's record, and what is known of lost answers into the superblock.
    Met {
        /// The peer.
        peer: PeerIndex,
        /// The present meeting.
        met: Meeting,
        /// The one before.
        before: Meeting,
        /// Answered writes may be nowhere any more: see [`NodeIdentity`](crate::identity::NodeIdentity).
        answers_lost: bool,
    },
    /// The operator parts with the peer, and goes on without it until it is back whatever `on_disconnect` says; or wants it
    /// back. Not durable: the next life of the daemon waits for it again.
    Part {
        /// The peer.
        peer: PeerIndex,
        /// Or wants it back.
        parted: bool,
    },
    /// A new peer; its index is the next one.
    AddPeer(PeerConfig),
    /// Forget a peer that is not connected. Its index is not used again before a restart.
    RemovePeer(PeerIndex),
}

/// Why an order is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OrderRefusal {
    /// Not in this role or state.
    WrongState,
    /// No peer that has everything is here, and the image may be the only one with what was answered.
    Withheld,
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
    /// From the Primary: the data is called `current` from here on in the stream; the nodes in `in_step`, beside the one
    /// that hears this, have it as far as the Primary knows. Of any other it says nothing: it stays behind.
    Generation {
        /// The new name.
        current: u64,
        /// The names before, the latest first: [`EARLIER_MAX`](crate::identity::EARLIER_MAX) at most.
        earlier: Vec<u64>,
        /// Nodes that do not stay behind.
        in_step: Vec<String>,
    },
    /// The generation is durable here.
    GenerationDone {
        /// Which.
        current: u64,
    },
    /// From the source of a resync that no handshake has announced (the peer was Behind, or its data were declared
    /// worthless): parts of the target's data will be newer than others until `SyncEnd`.
    SyncBegin,
    /// From its target: durable; copies may come.
    SyncBeginDone,
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
    /// From the Primary: another partner has everything too, under this name.
    AlsoInStep {
        /// Its name.
        node: String,
        /// The common generation.
        current: u64,
    },
    /// From a Primary whose image is gone (Diskless) or back: its leg lacks every write from here on, or not.
    Leg {
        /// The state of its image.
        disk: LocalDisk,
    },
}
