//! What of a file is in the page cache.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::libc;

/// Number of the system call `cachestat` (Linux 6.5), the same on all architectures since it is new.
const CACHESTAT: libc::c_long = 451;

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

/// Whether all pages of a range are in the page cache, as far as is known: false where the kernel does not say.
pub(super) fn is_cached(file: impl AsFd, offset: u64, length: u64) -> bool {
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
            let page = page_size();
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

fn page_size() -> u64 {
    rustix::param::page_size() as u64
}
