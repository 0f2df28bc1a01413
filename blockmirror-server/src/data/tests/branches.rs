//! What a diverged node gives up is in a branch afterwards.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use mirror_core::AckMode;
use mirror_core::event::PeerIndex;
use mirror_core::resource::event::{Answer, Command};
use tokio::sync::oneshot;

use super::cluster::Cluster;
use super::rig::MIB;
use crate::branch::{self, BranchInfo, Replayed, Source};
use crate::data::ViewPlan;
use crate::ring::EngineChoice;

const SIZE: u64 = 24 * MIB;

/// Both were Primary, cut from each other; node 1 is demoted, and what it has written is in its image.
fn diverged(engine: EngineChoice) -> (Cluster, Vec<u8>) {
    let cluster = Cluster::start(engine, 2, AckMode::Sync, SIZE);
    cluster.wait_connected(0);
    cluster.wait_connected(1);
    cluster.promote(0, true);
    cluster.wait_in_step(0, 1);
    let mut host = cluster.host(0, 0);
    for at in 0..40 {
        host.write(at * 100_000, &vec![at as u8 + 1; 50_000]);
    }
    host.flush();
    cluster.cut(0, 1);
    cluster.promote(1, true);
    let mut other = cluster.host(1, 0);
    for at in 0..30 {
        host.write(at * 70_000, &vec![at as u8 + 100; 9000]);
        other.write(at * 90_000 + 10 * MIB / 4, &vec![at as u8 + 150; 20_000]);
    }
    host.write(20 * MIB, &vec![50; 3 * MIB as usize]);
    other.write(20 * MIB + MIB / 2, &vec![60; MIB as usize]);
    other.flush();
    drop((host, other));
    cluster.mend(0, 1);
    cluster.wait("the split brain is seen", |cluster| {
        (0..2).any(|at| cluster.resource(at).status.unwrap().peers[0].split_brain.is_some())
    });
    assert_eq!(cluster.command(1, Command::Demote), Answer::Done);
    let given_up = fs::read(cluster.image(1, "db")).unwrap();
    (cluster, given_up)
}

fn give_up(cluster: &Cluster) {
    let connect = |discard_my_data| Command::Connect {
        peer: PeerIndex(0),
        discard_my_data,
    };
    assert_eq!(cluster.command(1, connect(true)), Answer::Done);
    assert_eq!(cluster.command(0, connect(false)), Answer::Done);
}

