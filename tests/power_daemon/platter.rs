//! What of a file would survive a power cut, kept in a file beside it.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use blockmirror_tests::power::platter::{beside, copy, is_metadata, read_at};

use super::ranges::Ranges;

/// Unit in which a cut takes or leaves what was not made durable: of an image a block, as disks write it whole; of a
/// metadata file a sector, since that file has to cope with less.
const BLOCK: u64 = 4096;
const SECTOR: u64 = 512;
const STEP: u64 = 1 << 20;

/// A file and its durable part.
pub struct Platter {
    /// As the daemon sees it, with the page cache.
    file: File,
    durable: File,
    unit: u64,
    /// Written and not made durable.
    dirty: Ranges,
}

impl Platter {
    /// For an open file on which everything is durable now.
    pub fn of(descriptor: RawFd) -> Result<Self> {
        let path = std::fs::read_link(format!("/proc/self/fd/{descriptor}"))?;
        let beside = beside(&path);
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        let durable = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&beside)?;
        copy(&file, &durable)?;
        Ok(Self {
            file,
            durable,
            unit: if is_metadata(&path) { SECTOR } else { BLOCK },
            dirty: Ranges::default(),
        })
    }

    /// It is in the page cache.
    pub fn note(&mut self, offset: u64, length: u64) {
        self.dirty
            .add(offset / self.unit, (offset + length).div_ceil(self.unit));
    }

    /// What a sync that starts now has to cover.
    pub fn dirty(&self) -> Ranges {
        self.dirty.clone()
    }

    /// These units are durable now, as they are in the page cache now.
    pub fn settle(&mut self, covered: &Ranges) -> Result<()> {
        for (first, end) in covered.iter() {
            self.settle_range(first, end)?;
        }
        Ok(())
    }

    /// The range is durable now: it was written through.
    pub fn settle_bytes(&mut self, offset: u64, length: u64) -> Result<()> {
        self.settle_range(offset / self.unit, (offset + length).div_ceil(self.unit))
    }

    /// One unit, chosen by `choice`, is written back early, as page caches do.
    pub fn settle_some(&mut self, choice: u64) -> Result<()> {
        match self.dirty.nth(choice) {
            Some(unit) => self.settle_range(unit, unit + 1),
            None => Ok(()),
        }
    }

    fn settle_range(&mut self, first: u64, end: u64) -> Result<()> {
        self.dirty.remove(first, end);
        let (mut at, end) = (first * self.unit, end * self.unit);
        let mut buffer = vec![0; STEP.min(end - at) as usize];
        while at < end {
            let wanted = buffer.len().min((end - at) as usize);
            let read = read_at(&self.file, &mut buffer[..wanted], at)?;
            if read == 0 {
                break;
            }
            self.durable.write_all_at(&buffer[..read], at)?;
            at += read as u64;
        }
        Ok(())
    }
}

/// The descriptor's device and inode: several may be open on one file.
pub fn key(descriptor: &impl AsRawFd) -> Result<(u64, u64)> {
    let found = nix::sys::stat::stat(format!("/proc/self/fd/{}", descriptor.as_raw_fd()).as_str())?;
    Ok((found.st_dev, found.st_ino))
}
