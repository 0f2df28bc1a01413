//! The rows of the reference's table, by their names there, and what we do differently.

use super::*;

const MIB: u64 = 1 << 20;

#[test]
fn row_2_just_created_both() {
    expect(
        &Node::fresh("a"),
        &Node::fresh("b"),
        Verdict::FreshBoth,
        Rule::FreshBoth,
    );
}

#[test]
fn row_3_just_created_self() {
    expect(&Node::fresh("a"), &Node::new("b", 1), TARGET_FULL, Rule::FreshOne);
}

#[test]
fn row_4_just_created_peer() {
    expect(&Node::new("a", 1), &Node::fresh("b"), SOURCE_FULL, Rule::FreshOne);
    // An empty or replaced image that says of itself that it is complete is still fresh; and a fresh node is given
    // nothing by one that has nothing whole.
    let broken = Node::new("a", 1).disk(LocalDisk::Inconsistent);
    let found = decided(&broken, &Node::fresh("b"));
    assert_eq!((found.verdict, found.rule), (Verdict::NoSource, Rule::SourceIncomplete));
    assert_eq!(found.overruled, Some(Rule::FreshOne));
}

#[test]
fn row_5_sync_source_missed_finish() {
    let source = Node::new("a", 2).for_peer(1).dirty(MIB);
    expect(&source, &Node::new("b", 2), SOURCE, Rule::BitsOneSide);
    // Nothing is left: only the record is out of date.
    let source = Node::new("a", 2).for_peer(1);
    expect(&source, &Node::new("b", 2), Verdict::InStep, Rule::MissedFinish);
}

#[test]
fn row_6_sync_target_peer_missed_finish() {
    let source = Node::new("b", 2).for_peer(1).dirty(MIB);
    expect(&Node::new("a", 2), &source, TARGET, Rule::BitsOneSide);
}

#[test]
fn row_7_reconnected() {
    expect(
        &Node::new("a", 1),
        &Node::new("b", 1),
        Verdict::InStep,
        Rule::SameGeneration,
    );
    expect(
        &Node::new("a", 1).primary(),
        &Node::new("b", 1),
        Verdict::InStep,
        Rule::SameGeneration,
    );
}

#[test]
fn row_8_crashed_primary() {
    let crashed = Node::new("a", 1).crashed().dirty(MIB);
    expect(&crashed, &Node::new("b", 1), SOURCE, Rule::CrashedPrimary);
    expect(&crashed, &Node::new("b", 1).dirty(MIB), SOURCE, Rule::CrashedPrimary);
    // Its activity log was empty: no write was under way.
    expect(
        &Node::new("a", 1).crashed(),
        &Node::new("b", 1),
        Verdict::InStep,
        Rule::SameGeneration,
    );
}

#[test]
fn rows_9_and_10_lost_quorum_a_primary_decides() {
    let primary = Node::new("a", 1).primary();
    let crashed = Node::new("b", 1).crashed().dirty(MIB);
    expect(&primary, &crashed, SOURCE, Rule::PrimaryDecides);
    expect(
        &primary.clone().dirty(MIB),
        &Node::new("b", 1).dirty(MIB),
        SOURCE,
        Rule::PrimaryDecides,
    );
}

#[test]
fn row_11_the_survivor_of_a_synchronous_crash_is_the_source() {
    let crashed = Node::new("a", 1).crashed().acks_wait().dirty(MIB);
    expect(&crashed, &Node::new("b", 1), TARGET, Rule::CrashedPrimary);
    // It was known not to have everything.
    expect(
        &crashed.clone().for_peer(7),
        &Node::new("b", 1),
        SOURCE,
        Rule::CrashedPrimary,
    );
}

#[test]
fn row_12_connected_before_with_bits_is_never_no_sync() {
    expect(
        &Node::new("a", 1).dirty(4096),
        &Node::new("b", 1),
        SOURCE,
        Rule::BitsOneSide,
    );
    expect(
        &Node::new("a", 1),
        &Node::new("b", 1).dirty(4096),
        TARGET,
        Rule::BitsOneSide,
    );
}

#[test]
fn row_13_both_off() {
    let both = |since: u64| Node::new("a", 1).crashed().dirty(MIB).since(since);
    let other = Node::new("b", 1).crashed().dirty(MIB).since(5);
    expect(&both(6), &other, SOURCE, Rule::BitsBothSides);
    expect(&both(4), &other, TARGET, Rule::BitsBothSides);
    expect(&both(5), &other, SOURCE, Rule::BitsBothSides);
    let namesake = Node { name: "a", ..other };
    expect(&both(5), &namesake, Verdict::NoSource, Rule::BitsBothSides);
}

#[test]
fn row_14_bitmap_peer() {
    let newer = Node::new("b", 2).for_peer(1).dirty(MIB).history(&[1]);
    expect(&Node::new("a", 1), &newer, TARGET, Rule::BitmapForPeer);
    // The old Primary crashed: the blocks of its activity log are exchanged too.
    expect(
        &Node::new("a", 1).crashed().dirty(MIB),
        &newer,
        TARGET,
        Rule::BitmapForPeer,
    );
}

