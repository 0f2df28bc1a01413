//! The branch files of all resources: found, shown, and removed when their time is over.

use std::path::{Path, PathBuf};

use blockmirror_client::admin::BranchStatus;

use super::open::StartError;
use super::roster::{Roster, Served};
use crate::branch::{self, BranchFile, BranchInfo, BranchPlace};
use crate::config::{BranchKeep, ImageSource, Resource, Volume};
use crate::data::BranchPlan;
use crate::wall_clock::seconds_since_1970;

/// A branch, and the resource whose it is.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) resource: String,
    pub(super) info: BranchInfo,
    keep: BranchKeep,
    pub(super) exported_as: Option<String>,
}

/// Nodes of which branches may be in the same directory: they are theirs to list and to remove. (One of any other name may
/// be this node's from before it was renamed: it is shown, and kept until somebody removes it.)
fn others(resource: &Resource) -> Vec<String> {
    resource.peers.iter().map(|peer| peer.name.clone()).collect()
}

/// Where the branches of a resource are, and of which volumes.
struct Place {
    resource: String,
    node: String,
    others: Vec<String>,
    directories: Vec<PathBuf>,
    volumes: Vec<String>,
    keep: BranchKeep,
    /// Name and export of those that are served.
    exported: Vec<(String, String)>,
}

/// Where branches of a volume are made, and the one that an earlier life of the daemon has not finished. Blocks.
pub(super) fn plan(
    node: &str,
    resource: &Resource,
    volume: &Volume,
    mirrored: bool,
) -> Result<Option<BranchPlan>, StartError> {
    let beside = match &volume.image {
        ImageSource::Path(path) => path.parent(),
        ImageSource::Memory => None,
    };
    let Some(directory) = resource.branch_dir.as_deref().or(beside).filter(|_| mirrored) else {
        return Ok(None);
    };
    let unfinished =
        BranchFile::resume(directory, &volume.export, &others(resource)).map_err(|error| StartError::Branch {
            export: volume.export.clone(),
            directory: directory.to_owned(),
            error,
        })?;
    Ok(Some(BranchPlan {
        place: BranchPlace {
            directory: directory.to_owned(),
            node: node.to_owned(),
        },
        unfinished,
    }))
}

/// All branches, by resource, the latest first. Blocks.
pub(super) fn all(roster: &Roster) -> Vec<Found> {
    // Looked up first, so that nobody waits for the files.
    let present = roster.look();
    let resources = present.resources.iter();
    let places: Vec<Place> = resources.map(|served| place(&present.config.name, served)).collect();
    drop(present);
    places.iter().flat_map(found).collect()
}

fn place(node: &str, served: &Served) -> Place {
    Place {
        resource: served.config.name.clone(),
        node: node.to_owned(),
        others: others(&served.config),
        directories: directories(served),
        volumes: served
            .config
            .volumes
            .iter()
            .map(|volume| volume.export.clone())
            .collect(),
        keep: served.config.branch_keep,
        exported: served
            .branches
            .iter()
            .map(|branch| (branch.name.clone(), branch.volume.export.clone()))
            .collect(),
    }
}

/// `branch_dir`, or those of the images.
fn directories(served: &Served) -> Vec<PathBuf> {
    if let Some(directory) = &served.config.branch_dir {
        return vec![directory.clone()];
    }
    let parent = |image: &ImageSource| match image {
        ImageSource::Path(path) => path.parent().map(Path::to_owned),
        ImageSource::Memory => None,
    };
    let images = served.config.volumes.iter().map(|volume| &volume.image);
    let mut directories: Vec<PathBuf> = images.filter_map(parent).collect();
    directories.sort();
    directories.dedup();
    directories
}

/// A directory may be shared with other resources and other nodes: volume and node tell whose a branch is.
fn found(place: &Place) -> Vec<Found> {
    let mine = |info: &BranchInfo| place.volumes.contains(&info.volume) && !place.others.contains(&info.node);
    let infos = branch::list(&place.directories).into_iter().filter(mine);
    let found = infos.map(|info| Found {
        resource: place.resource.clone(),
        exported_as: place
            .exported
            .iter()
            .find(|(name, _)| *name == info.name)
            .map(|(_, export)| export.clone()),
        keep: if info.node == place.node {
            place.keep
        } else {
            BranchKeep::Forever
        },
        info,
    });
    found.collect()
}

/// As an operator is told of it.
pub(super) fn status(found: &Found) -> BranchStatus {
    let info = &found.info;
    BranchStatus {
        name: info.name.clone(),
        volume: info.volume.clone(),
        generation: format!("{:016x}", info.generation),
        created: info.created,
        saved_bytes: info.saved_bytes,
        file: info.path.display().to_string(),
        exported_as: found.exported_as.clone(),
        expires_in_seconds: expires_in(found.keep, info.created, seconds_since_1970()),
    }
}

/// Seconds that are left to it; `None`: it is kept until somebody removes it.
fn expires_in(keep: BranchKeep, created: u64, now: u64) -> Option<u64> {
    match keep {
        BranchKeep::Forever => None,
        BranchKeep::For(time) => Some(created.saturating_add(time.as_secs()).saturating_sub(now)),
    }
}