fn branch_of(cluster: &Cluster, volume: &str) -> BranchInfo {
    let directory: PathBuf = cluster.branch_directory(1);
    let mut found = branch::list(&[directory]);
    found.retain(|info| info.volume == volume);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// What the branch says the volume held, over the image.
fn contents(info: &BranchInfo, image: &[u8]) -> (Replayed, Vec<u8>) {
    let (file, replayed) = branch::load(&info.path).unwrap();
    let mut all = image.to_vec();
    for piece in replayed.index.look(0..info.size) {
        let part = &mut all[piece.range.start as usize..piece.range.end as usize];
        match piece.source {
            Source::File(at) => file.read_exact_at(part, at).unwrap(),
            Source::Zero => part.fill(0),
            Source::Image => {}
            Source::Lost => panic!("lost: {piece:?}"),
        }
    }
    (replayed, all)
}

fn a_branch_holds_what_was_given_up(engine: EngineChoice) {
    let (mut cluster, given_up) = diverged(engine);
    give_up(&cluster);
    cluster.wait_in_step(0, 1);
    cluster.wait("the branches are complete", |cluster| {
        cluster.volumes(1).iter().all(|volume| volume.branch.is_none())
    });
    // A branch that is served: as the volume was, through NBD.
    let info = branch_of(&cluster, "db");
    let (file, replayed) = branch::load(&info.path).unwrap();
    let plan = ViewPlan {
        export: format!("db@{}", info.name),
        size: info.size,
        minimum_block: 1,
        index: replayed.index,
        branch: file,
        image: fs::File::open(cluster.image(1, "db")).unwrap(),
    };
    let number = cluster.serve_branch(1, plan).unwrap();
    let mut host = cluster.host_of_branch(1, number);
    for at in (0..SIZE).step_by(3 * MIB as usize / 2) {
        let wanted = &given_up[at as usize..(at + 3 * MIB / 2) as usize];
        assert!(host.read(at, wanted.len() as u32) == wanted, "at {at}");
    }
    host.flush();
    cluster.drop_branch(1, number);
    host.expect_end();
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
    let (replayed, all) = contents(&info, &fs::read(cluster.image(1, "db")).unwrap());
    assert!(replayed.finished);
    assert!(all == given_up, "the branch over the image is what was given up");
    // Holes are notes, however long they are.
    let saved_bytes = fs::metadata(&info.path).unwrap().len();
    assert!(saved_bytes < SIZE / 3, "only what differs is saved: {saved_bytes}");
    // The other volume was not written to by either.
    let untouched = fs::metadata(branch_of(&cluster, "log").path).unwrap().len();
    assert!(untouched < 8192, "{untouched}");
}

#[test]
fn a_branch_holds_what_a_diverged_node_gave_up() {
    a_branch_holds_what_was_given_up(EngineChoice::Auto);
}

#[test]
fn a_branch_holds_what_a_diverged_node_gave_up_on_the_thread_engine() {
    a_branch_holds_what_was_given_up(EngineChoice::Threads);
}

#[test]
fn a_node_that_is_killed_while_it_saves_goes_on_with_its_branch() {
    let (mut cluster, given_up) = diverged(EngineChoice::Auto);
    give_up(&cluster);
    cluster.wait("something is saved", |cluster| {
        let begun = !branch::list(&[cluster.branch_directory(1)]).is_empty();
        let open = cluster.volumes(1).remove(0).branch;
        begun && open.is_none_or(|branch| branch.saved_bytes > 0)
    });
    cluster.kill(1);
    cluster.boot(1);
    let parted = |cluster: &Cluster| cluster.resource(0).status.unwrap().peers[0].split_brain.is_some();
    let in_step = |cluster: &Cluster| cluster.volumes(0).iter().all(|volume| volume.peers[0].dirty_bytes == 0);
    cluster.wait("an end", |cluster| parted(cluster) || in_step(cluster));
    if parted(&cluster) {
        // The other volume had not begun: the operator's word went with the node.
        give_up(&cluster);
    }
    cluster.wait_in_step(0, 1);
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
    let (_, all) = contents(&branch_of(&cluster, "db"), &fs::read(cluster.image(1, "db")).unwrap());
    assert!(all == given_up, "nothing was overwritten that was not saved");
}

#[test]
fn without_a_place_for_its_branch_nothing_is_overwritten() {
    let (mut cluster, given_up) = diverged(EngineChoice::Auto);
    let directory = cluster.branch_directory(1);
    fs::remove_dir(&directory).unwrap();
    give_up(&cluster);
    cluster.wait("it is said why", |cluster| {
        let trouble = |volume: &crate::data::VolumeSnapshot| volume.branch.as_ref()?.trouble.clone();
        let volumes = cluster.volumes(1);
        volumes
            .iter()
            .filter_map(trouble)
            .any(|text| text.contains("make room"))
    });
    assert!(fs::read(cluster.image(1, "db")).unwrap() == given_up);
    fs::create_dir(&directory).unwrap();
    cluster.wait_in_step(0, 1);
    assert!(cluster.stop(0) && cluster.stop(1));
    let (_, all) = contents(&branch_of(&cluster, "db"), &fs::read(cluster.image(1, "db")).unwrap());
    assert!(all == given_up);
}

impl Cluster {
    fn serve_branch(&self, at: usize, plan: ViewPlan) -> Result<usize, String> {
        let (answer, asked) = oneshot::channel();
        self.tell(
            at,
            crate::data::ToData::ServeBranch {
                resource: 0,
                plan: Box::new(plan),
                answer,
            },
        );
        asked.blocking_recv().unwrap()
    }

    fn drop_branch(&self, at: usize, volume: usize) {
        let (answer, asked) = oneshot::channel();
        self.tell(at, crate::data::ToData::DropBranch { volume, answer });
        asked.blocking_recv().unwrap();
    }
}
