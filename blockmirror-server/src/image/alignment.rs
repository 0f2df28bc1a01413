//! What the kernel wants offsets and memory to be multiples of.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, StatxFlags};

/// What offsets and memory must be multiples of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alignment {
    /// Of a read's or write's offset and length: 1 except with direct I/O.
    pub(super) transfer: u64,
    /// Of the memory: 1 except with direct I/O.
    pub(super) memory: usize,
    /// Of a range given to `fallocate`: 1 except with direct I/O (edges then are rewritten block by block) and on
    /// block devices (which refuse parts of blocks, and drop whole pages from the page cache).
    pub(super) allocation: u64,
}

/// A page of the page cache.
const PAGE: u64 = 4096;

/// What direct I/O on a file is aligned to where the kernel does not say: every device takes 4 KiB.
pub(super) const DIRECT_BLOCK_ASSUMED: u32 = 4096;

/// Alignment of memory and of offsets for direct I/O, when the kernel (6.1 or later) tells. 0: not possible.
pub(super) fn direct_alignment(fd: &OwnedFd) -> Option<(u32, u32)> {
    let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    let told = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::DIOALIGN);
    told.then_some((stat.stx_dio_mem_align, stat.stx_dio_offset_align))
}

impl Alignment {
    pub(super) const NONE: Self = Self {
        transfer: 1,
        memory: 1,
        allocation: 1,
    };

    /// For I/O through the page cache; `device_block`: logical block size of a block device.
    ///
    /// Zeroing a part of a device drops the pages around it. Within a page of the range's edge may be bytes of another
    /// write that are not on the device yet, so a part of a page is not zeroed on the device but written.
    pub(super) fn buffered(device_block: Option<u32>) -> Self {
        Self {
            allocation: device_block.map_or(1, |block| u64::from(block).max(PAGE)),
            ..Self::NONE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_zeroed_in_whole_pages() {
        let allocation = |block| Alignment::buffered(block).allocation;
        assert_eq!(allocation(None), 1, "files take any range");
        assert_eq!(allocation(Some(512)), 4096);
        assert_eq!(allocation(Some(4096)), 4096);
        assert_eq!(allocation(Some(16384)), 16384);
    }
}
