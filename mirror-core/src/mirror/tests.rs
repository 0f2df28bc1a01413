//! Single stories of a mirror, step by step. The simulator in tests/sim tells the rest.
#![allow(clippy::unwrap_used)]
extern crate std;

mod answers;
mod bad_sectors;
mod cluster;
mod durable;
mod leg;
mod node;
mod orders;
mod resize;
mod roles;
mod suspend;
mod thirds;
mod verify;
mod withdrawn;
mod world;

use super::*;
use crate::config::AckMode;
use crate::event::{ConnectionId, Copied, Failure, Mutation, MutationKind};
use crate::metadata::LOG_OFFSET;
use crate::range::{ByteRange, EXTENT_BYTES};
use world::{PEER, World, reply, transaction};

#[test]
fn a_synchronous_write_is_hot_then_on_both_legs_then_answered() {
    let mut world = World::new(AckMode::Sync, OnDisconnect::Continue);
    world.up();
    let outputs = world.write(1, 0);
    assert!(
        matches!(outputs[..], [Output::Persist(_)]),
        "I1: the log first: {outputs:?}"
    );
    let outputs = world.persisted(&outputs);
    assert!(
        matches!(outputs[..], [Output::Local { .. }, Output::Peer { .. }]),
        "{outputs:?}"
    );
    assert_eq!(world.peer(1), [], "one leg is not enough");
    assert_eq!(world.local(1), [reply(1), Output::Release(RequestId(1))]);
    assert!(
        matches!(world.write(2, 4096)[..], [Output::Local { .. }, Output::Peer { .. }]),
        "the extent is hot"
    );
}

#[test]
fn overlapping_writes_go_one_after_the_other() {
    let mut world = World::new(AckMode::Sync, OnDisconnect::Continue);
    world.up();
    world.whole_write(0, 0);
    assert_eq!(world.write(1, 0).len(), 2);
    assert_eq!(world.write(2, 0), [], "I2");
    world.local(1);
    let outputs = world.peer(1);
    assert!(outputs.contains(&Output::Local {
        id: RequestId(2),
        mutation: Mutation {
            range: ByteRange::new(0, 4096),
            kind: MutationKind::Write,
            fua: false
        }
    }));
}

#[test]
fn a_degraded_reply_waits_for_the_new_generation() {
    let mut world = World::new(AckMode::Sync, OnDisconnect::Continue);
    world.up();
    world.whole_write(0, 0);
    let before = world.mirror.status(Duration::ZERO).generation;
    world.write(1, 0);
    assert_eq!(world.local(1), []);
    let outputs = world.down();
    assert!(!outputs.contains(&reply(1)), "I4");
    assert_ne!(world.mirror.status(Duration::ZERO).generation, before);
    assert!(world.persisted(&outputs).contains(&reply(1)));
    assert!(world.mirror.is_dirty(PEER, 0));
}

#[test]
fn what_the_peer_had_not_flushed_is_copied_again_and_clean_only_when_durable() {
    let mut world = World::new(AckMode::Sync, OnDisconnect::Continue);
    world.up();
    world.whole_write(0, 8192);
    assert!(!world.mirror.is_dirty(PEER, 2));
    let outputs = world.down();
    world.persisted(&outputs);
    assert!(world.mirror.is_dirty(PEER, 2), "answered but never flushed");
    let outputs = world.up();
    let Some(&Output::Copy {
        copy,
        range,
        connection,
        ..
    }) = outputs.first()
    else {
        panic!("{outputs:?}")
    };
    assert_eq!(range, ByteRange::new(8192, 4096));
    let outcome = Ok(Copied {
        shipped: 4096,
        zeroed: 0,
    });
    let outputs = world.give(Input::CopyDone {
        peer: PEER,
        connection,
        copy,
        outcome,
    });
    assert!(matches!(outputs[..], [Output::PeerFlush { .. }]), "{outputs:?}");
    assert!(world.mirror.is_dirty(PEER, 2), "I3");
    world.give(Input::PeerFlushDone {
        peer: PEER,
        connection,
        outcome: Ok(()),
    });
    assert!(!world.mirror.is_dirty(PEER, 2));
    assert_eq!(
        world.mirror.status(Duration::ZERO).peers[0].state,
        PeerState::Established
    );
}

