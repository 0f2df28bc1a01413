//! What both simulators share: how far a run is, what breaks in one, and many seeds on several threads.

use std::any::Any;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Faults strike; nothing that was promised may be lost.
    Safety,
    /// No more faults; everything has to come back.
    Convergence,
    /// The last flush is under way.
    FinalFlush,
    /// Done.
    Over,
}

/// Something happened that must not.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which promise.
    pub rule: &'static str,
    /// What was seen.
    pub text: String,
    /// Simulated microsecond.
    pub at_us: u64,
    /// Events before it.
    pub step: u64,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            rule,
            text,
            at_us,
            step,
        } = self;
        write!(f, "{rule} at {at_us} us (step {step}): {text}")
    }
}

/// What many seeds gave: `T` is what happened how often, `V` what broke.
#[derive(Debug)]
pub struct Report<T, V> {
    /// Seeds run.
    pub seeds: u64,
    /// Events in all of them.
    pub steps: u64,
    /// What happened how often.
    pub tally: T,
    /// The seeds that failed, in order.
    pub violations: Vec<(u64, V)>,
}

/// Run seeds on so many threads, until so many have failed. `run` gives the events of one seed and its tally.
pub fn run_many<T: Default + Send, V: Send>(
    seeds: Range<u64>,
    threads: usize,
    failures_max: usize,
    run: impl Fn(u64) -> Result<(u64, T), V> + Sync,
    add: impl Fn(&mut T, &T) + Sync,
) -> Report<T, V> {
    let next = AtomicU64::new(seeds.start);
    let report = Mutex::new(Report {
        seeds: 0,
        steps: 0,
        tally: T::default(),
        violations: Vec::new(),
    });
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let outcome = run(seed);
            let Ok(mut report) = report.lock() else { return };
            report.seeds += 1;
            match outcome {
                Ok((steps, tally)) => {
                    report.steps += steps;
                    add(&mut report.tally, &tally);
                }
                Err(violation) => report.violations.push((seed, violation)),
            }
            if report.violations.len() >= failures_max {
                next.store(seeds.end, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut report = report.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    report.violations.sort_by_key(|&(seed, _)| seed);
    report
}

/// What a panic said.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("unknown panic")
}
