//! The leg here: fetched to, given up, attached again, repaired.

use alloc::vec::Vec;
use core::time::Duration;

use super::super::local::NO_DATA_WAIT;
use super::cluster::Cluster;
use super::node::Packet;
use crate::config::{AckMode, OnIoError};
use crate::event::{Failure, Input, Order, PeerIndex, ReadFrom, Refusal, RequestId, SyncPlan};
use crate::range::{BLOCK_BYTES, ByteRange};
#[cfg(feature = "sabotage")]
use crate::sabotage::Sabotage;
use crate::state::{LocalDisk, PeerState};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// A pair in step, A Primary; local errors of A make it give its image up.
fn pair(mode: AckMode) -> Cluster {
    let mut cluster = Cluster::new(2, mode);
    cluster.connect(A, SyncPlan::InStep, B, SyncPlan::InStep);
    cluster.promote(A, 100);
    cluster.nodes[A].mirror.config.on_io_error = OnIoError::Detach;
    cluster
}

fn block(at: u64) -> ByteRange {
    ByteRange::new(at * BLOCK_BYTES, BLOCK_BYTES)
}

fn disk(cluster: &Cluster, node: usize) -> LocalDisk {
    cluster.nodes[node].mirror.disk()
}

fn reads_from_peer(cluster: &Cluster, at: u64) -> bool {
    matches!(cluster.nodes[A].mirror.read_from(block(at)), ReadFrom::Peer(..))
}

/// What the other end said last on the wire from A to B.
fn sent_fua(cluster: &Cluster) -> Vec<bool> {
    let wire = cluster.wires[&(A, B)].iter();
    let fua = wire.filter_map(|packet| match packet {
        Packet::Mutation(_, mutation, _) => Some(mutation.fua),
        _ => None,
    });
    fua.collect()
}

#[test]
fn without_a_peer_that_has_everything_the_image_is_not_given_up() {
    let mut cluster = pair(AckMode::Sync);
    cluster.cut(A, B);
    let ticket = cluster.order(A, Order::Detach);
    assert!(cluster.nodes[A].outcome(ticket).is_some_and(|outcome| outcome.is_err()));
    cluster.nodes[A].broken = Some(Failure::Io);
    let id = cluster.write(A, 3, 1);
    let refused = (id, Err(Refusal::Local(Failure::Io)));
    assert!(cluster.nodes[A].replies.contains(&refused), "the host gets the error");
    assert_eq!(disk(&cluster, A), LocalDisk::UpToDate);
}

#[test]
fn a_write_error_is_not_seen_by_the_host_and_the_data_has_a_new_name_on_the_partner() {
    let mut cluster = pair(AckMode::Async);
    cluster.write(A, 1, 1);
    cluster.nodes[A].broken = Some(Failure::Io);
    cluster.nodes[B].holds_metadata = true;
    let id = cluster.write(A, 3, 5);
    assert_eq!(disk(&cluster, A), LocalDisk::Diskless);
    assert!(
        !cluster.answered(A, id),
        "I4: not before the partner has the new name durably"
    );
    while !cluster.nodes[B].transactions.is_empty() {
        cluster.save(B);
    }
    cluster.nodes[B].holds_metadata = false;
    assert!(cluster.answered(A, id));
    assert_ne!(cluster.generation(A), 100);
    assert_eq!(cluster.generation(A), cluster.generation(B));
    assert_eq!(cluster.record(B, A), 100, "what is left of the image is of before");
    assert!(reads_from_peer(&cluster, 3) && reads_from_peer(&cluster, 1), "I6");
    cluster.stalled.push((A, B));
    let id = cluster.write(A, 4, 6);
    assert!(!cluster.answered(A, id), "sync, whatever the configuration says");
    assert_eq!(sent_fua(&cluster), [true], "durable before it is answered");
    cluster.stalled.clear();
    cluster.settle();
    assert!(cluster.answered(A, id) && cluster.nodes[B].image[4] == 6);
    let flush = cluster.flush(A);
    assert!(cluster.answered(A, flush));
}

