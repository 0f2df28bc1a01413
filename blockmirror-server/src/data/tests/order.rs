//! Overlapping mutations over two connections, seen by a peer that decides when they end.

use std::net::Shutdown;
use std::time::Duration;

use super::peer::{equal_peer, played_peers};
use super::rig::{Build, MIB};
use super::transmission::on_both_engines;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn overlapping_writes_of_two_connections_go_one_after_the_other() {
    on_both_engines(|engine| {
        let directory = tempfile::tempdir().unwrap();
        let (dial, peers) = played_peers();
        let rig = Build::memory(engine, MIB)
            .with_peer(directory.path(), equal_peer(), dial)
            .start();
        let mut peer = peers.recv_timeout(PATIENCE).unwrap();
        let (mut first, mut second) = (rig.connect(false), rig.connect(true));
        first.ask_write(1, 0, &[1; 8192]);
        let (older, payload) = peer.request();
        assert_eq!(payload, [1; 8192]);
        second.ask_write(2, 4096, &[2; 8192]);
        rig.wait("both are taken", |volume| volume.requests_in_flight == 2);
        peer.expect_silence();
        // What does not overlap overtakes.
        second.ask_write(3, 65536, &[3; 512]);
        let (apart, payload) = peer.request();
        assert_eq!(payload, [3; 512]);
        peer.answer(&apart, None);
        second.expect_ok(3);
        peer.answer(&older, None);
        first.expect_ok(1);
        let (newer, payload) = peer.request();
        assert_eq!(payload, [2; 8192]);
        peer.answer(&newer, None);
        second.expect_ok(2);
        assert_eq!(first.read(4096, 4096), [2; 4096]);
    });
}

#[test]
fn a_dead_connection_is_closed_when_its_started_writes_have_ended_and_the_others_are_dropped() {
    on_both_engines(|engine| {
        let directory = tempfile::tempdir().unwrap();
        let (dial, peers) = played_peers();
        let rig = Build::memory(engine, MIB)
            .with_peer(directory.path(), equal_peer(), dial)
            .start();
        let mut peer = peers.recv_timeout(PATIENCE).unwrap();
        let (mut dying, mut other) = (rig.connect(false), rig.connect(false));
        dying.ask_write(1, 0, &[1; 4096]);
        let (started, _) = peer.request();
        dying.ask_write(2, 0, &[2; 4096]);
        rig.wait("the second is taken, and waits", |volume| {
            volume.requests_in_flight == 2
        });
        other.ask_write(3, 0, &[3; 4096]);
        rig.wait("the third is taken, and waits", |volume| volume.requests_in_flight == 3);
        dying.stream.shutdown(Shutdown::Write).unwrap();
        rig.wait("the second is dropped", |volume| volume.requests_in_flight == 2);
        assert_eq!(rig.snapshot().connections, 2, "the first still runs");
        peer.expect_silence();
        peer.answer(&started, None);
        dying.expect_end();
        let (third, payload) = peer.request();
        assert_eq!(payload, [3; 4096], "the dropped write never reaches a leg");
        peer.answer(&third, None);
        other.expect_ok(3);
        assert_eq!(other.read(0, 4096), [3; 4096]);
        rig.wait("the dead connection is gone", |volume| volume.connections == 1);
    });
}

#[test]
fn overlapping_writes_without_a_mirror_end_in_order_of_arrival() {
    on_both_engines(|engine| {
        let directory = tempfile::tempdir().unwrap();
        let rig = Build::file(engine, &directory.path().join("image"), MIB).start();
        let mut host = rig.connect(false);
        for round in 0..50u64 {
            let wire: Vec<u8> = (0..40)
                .flat_map(|at| super::host::write_request(at, (at % 3) * 1024, &[(round + at) as u8; 4096]))
                .collect();
            host.send(&wire);
            let mut cookies: Vec<u64> = (0..40).map(|_| host.answer(|_| 0).0).collect();
            cookies.sort_unstable();
            assert!(cookies.into_iter().eq(0..40));
            assert_eq!(host.read(0, 1024), [(round + 39) as u8; 1024]);
            assert_eq!(host.read(5120, 1024), [(round + 38) as u8; 1024]);
        }
    });
}
