//! Waiting for completions: asleep, or awake for a moment where that is likely to be shorter.
//!
//! Going to sleep and being woken costs more than a whole 4 KiB request (docs/MEASUREMENTS.md). A client that keeps few
//! requests in flight sends the next one some microseconds after a reply, and a peer answers as soon, so the driver looks
//! out for it that long before it sleeps, as KVM does before it halts a processor, and for the same reason: to wake a
//! processor that rests is the dearest part of a short wait. It does so only while waits turn out short, gives the
//! processor to whoever else wants it at every look, and stops for a while when nothing came.

use std::io;
use std::time::{Duration, Instant};

use io_uring::types::{SubmitArgs, Timespec};
use nix::libc;

use super::{UringDriver, is_passing};

/// Longest look-out before a sleep: a partner waits for the next write of a host that keeps one in flight for as long as
/// the host, the Primary and its image take together. KVM's `halt_poll_ns` is as long.
const LOOK_OUT_MAX: Duration = Duration::from_micros(200);
/// A wait up to this long, sleep included, suggests that the next one may be worth looking out for.
const SHORT_WAIT: Duration = Duration::from_micros(400);
/// Waits without a look-out after one in vain.
const REST: u32 = 8;

/// Whether to look out before the next sleep.
#[derive(Debug)]
pub(super) struct LookOut {
    /// More than one processor: somebody else can run meanwhile.
    useful: bool,
    last_wait: Duration,
    rest: u32,
}

impl LookOut {
    pub(super) fn new() -> Self {
        Self {
            useful: std::thread::available_parallelism().is_ok_and(|count| count.get() > 1),
            last_wait: Duration::MAX,
            rest: 0,
        }
    }

    fn is_due(&mut self) -> bool {
        if self.rest > 0 {
            self.rest -= 1;
            return false;
        }
        self.useful && self.last_wait <= SHORT_WAIT
    }
}

impl UringDriver {
    /// Submits, and waits for one completion until `timeout`.
    pub(super) fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            return self.enter(timeout);
        }
        let started = Instant::now();
        if self.look_out.is_due() {
            self.enter(Some(Duration::ZERO))?;
            if self.sees_something(started + timeout.map_or(LOOK_OUT_MAX, |timeout| timeout.min(LOOK_OUT_MAX))) {
                self.look_out.last_wait = started.elapsed();
                // Takes what has been seen; there is no sleep in it.
                return self.enter(Some(Duration::ZERO));
            }
            self.look_out.rest = REST;
        }
        self.enter(timeout)?;
        self.look_out.last_wait = started.elapsed();
        Ok(())
    }

    /// Looks at the queues until there is something in them, or `until`.
    fn sees_something(&mut self, until: Instant) -> bool {
        loop {
            if !self.ring.completion().is_empty() || self.ring.submission().taskrun() {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            std::thread::yield_now();
        }
    }

    /// Submits, and sleeps until one completion or `timeout`; not at all for a timeout of zero.
    pub(super) fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let result = match timeout {
            Some(Duration::ZERO) => self.ring.submit(),
            Some(timeout) => {
                let limit = Timespec::from(timeout);
                self.ring
                    .submitter()
                    .submit_with_args(1, &SubmitArgs::new().timespec(&limit))
            }
            None => self.ring.submit_and_wait(1),
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ETIME) || is_passing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