#[test]
fn row_15_bitmap_peer_other() {
    expect(
        &Node::new("a", 1),
        &Node::new("b", 2).for_other(1),
        TARGET_FULL,
        Rule::BitmapForOther,
    );
}

#[test]
fn row_16_bitmap_self() {
    expect(
        &Node::new("a", 2).for_peer(1),
        &Node::new("b", 1),
        SOURCE,
        Rule::BitmapForPeer,
    );
    // Even with nothing marked it has to learn the generation.
    assert_eq!(
        decided(&Node::new("a", 2).for_peer(1), &Node::new("b", 1)).newer,
        Newer::Mine
    );
}

#[test]
fn row_17_bitmap_self_other() {
    expect(
        &Node::new("a", 2).for_other(1),
        &Node::new("b", 1),
        SOURCE_FULL,
        Rule::BitmapForOther,
    );
}

#[test]
fn row_18_history_peer() {
    expect(
        &Node::new("a", 1),
        &Node::new("b", 3).for_peer(2).history(&[2, 1]),
        TARGET_FULL,
        Rule::History,
    );
}

#[test]
fn row_19_history_self() {
    expect(
        &Node::new("a", 3).history(&[2, 1]),
        &Node::new("b", 1),
        SOURCE_FULL,
        Rule::History,
    );
    // Both know the other as behind: no order of events leads there, and nothing is trusted.
    let odd = Node::new("b", 1).history(&[3]);
    expect(
        &Node::new("a", 3).history(&[2, 1]),
        &odd,
        SPLIT_UNKNOWN,
        Rule::Contradiction,
    );
}

#[test]
fn row_19_a_generation_that_was_told_and_not_confirmed() {
    let a = Node::new("a", 4).history(&[3, 2, 1]).for_peer(1).dirty(MIB);
    expect(&a, &Node::new("b", 2), SOURCE, Rule::History);
    expect(&a, &Node::new("b", 1), SOURCE, Rule::BitmapForPeer);
    let recorded_later = Node::new("a", 4).history(&[3, 2, 1]).for_peer(3).dirty(MIB);
    expect(&recorded_later, &Node::new("b", 2), SOURCE_FULL, Rule::History);
}

#[test]
fn row_20_bitmap_both() {
    let (a, b) = (Node::new("a", 2).for_peer(1), Node::new("b", 3).for_peer(1));
    expect(&a, &b, SPLIT, Rule::PartedTogether);
    expect(
        &a.clone().history(&[1]),
        &b.clone().history(&[1]),
        SPLIT,
        Rule::PartedTogether,
    );
    expect(&a.clone().primary(), &b, SPLIT, Rule::PartedTogether);
    // The operator's word.
    let found = decided(&a.clone().discards(), &b);
    assert_eq!((found.verdict, found.rule), (TARGET, Rule::DiscardMyData));
    assert_eq!(found.overruled, Some(Rule::PartedTogether));
    // Not of a Primary, not when both gave up, not in favour of nothing whole.
    expect(&a.clone().discards().primary(), &b, SPLIT, Rule::PartedTogether);
    expect(
        &a.clone().discards(),
        &b.clone().discards(),
        SPLIT,
        Rule::PartedTogether,
    );
    let broken = b.disk(LocalDisk::Inconsistent);
    expect(&a.discards(), &broken, SPLIT, Rule::PartedTogether);
}

#[test]
fn row_21_history_both() {
    let (a, b) = (Node::new("a", 3).history(&[1]), Node::new("b", 4).history(&[2, 1]));
    expect(&a, &b, SPLIT_UNKNOWN, Rule::CommonHistory);
    expect(&a.discards(), &b, TARGET_FULL, Rule::DiscardMyData);
}

#[test]
fn row_22_unrelated() {
    let (a, b) = (Node::new("a", 3).history(&[1]), Node::new("b", 4).history(&[2]));
    expect(&a, &b, Verdict::Unrelated, Rule::Unrelated);
    expect(&a, &b.discards(), SOURCE_FULL, Rule::DiscardMyData);
}

#[test]
fn post_1_the_better_disk_state_is_the_source() {
    let whole = Node::new("b", 1);
    let worse = Node::new("a", 1).disk(LocalDisk::Outdated);
    expect(&worse, &whole, TARGET_FULL, Rule::DiskState);
    expect(&worse.clone().dirty(MIB), &whole, TARGET, Rule::DiskState);
    expect(&worse, &whole.clone().dirty(MIB), TARGET, Rule::DiskState);
    let diskless = Node::new("a", 1).disk(LocalDisk::Diskless);
    expect(&diskless, &whole, TARGET, Rule::DiskState);
    let inconsistent = whole.disk(LocalDisk::Inconsistent);
    expect(&diskless, &inconsistent, Verdict::NoSource, Rule::BothIncomplete);
    expect(
        &inconsistent.clone(),
        &diskless,
        Verdict::NoSource,
        Rule::BothIncomplete,
    );
    // What the one is known to lack the other may have left.
    expect(&worse, &inconsistent, Verdict::NoSource, Rule::BothIncomplete);
    expect(&worse.clone().primary(), &inconsistent, SOURCE_FULL, Rule::DiskState);
}

