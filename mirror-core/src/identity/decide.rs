//! Who copies from whom: the decision at a handshake, a pure function of what the two nodes say of one volume.
//!
//! docs/IDENTITY.md has the table. Rules are tried from the top, the first that applies decides; each looks at the pair
//! of sides, never at who asks, so that the verdict of the other node is the mirror image.

use core::fmt;

use super::{NodeIdentity, Role, VolumeIdentity};

/// What one node says of a volume, with what it says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The volume.
    pub volume: &'a VolumeIdentity,
    /// The node's name.
    pub node: &'a str,
    /// The random number of the daemon's present life.
    pub incarnation: u64,
    /// The node's role.
    pub role: Role,
    /// The operator gave this node's data up for this connection.
    pub discard_my_data: bool,
    /// When it last became Primary, in seconds since 1970 by its own clock; 0: never.
    pub primary_since: u64,
}

impl<'a> Side<'a> {
    /// A node and one of its volumes.
    pub fn new(node: &'a NodeIdentity, volume: &'a VolumeIdentity) -> Self {
        Self {
            volume,
            node: &node.node,
            incarnation: node.incarnation,
            role: node.role,
            discard_my_data: node.discard_my_data,
            primary_since: node.primary_since,
        }
    }
}

/// What becomes of a volume on two nodes, from the view of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The same data, nothing is dirty: nothing to copy.
    InStep,
    /// The other copies from here: what is dirty on either side, or everything (by digests).
    Source {
        /// Dirty bits do not tell what differs.
        full: bool,
    },
    /// The mirror image of `Source`.
    Target {
        /// Dirty bits do not tell what differs.
        full: bool,
    },
    /// Nobody ever declared data: connected, nothing is copied until an operator promotes one side.
    FreshBoth,
    /// Connected, but whoever would have to be copied from has no complete data; decided again when that changes.
    NoSource,
    /// Both went on from common data. Nobody's data is touched without an operator's word or policy.
    SplitBrain {
        /// Both know what they changed since they parted: dirty bits of both sides are all that differs.
        ancestor: bool,
    },
    /// Nothing in common.
    Unrelated,
    /// Both are Primary.
    TwoPrimaries,
    /// This node is Primary and the other has newer data: hosts here work on what was replaced elsewhere. Demote it.
    OlderPrimary {
        /// The older Primary is this node; else the other.
        mine: bool,
    },
    /// The volume's sizes differ.
    SizeMismatch,
}

impl Verdict {
    /// The same verdict from the other's view.
    #[must_use]
    pub fn mirrored(self) -> Self {
        match self {
            Self::Source { full } => Self::Target { full },
            Self::Target { full } => Self::Source { full },
            Self::OlderPrimary { mine } => Self::OlderPrimary { mine: !mine },
            same => same,
        }
    }

    /// The verdict as the wire carries it.
    pub fn code(self) -> u8 {
        match self {
            Self::InStep => 1,
            Self::Source { full: false } => 2,
            Self::Source { full: true } => 3,
            Self::Target { full: false } => 4,
            Self::Target { full: true } => 5,
            Self::FreshBoth => 6,
            Self::NoSource => 7,
            Self::SplitBrain { ancestor: true } => 8,
            Self::SplitBrain { ancestor: false } => 9,
            Self::Unrelated => 10,
            Self::TwoPrimaries => 11,
            Self::OlderPrimary { mine: true } => 12,
            Self::OlderPrimary { mine: false } => 13,
            Self::SizeMismatch => 14,
        }
    }

    /// Every verdict.
    pub const ALL: [Self; 14] = [
        Self::InStep,
        Self::Source { full: false },
        Self::Source { full: true },
        Self::Target { full: false },
        Self::Target { full: true },
        Self::FreshBoth,
        Self::NoSource,
        Self::SplitBrain { ancestor: true },
        Self::SplitBrain { ancestor: false },
        Self::Unrelated,
        Self::TwoPrimaries,
        Self::OlderPrimary { mine: true },
        Self::OlderPrimary { mine: false },
        Self::SizeMismatch,
    ];

    /// The verdict a wire value means; `None`: a newer release's.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.code() == code)
    }

    /// The two nodes may go on together; else both part, and an operator has to look.
    pub fn connects(self) -> bool {
        matches!(
            self,
            Self::InStep | Self::Source { .. } | Self::Target { .. } | Self::FreshBoth | Self::NoSource
        )
    }
}

/// Whose data is the newer one, whatever the states of the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Newer {
    /// This node's.
    Mine,
    /// The other's.
    Theirs,
    /// They are of the same generation.
    Same,
    /// Neither: diverged, unrelated, or there is no data yet.
    Neither,
}

impl Newer {
    /// The same from the other's view.
    #[must_use]
    pub fn mirrored(self) -> Self {
        match self {
            Self::Mine => Self::Theirs,
            Self::Theirs => Self::Mine,
            same => same,
        }
    }
}

