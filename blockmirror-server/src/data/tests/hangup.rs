//! Clients that go away, in good order or not.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use nbd_proto::{Command, ReplyStyle, Request};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::host::{Host, write_request};
use super::rig::{Build, MIB, Rig};
use super::transmission::on_both_engines;

/// Everything is in the socket, and the client has gone, before the server looks at it for the first time.
fn gone_before_it_is_read(rig: &Rig, bytes: &[u8]) {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(bytes).unwrap();
    drop(ours);
    rig.hand_over(theirs.into(), ReplyStyle::Simple, Vec::new(), Box::new(()));
    rig.wait("the connection is gone", |volume| volume.connections == 0);
}

fn disconnect() -> Vec<u8> {
    Request::new(Command::Disconnect, 0, 0, 0).encode().to_vec()
}

#[test]
fn what_a_client_left_behind_without_good_bye_is_not_carried_out() {
    on_both_engines(|engine| {
        for (count, length) in [(1, 4096), (30, 4096), (1, 150_000), (4, 30_000)] {
            let rig = Build::memory(engine, 16 * MIB).start();
            let request = |at: u64| write_request(at, at * MIB / 4, &vec![1; length]);
            let wire: Vec<u8> = (0..count).flat_map(request).collect();
            gone_before_it_is_read(&rig, &wire);
            assert_eq!(rig.snapshot().bytes_in_flight, 0);
            let mut host = rig.connect(false);
            for at in 0..count {
                assert!(
                    host.read(at * MIB / 4, length as u32) == vec![0; length],
                    "{count} of {length}: {at}"
                );
            }
        }
    });
}

#[test]
fn what_a_client_left_behind_with_a_good_bye_is_carried_out() {
    on_both_engines(|engine| {
        for (count, length) in [(1, 4096), (40, 4096), (1, 150_000), (4, 30_000)] {
            let rig = Build::memory(engine, 16 * MIB).start();
            let request = |at: u64| write_request(at, at * MIB / 4, &vec![1; length]);
            let mut wire: Vec<u8> = (0..count).flat_map(request).collect();
            wire.extend(disconnect());
            gone_before_it_is_read(&rig, &wire);
            let mut host = rig.connect(false);
            for at in 0..count {
                assert!(
                    host.read(at * MIB / 4, length as u32) == vec![1; length],
                    "{count} of {length}: {at}"
                );
            }
        }
    });
}

#[test]
fn a_good_bye_is_answered_with_every_reply_and_then_the_end() {
    on_both_engines(|engine| {
        for half_close in [false, true] {
            let rig = Build::memory(engine, 16 * MIB).start();
            let mut host = rig.connect(false);
            let mut wire = Vec::new();
            for cookie in 0..32 {
                wire.extend(write_request(cookie, cookie * 4096, &[3; 4096]));
                wire.extend(Request::new(Command::Read { df: false }, 100 + cookie, MIB, 65536).encode());
            }
            wire.extend(disconnect());
            host.send(&wire);
            if half_close {
                host.stream.shutdown(Shutdown::Write).unwrap();
            }
            let mut cookies: Vec<u64> = (0..64)
                .map(|_| {
                    let (cookie, outcome) = host.answer(|cookie| if cookie >= 100 { 65536 } else { 0 });
                    outcome.unwrap();
                    cookie
                })
                .collect();
            cookies.sort_unstable();
            assert!(cookies.into_iter().eq((0..32).chain(100..132)));
            host.expect_end();
        }
    });
}

#[test]
fn a_client_that_dies_in_the_middle_of_a_payload_leaves_nothing_behind() {
    on_both_engines(|engine| {
        for (length, sent) in [(4096, 10), (4096, 4000), (MIB as usize, 100), (MIB as usize, 900_000)] {
            let rig = Build::memory(engine, 16 * MIB).start();
            let mut dying = rig.connect(false);
            dying.send(&write_request(1, 0, &vec![1; length])[..28 + sent]);
            rig.wait("its room is reserved", |volume| volume.bytes_in_flight == length as u64);
            drop(dying);
            let left = rig.wait("it is gone", |volume| volume.connections == 0);
            assert_eq!((left.bytes_in_flight, left.requests_in_flight), (0, 0));
            assert!(rig.connect(false).read(0, length as u32) == vec![0; length]);
        }
    });
}

/// The zombie write (nbd.md 4.5): a write is given up on one connection and sent anew on another; once the second one
/// is acknowledged the first must never land.
#[test]
fn a_write_given_up_on_one_connection_never_lands_on_a_later_one() {
    on_both_engines(|engine| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        let rig = Build::file(engine, &path, 4 * MIB).start();
        let mut runner = TestRunner::new(Config {
            cases: 150,
            failure_persistence: None,
            ..Config::default()
        });
        let cut = prop_oneof![1 => Just(0), 3 => 0..MIB as usize];
        let mut second = rig.connect(false);
        let second = std::cell::RefCell::new(&mut second);
        let outcome = runner.run(&(cut, any::<u8>()), |(missing, byte)| {
            let mut first: Host = rig.connect(false);
            let wire = write_request(1, 0, &vec![byte; MIB as usize]);
            first.send(&wire[..wire.len() - missing]);
            drop(first);
            let newer = vec![byte.wrapping_add(1); MIB as usize];
            let mut second = second.borrow_mut();
            second.write(0, &newer);
            assert!(
                second.read(0, MIB as u32) == newer,
                "the old write landed on the new one"
            );
            rig.wait("the first connection is gone", |volume| volume.connections == 1);
            assert!(
                second.read(0, MIB as u32) == newer,
                "the old write landed after its connection was gone"
            );
            Ok(())
        });
        outcome.unwrap();
    });
}
