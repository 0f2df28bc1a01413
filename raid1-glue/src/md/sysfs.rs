//! An array as the kernel shows it: `/sys/block/mdN/md`, admin-guide/md.rst.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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
    /// Sectors that the present action has done, and of how many.
    pub progress: Option<(u64, u64)>,
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
}

/// What a member is to the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl Array {
    /// Of `/dev/md0`, `md0` or a link in `/dev/md`.
    ///
    /// # Errors
    /// There is no such array, or it is not running.
    pub fn read(device: &str) -> io::Result<Self> {
        let path = if device.contains('/') {
            fs::canonicalize(device)?
        } else {
            PathBuf::from(device)
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self::read_in(Path::new("/sys/block"), &name)
    }

    fn read_in(block: &Path, name: &str) -> io::Result<Self> {
        let folder = block.join(name).join("md");
        let word = |file: &str| fs::read_to_string(folder.join(file)).map(|text| text.trim_end().to_owned());
        let sectors: u64 = number(&fs::read_to_string(block.join(name).join("size"))?);
        let mut members = Vec::new();
        for entry in fs::read_dir(&folder)?.flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            if let Some(device) = file.strip_prefix("dev-") {
                members.push(member(&entry.path(), device)?);
            }
        }
        members.sort_by(|one, other| one.device.cmp(&other.device));
        Ok(Self {
            name: name.to_owned(),
            state: word("array_state")?,
            level: word("level")?,
            degraded: number(&word("degraded").unwrap_or_default()),
            action: word("sync_action").unwrap_or_default(),
            progress: word("sync_completed").ok().and_then(|text| fraction(&text)),
            size: sectors * 512,
            members,
        })
    }

    /// The member on this device.
    pub fn member(&self, device: &str) -> Option<&Member> {
        let name = device.rsplit('/').next().unwrap_or(device);
        self.members.iter().find(|member| member.device == name)
    }
}

fn member(folder: &Path, device: &str) -> io::Result<Member> {
    let word = |file: &str| fs::read_to_string(folder.join(file));
    Ok(Member {
        device: device.to_owned(),
        flags: word("state")?.trim_end().split(',').map(str::to_owned).collect(),
        slot: word("slot")?.trim_end().parse().ok(),
        errors: number(&word("errors").unwrap_or_default()),
    })
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

    fn put(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn an_array_that_recovers() {
        let block = tempfile::tempdir().unwrap();
        let md0 = block.path().join("md0");
        put(&md0, &[("size", "131072\n")]);
        let md = md0.join("md");
        put(
            &md,
            &[
                ("array_state", "active\n"),
                ("level", "raid1\n"),
                ("degraded", "1\n"),
                ("sync_action", "recover\n"),
                ("sync_completed", "1024 / 131072\n"),
            ],
        );
        put(
            &md.join("dev-vda"),
            &[("state", "in_sync\n"), ("slot", "0\n"), ("errors", "0\n")],
        );
        put(
            &md.join("dev-nbd0"),
            &[("state", "spare,write_mostly\n"), ("slot", "1\n"), ("errors", "3\n")],
        );
        let array = Array::read_in(block.path(), "md0").unwrap();
        assert_eq!(
            (array.size, array.degraded, array.progress),
            (64 << 20, 1, Some((1024, 131_072)))
        );
        let leg = array.member("/dev/nbd0").unwrap();
        assert_eq!((leg.standing(), leg.slot, leg.errors), (Standing::Syncing, Some(1), 3));
        assert_eq!(array.member("vda").unwrap().standing(), Standing::InSync);
        assert!(array.member("/dev/nbd1").is_none());

        put(&md, &[("sync_action", "idle\n"), ("sync_completed", "none\n")]);
        put(
            &md.join("dev-nbd0"),
            &[("state", "faulty,write_mostly\n"), ("slot", "none\n")],
        );
        let array = Array::read_in(block.path(), "md0").unwrap();
        let leg = array.member("nbd0").unwrap();
        assert_eq!(
            (leg.standing(), leg.slot, array.progress),
            (Standing::Faulty, None, None)
        );
        assert!(Array::read_in(block.path(), "md1").is_err());
    }
}
