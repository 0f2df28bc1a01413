//! Changes that wait for a peer (`on_disconnect = "suspend"`), and an operator who goes on without it.

use super::super::local::NO_DATA_WAIT;
use super::super::status::NoData;
use super::cluster::{Cluster, pair};
use super::world::{PEER, World, reply};
use crate::config::{AckMode, OnDisconnect};
use crate::event::{Failure, HostOp, Input, Order, Output, PeerIndex, Refusal, RequestId, SyncPlan};
use crate::state::PeerState;
use alloc::vec::Vec;
use core::time::Duration;

const A: usize = 0;
const B: usize = 1;

fn suspending() -> Cluster {
    pair(AckMode::Sync).with_policy(OnDisconnect::Suspend)
}

fn part(cluster: &mut Cluster, parted: bool) {
    let peer = PeerIndex(0);
    cluster.ordered(A, Order::Part { peer, parted });
}

fn waits(cluster: &Cluster) -> (usize, Option<Duration>) {
    let status = cluster.nodes[A].mirror.status(cluster.now);
    (status.held, status.peers[0].waited_for)
}

#[test]
fn who_parts_with_a_peer_goes_on_without_it() {
    let mut cluster = suspending();
    cluster.stalled.push((A, B));
    let on_its_way = cluster.write(A, 3, 5);
    let covering = cluster.flush(A);
    assert_eq!(waits(&cluster), (0, None), "it is there");
    cluster.cut(A, B);
    cluster.stalled.clear();
    let later = cluster.write(A, 4, 6);
    let flush = cluster.flush(A);
    let all = [on_its_way, covering, later, flush];
    cluster.now += Duration::from_secs(7);
    assert_eq!(waits(&cluster), (4, Some(Duration::from_secs(7))));
    assert!(all.iter().all(|&id| !cluster.answered(A, id)));
    part(&mut cluster, true);
    assert!(all.iter().all(|&id| cluster.answered(A, id)));
    assert_eq!(waits(&cluster), (0, None));
    assert_ne!(cluster.generation(A), cluster.generation(B));
    let alone = cluster.write(A, 5, 7);
    assert!(cluster.answered(A, alone));
    assert_eq!(cluster.dirty(A, B), 3);
    part(&mut cluster, false);
    let waiting = cluster.write(A, 6, 8);
    assert!(!cluster.answered(A, waiting), "it is wanted back: hosts wait for it");
    cluster.connect(A, SyncPlan::Source, B, SyncPlan::Target);
    assert!(cluster.answered(A, waiting));
    assert_eq!(cluster.state(A, B), PeerState::Established);
    assert_eq!(cluster.nodes[A].image, cluster.nodes[B].image);
}

#[test]
fn what_goes_without_the_peer_goes_by_a_name_that_it_has_not() {
    let mut cluster = suspending();
    cluster.cut(A, B);
    let write = cluster.write(A, 3, 5);
    while !cluster.nodes[A].transactions.is_empty() {
        cluster.save(A);
    }
    cluster.nodes[A].holds_metadata = true;
    let named = cluster.generation(A);
    part(&mut cluster, true);
    assert!(!cluster.answered(A, write), "not before the name is durable");
    while !cluster.nodes[A].transactions.is_empty() {
        cluster.save(A);
    }
    assert!(cluster.answered(A, write));
    assert_ne!(cluster.generation(A), named);
    assert_eq!(cluster.record(A, B), named);
}

#[test]
fn a_peer_that_was_parted_with_before_it_is_lost_is_not_waited_for_and_when_it_is_back_it_is() {
    let mut cluster = suspending();
    cluster.stalled.push((A, B));
    let write = cluster.write(A, 3, 5);
    part(&mut cluster, true);
    assert!(!cluster.answered(A, write), "it is there still");
    cluster.cut(A, B);
    cluster.stalled.clear();
    assert!(cluster.answered(A, write));
    cluster.connect(A, SyncPlan::Source, B, SyncPlan::Target);
    cluster.cut(A, B);
    let next = cluster.write(A, 4, 6);
    assert!(!cluster.answered(A, next));
}