#[test]
fn a_late_answer_of_an_old_connection_means_nothing() {
    let mut world = World::new(AckMode::Sync, OnDisconnect::Suspend);
    world.up();
    world.whole_write(0, 0);
    world.write(1, 0);
    world.local(1);
    let outputs = world.down();
    world.persisted(&outputs);
    let outputs = world.up();
    assert!(
        outputs.iter().any(|output| matches!(output, Output::Peer { .. })),
        "held, and sent again: {outputs:?}"
    );
    let old = ConnectionId(world.connection - 1);
    assert_eq!(
        world.give(Input::PeerDone {
            peer: PEER,
            connection: old,
            id: RequestId(1),
            outcome: Ok(())
        }),
        []
    );
    assert!(world.peer(1).contains(&reply(1)));
}

#[test]
fn suspend_holds_and_fail_refuses() {
    let mut world = World::new(AckMode::Sync, OnDisconnect::Suspend);
    let outputs = world.write(1, 0);
    assert_eq!(world.persisted(&outputs), [], "held: the peer has never been there");
    assert!(world.up().iter().any(|output| matches!(output, Output::Local { .. })));
    let mut world = World::new(AckMode::Sync, OnDisconnect::Fail);
    let refused = Output::Reply {
        id: RequestId(1),
        outcome: Err(Refusal::PeerGone(PEER)),
    };
    assert_eq!(world.write(1, 0), [refused, Output::Release(RequestId(1))]);
}

#[test]
fn an_asynchronous_write_is_answered_before_the_peer_and_a_full_queue_falls_behind() {
    let mut world = World::new(AckMode::Async, OnDisconnect::Continue);
    world.up();
    let outputs = world.write(0, 0);
    world.persisted(&outputs);
    assert_eq!(world.local(0), [reply(0)], "the payload is kept: no release");
    world.give(Input::Host {
        id: RequestId(90),
        op: HostOp::Flush,
    });
    // Behind the barrier: queued, not sent, until 12 KiB are queued or in flight.
    for id in 1..=2 {
        assert!(
            !world
                .write(id, 65536 * u64::from(id))
                .iter()
                .any(|output| matches!(output, Output::Peer { .. }))
        );
    }
    assert_eq!(
        world.mirror.status(Duration::ZERO).peers[0].state,
        PeerState::Established
    );
    world.write(3, 3 * 65536);
    let status = world.mirror.status(Duration::ZERO).peers[0];
    assert_eq!((status.state, status.dirty_bytes), (PeerState::Behind, 3 * 4096));
    world.peer(0);
    assert_eq!(
        world.mirror.status(Duration::ZERO).peers[0].state,
        PeerState::SyncSource
    );
}

#[test]
fn a_flush_asks_both_legs_and_a_local_failure_is_fatal() {
    let mut world = World::new(AckMode::Sync, OnDisconnect::Continue);
    world.up();
    world.whole_write(0, 0);
    let outputs = world.give(Input::Host {
        id: RequestId(5),
        op: HostOp::Flush,
    });
    assert!(
        matches!(outputs[..], [Output::LocalFlush, Output::PeerFlush { .. }]),
        "{outputs:?}"
    );
    let refused = Output::Reply {
        id: RequestId(5),
        outcome: Err(Refusal::VolumeFailed),
    };
    assert!(world.give(Input::LocalFlushDone(Err(Failure::Io))).contains(&refused));
    assert!(matches!(
        world.write(1, 0)[..],
        [
            Output::Reply {
                outcome: Err(Refusal::VolumeFailed),
                ..
            },
            _
        ]
    ));
}

