//! Volumes that come and go while the nodes are served.

use mirror_core::AckMode;
use mirror_core::resource::event::Answer;

use super::cluster::Cluster;
use super::rig::MIB;
use crate::data::{ResourceOrder, VolumePlan};
use crate::image::{Image, ImageOptions, ImagePlace, IoMode};
use crate::ring::EngineChoice;

const SIZE: u64 = 8 * MIB;
/// Before all others by its name.
const FIRST: &str = "aa";

fn pair() -> Cluster {
    let cluster = Cluster::start(EngineChoice::Auto, 2, AckMode::Sync, SIZE);
    cluster.wait_connected(0);
    cluster.wait_connected(1);
    cluster.promote(0, true);
    cluster.wait_in_step(0, 1);
    cluster
}

impl Cluster {
    fn add(&self, at: usize, plan: VolumePlan) -> Answer {
        self.order(at, ResourceOrder::AddVolume(Box::new(plan)))
    }

    fn add_first(&self, at: usize) {
        assert_eq!(self.add(at, self.volume(at, FIRST)), Answer::Done);
    }

    /// The image of a volume is open, here or anywhere.
    fn is_locked(&self, at: usize, volume: &str) -> bool {
        let options = ImageOptions {
            place: ImagePlace::Path(self.image(at, volume)),
            size: None,
            io: IoMode::Buffered,
            read_only: false,
            preallocate: false,
        };
        Image::open(&options).is_err()
    }
}

#[test]
fn a_volume_that_comes_while_a_connection_is_made_is_taken_for_no_other() {
    for order in [[0, 1], [1, 0]] {
        let mut cluster = pair();
        let mut db = cluster.host(0, 0);
        db.write(0, &vec![7; 1 << 20]);
        db.flush();
        cluster.hold_new_connections();
        for node in order {
            cluster.add_first(node);
        }
        cluster.hand_connections_over();
        cluster.wait_in_step(0, 1);
        cluster.assert_same(0, 1);
        let mut first = cluster.host(0, 2);
        first.write(4096, &[8; 4096]);
        first.flush();
        db.write(2 * MIB, &[9; 4096]);
        db.flush();
        cluster.wait_in_step(0, 1);
        cluster.assert_same(0, 1);
        cluster.assert_same_volume(FIRST, 0, 1);
        drop((db, first));
        assert!(cluster.stop(0) && cluster.stop(1));
    }
}

#[test]
fn one_that_only_one_node_has_does_not_shift_the_others() {
    let mut cluster = pair();
    cluster.hold_new_connections();
    cluster.add_first(1);
    cluster.hand_connections_over();
    cluster.wait_in_step(0, 1);
    let mut db = cluster.host(0, 0);
    db.write(0, &vec![7; 1 << 20]);
    db.flush();
    cluster.assert_same(0, 1);
    cluster.add_first(0);
    cluster.wait_in_step(0, 1);
    db.write(MIB, &vec![8; 1 << 20]);
    db.flush();
    cluster.assert_same(0, 1);
    cluster.assert_same_volume(FIRST, 0, 1);
    drop(db);
    assert!(cluster.stop(0) && cluster.stop(1));
}

#[test]
fn the_files_of_a_volume_that_goes_are_closed_and_it_can_come_again() {
    let mut cluster = pair();
    let mut log = cluster.host(0, 1);
    log.write(0, &vec![7; 1 << 20]);
    log.flush();
    drop(log);
    for node in 0..2 {
        assert_eq!(cluster.order(node, ResourceOrder::RemoveVolume(1)), Answer::Done);
    }
    for node in 0..2 {
        cluster.wait("the image is let go", |cluster| !cluster.is_locked(node, "log"));
    }
    for node in 0..2 {
        assert_eq!(cluster.add(node, cluster.volume(node, "log")), Answer::Done);
    }
    let mut log = cluster.host(0, 2);
    assert_eq!(log.read(0, 1 << 20), vec![7; 1 << 20]);
    log.write(MIB, &[8; 4096]);
    log.flush();
    cluster.wait("it is in step again", |cluster| {
        cluster.volumes(0)[2].peers.iter().all(|peer| peer.dirty_bytes == 0)
    });
    cluster.assert_same(0, 1);
    drop(log);
    assert!(cluster.stop(0) && cluster.stop(1));
}

#[test]
fn a_volume_that_is_refused_takes_no_number_and_leaves_no_lock() {
    let mut cluster = pair();
    for node in 0..2 {
        let twice = VolumePlan {
            export: "db".to_owned(),
            ..cluster.volume(node, FIRST)
        };
        assert!(matches!(cluster.add(node, twice), Answer::Refused(_)));
    }
    for node in [1, 0] {
        cluster.wait("the image is let go", |cluster| !cluster.is_locked(node, FIRST));
        cluster.add_first(node);
    }
    let mut first = cluster.host(0, 3);
    first.write(0, &[7; 4096]);
    first.flush();
    cluster.wait("it is in step", |cluster| {
        let peers = &cluster.volumes(0)[3].peers;
        peers.iter().all(|peer| peer.dirty_bytes == 0)
    });
    cluster.assert_same(0, 1);
    cluster.assert_same_volume(FIRST, 0, 1);
    drop(first);
    assert!(cluster.stop(0) && cluster.stop(1));
}
