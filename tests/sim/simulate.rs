//! Running seeds: one, or many on several threads.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use blockmirror_tests::campaign::{self, panic_text};

use crate::outcome::{Options, Run, Tally, Violation};
use crate::world::World;

/// What many seeds gave.
pub type Report = campaign::Report<Tally, Violation>;

/// Run one seed to its end. A panic of the core, its assertions included, is a violation too.
pub fn run(seed: u64, options: Options) -> Result<Run, Violation> {
    let mut world = World::new(seed, options);
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

/// Run seeds on so many threads, until so many have failed.
pub fn run_many(seeds: Range<u64>, options: Options, threads: usize, failures_max: usize) -> Report {
    let one = |seed| run(seed, options).map(|run| (run.steps, run.tally));
    campaign::run_many(seeds, threads, failures_max, one, Tally::add)
}
