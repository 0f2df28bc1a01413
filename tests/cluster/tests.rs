//! What the test suite runs of the simulator: some seeds, every scenario, a short mutation run.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use mirror_core::sabotage::Sabotage;

use crate::mutants;
use crate::outcome::{Options, Tally};
use crate::scenarios;
use crate::shrink::shrink;
use crate::simulate::{play, run, run_many};

/// Seeds of the test; the rest of the numbers is for `scripts/sim --cluster`.
const SEEDS: u64 = 1500;
/// What few seeds bring: it hides whatever else goes wrong.
const RARE: [&str; 4] = ["rotten", "misdirected", "torn_metadata", "metadata_errors"];
/// Seeds within which a broken rule of the short mutation run has to be noticed.
const MUTANT_SEEDS: u64 = 1500;
/// Seeds of each scenario.
const SCENARIO_SEEDS: u64 = 2;

#[test]
fn a_cluster_keeps_its_promises_over_many_seeds() {
    let report = run_many(0..SEEDS, &Options::default(), 2, 3);
    for (seed, violation) in &report.violations {
        println!("seed {seed}: {violation}");
    }
    assert!(
        report.violations.is_empty(),
        "see above; `scripts/sim --cluster --seed N --trace` shows one"
    );
    // A simulator that reaches nothing proves nothing.
    for (name, count) in report.tally.fields() {
        let least = if RARE.contains(&name) { 1 } else { 20 };
        assert!(count >= least, "{name} happened only {count} times in {SEEDS} seeds");
    }
}

#[test]
fn one_seed_is_one_run() {
    for seed in 0..40 {
        let (one, two) = (run(seed, &Options::default()), run(seed, &Options::default()));
        assert_eq!(one.unwrap(), two.unwrap(), "seed {seed}");
    }
    let (one, two) = (
        run(1, &Options::default()).unwrap(),
        run(2, &Options::default()).unwrap(),
    );
    assert_ne!(one.digest, two.digest);
    assert_ne!(Tally::default(), one.tally);
}

#[test]
fn scenarios_go_as_expected() {
    let mut wrong = Vec::new();
    let all = scenarios::all();
    assert!(all.len() > 60, "only {} scenarios", all.len());
    for scenario in &all {
        for seed in 0..SCENARIO_SEEDS {
            if let Err(text) = play(scenario, seed, false) {
                wrong.push(format!("{} {seed}: {text}", scenario.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn broken_rules_are_noticed() {
    let hunt = mutants::Hunt::new(MUTANT_SEEDS, 2);
    let mut unnoticed = Vec::new();
    for mutant in mutants::all() {
        match hunt.notice(&mutant) {
            Some(noticed) => println!("{}: {}: {}", mutant.name, noticed.by, noticed.seen),
            None => unnoticed.push(mutant.name),
        }
    }
    assert!(unnoticed.is_empty(), "broken, and nobody notices: {unnoticed:?}");
}

#[test]
fn a_failing_seed_shrinks() {
    let options = Options {
        sabotage: Some(Sabotage::I4),
        ..Options::default()
    };
    let report = run_many(0..MUTANT_SEEDS, &options, 2, 1);
    let seed = report.violations.first().expect("noticed").0;
    let shrunk = shrink(seed, &options).expect("still fails");
    assert!(run(seed, &shrunk.options).is_err(), "what is left of it fails");
}
