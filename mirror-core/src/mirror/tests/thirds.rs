//! What two nodes know of each other while a third is Primary.

use super::cluster::Cluster;
use crate::config::AckMode;
use crate::event::SyncPlan;
use crate::state::PeerState;

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
