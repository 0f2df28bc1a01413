//! Space set aside for everything a metadata file will ever hold.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FallocateFlags, fallocate, fstat, fstatvfs};
use rustix::io::Errno;

/// Bytes per unit of `st_blocks`.
const STAT_BLOCK: u64 = 512;

/// Set aside the parts of `space`, the smallest first. False: the filesystem cannot do so. `NOSPC` and `DQUOT`: there is
/// not enough left.
///
/// Looks at the free space before the large parts: an attempt that must fail would fill the filesystem before it does.
pub(crate) fn set_aside(file: impl AsFd, space: &[Range<u64>]) -> Result<bool, Errno> {
    let file = file.as_fd();
    let Some((first, rest)) = space.split_first() else {
        return Ok(true);
    };
    if !allocate(file, first)? {
        return Ok(false);
    }
    let allocated = u64::try_from(fstat(file)?.st_blocks)
        .unwrap_or(0)
        .saturating_mul(STAT_BLOCK);
    let system = fstatvfs(file)?;
    // What root alone may use is counted in: whether it may be used here, the attempt tells.
    let free = system.f_bfree.saturating_mul(system.f_frsize);
    let known = system.f_blocks > 0;
    if known && bytes(space).saturating_sub(allocated) > free {
        return Err(Errno::NOSPC);
    }
    for part in rest {
        if !allocate(file, part)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Bytes of all parts.
pub(crate) fn bytes(space: &[Range<u64>]) -> u64 {
    space.iter().map(|part| part.end - part.start).sum()
}

fn allocate(file: BorrowedFd<'_>, part: &Range<u64>) -> Result<bool, Errno> {
    loop {
        // The length of the file goes on to tell how far pages were ever written.
        match fallocate(file, FallocateFlags::KEEP_SIZE, part.start, part.end - part.start) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}
