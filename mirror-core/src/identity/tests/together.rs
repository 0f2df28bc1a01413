//! Several volumes of one resource.

use super::*;

/// What becomes of two volumes, mirrored on both nodes.
fn both(policy: SplitBrainPolicy, mine: [&Node; 2], theirs: [&Node; 2]) -> [(Verdict, Rule); 2] {
    let of = |mine: [&Node; 2], theirs: [&Node; 2]| {
        let pairs = [0, 1].map(|volume| (mine[volume].side(), theirs[volume].side()));
        decide_together(policy, &pairs)
    };
    let (found, other) = (of(mine, theirs), of(theirs, mine));
    for volume in 0..2 {
        assert_mirrored(found[volume], other[volume], mine[volume], theirs[volume]);
    }
    [0, 1].map(|volume| (found[volume].verdict, found[volume].rule))
}

const MANUAL: SplitBrainPolicy = SplitBrainPolicy::Manual;

/// Only one volume was written to on the Primary after they parted; the other node was promoted, and demoted again.
#[test]
fn what_is_given_up_is_given_up_in_every_volume() {
    let alpha = [Node::new("a", 2).for_peer(1).primary(), Node::new("a", 11).primary()];
    let bravo = [Node::new("b", 3).for_peer(1), Node::new("b", 13).for_peer(11)];
    let older = Verdict::OlderPrimary { mine: true };
    let found = both(MANUAL, alpha.each_ref(), bravo.each_ref());
    assert_eq!(found, [(SPLIT, Rule::PartedTogether), (older, Rule::OlderPrimary)]);
    let bravo = bravo.map(Node::discards);
    let found = both(MANUAL, alpha.each_ref(), bravo.each_ref());
    assert_eq!(found, [(SOURCE, Rule::DiscardMyData), (SOURCE, Rule::DiscardMyData)]);
    // Nor is the Primary's given up.
    let alpha = alpha.map(Node::discards);
    let bravo = bravo.map(|node| Node { discard: false, ..node });
    let found = both(MANUAL, alpha.each_ref(), bravo.each_ref());
    assert_eq!(found[0].0, SPLIT);
}

#[test]
fn a_newer_volume_of_the_loser_is_given_up_with_the_diverged_one() {
    let alpha = [Node::new("a", 2).for_peer(1), Node::new("a", 11)].map(Node::discards);
    let alpha = alpha.map(|node| node.since(9));
    let bravo = [Node::new("b", 3).for_peer(1).dirty(9), Node::new("b", 11).dirty(9)].map(|node| node.since(5));
    let found = both(MANUAL, alpha.each_ref(), bravo.each_ref());
    assert_eq!(found, [(TARGET, Rule::DiscardMyData), (TARGET, Rule::BitsOneSide)]);
    let newer = Node::new("a", 12).for_peer(11).discards().since(9);
    let found = both(MANUAL, [&alpha[0], &newer], bravo.each_ref());
    assert_eq!(found, [(TARGET, Rule::DiscardMyData), (TARGET, Rule::DiscardMyData)]);
    // By a policy too, counted over all volumes.
    let quiet = [&alpha[0], &newer].map(|node| Node {
        discard: false,
        ..node.clone()
    });
    for policy in [
        SplitBrainPolicy::DiscardYounger,
        SplitBrainPolicy::DiscardLeastChanges,
        SplitBrainPolicy::DiscardZeroChanges,
    ] {
        let found = both(policy, quiet.each_ref(), bravo.each_ref());
        assert_eq!(found, [(TARGET, Rule::Policy), (TARGET, Rule::Policy)]);
    }
    // All or nothing: one volume of the winner is not complete.
    let broken = bravo[1].clone().disk(LocalDisk::Inconsistent);
    let found = both(MANUAL, [&alpha[0], &newer], [&bravo[0], &broken]);
    assert_eq!(found[0], (SPLIT, Rule::PartedTogether));
}

#[test]
fn a_word_that_is_not_needed_changes_nothing() {
    let alpha = [Node::new("a", 2).for_peer(1), Node::new("a", 11)].map(Node::discards);
    let bravo = [Node::new("b", 1), Node::new("b", 11)];
    let found = both(MANUAL, alpha.each_ref(), bravo.each_ref());
    assert_eq!(
        found,
        [(SOURCE, Rule::BitmapForPeer), (Verdict::InStep, Rule::SameGeneration)]
    );
}

