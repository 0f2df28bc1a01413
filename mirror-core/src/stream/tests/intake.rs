use alloc::vec::Vec;

use super::super::credit::Credit;
use super::super::intake::{Intake, IntakeError, Started, Step};
use super::*;
use crate::event::ConnectionId;

const FIRST: ConnectionId = ConnectionId(1);
const SECOND: ConnectionId = ConnectionId(2);

fn intake() -> Intake<u64> {
    let mut intake = Intake::new(
        2,
        Credit {
            bytes: 100,
            requests: 8,
        },
    );
    intake.connect(FIRST);
    intake
}

fn started(sequence: u64) -> Started {
    Started {
        connection: FIRST,
        sequence,
    }
}

/// Numbers of what may start, and volumes to be flushed.
fn steps(intake: &mut Intake<u64>) -> (Vec<u64>, Vec<u16>) {
    let (mut starts, mut flushes) = (Vec::new(), Vec::new());
    while let Some(step) = intake.poll() {
        match step {
            Step::Start { started, item, .. } => {
                assert_eq!(started.sequence, item, "the shell's belongs to the number");
                starts.push(item);
            }
            Step::Flush { volume, .. } => flushes.push(volume),
        }
    }
    (starts, flushes)
}

fn nothing() -> (Vec<u64>, Vec<u16>) {
    (Vec::new(), Vec::new())
}

#[test]
fn one_epoch_starts_at_once() {
    let mut intake = intake();
    for sequence in 1..=3 {
        intake.arrive(sequence, 0, need(10), sequence).unwrap();
    }
    assert_eq!(steps(&mut intake), ([1, 2, 3].into(), [].into()));
    assert_eq!(intake.in_progress(), 3);
    assert!(intake.finished(started(2), true));
    assert!(intake.finished(started(1), false));
    assert!(intake.finished(started(3), true));
    assert_eq!(intake.take_done(1), Some([2].into()));
    assert_eq!(intake.take_done(9), Some([3].into()));
    assert_eq!(intake.take_done(9), None);
}

/// What is behind it would be there without what was in front.
#[test]
fn a_barrier_is_not_passed_once_a_change_in_front_of_it_has_failed() {
    for (mutates, passes) in [(true, false), (false, true)] {
        let mut intake = intake();
        let first = Need { mutates, ..need(1) };
        intake.arrive(1, 0, first, 1).unwrap();
        intake.arrive(2, 0, BARRIER, 2).unwrap();
        intake.arrive(3, 1, need(1), 3).unwrap();
        assert_eq!(steps(&mut intake).0, [1]);
        // A read is answered with what was read; a change that the shell answers itself was not made.
        intake.finished(started(1), false);
        let (starts, flushes) = steps(&mut intake);
        flushes.iter().for_each(|&volume| intake.flushed(FIRST, volume));
        assert_eq!([starts, steps(&mut intake).0].concat().contains(&3), passes);
        assert_eq!(intake.disconnect().count(), usize::from(!passes));
        if !passes {
            intake.connect(SECOND);
            intake.arrive(1, 0, BARRIER, 1).unwrap();
            intake.arrive(2, 0, need(1), 2).unwrap();
            assert_eq!(steps(&mut intake).0, [2], "another connection is another matter");
        }
    }
}

#[test]
fn a_barrier_waits_for_all_in_front_and_flushes_what_was_written() {
    let mut intake = intake();
    let reads = Need {
        mutates: false,
        ..need(1)
    };
    intake.arrive(1, 0, need(1), 1).unwrap();
    intake.arrive(2, 1, reads, 2).unwrap();
    intake.arrive(3, 0, BARRIER, 3).unwrap();
    intake.arrive(4, 1, need(1), 4).unwrap();
    assert_eq!(steps(&mut intake), ([1, 2].into(), [].into()));
    intake.finished(started(1), true);
    assert_eq!(steps(&mut intake), nothing(), "2 is in progress");
    intake.finished(started(2), true);
    assert_eq!(
        steps(&mut intake),
        ([].into(), [0].into()),
        "nothing was written to volume 1"
    );
    intake.flushed(SECOND, 0);
    intake.flushed(FIRST, 1);
    assert_eq!(steps(&mut intake), nothing(), "another flush than the one it needs");
    intake.flushed(FIRST, 0);
    assert_eq!(steps(&mut intake), ([4].into(), [].into()));
    // Everything is durable but 4.
    intake.arrive(5, 0, BARRIER, 5).unwrap();
    intake.arrive(6, 0, BARRIER, 6).unwrap();
    intake.finished(started(4), true);
    assert_eq!(steps(&mut intake), ([].into(), [1].into()));
    intake.flushed(FIRST, 1);
    assert_eq!(steps(&mut intake), nothing());
    assert_eq!(intake.take_done(9), Some([1, 2, 4].into()), "a barrier is not answered");
}

