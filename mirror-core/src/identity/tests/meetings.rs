//! Images and metadata that were put back to an earlier state.

use super::super::meeting::next_meeting;
use super::*;

const OLD: Meeting = Meeting { count: 3, token: 30 };
const LAST: Meeting = Meeting { count: 4, token: 40 };
const NEW: Meeting = Meeting { count: 5, token: 50 };

fn remembers(name: &'static str, current: Generation) -> Node {
    Node::new(name, current).met(NEW, LAST)
}

fn forgot(name: &'static str, current: Generation) -> Node {
    Node::new(name, current).met(OLD, Meeting { count: 2, token: 20 })
}

#[test]
fn an_equal_generation_is_not_trusted() {
    expect(&forgot("a", 1), &remembers("b", 1), TARGET_FULL, Rule::Restored);
    // Without a meeting this would have been a bitmap resync that misses what the peer has lost.
    expect(
        &forgot("a", 1),
        &remembers("b", 2).for_peer(1).dirty(1),
        TARGET_FULL,
        Rule::Restored,
    );
    // Restored to before the first meeting.
    expect(
        &Node::new("a", 1).dirty(1),
        &remembers("b", 1),
        TARGET_FULL,
        Rule::Restored,
    );
}

#[test]
fn the_restored_side_moved_on() {
    let promoted = forgot("a", 9).for_peer(1).history(&[1]);
    expect(&promoted, &remembers("b", 1), SPLIT_UNKNOWN, Rule::RestoredAndMovedOn);
    expect(
        &promoted.clone().discards(),
        &remembers("b", 1),
        TARGET_FULL,
        Rule::DiscardMyData,
    );
    expect(
        &promoted,
        &remembers("b", 1).discards(),
        SOURCE_FULL,
        Rule::DiscardMyData,
    );
    let found = decided(&forgot("a", 1).primary(), &remembers("b", 1));
    assert_eq!(
        (found.rule, found.overruled),
        (Rule::OlderPrimary, Some(Rule::Restored))
    );
}

/// A peer that was removed and is one again: there is nothing it could have forgotten.
#[test]
fn who_has_never_met_the_other_has_forgotten_nothing() {
    // Removed on the Primary under generation 1, and added under 2, of which the other has never heard.
    let anew = Node::new("a", 2).for_peer(2).history(&[1]).dirty(1).primary();
    expect(&anew, &remembers("b", 1), SOURCE_FULL, Rule::History);
    let later = Node::new("a", 3).for_peer(2).history(&[2, 1]).dirty(1);
    expect(&later, &remembers("b", 1), SOURCE_FULL, Rule::History);
    // The other went on as well.
    let parted = remembers("b", 9).for_peer(1).history(&[1]);
    expect(&anew, &parted, SPLIT_UNKNOWN, Rule::CommonHistory);
    // Bits do not tell what differs, whatever else is known.
    expect(
        &later.clone().for_other(1),
        &remembers("b", 1),
        SOURCE_FULL,
        Rule::BitmapForOther,
    );
    // The other has heard of the data over which the record was made: they have met since, and that is forgotten.
    let heard = remembers("b", 2).history(&[1]);
    let promoted = Node::new("a", 3).for_peer(2).history(&[2, 1]).dirty(1);
    expect(&promoted, &heard, SPLIT_UNKNOWN, Rule::RestoredAndMovedOn);
    expect(&anew, &heard, Verdict::OlderPrimary { mine: true }, Rule::OlderPrimary);
    // So it is where the record is of the very first start, over no data.
    let restored = Node::new("a", 3).history(&[1]).dirty(1);
    expect(&restored, &remembers("b", 1), SPLIT_UNKNOWN, Rule::RestoredAndMovedOn);
}

#[test]
fn clones_that_met_each_others_copies() {
    let other = Node::new("b", 1).met(Meeting { count: 5, token: 51 }, Meeting { count: 4, token: 41 });
    expect(&remembers("a", 1), &other, SPLIT_UNKNOWN, Rule::RestoredAndMovedOn);
    let other = Node::new("b", 2).met(Meeting { count: 6, token: 51 }, Meeting { count: 5, token: 41 });
    expect(&remembers("a", 1), &other, Verdict::Unrelated, Rule::Unrelated);
}

#[test]
fn a_death_between_two_notes_of_a_meeting_is_no_restore() {
    for (met, before) in [(NEW, LAST), (LAST, OLD), (Meeting { count: 9, token: 90 }, LAST)] {
        let node = Node::new("a", 1).met(met, before);
        expect(&node, &remembers("b", 1), Verdict::InStep, Rule::SameGeneration);
    }
}

/// Two nodes that meet again and again, one of them or both losing any of their notes' last write: never taken for a
/// restore; put back by two meetings: always seen.
#[test]
fn any_order_of_lost_notes() {
    for pattern in 0..3_u32.pow(7) {
        let (mut a, mut b) = (Node::new("a", 1), Node::new("b", 1));
        let mut steps = pattern;
        for round in 0..7 {
            let mut at = (a.side(), b.side());
            (at.0.incarnation, at.1.incarnation) = (1000 + round, 2000 + round);
            let next = next_meeting(&at.0, &at.1);
            assert_eq!(next, next_meeting(&at.1, &at.0));
            let snapshot = a.clone();
            let lost = steps % 3;
            steps /= 3;
            if lost != 1 {
                a = a.met(next.met, next.before);
            }
            if lost != 2 {
                b = b.met(next.met, next.before);
            }
            assert_eq!(decided(&a, &b).verdict, Verdict::InStep);
            if lost == 0 && round > 0 {
                let again = next_meeting(&a.side(), &b.side());
                let later = b.clone().met(again.met, again.before);
                assert_eq!(decided(&snapshot, &later).rule, Rule::Restored);
            }
        }
    }
}

#[test]
fn a_live_meeting_follows_the_present_one() {
    let next = NEW.after(7);
    assert_eq!(next.count, 6);
    assert_ne!(next, NEW.after(8));
    let sender = Node::new("a", 1).met(next, NEW);
    expect(&sender, &remembers("b", 1), Verdict::InStep, Rule::SameGeneration);
}
