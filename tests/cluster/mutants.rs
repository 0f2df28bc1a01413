//! The mutation run: every rule of the cores, every rule of the decision, and every promise of the shell is broken, one at
//! a time. Named scenarios have to notice, or every pair of a small domain, or seeds: each of which finds nothing wrong
//! when nothing is broken.

use std::collections::BTreeSet;

use mirror_core::identity::{Rule, oracle};
use mirror_core::sabotage::Sabotage;

use crate::outcome::{Broken, Options};
use crate::scenarios;
use crate::simulate::{play, play_with, run, run_many};
use crate::stage::Scenario;

/// Seeds of every scenario.
const SCENARIO_SEEDS: u64 = 3;
/// Seeds with which a scenario must go as expected when nothing is broken, to count.
const FIT_SEEDS: u64 = 6;
/// What a unit test of the core breaks and sees: bitmaps of the simulated volumes are too small for the first, and the
/// second takes a flush that fails at the moment of a change of names.
const UNIT_TESTS: [(Sabotage, &str, &str); 2] = [
    (
        Sabotage::ResizeOrder,
        "pages_that_move_before_the_superblock_says_so_are_noticed",
        "I9: a page of before the growth is read as clean",
    ),
    (
        Sabotage::NameCoversData,
        "a_later_name_that_covers_nothing_is_noticed",
        "an image that could not be made durable counts as whole",
    ),
];
/// Letters of what was seen that a table shows.
const SHOWN: usize = 70;

/// Something to break.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// Its name.
    pub name: String,
    /// What is done when it is broken.
    pub in_words: String,
    options: Options,
}

/// Who noticed a mutant.
#[derive(Clone, Debug)]
pub struct Noticed {
    /// A scenario, a seed, or the decision over a small domain.
    pub by: String,
    /// What was seen.
    pub seen: String,
}

/// Everything there is to break.
pub fn all() -> Vec<Mutant> {
    let core = |broken: Sabotage, name: String, in_words: String| Mutant {
        name,
        in_words,
        options: Options {
            sabotage: Some(broken),
            ..Options::default()
        },
    };
    let cores = Sabotage::ALL
        .iter()
        .map(|&broken| core(broken, format!("{broken:?}"), broken.in_words().to_owned()));
    let rules = Rule::ALL.iter().map(|&rule| {
        let in_words = format!("The decision at a handshake does without the rule {}.", rule.name());
        core(Sabotage::Decision(rule), format!("Decision({rule:?})"), in_words)
    });
    let shell = Broken::ALL.iter().map(|&broken| Mutant {
        name: format!("Shell{broken:?}"),
        in_words: broken.in_words().to_owned(),
        options: Options {
            broken: Some(broken),
            ..Options::default()
        },
    });
    cores.chain(rules).chain(shell).collect()
}

/// The same options with this broken.
pub fn by_name(name: &str, options: Options) -> Option<Options> {
    let found = all().into_iter().find(|mutant| mutant.name == name)?;
    Some(Options {
        sabotage: found.options.sabotage,
        broken: found.options.broken,
        ..options
    })
}

/// Breaks things one at a time and looks who notices.
pub struct Hunt {
    /// Scenarios that go wrong with some seed though nothing is broken: they prove nothing.
    unfit: BTreeSet<&'static str>,
    /// What the decision misses of each rule over a small domain.
    left_out: Vec<(Rule, String)>,
    seeds: u64,
    threads: usize,
}

impl Hunt {
    /// So many seeds at most for what no scenario notices.
    pub fn new(seeds: u64, threads: usize) -> Self {
        let fails = |row: &Scenario| (0..FIT_SEEDS).any(|seed| play(row, seed, false).is_err());
        Self {
            unfit: scenarios::all()
                .iter()
                .filter(|row| fails(row))
                .map(|row| row.name)
                .collect(),
            left_out: oracle::left_out(),
            seeds,
            threads,
        }
    }

    /// Who notices this one.
    pub fn notice(&self, mutant: &Mutant) -> Option<Noticed> {
        self.by_scenarios(&mutant.options)
            .or_else(|| self.by_decisions(&mutant.options))
            .or_else(|| by_unit_test(&mutant.options))
            .or_else(|| self.by_seeds(&mutant.options))
    }

    fn by_scenarios(&self, options: &Options) -> Option<Noticed> {
        let scenarios = scenarios::all();
        let mut played = (0..SCENARIO_SEEDS).flat_map(|seed| scenarios.iter().map(move |row| (row, seed)));
        played.find_map(|(row, seed)| {
            let fit = !self.unfit.contains(row.name);
            let text = fit.then(|| play_with(row, seed, options.clone()).err()).flatten()?;
            Some(Noticed {
                by: format!("scenario `{}`, seed {seed}", row.name),
                seen: shown(&text),
            })
        })
    }

    fn by_decisions(&self, options: &Options) -> Option<Noticed> {
        let Some(Sabotage::Decision(rule)) = options.sabotage else {
            return None;
        };
        let (_, text) = self.left_out.iter().find(|(known, _)| *known == rule)?;
        Some(Noticed {
            by: "all pairs of a small domain".to_owned(),
            seen: shown(text),
        })
    }

    fn by_seeds(&self, options: &Options) -> Option<Noticed> {
        let mut from = 0;
        while from < self.seeds {
            let report = run_many(from..self.seeds, options, self.threads, 1);
            let (seed, violation) = report.violations.first()?;
            let whole = Options {
                nodes: options.nodes,
                ..Options::default()
            };
            if run(*seed, &whole).is_ok() {
                return Some(Noticed {
                    by: format!("seed {seed}"),
                    seen: shown(&format!("{}: {}", violation.rule, violation.text)),
                });
            }
            from = seed + 1;
        }
        None
    }
}

fn by_unit_test(options: &Options) -> Option<Noticed> {
    let named = UNIT_TESTS.iter().find(|(broken, ..)| options.sabotage == Some(*broken));
    named.map(|(_, test, seen)| Noticed {
        by: format!("unit test `{test}`"),
        seen: (*seen).to_owned(),
    })
}

/// The beginning of what was seen, fit for a cell of a table.
fn shown(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().replace('|', "/");
    if line.chars().count() <= SHOWN {
        return line;
    }
    line.chars().take(SHOWN).chain("...".chars()).collect()
}
