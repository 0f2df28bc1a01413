//! The decision: one test per row of the table that names it, and everything over a small domain.
#![allow(clippy::unwrap_used)]

mod exhaustive;
mod meetings;
mod policies;
mod rows;
mod together;
mod withdrawn;

use super::decide::{Decision, Newer, Rule, Verdict};
use super::domain::Node;
use super::policy::SplitBrainPolicy;
use super::together::{decide_together, decide_together_without};
use super::{Generation, Meeting, Role};
use crate::state::LocalDisk;

/// What only single rows need of a side.
impl Node {
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

    fn crashed(mut self) -> Self {
        self.volume.crashed_primary = true;
        self
    }

    fn acks_wait(mut self) -> Self {
        self.volume.acks_wait = true;
        self
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