/// The named rules, in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Sizes differ.
    SizeMismatch,
    /// Both are Primary.
    TwoPrimaries,
    /// A resync between the two was cut off: its source's dirty bits still tell what its target lacks.
    ResyncResumed,
    /// Both are fresh.
    FreshBoth,
    /// One is fresh: it has no data.
    FreshOne,
    /// One was put back to an earlier state, metadata included, and has not moved on since.
    Restored,
    /// One was put back to an earlier state, and then moved on.
    RestoredAndMovedOn,
    /// A Primary that lacks its data has withdrawn the other's generation, under which nothing was answered.
    WithdrawnName,
    /// Equal generations; one image is in a worse state.
    DiskState,
    /// Equal generations; neither image is complete.
    BothIncomplete,
    /// Equal generations, blocks marked: the Primary has the last word.
    PrimaryDecides,
    /// Equal generations, blocks marked: one was Primary and crashed.
    CrashedPrimary,
    /// Equal generations: only one side has blocks marked.
    BitsOneSide,
    /// Equal generations, both have blocks marked, neither was or both were Primary at a crash.
    BitsBothSides,
    /// Equal generations, nothing marked, though one still has a record that the other is behind: the last message of a
    /// resync was lost.
    MissedFinish,
    /// Equal generations, nothing marked.
    SameGeneration,
    /// Each is recorded as behind by the other: no order of events leads there.
    Contradiction,
    /// One is recorded at the other as having just this generation: dirty bits tell all.
    BitmapForPeer,
    /// One's generation is recorded at the other for a third node.
    BitmapForOther,
    /// One's generation is an earlier one of the other.
    History,
    /// Both recorded the same generation for the other when they parted, and both went on.
    PartedTogether,
    /// They have an earlier generation in common.
    CommonHistory,
    /// Nothing in common.
    Unrelated,
    /// The Primary would have to be overwritten with newer data under its hosts.
    OlderPrimary,
    /// What would have to be copied from is not complete.
    SourceIncomplete,
    /// One volume of the resource is newer here, another there.
    VolumesDisagree,
    /// The operator gave one side's data up.
    DiscardMyData,
    /// A policy of the configuration gave one side's data up.
    Policy,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Rule {
    /// Every rule, in the order in which they are tried.
    pub const ALL: [Self; 28] = [
        Self::SizeMismatch,
        Self::TwoPrimaries,
        Self::ResyncResumed,
        Self::FreshBoth,
        Self::FreshOne,
        Self::Restored,
        Self::RestoredAndMovedOn,
        Self::WithdrawnName,
        Self::DiskState,
        Self::BothIncomplete,
        Self::PrimaryDecides,
        Self::CrashedPrimary,
        Self::BitsOneSide,
        Self::BitsBothSides,
        Self::MissedFinish,
        Self::SameGeneration,
        Self::Contradiction,
        Self::BitmapForPeer,
        Self::BitmapForOther,
        Self::History,
        Self::PartedTogether,
        Self::CommonHistory,
        Self::Unrelated,
        Self::OlderPrimary,
        Self::SourceIncomplete,
        Self::VolumesDisagree,
        Self::DiscardMyData,
        Self::Policy,
    ];

    /// Its name, as logs, `why` and docs/IDENTITY.md have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SizeMismatch => "size-mismatch",
            Self::TwoPrimaries => "two-primaries",
            Self::ResyncResumed => "resync-resumed",
            Self::FreshBoth => "fresh-both",
            Self::FreshOne => "fresh-one",
            Self::Restored => "restored",
            Self::RestoredAndMovedOn => "restored-and-moved-on",
            Self::WithdrawnName => "withdrawn-name",
            Self::DiskState => "disk-state",
            Self::BothIncomplete => "both-incomplete",
            Self::PrimaryDecides => "primary-decides",
            Self::CrashedPrimary => "crashed-primary",
            Self::BitsOneSide => "bits-one-side",
            Self::BitsBothSides => "bits-both-sides",
            Self::MissedFinish => "missed-finish",
            Self::SameGeneration => "same-generation",
            Self::Contradiction => "contradiction",
            Self::BitmapForPeer => "bitmap-for-peer",
            Self::BitmapForOther => "bitmap-for-other",
            Self::History => "history",
            Self::PartedTogether => "parted-together",
            Self::CommonHistory => "common-history",
            Self::Unrelated => "unrelated",
            Self::OlderPrimary => "older-primary",
            Self::SourceIncomplete => "source-incomplete",
            Self::VolumesDisagree => "volumes-disagree",
            Self::DiscardMyData => "discard-my-data",
            Self::Policy => "policy",
        }
    }
}

/// What was decided, and by which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    /// What becomes of the volume.
    pub verdict: Verdict,
    /// Why.
    pub rule: Rule,
    /// The rule that `rule` has overruled, if one did: what would have been.
    pub overruled: Option<Rule>,
    /// Whose data is the newer one. With a verdict of `NoSource` the older side is at most Outdated.
    pub newer: Newer,
}
