//! What two nodes that keep to the rules say to each other.

use std::collections::VecDeque;

use mirror_core::ByteRange;
use mirror_core::event::{Failure, RequestId};
use mirror_core::stream::codec::Progress;
use mirror_core::stream::{Control, Credit, Frame, Request, codec};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::super::{StreamOutcome, StreamReply, StreamWork};
use super::ends::{End, Setting, pair, run, run_one, settings, tapped};
use crate::layers::Fault;
use crate::ring::OpKind;

fn write(offset: u64, length: u64) -> Request {
    Request::Write {
        range: ByteRange::new(offset, length),
        fua: false,
    }
}

fn bytes(seed: u64, length: u64) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + seed * 7 + (at >> 8)) as u8).collect()
}

/// Ends every request that has come: reads are answered with their offset's bytes.
fn serve(end: &mut End) -> Vec<(Request, Option<Vec<u8>>)> {
    let mut served = Vec::new();
    for (started, request, payload) in end.take_requests() {
        let reply = match &request {
            Request::Compare { range, .. } => StreamReply::Differs(vec![*range]),
            Request::Fetch { range, .. } | Request::Read { range } => {
                let all = bytes(range.offset, range.length);
                let middle = all.len() / 3;
                StreamReply::Contents {
                    ranges: vec![*range],
                    holes: Vec::new(),
                    parts: vec![end.payload(&all[..middle]), end.payload(&all[middle..])],
                }
            }
            Request::Trim { .. } => StreamReply::Failed(Failure::NoSpace),
            _ => StreamReply::Done,
        };
        end.port.finished(started, reply);
        served.push((request, payload.map(|payload| payload.as_slice().to_vec())));
    }
    served
}

#[test]
fn every_request_arrives_whole_and_in_order_and_every_answer_comes_back() {
    for setting in settings() {
        let (mut a, mut b) = pair(&setting);
        let range = ByteRange::new(8192, 40_000);
        let digests = vec![7; 10];
        let asked = [
            (write(0, 4096), Some(bytes(1, 4096))),
            (write(4096, 1 << 20), Some(bytes(2, 1 << 20))),
            (Request::CopyWrite { range }, Some(bytes(3, range.length))),
            (Request::Flush, None),
            (
                Request::Compare {
                    range,
                    digests: digests.clone(),
                },
                None,
            ),
            (Request::Fetch { range, digests }, None),
            (Request::Read { range }, None),
            (Request::Trim { range, fua: true }, None),
            (Request::CopyZero { range }, None),
        ];
        for (at, (request, payload)) in asked.iter().enumerate() {
            let work = StreamWork::Mutation(RequestId(at as u32));
            a.ask(request.clone(), payload.as_deref(), work);
        }
        let (mut served, mut answers) = (Vec::new(), Vec::new());
        run(&mut a, &mut b, "every answer", |a, b| {
            served.append(&mut serve(b));
            answers.append(&mut a.take_answers());
            answers.len() == asked.len()
        });
        assert!(served == asked);
        answers.sort_by_key(|(work, _)| format!("{work:?}"));
        for (at, (work, outcome)) in answers.into_iter().enumerate() {
            assert_eq!(work, StreamWork::Mutation(RequestId(at as u32)));
            match (at, outcome) {
                (0..4 | 8, StreamOutcome::Done) | (7, StreamOutcome::Failed(_)) => {}
                (4, StreamOutcome::Differs(ranges)) => assert_eq!(ranges, [range]),
                (5 | 6, StreamOutcome::Contents { ranges, payload, .. }) => {
                    assert_eq!(ranges, [range]);
                    assert!(payload.unwrap().as_slice() == bytes(range.offset, range.length));
                }
                (_, outcome) => panic!("{at}: {outcome:?}"),
            }
        }
        assert_eq!(a.port.unanswered(), 0);
        assert!(a.lost.is_none() && b.lost.is_none());
    }
}

