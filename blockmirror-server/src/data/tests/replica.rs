//! Blockmirrors with each other under load, in trouble, and while they are changed.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use blockmirror_client::admin::{DiskState, ReplicationState};
use mirror_core::AckMode;
use mirror_core::event::PeerIndex;
use mirror_core::resource::event::{Answer, Command};
use mirror_core::state::LocalDisk;

use super::cluster::{Cluster, VOLUMES};
use super::host::Ending;
use super::rig::MIB;
use crate::ring::EngineChoice;

const SIZE: u64 = 24 * MIB;
const PEER: PeerIndex = PeerIndex(0);

fn start(engine: EngineChoice, nodes: usize, mode: AckMode) -> Cluster {
    let cluster = Cluster::start(engine, nodes, mode, SIZE);
    for node in 0..nodes {
        cluster.wait_connected(node);
    }
    cluster.promote(0, true);
    cluster.wait_in_step(0, nodes - 1);
    cluster
}

/// Writes of a load, at least: a slow machine makes fewer of them than are a load.
const WRITES_MIN: u64 = 20;

/// Write to both volumes of node 0 until told to stop.
fn load(cluster: &Cluster, seed: u64, over: &AtomicBool) {
    let mut hosts = [cluster.host(0, 0), cluster.host(0, 1)];
    let mut state = seed;
    let mut written = 0;
    while written < WRITES_MIN || !over.load(Ordering::Relaxed) {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let length = [512, 4096, 20_000, 300_000][(state >> 60) as usize % 4];
        let offset = (state >> 20) % (SIZE - length);
        let host = &mut hosts[(state >> 40) as usize % 2];
        host.write(offset, &vec![(state >> 8) as u8; length as usize]);
        if state >> 56 & 7 == 0 {
            host.flush();
        }
        written += 1;
    }
    for host in &mut hosts {
        host.flush();
    }
}

fn cut_under_load(engine: EngineChoice, mode: AckMode) {
    let mut cluster = start(engine, 2, mode);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ending = Ending(&over);
        let writers = [1, 2].map(|seed| {
            scope.spawn({
                let (cluster, over) = (&cluster, &over);
                move || load(cluster, seed, over)
            })
        });
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(60));
            cluster.cut(0, 1);
            std::thread::sleep(Duration::from_millis(30));
            cluster.mend(0, 1);
        }
        cluster.wait_connected(0);
        drop(ending);
        for writer in writers {
            writer.join().unwrap();
        }
    });
    cluster.wait_in_step(0, 1);
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
}

#[test]
fn a_stream_that_breaks_under_load_leaves_no_difference() {
    cut_under_load(EngineChoice::Auto, AckMode::Sync);
}

#[test]
fn a_stream_that_breaks_under_load_leaves_no_difference_on_the_thread_engine() {
    cut_under_load(EngineChoice::Threads, AckMode::Sync);
}

#[test]
fn an_asynchronous_stream_that_breaks_under_load_leaves_no_difference() {
    cut_under_load(EngineChoice::Auto, AckMode::Async);
}

#[test]
fn a_long_write_that_arrives_in_pieces_goes_over_with_its_checksum() {
    for engine in [EngineChoice::Auto, EngineChoice::Threads] {
        let mut cluster = start(engine, 2, AckMode::Sync);
        let mut host = cluster.host(0, 0);
        let bytes: Vec<u8> = (0..6 * MIB).map(|at| (at / 1000) as u8).collect();
        host.write(12_345, &bytes);
        host.flush();
        assert_eq!(host.read(12_345, 6 << 20), bytes);
        // Had the checksum been wrong, the stream would have ended, and a resync have hidden it.
        let damaged = [0, 1].map(|node| cluster.resource(node).streams[0].damaged);
        assert_eq!(damaged, [0, 0]);
        drop(host);
        assert!(cluster.stop(0) && cluster.stop(1));
        cluster.assert_same(0, 1);
    }
}

