//! What two nodes know of each other while a third is Primary.

use super::cluster::Cluster;
use super::node::Packet;
use crate::config::{AckMode, OnDisconnect};
use crate::event::{ConnectionId, Input, Order, PeerIndex, RequestId, SyncPlan};
use crate::identity::Role;
use crate::range::{BLOCK_BYTES, ByteRange};
use crate::state::{LocalDisk, PeerState};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// Three in step, all connected, A Primary under generation 100.
fn three() -> Cluster {
    let mut cluster = Cluster::new(3, AckMode::Sync);
    for (one, other) in [(A, B), (A, C), (B, C)] {
        cluster.connect(one, SyncPlan::InStep, other, SyncPlan::InStep);
    }
    cluster.promote(A, 100);
    cluster
}

#[test]
fn who_is_left_behind_by_the_primary_is_met_anew_before_the_primary_goes_on() {
    let mut cluster = three();
    cluster.stalled.push((B, A));
    cluster.cut(A, C);
    let write = cluster.write(A, 9, 1);
    assert_eq!(cluster.nodes[B].disconnects, [Cluster::index(B, C)]);
    assert!(!cluster.answered(A, write));
    assert_eq!(cluster.state(B, C), PeerState::Connecting);
    cluster.stalled.clear();
    cluster.settle();
    assert!(cluster.answered(A, write));
    // Of one that is away already nothing has to be said.
    cluster.connect(A, SyncPlan::Source, B, SyncPlan::Target);
    assert_eq!(cluster.nodes[B].disconnects.len(), 1);
}

#[test]
fn a_name_that_nobody_who_has_the_data_is_known_to_have_is_taken_back() {
    let mut cluster = three();
    cluster.cut(A, C);
    cluster.write(A, 9, 1);
    cluster.ordered(A, Order::Detach);
    cluster.cut(A, B);
    let called = cluster.generation(A);
    assert_eq!(cluster.generation(B), called);
    // It is back, and may have given the data to C: what C misses from here on needs another name.
    cluster.stalled.push((B, A));
    cluster.connect(A, SyncPlan::Target, B, SyncPlan::Fetched);
    assert_ne!(cluster.generation(A), called);
    let write = cluster.write(A, 10, 1);
    cluster.cut(A, B);
    assert_eq!((cluster.generation(A), cluster.record(A, B)), (called, 0));
    assert!(!cluster.answered(A, write));
}

#[test]
fn a_name_is_taken_back_to_what_one_who_has_the_data_has_durably() {
    let mut cluster = three();
    cluster.stalled.push((C, A));
    cluster.ordered(A, Order::Detach);
    assert_eq!(cluster.state(A, C), PeerState::SyncTarget);
    let called = cluster.generation(B);
    assert_eq!(cluster.generation(A), called);
    cluster.cut(A, B);
    let write = cluster.write(A, 10, 1);
    assert_ne!(cluster.generation(A), called);
    cluster.cut(A, C);
    assert!(!cluster.answered(A, write));
    assert_eq!(cluster.generation(A), called);
    assert!(![cluster.record(A, B), cluster.record(A, C)].contains(&cluster.generation(C)));
}

/// B has everything by the new name, and C has not said yet that it has, as the image is taken again. That it lacks what is
/// answered from here on is durable first: a crash would find it called whole.
#[test]
fn what_an_image_that_is_taken_again_lacks_is_not_answered_while_it_is_called_whole() {
    let mut cluster = three();
    cluster.stalled.push((C, A));
    cluster.ordered(A, Order::Detach);
    let write = cluster.write(A, 7, 3);
    assert!(cluster.nodes[A].mirror.superblock.whole);
    cluster.nodes[A].holds_metadata = true;
    cluster.order(A, Order::Attach { replaced: false });
    assert_eq!(cluster.nodes[A].mirror.disk(), LocalDisk::Inconsistent);
    cluster.stalled.clear();
    cluster.settle();
    assert!(!cluster.answered(A, write), "I10");
    while !cluster.nodes[A].transactions.is_empty() {
        cluster.save(A);
    }
    assert!(cluster.answered(A, write));
    assert_eq!(cluster.nodes[A].mirror.disk(), LocalDisk::UpToDate);
    assert_eq!(cluster.nodes[A].image[7], 3);
}

