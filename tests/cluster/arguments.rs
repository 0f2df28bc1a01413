//! The command line: millions of seeds, one with a trace, named scenarios, or the mutation run.

use std::process::ExitCode;
use std::time::Instant;

use mirror_core::sabotage::Sabotage;

use crate::mutants::{self, Hunt, Noticed, by_name};
use crate::outcome::{Options, Tally};
use crate::scenarios;
use crate::shrink::shrink;
use crate::simulate::{play_with, run, run_many};
use crate::truth::NODES_MAX;

const HELP: &str = "\
Simulates whole clusters under faults, one seed at a time.

cluster [--seeds N] [--from N] [--jobs N] [--nodes N] [--failures N] [--sabotage NAME]
cluster --seed N [--trace | --shrink] [--sabotage NAME]
cluster --scenarios [NAME] [--seeds N] [--trace] [--sabotage NAME]
cluster --mutants [NAME] [--seeds N] [--jobs N]

  --seeds N       how many seeds (default 100000; of each scenario 3, of each mutant 20000)
  --from N        the first of them (default 0): ranges can be run one after the other, on any machine
  --jobs N        threads (default: one per core)
  --nodes N       clusters of 2, 3 or 4 nodes (default: the seed decides)
  --failures N    stop after so many failing seeds (default 5)
  --seed N        run this seed only
  --trace         print everything that happens
  --shrink        leave out faults and requests that do not matter, then print everything that happens
  --sabotage NAME break this rule in the cores, or this promise of the shell (Shell...): it should be noticed
  --scenarios     play the named scenarios, or those whose name contains NAME
  --mutants       break every rule, one at a time, or those whose name contains NAME: a table of who noticed.
                  Scenarios are played first, then decisions are held against all pairs of a small domain, then seeds

Exit code: 0 every promise was kept (or every mutant noticed), 1 not so, 2 wrong usage.";

/// Seeds between two lines of progress.
const PROGRESS_SEEDS: u64 = 500;

#[derive(Debug, PartialEq)]
enum What {
    Seeds,
    One(u64),
    Scenarios(String),
    Mutants(String),
}

#[derive(Debug)]
struct Arguments {
    what: What,
    from: u64,
    seeds: Option<u64>,
    threads: usize,
    failures: usize,
    shrink: bool,
    options: Options,
}

/// Everything the command does.
pub fn main(words: impl Iterator<Item = String>) -> ExitCode {
    let arguments = match parse(words) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("cluster: {problem}; `cluster --help` shows the usage");
            return ExitCode::from(2);
        }
    };
    let fine = match &arguments.what {
        What::Seeds => many(&arguments),
        What::One(seed) if arguments.shrink => smaller(*seed, &arguments.options),
        What::One(seed) => one(*seed, &arguments.options),
        What::Scenarios(name) => act(&arguments, name),
        What::Mutants(name) => break_all(&arguments, name),
    };
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(seed: u64, options: &Options) -> bool {
    match run(seed, options) {
        Ok(run) => {
            println!(
                "seed {seed}: every promise was kept in {} steps, {:?}",
                run.steps, run.digest
            );
            print_tally(&run.tally);
            true
        }
        Err(violation) => {
            println!("seed {seed}: {violation}");
            false
        }
    }
}

fn smaller(seed: u64, options: &Options) -> bool {
    let Some(shrunk) = shrink(seed, options) else {
        return one(seed, options);
    };
    let mut traced = shrunk.options.clone();
    traced.trace = true;
    let _ = run(seed, &traced);
    println!("seed {seed}, after {} runs: {}", shrunk.runs, shrunk.violation);
    println!("at most {:?} requests, and these faults:", shrunk.options.requests_max);
    shrunk.faults.iter().for_each(|fault| println!("  {fault}"));
    false
}

