//! What a Secondary has to have durably before others may build on it.

use super::cluster::{Cluster, pair};
use crate::config::AckMode;
use crate::event::{Failure, Order, SyncPlan};
use crate::state::LocalDisk;

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// Whatever `on_io_error` says: its peers take what it has answered to be there.
#[test]
fn a_failed_flush_costs_a_secondary_its_image() {
    let mut cluster = pair(AckMode::Sync);
    cluster.write(A, 5, 5);
    cluster.nodes[B].broken = Some(Failure::Io);
    cluster.flush(A);
    assert_eq!(cluster.nodes[B].mirror.disk(), LocalDisk::Diskless);
    cluster.nodes[B].broken = None;
    cluster.ordered(B, Order::Attach { replaced: false });
    assert_eq!(
        cluster.nodes[B].mirror.disk(),
        LocalDisk::Inconsistent,
        "anything may be missing"
    );
}

#[test]
fn a_later_name_is_taken_over_only_when_what_was_applied_before_is_durable() {
    let mut cluster = Cluster::new(3, AckMode::Sync);
    cluster.connect(A, SyncPlan::InStep, B, SyncPlan::InStep);
    cluster.connect(A, SyncPlan::InStep, C, SyncPlan::InStep);
    cluster.promote(A, 100);
    cluster.write(A, 1, 1);
    let held = cluster.generation(B);
    cluster.nodes[B].holds_metadata = true;
    cluster.nodes[B].broken = Some(Failure::Io);
    cluster.cut(A, C);
    assert_ne!(cluster.generation(A), held, "C may lose what it has not flushed");
    assert_eq!(
        cluster.nodes[B].mirror.disk(),
        LocalDisk::Diskless,
        "B has flushed before it noted the name, and could not"
    );
}