/// The resync to C has ended there, and A does not know it yet, when A gives its image up: only B stands in for it.
fn ended_unknown() -> Cluster {
    let mut cluster = Cluster::new(3, AckMode::Sync);
    cluster.connect(A, SyncPlan::InStep, B, SyncPlan::InStep);
    cluster.promote(A, 100);
    cluster.ordered(C, Order::BeginTarget { source: PeerIndex(0) });
    cluster.nodes[C].holds_metadata = true;
    cluster.connect(C, SyncPlan::Target, A, SyncPlan::Source);
    cluster.ordered(A, Order::Detach);
    assert_eq!(cluster.state(A, C), PeerState::SyncSource);
    cluster
}

/// A hears of the end.
fn let_end(cluster: &mut Cluster) {
    while !cluster.nodes[C].transactions.is_empty() {
        cluster.save(C);
    }
    cluster.nodes[C].holds_metadata = false;
}

#[test]
fn whose_resync_ends_when_the_leg_is_gone_stands_in_for_it() {
    let mut cluster = ended_unknown();
    let write = cluster.write(A, 7, 3);
    let_end(&mut cluster);
    assert_eq!(cluster.state(A, C), PeerState::SyncTarget);
    assert!(cluster.answered(A, write));
    assert_eq!(cluster.nodes[C].mirror.disk(), LocalDisk::UpToDate);
    cluster.cut(A, B);
    let write = cluster.write(A, 8, 3);
    assert!(cluster.answered(A, write));
    cluster.ordered(A, Order::Attach { replaced: false });
    assert_eq!(cluster.nodes[A].mirror.disk(), LocalDisk::UpToDate);
    assert_eq!(cluster.nodes[A].image, cluster.nodes[C].image);
    assert_eq!(cluster.state(A, C), PeerState::Established);
    assert_eq!((cluster.record(C, A), cluster.dirty(C, A)), (0, 0));
}

#[test]
fn what_is_on_its_way_to_who_stands_in_goes_there_again_only_after_its_answer() {
    let mut cluster = ended_unknown();
    cluster.stalled.push((A, C));
    let_end(&mut cluster);
    let write = cluster.write(A, 7, 3);
    cluster.cut(A, B);
    assert_eq!(cluster.state(A, C), PeerState::SyncSource);
    assert!(!cluster.answered(A, write));
    cluster.stalled.clear();
    cluster.settle();
    assert_eq!(cluster.state(A, C), PeerState::SyncTarget);
    assert!(cluster.answered(A, write));
}

/// C has the resync durably before it has answered the write, which only B has, and B is lost.
#[test]
fn what_only_a_lost_peer_has_is_durable_on_who_stands_in_before_it_is_answered() {
    let mut cluster = ended_unknown();
    cluster.stalled.push((A, C));
    let write = cluster.write(A, 7, 3);
    let_end(&mut cluster);
    cluster.cut(A, B);
    let wire = cluster.wires.get_mut(&(A, C)).unwrap();
    wire.retain(|packet| !matches!(packet, Packet::Flush));
    let (peer, connection) = (Cluster::index(A, C), ConnectionId(cluster.connection));
    let outcome = Ok(());
    cluster.feed(
        A,
        Input::PeerFlushDone {
            peer,
            connection,
            outcome,
        },
    );
    assert_eq!(cluster.state(A, C), PeerState::SyncSource);
    cluster.stalled.clear();
    cluster.settle();
    assert_eq!(cluster.state(A, C), PeerState::SyncTarget);
    assert!(cluster.answered(A, write));
}

