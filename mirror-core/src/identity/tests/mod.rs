//! The decision: one test per row of the table that names it, and everything over a small domain.
#![allow(clippy::unwrap_used)]

mod domain;
mod exhaustive;
mod meetings;
mod policies;
mod rows;
mod together;

use alloc::string::ToString;
use alloc::vec::Vec;

use super::decide::{Decision, Rule, Side, Verdict};
use super::policy::SplitBrainPolicy;
use super::together::{decide_together, decide_together_without};
use super::{Generation, Meeting, Role, VolumeIdentity};
use crate::state::LocalDisk;

/// A side that owns what it says.
#[derive(Clone, Debug)]
struct Node {
    name: &'static str,
    volume: VolumeIdentity,
    role: Role,
    discard: bool,
    primary_since: u64,
}

impl Node {
    /// With data of this generation, complete, nothing dirty.
    fn new(name: &'static str, current: Generation) -> Self {
        Self {
            name,
            volume: VolumeIdentity {
                name: "v".to_string(),
                size: 1 << 20,
                fresh: false,
                current,
                for_peer: 0,
                for_others: Vec::new(),
                history: Vec::new(),
                disk: LocalDisk::UpToDate,
                crashed_primary: false,
                dirty_bytes: 0,
                acks_wait: false,
                sync: 0,
                met: Meeting::NEVER,
                met_before: Meeting::NEVER,
            },
            role: Role::Secondary,
            discard: false,
            primary_since: 0,
        }
    }

    fn fresh(name: &'static str) -> Self {
        let mut node = Self::new(name, 0);
        node.volume.fresh = true;
        node
    }

    fn primary(mut self) -> Self {
        self.role = Role::Primary;
        self
    }

    fn discards(mut self) -> Self {
        self.discard = true;
        self
    }

    fn since(mut self, seconds: u64) -> Self {
        self.primary_since = seconds;
        self
    }

    fn for_peer(mut self, generation: Generation) -> Self {
        self.volume.for_peer = generation;
        self
    }

    fn for_other(mut self, generation: Generation) -> Self {
        self.volume.for_others.push(generation);
        self
    }

    fn history(mut self, history: &[Generation]) -> Self {
        self.volume.history = history.to_vec();
        self
    }

    fn disk(mut self, disk: LocalDisk) -> Self {
        self.volume.disk = disk;
        self
    }

    fn dirty(mut self, bytes: u64) -> Self {
        self.volume.dirty_bytes = bytes;
        self
    }

    fn crashed(mut self) -> Self {
        self.volume.crashed_primary = true;
        self
    }

    fn acks_wait(mut self) -> Self {
        self.volume.acks_wait = true;
        self
    }

    fn sync(mut self, token: u64) -> Self {
        self.volume.sync = token;
        self
    }

    fn met(mut self, met: Meeting, before: Meeting) -> Self {
        self.volume.met = met;
        self.volume.met_before = before;
        self
    }

    fn side(&self) -> Side<'_> {
        Side {
            volume: &self.volume,
            node: self.name,
            incarnation: self.name.len() as u64,
            role: self.role,
            discard_my_data: self.discard,
            primary_since: self.primary_since,
        }
    }
}

/// Decides, and has the other side decide as well: the two must be mirror images.
fn decided(mine: &Node, theirs: &Node) -> Decision {
    let found = decide(mine, theirs);
    assert_mirrored(found, decide(theirs, mine), mine, theirs);
    found
}

/// A resource of one volume.
fn decide(mine: &Node, theirs: &Node) -> Decision {
    decide_together(SplitBrainPolicy::Manual, &[(mine.side(), theirs.side())])[0]
}

fn decide_without(mine: &Node, theirs: &Node, rule: Rule) -> Decision {
    decide_together_without(SplitBrainPolicy::Manual, &[(mine.side(), theirs.side())], rule)[0]
}

fn assert_mirrored(found: Decision, other: Decision, mine: &Node, theirs: &Node) {
    let expected = Decision {
        verdict: found.verdict.mirrored(),
        newer: found.newer.mirrored(),
        ..found
    };
    assert_eq!(other, expected, "{mine:?}\n{theirs:?}");
}

#[track_caller]
fn expect(mine: &Node, theirs: &Node, verdict: Verdict, rule: Rule) {
    let found = decided(mine, theirs);
    assert_eq!((found.verdict, found.rule), (verdict, rule));
}

const SOURCE: Verdict = Verdict::Source { full: false };
const SOURCE_FULL: Verdict = Verdict::Source { full: true };
const TARGET: Verdict = Verdict::Target { full: false };
const TARGET_FULL: Verdict = Verdict::Target { full: true };
const SPLIT: Verdict = Verdict::SplitBrain { ancestor: true };
const SPLIT_UNKNOWN: Verdict = Verdict::SplitBrain { ancestor: false };
