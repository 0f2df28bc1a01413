//! Whose data a leg holds: generation identifiers, what two nodes tell each other of them, and what they conclude.
//!
//! A *generation identifier* names a state of a volume's data. A node gives its data a new one when it becomes Primary
//! and before it acknowledges the first write that a peer does not get. What it had before goes into its history, and,
//! for every peer that stays behind, into that peer's record.

pub mod decide;
#[cfg(any(test, feature = "sabotage"))]
mod domain;
mod explain;
mod lineage;
pub mod meeting;
#[cfg(any(test, feature = "sabotage"))]
pub mod oracle;
mod policy;
mod rules;
mod sides;
#[cfg(test)]
mod tests;
mod together;

use alloc::string::String;
use alloc::vec::Vec;

pub use decide::{Decision, Newer, Rule, Side, Verdict};
pub use explain::{Explanation, explain};
pub use meeting::{Meeting, NextMeeting, next_meeting};
pub use policy::SplitBrainPolicy;
pub use together::decide_together;
#[cfg(feature = "sabotage")]
pub use together::decide_together_without;

use crate::state::LocalDisk;

/// Names a generation of data; random, never 0.
pub type Generation = u64;

/// Earlier generations that a node remembers.
pub const HISTORY_MAX: usize = 32;

/// Withdrawn names that a node remembers.
pub const WITHDRAWN_MAX: usize = 8;

/// Earlier generations that a Primary tells a partner with a new one: those that it has withdrawn, and the one before them.
pub const EARLIER_MAX: usize = WITHDRAWN_MAX + 1;

/// Who may serve host writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// Serves hosts; its writes go to every peer.
    Primary,
    /// Takes writes from a Primary only.
    #[default]
    Secondary,
}

/// What a node says of one volume at a handshake, and what its metadata says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeIdentity {
    /// The volume's name, the same on both nodes.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// No data was ever declared: the metadata is new and nobody was Primary on it. `current` is not meaningful.
    pub fresh: bool,
    /// The generation of the data here.
    pub current: Generation,
    /// The generation the peer that is spoken to is known to hold; 0: it is in step as far as is known here.
    pub for_peer: Generation,
    /// The same of every other peer that is a blockmirror, 0 left out.
    pub for_others: Vec<Generation>,
    /// Earlier generations, the latest first, `HISTORY_MAX` at most.
    pub history: Vec<Generation>,
    /// Of a Primary that nobody with the data is connected to: names that it gave its data, and withdrew before anything was
    /// answered under them, the latest first, `WITHDRAWN_MAX` at most. Who holds one of them was told of it, and has just
    /// what `current` stands for.
    pub withdrawn: Vec<Generation>,
    /// State of the image here.
    pub disk: LocalDisk,
    /// It was Primary when it last stopped, and did not stop in order.
    pub crashed_primary: bool,
    /// Bytes in blocks marked here as different on the peer that is spoken to.
    pub dirty_bytes: u64,
    /// Of its last time as Primary: every write it had answered was on the peer before (`sync`), or when it ended in order.
    /// When in doubt: false.
    pub acks_wait: bool,
    /// The token of a resync between the two that has begun and has not ended; 0: there is none.
    pub sync: u64,
    /// The last meeting with the peer that is spoken to, as far as it is durable here.
    pub met: Meeting,
    /// The one before it, which counts as well until the next.
    pub met_before: Meeting,
}

impl VolumeIdentity {
    /// An image that is not there may hold writes that were answered and that nobody else has: its node was Primary when
    /// it ended, and did not say that every one of them was on the peer before.
    pub fn withholds(&self) -> bool {
        let peer_has_all = self.acks_wait && self.for_peer == 0;
        self.disk == LocalDisk::Diskless && self.crashed_primary && !peer_has_all
    }
}

/// What a node says of itself at a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Its name.
    pub node: String,
    /// Random, new at every start of the daemon.
    pub incarnation: u64,
    /// Counts what it has said on this connection: a later one replaces an earlier one.
    pub revision: u32,
    /// Its role.
    pub role: Role,
    /// The operator gave its data up for this connection (`connect --discard-my-data`).
    pub discard_my_data: bool,
    /// When it last became Primary, in seconds since 1970 by its own clock; 0: never.
    pub primary_since: u64,
    /// Its dirty bits tell what the other lacks, whoever wrote: it was Primary last, as far as it knows, or there is no third
    /// node. What a third node wrote as Primary may have reached only one of the two.
    pub bits_tell: bool,
    /// It was Primary last, as far as it knows: its volumes say whether it may have answered what nobody else has (`acks_wait`).
    pub was_primary: bool,
    /// Answered writes may be nowhere any more: the last Primary, which had answered them alone, has lost its image, and nobody
    /// is known to have become Primary since.
    pub answers_lost: bool,
    /// Its volumes, ordered by name.
    pub volumes: Vec<VolumeIdentity>,
}