/// A write does not reach C, and both are lost, B first: it waits. Then B is back.
fn lost_until_b_is_back(cluster: &mut Cluster) -> RequestId {
    cluster.stalled.push((A, C));
    let write = cluster.write(A, 7, 3);
    cluster.cut(A, B);
    cluster.cut(A, C);
    assert!(!cluster.answered(A, write));
    cluster.connect(A, SyncPlan::Target, B, SyncPlan::Fetched);
    write
}

/// Seed 1300113692: C has been told of a name, and is lost after B, the last one with the data. When B is back that answer is
/// not waited for: it will not come, and C comes into step again only when the leg here has everything.
#[test]
fn who_was_told_of_a_name_and_is_lost_while_nobody_has_the_data_is_waited_for_no_more() {
    let mut cluster = ended_unknown();
    let write = lost_until_b_is_back(&mut cluster);
    assert!(cluster.answered(A, write), "with no other write to say that C is gone");
    assert_eq!(cluster.generation(A), cluster.generation(B));
    let names = [0, cluster.generation(A)];
    assert!(!names.contains(&cluster.record(A, C)), "I4: C lacks it");
    assert!(!names.contains(&cluster.generation(C)));
    cluster.order(A, Order::Demote);
    assert_eq!(cluster.nodes[A].mirror.role(), Role::Secondary);
}

/// C has everything but a block, by the name of now; a write on its way to it is lost while nobody has the data. B, which is
/// back, has the write: it is not answered by a name that C has too.
#[test]
fn what_was_lost_on_its_way_while_nobody_had_the_data_goes_by_a_name_of_its_own() {
    let mut cluster = three();
    let to_c = usize::from(Cluster::index(A, C).0);
    let differs = ByteRange::new(30 * BLOCK_BYTES, BLOCK_BYTES);
    cluster.nodes[A].mirror.peers[to_c].mark_dirty(differs);
    cluster.ordered(A, Order::Detach);
    assert_eq!(cluster.state(A, C), PeerState::Established);
    assert_eq!(cluster.record(A, C), 0);
    let write = lost_until_b_is_back(&mut cluster);
    assert!(cluster.answered(A, write));
    assert_eq!(cluster.generation(A), cluster.generation(B));
    assert_ne!(cluster.generation(A), cluster.generation(C), "I4");
    assert_eq!(cluster.record(A, C), cluster.generation(C));
}

/// A has given its image up. C is lost with a write on its way, B has it and not yet the name that says so, and is lost too.
#[test]
fn what_only_a_lost_peer_has_goes_to_who_serves_in_its_place() {
    let mut cluster = three();
    cluster.ordered(A, Order::Detach);
    cluster.nodes[B].holds_metadata = true;
    cluster.stalled.push((A, C));
    let write = cluster.write(A, 7, 3);
    let flush = cluster.flush(A);
    cluster.cut(A, C);
    assert_eq!((cluster.nodes[B].image[7], cluster.nodes[C].image[7]), (3, 0));
    cluster.cut(A, B);
    assert!(!cluster.answered(A, write));
    assert_eq!(cluster.generation(A), cluster.generation(C), "taken back");
    cluster.stalled.clear();
    cluster.connect(A, SyncPlan::Target, C, SyncPlan::Fetched);
    assert!(cluster.answered(A, write) && cluster.answered(A, flush));
    assert_eq!(cluster.nodes[C].image[7], 3);
}

#[test]
fn whoever_was_told_that_the_leg_is_gone_hears_that_it_is_back() {
    let mut cluster = ended_unknown();
    assert_ne!((cluster.record(C, A), cluster.dirty(C, A)), (0, 0));
    // It is back before the resync to C is known to have ended.
    cluster.ordered(A, Order::Attach { replaced: false });
    assert_eq!(cluster.nodes[A].mirror.disk(), LocalDisk::UpToDate);
    let_end(&mut cluster);
    assert_eq!(cluster.state(A, C), PeerState::Established);
    assert_eq!((cluster.record(C, A), cluster.dirty(C, A)), (0, 0));
    assert_eq!((cluster.record(C, B), cluster.dirty(C, B)), (0, 0));
    assert_eq!((cluster.record(B, C), cluster.dirty(B, C)), (0, 0));
}

