//! What a mirrored volume does to its remote leg.

use mirror_core::AckMode;
use nbd_proto::{Command, TransmissionFlags};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::sync::oneshot;

use super::host::{Host, write_request};
use super::pair::{Pair, SIZE, nothing};
use super::rig::{Build, MIB, Peering};
use super::transmission::on_both_engines;
use crate::data::ToData;
use crate::ring::EngineChoice;

/// Peers that can everything, or nothing but the least.
fn abilities() -> [TransmissionFlags; 2] {
    [
        Peering::default().flags,
        TransmissionFlags::HAS_FLAGS | TransmissionFlags::SEND_FLUSH,
    ]
}

#[test]
fn every_change_reaches_the_peer() {
    on_both_engines(|engine| {
        for (flags, mode) in abilities()
            .into_iter()
            .flat_map(|flags| [(flags, AckMode::Sync), (flags, AckMode::Async)])
        {
            let pair = Pair::start(
                engine,
                Peering {
                    flags,
                    mode,
                    ..Peering::default()
                },
                nothing,
            );
            pair.wait_for_sync();
            let mut host = pair.primary.connect(true);
            let mut wire = write_request(1, 1000, &[1; 100_000]);
            wire.extend(write_request(2, MIB, &vec![2; 3 << 20]));
            host.send(&wire);
            for _ in 0..2 {
                host.answer(|_| 0).1.unwrap();
            }
            host.ask(Command::Trim { fua: true }, 3, 2 * MIB, 1 << 20);
            host.ask(
                Command::WriteZeroes {
                    fua: false,
                    no_hole: true,
                    fast: false,
                },
                4,
                0,
                5000,
            );
            for _ in 0..2 {
                host.answer(|_| 0).1.unwrap();
            }
            host.flush();
            assert!(host.read(2 * MIB, 1 << 20) == vec![0; 1 << 20]);
            drop(host);
            pair.wait_for_sync();
            let mut leg = pair.remote.connect(false);
            assert_eq!(leg.read(5000, 100), [1; 100]);
            assert_eq!(leg.read(4 * MIB - 100, 200), [[2; 100], [0; 100]].concat());
            drop(leg);
            pair.end();
        }
    });
}

#[test]
fn the_first_resync_copies_what_is_allocated_and_zeroes_the_rest() {
    on_both_engines(|engine| {
        for flags in abilities() {
            let pair = Pair::start(
                engine,
                Peering {
                    flags,
                    ..Peering::default()
                },
                |ours, theirs| {
                    std::fs::write(theirs, vec![0xee; SIZE as usize]).unwrap();
                    let file = std::fs::File::create(ours).unwrap();
                    file.set_len(SIZE).unwrap();
                    std::os::unix::fs::FileExt::write_all_at(&file, &vec![7; 2 << 20], 5 * MIB).unwrap();
                },
            );
            pair.wait_for_sync();
            let resync = pair.primary.snapshot().peers[0].last_resync.unwrap();
            assert_eq!((resync.copied_bytes, resync.zeroed_bytes), (2 * MIB, SIZE - 2 * MIB));
            pair.end();
        }
    });
}

/// A peer without WRITE_ZEROES is read where there are holes here: every byte of the answer counts, however many
/// requests it takes.
#[test]
fn a_peer_that_is_read_in_small_pieces_is_erased_all_the_same() {
    for maximum_payload in [64 << 10, 100_000, 2048] {
        let pair = Pair::start(
            EngineChoice::Auto,
            Peering {
                flags: abilities()[1],
                maximum_payload,
                ..Peering::default()
            },
            |_, theirs| {
                // Only what comes first of every MiB is zero already.
                let of_mib: Vec<u8> = (0..MIB).map(|at| if at < 128 << 10 { 0 } else { 0xee }).collect();
                std::fs::write(theirs, of_mib.repeat((SIZE / MIB) as usize)).unwrap();
            },
        );
        pair.wait_for_sync();
        pair.end();
    }
}

#[test]
fn a_cut_peer_gets_what_it_missed_and_nothing_else() {
    on_both_engines(|engine| {
        let pair = Pair::start(engine, Peering::default(), nothing);
        pair.wait_for_sync();
        let mut host = pair.primary.connect(false);
        host.write(0, &vec![1; 8 << 20]);
        host.flush();
        pair.cut();
        for at in 0..20 {
            host.write(at * MIB + 4096, &[9; 4096]);
        }
        let dirty = pair
            .primary
            .wait("degraded", |volume| volume.peers[0].dirty_bytes > 0)
            .peers[0]
            .dirty_bytes;
        pair.mend();
        pair.wait_for_sync();
        let resync = pair.primary.snapshot().peers[0].last_resync.unwrap();
        assert_eq!(resync.copied_bytes, 20 * 4096);
        assert!(dirty <= resync.dirty_at_start_bytes);
        pair.end();
    });
}

