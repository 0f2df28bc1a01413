//! The engine of a data thread: [`Driver`], and the choice of one.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::threads::ThreadsDriver;
use super::uring::UringDriver;
use super::{BufferPool, Completion, Op};

/// Operations in flight at one driver, at most. Callers bound their own requests far below; beyond this an operation
/// is given back at once with `WouldBlock`.
pub(super) const IN_FLIGHT_MAX: usize = super::slab::SLAB_MAX;

/// Executes operations. One driver belongs to one thread.
///
/// The caller's loop: act on completions, submitting operations as it goes, then [`Driver::wait`]. Operations on
/// different ranges or sockets may complete in any order; at most one `Receive` and one `Send` should be in flight per
/// socket, since bytes of two would mix.
pub trait Driver {
    /// Takes an operation. `Some`: it has already ended, and this is its only completion. `None`: its completion will
    /// come out of a later [`Driver::wait`].
    fn submit(&mut self, token: u64, op: Op) -> Option<Completion>;

    /// Hands everything submitted to the kernel, then appends completions to `out`; sleeps until there is at least
    /// one, or somebody calls [`Waker::wake`], or `timeout` has passed. `Some(Duration::ZERO)` does not sleep. It
    /// may return early with nothing, as after a signal. An error means that
    /// the engine itself has failed; nothing more can be expected of it.
    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()>;

    /// A handle for other threads to end a [`Driver::wait`] with.
    fn waker(&self) -> Waker;

    /// Where the buffers of this driver's operations are taken from.
    fn pool(&self) -> &BufferPool;

    /// Operations taken whose completion is still to come.
    fn in_flight(&self) -> usize;

    /// Whether it takes [`Segment::File`](super::Segment::File). A layer that changes what is read or written does not.
    fn sends_files(&self) -> bool {
        false
    }

    /// Which engine this is and why.
    fn describe(&self) -> EngineReport;
}

/// Which engine to open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// io_uring when it is there and complete, else threads.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// `epoll` and worker threads.
    Threads,
}

/// Whether operations are finished within [`Driver::submit`] where that does not block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InlinePolicy {
    /// Where it is expected to be cheaper.
    #[default]
    Adaptive,
    /// Never: everything goes through the engine. For measurements, and for tests of the engine itself.
    Never,
}

/// Which engine was opened, in words for a log line or a status report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineReport {
    /// `io_uring` or `threads`.
    pub name: &'static str,
    /// Features in use, and why this engine was chosen.
    pub detail: String,
}

impl fmt::Display for EngineReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.detail)
    }
}

/// Ends the [`Driver::wait`] of a data thread from another thread. A wake while nobody waits ends the next wait.
#[derive(Clone, Debug)]
pub struct Waker {
    event: Arc<OwnedFd>,
}

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event: Arc::new(event) })
    }

    /// Wakes the thread.
    pub fn wake(&self) {
        // The write fails only when the counter is at its maximum, which wakes as well.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    pub(super) fn event(&self) -> &OwnedFd {
        &self.event
    }

    /// Takes the wakes so far.
    pub(super) fn clear(&self) {
        // Nothing to read means that nothing was to be cleared.
        let _ = rustix::io::read(self.event.as_fd(), &mut [0u8; 8]);
    }
}

/// Opens an engine for the calling thread, which must be the one to use it (io_uring's single issuer).
///
/// `Auto` takes io_uring unless the kernel lacks it, lacks a feature the driver depends on, or forbids it
/// (`kernel.io_uring_disabled`, seccomp); then threads, and [`EngineReport::detail`] says why.
pub fn open_driver(choice: EngineChoice) -> io::Result<Box<dyn Driver>> {
    open_driver_with(choice, InlinePolicy::Adaptive)
}

/// As [`open_driver`], with a policy.
pub fn open_driver_with(choice: EngineChoice, policy: InlinePolicy) -> io::Result<Box<dyn Driver>> {
    match choice {
        EngineChoice::Uring => Ok(Box::new(UringDriver::open(policy)?)),
        EngineChoice::Threads => Ok(Box::new(ThreadsDriver::open(policy, "chosen by configuration")?)),
        EngineChoice::Auto => match UringDriver::open(policy) {
            Ok(driver) => Ok(Box::new(driver)),
            Err(error) => {
                let reason = format!("io_uring cannot be used here: {error}");
                Ok(Box::new(ThreadsDriver::open(policy, &reason)?))
            }
        },
    }
}
