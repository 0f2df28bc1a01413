//! READs without a copy: what is in the page cache is sent as it lies there.

use super::Image;
use crate::ring::FileRange;

/// Bytes looked at to find out that a piece is not zeroes.
const PROBE_BYTES: usize = 64;

impl Image {
    /// What a READ is answered with out of the page cache, if all of it is there. `but_zeroes`: not if a piece of so many
    /// bytes, counted from the first, may be zeroes.
    pub fn send_range(&self, offset: u64, length: u64, but_zeroes: Option<u64>) -> Option<FileRange> {
        let file = &self.leg.file;
        let end = offset.checked_add(length).filter(|end| *end <= self.size)?;
        if !file.sends_at_once(offset, length) {
            return None;
        }
        let mut at = offset;
        while let Some(piece) = but_zeroes.filter(|_| at < end) {
            let mut first = [0; PROBE_BYTES];
            let wanted = PROBE_BYTES.min((end - at) as usize);
            let read = rustix::io::pread(file, &mut first[..wanted], at).ok()?;
            if first[..read].iter().all(|byte| *byte == 0) {
                return None;
            }
            at += piece;
        }
        Some(FileRange {
            file: file.clone(),
            offset,
            length: usize::try_from(length).ok()?,
        })
    }
}
