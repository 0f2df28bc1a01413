//! The mutation run: every rule of the cores, and every promise of the shell, is broken one at a time; seeds and named
//! scenarios have to notice.

use mirror_core::identity::Rule;
use mirror_core::sabotage::Sabotage;

use crate::outcome::{Broken, Options};
use crate::scenarios;
use crate::simulate::{play_with, run_many};

/// What became of one mutant.
#[derive(Debug)]
pub struct Mutant {
    /// What was broken.
    pub name: String,
    /// Who noticed, after how many seeds, and which rule was seen broken.
    pub noticed: Option<(String, u64, String)>,
}

/// Everything there is to break, by name.
pub fn all() -> Vec<(String, Options)> {
    let rules = Rule::ALL.iter().map(|&rule| Sabotage::Decision(rule));
    let cores = Sabotage::ALL.iter().copied().chain(rules).map(|broken| {
        let sabotage = Some(broken);
        let options = Options {
            sabotage,
            ..Options::default()
        };
        (format!("{broken:?}"), options)
    });
    let shell = Broken::ALL.iter().map(|&broken| {
        let options = Options {
            broken: Some(broken),
            ..Options::default()
        };
        (format!("Shell{broken:?}"), options)
    });
    cores.chain(shell).collect()
}

/// The same options with this broken.
pub fn by_name(name: &str, options: Options) -> Option<Options> {
    let (_, found) = all().into_iter().find(|(known, _)| known == name)?;
    Some(Options {
        sabotage: found.sabotage,
        broken: found.broken,
        ..options
    })
}

/// Break everything there is to break, one at a time: the scenarios first, then so many seeds.
pub fn mutants(seeds: u64, threads: usize, only: &str) -> Vec<Mutant> {
    let chosen = all().into_iter().filter(|(name, _)| name.contains(only));
    chosen
        .map(|(name, options)| {
            let noticed = by_seeds(seeds.min(FIRST_SEEDS), threads, &options)
                .or_else(|| by_scenarios(&options))
                .or_else(|| by_seeds(seeds, threads, &options));
            if let Some((by, _, rule)) = &noticed {
                eprintln!("{name}: noticed by {by}: {rule}");
            } else {
                eprintln!("{name}: not noticed");
            }
            Mutant { name, noticed }
        })
        .collect()
}

/// Seeds that are tried before the scenarios are.
const FIRST_SEEDS: u64 = 1500;

fn by_seeds(seeds: u64, threads: usize, options: &Options) -> Option<(String, u64, String)> {
    let report = run_many(0..seeds, options, threads, 1);
    let (seed, violation) = report.violations.first()?;
    Some((format!("seed {seed}"), report.seeds, violation.rule.to_owned()))
}

fn by_scenarios(options: &Options) -> Option<(String, u64, String)> {
    for seed in 0..2 {
        for scenario in scenarios::all() {
            if let Err(text) = play_with(&scenario, seed, options.clone()) {
                let first = text.lines().next().unwrap_or_default();
                let short: String = first.chars().take(60).collect();
                return Some((scenario.name.to_owned(), seed + 1, short));
            }
        }
    }
    None
}
