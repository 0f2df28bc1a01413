//! Bounded waiting.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a daemon may take to start, to answer or to stop.
pub const PROMPT: Duration = Duration::from_secs(20);
/// How long a transfer or a resync of a test's small image may take.
pub const PATIENT: Duration = Duration::from_secs(90);

const POLL: Duration = Duration::from_millis(5);

/// Probe until it yields a value; an error that says `what` was waited for after `deadline`.
pub fn until<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        if started.elapsed() > deadline {
            bail!("waited {deadline:?} for {what}");
        }
        std::thread::sleep(POLL);
    }
}
