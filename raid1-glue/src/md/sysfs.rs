//! An array as the kernel shows it: `/sys/block/mdN/md`, admin-guide/md.rst.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// An array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// `md127`.
    pub name: String,
    /// The kernel's word: `clean`, `active`, `readonly`, `inactive` and others.
    pub state: String,
    /// `raid1`.
    pub level: String,
    /// Legs that are missing.
    pub degraded: u32,
    /// `idle`, `recover`, `resync`, `check` ...
    pub action: String,
    /// Its legs are not known to be the same: a first copy, or what was under way when the power went.
    pub is_unequal: bool,
    /// Sectors that the present action has done, and of how many.
    pub progress: Option<(u64, u64)>,
    /// Bytes per second of it, lately.
    pub speed: u64,
    /// Writes that legs which are write-mostly may be behind, and the most they have been; `None`: none.
    pub behind: Option<(u64, u64)>,
    /// Bytes of the array.
    pub size: u64,
    /// Devices that belong to it.
    pub members: Vec<Member>,
}

/// A device of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// `nbd0`, `sda2`.
    pub device: String,
    /// `in_sync`, `faulty`, `spare`, `write_mostly`, `failfast`, `blocked` ...
    pub flags: Vec<String>,
    /// Which leg it is; `None`: none yet, or none any more.
    pub slot: Option<u32>,
    /// Errors that md has seen on it and mended.
    pub errors: u64,
    /// Stretches of it that md has noted as bad: what was written there is on the other leg alone.
    pub bad_blocks: usize,
}

/// Where the kernel shows block devices: `/sys/block`.
#[derive(Clone, Debug)]
pub struct Blocks(PathBuf);

/// What a member is to the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It has everything.
    InSync,
    /// It is being copied to, or about to be.
    Syncing,
    /// md has given it up.
    Faulty,
}

impl Member {
    /// What it is.
    pub fn standing(&self) -> Standing {
        let is = |flag: &str| self.flags.iter().any(|own| own == flag);
        if is("faulty") {
            Standing::Faulty
        } else if is("in_sync") {
            Standing::InSync
        } else {
            Standing::Syncing
        }
    }
}

impl Default for Blocks {
    fn default() -> Self {
        Self::at(Path::new("/sys/block"))
    }
}

impl Blocks {
    /// In another folder.
    pub fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// The array at `/dev/md0`, `md0` or a link in `/dev/md`.
    ///
    /// # Errors
    /// There is no such array, or it is not running.
    pub fn array(&self, device: &str) -> io::Result<Array> {
        if device.contains('/') {
            fs::metadata(device)?;
        }
        self.named(&name_of(device))
    }

    /// Names of all arrays that run.
    pub fn arrays(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.0) else {
            return Vec::new();
        };
        let running = entries.flatten().filter(|entry| entry.path().join("md").is_dir());
        let mut names: Vec<String> = running
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_unstable();
        names
    }

    /// The array that this device is part of.
    pub fn holder(&self, device: &str) -> Option<Array> {
        let arrays = self.arrays();
        let arrays = arrays.iter().filter_map(|name| self.named(name).ok());
        arrays.into_iter().find(|array| array.member(device).is_some())
    }

    /// Bytes that were written to a device since it is there.
    pub fn written(&self, device: &str) -> Option<u64> {
        let text = fs::read_to_string(self.folder(device).join("stat")).ok()?;
        let sectors: u64 = text.split_whitespace().nth(6)?.parse().ok()?;
        Some(sectors * 512)
    }

    /// Writes that a device has under way.
    pub fn writes_in_flight(&self, device: &str) -> Option<u64> {
        let text = fs::read_to_string(self.folder(device).join("inflight")).ok()?;
        text.split_whitespace().nth(1)?.parse().ok()
    }

    fn folder(&self, device: &str) -> PathBuf {
        self.0.join(name_of(device))
    }

    fn named(&self, name: &str) -> io::Result<Array> {
        let folder = self.0.join(name).join("md");
        let word = |file: &str| fs::read_to_string(folder.join(file)).map(|text| text.trim_end().to_owned());
        let count = |file: &str| number::<u64>(&word(file).unwrap_or_default());
        let sectors: u64 = number(&fs::read_to_string(self.0.join(name).join("size"))?);
        let mut members = Vec::new();
        for entry in fs::read_dir(&folder)?.flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            // One that goes while we look is not there.
            if let Some(device) = file.strip_prefix("dev-")
                && let Ok(member) = member(&entry.path(), device)
            {
                members.push(member);
            }
        }
        members.sort_by(|one, other| one.device.cmp(&other.device));
        let behind = count("bitmap/backlog");
        let action = word("sync_action").unwrap_or_default();
        Ok(Array {
            name: name.to_owned(),
            state: word("array_state")?,
            level: word("level")?,
            degraded: number(&word("degraded").unwrap_or_default()),
            is_unequal: is_unequal(&action, &word("resync_start").unwrap_or_default()),
            action,
            progress: word("sync_completed").ok().and_then(|text| fraction(&text)),
            speed: count("sync_speed") << 10,
            behind: (behind > 0).then(|| (behind, count("bitmap/max_backlog_used"))),
            size: sectors * 512,
            members,
        })
    }
}

