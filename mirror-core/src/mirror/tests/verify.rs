//! What verify finds different is what the peer lacks, whatever comes next.

use super::cluster::Cluster;
use crate::config::AckMode;
use crate::event::{Order, PeerIndex, SyncPlan};
use crate::identity::{NodeIdentity, Role, Side, SplitBrainPolicy, Verdict, decide_together};
use crate::state::PeerState;

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const ROT: u32 = 66;

/// In step, all connected, A Primary under generation 100; then a block rots on B.
fn rotten(nodes: usize) -> Cluster {
    let mut cluster = Cluster::new(nodes, AckMode::Sync);
    for other in 1..nodes {
        for one in 0..other {
            cluster.connect(one, SyncPlan::InStep, other, SyncPlan::InStep);
        }
    }
    cluster.promote(A, 100);
    cluster.write(A, 50, 5);
    cluster.nodes[B].image[50] = ROT;
    cluster
}

fn verify(cluster: &mut Cluster, repair: bool) {
    let peer = Cluster::index(A, B);
    let resume = false;
    cluster.ordered(A, Order::Verify { peer, repair, resume });
}

/// As a handshake would have them.
fn identity(cluster: &Cluster, from: usize, to: usize) -> NodeIdentity {
    let mirror = &cluster.nodes[from].mirror;
    NodeIdentity {
        node: alloc::format!("node{from}"),
        incarnation: 1,
        revision: 1,
        role: Role::Secondary,
        discard_my_data: false,
        primary_since: 0,
        bits_tell: true,
        was_primary: false,
        answers_lost: false,
        volumes: alloc::vec![mirror.identity(Cluster::index(from, to))],
    }
}

/// What A concludes of B when the two meet, A after a crash.
fn verdict(cluster: &Cluster) -> Verdict {
    let (mut mine, theirs) = (identity(cluster, A, B), identity(cluster, B, A));
    mine.volumes[0].crashed_primary = true;
    let sides = (
        Side::new(&mine, &mine.volumes[0]),
        Side::new(&theirs, &theirs.volumes[0]),
    );
    decide_together(SplitBrainPolicy::Manual, &[sides])[0].verdict
}

fn finished(cluster: &Cluster) -> bool {
    let status = cluster.nodes[A].mirror.status(cluster.now).peers[0];
    status.last_verify.is_some_and(|verify| verify.finished)
}

#[test]
fn a_peer_that_differs_holds_an_earlier_generation_and_stays_connected() {
    let mut cluster = rotten(2);
    verify(&mut cluster, false);
    assert_eq!((cluster.record(A, B), cluster.generation(B)), (100, 100));
    assert_ne!(cluster.generation(A), 100);
    assert_eq!(cluster.state(A, B), PeerState::Established);
    // Whoever was Primary, the good side is copied from.
    assert_eq!(verdict(&cluster), Verdict::Source { full: false });
    // It goes on getting every write, and no further name is needed for that.
    let named = cluster.generation(A);
    let write = cluster.write(A, 60, 6);
    assert!(cluster.answered(A, write));
    assert_eq!((cluster.nodes[B].image[60], cluster.generation(A)), (6, named));
    assert_eq!((cluster.nodes[B].image[50], cluster.dirty(A, B)), (ROT, 1));
}

#[test]
fn a_repair_brings_it_back_in_step_under_the_present_name() {
    let mut cluster = rotten(2);
    verify(&mut cluster, true);
    assert_eq!(cluster.nodes[B].image[50], 5);
    assert_eq!((cluster.record(A, B), cluster.dirty(A, B)), (0, 0));
    assert_ne!(cluster.generation(A), 100);
    assert_eq!(cluster.generation(A), cluster.generation(B));
    assert_eq!(cluster.state(A, B), PeerState::Established);
    // Nothing differs now: no name is used up.
    let named = cluster.generation(A);
    verify(&mut cluster, false);
    assert_eq!(cluster.generation(A), named);
}

#[test]
fn the_operator_has_what_is_marked_copied() {
    let mut cluster = rotten(2);
    verify(&mut cluster, false);
    let peer = Cluster::index(A, B);
    cluster.ordered(A, Order::Part { peer, parted: false });
    assert_eq!((cluster.nodes[B].image[50], cluster.dirty(A, B)), (5, 0));
    assert_eq!((cluster.record(A, B), cluster.state(A, B)), (0, PeerState::Established));
    assert_eq!(cluster.generation(A), cluster.generation(B));
}

#[test]
fn the_end_of_a_verify_waits_until_what_it_found_is_durable() {
    let mut cluster = rotten(2);
    cluster.nodes[A].holds_metadata = true;
    verify(&mut cluster, false);
    assert!(!finished(&cluster));
    assert_eq!(cluster.dirty(A, B), 1);
    let mut saved = 0;
    while !finished(&cluster) {
        cluster.save(A);
        saved += 1;
    }
    assert!(saved > 0);
}

#[test]
fn a_third_hears_that_the_peer_lacks_something() {
    let mut cluster = rotten(3);
    verify(&mut cluster, false);
    let named = cluster.generation(A);
    assert_eq!((cluster.record(A, B), cluster.record(A, C)), (100, 0));
    assert_eq!((cluster.generation(B), cluster.generation(C)), (100, named));
    // C takes all of B for different, and meets it anew.
    assert_eq!(cluster.record(C, B), 100);
    assert_eq!(cluster.dirty(C, B), cluster.nodes[C].image.len() as u64);
    assert_eq!(cluster.nodes[C].disconnects, [Cluster::index(C, B)]);
    // C becomes Primary: what A has marked is not forgotten.
    cluster.ordered(A, Order::Demote);
    cluster.promote(C, 200);
    assert_eq!((cluster.record(A, B), cluster.dirty(A, B) > 0), (100, true));
    assert_eq!(cluster.generation(B), 100);
}

#[test]
fn a_difference_found_while_the_peer_hears_of_a_name_needs_another_one() {
    let mut cluster = rotten(3);
    // B has been told of the name that came as C went, and has not answered.
    cluster.stalled.push((B, A));
    cluster.cut(A, C);
    let told = cluster.generation(A);
    cluster.write(A, 60, 6);
    let (peer, repair, resume) = (PeerIndex(0), false, false);
    cluster.order(A, Order::Verify { peer, repair, resume });
    cluster.stalled.clear();
    cluster.settle();
    assert!(finished(&cluster));
    assert_eq!(cluster.dirty(A, B), 1);
    assert_ne!(cluster.record(A, B), 0);
    assert_ne!(cluster.generation(A), cluster.generation(B));
    assert_ne!(told, 100);
}