#[test]
fn extents_go_cold_only_after_a_flush_of_every_leg() {
    let mut world = World::new(AckMode::Sync, OnDisconnect::Continue);
    world.up();
    for extent in 0..8u64 {
        world.whole_write(0, extent * EXTENT_BYTES);
    }
    let outputs = world.write(1, 20 * EXTENT_BYTES);
    assert!(
        matches!(outputs[..], [Output::LocalFlush, Output::PeerFlush { .. }]),
        "no slot: {outputs:?}"
    );
    assert_eq!(world.give(Input::LocalFlushDone(Ok(()))), []);
    let connection = ConnectionId(world.connection);
    let outputs = world.give(Input::PeerFlushDone {
        peer: PEER,
        connection,
        outcome: Ok(()),
    });
    assert!(matches!(outputs[..], [Output::Persist(_)]), "{outputs:?}");
    assert_eq!(world.persisted(&outputs).len(), 2);
    assert!(!world.mirror.is_hot(0) && world.mirror.is_hot(20));
}

#[test]
fn a_stop_in_order_leaves_nothing_hot() {
    let mut world = World::new(AckMode::Sync, OnDisconnect::Continue);
    world.up();
    world.whole_write(0, 0);
    let outputs = world.give(Input::Command(Command::Stop));
    assert!(
        matches!(outputs[..], [Output::LocalFlush, Output::PeerFlush { .. }]),
        "{outputs:?}"
    );
    world.give(Input::LocalFlushDone(Ok(())));
    let connection = ConnectionId(world.connection);
    let outputs = world.give(Input::PeerFlushDone {
        peer: PEER,
        connection,
        outcome: Ok(()),
    });
    assert_eq!(transaction(&outputs).then.len(), 2);
    let outputs = world.persisted(&outputs);
    assert!(matches!(outputs[..], [Output::Disconnect { .. }]), "{outputs:?}");
    assert!(matches!(
        world.write(1, 0)[..],
        [
            Output::Reply {
                outcome: Err(Refusal::Stopping),
                ..
            },
            _
        ]
    ));
}

/// A superblock that makes everything dirty stands in for the pages of the extents that go cold with it.
#[test]
fn a_new_instance_is_durable_before_the_log_that_lets_extents_go_cold() {
    let mut world = World::new(AckMode::Sync, OnDisconnect::Continue);
    world.up();
    world.whole_write(0, 0);
    let outputs = world.down();
    world.persisted(&outputs);
    let log = world.write(1, 30 * EXTENT_BYTES);
    world.give(Input::Command(Command::Invalidate(PEER)));
    world.write(2, 31 * EXTENT_BYTES);
    let both = world.persisted(&log);
    let (first, then) = (&transaction(&both).first, &transaction(&both).then);
    assert!(
        first.iter().any(|write| write.offset < LOG_OFFSET),
        "the superblock: {both:?}"
    );
    assert!(then.iter().all(|write| write.offset >= LOG_OFFSET) && then.len() == 1);
}

#[test]
fn a_block_that_cannot_be_read_does_not_hold_up_the_others() {
    let mut world = World::new(AckMode::Sync, OnDisconnect::Continue);
    world.up();
    world.give(Input::Command(Command::Disconnect(PEER)));
    world.give(Input::Command(Command::Invalidate(PEER)));
    world.give(Input::Command(Command::Connect(PEER)));
    let outputs = world.up();
    let mut copies: VecDeque<_> = outputs.iter().filter_map(copy_of).collect();
    let (copy, connection) = copies.pop_front().unwrap();
    let outcome = Err(crate::event::CopyFailure::Local(Failure::Io));
    let outputs = world.give(Input::CopyDone {
        peer: PEER,
        connection,
        copy,
        outcome,
    });
    assert!(
        outputs.iter().any(|output| copy_of(output).is_some()),
        "the next range is asked for: {outputs:?}"
    );
}

fn copy_of(output: &Output) -> Option<(crate::event::CopyId, ConnectionId)> {
    match output {
        Output::Copy { copy, connection, .. } => Some((*copy, *connection)),
        _ => None,
    }
}
