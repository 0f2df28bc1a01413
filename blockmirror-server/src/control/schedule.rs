//! What is done by the clock: comparing volumes with their peers (`verify`), removing old branches (`branch_keep`).
//!
//! ```text
//!  rests --interval--> due --ready, none of its resource runs--> runs --finished--> rests
//!                       ^                                         |
//!                       +--cut off: at once; stopped: later-------+
//! ```
//! When a peer was compared last is noted in a file beside the volume's metadata once it has been compared to the end, so
//! that a restart or a switchover costs what was not compared yet, and no more. The first comparison comes one interval
//! after the schedule was first seen.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use blockmirror_client::admin::ReplicationState;
use mirror_core::event::PeerIndex;
use mirror_core::identity::Role;
use mirror_core::resource::{Answer, Command};
use mirror_core::status::VerifyStatus;

use super::ask::{self, Silent};
use super::branches;
use super::roster::{PeerView, ResourcePlace, Roster, Served, VolumeView};
use super::status::Known;
use crate::config::VerifySchedule;
use crate::data::{DataSender, PeerSnapshot, ResourceOrder};
use crate::wall_clock::seconds_since_1970;

use note::{Note, Notes};

mod note;
#[cfg(test)]
mod tests;

/// Between two looks at the clock.
const LOOK: Duration = Duration::from_secs(30);
/// Looks between two searches for branches whose time is over.
const LOOKS_PER_EXPIRY: u32 = 20;
/// A data thread is waited for so long.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// A comparison that somebody stopped goes on so many seconds later.
const STOPPED_REST: u64 = 3600;

/// A peer of a volume that is compared by the clock.
#[derive(Clone, Debug, PartialEq)]
struct Task {
    place: ResourcePlace,
    /// The volume's number in the resource.
    number: usize,
    export: String,
    /// The peer's number.
    peer: usize,
    /// And its name.
    name: String,
    every: Duration,
    repair: bool,
    /// Where it is noted when the volume was compared last.
    note: PathBuf,
}

/// What is known of a task in this life of the daemon.
#[derive(Debug, Default)]
struct Run {
    /// It was begun here.
    begun: Option<Begun>,
    /// Somebody stopped it: it is not begun before.
    rests_until: u64,
}

/// What is known of a comparison that was begun.
#[derive(Clone, Copy, Debug)]
struct Begun {
    /// The one that had ended before.
    before: Option<VerifyStatus>,
}

/// The clock's work, and the clock: seconds since 1970.
pub(super) struct Schedule<Clock> {
    roster: Roster,
    threads: Vec<DataSender>,
    clock: Clock,
    /// By export and peer.
    runs: BTreeMap<(String, String), Run>,
}

/// Look at the clock until the daemon ends.
pub(super) async fn run(roster: Roster, threads: Vec<DataSender>) {
    Schedule::new(roster, threads, seconds_since_1970).run().await;
}

impl<Clock: Fn() -> u64> Schedule<Clock> {
    fn new(roster: Roster, threads: Vec<DataSender>, clock: Clock) -> Self {
        Self {
            roster,
            threads,
            clock,
            runs: BTreeMap::new(),
        }
    }

