//! When buffered writes are kept off the data thread: [`WriteGuard`].

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// An inline write that takes at least this long has probably blocked: it waited for a disk, for the journal, or was
/// throttled because too much is dirty. (Copying 1 MiB takes some 150 us; see `docs/MEASUREMENTS.md`.) One that was
/// merely preempted costs a short detour, which is cheap.
const SLOW: Duration = Duration::from_micros(500);

/// Writes sent to a worker after the first slow one, before another is tried inline ...
const DETOUR_FIRST: u32 = 32;
/// ... and at most, the number doubling with each slow write in turn.
const DETOUR_MAX: u32 = 4096;

/// Decides per file whether a buffered write is tried inline. While writes are quick, they are; one that blocked sends
/// the following ones to a worker for a while, twice as many after each further one that blocked.
#[derive(Debug)]
pub(super) struct WriteGuard {
    /// Writes still to be sent to a worker.
    detour: AtomicU32,
    /// Length of the next detour.
    next: AtomicU32,
}

impl WriteGuard {
    pub(super) const fn new() -> Self {
        Self {
            detour: AtomicU32::new(0),
            next: AtomicU32::new(DETOUR_FIRST),
        }
    }

    /// Whether the next write may be done inline; counts it as one of the detour otherwise.
    pub(super) fn allows(&self) -> bool {
        // A file belongs to one data thread, so load and store do not race; if they did, a detour would be a little
        // longer or shorter.
        let left = self.detour.load(Ordering::Relaxed);
        if left > 0 {
            self.detour.store(left - 1, Ordering::Relaxed);
        }
        left == 0
    }

    /// An inline write took this long.
    pub(super) fn note(&self, took: Duration) {
        if took >= SLOW {
            let length = self.next.load(Ordering::Relaxed);
            self.detour.store(length, Ordering::Relaxed);
            self.next.store((length * 2).min(DETOUR_MAX), Ordering::Relaxed);
        } else if self.next.load(Ordering::Relaxed) != DETOUR_FIRST {
            self.next.store(DETOUR_FIRST, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detour_after(guard: &WriteGuard, took: Duration) -> u32 {
        guard.note(took);
        (0..).take_while(|_| !guard.allows()).count() as u32
    }

    #[test]
    fn quick_writes_stay_inline_and_slow_ones_make_growing_detours() {
        let guard = WriteGuard::new();
        assert_eq!(detour_after(&guard, Duration::from_micros(50)), 0);
        assert_eq!(detour_after(&guard, SLOW), DETOUR_FIRST);
        assert_eq!(detour_after(&guard, SLOW), DETOUR_FIRST * 2);
        for _ in 0..20 {
            guard.note(SLOW);
        }
        assert_eq!(detour_after(&guard, SLOW), DETOUR_MAX);
        assert_eq!(detour_after(&guard, Duration::ZERO), 0);
        assert_eq!(detour_after(&guard, SLOW), DETOUR_FIRST);
    }
}
