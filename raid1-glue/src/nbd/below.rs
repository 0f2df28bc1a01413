//! What a file lies on: nbd devices, with whatever is made of them in between.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

use super::sysfs::{NbdIndex, System};

/// Devices above one that are looked at; a stack of them is a handful high.
const DEVICES_MAX: usize = 256;

impl System {
    /// The nbd devices that `file` lies on, or is. What lies on a filesystem of no device, or of several at once (btrfs), is
    /// not seen through.
    ///
    /// # Errors
    /// There is no such file.
    pub fn nbd_below(&self, file: &Path) -> io::Result<Vec<NbdIndex>> {
        let metadata = fs::metadata(file)?;
        let device = if metadata.file_type().is_block_device() {
            metadata.rdev()
        } else {
            metadata.dev()
        };
        Ok(self.nbd_below_device(&format!("{}:{}", major(device), minor(device))))
    }

    fn nbd_below_device(&self, number: &str) -> Vec<NbdIndex> {
        let devices = fs::read_dir(self.path("sys/block")).into_iter().flatten().flatten();
        let nbd = devices.filter_map(|device| {
            let index: NbdIndex = device.file_name().to_string_lossy().parse().ok()?;
            carries(device.path(), number).then_some(index)
        });
        nbd.collect()
    }
}

/// Whether the device of this folder, a partition of it, or what is made of either, has this number.
fn carries(device: PathBuf, number: &str) -> bool {
    let (mut seen, mut left) = (BTreeSet::new(), vec![device]);
    while let Some(folder) = left.pop() {
        let Ok(folder) = fs::canonicalize(folder) else {
            continue;
        };
        if seen.len() >= DEVICES_MAX || !seen.insert(folder.clone()) {
            continue;
        }
        if fs::read_to_string(folder.join("dev")).is_ok_and(|own| own.trim() == number) {
            return true;
        }
        let inside = |folder: &Path| {
            fs::read_dir(folder)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
        };
        left.extend(inside(&folder).filter(|entry| entry.join("partition").exists()));
        left.extend(inside(&folder.join("holders")));
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::nbd::tests::Fake;

    #[test]
    fn through_partitions_and_arrays() {
        let fake = Fake::new();
        for (file, text) in [
            ("nbd3/dev", "43:48\n"),
            ("nbd3/nbd3p1/dev", "43:49\n"),
            ("nbd3/nbd3p1/partition", "1\n"),
            ("nbd3/nbd3p1/holders/keep", ""),
            ("nbd4/dev", "43:64\n"),
            ("sda/dev", "8:0\n"),
            ("md0/dev", "9:0\n"),
            ("md0/holders/keep", ""),
        ] {
            fake.put(&format!("sys/block/{file}"), text);
        }
        let path = |path: &str| fake.root().join("sys/block").join(path);
        symlink(path("md0"), path("nbd3/nbd3p1/holders/md0")).unwrap();
        // Nothing goes round in circles.
        symlink(path("nbd3"), path("md0/holders/nbd3")).unwrap();
        let system = fake.system();
        for number in ["43:48", "43:49", "9:0"] {
            assert_eq!(system.nbd_below_device(number), [NbdIndex(3)], "{number}");
        }
        assert_eq!(system.nbd_below_device("43:64"), [NbdIndex(4)]);
        assert!(system.nbd_below_device("8:0").is_empty() && system.nbd_below_device("0:31").is_empty());
    }
}
