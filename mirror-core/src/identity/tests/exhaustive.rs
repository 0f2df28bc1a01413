//! What holds for every pair of sides, and that every rule is needed.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::super::domain::{flags, generations};
use super::super::{explain, oracle};
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
        Rule::WithdrawnName,
        Rule::DiskState,
        Rule::BothIncomplete,
        Rule::PrimaryDecides,
        Rule::CrashedPrimary,
        Rule::OlderPrimary,
        Rule::SourceIncomplete,
        Rule::DiscardMyData,
    ]);
}

/// Rules that need a policy, or several volumes: `together.rs`, `policies.rs`.
const NOT_HERE: [Rule; 2] = [Rule::Policy, Rule::VolumesDisagree];

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

/// What no scenario of the simulator plays goes wrong in some pair when it is left out.
#[test]
fn a_pair_misses_what_no_scenario_plays() {
    let missed = oracle::left_out();
    for rule in [
        Rule::TwoPrimaries,
        Rule::WithdrawnName,
        Rule::BothIncomplete,
        Rule::PrimaryDecides,
        Rule::BitsOneSide,
        Rule::BitsBothSides,
        Rule::MissedFinish,
        Rule::Contradiction,
        Rule::CommonHistory,
        Rule::SourceIncomplete,
    ] {
        assert!(missed.iter().any(|(known, _)| *known == rule), "nothing misses {rule}");
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
    let text = explain("db", &found, &a.side(), &b.side()).to_string();
    for part in [
        "split brain",
        "parted-together",
        "0000000000000002",
        "8192 bytes dirty",
        "did not apply: size-mismatch",
        "on alpha `blockmirror demote db` if it is Primary, and `blockmirror connect --discard-my-data db beta`",
        "on beta `blockmirror connect db alpha`",
        "`blockmirror connect --discard-my-data db alpha`; on alpha `blockmirror connect db beta`",
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
    let found = decide(a, b);
    seen.add(Some(found.rule));
    seen.add(found.overruled);
    let complaint = oracle::complaint(a, b, found, decide(b, a));
    assert!(complaint.is_none(), "{complaint:?}: {found:?}\n{a:?}\n{b:?}");
}