#[test]
fn three_nodes_hold_the_same() {
    let mut cluster = start(EngineChoice::Auto, 3, AckMode::Sync);
    let mut host = cluster.host(0, 0);
    for at in 0..40_u64 {
        host.write(at * 100_000, &vec![at as u8 + 1; 10_000]);
    }
    host.flush();
    cluster.promote(2, false);
    let mut host = cluster.host(2, 0);
    assert_eq!(host.read(39 * 100_000, 10_000), vec![40; 10_000]);
    cluster.wait_in_step(2, 2);
    host.write(5, &[77; 4096]);
    host.flush();
    drop(host);
    assert!(cluster.stop(2) && cluster.stop(1) && cluster.stop(0));
    cluster.assert_same(0, 1);
    cluster.assert_same(0, 2);
}

#[test]
fn verify_finds_what_differs_and_repairs_it() {
    let mut cluster = start(EngineChoice::Auto, 2, AckMode::Sync);
    let mut host = cluster.host(0, 0);
    host.write(0, &vec![5; 6 << 20]);
    host.flush();
    let theirs = std::fs::File::options()
        .write(true)
        .open(cluster.image(1, VOLUMES[0]))
        .unwrap();
    theirs.write_all_at(&[1; 100], 3 * MIB + 8000).unwrap();
    let verify = |repair| Command::Verify {
        volume: 0,
        peer: PEER,
        repair,
        resume: false,
    };
    assert_eq!(cluster.command(0, verify(false)), Answer::Done);
    cluster.wait("the difference is found", |cluster| {
        let peer = &cluster.volumes(0)[0].peers[0];
        peer.last_verify
            .is_some_and(|verify| verify.finished && verify.different == 4096)
    });
    assert_eq!(cluster.volumes(0)[0].peers[0].dirty_bytes, 4096);
    assert_eq!(cluster.command(0, verify(true)), Answer::Done);
    cluster.wait_in_step(0, 1);
    drop(host);
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
}

#[test]
fn a_primary_without_its_image_serves_from_the_peer() {
    let mut cluster = start(EngineChoice::Auto, 2, AckMode::Sync);
    let mut host = cluster.host(0, 0);
    host.write(0, &vec![5; 2 << 20]);
    assert_eq!(cluster.command(0, Command::Detach(0)), Answer::Done);
    assert_eq!(cluster.volumes(0)[0].disk, Some(LocalDisk::Diskless));
    assert_eq!(host.read(MIB, 4096), vec![5; 4096]);
    host.write(MIB, &vec![6; 4096]);
    host.flush();
    assert_eq!(host.read(MIB, 8192), [vec![6; 4096], vec![5; 4096]].concat());
    cluster.attach(0, 0, false);
    cluster.wait("the image is whole again", |cluster| {
        let volume = &cluster.volumes(0)[0];
        volume.disk == Some(LocalDisk::UpToDate) && volume.peers[0].replication_state == ReplicationState::Established
    });
    assert_eq!(host.read(MIB, 4096), vec![6; 4096]);
    drop(host);
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
}

#[test]
fn a_replaced_image_of_the_secondary_is_filled() {
    let mut cluster = start(EngineChoice::Auto, 2, AckMode::Sync);
    let mut host = cluster.host(0, 0);
    host.write(MIB, &vec![5; 2 << 20]);
    host.flush();
    assert_eq!(cluster.command(1, Command::Detach(0)), Answer::Done);
    host.write(0, &vec![6; 4096]);
    host.flush();
    std::fs::remove_file(cluster.image(1, VOLUMES[0])).unwrap();
    cluster.attach(1, 0, true);
    cluster.wait_in_step(0, 1);
    assert_eq!(cluster.volumes(0)[0].peers[0].disk_state, DiskState::UpToDate);
    drop(host);
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
}