/// A has given its image up, C is away, and B, the last one with the data, is lost with a write on its way, and what B's
/// policy says of that. C comes back: it has everything that was answered.
fn another_one_stands_in(policy: OnDisconnect) -> (Cluster, RequestId) {
    let mut cluster = three();
    cluster.nodes[A].mirror.peers[usize::from(Cluster::index(A, B).0)]
        .config
        .on_disconnect = policy;
    cluster.ordered(A, Order::Detach);
    cluster.cut(A, C);
    cluster.stalled.push((A, B));
    let write = cluster.write(A, 9, 1);
    cluster.cut(A, B);
    cluster.stalled.clear();
    assert!(!cluster.answered(A, write));
    cluster.connect(A, SyncPlan::Target, C, SyncPlan::Fetched);
    cluster.settle();
    (cluster, write)
}

#[test]
fn a_write_that_is_to_wait_for_a_lost_peer_waits_though_another_one_stands_in() {
    let (mut cluster, write) = another_one_stands_in(OnDisconnect::Suspend);
    assert!(!cluster.answered(A, write));
    cluster.connect(A, SyncPlan::Source, B, SyncPlan::Target);
    cluster.settle();
    assert!(cluster.answered(A, write));
}

#[test]
fn a_write_that_is_not_to_wait_for_a_lost_peer_is_answered_when_another_one_stands_in() {
    let (cluster, write) = another_one_stands_in(OnDisconnect::Continue);
    assert!(cluster.answered(A, write));
}

/// Whom the Primary knows no more hears nothing of its names, and gets none of its writes. Nobody who does takes it to be in
/// step, and so hands it the new name as if it had the data.
#[test]
fn who_is_no_peer_of_the_primary_is_in_step_with_nobody() {
    let mut cluster = three();
    cluster.write(A, 1, 1);
    cluster.flush(A);
    assert_eq!((cluster.record(C, B), cluster.dirty(C, B)), (0, 0), "it has it all");
    let held = cluster.generation(B);
    cluster.cut(A, B);
    assert_eq!(
        (cluster.record(C, B), cluster.dirty(C, B)),
        (0, 0),
        "nothing that it lacks"
    );
    cluster.ordered(A, Order::RemovePeer(Cluster::index(A, B)));
    assert_ne!(cluster.generation(C), held);
    assert_eq!((cluster.record(C, B), cluster.dirty(C, B)), (held, 2048));
    assert_eq!(cluster.nodes[C].disconnects, [Cluster::index(C, B)], "they meet anew");
    cluster.write(A, 2, 2);
    cluster.cut(B, C);
    cluster.ordered(A, Order::Demote);
    cluster.promote(C, 300);
    assert_eq!(cluster.record(C, B), held);
}

/// B had everything, gave it to C out of sight, and has been given up since: it comes to be copied to.
#[test]
fn what_a_target_may_have_passed_on_gets_another_name() {
    let mut cluster = three();
    cluster.cut(A, C);
    cluster.write(A, 9, 1);
    cluster.flush(A);
    let called = cluster.generation(A);
    assert_ne!(cluster.record(A, C), 0);
    cluster.cut(A, B);
    assert_eq!((cluster.generation(B), cluster.record(A, B)), (called, 0));
    cluster.connect(A, SyncPlan::Source, B, SyncPlan::Target);
    assert_ne!(cluster.generation(A), called, "C may hold what is called so");
    let write = cluster.write(A, 10, 1);
    assert!(cluster.answered(A, write));
}
