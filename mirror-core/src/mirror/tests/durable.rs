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

/// B has applied what it cannot make durable, and hears a later name. Whether it then counts as whole.
fn is_whole_under_a_later_name(prepare: impl Fn(&mut Cluster)) -> bool {
    let mut cluster = Cluster::new(3, AckMode::Sync);
    cluster.connect(A, SyncPlan::InStep, B, SyncPlan::InStep);
    cluster.connect(A, SyncPlan::InStep, C, SyncPlan::InStep);
    cluster.promote(A, 100);
    prepare(&mut cluster);
    cluster.write(A, 1, 1);
    let held = cluster.generation(B);
    cluster.nodes[B].holds_metadata = true;
    cluster.nodes[B].broken = Some(Failure::Io);
    cluster.cut(A, C);
    assert_ne!(cluster.generation(A), held, "C may lose what it has not flushed");
    cluster.nodes[B].mirror.disk() != LocalDisk::Diskless
}

#[test]
fn a_later_name_is_taken_over_only_when_what_was_applied_before_is_durable() {
    assert!(
        !is_whole_under_a_later_name(|_| {}),
        "B has flushed before it noted the name, and could not"
    );
}

#[cfg(feature = "sabotage")]
#[test]
fn a_later_name_that_covers_nothing_is_noticed() {
    use crate::sabotage::Sabotage;
    let broken = |cluster: &mut Cluster| cluster.nodes[B].mirror.set_sabotage(Some(Sabotage::NameCoversData));
    assert!(is_whole_under_a_later_name(broken));
}
