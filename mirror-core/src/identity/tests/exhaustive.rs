//! What holds for every pair of sides, and that every rule is needed.

use alloc::format;
use alloc::string::String;

use super::super::{explain, meeting};
use super::domain::{flags, generations};
use super::*;

#[test]
fn every_pair_of_identifiers() {
    let (mine, theirs) = (generations("a"), generations("b"));
    let mut seen = Seen::default();
    for a in &mine {
        for b in &theirs {
            check(a, b, &mut seen);
        }
    }
    seen.must_include(&[
        Rule::FreshBoth,
        Rule::FreshOne,
        Rule::Restored,
        Rule::RestoredAndMovedOn,
        Rule::BitsOneSide,
        Rule::BitsBothSides,
        Rule::MissedFinish,
        Rule::SameGeneration,
        Rule::Contradiction,
        Rule::BitmapForPeer,
        Rule::BitmapForOther,
        Rule::History,
        Rule::PartedTogether,
        Rule::CommonHistory,
        Rule::Unrelated,
    ]);
}

#[test]
fn every_pair_of_states_and_flags() {
    let (mine, theirs) = (flags("a"), flags("b"));
    let mut seen = Seen::default();
    for a in &mine {
        for b in &theirs {
            check(a, b, &mut seen);
        }
    }
    seen.must_include(&[
        Rule::SizeMismatch,
        Rule::TwoPrimaries,
        Rule::ResyncResumed,
        Rule::DiskState,
        Rule::BothIncomplete,
        Rule::PrimaryDecides,
        Rule::CrashedPrimary,
        Rule::OlderPrimary,
        Rule::SourceIncomplete,
        Rule::DiscardMyData,
    ]);
}

/// Rules that need a policy, or several volumes: `together.rs`, `policies.rs`; and what is left when no rule applies.
const NOT_HERE: [Rule; 3] = [Rule::Policy, Rule::VolumesDisagree, Rule::Unrelated];

/// A rule that can be left out without anything changing would be no rule.
#[test]
fn every_rule_is_needed() {
    let pairs: [(Vec<Node>, Vec<Node>); 2] = [(flags("a"), flags("b")), (generations("a"), generations("b"))];
    for rule in Rule::ALL.into_iter().filter(|rule| !NOT_HERE.contains(rule)) {
        let differs = |a: &Node, b: &Node| decide_without(a, b, rule) != decide(a, b);
        let needed = pairs
            .iter()
            .any(|(mine, theirs)| mine.iter().any(|a| theirs.iter().any(|b| differs(a, b))));
        assert!(needed, "nothing misses {rule}");
    }
}

#[test]
fn every_verdict_has_a_code_of_its_own_and_two_mirrorings_are_none() {
    for verdict in Verdict::ALL {
        assert_eq!(Verdict::from_code(verdict.code()), Some(verdict));
        assert_eq!(verdict.mirrored().mirrored(), verdict);
        assert_eq!(verdict.connects(), verdict.mirrored().connects());
    }
    assert_eq!(Verdict::from_code(0), None);
    assert_eq!(Verdict::from_code(15), None);
}

