//! The simulator: the real mirror core between simulated disks, links, peers and a host, one seed at a time.
//!
//! `cargo test -p blockmirror-tests --test sim` runs thousands of seeds and shows that each of the invariants I1 to I5,
//! removed from the core, is missed. `cargo run --release -p blockmirror-tests --bin sim -- --help` runs millions, or
//! one with a trace. docs/ARCHITECTURE.md says what is simulated.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod checker;
mod disk;
mod faults;
mod host;
mod layout;
mod legs;
mod links;
mod outcome;
mod primary;
mod recorded;
mod rng;
mod scenario;
mod shell;
mod simulate;
mod store;
mod strikes;
mod watch;
mod world;

use mirror_core::sabotage::Sabotage;
use outcome::{Options, Tally};
use simulate::{run, run_many};

/// Seeds of the test; the rest of the numbers is for `scripts/sim`.
const SEEDS: u64 = 4000;
/// Seeds within which a broken invariant has to be noticed.
const SABOTAGE_SEEDS: u64 = 2000;

#[test]
fn the_mirror_keeps_its_promises_over_thousands_of_seeds() {
    let report = run_many(0..SEEDS, Options::default(), 2, 3);
    for (seed, violation) in &report.violations {
        println!("seed {seed}: {violation}");
    }
    assert!(
        report.violations.is_empty(),
        "see the seeds above; `sim --seed N --trace` shows one"
    );
    // A simulator that reaches nothing proves nothing.
    for (name, count) in report.tally.fields() {
        assert!(count > 100, "{name} happened only {count} times in {SEEDS} seeds");
    }
}

#[test]
fn one_seed_is_one_run() {
    for seed in 0..30 {
        let (one, two) = (
            run(seed, Options::default()).unwrap(),
            run(seed, Options::default()).unwrap(),
        );
        assert_eq!(one, two, "seed {seed}");
    }
    let (one, two) = (run(1, Options::default()).unwrap(), run(2, Options::default()).unwrap());
    assert_ne!(one.digest, two.digest);
    assert_ne!(Tally::default(), one.tally);
}

#[test]
fn each_broken_invariant_is_noticed() {
    for broken in [Sabotage::I1, Sabotage::I2, Sabotage::I3, Sabotage::I4, Sabotage::I5] {
        let options = Options {
            sabotage: Some(broken),
            ..Options::default()
        };
        let report = run_many(0..SABOTAGE_SEEDS, options, 2, 1);
        let (seed, violation) = report
            .violations
            .first()
            .unwrap_or_else(|| panic!("{broken:?} broken: not noticed"));
        println!("{broken:?} broken: noticed by seed {seed}: {violation}");
    }
}

#[test]
fn a_broken_promise_of_the_shell_is_noticed() {
    let whole = Options::default();
    let no_fence = Options { fence: false, ..whole };
    let no_sync = Options {
        sync_at_start: false,
        ..whole
    };
    let promises = [
        ("a request lands after its connection was replaced", no_fence),
        ("no sync at the start", no_sync),
    ];
    for (broken, options) in promises {
        let report = run_many(0..SABOTAGE_SEEDS, options, 2, 1);
        let (seed, violation) = report
            .violations
            .first()
            .unwrap_or_else(|| panic!("{broken}: not noticed"));
        println!("{broken}: noticed by seed {seed}: {violation}");
    }
}
