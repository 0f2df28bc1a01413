//! Running mdadm: what it was told, and what it said, in every error.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program.
#[derive(Clone, Debug)]
pub struct Mdadm(PathBuf);

/// Why mdadm did not do it.
#[derive(Debug, thiserror::Error)]
pub enum MdadmError {
    /// It is not there.
    #[error("mdadm cannot be run: {0}; install it (package mdadm)")]
    Missing(io::Error),
    /// It says no.
    #[error("mdadm {arguments}: {said}")]
    Refused {
        /// What it was told.
        arguments: String,
        /// Its last words.
        said: String,
    },
}

/// What mdadm finds on a device that is, or was, a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The UUID of its array.
    pub uuid: String,
    /// The name of its array, as `host:name`.
    pub name: Option<String>,
    /// How often md has noted something on it: the larger, the newer.
    pub events: Option<u64>,
}

/// The write-intent bitmap, as a leg has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bitmap {
    /// Bytes that one bit stands for.
    pub chunk: u64,
    /// Bits.
    pub bits: u64,
    /// Those that are set.
    pub dirty: u64,
}

impl Bitmap {
    /// Bytes that a leg without them would be sent, at most.
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty.saturating_mul(self.chunk)
    }
}

impl Default for Mdadm {
    fn default() -> Self {
        Self::at(Path::new("mdadm"))
    }
}

impl Mdadm {
    /// Another program than the one in the path.
    pub fn at(program: &Path) -> Self {
        Self(program.to_owned())
    }

    /// Runs it; what it printed.
    ///
    /// # Errors
    /// It is not there, or it says no.
    pub fn run<S: AsRef<str>>(&self, arguments: &[S]) -> Result<String, MdadmError> {
        let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
        let output = Command::new(&self.0)
            .args(&arguments)
            .stdin(std::process::Stdio::null())
            .output()
            .map_err(MdadmError::Missing)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        let said = [text(&output.stderr), text(&output.stdout)].join("\n");
        Err(refused(&arguments, said.trim()))
    }

    /// The UUID of an array that runs.
    ///
    /// # Errors
    /// It does not run, or mdadm does not say.
    pub fn uuid_of(&self, array: &str) -> Result<String, MdadmError> {
        let arguments = ["--detail", "--export", array];
        let said = self.run(&arguments)?;
        let uuid = value(&said, "MD_UUID").map(str::to_owned);
        uuid.ok_or_else(|| refused(&arguments, &format!("it names no MD_UUID: {said}")))
    }

    /// What it finds on a device; `None`: no leg of any array.
    ///
    /// # Errors
    /// mdadm cannot be run.
    pub fn examine(&self, device: &str) -> Result<Option<Superblock>, MdadmError> {
        let said = match self.run(&["--examine", "--export", device]) {
            Ok(said) => said,
            Err(MdadmError::Refused { .. }) => return Ok(None),
            Err(missing) => return Err(missing),
        };
        Ok(value(&said, "MD_UUID").map(|uuid| Superblock {
            uuid: uuid.to_owned(),
            name: value(&said, "MD_NAME").map(str::to_owned),
            events: value(&said, "MD_EVENTS").and_then(|events| events.parse().ok()),
        }))
    }

    /// Which legs the array had when a leg was in it last, as that one noted it: of "A." the second one was missing. `None`: it
    /// does not say, or is none.
    ///
    /// # Errors
    /// mdadm cannot be run.
    pub fn legs_seen_by(&self, leg: &str) -> Result<Option<String>, MdadmError> {
        match self.run(&["--examine", leg]) {
            Ok(said) => Ok(field(&said, "Array State")
                .and_then(|state| state.split_whitespace().next())
                .map(str::to_owned)),
            Err(MdadmError::Refused { .. }) => Ok(None),
            Err(missing) => Err(missing),
        }
    }

    /// The bitmap on a leg; `None`: it has none.
    ///
    /// # Errors
    /// mdadm cannot be run.
    pub fn bitmap(&self, leg: &str) -> Result<Option<Bitmap>, MdadmError> {
        match self.run(&["--examine-bitmap", leg]) {
            Ok(said) => Ok(bitmap(&said)),
            Err(MdadmError::Refused { .. }) => Ok(None),
            Err(missing) => Err(missing),
        }
    }
}

