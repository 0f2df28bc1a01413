//! Blockmirrors with each other: replicated writes, switchover, takeover, resync.

use mirror_core::AckMode;
use mirror_core::event::PeerIndex;
use mirror_core::identity::Role;
use mirror_core::resource::event::{Answer, Command};

use super::cluster::Cluster;
use super::rig::MIB;
use crate::ring::EngineChoice;

const SIZE: u64 = 24 * MIB;

fn pair(mode: AckMode) -> Cluster {
    let cluster = Cluster::start(EngineChoice::Auto, 2, mode, SIZE);
    cluster.wait_connected(0);
    cluster.wait_connected(1);
    cluster.promote(0, true);
    cluster.wait_in_step(0, 1);
    cluster
}

#[test]
fn what_is_written_here_is_there() {
    let mut cluster = pair(AckMode::Sync);
    let (mut db, mut log) = (cluster.host(0, 0), cluster.host(0, 1));
    for at in 0..64 {
        db.write(at * 65_536, &vec![at as u8 + 1; 4096]);
        log.write(at * 4096, &vec![at as u8 + 100; 4096]);
    }
    db.write(MIB, &vec![7; 3 << 20]);
    db.flush();
    log.flush();
    assert_eq!(db.read(MIB, 10), vec![7; 10]);
    cluster.assert_same(0, 1);
    drop((db, log));
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
}

#[test]
fn the_roles_change_places_and_nothing_is_lost() {
    let mut cluster = pair(AckMode::Sync);
    for round in 0_u8..6 {
        let (primary, secondary) = if round % 2 == 0 { (0, 1) } else { (1, 0) };
        let mut host = cluster.host(primary, 0);
        host.write(u64::from(round) * MIB, &vec![round + 1; 8192]);
        host.flush();
        cluster.promote(secondary, false);
        host.expect_end();
        assert_eq!(cluster.resource(primary).role, Some(Role::Secondary));
        let mut host = cluster.host(secondary, 0);
        assert_eq!(host.read(u64::from(round) * MIB, 8192), vec![round + 1; 8192]);
        cluster.wait_in_step(secondary, 1);
    }
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
}

#[test]
fn what_was_written_alone_is_brought_by_resync() {
    let mut cluster = pair(AckMode::Sync);
    let mut host = cluster.host(0, 0);
    host.write(0, &vec![1; 1 << 20]);
    cluster.cut(0, 1);
    host.write(4096, &vec![2; 2 << 20]);
    host.flush();
    cluster.mend(0, 1);
    cluster.wait_in_step(0, 1);
    host.write(5 * MIB, &vec![3; 4096]);
    host.flush();
    cluster.assert_same(0, 1);
    drop(host);
    assert!(cluster.stop(0) && cluster.stop(1));
}

#[test]
fn a_restart_of_the_secondary_is_followed_by_a_resync_and_one_of_the_primary_resumes() {
    let mut cluster = pair(AckMode::Sync);
    let mut host = cluster.host(0, 1);
    host.write(0, &vec![1; 65_536]);
    host.flush();
    assert!(cluster.stop(1));
    host.write(8192, &vec![2; 65_536]);
    host.flush();
    cluster.boot(1);
    cluster.wait_in_step(0, 1);
    cluster.assert_same(0, 1);
    drop(host);
    assert!(cluster.stop(0));
    cluster.boot(0);
    let mut host = cluster.host(0, 1);
    assert_eq!(host.read(8192, 65_536), vec![2; 65_536]);
    cluster.wait_in_step(0, 1);
    drop(host);
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
}

#[test]
fn the_secondary_takes_over_when_the_primary_dies() {
    let mut cluster = pair(AckMode::Sync);
    let mut host = cluster.host(0, 0);
    host.write(0, &vec![9; 65_536]);
    host.flush();
    cluster.kill(0);
    cluster.wait("the end is seen", |cluster| !cluster.resource(1).streams[0].connected);
    cluster.promote(1, true);
    let mut host = cluster.host(1, 0);
    assert_eq!(host.read(0, 65_536), vec![9; 65_536]);
    host.write(4096, &vec![8; 4096]);
    host.flush();
    cluster.boot(0);
    cluster.wait_in_step(1, 1);
    assert_eq!(cluster.resource(0).role, Some(Role::Secondary));
    drop(host);
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
}

#[test]
fn diverged_data_is_seen_and_given_up_only_when_the_operator_says_so() {
    let mut cluster = pair(AckMode::Sync);
    cluster.cut(0, 1);
    let mut host = cluster.host(0, 0);
    host.write(0, &vec![1; 4096]);
    cluster.promote(1, true);
    let mut other = cluster.host(1, 0);
    other.write(0, &vec![2; 4096]);
    cluster.mend(0, 1);
    // The other one may have been told good-bye before it had judged for itself.
    cluster.wait("it is seen", |cluster| {
        (0..2).any(|at| cluster.resource(at).status.unwrap().peers[0].split_brain.is_some())
    });
    let connect = |discard_my_data| Command::Connect {
        peer: PeerIndex(0),
        discard_my_data,
    };
    assert_eq!(host.read(0, 4096), vec![1; 4096]);
    assert_eq!(other.read(0, 4096), vec![2; 4096]);
    assert_eq!(cluster.command(1, Command::Demote), Answer::Done);
    assert_eq!(cluster.command(1, connect(true)), Answer::Done);
    assert_eq!(cluster.command(0, connect(false)), Answer::Done);
    cluster.wait_in_step(0, 1);
    drop((host, other));
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
}
