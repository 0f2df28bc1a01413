//! Peers and networks that do not keep to the rules.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mirror_core::ByteRange;
use mirror_core::event::RequestId;
use mirror_core::stream::codec::Checksum;
use mirror_core::stream::{Answer, Control, Credit, Request, codec};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::super::{CHECKSUM, StreamLost, StreamWork};
use super::ends::{End, Setting, run_one, settings, tapped};

const RANGE: ByteRange = ByteRange {
    offset: 4096,
    length: 4096,
};

fn request(sequence: u64, request: &Request, payload: &[u8]) -> Vec<u8> {
    request_of(1, CHECKSUM, sequence, request, payload)
}

fn request_of(volume: u16, checksum: Checksum, sequence: u64, request: &Request, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let check = codec::Payload::of(checksum, payload);
    codec::encode_request(sequence, volume, request, check, &mut bytes);
    bytes.extend(payload);
    bytes
}

fn write(sequence: u64) -> Vec<u8> {
    let fua = false;
    request(sequence, &Request::Write { range: RANGE, fua }, &[5; 4096])
}

fn answer(answer: &Answer, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_answer(answer, codec::Payload::of(CHECKSUM, payload), &mut bytes);
    bytes.extend(payload);
    bytes
}

/// Sends this to a link that has asked for a few things; why the link is lost.
fn lost_by(setting: &Setting, wire: &[u8]) -> StreamLost {
    let (mut peer, mut end) = tapped(setting);
    ask_a_few(&mut end);
    peer.write_all(wire).unwrap();
    run_one(&mut end, "the link is lost", |end| end.lost.is_some());
    end.lost.unwrap()
}

/// 1: a flush, 2: a compare, 3: a fetch, 4: a read.
fn ask_a_few(end: &mut End) {
    let digests = vec![1];
    for request in [
        Request::Flush,
        Request::Compare {
            range: RANGE,
            digests: digests.clone(),
        },
        Request::Fetch { range: RANGE, digests },
        Request::Read { range: RANGE },
    ] {
        end.ask(request, None, StreamWork::Mutation(RequestId(0)));
    }
    end.step();
}

#[test]
fn a_damaged_payload_ends_the_link_before_anything_is_done_with_it() {
    for setting in settings() {
        for length in [1, 4096, 16 << 10, 100_000] {
            let range = ByteRange::new(0, length);
            let write = Request::Write { range, fua: false };
            let good = request_of(1, setting.checksum, 1, &write, &vec![9; length as usize]);
            let (mut peer, mut end) = tapped(&setting);
            let mut bad = good.clone();
            let last = bad.len() - 1;
            bad[last] ^= 0x10;
            peer.write_all(&bad).unwrap();
            run_one(&mut end, "the link is lost", |end| end.lost.is_some());
            assert!(matches!(end.lost, Some(StreamLost::Damaged(_))), "{:?}", end.lost);
            assert!(end.events.is_empty(), "{:?}", end.events);
            assert_eq!(end.port.damaged(), 1);
        }
    }
}