#[test]
fn whatever_is_sent_in_whatever_pieces_arrives_as_it_was() {
    let mut runner = TestRunner::new(Config {
        cases: 40,
        failure_persistence: None,
        ..Config::default()
    });
    let receives = prop::collection::vec(prop_oneof![1..60usize, 60..70_000usize], 0..60);
    let outcome = runner.run(
        &(prop::collection::vec(lengths(), 1..40), receives),
        |(lengths, receives)| {
            let (mut a, mut b) = pair(&Setting::default());
            b.faults.add(OpKind::Receive, receives.into_iter().map(Fault::Short));
            let mut expected = VecDeque::new();
            for (at, &length) in lengths.iter().enumerate() {
                let (request, payload) = match length {
                    0 => (Request::Flush, None),
                    length => (write(at as u64 * 4096, length), Some(bytes(at as u64, length))),
                };
                a.ask(request.clone(), payload.as_deref(), StreamWork::Flush);
                expected.push_back((request, payload));
            }
            let mut answered = 0;
            run(&mut a, &mut b, "every answer", |a, b| {
                for came in serve(b) {
                    assert!(Some(came) == expected.pop_front(), "as it was sent");
                }
                answered += a.take_answers().len();
                answered == lengths.len()
            });
            Ok(())
        },
    );
    outcome.unwrap();
}

fn lengths() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(4096),
        1..20_000u64,
        Just(16 << 10),
        Just((16 << 10) + 1),
        60_000..300_000u64
    ]
}

#[test]
fn a_sender_without_credit_waits_and_goes_on_in_order() {
    let setting = Setting {
        window: Credit {
            bytes: 64 << 10,
            requests: 8,
        },
        ..Setting::default()
    };
    let (mut a, mut b) = pair(&setting);
    for at in 0..200 {
        a.ask(
            write(at * 4096, 4096),
            Some(&bytes(at, 4096)),
            StreamWork::Mutation(RequestId(at as u32)),
        );
    }
    let (mut held, mut most, mut next, mut answered) = (VecDeque::new(), 0, 0, 0);
    run(&mut a, &mut b, "every answer", |a, b| {
        for (started, request, payload) in b.take_requests() {
            assert_eq!(request, write(next * 4096, 4096));
            assert!(payload.unwrap().as_slice() == bytes(next, 4096));
            next += 1;
            held.push_back(started);
        }
        most = most.max(held.len());
        // Slower than they come, and the last one first.
        if let Some(started) = held.pop_back() {
            b.port.finished(started, StreamReply::Done);
        }
        answered += a.take_answers().len();
        answered == 200
    });
    assert!((2..=8).contains(&most), "{most}");
    assert_eq!((a.port.unanswered(), a.port.waiting_bytes()), (0, 0));
}

#[test]
fn a_request_larger_than_all_credit_is_let_through_alone() {
    let setting = Setting {
        window: Credit {
            bytes: 64 << 10,
            requests: 8,
        },
        ..Setting::default()
    };
    let (mut a, mut b) = pair(&setting);
    for at in 0..4 {
        let length = if at % 2 == 0 { 4096 } else { 300_000 };
        a.ask(write(at * 4096, length), Some(&bytes(at, length)), StreamWork::Flush);
    }
    let mut answered = 0;
    run(&mut a, &mut b, "every answer", |a, b| {
        serve(b);
        answered += a.take_answers().len();
        answered == 4
    });
}

#[test]
fn nothing_behind_a_barrier_is_started_before_all_before_it_is_durable() {
    for setting in settings() {
        let (mut a, mut b) = pair(&setting);
        a.ask(write(0, 4096), Some(&bytes(1, 4096)), StreamWork::Flush);
        a.ask(Request::Barrier, None, StreamWork::Barrier);
        a.ask(write(0, 4096), Some(&bytes(2, 4096)), StreamWork::Flush);
        a.port.control(&Control::AskDemote);
        run(&mut a, &mut b, "everything is there", |_, b| {
            !b.take_controls().is_empty()
        });
        // Whatever comes now, only the first one may be under way.
        let (first, ..) = b.take_requests().pop().unwrap();
        assert!(b.take_flushes().is_empty() && b.events.is_empty());
        b.port.finished(first, StreamReply::Done);
        run(&mut a, &mut b, "the flush is asked for", |_, b| b.events.len() == 1);
        let (connection, volume) = b.take_flushes().pop().unwrap();
        assert_eq!(volume, 1);
        assert!(b.take_requests().is_empty());
        b.port.flushed(connection, volume, Ok(())).unwrap();
        run(&mut a, &mut b, "the second one comes", |_, b| {
            !b.take_requests().is_empty()
        });
        assert_eq!(a.take_answers().len(), 1);
    }
}