#[test]
fn volumes_that_went_on_on_different_nodes_have_parted() {
    let alpha = [Node::new("a", 2).for_peer(1), Node::new("a", 11)];
    let bravo = [Node::new("b", 1), Node::new("b", 13).history(&[11])];
    let found = both(MANUAL, alpha.each_ref(), bravo.each_ref());
    let rule = Rule::VolumesDisagree;
    assert_eq!(found, [(SPLIT, rule), (SPLIT_UNKNOWN, rule)]);
    let pairs = [0, 1].map(|volume| (alpha[volume].side(), bravo[volume].side()));
    let without = decide_together_without(MANUAL, &pairs, rule);
    assert_eq!(
        (without[0].verdict, without[1].verdict),
        (SOURCE, TARGET_FULL),
        "the rule is needed"
    );
    // A fresh or restored volume is no sign of that.
    let fresh = Node::fresh("a");
    let found = both(MANUAL, [&alpha[0], &fresh], [&bravo[0], &bravo[1]]);
    assert_eq!(found, [(SOURCE, Rule::BitmapForPeer), (TARGET_FULL, Rule::FreshOne)]);
}

/// One volume has parted, another has grown on one node only.
#[test]
fn no_word_and_no_policy_makes_volumes_of_different_sizes_fit() {
    let mut alpha = [
        Node::new("a", 2).for_peer(1).dirty(9),
        Node::new("a", 12).for_peer(11).dirty(9),
    ];
    alpha[1].volume.size += 4096;
    let bravo = [Node::new("b", 3).for_peer(1), Node::new("b", 13).for_peer(11)];
    let expected = [
        (SPLIT, Rule::PartedTogether),
        (Verdict::SizeMismatch, Rule::SizeMismatch),
    ];
    let zero = SplitBrainPolicy::DiscardZeroChanges;
    assert_eq!(both(zero, alpha.each_ref(), bravo.each_ref()), expected);
    let bravo = bravo.map(Node::discards);
    assert_eq!(both(MANUAL, alpha.each_ref(), bravo.each_ref()), expected);
}

#[test]
fn volumes_that_one_primary_kept_on_different_nodes_have_not_parted() {
    let alpha = [
        Node::new("a", 2).for_peer(1),
        Node::new("a", 11).disk(LocalDisk::Inconsistent),
    ];
    let bravo = [
        Node::new("b", 1).disk(LocalDisk::Outdated),
        Node::new("b", 13).history(&[11]),
    ];
    let found = both(MANUAL, alpha.each_ref(), bravo.each_ref());
    assert_eq!(found, [(SOURCE, Rule::BitmapForPeer), (TARGET_FULL, Rule::History)]);
}

/// A Primary whose metadata could not be written any more died: by what it had written it was whole, and is not.
#[test]
fn no_policy_decides_where_volumes_disagree() {
    let alpha = [Node::new("a", 2).for_peer(1).dirty(9), Node::new("a", 11).dirty(9)].map(|node| node.since(9));
    let bravo = [Node::new("b", 1), Node::new("b", 13).for_peer(11).dirty(5)].map(|node| node.since(5));
    for policy in [
        SplitBrainPolicy::Manual,
        SplitBrainPolicy::DiscardYounger,
        SplitBrainPolicy::DiscardLeastChanges,
        SplitBrainPolicy::DiscardZeroChanges,
    ] {
        let found = both(policy, alpha.each_ref(), bravo.each_ref());
        let rule = Rule::VolumesDisagree;
        assert_eq!(found, [(SPLIT, rule), (SPLIT, rule)], "{policy:?}");
    }
    let alpha = alpha.map(Node::discards);
    let found = both(MANUAL, alpha.each_ref(), bravo.each_ref());
    assert_eq!(
        found,
        [(TARGET, Rule::DiscardMyData), (TARGET, Rule::DiscardMyData)],
        "an operator does"
    );
}

#[test]
fn without_a_policys_rule_it_decides_nothing() {
    let (a, b) = (Node::new("a", 2).for_peer(1), Node::new("b", 3).for_peer(1).dirty(9));
    let pairs = [(a.side(), b.side())];
    let policy = SplitBrainPolicy::DiscardZeroChanges;
    assert_eq!(decide_together(policy, &pairs)[0].verdict, TARGET);
    assert_eq!(decide_together_without(policy, &pairs, Rule::Policy)[0].verdict, SPLIT);
}