#[test]
fn the_last_leg_that_has_the_data_is_not_gone_on_without_but_is_not_waited_for_for_ever() {
    let mut cluster = suspending();
    cluster.ordered(A, Order::Detach);
    cluster.stalled.push((A, B));
    let on_its_way = cluster.write(A, 3, 5);
    cluster.cut(A, B);
    cluster.stalled.clear();
    let later = cluster.write(A, 4, 6);
    let no_data = |cluster: &Cluster| cluster.nodes[A].mirror.status(cluster.now).no_data;
    cluster.run_for(NO_DATA_WAIT * 3);
    let elapsed = NO_DATA_WAIT * 3;
    assert_eq!(no_data(&cluster), Some(NoData { elapsed, rest: None }));
    assert!(cluster.nodes[A].replies.iter().all(|(id, _)| *id != on_its_way));
    part(&mut cluster, true);
    cluster.feed(A, Input::Timeout);
    let rest = Some(Duration::ZERO);
    assert_eq!(no_data(&cluster), Some(NoData { elapsed, rest }));
    for id in [on_its_way, later] {
        assert!(
            cluster.nodes[A]
                .replies
                .contains(&(id, Err(Refusal::Local(Failure::Io))))
        );
    }
    cluster.connect(A, SyncPlan::Target, B, SyncPlan::Fetched);
    assert_eq!(no_data(&cluster), None);
    let back = cluster.write(A, 5, 7);
    assert!(cluster.answered(A, back));
}

/// A flush that the peer has done and the image here not yet, and the peer is lost: how it is answered. `lacking`: the peer has
/// lost what it had answered, and it is being copied there again.
fn flushed_by_who_is_lost(policy: OnDisconnect, lacking: bool) -> (World, Vec<Output>) {
    let mut world = World::new(AckMode::Sync, policy);
    world.up();
    world.whole_write(0, 0);
    if lacking {
        let outputs = world.down();
        world.persisted(&outputs);
        world.up();
        assert_eq!(world.state(), PeerState::SyncSource);
    }
    world.give(Input::Host {
        id: RequestId(1),
        op: HostOp::Flush,
    });
    world.peer_flushed();
    let mut outputs = world.down();
    if outputs.iter().any(|output| matches!(output, Output::Persist(_))) {
        outputs.extend(world.persisted(&outputs));
    }
    outputs.extend(world.give(Input::LocalFlushDone(Ok(()))));
    (world, replies(outputs))
}

fn replies(mut outputs: Vec<Output>) -> Vec<Output> {
    outputs.retain(|output| matches!(output, Output::Reply { .. }));
    outputs
}

#[test]
fn a_flush_by_a_peer_that_has_everything_outlasts_it() {
    for policy in [OnDisconnect::Fail, OnDisconnect::Suspend, OnDisconnect::Continue] {
        let (_, answers) = flushed_by_who_is_lost(policy, false);
        assert_eq!(answers, [reply(1)], "{policy:?}");
    }
}

/// Seed 3000278 of the plain simulator. What it lacked then is not there: while it is gone its policy says what becomes of the
/// flush, as if it had not come to it.
#[test]
fn a_flush_by_a_peer_that_is_copied_to_does_not() {
    let (_, answers) = flushed_by_who_is_lost(OnDisconnect::Fail, true);
    let refused = Output::Reply {
        id: RequestId(1),
        outcome: Err(Refusal::PeerGone(PEER)),
    };
    assert_eq!(answers, [refused]);
    let (_, answers) = flushed_by_who_is_lost(OnDisconnect::Continue, true);
    assert_eq!(answers, [reply(1)]);
    let (mut world, answers) = flushed_by_who_is_lost(OnDisconnect::Suspend, true);
    assert_eq!(answers, []);
    world.up();
    let outputs = world.peer_flushed();
    assert_eq!(replies(outputs), [reply(1)]);
}

#[test]
fn a_plain_server_is_parted_with_by_its_resource_too() {
    let mut world = World::new(AckMode::Sync, OnDisconnect::Suspend);
    world.up();
    world.whole_write(0, 0);
    let part = |parted| Input::Order {
        ticket: crate::event::Ticket(1),
        order: Order::Part {
            peer: PeerIndex(0),
            parted,
        },
    };
    world.give(part(true));
    assert_eq!(world.state(), PeerState::StandAlone);
    world.give(part(false));
    assert_eq!(world.state(), PeerState::Connecting);
}
