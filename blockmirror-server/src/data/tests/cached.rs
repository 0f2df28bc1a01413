//! READs that are sent out of the page cache.

use std::time::{Duration, Instant};

use mirror_core::AckMode;
use nbd_proto::{Command, NbdError, ReplyStyle};

use super::cluster::Cluster;
use super::host::Host;
use super::rig::{Build, MIB};
use super::transmission::on_both_engines;

const LENGTH: u32 = 64 << 10;

fn bytes(seed: u32, length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at / 3 + seed) as u8 | 1).collect()
}

/// Until the reply lies in the socket, whole.
fn wait_for_reply(host: &Host) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while rustix::io::ioctl_fionread(&host.stream).unwrap() < u64::from(LENGTH) {
        assert!(Instant::now() < deadline, "no reply");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a host finds that is overtaken by a WRITE of another one before it takes its reply.
fn overtaken(reader: &mut Host, writer: &mut Host) -> Vec<u8> {
    reader.ask(Command::Read { df: false }, 9, 0, u64::from(LENGTH));
    wait_for_reply(reader);
    writer.write(0, &bytes(2, LENGTH as usize));
    reader.answer(|_| LENGTH).1.unwrap()
}

#[test]
fn replies_that_wait_for_their_reader_are_whole_and_in_order() {
    on_both_engines(|engine| {
        for style in [ReplyStyle::Simple, ReplyStyle::Structured, ReplyStyle::Extended] {
            let rig = Build::memory(engine, 16 * MIB).start();
            let mut host = rig.connect_in(style);
            let image = bytes(5, 8 << 20);
            host.write(0, &image);
            // More than a socket holds, short and long ones in turn, and holes.
            let asked: Vec<(u64, u32)> = (0..60u64)
                .map(|at| (at * 111_111, [100, 40_000, 700_001][at as usize % 3]))
                .chain([(8 * MIB - 100_000, 300_000)])
                .collect();
            for (cookie, (offset, length)) in asked.iter().enumerate() {
                let cookie = cookie as u64;
                host.ask(
                    Command::Read {
                        df: cookie.is_multiple_of(2),
                    },
                    cookie,
                    *offset,
                    u64::from(*length),
                );
            }
            std::thread::sleep(Duration::from_millis(20));
            let mut seen = vec![false; asked.len()];
            for _ in 0..asked.len() {
                let (cookie, outcome) = host.answer(|cookie| asked[cookie as usize].1);
                let (offset, length) = asked[cookie as usize];
                let mut wanted: Vec<u8> = image
                    .iter()
                    .skip(offset as usize)
                    .take(length as usize)
                    .copied()
                    .collect();
                wanted.resize(length as usize, 0);
                assert!(outcome.unwrap() == wanted, "{offset}+{length}");
                assert!(!std::mem::replace(&mut seen[cookie as usize], true));
            }
            host.flush();
        }
    });
}

#[test]
fn a_reply_holds_what_was_there_or_what_was_written_since() {
    on_both_engines(|engine| {
        let rig = Build::memory(engine, MIB).start();
        let (mut reader, mut writer) = (rig.connect(true), rig.connect(true));
        let (old, new) = (bytes(1, LENGTH as usize), bytes(2, LENGTH as usize));
        writer.write(0, &old);
        let found = overtaken(&mut reader, &mut writer);
        let one_of_both = |(at, byte): (usize, &u8)| *byte == old[at] || *byte == new[at];
        assert!(found.iter().enumerate().all(one_of_both));
        assert!(reader.read(0, LENGTH) == new);
    });
}

/// The image may become the target of a resync while the host has not taken its reply.
#[test]
fn with_a_partner_a_reply_holds_what_was_there() {
    on_both_engines(|engine| {
        let cluster = Cluster::start(engine, 2, AckMode::Sync, 24 * MIB);
        cluster.wait_connected(0);
        cluster.promote(0, true);
        cluster.wait_in_step(0, 1);
        let (mut reader, mut writer) = (cluster.host(0, 0), cluster.host(0, 0));
        let old = bytes(1, LENGTH as usize);
        writer.write(0, &old);
        assert!(overtaken(&mut reader, &mut writer) == old);
    });
}

#[test]
fn a_truncated_image_is_an_error_and_the_connection_goes_on() {
    on_both_engines(|engine| {
        for parent in [std::env::temp_dir(), "/dev/shm".into()] {
            let Ok(directory) = tempfile::tempdir_in(parent) else {
                continue;
            };
            let path = directory.path().join("image");
            let rig = Build::file(engine, &path, MIB).start();
            for structured in [false, true] {
                let mut host = rig.connect(structured);
                std::fs::OpenOptions::new()
                    .write(true)
                    .open(&path)
                    .unwrap()
                    .set_len(MIB)
                    .unwrap();
                host.write(0, &bytes(1, MIB as usize));
                std::fs::OpenOptions::new()
                    .write(true)
                    .open(&path)
                    .unwrap()
                    .set_len(MIB - 70_000)
                    .unwrap();
                assert_eq!(host.read_error(MIB - 131_072, 131_072), NbdError::Io);
                assert!(host.read(0, LENGTH) == bytes(1, LENGTH as usize));
            }
        }
    });
}

/// What they ask for lies in the file and not in memory, so there is no end of it.
#[test]
fn who_does_not_read_keeps_nobody_else_from_reading() {
    on_both_engines(|engine| {
        let rig = Build::memory(engine, 32 * MIB).start();
        let mut host = rig.connect(false);
        host.write(0, &bytes(3, 32 * MIB as usize));
        let slow: Vec<Host> = (0..16)
            .map(|_| {
                let mut slow = rig.connect(false);
                slow.ask(Command::Read { df: false }, 1, 0, 32 * MIB);
                slow
            })
            .collect();
        for slow in &slow {
            let deadline = Instant::now() + Duration::from_secs(20);
            while rustix::io::ioctl_fionread(&slow.stream).unwrap() == 0 {
                assert!(Instant::now() < deadline, "it waits for the others");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        assert!(host.read(0, MIB as u32) == bytes(3, MIB as usize));
        drop(slow);
        rig.wait("they are gone", |volume| volume.connections == 1);
        assert!(host.read(7, 32 * MIB as u32 - 7) == bytes(3, 32 * MIB as usize)[7..]);
    });
}
