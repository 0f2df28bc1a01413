//! Bounds: readers that do not read, and budgets that are full.

use std::collections::BTreeSet;
use std::time::Duration;

use mirror_core::config::REQUESTS_MAX;
use nbd_proto::{Command, Request};

use super::host::write_request;
use super::peer::{equal_peer, played_peers};
use super::rig::{Build, MIB};
use super::transmission::on_both_engines;
use crate::data::volume::Volume;
use crate::data::{Limits, VolumePlan};
use crate::image::{Image, ImageOptions, ImagePlace, IoMode};
use crate::ring::EngineChoice;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_reader_that_does_not_read_is_not_served_without_end_and_disturbs_nobody() {
    for budget_bytes in [MIB, 64 * MIB] {
        on_both_engines(|engine| slow_reader(engine, budget_bytes));
    }
}

fn slow_reader(engine: EngineChoice, budget_bytes: u64) {
    let mut build = Build::memory(engine, 16 * MIB);
    build.limits.budget_bytes = budget_bytes;
    let rig = build.start();
    let (mut slow, mut other) = (rig.connect(false), rig.connect(false));
    // More than a connection may hold, and behind it a WRITE that must not be reached.
    let mut wire: Vec<u8> = (0..100)
        .flat_map(|at| Request::new(Command::Read { df: false }, at, 8 * MIB, 1 << 20).encode())
        .collect();
    wire.extend(write_request(100, 0, &[1; 4096]));
    slow.send(&wire);
    rig.wait("nothing runs", |volume| volume.requests_in_flight == 0);
    for round in 0..50 {
        other.write(MIB, &[round; 4096]);
        assert_eq!(other.read(MIB, 4096), [round; 4096]);
        assert_eq!(
            other.read(0, 4096),
            [0; 4096],
            "the slow reader's last request was taken"
        );
    }
    let mut cookies = BTreeSet::new();
    for _ in 0..=100 {
        let (cookie, outcome) = slow.answer(|cookie| if cookie == 100 { 0 } else { 1 << 20 });
        assert!(outcome.unwrap().iter().all(|&byte| byte == 0));
        cookies.insert(cookie);
    }
    assert!(cookies.into_iter().eq(0..=100));
    assert_eq!(other.read(0, 4096), [1; 4096]);
}

#[test]
fn a_client_that_reads_no_replies_stops_being_served() {
    on_both_engines(|engine| {
        let rig = Build::memory(engine, 16 * MIB).start();
        let mut slow = rig.connect(false);
        slow.stream.set_nonblocking(true).unwrap();
        let request = Request::new(Command::Flush, 1, 0, 0).encode();
        let mut taken = 0u64;
        // It ends: the server stops taking requests once too many replies wait, and the socket fills up.
        let mut idle = 0;
        while idle < 200 {
            match std::io::Write::write(&mut slow.stream, &request) {
                Ok(_) => (taken, idle) = (taken + 1, 0),
                Err(_) => {
                    idle += 1;
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            assert!(taken < 1_000_000, "requests are taken without end");
        }
        assert!(taken > 1024);
        drop(slow);
        rig.wait("it is gone", |volume| volume.connections == 0);
    });
}

#[test]
fn requests_beyond_the_budget_wait_and_are_all_served() {
    on_both_engines(|engine| {
        let directory = tempfile::tempdir().unwrap();
        let mut build = Build::file(engine, &directory.path().join("image"), 16 * MIB);
        build.limits = Limits {
            budget_bytes: MIB,
            budget_requests: 3,
            idle_timeout: None,
        };
        let rig = build.start();
        let threads: Vec<_> = (0..4u64)
            .map(|at| {
                let mut host = rig.connect(at % 2 == 0);
                std::thread::spawn(move || {
                    // The last is larger than the whole budget.
                    let lengths = [4096, 300_000, 700_000, 512, 2_000_000];
                    for (cookie, &length) in lengths.iter().enumerate() {
                        host.ask_write(cookie as u64, at * 4 * MIB, &vec![at as u8 + 1; length]);
                    }
                    for _ in lengths {
                        host.answer(|_| 0).1.unwrap();
                    }
                    assert!(host.read(at * 4 * MIB, 2_000_000) == vec![at as u8 + 1; 2_000_000]);
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let volume = rig.snapshot();
        assert_eq!((volume.requests_in_flight, volume.bytes_in_flight), (0, 0));
    });
}

#[test]
fn a_full_budget_stops_receiving_and_its_first_waiter_goes_first() {
    on_both_engines(|engine| {
        let directory = tempfile::tempdir().unwrap();
        let (dial, peers) = played_peers();
        let mut build = Build::memory(engine, MIB).with_peer(directory.path(), equal_peer(), dial);
        build.limits.budget_requests = 2;
        let rig = build.start();
        let mut peer = peers.recv_timeout(PATIENCE).unwrap();
        let (mut first, mut second) = (rig.connect(false), rig.connect(false));
        for cookie in 0..3 {
            first.ask_write(cookie, cookie * 4096, &[1; 4096]);
        }
        let (one, _) = peer.request();
        let (two, _) = peer.request();
        second.ask(Command::Read { df: false }, 9, 0, 512);
        peer.expect_silence();
        assert_eq!(rig.snapshot().requests_in_flight, 2);
        peer.answer(&one, None);
        first.expect_ok(0);
        let (three, _) = peer.request();
        peer.answer(&two, None);
        peer.answer(&three, None);
        first.expect_ok(1);
        first.expect_ok(2);
        assert!(second.answer(|_| 512).1.is_ok());
    });
}

/// Every reserved request gets a number the mirror takes, those included that are still being received.
#[test]
fn what_is_still_arriving_counts_as_a_request() {
    let options = ImageOptions {
        place: ImagePlace::Memory,
        size: Some(4096),
        io: IoMode::Buffered,
        read_only: false,
        preallocate: false,
    };
    let plan = VolumePlan {
        export: "test".to_owned(),
        image: Image::open(&options).unwrap(),
        minimum_block: 1,
        mirror: None,
        branches: None,
    };
    let limits = Limits {
        budget_bytes: u64::MAX,
        budget_requests: u32::MAX,
        ..Limits::default()
    };
    let mut volume = Volume::new(0, plan, &limits).unwrap();
    assert!((0..REQUESTS_MAX).all(|_| volume.reserve(1, 1, false)));
    assert!(!volume.reserve(2, 1, false));
    volume.unreserve(1);
    assert!(volume.reserve(2, 1, false));
    assert!(!volume.reserve(1, 1, false));
}
