//! The log that dm-log-writes keeps of a disk (drivers/md/dm-log-writes.c of Linux).
//!
//! All numbers are little endian. The first sector says how many entries there are, and how large a sector is. An entry is a sector
//! with its head, with the text of a mark behind that, and the data of a write in the sectors that follow.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};

/// `jsfwslow`, more or less.
const MAGIC: u64 = 0x6a_736677736872;
const VERSION: u64 = 1;
/// Of an entry's head.
const HEAD: usize = 32;
/// A write is no longer.
const DATA_MAX: u64 = 64 << 20;

const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// These bytes were written there.
    Write(u64, Vec<u8>),
    /// So many bytes from there on were given up.
    Discard(u64, u64),
    /// Somebody has left a word.
    Mark(String),
    /// Nothing but what the entry says.
    Nothing,
}

impl Deed {
    /// Rather than a word about it.
    pub fn is_of_the_disk(&self) -> bool {
        !matches!(self, Self::Mark(_))
    }
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What was done.
    pub deed: Deed,
    /// After it the disk was told to be durable: a flush, or FUA.
    pub point: bool,
}

/// A log that is read from its beginning.
pub struct Log {
    disk: File,
    sector_size: u64,
    entries: u64,
    at: u64,
}

impl Log {
    /// Reads what the first sector says.
    pub fn open(disk: File) -> Result<Self> {
        let mut first = [0; HEAD];
        disk.read_exact_at(&mut first, 0)?;
        let [magic, version, entries, sector_size] = numbers(&first);
        // The last one has four bytes only.
        let sector_size = sector_size & u64::from(u32::MAX);
        ensure!(magic == MAGIC && version == VERSION, "this is no log of dm-log-writes");
        ensure!((512..=4096).contains(&sector_size), "sectors of {sector_size} bytes");
        Ok(Self {
            disk,
            sector_size,
            entries,
            at: sector_size,
        })
    }

    /// The next entry; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        if self.entries == 0 {
            return Ok(None);
        }
        self.entries -= 1;
        let mut head = vec![0; self.sector_size as usize];
        self.disk.read_exact_at(&mut head, self.at)?;
        let [sector, count, flags, text] = numbers(&head);
        self.at += self.sector_size;
        let (from, bytes) = (sector * self.sector_size, count * self.sector_size);
        let deed = if flags & MARK != 0 {
            let text = head
                .get(HEAD..HEAD + text as usize)
                .context("a mark without its text")?;
            Deed::Mark(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
        } else if flags & DISCARD != 0 {
            Deed::Discard(from, bytes)
        } else if bytes == 0 {
            Deed::Nothing
        } else {
            ensure!(bytes <= DATA_MAX, "a write of {bytes} bytes");
            let mut data = vec![0; bytes as usize];
            self.disk.read_exact_at(&mut data, self.at)?;
            self.at += bytes;
            Deed::Write(from, data)
        };
        let point = flags & (FLUSH | FUA) != 0;
        Ok(Some(Entry { deed, point }))
    }
}

fn numbers(head: &[u8]) -> [u64; 4] {
    let mut numbers = [0; 4];
    for (number, bytes) in numbers.iter_mut().zip(head.as_chunks().0) {
        *number = u64::from_le_bytes(*bytes);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(disk: &File, at: u64, numbers: [u64; 4]) {
        for (step, number) in numbers.into_iter().enumerate() {
            disk.write_all_at(&number.to_le_bytes(), at + 8 * step as u64).unwrap();
        }
    }

    #[test]
    fn a_log_is_read_in_its_order() {
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(9 * 512).unwrap();
        head(&disk, 0, [MAGIC, VERSION, 5, 512]);
        head(&disk, 512, [8, 2, 0, 0]);
        disk.write_all_at(&[7; 1024], 2 * 512).unwrap();
        head(&disk, 4 * 512, [0, 0, FLUSH, 0]);
        head(&disk, 5 * 512, [0, 0, MARK, 6]);
        disk.write_all_at(b"begin\0", 5 * 512 + 32).unwrap();
        head(&disk, 6 * 512, [16, 8, DISCARD, 0]);
        head(&disk, 7 * 512, [1, 1, FUA, 0]);
        disk.write_all_at(&[9; 512], 8 * 512).unwrap();
        let mut log = Log::open(disk).unwrap();
        let mut seen = Vec::new();
        while let Some(entry) = log.next().unwrap() {
            seen.push((entry.deed, entry.point));
        }
        assert_eq!(
            seen,
            [
                (Deed::Write(4096, vec![7; 1024]), false),
                (Deed::Nothing, true),
                (Deed::Mark("begin".to_owned()), false),
                (Deed::Discard(8192, 4096), false),
                (Deed::Write(512, vec![9; 512]), true),
            ]
        );
    }

    #[test]
    fn what_is_no_log_is_refused() {
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(512).unwrap();
        assert!(Log::open(disk).is_err());
    }
}
