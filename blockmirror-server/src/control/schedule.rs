//! What is done by the clock: comparing volumes with their peers (`verify`), removing old branches (`branch_keep`).
//!
//! When a volume was compared last is kept in a file beside its metadata, so that restarts do not count. The first
//! comparison comes one interval after the schedule was first seen.

use std::path::{Path, PathBuf};
use std::time::Duration;

use blockmirror_client::admin::ReplicationState;
use mirror_core::event::PeerIndex;
use mirror_core::identity::Role;
use mirror_core::resource::{Answer, Command};

use super::ask::{self, Silent};
use super::branches;
use super::roster::{ResourcePlace, Roster, Served, VolumeView};
use super::status::Known;
use crate::config::VerifySchedule;
use crate::data::{DataSender, ResourceOrder};
use crate::wall_clock::seconds_since_1970;

/// Between two looks at the clock.
const LOOK: Duration = Duration::from_secs(30);
/// Looks between two searches for branches whose time is over.
const LOOKS_PER_EXPIRY: u32 = 20;
/// A data thread is waited for so long.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// The file's name is that of the metadata file, and this.
const SUFFIX: &str = ".verified";

/// A volume that is compared by the clock.
#[derive(Clone, Debug, PartialEq)]
struct Task {
    place: ResourcePlace,
    /// Its number in the resource.
    number: usize,
    export: String,
    /// Numbers.
    peers: Vec<usize>,
    every: Duration,
    repair: bool,
    /// Where it is noted when it was compared last.
    note: PathBuf,
}

/// Look at the clock until the daemon ends.
pub(super) async fn run(roster: Roster, threads: Vec<DataSender>) {
    let mut looks: u32 = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        looks = looks.wrapping_add(1);
        if looks.is_multiple_of(LOOKS_PER_EXPIRY) {
            let roster = roster.clone();
            // A panic in it has told so itself.
            let _ = tokio::task::spawn_blocking(move || branches::expire(&roster)).await;
        }
        let tasks = tasks(&roster);
        for task in tasks {
            if is_due(&task).await {
                begin(&task, &threads).await;
            }
        }
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
    let task = |view: VolumeView<'_>| {
        Some(Task {
            place: served.place,
            number: view.served.number,
            export: view.config.export.clone(),
            peers: served.peers.clone(),
            every,
            repair: served.config.verify_repair,
            note: note_beside(view.config.metadata.as_deref()?),
        })
    };
    served.views().filter_map(task).collect()
}

fn note_beside(metadata: &Path) -> PathBuf {
    let mut name = metadata.as_os_str().to_owned();
    name.push(SUFFIX);
    PathBuf::from(name)
}

async fn is_due(task: &Task) -> bool {
    let (note, every) = (task.note.clone(), task.every);
    let look = tokio::task::spawn_blocking(move || {
        let now = seconds_since_1970();
        let last = read_note(&note);
        let judged = judge(last, now, every);
        if judged == Due::Unknown {
            write_note(&note, now);
        }
        judged == Due::Now
    });
    look.await.unwrap_or(false)
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

/// Compare with every peer that is in step, if this node is Primary.
async fn begin(task: &Task, threads: &[DataSender]) {
    let Some(thread) = threads.get(task.place.thread) else {
        return;
    };
    let Ok(known) = ask::snapshots(thread, ANSWER_TIME).await else {
        return;
    };
    let mut begun = false;
    for peer in task.peers.iter().filter(|peer| is_ready(task, **peer, &known)) {
        let Ok(index) = u8::try_from(*peer) else { continue };
        let verify = Command::Verify {
            volume: task.number,
            peer: PeerIndex(index),
            repair: task.repair,
            resume: false,
        };
        let (export, order) = (&task.export, ResourceOrder::Core(verify));
        match ask::order(thread, task.place.resource, order).await {
            Ok(Answer::Done) => {
                tracing::info!(%export, peer, "the scheduled comparison has begun");
                begun = true;
            }
            Ok(answer) => tracing::warn!(%export, peer, ?answer, "the scheduled comparison cannot begin"),
            Err(Silent) => tracing::warn!(%export, peer, "the scheduled comparison cannot begin: no answer"),
        }
    }
    if begun {
        let note = task.note.clone();
        // Where it fails the log says so, and the comparison comes again.
        let _ = tokio::task::spawn_blocking(move || write_note(&note, seconds_since_1970())).await;
    }
}

fn is_ready(task: &Task, peer: usize, known: &Known) -> bool {
    let resource = known.resources.get(task.place.resource);
    let primary = resource.is_some_and(|resource| resource.role == Some(Role::Primary));
    let volume = known.volumes.iter().find(|volume| volume.export == task.export);
    let peer = volume.and_then(|volume| volume.peers.get(peer));
    primary && peer.is_some_and(|peer| peer.replication_state == ReplicationState::Established && peer.verify.is_none())
}

fn read_note(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn write_note(path: &Path, now: u64) {
    if let Err(error) = std::fs::write(path, format!("{now}\n")) {
        tracing::warn!(file = %path.display(), %error, "it cannot be noted when the volume was compared");
    }
}

#[cfg(test)]
mod tests {
    use super::super::exports::tests::roster_with;
    use super::*;

    #[test]
    fn when_it_is_due() {
        let day = Duration::from_secs(86_400);
        for (last, now, due) in [
            (None, 10, Due::Unknown),
            (Some(10), 10, Due::Later),
            (Some(10), 86_409, Due::Later),
            (Some(10), 86_410, Due::Now),
            (Some(10), 9, Due::Unknown),
        ] {
            assert_eq!(judge(last, now, day), due, "{last:?} {now}");
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
        assert_eq!((&tasks[0].peers[..], tasks[0].repair), (&[0][..], true));
        assert_eq!(tasks[0].every, Duration::from_secs(3 * 86_400));
        assert_eq!(tasks[0].note, Path::new("/i/db.blockmirror.verified"));
    }

    #[test]
    fn notes_are_read_back() {
        let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let path = dir.path().join("n");
        assert_eq!(read_note(&path), None);
        write_note(&path, 77);
        assert_eq!(read_note(&path), Some(77));
    }
}
