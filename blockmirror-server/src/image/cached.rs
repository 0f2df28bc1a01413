//! READs without a copy: what is in the page cache is sent as it lies there.

use std::io::IoSliceMut;

use rustix::io::ReadWriteFlags;

use super::Image;
use crate::ring::{FileHandle, FileRange};

/// Bytes looked at in one place.
const PROBE_BYTES: usize = 64;

impl Image {
    /// What a READ is answered with out of the page cache, if all of it is there. `but_zeroes`: not if a piece of so many
    /// bytes, counted from the first, may be zeroes.
    pub fn send_range(&self, offset: u64, length: u64, but_zeroes: Option<u64>) -> Option<FileRange> {
        let file = &self.leg.file;
        let end = offset.checked_add(length).filter(|end| *end <= self.size)?;
        if length == 0 || !file.sends_at_once(offset, length) {
            return None;
        }
        // The last byte: a file that was truncated is to be an error before anything is sent of it.
        look(file, end - 1, 1)?;
        if let Some(piece) = but_zeroes {
            for at in (offset..end).step_by(usize::try_from(piece).ok()?) {
                if look(file, at, end - at)?.iter().all(|byte| *byte == 0) {
                    return None;
                }
            }
        }
        Some(FileRange {
            file: file.clone(),
            offset,
            length: usize::try_from(length).ok()?,
        })
    }
}

/// The first bytes from `at` on, all zeroes behind the `length` that are wanted. `None`: they are not there, or not yet.
fn look(file: &FileHandle, at: u64, length: u64) -> Option<[u8; PROBE_BYTES]> {
    let mut bytes = [0; PROBE_BYTES];
    let wanted = length.min(PROBE_BYTES as u64) as usize;
    let flags = if file.is_memory_backed() {
        ReadWriteFlags::empty()
    } else {
        ReadWriteFlags::NOWAIT
    };
    let into = &mut [IoSliceMut::new(&mut bytes[..wanted])];
    match rustix::io::preadv2(file, into, at, flags) {
        Ok(count) if count == wanted => Some(bytes),
        _ => None,
    }
}
