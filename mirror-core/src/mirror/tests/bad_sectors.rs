//! Sectors that stay bad until they are written: they keep back nothing but themselves, and no connection.

use alloc::vec::Vec;
use core::time::Duration;

use super::cluster::{Cluster, pair};
use crate::config::{AckMode, OnIoError};
use crate::event::{Failure, Input, Order, ReadFrom, SyncPlan};
use crate::range::{BLOCK_BYTES, ByteRange};
use crate::state::{LocalDisk, PeerState};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
/// Longer than between two tries of a block that could not be read.
const A_WHILE: Duration = Duration::from_secs(30);

/// Blocks at which the images differ.
fn differing(cluster: &Cluster) -> Vec<usize> {
    let images = cluster.nodes[A].image.iter().zip(&cluster.nodes[B].image);
    images
        .enumerate()
        .filter(|(_, (a, b))| a != b)
        .map(|(at, _)| at)
        .collect()
}

fn are_apart(cluster: &Cluster) -> bool {
    !cluster.nodes.iter().all(|node| node.disconnects.is_empty())
}

#[test]
fn a_bad_sector_on_the_only_good_copy_keeps_back_itself_alone() {
    let mut cluster = pair(AckMode::Sync);
    cluster.nodes[A].mirror.config.on_io_error = OnIoError::Detach;
    for at in 0..40 {
        cluster.write(A, at, 7);
    }
    cluster.ordered(A, Order::Detach);
    cluster.nodes[A].image.fill(77);
    cluster.nodes[B].unreadable = [5, 300, 301].into();
    cluster.ordered(A, Order::Attach { replaced: true });
    cluster.run_for(A_WHILE);
    assert_eq!(differing(&cluster), [5, 300, 301], "the neighbours have arrived");
    assert!(!are_apart(&cluster), "the connection is kept");
    let mirror = &cluster.nodes[A].mirror;
    assert_eq!(
        (mirror.disk(), cluster.state(A, B), cluster.dirty(A, B)),
        (LocalDisk::Inconsistent, PeerState::SyncTarget, 3)
    );
    assert!(matches!(
        mirror.read_from(ByteRange::new(5 * BLOCK_BYTES, BLOCK_BYTES)),
        ReadFrom::Peer(..)
    ));
    assert_eq!(
        mirror.read_from(ByteRange::new(6 * BLOCK_BYTES, BLOCK_BYTES)),
        ReadFrom::Local
    );
    let id = cluster.write(A, 5, 8);
    assert!(cluster.answered(A, id), "it serves hosts");
    cluster.nodes[B].unreadable.clear();
    cluster.run_for(A_WHILE);
    assert_eq!(differing(&cluster), [0; 0]);
    assert_eq!(cluster.nodes[A].mirror.disk(), LocalDisk::UpToDate);
    assert_eq!(cluster.state(A, B), PeerState::Established);
}

#[test]
fn what_neither_image_can_read_is_the_hosts_to_know_and_parts_nobody() {
    let mut cluster = pair(AckMode::Sync);
    cluster.nodes[A].mirror.config.on_io_error = OnIoError::Detach;
    for at in 0..16 {
        cluster.write(A, at, 7);
    }
    cluster.nodes[A].image[3] = 0;
    cluster.nodes[A].unreadable = [3, 9].into();
    cluster.nodes[B].unreadable = [7, 9].into();
    let range = ByteRange::new(0, 16 * BLOCK_BYTES);
    let failure = Failure::Io;
    for _ in 0..3 {
        cluster.feed(A, Input::LocalReadFailed { range, failure });
        cluster.settle();
    }
    assert!(!are_apart(&cluster));
    assert_eq!(cluster.nodes[A].mirror.disk(), LocalDisk::UpToDate);
    assert_eq!(
        cluster.nodes[A].image[3], 7,
        "what is good there was written here again"
    );
    assert_eq!(
        cluster.nodes[A].mirror.read_from(range),
        ReadFrom::Local,
        "nothing is waited for"
    );
}