#[test]
fn post_1_a_primary_with_a_bad_image_gets_its_own_data_back() {
    let primary = Node::new("a", 2).primary().dirty(MIB);
    expect(
        &primary.clone().disk(LocalDisk::Diskless),
        &Node::new("b", 2),
        TARGET,
        Rule::DiskState,
    );
    let inconsistent = primary.disk(LocalDisk::Inconsistent);
    expect(&inconsistent, &Node::new("b", 2), TARGET_FULL, Rule::DiskState);
    expect(
        &inconsistent.sync(7),
        &Node::new("b", 2).sync(7),
        TARGET,
        Rule::ResyncResumed,
    );
}

/// A third node's resync was cut: its blocks lie in the image, and the bits of this pair do not know of them.
#[test]
fn an_inconsistent_image_is_compared_in_full_but_by_the_resync_that_made_it_so() {
    let target = |current| Node::new("b", current).disk(LocalDisk::Inconsistent);
    let source = Node::new("a", 2).for_peer(1).dirty(MIB).history(&[1]);
    expect(&source, &target(1), SOURCE_FULL, Rule::BitmapForPeer);
    expect(&source, &target(1).sync(8), SOURCE_FULL, Rule::BitmapForPeer);
    expect(
        &source.clone().sync(7),
        &target(1).sync(8),
        SOURCE_FULL,
        Rule::BitmapForPeer,
    );
    expect(&source.clone().dirty(4096), &target(2), SOURCE_FULL, Rule::DiskState);
    let source = source.sync(7);
    expect(&source, &target(1).sync(7), SOURCE, Rule::ResyncResumed);
    // Whatever it had: it was given up when the resync began.
    expect(&source, &target(99).sync(7), SOURCE, Rule::ResyncResumed);
    let fresh = Node::fresh("b").disk(LocalDisk::Inconsistent).sync(7);
    expect(&source, &fresh, SOURCE, Rule::ResyncResumed);
    // The source is no source any more.
    let torn = source.clone().disk(LocalDisk::Inconsistent);
    expect(&torn, &target(1).sync(7), Verdict::NoSource, Rule::SourceIncomplete);
    // It was put back to an earlier moment of the same resync.
    let met = |count| Meeting { count, token: count };
    let forgot = target(1).sync(7).met(met(3), met(2));
    expect(&source.met(met(5), met(4)), &forgot, SOURCE_FULL, Rule::Restored);
}

#[test]
fn post_8_rr_conflict_a_primary_is_not_overwritten_with_newer_data() {
    let newer = Node::new("b", 2).for_peer(1).dirty(MIB);
    let found = decided(&Node::new("a", 1).primary(), &newer);
    assert_eq!(found.verdict, Verdict::OlderPrimary { mine: true });
    assert_eq!(
        (found.rule, found.overruled),
        (Rule::OlderPrimary, Some(Rule::BitmapForPeer))
    );
    // Not with a bad image either: what its hosts have seen was older data.
    let bad = Node::new("a", 1).primary().disk(LocalDisk::Inconsistent);
    expect(&bad, &newer, Verdict::OlderPrimary { mine: true }, Rule::OlderPrimary);
}

#[test]
fn diskless_connect_older_is_accepted_and_not_up_to_date() {
    let diskless = Node::new("a", 2).primary().for_peer(1).disk(LocalDisk::Diskless);
    let found = decided(&diskless, &Node::new("b", 1));
    assert_eq!((found.verdict, found.rule), (Verdict::NoSource, Rule::SourceIncomplete));
    assert_eq!(found.newer, Newer::Mine, "the older one is at most Outdated");
}

#[test]
fn an_interrupted_target_is_not_copied_to_an_even_older_node() {
    let middle = Node::new("a", 2).for_peer(1).disk(LocalDisk::Inconsistent);
    expect(&middle, &Node::new("b", 1), Verdict::NoSource, Rule::SourceIncomplete);
}

#[test]
fn two_primaries_are_refused_whatever_their_data() {
    for theirs in [Node::new("b", 1), Node::new("b", 2), Node::new("b", 1).dirty(1)] {
        expect(
            &Node::new("a", 1).primary(),
            &theirs.primary(),
            Verdict::TwoPrimaries,
            Rule::TwoPrimaries,
        );
    }
}

#[test]
fn volumes_of_different_sizes_are_refused() {
    let mut larger = Node::new("b", 1);
    larger.volume.size += 4096;
    expect(&Node::new("a", 1), &larger, Verdict::SizeMismatch, Rule::SizeMismatch);
}
