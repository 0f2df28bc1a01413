//! Images that are offered and not taken.

use mirror_core::AckMode;
use mirror_core::resource::event::{Answer, Command};
use mirror_core::state::LocalDisk;
use nix::libc;

use super::bad_disk::{STALLS, fail_writes};
use super::cluster::{Cluster, VOLUMES};
use super::nodes::open_image;
use super::rig::MIB;
use crate::ring::EngineChoice;

const SIZE: u64 = 8 * MIB;

/// The Primary has given its image up, with something in it. Its partner is about to note that it has everything.
fn detached() -> Cluster {
    let cluster = Cluster::start(EngineChoice::Auto, 2, AckMode::Sync, SIZE);
    for node in 0..2 {
        cluster.wait_connected(node);
    }
    cluster.promote(0, true);
    cluster.wait_in_step(0, 1);
    let mut host = cluster.host(0, 0);
    host.write(MIB, &vec![5; 1 << 20]);
    host.flush();
    fail_notes(&cluster, STALLS);
    assert_eq!(cluster.command(0, Command::Detach(0)), Answer::Done);
    cluster
}

fn fail_notes(cluster: &Cluster, error: i32) {
    let metadata = format!("bravo-{}.meta", VOLUMES[0]);
    fail_writes(&cluster.flaws[1], &cluster.directory.path().join(metadata), error);
}

fn go_on(cluster: &Cluster) {
    cluster.flaws[1].lock().unwrap().clear();
}

/// The partner has died instead.
fn alone() -> Cluster {
    let mut cluster = detached();
    cluster.cut(0, 1);
    fail_notes(&cluster, libc::EIO);
    cluster.kill(1);
    go_on(&cluster);
    cluster.wait("nobody has the data", |cluster| cluster.volumes(0)[0].no_data.is_some());
    cluster
}

fn refusal(answer: Answer) -> String {
    match answer {
        Answer::Refused(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_image_whose_attach_was_refused_can_be_attached_later() {
    let mut cluster = alone();
    let why = refusal(cluster.try_attach(0, 0, false));
    assert!(why.contains("no node that has all of the data is connected"), "{why}");
    assert!(why.contains("demote"), "{why}");
    cluster.boot(1);
    cluster.mend(0, 1);
    cluster.wait("the partner serves", |cluster| cluster.volumes(0)[0].no_data.is_none());
    // Were it still open there, its lock would be in the way.
    cluster.attach(0, 0, false);
    cluster.wait_in_step(0, 1);
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
}

#[test]
fn an_image_that_is_all_there_is_can_be_attached_after_a_demotion() {
    let cluster = alone();
    refusal(cluster.try_attach(0, 0, false));
    assert_eq!(cluster.command(0, Command::Demote), Answer::Done);
    cluster.attach(0, 0, false);
    assert_eq!(cluster.volumes(0)[0].disk, Some(LocalDisk::UpToDate));
}

#[test]
fn another_image_is_not_taken_while_one_waits() {
    let mut cluster = detached();
    let first = cluster.begin_attach(0, 0, false);
    // The operator puts an empty one in its place.
    let path = cluster.image(0, VOLUMES[0]);
    std::fs::rename(&path, path.with_extension("old")).unwrap();
    let why = refusal(cluster.try_attach(0, 0, true));
    assert!(why.contains("has not ended"), "{why}");
    assert!(cluster.volumes(0)[0].attaching);
    go_on(&cluster);
    assert_eq!(first.blocking_recv().unwrap(), Answer::Done);
    assert!(!cluster.volumes(0)[0].attaching);
    std::fs::rename(path.with_extension("old"), &path).unwrap();
    cluster.wait_in_step(0, 1);
    let mut host = cluster.host(0, 0);
    assert_eq!(host.read(MIB, 4096), vec![5; 4096]);
    drop(host);
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
}

#[test]
fn an_image_that_waited_in_vain_is_closed() {
    let cluster = detached();
    let first = cluster.begin_attach(0, 0, false);
    cluster.cut(0, 1);
    refusal(first.blocking_recv().unwrap());
    cluster.wait("it is closed", |cluster| !cluster.volumes(0)[0].attaching);
    drop(open_image(&cluster.image(0, VOLUMES[0]), SIZE));
    go_on(&cluster);
}
