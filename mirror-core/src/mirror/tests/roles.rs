//! Roles, generations and messages between mirrors, story by story.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::cluster::{Cluster, pair};
use super::node::Packet;
use crate::config::{AckMode, OnDisconnect};
use crate::event::{Order, OrderRefusal, PeerIndex, Refusal, SyncPlan, VolumeMessage};
use crate::identity::Role;
use crate::state::{LocalDisk, PeerState};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// Three in step, A Primary under generation 100.
fn three() -> Cluster {
    let mut cluster = Cluster::new(3, AckMode::Sync);
    cluster.connect(A, SyncPlan::InStep, B, SyncPlan::InStep);
    cluster.connect(A, SyncPlan::InStep, C, SyncPlan::InStep);
    cluster.promote(A, 100);
    cluster
}

#[test]
fn a_promotion_is_done_when_the_generation_is_durable_here_and_on_the_partner() {
    let mut cluster = Cluster::new(2, AckMode::Sync);
    cluster.connect(A, SyncPlan::InStep, B, SyncPlan::InStep);
    cluster.nodes[A].holds_metadata = true;
    cluster.nodes[B].holds_metadata = true;
    let before = cluster.generation(A);
    let ticket = cluster.order(
        A,
        Order::Promote {
            generation: 100,
            doubtful: vec![],
            since: 0,
        },
    );
    assert_ne!(cluster.generation(B), 100, "I10: not told before it is durable here");
    assert_eq!(
        cluster.record(A, B),
        before,
        "until it has it, it holds what was current before"
    );
    cluster.save(A);
    assert_eq!((cluster.generation(B), cluster.nodes[A].outcome(ticket)), (100, None));
    cluster.save(B);
    assert_eq!(cluster.nodes[A].outcome(ticket), Some(Ok(())));
    assert_eq!((cluster.record(A, B), cluster.record(B, A)), (0, 0));
    assert_eq!(
        (cluster.nodes[A].mirror.role(), cluster.nodes[B].mirror.role()),
        (Role::Primary, Role::Secondary)
    );
    assert!(!cluster.nodes[B].mirror.is_fresh() && cluster.nodes[B].mirror.history().is_empty());
}

#[test]
fn a_write_is_on_both_legs_before_it_is_answered() {
    let mut cluster = pair(AckMode::Sync);
    cluster.stalled.push((A, B));
    let id = cluster.write(A, 5, 1);
    assert!(!cluster.answered(A, id));
    cluster.stalled.clear();
    cluster.settle();
    assert!(cluster.answered(A, id));
    assert_eq!((cluster.nodes[A].image[5], cluster.nodes[B].image[5]), (1, 1));
    let id = cluster.flush(A);
    assert!(cluster.answered(A, id));
}

#[test]
fn a_lost_partner_is_behind_and_comes_back_under_the_new_name() {
    let mut cluster = pair(AckMode::Sync);
    cluster.cut(A, B);
    cluster.nodes[A].holds_metadata = true;
    let id = cluster.write(A, 5, 1);
    assert!(!cluster.answered(A, id), "I1, then I4");
    while !cluster.nodes[A].transactions.is_empty() {
        assert!(!cluster.answered(A, id));
        cluster.save(A);
    }
    assert!(cluster.answered(A, id));
    assert_eq!(
        (cluster.record(A, B), cluster.generation(B), cluster.dirty(A, B)),
        (100, 100, 1)
    );
    let current = cluster.generation(A);
    assert_eq!(cluster.nodes[A].mirror.history().first(), Some(&100));
    cluster.nodes[A].holds_metadata = false;
    cluster.ordered(B, Order::BeginTarget { source: PeerIndex(0) });
    assert_eq!(cluster.nodes[B].mirror.disk(), LocalDisk::Inconsistent);
    cluster.connect(B, SyncPlan::Target, A, SyncPlan::Source);
    assert_eq!(
        (cluster.state(A, B), cluster.state(B, A)),
        (PeerState::Established, PeerState::Established)
    );
    assert_eq!((cluster.generation(A), cluster.generation(B)), (current, current));
    assert_eq!((cluster.record(A, B), cluster.dirty(A, B)), (0, 0));
    assert_eq!(cluster.nodes[B].mirror.history().first(), Some(&100));
    assert_eq!(
        (cluster.nodes[B].mirror.disk(), cluster.nodes[B].image[5]),
        (LocalDisk::UpToDate, 1)
    );
}

