//! Stopping.

use std::time::Duration;

use super::peer::{equal_peer, played_peers};
use super::rig::{Build, MIB};
use super::transmission::on_both_engines;
use crate::data::ToData;
use nbd_proto::constants::command;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn what_is_in_flight_is_finished_and_answered_before_the_end() {
    on_both_engines(|engine| {
        let directory = tempfile::tempdir().unwrap();
        let (dial, peers) = played_peers();
        let rig = Build::memory(engine, MIB)
            .with_peer(directory.path(), equal_peer(), dial)
            .start();
        let mut peer = peers.recv_timeout(PATIENCE).unwrap();
        let mut host = rig.connect(false);
        host.ask_write(1, 0, &[1; 4096]);
        let (request, _) = peer.request();
        assert!(rig.sender().send(ToData::Stop { deadline: PATIENCE }));
        // The snapshot is answered behind the stop.
        assert_eq!(rig.snapshot().requests_in_flight, 1);
        peer.answer(&request, None);
        host.expect_ok(1);
        host.expect_end();
        // The mirror makes everything durable on the peer, and says good-bye.
        let (flush, _) = peer.request();
        assert_eq!(flush.command, command::FLUSH);
        peer.answer(&flush, None);
        let (farewell, _) = peer.request();
        assert_eq!(farewell.command, command::DISCONNECT);
        drop(peer);
        assert!(rig.stop(), "clean");
    });
}

#[test]
fn a_stop_that_cannot_be_clean_ends_at_its_deadline() {
    on_both_engines(|engine| {
        let directory = tempfile::tempdir().unwrap();
        let (dial, peers) = played_peers();
        let rig = Build::memory(engine, MIB)
            .with_peer(directory.path(), equal_peer(), dial)
            .start();
        let mut peer = peers.recv_timeout(PATIENCE).unwrap();
        let mut host = rig.connect(false);
        host.ask_write(1, 0, &[1; 4096]);
        peer.request();
        assert!(rig.sender().send(ToData::Stop { deadline: PATIENCE }));
        assert!(rig.sender().send(ToData::Stop {
            deadline: Duration::ZERO
        }));
        assert!(!rig.stop(), "the peer never answered");
        host.read_to_end();
    });
}

/// A volume that failed is not stopped clean, and nothing is waited for.
#[test]
fn a_volume_that_failed_is_not_stopped_clean() {
    on_both_engines(|engine| {
        let directory = tempfile::tempdir().unwrap();
        let mut build = Build::memory(engine, MIB).with_peer(
            directory.path(),
            equal_peer(),
            Box::new(|_| Err("out of reach".to_owned())),
        );
        if let Some((plan, ..)) = &mut build.mirror {
            // It cannot be written.
            plan.metadata = std::fs::File::open(directory.path().join("meta")).unwrap();
        }
        let rig = build.start();
        let mut host = rig.connect(false);
        host.ask_write(1, 0, &[1; 4096]);
        assert!(host.answer(|_| 0).1.is_err());
        drop(host);
        rig.wait("failed", |volume| volume.failed.is_some());
        assert!(!rig.stop(), "not clean");
    });
}

#[test]
fn idle_connections_are_closed_and_busy_ones_are_not() {
    on_both_engines(|engine| {
        let directory = tempfile::tempdir().unwrap();
        let (dial, peers) = played_peers();
        let mut build = Build::memory(engine, MIB).with_peer(directory.path(), equal_peer(), dial);
        build.limits.idle_timeout = Some(Duration::from_millis(1));
        let rig = build.start();
        let mut peer = peers.recv_timeout(PATIENCE).unwrap();
        let (mut idle, mut busy) = (rig.connect(false), rig.connect(false));
        busy.ask_write(1, 0, &[1; 4096]);
        let (request, _) = peer.request();
        idle.expect_end();
        rig.wait("only the busy one is left", |volume| volume.connections == 1);
        peer.answer(&request, None);
        busy.expect_ok(1);
        busy.expect_end();
    });
}
