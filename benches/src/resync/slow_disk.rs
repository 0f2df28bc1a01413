//! A disk slower than the machine's own: what a control group may write to it, limited by the kernel.

use std::fs;
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::stat::{major, minor};

/// Where the block controller is found, with the file that limits writes.
const CONTROLLERS: [(&str, &str); 2] = [
    ("/sys/fs/cgroup/blkio", "blkio.throttle.write_bps_device"),
    ("/sys/fs/cgroup", "io.max"),
];
const MEMBERS: &str = "cgroup.procs";

/// A control group of its own; whose processes go back where they came from in the end.
pub struct SlowDisk {
    group: PathBuf,
    root: PathBuf,
}

impl SlowDisk {
    /// One whose members write so many bytes per second to the disk that `folder` is on.
    pub fn new(folder: &Path, bytes_per_second: u64) -> Result<Self> {
        let device = fs::metadata(folder)?.st_dev();
        let device = format!("{}:{}", major(device), minor(device));
        let found = CONTROLLERS.iter().find_map(|(root, limit)| {
            let group = Path::new(root).join(format!("blockmirror-bench-{}", std::process::id()));
            fs::create_dir(&group).ok()?;
            let it = Self {
                group,
                root: root.into(),
            };
            it.group.join(limit).exists().then_some((it, *limit))
        });
        let (it, limit) = found.context("no control group here limits writes to a disk")?;
        let value = match limit {
            "io.max" => format!("{device} wbps={bytes_per_second}"),
            _ => format!("{device} {bytes_per_second}"),
        };
        fs::write(it.group.join(limit), value).with_context(|| format!("limiting the writes to {device}"))?;
        Ok(it)
    }

    /// A process is limited from now on.
    pub fn take(&self, process: u32) -> Result<()> {
        Ok(fs::write(self.group.join(MEMBERS), process.to_string())?)
    }

    /// Do this under the limit.
    pub fn limited<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.take(std::process::id())?;
        let done = work();
        self.release(&std::process::id().to_string());
        done
    }

    fn release(&self, process: &str) {
        // A process that has ended meanwhile needs nothing.
        let _ = fs::write(self.root.join(MEMBERS), process);
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        let members = fs::read_to_string(self.group.join(MEMBERS)).unwrap_or_default();
        members.lines().for_each(|process| self.release(process));
        let _ = fs::remove_dir(&self.group);
    }
}
