#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use mirror_core::resource::HostAccess;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::super::exports::tests::roster_with;
use super::*;
use crate::data::{ResourceSnapshot, ToData, VolumeSnapshot};

const BASE: u64 = 1_700_000_000;
const DAY: Duration = Duration::from_secs(86_400);
/// Between two comparisons, where time is played.
const INTERVAL: Duration = Duration::from_secs(3 * 3600);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn when_it_is_due() {
    for (last, now, due) in [
        (None, 10, Due::Unknown),
        (Some(10), 10, Due::Later),
        (Some(10), 86_409, Due::Later),
        (Some(10), 86_410, Due::Now),
        (Some(10), 9, Due::Unknown),
    ] {
        assert_eq!(judge(last, now, DAY), due, "{last:?} {now}");
    }
}

#[test]
fn what_is_compared() {
    let peer = "[[resource.peer]]\nname = \"bravo\"\nuri = \"nbd://bravo\"";
    assert_eq!(tasks(&roster_with(&["db"], "", peer)), []);
    let tasks = tasks(&roster_with(
        &["db", "log"],
        "verify = \"3d\"\nverify_repair = true",
        peer,
    ));
    let exports: Vec<&str> = tasks.iter().map(|task| task.export.as_str()).collect();
    assert_eq!(exports, ["db", "log"]);
    assert_eq!(
        (tasks[0].peer, tasks[0].name.as_str(), tasks[0].repair),
        (0, "bravo", true)
    );
    assert_eq!(tasks[0].every, 3 * DAY);
    assert_eq!(tasks[0].note, Path::new("/i/db.blockmirror.verified"));
}

/// Two peers of one volume, and what was asked for: the peer, and whether to go on.
struct World {
    role: Role,
    peers: Vec<PeerSnapshot>,
    asked: Vec<(u8, bool)>,
}

struct Scene {
    dir: tempfile::TempDir,
    world: Arc<Mutex<World>>,
    began: Instant,
    daemon: Vec<AbortHandle>,
}

impl Scene {
    fn new() -> Self {
        let peer = PeerSnapshot {
            replication_state: ReplicationState::Established,
            ..PeerSnapshot::default()
        };
        let world = World {
            role: Role::Primary,
            peers: vec![peer.clone(), peer],
            asked: Vec::new(),
        };
        let mut scene = Self {
            dir: tempfile::tempdir().unwrap(),
            world: Arc::new(Mutex::new(world)),
            began: Instant::now(),
            daemon: Vec::new(),
        };
        scene.restart();
        scene
    }

    /// A new life of the daemon: what is not on disk is forgotten.
    fn restart(&mut self) {
        self.daemon.drain(..).for_each(|task| task.abort());
        self.world.lock().unwrap().peers.iter_mut().for_each(|peer| {
            (peer.verify, peer.last_verify) = (None, None);
        });
        let peers = ["bravo", "charlie"].map(|name| {
            let uri = format!("nbd://{name}");
            format!("[[resource.peer]]\nname = \"{name}\"\nuri = \"{uri}\"\n")
        });
        let metadata = format!("metadata = \"{}/m\"\n", self.dir.path().display());
        let roster = roster_with(&["db"], "verify = \"3h\"", &(metadata + &peers.concat()));
        let (sender, asked) = DataSender::to_nobody();
        let began = self.began;
        let clock = move || BASE + began.elapsed().as_secs();
        let schedule = Schedule::new(roster, vec![sender], clock);
        let played = tokio::spawn(play(asked, Arc::clone(&self.world)));
        let running = tokio::spawn(schedule.run());
        self.daemon = vec![played.abort_handle(), running.abort_handle()];
    }

    /// A comparison ends, or is stopped.
    fn end(&self, peer: usize, finished: bool) {
        let mut world = self.world.lock().unwrap();
        let peer = &mut world.peers[peer];
        let elapsed = self.began.elapsed();
        peer.last_verify = peer.verify.take().map(|verify| VerifyStatus {
            finished,
            elapsed,
            ..verify
        });
    }