/// Remove what has had its time by now (seconds since 1970) and is not served. Blocks.
pub(super) fn expire(roster: &Roster, now: u64) {
    for found in all(roster) {
        let over = expires_in(found.keep, found.info.created, now) == Some(0);
        if !over || found.exported_as.is_some() {
            continue;
        }
        let (branch, resource) = (&found.info.name, &found.resource);
        match branch::remove(&found.info.path) {
            Ok(()) => tracing::info!(%branch, %resource, "branch_keep is over: the branch is removed"),
            Err(error) => {
                tracing::warn!(%branch, %resource, %error, "branch_keep is over, but the branch cannot be removed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::Semaphore;

    use super::super::exports::tests::roster_with;
    use super::super::roster::{self, ServedBranch};
    use super::*;

    #[test]
    fn where_branches_are() {
        let beside = roster_with(&["db"], "", "");
        assert_eq!(directories(&beside.look().resources[0]), [Path::new("/i")]);
        let named = roster_with(
            &["db"],
            "branch_dir = \"/b\"",
            "[[resource.peer]]\nname = \"b\"\nuri = \"nbd://b\"",
        );
        assert_eq!(directories(&named.look().resources[0]), [Path::new("/b")]);
        assert!(all(&named).is_empty(), "there is no such directory");
    }

    #[test]
    fn a_branch_is_removed_when_its_time_is_over_and_nobody_uses_it() {
        let dir = tempfile::tempdir().unwrap();
        let place = BranchPlace {
            directory: dir.path().to_owned(),
            node: "alpha".to_owned(),
        };
        let begin = |volume| BranchFile::create(&place, volume, 7, 4096, "a test").unwrap();
        let (mut mine, foreign) = (begin("db"), begin("log"));
        let (at, bytes) = mine.last_record();
        mine.handle().unwrap().write_all_at(&bytes, at).unwrap();
        let kept = |keep: &str| {
            let lines = format!("branch_dir = \"{}\"\n{keep}", dir.path().display());
            roster_with(&["db"], &lines, "[[resource.peer]]\nname = \"b\"\nuri = \"nbd://b\"")
        };
        let (for_ever, for_a_day) = (kept(""), kept("branch_keep = \"1d\""));
        let path = mine.path().to_owned();
        let over = mine.header().created + 86_400;
        expire(&for_a_day, over);
        assert!(path.exists(), "it is being written");
        drop(mine);
        expire(&for_ever, over);
        expire(&for_a_day, over - 1);
        assert!(path.exists(), "its time is not over");
        let served = ServedBranch {
            name: all(&for_a_day)[0].info.name.clone(),
            volume: for_a_day.look().resources[0].config.volumes[0].clone(),
            place: roster::Place { thread: 0, volume: 9 },
            slots: Arc::new(Semaphore::new(1)),
            size: 4096,
        };
        for_a_day.change().resources[0].branches.push(served);
        expire(&for_a_day, over);
        assert!(path.exists(), "somebody reads it");
        for_a_day.change().resources[0].branches.clear();
        expire(&for_a_day, over);
        assert!(!path.exists());
        assert!(foreign.path().exists(), "a volume of another resource");
    }

    #[test]
    fn nodes_that_share_a_directory_do_not_see_each_others_branches() {
        let dir = tempfile::tempdir().unwrap();
        let of = |node: &str| {
            let place = BranchPlace {
                directory: dir.path().to_owned(),
                node: node.to_owned(),
            };
            let branch = BranchFile::create(&place, "db", 7, 4096, "a test").unwrap();
            (branch.path().to_owned(), branch.header().created)
        };
        let lines = format!("branch_dir = \"{}\"\nbranch_keep = \"1d\"", dir.path().display());
        let roster = roster_with(
            &["db"],
            &lines,
            "[[resource.peer]]\nname = \"bravo\"\nuri = \"nbd://b\"",
        );
        let me = roster.look().config.name.clone();
        let [(mine, created), (former, _), (theirs, _)] = [&me, "former", "bravo"].map(of);
        let shown = || {
            let mut paths: Vec<PathBuf> = all(&roster).into_iter().map(|found| found.info.path).collect();
            paths.sort();
            paths
        };
        let mut wanted = vec![mine.clone(), former.clone()];
        wanted.sort();
        assert_eq!(shown(), wanted);
        expire(&roster, created + 1_000_000);
        assert!(!mine.exists(), "its time is over");
        assert!(
            theirs.exists() && former.exists(),
            "theirs is not ours to remove, and whose the other is nobody knows"
        );
        let unfinished = |others: &[String]| BranchFile::resume(dir.path(), "db", others).unwrap().is_some();
        assert!(unfinished(&["bravo".to_owned()]));
        assert!(!unfinished(&["bravo".to_owned(), "former".to_owned()]));
    }

    #[test]
    fn when_they_expire() {
        let day = BranchKeep::For(Duration::from_secs(86_400));
        assert_eq!(expires_in(BranchKeep::Forever, 10, u64::MAX), None);
        assert_eq!(expires_in(day, 10, 10), Some(86_400));
        assert_eq!(expires_in(day, 10, 86_409), Some(1));
        assert_eq!(expires_in(day, 10, 86_410), Some(0));
        assert_eq!(expires_in(day, 10, u64::MAX), Some(0));
    }
}
