//! What frames say. Payload bytes are not here: they follow their frame on the wire and are the shell's.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use crate::event::{Failure, VolumeMessage};
use crate::identity::{NodeIdentity, Role};
use crate::range::ByteRange;
use crate::state::LocalDisk;

/// The newest version of the stream this build speaks.
pub const VERSION: u16 = 3;
/// The oldest version of the stream this build speaks. (In version 1 a Primary names those that stay behind, which cannot
/// include whom it does not know; in version 2 it does not tell which names it has withdrawn.)
pub const VERSION_MIN: u16 = 3;
/// Bytes one digest of a COMPARE or FETCH stands for.
pub const DIGEST_BLOCK_BYTES: u64 = 4096;

/// The number of a request in its direction of a stream: 1, 2, 3 and so on.
pub type Sequence = u64;

/// Numbers of requests. As many as mostly end together need no memory of their own.
pub type Sequences = smallvec::SmallVec<[Sequence; 20]>;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A numbered request.
    Request {
        /// Its number.
        sequence: Sequence,
        /// Of which volume, by its place in the HELLO of the node that dialled.
        volume: u16,
        /// What is asked.
        request: Request,
    },
    /// An answer.
    Answer(Answer),
    /// Between the resources of two nodes.
    Control(Control),
}

/// What one node asks of the other about a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Replicated host write; payload of the range's length follows.
    Write {
        /// Where.
        range: ByteRange,
        /// Durable before it is answered.
        fua: bool,
    },
    /// Replicated zeroing.
    Zero {
        /// Where.
        range: ByteRange,
        /// Keep it allocated.
        no_hole: bool,
        /// Durable before it is answered.
        fua: bool,
    },
    /// Replicated deallocation: reads as zeroes afterwards.
    Trim {
        /// Where.
        range: ByteRange,
        /// Durable before it is answered.
        fua: bool,
    },
    /// Answered when every mutation and copy of this volume before it is durable.
    Flush,
    /// End of an epoch of the whole resource: all before it, in every volume, is durable before anything after it is
    /// applied. Not answered by itself.
    Barrier,
    /// Digests of the range, one per [`DIGEST_BLOCK_BYTES`]: which blocks differ there? Answered by `Differs`.
    Compare {
        /// Where.
        range: ByteRange,
        /// One per block ([`digest_blocks`](super::digest::digest_blocks)), the last one of a shorter block perhaps.
        digests: Vec<u64>,
    },
    /// As `Compare`, but answered by the contents of what differs: `Contents`, then payload.
    Fetch {
        /// Where.
        range: ByteRange,
        /// One per block.
        digests: Vec<u64>,
    },
    /// Resync: payload of the range's length follows. Applied like a write, saved to the branch before if one is open.
    CopyWrite {
        /// Where.
        range: ByteRange,
    },
    /// Resync: the range is a hole at the source.
    CopyZero {
        /// Where.
        range: ByteRange,
    },
    /// A READ that this node cannot serve from its own image.
    Read {
        /// Where.
        range: ByteRange,
    },
    /// Between the mirrors of the volume; takes its place in the order of the stream.
    Message(VolumeMessage),
}

/// What a request means for whoever receives it, apart from what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Need {
    /// Bytes of credit it takes: what it carries, or makes the receiver read.
    pub cost: u64,
    /// It changes the volume.
    pub mutates: bool,
    /// It is a [`Request::Barrier`]: not answered.
    pub barrier: bool,
}

impl Request {
    /// What it means for its receiver; the same on both nodes.
    pub fn need(&self) -> Need {
        let cost = match self {
            Self::Write { range, .. }
            | Self::CopyWrite { range }
            | Self::Compare { range, .. }
            | Self::Fetch { range, .. }
            | Self::Read { range } => range.length,
            _ => 0,
        };
        let mutates = matches!(
            self,
            Self::Write { .. } | Self::Zero { .. } | Self::Trim { .. } | Self::CopyWrite { .. } | Self::CopyZero { .. }
        );
        Need {
            cost,
            mutates,
            barrier: matches!(self, Self::Barrier),
        }
    }

    /// Bytes of payload that follow it.
    pub fn payload_bytes(&self) -> u64 {
        match self {
            Self::Write { range, .. } | Self::CopyWrite { range } => range.length,
            _ => 0,
        }
    }
}