fn many(arguments: &Arguments) -> bool {
    let started = Instant::now();
    let seeds = arguments.seeds.unwrap_or(100_000);
    let (mut done, mut tally, mut steps, mut failed) = (0, Tally::default(), 0, 0);
    while done < seeds && failed < arguments.failures {
        let from = arguments.from + done;
        let count = PROGRESS_SEEDS.min(seeds - done);
        let left = arguments.failures - failed;
        let report = run_many(from..from + count, &arguments.options, arguments.threads, left);
        for (seed, violation) in &report.violations {
            println!("seed {seed}: {violation}");
        }
        failed += report.violations.len();
        tally.add(&report.tally);
        steps += report.steps;
        done += report.seeds;
        let rate = done as f64 / started.elapsed().as_secs_f64();
        println!(
            "{done} seeds from {}, {steps} steps, {failed} failed, {rate:.0} seeds/s",
            arguments.from
        );
    }
    print_tally(&tally);
    failed == 0
}

fn act(arguments: &Arguments, name: &str) -> bool {
    let mut fine = true;
    for scenario in scenarios::all() {
        if !scenario.name.contains(name) {
            continue;
        }
        for seed in arguments.from..arguments.from + arguments.seeds.unwrap_or(3) {
            let outcome = play_with(&scenario, seed, arguments.options.clone());
            match &outcome {
                Ok(()) => println!("{} {seed}: as expected", scenario.name),
                Err(text) => println!("{} {seed}: {text}", scenario.name),
            }
            fine &= outcome.is_ok();
        }
    }
    fine
}

fn break_all(arguments: &Arguments, name: &str) -> bool {
    let seeds = arguments.seeds.unwrap_or(20_000);
    let hunt = Hunt::new(seeds, arguments.threads);
    let (mut count, mut noticed) = (0, 0);
    println!("| broken | what is done then | noticed by | as |\n|---|---|---|---|");
    for mutant in mutants::all().iter().filter(|mutant| mutant.name.contains(name)) {
        let (by, seen) = match hunt.notice(mutant) {
            Some(Noticed { by, seen }) => {
                noticed += 1;
                (by, seen)
            }
            None => (format!("NOBODY, in {seeds} seeds"), String::new()),
        };
        count += 1;
        println!("| {} | {} | {by} | {seen} |", mutant.name, mutant.in_words);
    }
    println!("\n{noticed} of {count} noticed");
    noticed == count
}

fn print_tally(tally: &Tally) {
    let fields = tally.fields();
    let counts: Vec<String> = fields.iter().map(|(name, count)| format!("{name} {count}")).collect();
    println!("{}", counts.join(", "));
}

fn parse(words: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut arguments = Arguments {
        what: What::Seeds,
        from: 0,
        seeds: None,
        threads,
        failures: 5,
        shrink: false,
        options: Options::default(),
    };
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--help" => return Ok(None),
            "--trace" => arguments.options.trace = true,
            "--shrink" => arguments.shrink = true,
            "--scenarios" => arguments.what = What::Scenarios(words.next_if(is_name).unwrap_or_default()),
            "--mutants" => arguments.what = What::Mutants(words.next_if(is_name).unwrap_or_default()),
            "--sabotage" => {
                let name = words.next().unwrap_or_default();
                arguments.options = by_name(&name, arguments.options).ok_or_else(|| unknown(&name))?;
            }
            _ => {
                let value = words
                    .next()
                    .ok_or(format!("unknown argument {word:?}, or its number is missing"))?;
                let number: u64 = value
                    .parse()
                    .map_err(|_| format!("{word} needs a number, not {value:?}"))?;
                match word.as_str() {
                    "--seed" => arguments.what = What::One(number),
                    "--from" => arguments.from = number,
                    "--seeds" => arguments.seeds = Some(number),
                    "--jobs" => arguments.threads = number.max(1) as usize,
                    "--nodes" if (2..=NODES_MAX as u64).contains(&number) => {
                        arguments.options.nodes = Some(number as usize);
                    }
                    "--failures" => arguments.failures = number.max(1) as usize,
                    _ => return Err(format!("unknown argument {word:?}")),
                }
            }
        }
    }
    Ok(Some(arguments))
}

#[allow(clippy::ptr_arg, reason = "the signature of next_if")]
fn is_name(word: &String) -> bool {
    !word.starts_with("--")
}

fn unknown(name: &str) -> String {
    let all: Vec<String> = Sabotage::ALL.iter().map(|rule| format!("{rule:?}")).collect();
    format!(
        "no rule {name:?} to break; there are {}, and Decision(..)",
        all.join(", ")
    )
}