#[test]
fn a_replaced_image_gets_the_holes_of_the_other() {
    let mut cluster = start(EngineChoice::Auto, 2, AckMode::Sync);
    let mut host = cluster.host(0, 0);
    host.write(MIB, &vec![5; 1 << 20]);
    host.flush();
    assert_eq!(cluster.command(1, Command::Detach(0)), Answer::Done);
    std::fs::write(cluster.image(1, VOLUMES[0]), vec![7; SIZE as usize]).unwrap();
    cluster.attach(1, 0, true);
    cluster.wait_in_step(0, 1);
    drop(host);
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
    let allocated = |at| std::fs::metadata(cluster.image(at, VOLUMES[0])).unwrap().blocks() * 512;
    assert!(allocated(0) < 2 * MIB, "{}", allocated(0));
    assert!(allocated(1) < 2 * MIB, "{}", allocated(1));
}

#[test]
fn a_volume_grows_on_both_nodes_under_load() {
    let mut cluster = start(EngineChoice::Auto, 2, AckMode::Sync);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ending = Ending(&over);
        let writer = scope.spawn(|| load(&cluster, 3, &over));
        let grow = Command::Resize {
            volume: 0,
            size: SIZE + 8 * MIB,
            assume_clean: false,
            force: false,
        };
        assert_eq!(cluster.command(0, grow), Answer::Done);
        drop(ending);
        writer.join().unwrap();
    });
    for at in [0, 1] {
        assert_eq!(cluster.volumes(at)[0].size_bytes, SIZE + 8 * MIB);
    }
    cluster.wait_in_step(0, 1);
    cluster.size = SIZE + 8 * MIB;
    let mut host = cluster.host(0, 0);
    host.write(SIZE + MIB, &vec![3; 1 << 20]);
    host.flush();
    drop(host);
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
}

#[test]
fn a_demoted_primary_gives_its_hosts_up_and_takes_the_role_again() {
    let mut cluster = start(EngineChoice::Auto, 2, AckMode::Sync);
    let mut host = cluster.host(0, 0);
    host.write(0, &vec![5; 4096]);
    assert_eq!(cluster.command(0, Command::Demote), Answer::Done);
    host.expect_end();
    cluster.promote(0, false);
    let mut host = cluster.host(0, 0);
    assert_eq!(host.read(0, 4096), vec![5; 4096]);
    drop(host);
    assert!(cluster.stop(1) && cluster.stop(0));
    cluster.assert_same(0, 1);
}

#[test]
fn a_peer_that_turns_out_to_be_a_plain_server_is_mirrored_to_all_the_same() {
    let mut cluster = Cluster::start_with_plain(EngineChoice::Auto, SIZE);
    let mut host = cluster.host(0, 1);
    cluster.wait_in_step(0, 1);
    host.write(MIB, &vec![5; 100_000]);
    host.flush();
    drop(host);
    assert!(cluster.stop(0));
    cluster.assert_same(0, 1);
    cluster.boot(0);
    let mut host = cluster.host(0, 1);
    host.write(3 * MIB, &vec![6; 100_000]);
    host.flush();
    cluster.wait_in_step(0, 1);
    drop(host);
    assert!(cluster.stop(0));
    cluster.assert_same(0, 1);
}

#[test]
fn a_read_that_fails_here_is_answered_by_the_peer_and_the_range_is_repaired() {
    let cluster = start(EngineChoice::Auto, 2, AckMode::Sync);
    let mut host = cluster.host(0, 0);
    host.write(SIZE - MIB, &vec![5; 1 << 20]);
    host.flush();
    let ours = std::fs::File::options()
        .read(true)
        .write(true)
        .open(cluster.image(0, VOLUMES[0]))
        .unwrap();
    ours.set_len(SIZE - MIB).unwrap();
    assert_eq!(host.read(SIZE - 8192, 8192), vec![5; 8192]);
    cluster.wait("the range is repaired", |_| {
        let mut data = [0; 8192];
        ours.read_exact_at(&mut data, SIZE - 8192).is_ok() && data == [5; 8192]
    });
    assert_eq!(cluster.volumes(0)[0].disk, Some(LocalDisk::UpToDate));
}