#[test]
fn a_target_is_in_step_only_when_it_has_said_so() {
    let mut cluster = pair(AckMode::Sync);
    cluster.cut(A, B);
    cluster.write(A, 5, 1);
    cluster.nodes[B].holds_metadata = true;
    cluster.connect(B, SyncPlan::Target, A, SyncPlan::Source);
    cluster.save(B);
    assert_eq!(cluster.dirty(A, B), 0, "copied and flushed");
    assert_eq!(cluster.state(A, B), PeerState::SyncSource);
    assert_ne!(cluster.record(A, B), 0);
    cluster.save(B);
    assert_eq!((cluster.state(A, B), cluster.record(A, B)), (PeerState::Established, 0));
}

/// It may have stored the name it was told last.
#[test]
fn a_target_lost_after_the_end_was_told_makes_another_generation() {
    let mut cluster = pair(AckMode::Sync);
    cluster.cut(A, B);
    cluster.write(A, 5, 1);
    let told = cluster.generation(A);
    cluster.nodes[B].holds_metadata = true;
    cluster.connect(B, SyncPlan::Target, A, SyncPlan::Source);
    cluster.save(B);
    assert_eq!(cluster.generation(B), told, "told");
    cluster.cut(A, B);
    assert_ne!(cluster.generation(A), told);
    assert_eq!(cluster.nodes[A].mirror.history().first(), Some(&told));
}

#[test]
fn the_gate_waits_for_the_partner_that_is_in_step() {
    let mut cluster = three();
    cluster.nodes[B].holds_metadata = true;
    cluster.cut(A, C);
    let id = cluster.write(A, 9, 1);
    assert!(!cluster.answered(A, id), "B has not the new name");
    assert_eq!(cluster.nodes[B].image[9], 1);
    cluster.save(B);
    assert!(cluster.answered(A, id));
    assert_eq!(cluster.generation(A), cluster.generation(B));
    assert_eq!(cluster.record(B, C), 100, "B knows that C stayed behind");
    assert_eq!(cluster.dirty(B, C), 2048, "and nobody there knows where");
}

#[test]
fn a_partner_lost_between_name_and_answer_makes_another_generation() {
    let mut cluster = three();
    cluster.nodes[B].holds_metadata = true;
    cluster.cut(A, C);
    let id = cluster.write(A, 9, 1);
    let told = cluster.generation(A);
    assert_eq!(cluster.generation(B), told);
    cluster.cut(A, B);
    assert!(cluster.answered(A, id));
    assert_ne!(cluster.generation(A), told, "B may hold the one it was told");
    assert_ne!(cluster.record(A, B), 0);
}

#[test]
fn a_switchover_moves_the_role_and_nothing_is_copied() {
    let mut cluster = pair(AckMode::Sync);
    cluster.write(A, 1, 1);
    cluster.ordered(A, Order::Demote);
    assert!(!cluster.nodes[A].mirror.was_primary());
    cluster.promote(B, 200);
    assert_eq!((cluster.generation(A), cluster.generation(B)), (200, 200));
    assert_eq!(cluster.nodes[A].mirror.history(), [100]);
    let id = cluster.write(B, 2, 2);
    assert!(cluster.answered(B, id));
    assert_eq!(
        (cluster.nodes[A].image[2], cluster.dirty(A, B), cluster.dirty(B, A)),
        (2, 0, 0)
    );
    cluster.ordered(B, Order::Demote);
    cluster.promote(A, 300);
    let id = cluster.write(A, 3, 3);
    assert!(cluster.answered(A, id) && cluster.nodes[B].image[3] == 3);
}