/// An answer to numbered requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// These are done: mutations applied (durable with FUA), flushes durable. In any order.
    Done(Sequences),
    /// This failed.
    Failed {
        /// Which.
        sequence: Sequence,
        /// How.
        failure: Failure,
    },
    /// Answer to `Compare`: the parts of its range that differ, in order.
    Differs {
        /// Which.
        sequence: Sequence,
        /// Block-aligned, but for the end of the volume.
        ranges: Vec<ByteRange>,
    },
    /// Answer to `Fetch` and `Read`: payload of all these ranges follows, one behind the other.
    Contents {
        /// Which.
        sequence: Sequence,
        /// In order. Of a `Fetch`: what differs.
        ranges: Vec<ByteRange>,
        /// Of these, in order: holes, no payload.
        holes: Vec<ByteRange>,
    },
}

/// Between the resources of two nodes: identity, roles, credits, life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Who I am and what I have.
    Identity(NodeIdentity),
    /// What I conclude; the connection goes on when both have concluded the same of the same revisions.
    Verdict {
        /// Of mine.
        my_revision: u32,
        /// Of yours.
        your_revision: u32,
        /// One per common volume, by name order; see `identity::Verdict::code`.
        verdicts: Vec<u8>,
        /// Free text of the reason, for the other's log.
        text: String,
    },
    /// Blocks of a volume that are dirty here for you; more follow until `last`.
    Bitmap {
        /// By its place in the HELLO.
        volume: u16,
        /// Runs of blocks, in order.
        blocks: Vec<Range<u64>>,
        /// The end.
        last: bool,
    },
    /// My role and the states of my images, whenever one of them changes.
    State {
        /// Role.
        role: Role,
        /// By volume.
        disks: Vec<LocalDisk>,
    },
    /// I want to be Primary: become Secondary, in order.
    AskDemote,
    /// I am Secondary; everything of mine is durable on you.
    Demoted,
    /// I do not, because.
    DemoteRefused(String),
    /// I want to become Primary: I tell you before I do.
    Promoting,
    /// No objection.
    PromoteGranted,
    /// An objection.
    PromoteRefused(String),
    /// Grow your image of this volume.
    Grow {
        /// By its place in the HELLO.
        volume: u16,
        /// Bytes.
        size: u64,
    },
    /// The image has this size.
    Grown {
        /// By its place in the HELLO.
        volume: u16,
        /// Bytes.
        size: u64,
    },
    /// It cannot.
    GrowRefused {
        /// By its place in the HELLO.
        volume: u16,
        /// Why.
        why: String,
    },
    /// Every image of this volume has the size now: let the volume have it.
    Resize {
        /// By its place in the HELLO.
        volume: u16,
        /// Bytes.
        size: u64,
        /// The new part is known to be zero everywhere.
        assume_clean: bool,
    },
    /// The volume durably has this size here.
    Resized {
        /// By its place in the HELLO.
        volume: u16,
        /// Bytes.
        size: u64,
    },
    /// I live. How much I have asked of you so far, so that you know what you miss when I am gone.
    Heartbeat {
        /// My clock, microseconds, echoed.
        sent_us: u64,
        /// Age of the oldest write you have not applied, microseconds; 0: none.
        lag_us: u64,
        /// Payload bytes of host writes since the stream began.
        bytes: u64,
        /// Host flushes since the stream began.
        flushes: u64,
        /// The last sequence number I have queued.
        head: Sequence,
    },
    /// Echo.
    HeartbeatAck {
        /// Of the heartbeat.
        sent_us: u64,
    },
    /// You may send this much more.
    Credit {
        /// Payload bytes.
        bytes: u64,
        /// Requests.
        requests: u32,
    },
    /// Let us meet anew: both write down, for every volume, the meeting after the present one with this salt. Sent by
    /// the node whose name comes first, one at a time.
    Meet {
        /// Random.
        salt: u64,
    },
    /// It is durable here.
    Met {
        /// Of the `Meet`.
        salt: u64,
    },
    /// I close this connection, because.
    Goodbye {
        /// Do not come back before an operator says so.
        stand_alone: bool,
        /// Why.
        reason: String,
    },
    /// I close this connection, because; the next one may come at once. Without a word only what has died closes.
    Again {
        /// Why.
        reason: String,
    },
}
