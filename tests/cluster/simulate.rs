//! Running seeds: one, or many on several threads.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::outcome::{Options, Run, Tally, Violation};
use crate::stage::{self, Scenario};
use crate::world::World;

/// What many seeds gave.
#[derive(Debug, Default)]
pub struct Report {
    /// Seeds run.
    pub seeds: u64,
    /// Events in all of them.
    pub steps: u64,
    /// What happened how often.
    pub tally: Tally,
    /// The seeds that failed, in order.
    pub violations: Vec<(u64, Violation)>,
}

/// Run one seed to its end. A panic of a core, its assertions included, is a violation too.
pub fn run(seed: u64, options: &Options) -> Result<Run, Violation> {
    let mut world = World::new(seed, options.clone());
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    match result {
        Ok(Ok(())) => Ok(Run {
            digest: world.digest,
            tally: world.tally,
            steps: world.steps,
        }),
        Ok(Err(violation)) => Err(violation),
        Err(panic) => Err(world.violation("assertion", panic_text(&*panic))),
    }
}

/// What a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("unknown panic").to_owned()
}

/// Run seeds on so many threads, until so many have failed.
pub fn run_many(seeds: Range<u64>, options: &Options, threads: usize, failures_max: usize) -> Report {
    let next = AtomicU64::new(seeds.start);
    let report = Mutex::new(Report::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let outcome = run(seed, options);
            let Ok(mut report) = report.lock() else { return };
            report.seeds += 1;
            match outcome {
                Ok(run) => {
                    report.steps += run.steps;
                    report.tally.add(&run.tally);
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
    let mut report = report.into_inner().unwrap_or_default();
    report.violations.sort_by_key(|&(seed, _)| seed);
    report
}

/// Play a named scenario.
pub fn play(scenario: &Scenario, seed: u64, trace: bool) -> Result<(), String> {
    let options = Options {
        trace,
        ..Options::default()
    };
    play_with(scenario, seed, options)
}

/// The same with something broken.
pub fn play_with(scenario: &Scenario, seed: u64, options: Options) -> Result<(), String> {
    stage::set_options(options);
    let result = catch_unwind(AssertUnwindSafe(|| (scenario.play)(seed)));
    result.unwrap_or_else(|panic| Err(format!("assertion: {}", panic_text(&*panic))))
}