#[test]
fn gaps_and_repetitions_are_refused() {
    let mut intake = intake();
    let wrong = |expected, got| Err(IntakeError::Sequence { expected, got });
    assert_eq!(intake.arrive(2, 0, need(1), 2), wrong(1, 2));
    assert_eq!(intake.arrive(0, 0, need(1), 0), wrong(1, 0));
    assert_eq!(intake.arrive(1, 0, need(1), 1), Ok(()));
    assert_eq!(intake.arrive(1, 0, need(1), 1), wrong(2, 1));
    let (sequence, volume, volumes) = (2, 2, 2);
    let unknown = IntakeError::Volume {
        sequence,
        volume,
        volumes,
    };
    assert_eq!(intake.arrive(2, 2, need(1), 2), Err(unknown));
}

#[test]
fn more_than_was_granted_is_refused_before_its_payload_is_received() {
    let mut intake = intake();
    let overrun = |sequence| Err(IntakeError::Overrun { sequence });
    intake.arrive(1, 0, need(60), 1).unwrap();
    assert_eq!(intake.admit(2, 0, need(41)), overrun(2));
    assert_eq!(intake.admit(2, 0, need(u64::MAX)), overrun(2));
    for sequence in 2..=8 {
        intake.arrive(sequence, 0, need(0), sequence).unwrap();
    }
    assert_eq!(intake.admit(9, 0, need(0)), overrun(9));
    assert_eq!(intake.admit(9, 0, BARRIER), overrun(9));
    steps(&mut intake);
    intake.finished(started(1), true);
    assert_eq!(intake.admit(9, 0, need(1000)), Ok(()), "alone, whatever it costs");
}

#[test]
fn credit_is_granted_when_it_is_worth_a_frame() {
    let mut intake = intake();
    intake.arrive(1, 0, need(24), 1).unwrap();
    intake.arrive(2, 0, need(1), 2).unwrap();
    steps(&mut intake);
    intake.finished(started(1), true);
    assert_eq!(intake.take_credit(), None);
    intake.finished(started(2), true);
    let (bytes, requests) = (25, 2);
    assert_eq!(intake.take_credit(), Some(Credit { bytes, requests }));
    assert_eq!(intake.take_credit(), None);
}

#[test]
fn i11_a_new_connection_waits_for_the_old_ones_requests() {
    let mut intake = intake();
    intake.arrive(1, 0, need(1), 1).unwrap();
    intake.arrive(2, 0, need(1), 2).unwrap();
    steps(&mut intake);
    intake.arrive(3, 0, need(1), 3).unwrap();
    intake.arrive(4, 0, BARRIER, 4).unwrap();
    intake.finished(started(1), true);
    assert_eq!(
        intake.disconnect().collect::<Vec<_>>(),
        [3],
        "what was not started never is"
    );
    assert!(!intake.is_quiet());
    assert_eq!(intake.poll(), None);
    assert_eq!(intake.take_done(9), None, "there is nobody to tell");
    assert_eq!(
        intake.arrive(5, 0, need(1), 5),
        Err(IntakeError::NotConnected { sequence: 5 })
    );
    assert!(!intake.finished(started(2), true), "no answer on the new connection");
    assert!(intake.is_quiet());
    intake.connect(SECOND);
    intake.arrive(1, 0, need(100), 1).unwrap();
    assert_eq!(steps(&mut intake), ([1].into(), [].into()));
}

#[test]
#[should_panic(expected = "I11")]
fn i11_is_asserted() {
    let mut intake = intake();
    intake.arrive(1, 0, need(1), 1).unwrap();
    steps(&mut intake);
    let _ = intake.disconnect();
    intake.connect(SECOND);
}

#[test]
#[should_panic(expected = "a request ends once")]
fn a_request_ends_once() {
    let mut intake = intake();
    intake.arrive(1, 0, need(1), 1).unwrap();
    steps(&mut intake);
    intake.finished(started(1), true);
    intake.finished(started(1), true);
}

/// A flush that was under way when the connection was lost: the next barrier does not take it for granted.
#[test]
fn what_was_not_durable_at_a_loss_is_flushed_for_the_next_barrier() {
    let mut intake = intake();
    intake.arrive(1, 1, need(1), 1).unwrap();
    intake.arrive(2, 0, BARRIER, 2).unwrap();
    steps(&mut intake);
    intake.finished(started(1), true);
    assert_eq!(steps(&mut intake), ([].into(), [1].into()));
    let _ = intake.disconnect();
    intake.connect(SECOND);
    intake.flushed(FIRST, 1);
    intake.arrive(1, 0, BARRIER, 1).unwrap();
    assert_eq!(steps(&mut intake), ([].into(), [1].into()));
}

/// A peer that sends nothing but barriers costs a loop, not the stack.
#[test]
fn many_barriers() {
    let requests = Credit::REQUESTS_MAX;
    let mut intake: Intake<u64> = Intake::new(1, Credit { bytes: 1, requests });
    intake.connect(FIRST);
    for sequence in 1..=u64::from(requests) {
        intake.arrive(sequence, 0, BARRIER, sequence).unwrap();
    }
    assert_eq!(steps(&mut intake), nothing());
    let bytes = 0;
    assert_eq!(intake.take_credit(), Some(Credit { bytes, requests }));
}
