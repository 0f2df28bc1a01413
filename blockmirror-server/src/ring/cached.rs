//! What of a file is in the page cache.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::libc;
use rustix::io::{ReadWriteFlags, preadv2};

/// Number of the system call `cachestat` (Linux 6.5), the same on all architectures since it is new.
const CACHESTAT: libc::c_long = 451;

/// A page may be in the page cache before the disk has filled it, and whoever sends it waits. It is looked at in steps of
/// so many bytes: what is read ahead together comes together.
const STEP_BYTES: usize = 32 << 10;

/// `struct cachestat_range`.
#[repr(C)]
struct Range {
    offset: u64,
    length: u64,
}

/// `struct cachestat`, in pages.
#[repr(C)]
#[derive(Default)]
struct Pages {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Whether a range is in the page cache and filled, as far as is known: false where the kernel does not say.
pub(super) fn is_cached(file: impl AsFd, offset: u64, length: u64) -> bool {
    let is_filled = |at| preadv2(&file, &mut [IoSliceMut::new(&mut [0])], at, ReadWriteFlags::NOWAIT).is_ok();
    has_pages(&file, offset, length) && (offset..offset + length).step_by(STEP_BYTES).all(is_filled)
}

fn has_pages(file: impl AsFd, offset: u64, length: u64) -> bool {
    static KNOWN: AtomicBool = AtomicBool::new(true);
    if length == 0 || !KNOWN.load(Ordering::Relaxed) {
        return false;
    }
    let (range, mut pages) = (Range { offset, length }, Pages::default());
    // SAFETY: both structures live across the call and are laid out as the kernel's; it writes to the second only.
    let result = unsafe {
        libc::syscall(
            CACHESTAT,
            file.as_fd().as_raw_fd(),
            &raw const range,
            &raw mut pages,
            0u32,
        )
    };
    match Errno::result(result) {
        Ok(_) => {
            let page = rustix::param::page_size() as u64;
            let wanted = (offset + length).div_ceil(page) - offset / page;
            pages.cached >= wanted
        }
        Err(error) => {
            if error == Errno::ENOSYS {
                KNOWN.store(false, Ordering::Relaxed);
            }
            false
        }
    }
}