#[test]
fn a_barrier_whose_flush_failed_ends_the_link() {
    let (mut a, mut b) = pair(&Setting::default());
    a.ask(write(0, 4096), Some(&bytes(1, 4096)), StreamWork::Flush);
    a.ask(Request::Barrier, None, StreamWork::Barrier);
    run(&mut a, &mut b, "the write", |_, b| !b.events.is_empty());
    let (first, ..) = b.take_requests().pop().unwrap();
    b.port.finished(first, StreamReply::Done);
    run(&mut a, &mut b, "the flush", |_, b| !b.events.is_empty());
    let (connection, volume) = b.take_flushes().pop().unwrap();
    assert!(b.port.flushed(connection, volume, Err(Failure::Io)).is_err());
}

#[test]
fn a_control_frame_arrives_behind_the_answers_given_before_it() {
    for setting in settings() {
        let (mut a, mut b) = pair(&setting);
        for _ in 0..3000 {
            a.ask(Request::Flush, None, StreamWork::Flush);
        }
        let mut served = 0;
        run(&mut a, &mut b, "every request", |_, b| {
            for (started, ..) in b.take_requests() {
                b.port.finished(started, StreamReply::Done);
                served += 1;
            }
            served == 3000
        });
        b.port.control(&Control::Demoted);
        let mut answered = 0;
        run(&mut a, &mut b, "the control frame", |a, _| {
            let said = a.take_controls().len();
            answered += a.take_answers().len();
            said == 1
        });
        assert_eq!(answered, 3000);
    }
}

#[test]
fn the_answers_of_a_turn_go_out_as_one_send() {
    let (mut a, mut b) = pair(&Setting::default());
    for at in 0..64 {
        a.ask(write(at * 4096, 4096), Some(&bytes(at, 4096)), StreamWork::Flush);
    }
    a.step();
    assert_eq!(a.faults.seen(OpKind::Send), 1);
    let mut requests = Vec::new();
    run(&mut a, &mut b, "every request", |_, b| {
        requests.append(&mut b.take_requests());
        requests.len() == 64
    });
    let before = b.faults.seen(OpKind::Send);
    for (started, ..) in requests {
        b.port.finished(started, StreamReply::Done);
    }
    run(&mut a, &mut b, "every answer", |a, _| a.events.len() == 64);
    assert_eq!(b.faults.seen(OpKind::Send) - before, 1);
}

#[test]
fn frames_that_came_with_the_handshake_are_not_forgotten() {
    let (far, mut b) = tapped(&Setting::default());
    assert!(b.port.lose().is_some());
    drop(far);
    let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut wire = vec![0; 4096];
    let (mut tap, mut sender) = tapped(&Setting::default());
    sender.ask(write(0, 100), Some(&bytes(1, 100)), StreamWork::Flush);
    sender.step();
    let count = std::io::Read::read(&mut tap, &mut wire).unwrap();
    let setting = Setting {
        unread: wire[..count].to_vec(),
        ..Setting::default()
    };
    b.attach(2, &setting, near, false);
    b.port.open(&b.turn).unwrap();
    run_one(&mut b, "the request", |b| b.events.len() == 1);
}

/// A node behind a slow link still hears at once how far it is behind.
#[test]
fn a_heartbeat_waits_for_a_part_of_the_queue_only() {
    let (mut peer, mut a) = tapped(&Setting::default());
    for at in 0..40 {
        a.ask(write(at << 20, 1 << 20), Some(&bytes(at, 1 << 20)), StreamWork::Flush);
    }
    a.step();
    a.pass(std::time::Duration::from_millis(500));
    peer.set_nonblocking(true).unwrap();
    let (mut wire, mut heard) = (Vec::new(), None);
    run_one(&mut a, "the heartbeat", |_| {
        // Nothing but the sender's own turns makes room: as slow as it gets.
        let mut some = vec![0; 64 << 10];
        if let Ok(count) = std::io::Read::read(&mut peer, &mut some) {
            wire.extend_from_slice(&some[..count]);
        }
        while let Ok(Progress::Frame {
            frame,
            payload,
            consumed,
        }) = codec::decode(&wire)
        {
            let length = consumed + payload.length as usize;
            if wire.len() < length {
                break;
            }
            wire.drain(..length);
            if let Frame::Control(Control::Heartbeat { bytes, head, .. }) = frame {
                heard.get_or_insert((bytes, head));
            }
        }
        heard.is_some()
    });
    assert_eq!(heard, Some((40 << 20, 40)));
    assert!(a.port.waiting_bytes() > 30 << 20, "{}", a.port.waiting_bytes());
}