fn refused(arguments: &[&str], said: &str) -> MdadmError {
    MdadmError::Refused {
        arguments: arguments.join(" "),
        said: said.to_owned(),
    }
}

/// Of lines `KEY=VALUE`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

/// Of lines `Key : value` for people.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim())
    })
}

/// Of what `--examine-bitmap` prints for people.
fn bitmap(text: &str) -> Option<Bitmap> {
    let (count, unit) = field(text, "Chunksize")?.split_once(' ')?;
    let shift = match unit {
        "B" => 0,
        "KB" => 10,
        "MB" => 20,
        "GB" => 30,
        _ => return None,
    };
    // "16 bits (chunks), 2 dirty (12.5%)"
    let mut words = field(text, "Bitmap")?.split_whitespace();
    let bits = words.next()?.parse().ok()?;
    let dirty = words.nth(2)?.parse().ok()?;
    Some(Bitmap {
        chunk: count.parse::<u64>().ok()? << shift,
        bits,
        dirty,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::md::scene::Scene;

    #[test]
    fn values_are_found_by_their_whole_key() {
        let text = "MD_LEVEL=raid1\nMD_UUID_OLD=no\nMD_UUID=8a1c5e1b:02c3:0:1\nMD_NAME=a=b";
        assert_eq!(value(text, "MD_UUID"), Some("8a1c5e1b:02c3:0:1"));
        assert_eq!(value(text, "MD_NAME"), Some("a=b"));
        assert_eq!(value(text, "MD_DEVICES"), None);
    }

    #[test]
    fn bitmaps_are_read() {
        let text = "        Filename : /dev/vdb
           Magic : 6d746962
         Version : 4
       Chunksize : 4 MB
          Daemon : 5s flush period
      Write Mode : Allow write behind, max 256
       Sync Size : 65472 (63.94 MiB 67.04 MB)
          Bitmap : 16 bits (chunks), 2 dirty (12.5%)";
        let read = bitmap(text).unwrap();
        assert_eq!((read.chunk, read.bits, read.dirty), (4 << 20, 16, 2));
        assert_eq!(read.dirty_bytes(), 8 << 20);
        assert_eq!(bitmap("Chunksize : 4 MB"), None);
        assert_eq!(bitmap(""), None);
    }

    #[test]
    fn what_a_leg_has_noted_is_read() {
        let scene = Scene::new();
        scene.mdadm(
            "case $2 in
             --export) printf 'MD_LEVEL=raid1\nMD_UUID=1:2:3:4\nMD_DEV_UUID=5:6:7:8\nMD_EVENTS=4711\n';;
             /dev/old) exit 1;;
             *) printf '    Raid Devices : 2\n     Device Role : Active device 1\n     Array State : .A (A == active, . == missing)\n';;
             esac",
        );
        let mdadm = &scene.machine().mdadm;
        let superblock = mdadm.examine("/dev/nbd0").unwrap().unwrap();
        assert_eq!((superblock.uuid.as_str(), superblock.events), ("1:2:3:4", Some(4711)));
        assert_eq!(mdadm.legs_seen_by("/dev/nbd0").unwrap().as_deref(), Some(".A"));
        assert_eq!(mdadm.legs_seen_by("/dev/old").unwrap(), None);
    }

    #[test]
    fn what_it_says_is_told_and_no_superblock_is_no_error() {
        let scene = Scene::new();
        scene.mdadm("case $1 in --examine) exit 1;; *) echo \"mdadm: $2 is unhappy\" >&2; exit 1;; esac");
        let mdadm = &scene.machine().mdadm;
        let error = mdadm.run(&["--stop", "/dev/md0"]).unwrap_err().to_string();
        assert_eq!(error, "mdadm --stop /dev/md0: mdadm: /dev/md0 is unhappy");
        assert_eq!(mdadm.examine("/dev/vda").unwrap(), None);
        let missing = Mdadm::at(&scene.path("nowhere"));
        let error = missing.examine("/dev/vda").unwrap_err().to_string();
        assert!(error.contains("install it"), "{error}");
    }
}