#[test]
fn no_damage_to_a_frame_goes_unnoticed() {
    let mut runner = TestRunner::new(Config {
        cases: 150,
        failure_persistence: None,
        ..Config::default()
    });
    let good = [write(1), request(2, &Request::Flush, &[]), write(3)].concat();
    let outcome = runner.run(&(0..good.len(), 0..8u32), |(at, bit)| {
        let (mut peer, mut end) = tapped(&Setting::default());
        let mut bad = good.clone();
        bad[at] ^= 1 << bit;
        peer.write_all(&bad).unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        run_one(&mut end, "the link is lost", |end| end.lost.is_some());
        let before = end.take_requests().len();
        assert!(
            before <= 2 && end.events.is_empty(),
            "{before} of 3 requests, one of them damaged"
        );
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn requests_out_of_order_of_no_volume_or_with_another_payload_than_they_say_end_the_link() {
    let setting = Setting::default();
    for (what, wire) in [
        ("a gap", [write(1), write(3)].concat()),
        ("a number used twice", [write(1), write(1)].concat()),
        ("not the first number", write(2)),
        (
            "a volume there is not",
            request_of(2, CHECKSUM, 1, &Request::Flush, &[]),
        ),
        ("an answer to nothing", answer(&Answer::Done(vec![77].into()), &[])),
        ("an answer given twice", answer(&Answer::Done(vec![1, 1].into()), &[])),
        (
            "an answer that does not fit",
            answer(&Answer::Done(vec![2].into()), &[]),
        ),
    ] {
        let lost = lost_by(&setting, &wire);
        assert!(matches!(lost, StreamLost::Protocol(_)), "{what}: {lost:?}");
    }
}

#[test]
fn answers_that_go_beyond_what_was_asked_end_the_link() {
    let beyond = ByteRange::new(RANGE.offset, RANGE.length + 1);
    let part = ByteRange::new(RANGE.offset, 512);
    let contents = |sequence, ranges: &[ByteRange], holes: &[ByteRange], length| {
        let contents = Answer::Contents {
            sequence,
            ranges: ranges.to_vec(),
            holes: holes.to_vec(),
        };
        answer(&contents, &vec![0; length])
    };
    let differs = |sequence, ranges: &[ByteRange]| {
        let ranges = ranges.to_vec();
        answer(&Answer::Differs { sequence, ranges }, &[])
    };
    for (what, wire) in [
        ("beyond the range", differs(2, &[beyond])),
        ("overlapping", differs(2, &[part, part])),
        ("of something else", differs(3, &[part])),
        ("contents of a flush", contents(1, &[part], &[], 512)),
        ("contents beyond the range", contents(3, &[beyond], &[], 4097)),
        ("less than was to be read", contents(4, &[part], &[], 512)),
    ] {
        let lost = lost_by(&Setting::default(), &wire);
        assert!(matches!(lost, StreamLost::Protocol(_)), "{what}: {lost:?}");
    }
}

#[test]
fn a_peer_that_sends_more_than_was_granted_ends_the_link_before_memory_is_taken() {
    let setting = Setting {
        window: Credit {
            bytes: 10_000,
            requests: 4,
        },
        ..Setting::default()
    };
    let bytes = lost_by(&setting, &[write(1), write(2), write(3)].concat());
    assert!(matches!(bytes, StreamLost::Protocol(_)), "{bytes:?}");
    let flushes: Vec<u8> = (1..6).flat_map(|at| request(at, &Request::Flush, &[])).collect();
    let requests = lost_by(&setting, &flushes);
    assert!(matches!(requests, StreamLost::Protocol(_)), "{requests:?}");
}

#[test]
fn requests_before_the_link_is_open_end_it() {
    let (ours, mut peer) = UnixStream::pair().unwrap();
    let (_, mut end) = tapped(&Setting::default());
    assert!(end.port.lose().is_some());
    end.attach(2, &Setting::default(), ours, true);
    peer.write_all(&write(1)).unwrap();
    run_one(&mut end, "the link is lost", |end| end.lost.is_some());
    assert!(matches!(end.lost, Some(StreamLost::Protocol(_))), "{:?}", end.lost);
}

#[test]
fn noise_ends_the_link_and_nothing_else() {
    let mut runner = TestRunner::new(Config {
        cases: 60,
        failure_persistence: None,
        ..Config::default()
    });
    let outcome = runner.run(&prop::collection::vec(any::<u8>(), 1..400), |noise| {
        let (mut peer, mut end) = tapped(&Setting::default());
        peer.write_all(&noise).unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        run_one(&mut end, "the link is lost", |end| end.lost.is_some());
        assert!(end.events.is_empty());
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn a_peer_that_sends_heartbeats_and_reads_nothing_costs_no_memory() {
    let (mut peer, mut end) = tapped(&Setting::default());
    let mut heartbeat = Vec::new();
    let control = Control::Heartbeat {
        sent_us: 1,
        lag_us: 0,
        bytes: 0,
        flushes: 0,
        head: 0,
    };
    codec::encode_control(&control, &mut heartbeat);
    let many = heartbeat.repeat(200);
    for _ in 0..50 {
        peer.write_all(&many).unwrap();
        end.step();
    }
    run_one(&mut end, "everything is read", |end| end.port.round_trip().is_none());
    peer.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let (mut echoes, mut bytes) = (0, [0; 4096]);
    while let Ok(count) = peer.read(&mut bytes) {
        echoes += count;
    }
    assert!(
        echoes / heartbeat.len() < 200,
        "{echoes} bytes of echoes to 10000 heartbeats"
    );
}
