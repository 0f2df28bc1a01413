//! From a failing seed to a readable trace: faults and requests are left out while the same rule still fails.

use crate::outcome::{Options, Violation};
use crate::plan::Plan;
use crate::rng::Rng;
use crate::simulate::run;

/// Runs at most for one shrinking.
const RUNS_MAX: usize = 400;

/// What is left of a failing seed.
#[derive(Debug)]
pub struct Shrunk {
    /// How to run it.
    pub options: Options,
    /// How it fails.
    pub violation: Violation,
    /// Runs it took.
    pub runs: usize,
    /// Faults left, in words.
    pub faults: Vec<String>,
}

/// Leave out what does not matter. `None`: the seed does not fail.
pub fn shrink(seed: u64, options: &Options) -> Option<Shrunk> {
    let mut violation = run(seed, options).err()?;
    let mut best = options.clone();
    let faults = Plan::new(&mut Rng::new(seed), options.nodes).faults;
    let mut runs = 1;
    let mut try_one = |candidate: &Options, violation: &mut Violation| {
        runs += 1;
        match run(seed, candidate) {
            Err(found) if found.rule == violation.rule => {
                *violation = found;
                true
            }
            _ => false,
        }
    };
    let mut smaller = true;
    let mut rounds = 0;
    while smaller && rounds < RUNS_MAX / (faults.len() + 4) {
        rounds += 1;
        smaller = false;
        for place in (0..faults.len()).rev() {
            if best.without.contains(&place) {
                continue;
            }
            let mut candidate = best.clone();
            candidate.without.push(place);
            if try_one(&candidate, &mut violation) {
                best = candidate;
                smaller = true;
            }
        }
        for most in [0, 4, 16, 40, 90] {
            if best.requests_max.is_some_and(|present| present <= most) {
                break;
            }
            let mut candidate = best.clone();
            candidate.requests_max = Some(most);
            if try_one(&candidate, &mut violation) {
                best = candidate;
                smaller = true;
                break;
            }
        }
    }
    let left = faults
        .iter()
        .enumerate()
        .filter(|(place, _)| !best.without.contains(place));
    let faults = left
        .map(|(place, (at, fault))| format!("{place}: at {at} us {fault:?}"))
        .collect();
    Some(Shrunk {
        options: best,
        violation,
        runs,
        faults,
    })
}