#[test]
fn an_image_that_comes_back_is_fetched_to_and_in_step_again() {
    let mut cluster = pair(AckMode::Sync);
    cluster.write(A, 1, 1);
    cluster.ordered(A, Order::Detach);
    for at in 0..50 {
        cluster.write(A, 2 * at, 9);
    }
    assert_eq!(cluster.nodes[A].image[2], 0);
    cluster.stalled.push((B, A));
    cluster.ordered(A, Order::Attach { replaced: false });
    assert_eq!(
        (disk(&cluster, A), cluster.state(A, B)),
        (LocalDisk::Inconsistent, PeerState::SyncTarget)
    );
    assert!(reads_from_peer(&cluster, 2) && !reads_from_peer(&cluster, 1500), "I6");
    cluster.stalled.clear();
    cluster.settle();
    assert_eq!(
        (disk(&cluster, A), cluster.state(A, B)),
        (LocalDisk::UpToDate, PeerState::Established)
    );
    assert_eq!(cluster.nodes[A].image, cluster.nodes[B].image);
    assert_eq!((cluster.dirty(A, B), cluster.dirty(B, A)), (0, 0));
    assert_eq!((cluster.record(A, B), cluster.record(B, A)), (0, 0));
    assert_eq!(cluster.nodes[A].mirror.read_from(block(2)), ReadFrom::Local);
}

#[test]
fn a_replaced_image_is_fetched_whole() {
    let mut cluster = pair(AckMode::Sync);
    cluster.write(A, 1, 1);
    cluster.ordered(A, Order::Detach);
    cluster.nodes[A].image.fill(77);
    cluster.ordered(A, Order::Attach { replaced: true });
    assert_eq!(disk(&cluster, A), LocalDisk::UpToDate);
    assert_eq!(cluster.nodes[A].image, cluster.nodes[B].image);
}

#[test]
fn a_failed_flush_gives_the_image_up_and_what_it_covered_is_fetched_later() {
    let mut cluster = pair(AckMode::Async);
    cluster.write(A, 5, 5);
    cluster.nodes[A].broken = Some(Failure::Io);
    cluster.stalled.push((A, B));
    let flush = cluster.flush(A);
    assert!(!cluster.answered(A, flush), "I5: it has to be durable on the peer now");
    cluster.stalled.clear();
    cluster.settle();
    assert!(cluster.answered(A, flush));
    assert!(
        cluster.nodes[A].mirror.is_dirty(Cluster::index(A, B), 5),
        "it may be lost here"
    );
    cluster.nodes[A].broken = None;
    cluster.nodes[A].image[5] = 0;
    cluster.ordered(A, Order::Attach { replaced: false });
    assert_eq!((disk(&cluster, A), cluster.nodes[A].image[5]), (LocalDisk::UpToDate, 5));
}

#[test]
fn no_space_is_the_hosts_to_know_and_the_legs_end_equal() {
    let mut cluster = pair(AckMode::Sync);
    cluster.nodes[A].broken = Some(Failure::NoSpace);
    let id = cluster.write(A, 3, 5);
    assert!(
        cluster.nodes[A]
            .replies
            .contains(&(id, Err(Refusal::Local(Failure::NoSpace))))
    );
    cluster.nodes[A].broken = None;
    cluster.run_for(Duration::from_secs(20));
    assert_eq!(
        (disk(&cluster, A), cluster.state(A, B)),
        (LocalDisk::UpToDate, PeerState::Established)
    );
    assert_eq!(cluster.nodes[A].image, cluster.nodes[B].image);
}