    fn set(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.world.lock().unwrap());
    }

    /// What was asked for since it was looked at last.
    async fn after(&self, time: Duration) -> Vec<(u8, bool)> {
        tokio::time::sleep(time).await;
        std::mem::take(&mut self.world.lock().unwrap().asked)
    }
}

async fn play(asked: Receiver<ToData>, world: Arc<Mutex<World>>) {
    loop {
        while let Ok(message) = asked.try_recv() {
            answer(message, &mut world.lock().unwrap());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn answer(message: ToData, world: &mut World) {
    match message {
        ToData::Status(answer) => answer.send(vec![volume(&world.peers)]).unwrap(),
        ToData::Resources(answer) => answer.send(vec![resource(world.role)]).unwrap(),
        ToData::ResourceCommand {
            command: ResourceOrder::Core(Command::Verify { peer, resume, .. }),
            answer,
            ..
        } => {
            world.asked.push((peer.0, resume));
            world.peers[usize::from(peer.0)].verify = Some(VerifyStatus::default());
            answer.send(Answer::Done).unwrap();
        }
        _ => panic!("a schedule asks for nothing else"),
    }
}

fn volume(peers: &[PeerSnapshot]) -> VolumeSnapshot {
    VolumeSnapshot {
        requests_held: 0,
        no_data: None,
        export: "db".to_owned(),
        size_bytes: 1 << 20,
        image_engine: String::new(),
        connections: 0,
        requests_in_flight: 0,
        bytes_in_flight: 0,
        hot_extents: 0,
        disk: None,
        attaching: false,
        generation: None,
        failed: None,
        branch: None,
        peers: peers.to_vec(),
    }
}

fn resource(role: Role) -> ResourceSnapshot {
    ResourceSnapshot {
        name: "db".to_owned(),
        role: Some(role),
        hosts: HostAccess::ReadWrite,
        status: None,
        why: None,
        now: Duration::ZERO,
        streams: Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn peers_are_compared_one_after_the_other_once_in_an_interval() {
    let scene = Scene::new();
    assert_eq!(scene.after(INTERVAL - MINUTE).await, []);
    assert_eq!(scene.after(3 * MINUTE).await, [(0, false)]);
    assert_eq!(scene.after(60 * MINUTE).await, []);
    scene.end(0, true);
    assert_eq!(scene.after(2 * MINUTE).await, [(1, false)]);
    scene.end(1, true);
    assert_eq!(scene.after(INTERVAL - 62 * MINUTE).await, []);
    // The interval is from end to end.
    assert_eq!(scene.after(64 * MINUTE).await, [(0, false)]);
}

#[tokio::test(start_paused = true)]
async fn a_comparison_that_was_cut_off_goes_on_and_does_not_cost_an_interval() {
    let mut scene = Scene::new();
    assert_eq!(scene.after(INTERVAL + 2 * MINUTE).await, [(0, false)]);
    scene.restart();
    assert_eq!(scene.after(2 * MINUTE).await, [(0, true)]);
    // Another node takes the role, and gives it back.
    scene.set(|world| {
        world.role = Role::Secondary;
        world.peers[0].verify = None;
    });
    assert_eq!(scene.after(60 * MINUTE).await, []);
    scene.set(|world| world.role = Role::Primary);
    assert_eq!(scene.after(2 * MINUTE).await, [(0, true)]);
    scene.end(0, true);
    assert_eq!(scene.after(2 * MINUTE).await, [(1, false)]);
    scene.end(1, true);
    assert_eq!(scene.after(MINUTE).await, []);
    scene.restart();
    assert_eq!(scene.after(INTERVAL - 10 * MINUTE).await, []);
    assert_eq!(scene.after(20 * MINUTE).await, [(0, false)]);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_stopped_rests_and_one_that_waits_keeps_nobody_waiting() {
    let scene = Scene::new();
    assert_eq!(scene.after(INTERVAL + 2 * MINUTE).await, [(0, false)]);
    scene.end(0, false);
    assert_eq!(scene.after(10 * MINUTE).await, [(1, false)]);
    // Its link is cut.
    scene.set(|world| world.peers[1].replication_state = ReplicationState::Off);
    assert_eq!(scene.after(40 * MINUTE).await, []);
    assert_eq!(scene.after(15 * MINUTE).await, [(0, true)]);
}