    async fn run(mut self) {
        let mut looks: u32 = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(LOOKS_PER_EXPIRY) {
                let (roster, now) = (self.roster.clone(), (self.clock)());
                // A panic in it has told so itself.
                let _ = tokio::task::spawn_blocking(move || branches::expire(&roster, now)).await;
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let mut known: BTreeMap<usize, Known> = BTreeMap::new();
        let mut busy = BTreeSet::new();
        let mut due = Vec::new();
        for task in tasks(&self.roster) {
            let thread = task.place.thread;
            let told = match known.entry(thread) {
                Entry::Occupied(told) => told.into_mut(),
                Entry::Vacant(place) => {
                    let Some(sender) = self.threads.get(thread) else {
                        continue;
                    };
                    let Ok(told) = ask::snapshots(sender, ANSWER_TIME).await else {
                        continue;
                    };
                    place.insert(told)
                }
            };
            let Some(peer) = of_primary(&task, told) else {
                continue;
            };
            if peer.verify.is_some() {
                // One that waits for its peer keeps nobody else waiting.
                if peer.replication_state == ReplicationState::Established {
                    busy.insert((thread, task.place.resource));
                }
            } else if let Some(last) = self.is_due(&task, peer).await
                && peer.replication_state == ReplicationState::Established
            {
                due.push((last, task, peer.last_verify));
            }
        }
        // The oldest first, one after the other.
        due.sort_by_key(|(last, ..)| *last);
        for (_, task, before) in due {
            let resource = (task.place.thread, task.place.resource);
            if !busy.contains(&resource) && self.begin(&task, before).await {
                busy.insert(resource);
            }
        }
    }

    /// When the peer was compared last, if it is to be compared now. Notes a comparison that has ended.
    async fn is_due(&mut self, task: &Task, peer: &PeerSnapshot) -> Option<u64> {
        let now = (self.clock)();
        let run = self.runs.entry((task.export.clone(), task.name.clone())).or_default();
        let ended = run.begun.filter(|begun| peer.last_verify != begun.before);
        // Whether it has ended or was cut off: it is not the one that was begun any more.
        run.begun = None;
        match (ended, peer.last_verify) {
            (Some(_), Some(VerifyStatus { finished: true, .. })) => {
                tracing::info!(export = %task.export, peer = %task.name, "the scheduled comparison has ended");
                change(task, Note { last: now, open: false }).await;
                return None;
            }
            (Some(_), _) => run.rests_until = now.saturating_add(STOPPED_REST),
            (None, _) => {}
        }
        let found = notes(task).await.get(&task.name).copied();
        match judge(found.map(|note| note.last), now, task.every) {
            Due::Now => {
                // A clock that was put back must not make the rest longer.
                let rests = now < run.rests_until && run.rests_until - now <= STOPPED_REST;
                found.map(|note| note.last).filter(|_| !rests)
            }
            Due::Later => None,
            Due::Unknown => {
                let open = found.is_some_and(|note| note.open);
                change(task, Note { last: now, open }).await;
                None
            }
        }
    }

    /// `before`: the comparison that had ended before.
    async fn begin(&mut self, task: &Task, before: Option<VerifyStatus>) -> bool {
        let (Some(thread), Ok(index)) = (self.threads.get(task.place.thread), u8::try_from(task.peer)) else {
            return false;
        };
        let Some(noted) = notes(task).await.get(&task.name).copied() else {
            return false;
        };
        let verify = Command::Verify {
            volume: task.number,
            peer: PeerIndex(index),
            repair: task.repair,
            resume: noted.open,
        };
        let (export, peer) = (&task.export, &task.name);
        match ask::order(thread, task.place.resource, ResourceOrder::Core(verify)).await {
            Ok(Answer::Done) => {
                tracing::info!(%export, %peer, resumed = noted.open, "the scheduled comparison has begun");
                let run = self.runs.entry((export.clone(), peer.clone())).or_default();
                run.begun = Some(Begun { before });
                change(task, Note { open: true, ..noted }).await;
                return true;
            }
            Ok(answer) => tracing::warn!(%export, %peer, ?answer, "the scheduled comparison cannot begin"),
            Err(Silent) => tracing::warn!(%export, %peer, "the scheduled comparison cannot begin: no answer"),
        }
        false
    }
}

fn tasks(roster: &Roster) -> Vec<Task> {
    let present = roster.look();
    present.resources.iter().flat_map(tasks_of).collect()
}

fn tasks_of(served: &Served) -> Vec<Task> {
    let VerifySchedule::Every(every) = served.config.verify else {
        return Vec::new();
    };
    let with_peer = |view: &VolumeView<'_>, peer: PeerView<'_>| {
        Some(Task {
            place: served.place,
            number: view.served.number,
            export: view.config.export.clone(),
            peer: peer.number,
            name: peer.config.name.clone(),
            every,
            repair: served.config.verify_repair,
            note: note::beside(view.config.metadata.as_deref()?),
        })
    };
    let of_volume = |view: VolumeView<'_>| {
        let peers = served.peer_views().filter_map(|peer| with_peer(&view, peer));
        peers.collect::<Vec<_>>()
    };
    served.views().flat_map(of_volume).collect()
}

/// The peer as the Primary knows it; `None`: somebody else is Primary, and compares.
fn of_primary<'a>(task: &Task, known: &'a Known) -> Option<&'a PeerSnapshot> {
    let resource = known.resources.get(task.place.resource)?;
    let volume = known.volumes.iter().find(|volume| volume.export == task.export)?;
    let peer = volume.peers.get(task.peer)?;
    (resource.role == Some(Role::Primary)).then_some(peer)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Now,
    Later,
    /// Never compared, or the clock was put back: the interval begins now.
    Unknown,
}

fn judge(last: Option<u64>, now: u64, every: Duration) -> Due {
    match last {
        Some(last) if last <= now && now - last >= every.as_secs() => Due::Now,
        Some(last) if last <= now => Due::Later,
        _ => Due::Unknown,
    }
}

async fn notes(task: &Task) -> Notes {
    let path = task.note.clone();
    let reading = tokio::task::spawn_blocking(move || note::read(&path));
    reading.await.unwrap_or_default()
}

async fn change(task: &Task, changed: Note) {
    let (path, peer) = (task.note.clone(), task.name.clone());
    let writing = tokio::task::spawn_blocking(move || {
        let mut notes = note::read(&path);
        notes.insert(peer, changed);
        note::write(&path, &notes);
    });
    // A panic in it has told so itself.
    let _ = writing.await;
}