#[test]
fn without_any_leg_that_has_the_data_changes_wait_and_then_are_refused() {
    let mut cluster = pair(AckMode::Sync);
    cluster.ordered(A, Order::Detach);
    cluster.stalled.push((A, B));
    let on_its_way = cluster.write(A, 3, 5);
    cluster.cut(A, B);
    cluster.stalled.clear();
    let later = cluster.write(A, 4, 6);
    let flush = cluster.flush(A);
    let waits = |cluster: &Cluster, id: RequestId| cluster.nodes[A].replies.iter().all(|(done, _)| *done != id);
    assert!([on_its_way, later, flush].iter().all(|&id| waits(&cluster, id)));
    assert_eq!(cluster.nodes[A].mirror.read_from(block(3)), ReadFrom::Nowhere);
    cluster.connect(A, SyncPlan::Target, B, SyncPlan::Fetched);
    assert!(
        [on_its_way, later, flush].iter().all(|&id| cluster.answered(A, id)),
        "it is back: they go"
    );
    assert_eq!((cluster.nodes[B].image[3], cluster.nodes[B].image[4]), (5, 6));
    cluster.cut(A, B);
    let lost = cluster.write(A, 5, 7);
    cluster.run_for(NO_DATA_WAIT * 2);
    let refused = (lost, Err(Refusal::Local(Failure::Io)));
    assert!(cluster.nodes[A].replies.contains(&refused));
    let at_once = cluster.write(A, 6, 7);
    assert!(
        !waits(&cluster, at_once),
        "nobody waits again for what is known not to be there"
    );
    cluster.connect(A, SyncPlan::Target, B, SyncPlan::Fetched);
    let id = cluster.write(A, 6, 8);
    assert!(cluster.answered(A, id));
}

#[test]
fn metadata_that_fails_is_an_image_that_fails() {
    let mut cluster = pair(AckMode::Sync);
    cluster.nodes[A].holds_metadata = true;
    let id = cluster.write(A, 3, 5);
    let transaction = cluster.nodes[A].transactions.pop_front().unwrap();
    cluster.feed(
        A,
        Input::Persisted {
            id: transaction.id,
            outcome: Err(Failure::Io),
        },
    );
    cluster.settle();
    assert_eq!(disk(&cluster, A), LocalDisk::Diskless);
    assert!(cluster.answered(A, id) && cluster.nodes[B].image[3] == 5);
    assert!(
        cluster.nodes[A].transactions.is_empty(),
        "nothing is written down any more"
    );
    let id = cluster.write(A, 1999, 5);
    assert!(cluster.answered(A, id));
}

#[test]
fn a_bad_range_is_read_from_the_peer_and_written_again() {
    let mut cluster = pair(AckMode::Sync);
    cluster.write(A, 3, 5);
    cluster.nodes[A].image[3] = 0;
    cluster.stalled.push((B, A));
    cluster.feed(
        A,
        Input::LocalReadFailed {
            range: ByteRange::new(3 * BLOCK_BYTES + 512, 512),
            failure: Failure::Io,
        },
    );
    assert!(reads_from_peer(&cluster, 3) && !reads_from_peer(&cluster, 4));
    let id = cluster.write(A, 3, 6);
    assert!(!cluster.answered(A, id), "the range is closed meanwhile");
    cluster.stalled.clear();
    cluster.settle();
    assert!(cluster.answered(A, id) && !reads_from_peer(&cluster, 3));
    assert_eq!((cluster.nodes[A].image[3], cluster.nodes[B].image[3]), (6, 6));
    assert_eq!(disk(&cluster, A), LocalDisk::UpToDate);
    cluster.nodes[A].broken = Some(Failure::Io);
    cluster.feed(
        A,
        Input::LocalReadFailed {
            range: block(9),
            failure: Failure::Io,
        },
    );
    cluster.settle();
    assert_eq!(
        disk(&cluster, A),
        LocalDisk::Diskless,
        "what cannot be written again is given up"
    );
}

#[test]
fn the_others_hear_of_what_was_fetched() {
    let mut cluster = Cluster::new(3, AckMode::Sync);
    cluster.connect(A, SyncPlan::InStep, B, SyncPlan::InStep);
    cluster.connect(A, SyncPlan::InStep, C, SyncPlan::InStep);
    cluster.promote(A, 100);
    cluster.ordered(A, Order::Detach);
    cluster.write(A, 3, 5);
    cluster.cut(A, C);
    cluster.write(A, 4, 6);
    assert_eq!(cluster.nodes[C].image[4], 0);
    assert_ne!(cluster.record(A, C), 0);
    cluster.ordered(A, Order::Attach { replaced: false });
    assert_eq!(disk(&cluster, A), LocalDisk::UpToDate);
    cluster.connect(A, SyncPlan::Source, C, SyncPlan::Target);
    assert_eq!(cluster.state(A, C), PeerState::Established);
    assert_eq!(cluster.nodes[C].image, cluster.nodes[B].image);
    assert_eq!(cluster.nodes[A].image, cluster.nodes[B].image);
}

