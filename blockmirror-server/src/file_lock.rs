//! Locks of files that only one process may use.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The kernel takes a killed process's ring apart, and closes the files it used, when the process has ended: a daemon that
/// is started again at once waits this long for it.
pub(crate) const LOCK_PATIENCE: Duration = Duration::from_secs(5);

const REST: Duration = Duration::from_millis(10);

/// Lock the open file; it is free again when every handle of it is closed. Blocks up to `patience`; `waits` is called
/// once if it has to.
///
/// # Errors
/// `WOULDBLOCK`: another process still has it. Or the filesystem knows no locks.
pub(crate) fn lock(file: impl AsFd, shared: bool, patience: Duration, waits: impl FnOnce()) -> Result<(), Errno> {
    let operation = if shared {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    let deadline = Instant::now() + patience;
    let mut waits = Some(waits);
    loop {
        match flock(&file, operation) {
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                if let Some(waits) = waits.take() {
                    waits();
                }
                std::thread::sleep(REST);
            }
            outcome => return outcome,
        }
    }
}
