//! What the kernel shows of an nbd device in `/sys/block` and `/proc`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes of the unit in which the kernel counts sizes.
const SECTOR: u64 = 512;

/// A device by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NbdIndex(pub u32);

/// What a path has to look like.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no nbd device: write /dev/nbd0, /dev/nbd1 ...")]
pub struct NotNbd(String);

impl std::str::FromStr for NbdIndex {
    type Err = NotNbd;

    /// `/dev/nbd7`, or `nbd7`.
    fn from_str(text: &str) -> Result<Self, NotNbd> {
        let name = text.strip_prefix("/dev/").unwrap_or(text);
        let digits = name
            .strip_prefix("nbd")
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        digits
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| NotNbd(text.to_owned()))
    }
}

impl std::fmt::Display for NbdIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "/dev/nbd{}", self.0)
    }
}

impl NbdIndex {
    fn folder(self) -> PathBuf {
        Path::new("/sys/block").join(format!("nbd{}", self.0))
    }

    /// Whether the kernel has a device of this number, attached or not.
    pub fn exists(self) -> bool {
        self.folder().exists()
    }

    /// Its size in bytes; 0 when it is not attached.
    ///
    /// # Errors
    /// There is none of this number.
    pub fn size(self) -> io::Result<u64> {
        let text = fs::read_to_string(self.folder().join("size"))?;
        let sectors: u64 = text.trim().parse().map_err(io::Error::other)?;
        Ok(sectors * SECTOR)
    }

    /// What it is attached to, in the words of who attached it (Linux 5.14).
    pub fn backend(self) -> Option<String> {
        let text = fs::read_to_string(self.folder().join("backend")).ok()?;
        Some(text.trim_end().to_owned())
    }

    /// Devices that are made of it: md arrays, device mapper.
    pub fn holders(self) -> Vec<String> {
        let Ok(holders) = fs::read_dir(self.folder().join("holders")) else {
            return Vec::new();
        };
        holders
            .flatten()
            .map(|holder| holder.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// What it is used for: mounted where, swapped to, held by what. In words for people.
    pub fn users(self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
        let mut users = self.users_in(&mounts, &swaps);
        users.extend(
            self.holders()
                .into_iter()
                .map(|holder| format!("part of /dev/{holder}")),
        );
        users
    }

    fn users_in(self, mounts: &str, swaps: &str) -> Vec<String> {
        let mounted = mounts.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (device, place) = (words.next()?, words.next()?);
            self.is_or_has(device)
                .then(|| format!("{device} is mounted on {place}"))
        });
        let swapped = swaps.lines().filter_map(|line| {
            let device = line.split_whitespace().next()?;
            self.is_or_has(device).then(|| format!("{device} is swapped to"))
        });
        mounted.chain(swapped).collect()
    }

    /// The device itself, or a partition of it.
    fn is_or_has(self, device: &str) -> bool {
        let whole = self.to_string();
        device.strip_prefix(&whole).is_some_and(|rest| {
            rest.is_empty()
                || rest
                    .strip_prefix('p')
                    .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names() {
        for (text, number) in [("/dev/nbd0", 0), ("nbd15", 15)] {
            assert_eq!(text.parse::<NbdIndex>().unwrap(), NbdIndex(number));
        }
        for text in ["", "/dev/nbd", "/dev/sda", "/dev/nbd0p1", "nbd-1", "nbd99999999999"] {
            let error = text.parse::<NbdIndex>().unwrap_err();
            assert!(error.to_string().contains("write /dev/nbd0"), "{error}");
        }
        assert_eq!(NbdIndex(3).to_string(), "/dev/nbd3");
    }

    #[test]
    fn users_of_the_device_and_its_partitions() {
        let mounts = "/dev/nbd1 /data ext4 rw 0 0\n/dev/nbd1p2 /more xfs rw 0 0\n/dev/nbd11 /other ext4 rw 0 0\nproc /proc proc rw 0 0\n";
        let swaps = "Filename Type Size Used Priority\n/dev/nbd1p3 partition 1 0 -2\n";
        assert_eq!(
            NbdIndex(1).users_in(mounts, swaps),
            [
                "/dev/nbd1 is mounted on /data",
                "/dev/nbd1p2 is mounted on /more",
                "/dev/nbd1p3 is swapped to"
            ]
        );
        assert!(NbdIndex(2).users_in(mounts, swaps).is_empty());
    }
}
