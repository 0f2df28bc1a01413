//! What a policy may decide, and what it may not.

use super::*;

fn parted(mine: u64, theirs: u64) -> (Node, Node) {
    (
        Node::new("a", 2).for_peer(1).dirty(mine).since(100),
        Node::new("b", 3).for_peer(1).dirty(theirs).since(200),
    )
}

#[track_caller]
fn expect_by(policy: SplitBrainPolicy, a: &Node, b: &Node, verdict: Verdict) {
    let of = |mine: &Node, theirs: &Node| decide_together(policy, &[(mine.side(), theirs.side())])[0];
    let found = of(a, b);
    assert_mirrored(found, of(b, a), a, b);
    assert_eq!(found.verdict, verdict);
    let by_policy = (Rule::Policy, Some(Rule::PartedTogether));
    if verdict != SPLIT {
        assert_eq!((found.rule, found.overruled), by_policy);
    }
}

#[test]
fn manual_decides_nothing() {
    let (a, b) = parted(0, 9);
    expect_by(SplitBrainPolicy::Manual, &a, &b, SPLIT);
}

#[test]
fn the_younger_primary_gives_up() {
    let (a, b) = parted(1, 9);
    expect_by(SplitBrainPolicy::DiscardYounger, &a, &b, SOURCE);
    expect_by(SplitBrainPolicy::DiscardYounger, &a, &b.clone().primary(), SPLIT);
    expect_by(SplitBrainPolicy::DiscardYounger, &a.clone().primary(), &b, SOURCE);
    expect_by(SplitBrainPolicy::DiscardYounger, &a.clone().since(0), &b, SPLIT);
    expect_by(SplitBrainPolicy::DiscardYounger, &a.since(200), &b, SPLIT);
}

#[test]
fn the_one_with_fewer_changes_gives_up() {
    let (a, b) = parted(1, 9);
    expect_by(SplitBrainPolicy::DiscardLeastChanges, &a, &b, TARGET);
    expect_by(SplitBrainPolicy::DiscardLeastChanges, &a.clone().primary(), &b, SPLIT);
    let broken = b.clone().disk(LocalDisk::Inconsistent);
    expect_by(SplitBrainPolicy::DiscardLeastChanges, &a, &broken, SPLIT);
    expect_by(SplitBrainPolicy::DiscardLeastChanges, &a, &b.dirty(1), SPLIT);
}

#[test]
fn the_one_without_changes_gives_up() {
    let (a, b) = parted(0, 9);
    expect_by(SplitBrainPolicy::DiscardZeroChanges, &a, &b, TARGET);
    expect_by(SplitBrainPolicy::DiscardZeroChanges, &b, &a, SOURCE);
    let (a, b) = parted(1, 9);
    expect_by(SplitBrainPolicy::DiscardZeroChanges, &a, &b, SPLIT);
    let (a, b) = parted(0, 0);
    expect_by(SplitBrainPolicy::DiscardZeroChanges, &a, &b, SOURCE);
}

#[test]
fn nothing_but_a_known_ancestor_is_touched() {
    let unknown = (
        Node::new("a", 3).history(&[1]),
        Node::new("b", 4).history(&[2, 1]).dirty(9),
    );
    let unrelated = (Node::new("a", 3), Node::new("b", 4).dirty(9));
    for (a, b) in [unknown, unrelated] {
        let (a, b) = (a.since(1), b.since(2));
        for policy in [
            SplitBrainPolicy::DiscardYounger,
            SplitBrainPolicy::DiscardLeastChanges,
            SplitBrainPolicy::DiscardZeroChanges,
        ] {
            let found = decided(&a, &b);
            assert_eq!(decide_together(policy, &[(a.side(), b.side())]), [found]);
        }
    }
}