#[test]
fn what_was_on_its_way_to_a_lost_target_is_held_by_policy() {
    let mut cluster = pair(AckMode::Sync).with_policy(OnDisconnect::Suspend);
    cluster.ordered(A, Order::Fill { peer: PeerIndex(0) });
    cluster.cut(A, B);
    cluster.stalled.push((B, A));
    cluster.connect(B, SyncPlan::Target, A, SyncPlan::Source);
    let id = cluster.write(A, 5, 1);
    assert_eq!(
        (cluster.state(A, B), cluster.nodes[B].image[5]),
        (PeerState::SyncSource, 1)
    );
    cluster.cut(A, B);
    assert!(!cluster.answered(A, id));
    cluster.stalled.clear();
    cluster.connect(B, SyncPlan::Target, A, SyncPlan::Source);
    cluster.run_for(Duration::from_secs(9));
    assert!(cluster.answered(A, id));
}

#[test]
fn roles_change_one_at_a_time_and_only_forwards() {
    let mut cluster = pair(AckMode::Sync);
    let refused = Some(Err(OrderRefusal::WrongState));
    let again = Order::Promote {
        generation: 7,
        doubtful: vec![],
        since: 0,
    };
    let ticket = cluster.order(A, again.clone());
    assert_eq!(cluster.nodes[A].outcome(ticket), refused);
    let ticket = cluster.order(B, Order::Demote);
    assert_eq!(cluster.nodes[B].outcome(ticket), refused);
    cluster.ordered(A, Order::Demote);
    cluster.nodes[A].holds_metadata = true;
    let first = cluster.order(A, again.clone());
    let second = cluster.order(A, again);
    assert_eq!(
        (cluster.nodes[A].outcome(first), cluster.nodes[A].outcome(second)),
        (None, refused)
    );
}

#[test]
fn a_demotion_answers_what_waits_and_leaves_no_hot_extent() {
    let mut cluster = pair(AckMode::Sync);
    cluster.write(A, 1, 1);
    assert!(cluster.nodes[A].mirror.is_hot(0));
    cluster.stalled.push((B, A));
    let id = cluster.write(A, 2, 2);
    let ticket = cluster.order(A, Order::Demote);
    assert_eq!(cluster.nodes[A].outcome(ticket), None);
    let late = cluster.write(A, 3, 3);
    assert!(cluster.nodes[A].replies.contains(&(late, Err(Refusal::Stopping))));
    cluster.stalled.clear();
    cluster.settle();
    assert!(cluster.answered(A, id));
    assert_eq!(cluster.nodes[A].outcome(ticket), Some(Ok(())));
    assert!(!cluster.nodes[A].mirror.is_hot(0));
}

#[test]
fn an_unplanned_promotion_doubts_the_others_and_records_the_old_primary() {
    let mut cluster = three();
    cluster.connect(B, SyncPlan::InStep, C, SyncPlan::InStep);
    cluster.cut(A, B);
    cluster.cut(A, C);
    let doubtful = vec![Cluster::index(B, C)];
    cluster.ordered(
        B,
        Order::Promote {
            generation: 200,
            doubtful,
            since: 0,
        },
    );
    assert_eq!(
        (cluster.record(B, A), cluster.dirty(B, A)),
        (100, 0),
        "its own log tells"
    );
    cluster.run_for(Duration::from_secs(9));
    assert_eq!(cluster.generation(C), 200, "compared, and in step again");
    assert_eq!((cluster.dirty(B, C), cluster.state(B, C)), (0, PeerState::Established));
}

/// What is sent to a partner that lacks something must not be applied while it calls itself UpToDate.
#[test]
fn a_target_that_no_handshake_announced_is_inconsistent_before_anything_newer_reaches_it() {
    let mut cluster = pair(AckMode::Sync);
    cluster.cut(A, B);
    cluster.write(A, 5, 1);
    cluster.nodes[B].holds_metadata = true;
    // Bits that appeared after the verdict.
    cluster.connect(B, SyncPlan::InStep, A, SyncPlan::InStep);
    cluster.write(A, 6, 2);
    assert_eq!(cluster.nodes[B].image[6], 0, "waits for the state to be durable");
    cluster.save(B);
    assert_eq!(cluster.nodes[B].image[6], 2);
    cluster.nodes[B].holds_metadata = false;
    cluster.save(B);
    assert_eq!(
        (cluster.nodes[B].image[5], cluster.nodes[B].mirror.disk()),
        (1, LocalDisk::UpToDate)
    );
}