#[test]
fn verify_finds_what_differs_marks_it_and_repairs_it() {
    let mut cluster = pair(AckMode::Sync);
    let peer: PeerIndex = Cluster::index(A, B);
    cluster.write(A, 3, 5);
    cluster.nodes[B].image[100..110].fill(66);
    cluster.ordered(
        A,
        Order::Verify {
            peer,
            repair: false,
            resume: false,
        },
    );
    let status = cluster.nodes[A].mirror.status(Duration::ZERO).peers[0];
    let verify = status.last_verify.unwrap();
    assert!(verify.finished && verify.different == 10 * BLOCK_BYTES && verify.done == verify.total);
    assert_eq!(
        (status.state, status.dirty_bytes),
        (PeerState::Established, 10 * BLOCK_BYTES)
    );
    assert_eq!(cluster.nodes[B].image[105], 66, "marked, not copied");
    cluster.ordered(
        A,
        Order::Verify {
            peer,
            repair: true,
            resume: false,
        },
    );
    assert_eq!(cluster.nodes[A].image, cluster.nodes[B].image);
    assert_eq!((cluster.dirty(A, B), cluster.state(A, B)), (0, PeerState::Established));
}

/// A first look at what is on its way; bytes found different.
fn look_while_writing(mut cluster: Cluster) -> u64 {
    let peer = Cluster::index(A, B);
    // The first look reaches B before the write does, and its answer comes back when the write is here.
    cluster.stalled.push((B, A));
    cluster.ordered(
        A,
        Order::Verify {
            peer,
            repair: false,
            resume: false,
        },
    );
    cluster.write(A, 3, 5);
    cluster.stalled.clear();
    cluster.settle();
    let status = cluster.nodes[A].mirror.status(Duration::ZERO).peers[0];
    assert!(status.last_verify.is_some_and(|verify| verify.finished));
    status.dirty_bytes
}

#[test]
fn a_write_on_its_way_is_no_difference() {
    assert_eq!(look_while_writing(pair(AckMode::Async)), 0);
}

#[cfg(feature = "sabotage")]
#[test]
fn a_first_look_alone_would_be_a_false_alarm() {
    let mut cluster = pair(AckMode::Async);
    cluster.nodes[A].mirror.set_sabotage(Some(Sabotage::Recheck));
    assert_eq!(look_while_writing(cluster), BLOCK_BYTES);
}

#[test]
fn a_comparison_that_was_cut_off_goes_on_and_misses_nothing() {
    let mut cluster = pair(AckMode::Sync);
    let peer = Cluster::index(A, B);
    cluster.stalled.push((B, A));
    cluster.ordered(
        A,
        Order::Verify {
            peer,
            repair: true,
            resume: false,
        },
    );
    cluster.nodes[B].image[7] = 1;
    cluster.cut(A, B);
    cluster.stalled.clear();
    assert!(cluster.nodes[A].mirror.status(Duration::ZERO).peers[0].verify.is_some());
    cluster.connect(A, SyncPlan::InStep, B, SyncPlan::InStep);
    let status = cluster.nodes[A].mirror.status(Duration::ZERO).peers[0];
    assert_eq!(status.last_verify.map(|verify| verify.different), Some(BLOCK_BYTES));
    assert_eq!(cluster.nodes[A].image, cluster.nodes[B].image);
    // A stop is a place to go on from.
    cluster.stalled.push((B, A));
    cluster.ordered(
        A,
        Order::Verify {
            peer,
            repair: false,
            resume: true,
        },
    );
    cluster.ordered(A, Order::VerifyStop { peer });
    cluster.stalled.clear();
    cluster.settle();
    let status = cluster.nodes[A].mirror.status(Duration::ZERO).peers[0];
    assert_eq!(
        (status.verify, status.last_verify.map(|verify| verify.finished)),
        (None, Some(false))
    );
}