#[test]
fn an_operator_disconnects_and_connects() {
    let pair = Pair::start(EngineChoice::Auto, Peering::default(), nothing);
    pair.wait_for_sync();
    let command = |command| {
        let (answer, asked) = oneshot::channel();
        assert!(pair.primary.sender().send(ToData::Command {
            volume: 0,
            peer: 0,
            command,
            answer
        }));
        asked.blocking_recv().unwrap().unwrap();
    };
    use blockmirror_client::admin::{ConnectionState, PeerCommand};
    command(PeerCommand::Disconnect);
    pair.primary.wait("StandAlone", |volume| {
        volume.peers[0].connection_state == ConnectionState::StandAlone
    });
    pair.remote.wait("closed", |volume| volume.connections == 0);
    pair.primary.connect(false).write(MIB, &[5; 4096]);
    command(PeerCommand::Connect);
    pair.wait_for_sync();
    assert_eq!(pair.primary.snapshot().peers[0].last_resync.unwrap().copied_bytes, 4096);
    command(PeerCommand::Resync { full: true });
    pair.primary.wait("a full resync", |volume| {
        volume.peers[0]
            .last_resync
            .is_some_and(|resync| resync.dirty_at_start_bytes == SIZE)
    });
    pair.wait_for_sync();
    pair.end();
}

/// The wire breaks while requests are on it, again and again: every one is answered, and nothing is lost.
#[test]
fn a_wire_that_breaks_under_load_is_not_noticed_by_the_hosts() {
    on_both_engines(|engine| {
        for mode in [AckMode::Sync, AckMode::Async] {
            let pair = Pair::start(
                engine,
                Peering {
                    mode,
                    ..Peering::default()
                },
                nothing,
            );
            let hosts: Vec<_> = (0..2u64)
                .map(|at| {
                    let mut host = pair.primary.connect(at == 0);
                    std::thread::spawn(move || {
                        for round in 0..60u64 {
                            let offset =
                                |cookie: u64| (round * 7919 + cookie * 104_729 + at * 31) % (SIZE / 512 - 64) * 512;
                            let wire: Vec<u8> = (0..16)
                                .flat_map(|cookie| write_request(cookie, offset(cookie), &[round as u8; 16384]))
                                .collect();
                            host.send(&wire);
                            (0..16).for_each(|_| assert!(host.answer(|_| 0).1.is_ok()));
                            host.flush();
                        }
                    })
                })
                .collect();
            while hosts.iter().any(|host| !host.is_finished()) {
                pair.cut();
                std::thread::sleep(std::time::Duration::from_millis(3));
                pair.mend();
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            hosts.into_iter().for_each(|host| host.join().unwrap());
            pair.wait_for_sync();
            pair.end();
        }
    });
}

#[test]
fn a_mirror_without_peers_serves_its_hosts() {
    on_both_engines(|engine| {
        let directory = tempfile::tempdir().unwrap();
        let rig = Build::file(engine, &directory.path().join("ours"), SIZE)
            .without_peers(directory.path())
            .start();
        let mut host = rig.connect(false);
        host.write(512, &[7; 65536]);
        host.ask(Command::Trim { fua: true }, 1, 4096, 4096);
        host.expect_ok(1);
        host.flush();
        assert_eq!(host.read(0, 4096)[512..], [7; 4096 - 512]);
        drop(host);
        assert!(rig.stop());
    });
}

/// What one round of the long test does.
#[derive(Clone, Debug)]
enum Round {
    Writes(Vec<(u64, u32, u8)>),
    Zero(u64, u32),
    Flush,
    Cut,
    Mend,
}

fn round() -> impl Strategy<Value = Round> {
    let write = (0..SIZE / 512 - 200, 1u32..200, any::<u8>());
    prop_oneof![
        5 => proptest::collection::vec(write, 1..40).prop_map(Round::Writes),
        1 => (0..SIZE / 512 - 4000, 1u32..4000).prop_map(|(at, count)| Round::Zero(at, count)),
        1 => Just(Round::Flush),
        1 => Just(Round::Cut),
        1 => Just(Round::Mend),
    ]
}

fn run_round(pair: &Pair, hosts: &mut [Host; 2], round: &Round) {
    match round {
        Round::Writes(writes) => {
            for (at, host) in hosts.iter_mut().enumerate() {
                let wire: Vec<u8> = writes
                    .iter()
                    .flat_map(|&(sector, count, byte)| {
                        write_request(7, sector * 512, &vec![byte ^ at as u8; count as usize * 512])
                    })
                    .collect();
                host.send(&wire);
            }
            for host in hosts {
                writes.iter().for_each(|_| assert!(host.answer(|_| 0).1.is_ok()));
            }
        }
        Round::Zero(sector, count) => {
            hosts[0].ask(
                Command::WriteZeroes {
                    fua: true,
                    no_hole: false,
                    fast: false,
                },
                8,
                sector * 512,
                u64::from(*count) * 512,
            );
            hosts[0].expect_ok(8);
        }
        Round::Flush => hosts[1].flush(),
        Round::Cut => pair.cut(),
        Round::Mend => pair.mend(),
    }
}

/// Two hosts write the same places at the same time, over a wire that breaks: in the end both legs are the same.
#[test]
fn both_legs_are_identical_after_whatever_happened() {
    on_both_engines(|engine| {
        for mode in [AckMode::Sync, AckMode::Async] {
            let mut runner = TestRunner::new(Config {
                cases: 4,
                failure_persistence: None,
                ..Config::default()
            });
            let rounds = proptest::collection::vec(round(), 1..30);
            let outcome = runner.run(&rounds, |rounds| {
                let pair = Pair::start(
                    engine,
                    Peering {
                        mode,
                        ..Peering::default()
                    },
                    nothing,
                );
                let mut hosts = [pair.primary.connect(false), pair.primary.connect(true)];
                rounds.iter().for_each(|round| run_round(&pair, &mut hosts, round));
                pair.mend();
                pair.wait_for_sync();
                drop(hosts);
                pair.end();
                Ok(())
            });
            outcome.unwrap();
        }
    });
}