#[test]
fn an_explanation_names_rule_inputs_and_ways_out() {
    let (a, b) = (
        Node::new("alpha", 2).for_peer(1).dirty(8192),
        Node::new("beta", 3).for_peer(1),
    );
    let found = decided(&a, &b);
    let text = explain(&found, &a.side(), &b.side()).to_string();
    for part in [
        "split brain",
        "parted-together",
        "0000000000000002",
        "8192 bytes dirty",
        "did not apply: size-mismatch",
        "--discard-my-data` on alpha",
        "--discard-my-data` on beta",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[derive(Default)]
struct Seen(Vec<Rule>);

impl Seen {
    fn add(&mut self, rule: Option<Rule>) {
        if let Some(rule) = rule
            && !self.0.contains(&rule)
        {
            self.0.push(rule);
        }
    }

    fn must_include(&self, rules: &[Rule]) {
        for rule in rules {
            assert!(self.0.contains(rule), "{rule} decides nothing in this domain");
        }
    }
}

fn check(a: &Node, b: &Node, seen: &mut Seen) {
    let found = decided(a, b);
    seen.add(Some(found.rule));
    seen.add(found.overruled);
    let show = || format!("{found:?}\n{a:?}\n{b:?}");
    let discarded = found.rule == Rule::DiscardMyData;
    let trusted = meeting::common(&a.side(), &b.side()).is_some();
    let marked = a.volume.dirty_bytes + b.volume.dirty_bytes > 0;
    let same = a.volume.current == b.volume.current && !a.volume.fresh && !b.volume.fresh;
    match found.verdict {
        Verdict::InStep => {
            assert!(same && trusted && !marked, "I9: {}", show());
            assert_eq!(a.volume.disk, b.volume.disk, "{}", show());
            assert!(complete(a), "{}", show());
        }
        Verdict::Source { full } => {
            assert!(complete(a), "nothing whole to copy from: {}", show());
            check_copy(a, b, full || !trusted, discarded, &show);
            assert!(
                full || trusted,
                "dirty bits of before a restore are trusted: {}",
                show()
            );
        }
        Verdict::Target { .. } | Verdict::NoSource | Verdict::FreshBoth => {}
        _ => assert!(!found.verdict.connects()),
    }
    if a.role == Role::Primary && b.role == Role::Primary {
        assert!(!found.verdict.connects(), "I7: {}", show());
    }
    let resumed = found.rule == Rule::ResyncResumed;
    if found.verdict.connects() && !a.volume.fresh && !b.volume.fresh && !discarded && !resumed {
        assert!(
            same || knows(a, b) || knows(b, a),
            "diverged data is connected: {}",
            show()
        );
    }
}

/// `b` is overwritten from `a`: nothing of it is lost without the operator's word.
fn check_copy(a: &Node, b: &Node, full: bool, discarded: bool, show: &dyn Fn() -> String) {
    let same = a.volume.current == b.volume.current;
    let (a_knows, b_knows) = (knows(a, b), knows(b, a));
    let resumes = a.volume.sync != 0 && a.volume.sync == b.volume.sync && b.volume.disk == LocalDisk::Inconsistent;
    if !discarded && !b.volume.fresh && !resumes {
        assert!(same || (a_knows && !b_knows), "I7: data is overwritten: {}", show());
    }
    if b.role == Role::Primary {
        assert!(
            same && b.volume.disk != LocalDisk::UpToDate,
            "under its hosts: {}",
            show()
        );
    }
    // Only the resync that made it so knows what an Inconsistent image lacks; it had been given up when that began.
    let inconsistent = b.volume.disk == LocalDisk::Inconsistent;
    assert!(full || resumes || !inconsistent, "blocks of others: {}", show());
    // Given up: what is marked in `b` counts from where they parted, too.
    // What is marked in `a` counts from its record of `b` on; an earlier one in a history stands behind a later one.
    let place = |generation| a.volume.history.iter().position(|earlier| *earlier == generation);
    let since_record = match (place(b.volume.current), place(a.volume.for_peer)) {
        (Some(current), Some(record)) => record > current,
        _ => false,
    };
    let bits_tell = since_record
        || resumes
        || same
        || a.volume.for_peer == b.volume.current
        || (discarded && [a.volume.current, a.volume.for_peer].contains(&b.volume.for_peer));
    assert!(full || bits_tell, "dirty bits do not tell: {}", show());
}

fn knows(a: &Node, b: &Node) -> bool {
    let generation = b.volume.current;
    a.volume.for_peer == generation
        || a.volume.for_others.contains(&generation)
        || a.volume.history.contains(&generation)
}

fn complete(node: &Node) -> bool {
    !node.volume.fresh && matches!(node.volume.disk, LocalDisk::UpToDate | LocalDisk::Outdated)
}
