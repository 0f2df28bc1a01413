//! One host, one volume: requests and replies.

use nbd_proto::constants::command;
use nbd_proto::{Command, CommandFlags, NbdError, ReplyStyle, Request};

use super::rig::{Build, MIB, Rig};
use crate::ring::EngineChoice;

/// Runs the test on both engines. io_uring is left out where the kernel forbids it.
pub(super) fn on_both_engines(test: impl Fn(EngineChoice)) {
    test(EngineChoice::Threads);
    if crate::ring::open_driver(EngineChoice::Uring).is_ok() {
        test(EngineChoice::Uring);
    }
}

const STYLES: [ReplyStyle; 3] = [ReplyStyle::Simple, ReplyStyle::Structured, ReplyStyle::Extended];

fn rig(engine: EngineChoice) -> Rig {
    Build::memory(engine, 16 * MIB).start()
}

#[test]
fn what_is_written_is_read() {
    on_both_engines(|engine| {
        for style in STYLES {
            let rig = rig(engine);
            let mut host = rig.connect_in(style);
            let small: Vec<u8> = (0..4096u32).map(|at| at as u8).collect();
            let large: Vec<u8> = (0..3_000_001u32).map(|at| (at % 251) as u8).collect();
            host.write(4096, &small);
            host.write(MIB + 1, &large);
            assert!(host.read(4096, 4096) == small);
            assert!(host.read(MIB + 1, large.len() as u32) == large);
            assert!(host.read(0, 4096) == vec![0; 4096]);
            host.ask(Command::Trim { fua: true }, 1, 4096, 4096);
            host.expect_ok(1);
            host.ask(
                Command::WriteZeroes {
                    fua: false,
                    no_hole: true,
                    fast: false,
                },
                2,
                MIB,
                4096,
            );
            host.expect_ok(2);
            host.ask(Command::Cache, 3, 0, 1 << 20);
            host.expect_ok(3);
            host.flush();
            assert!(host.read(4096, 4096) == vec![0; 4096]);
            assert!(host.read(MIB, 8192)[4096..] == large[4095..4095 + 4096]);
        }
    });
}

#[test]
fn refusals_name_their_reason_and_the_stream_stays_in_step() {
    on_both_engines(|engine| {
        for style in STYLES {
            let rig = rig(engine);
            let mut host = rig.connect_in(style);
            // Past the end: the payload has to be swallowed, whether it is small or larger than any buffer.
            for length in [512, 300_000] {
                host.ask_write(5, 16 * MIB, &vec![1; length]);
                let (cookie, outcome) = host.answer(|_| 0);
                let (error, text) = outcome.unwrap_err();
                assert_eq!(
                    (cookie, error, text.is_empty()),
                    (5, NbdError::NoSpace, !style.has_chunks())
                );
            }
            host.ask(Command::Read { df: false }, 6, 16 * MIB - 1, 2);
            assert_eq!(host.answer(|_| 2).1.unwrap_err().0, NbdError::Invalid);
            let mut unknown = Request::new(Command::Flush, 7, 0, 0);
            unknown.command = 99;
            host.send_request(unknown);
            assert_eq!(host.answer(|_| 0).1.unwrap_err().0, NbdError::Invalid);
            host.write(16 * MIB - 512, &[9; 512]);
            assert_eq!(host.read(16 * MIB - 512, 512), [9; 512]);
        }
    });
}

#[test]
fn requests_that_came_with_the_handshake_are_served() {
    on_both_engines(|engine| {
        let rig = rig(engine);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let unread = super::host::write_request(1, 0, &[7; 4096]);
        let (first, rest) = unread.split_at(1000);
        rig.hand_over(theirs.into(), ReplyStyle::Simple, first.to_vec(), Box::new(()));
        let mut host = super::host::Host::new(ours);
        host.send(rest);
        host.expect_ok(1);
        assert_eq!(host.read(0, 4096), [7; 4096]);
    });
}

#[test]
fn a_client_that_talks_nonsense_is_closed_and_others_are_served() {
    on_both_engines(|engine| {
        let rig = rig(engine);
        let (mut good, mut bad) = (rig.connect(false), rig.connect(false));
        bad.send(&[0xff; 28]);
        bad.expect_end();
        good.write(0, &[1; 512]);
        rig.wait("the bad connection is gone", |volume| volume.connections == 1);
    });
}

#[test]
fn a_permit_comes_back_with_the_end_of_its_connection() {
    let rig = rig(EngineChoice::Auto);
    let permit = std::sync::Arc::new(());
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    rig.hand_over(
        theirs.into(),
        ReplyStyle::Simple,
        Vec::new(),
        Box::new(std::sync::Arc::clone(&permit)),
    );
    rig.wait("connected", |volume| volume.connections == 1);
    assert_eq!(std::sync::Arc::strong_count(&permit), 2);
    drop(ours);
    rig.wait("disconnected", |volume| volume.connections == 0);
    assert_eq!(std::sync::Arc::strong_count(&permit), 1);
}

#[test]
fn extended_payloads_are_swallowed_whatever_they_came_with() {
    on_both_engines(|engine| {
        let rig = rig(engine);
        let mut host = rig.connect_in(ReplyStyle::Extended);
        for command in [command::READ, command::TRIM, command::FLUSH, command::BLOCK_STATUS, 99] {
            for length in [16, 100_000] {
                host.send_request(Request {
                    flags: CommandFlags::PAYLOAD_LEN,
                    command,
                    cookie: 5,
                    offset: 0,
                    length,
                });
                host.send(&vec![1; length as usize]);
                let (cookie, outcome) = host.answer(|_| 0);
                assert_eq!((cookie, outcome.unwrap_err().0), (5, NbdError::Invalid), "{command}");
            }
        }
        let mut silent = Request::new(Command::Write { fua: false }, 6, 0, 512);
        silent.flags = CommandFlags::empty();
        host.send_request(silent);
        host.send(&[6; 512]);
        host.expect_ok(6);
        assert_eq!(host.read(0, 512), [6; 512], "a WRITE has a payload, whatever it says");
        host.write(0, &[7; 512]);
        assert_eq!(host.read(0, 512), [7; 512]);
    });
}

#[test]
fn a_payload_beyond_every_limit_ends_the_connection() {
    on_both_engines(|engine| {
        let rig = rig(engine);
        let mut host = rig.connect_in(ReplyStyle::Extended);
        let write = Request::new(Command::Write { fua: false }, 1, 0, (32 << 20) + 1);
        host.send_request(write.in_style(ReplyStyle::Extended));
        host.expect_end();
    });
}