#[test]
fn an_asynchronous_partner_gets_barriers_in_place_and_falls_behind_when_too_much_is_unanswered() {
    let mut cluster = pair(AckMode::Async);
    cluster.stalled.push((A, B));
    let id = cluster.write(A, 1, 1);
    assert!(cluster.answered(A, id));
    cluster.flush(A);
    cluster.write(A, 2, 2);
    let wire = cluster.wires[&(A, B)].clone();
    assert!(
        matches!(
            Vec::from(wire.clone()).as_slice(),
            [Packet::Mutation(..), Packet::Barrier, Packet::Mutation(..)]
        ),
        "{wire:?}"
    );
    for block in 3..6 {
        let id = cluster.write(A, block, 9);
        assert!(block < 4 || cluster.answered(A, id));
    }
    assert_eq!(cluster.state(A, B), PeerState::Behind);
    let wire = cluster.wires[&(A, B)].clone();
    assert!(
        matches!(wire.back(), Some(Packet::Message(VolumeMessage::SyncBegin))),
        "{wire:?}"
    );
    cluster.stalled.clear();
    cluster.settle();
    assert_eq!(cluster.state(A, B), PeerState::Established);
    assert_eq!(cluster.nodes[A].image, cluster.nodes[B].image);
    assert_eq!(
        (cluster.generation(A), cluster.record(A, B)),
        (cluster.generation(B), 0)
    );
}

#[test]
fn another_volume_that_falls_behind_takes_this_one_along() {
    use crate::event::{Command, Input};
    let mut cluster = pair(AckMode::Async);
    cluster.stalled.push((A, B));
    cluster.write(A, 1, 1);
    cluster.feed(A, Input::Command(Command::FallBehind(PeerIndex(0))));
    assert_eq!(cluster.state(A, B), PeerState::Behind);
    cluster.write(A, 2, 2);
    cluster.flush(A);
    cluster.stalled.clear();
    cluster.settle();
    assert_eq!(
        cluster.nodes[B].barriers, 1,
        "what was sent before is durable before what other volumes send next"
    );
    assert_eq!(
        (cluster.nodes[B].image[2], cluster.state(A, B)),
        (2, PeerState::Established)
    );
}

#[test]
fn a_secondary_stops_copying_when_it_hears_of_a_primary() {
    let mut cluster = three();
    cluster.cut(A, C);
    cluster.write(A, 3, 1);
    cluster.stalled.push((C, B));
    cluster.connect(B, SyncPlan::Source, C, SyncPlan::Target);
    assert_eq!(cluster.state(B, C), PeerState::SyncSource);
    cluster.cut(A, B);
    cluster.connect(A, SyncPlan::InStep, B, SyncPlan::InStep);
    assert_eq!(cluster.nodes[B].disconnects, [Cluster::index(B, C)]);
}

#[test]
fn a_primary_that_lost_its_leg_is_recorded_by_the_one_that_has_everything() {
    let mut cluster = pair(AckMode::Sync);
    let disk = LocalDisk::Diskless;
    cluster.say(A, B, VolumeMessage::Leg { disk });
    assert_eq!((cluster.record(B, A), cluster.dirty(B, A)), (100, 2048));
    let current = cluster.generation(B);
    cluster.say(A, B, VolumeMessage::InStep { current });
    assert_eq!((cluster.record(B, A), cluster.dirty(B, A)), (0, 0));
}

#[test]
fn what_the_primary_has_compared_with_both_is_not_compared_again_between_them() {
    let mut cluster = three();
    cluster.cut(A, C);
    cluster.write(A, 9, 1);
    assert_eq!((cluster.dirty(B, C), cluster.record(B, C)), (2048, 100));
    cluster.ordered(C, Order::BeginTarget { source: PeerIndex(0) });
    cluster.connect(C, SyncPlan::Target, A, SyncPlan::Source);
    assert_eq!((cluster.dirty(B, C), cluster.record(B, C)), (0, 0));
    assert_eq!((cluster.dirty(C, B), cluster.record(C, B)), (0, 0));
}