#[test]
fn a_bad_sector_of_the_source_keeps_nothing_else_from_the_target() {
    let mut cluster = pair(AckMode::Sync);
    cluster.cut(A, B);
    for at in 0..600 {
        cluster.write(A, at, 7);
    }
    cluster.nodes[A].unreadable = [0, 511].into();
    cluster.connect(A, SyncPlan::Source, B, SyncPlan::Target);
    cluster.run_for(A_WHILE);
    assert_eq!(differing(&cluster), [0, 511]);
    assert_eq!((cluster.state(A, B), cluster.dirty(A, B)), (PeerState::SyncSource, 2));
    assert!(!are_apart(&cluster));
    // A host writes the one, the other heals.
    cluster.write(A, 0, 8);
    cluster.nodes[A].unreadable.clear();
    cluster.run_for(A_WHILE);
    assert_eq!(differing(&cluster), [0; 0]);
    assert_eq!(cluster.state(A, B), PeerState::Established);
}

/// A is Primary, in step with C, and lacks what B has of block 5.
fn fetching() -> Cluster {
    let mut cluster = Cluster::new(3, AckMode::Sync);
    cluster.connect(A, SyncPlan::InStep, B, SyncPlan::InStep);
    cluster.connect(A, SyncPlan::InStep, C, SyncPlan::InStep);
    cluster.promote(A, 100);
    cluster.cut(A, B);
    cluster.write(A, 5, 7);
    cluster.write(A, 6, 7);
    cluster.nodes[B].image[5] = 9;
    assert_eq!(cluster.dirty(A, C), 0);
    cluster
}

#[test]
fn what_a_fetch_that_was_cut_off_may_have_written_is_compared_with_the_others() {
    let mut cluster = fetching();
    cluster.stalled.push((B, A));
    cluster.connect(A, SyncPlan::Target, B, SyncPlan::Fetched);
    // It is written here, and nobody has said so when the connection goes.
    cluster.nodes[A].image[5] = 9;
    cluster.cut(A, B);
    cluster.stalled.clear();
    assert!(cluster.nodes[A].mirror.is_dirty(Cluster::index(A, C), 5));
    cluster.connect(A, SyncPlan::Target, B, SyncPlan::Fetched);
    cluster.run_for(A_WHILE);
    assert_eq!(cluster.state(A, C), PeerState::Established);
    assert_eq!(cluster.nodes[A].image, cluster.nodes[C].image);
}

#[test]
fn what_a_fetch_that_failed_in_part_may_have_written_is_compared_with_the_others() {
    let mut cluster = fetching();
    cluster.nodes[B].unreadable = [6].into();
    cluster.stalled.push((B, A));
    cluster.connect(A, SyncPlan::Target, B, SyncPlan::Fetched);
    cluster.nodes[A].image[5] = 9;
    cluster.stalled.clear();
    cluster.settle();
    assert!(cluster.nodes[A].mirror.is_dirty(Cluster::index(A, C), 5));
    cluster.nodes[B].unreadable.clear();
    cluster.run_for(A_WHILE);
    assert_eq!(cluster.nodes[A].image, cluster.nodes[C].image);
}

/// An async partner has not said yet that it has everything durably: should all die now, the image is what is left of what
/// was answered.
#[test]
fn an_image_that_fails_is_given_up_for_good_only_when_a_partner_has_everything() {
    for flush_fails in [false, true] {
        let mut cluster = pair(AckMode::Async);
        cluster.nodes[A].mirror.config.on_io_error = OnIoError::Detach;
        cluster.write(A, 1, 1);
        cluster.nodes[A].broken = Some(Failure::Io);
        cluster.nodes[B].holds_metadata = true;
        let id = if flush_fails {
            cluster.flush(A)
        } else {
            cluster.write(A, 3, 5)
        };
        let whole = |cluster: &Cluster| cluster.nodes[A].mirror.superblock.whole;
        assert_eq!(cluster.nodes[A].mirror.disk(), LocalDisk::Diskless);
        assert!(!cluster.answered(A, id));
        assert_eq!(
            whole(&cluster),
            !flush_fails,
            "a flush that failed may have lost anything"
        );
        cluster.nodes[A].holds_metadata = true;
        while !cluster.nodes[B].transactions.is_empty() {
            cluster.save(B);
        }
        assert!(!whole(&cluster));
        assert!(!cluster.answered(A, id), "not before the metadata says so");
        while !cluster.nodes[A].transactions.is_empty() {
            cluster.save(A);
        }
        assert!(cluster.answered(A, id));
    }
}