impl Array {
    /// It serves: what is only put together, and waits for its other legs, does not.
    pub fn is_running(&self) -> bool {
        !matches!(self.state.as_str(), "inactive" | "clear")
    }

    /// What the leg that is copied to is. md calls all members in sync during a first copy, since any of them may be read.
    pub fn standing_of_leg(&self, device: &str) -> Option<Standing> {
        let standing = self.member(device)?.standing();
        Some(match standing {
            Standing::InSync if self.is_unequal => Standing::Syncing,
            standing => standing,
        })
    }

    /// The member on this device.
    pub fn member(&self, device: &str) -> Option<&Member> {
        let name = name_of(device);
        self.members.iter().find(|member| member.device == name)
    }
}

/// The kernel's name of a device, which may be named by a link: `sda2` of `/dev/disk/by-id/...`.
fn name_of(device: &str) -> String {
    let path = fs::canonicalize(device).unwrap_or_else(|_| PathBuf::from(device));
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn member(folder: &Path, device: &str) -> io::Result<Member> {
    let word = |file: &str| fs::read_to_string(folder.join(file));
    Ok(Member {
        device: device.to_owned(),
        flags: word("state")?.trim_end().split(',').map(str::to_owned).collect(),
        slot: word("slot")?.trim_end().parse().ok(),
        errors: number(&word("errors").unwrap_or_default()),
        bad_blocks: word("bad_blocks").unwrap_or_default().lines().count(),
    })
}

/// By what is done now, and by where it would begin: "none", or a sector. (While a leg is rebuilt, "recover", md tells which one.)
fn is_unequal(action: &str, resync_start: &str) -> bool {
    action == "resync" || !matches!(resync_start, "" | "none")
}

/// "none", or "1024 / 4096".
fn fraction(text: &str) -> Option<(u64, u64)> {
    let (done, all) = text.split_once('/')?;
    Some((done.trim().parse().ok()?, all.trim().parse().ok()?))
}

fn number<T: std::str::FromStr + Default>(text: &str) -> T {
    text.trim().parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::md::scene::Scene;

    #[test]
    fn an_array_that_recovers() {
        let scene = Scene::new();
        scene.array(Some("spare,write_mostly\n"));
        scene.put(
            "md0/md",
            &[
                ("sync_action", "recover\n"),
                ("sync_completed", "1024 / 131072\n"),
                ("sync_speed", "2048\n"),
            ],
        );
        scene.put("md0/md/bitmap", &[("backlog", "256\n"), ("max_backlog_used", "17\n")]);
        scene.put("md0/md/dev-nbd0", &[("errors", "3\n"), ("bad_blocks", "8 8\n64 16\n")]);
        let blocks = scene.machine().blocks;
        let array = blocks.array("md0").unwrap();
        assert_eq!(
            (array.size, array.degraded, array.progress, array.speed),
            (64 << 20, 1, Some((1024, 131_072)), 2 << 20)
        );
        assert_eq!(array.behind, Some((256, 17)));
        let leg = array.member("/dev/nbd0").unwrap();
        assert_eq!((leg.standing(), leg.slot), (Standing::Syncing, Some(1)));
        assert_eq!((leg.errors, leg.bad_blocks), (3, 2));
        assert_eq!(array.member("vda").unwrap().standing(), Standing::InSync);
        assert!(array.member("/dev/nbd1").is_none());
    }

    #[test]
    fn an_array_with_a_failed_leg() {
        let scene = Scene::new();
        scene.array(Some("faulty,write_mostly\n"));
        scene.put("md0/md/dev-nbd0", &[("slot", "none\n")]);
        let blocks = scene.machine().blocks;
        let array = blocks.array("md0").unwrap();
        let leg = array.member("nbd0").unwrap();
        assert_eq!((leg.standing(), leg.slot), (Standing::Faulty, None));
        assert_eq!((array.progress, array.behind), (None, None));
        assert!(array.is_running());
        scene.put("md0/md", &[("array_state", "inactive\n")]);
        assert!(!blocks.array("md0").unwrap().is_running());
        assert!(blocks.array("md1").is_err());
    }

    #[test]
    fn during_a_first_copy_the_leg_is_not_in_sync_whatever_md_calls_it() {
        let scene = Scene::new();
        scene.array(Some("in_sync,write_mostly\n"));
        let standing = || {
            let array = scene.machine().blocks.array("md0").unwrap();
            (array.standing_of_leg("/dev/nbd0"), array.standing_of_leg("/dev/nbd1"))
        };
        for (action, resync_start, expected) in [
            ("resync\n", "0\n", Standing::Syncing),
            // It is about to begin, or waits for another array's.
            ("idle\n", "0\n", Standing::Syncing),
            ("check\n", "none\n", Standing::InSync),
            ("idle\n", "none\n", Standing::InSync),
            // Another leg is rebuilt of it.
            ("recover\n", "none\n", Standing::InSync),
        ] {
            scene.put("md0/md", &[("sync_action", action), ("resync_start", resync_start)]);
            assert_eq!(standing(), (Some(expected), None), "{action} {resync_start}");
        }
        scene.put("md0/md", &[("sync_action", "resync\n")]);
        scene.put("md0/md/dev-nbd0", &[("state", "faulty\n")]);
        assert_eq!(standing().0, Some(Standing::Faulty));
    }

    #[test]
    fn devices_and_what_they_belong_to() {
        let scene = Scene::new();
        scene.array(Some("in_sync\n"));
        scene.put(
            "nbd0",
            &[
                ("stat", "1 0 8 0 5 0 4096 3 0 0 0\n"),
                ("inflight", "       2        7\n"),
            ],
        );
        let blocks = scene.machine().blocks;
        assert_eq!(blocks.arrays(), ["md0"]);
        assert_eq!(blocks.holder("/dev/vda").unwrap().name, "md0");
        assert!(blocks.holder("/dev/vdb").is_none());
        assert_eq!(blocks.written("/dev/nbd0"), Some(2 << 20));
        assert_eq!(blocks.writes_in_flight("nbd0"), Some(7));
        assert_eq!(blocks.written("/dev/nbd1"), None);
    }

    #[test]
    fn names_that_outlive_a_boot_are_links() {
        let scene = Scene::new();
        scene.array(None);
        scene.put("", &[("vda", "")]);
        let (link, device) = (scene.path("by-id-local"), scene.path("block/vda"));
        std::os::unix::fs::symlink(device, &link).unwrap();
        let link = link.display().to_string();
        let array = scene.machine().blocks.holder(&link).unwrap();
        assert_eq!(array.member(&link).unwrap().device, "vda");
    }
}
