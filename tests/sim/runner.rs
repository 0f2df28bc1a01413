//! Runs the simulator outside of the test harness: millions of seeds, or one with a trace.

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

use std::process::ExitCode;
use std::time::Instant;

use mirror_core::sabotage::Sabotage;

use crate::outcome::{Options, Tally};
use crate::simulate::{run, run_many};

const HELP: &str = "\
Simulates the mirror core under faults, one seed at a time.

sim [--seeds N] [--from N] [--threads N] [--failures N] [--sabotage I1..I5] [--no-fence] [--no-sync]
sim --seed N [--trace] [--sabotage I1..I5] [--no-fence] [--no-sync]

  --seeds N      how many seeds (default 100000)
  --from N       the first of them (default 0)
  --threads N    threads (default: one per core)
  --failures N   stop after so many failing seeds (default 5)
  --seed N       run this seed only
  --trace        print every input and output of the mirror
  --sabotage I   break this invariant in the core: it should be noticed
  --no-fence     break the shell's promise about requests of old connections: it should be noticed
  --no-sync      break the shell's promise to sync the image before it starts: it should be noticed

Exit code: 0 every promise was kept, 1 some seed failed, 2 wrong usage.";

/// Seeds between two lines of progress.
const PROGRESS_SEEDS: u64 = 2_000;

#[derive(Debug)]
struct Arguments {
    seed: Option<u64>,
    from: u64,
    seeds: u64,
    threads: usize,
    failures: usize,
    options: Options,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => {
            // A failing assertion is reported with its seed; the default message would only repeat it.
            std::panic::set_hook(Box::new(|_| {}));
            match arguments.seed {
                Some(seed) => one(seed, arguments.options),
                None => many(&arguments),
            }
        }
        Ok(None) => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("sim: {problem}; `sim --help` shows the usage");
            ExitCode::from(2)
        }
    }
}

fn one(seed: u64, options: Options) -> ExitCode {
    match run(seed, options) {
        Ok(run) => {
            println!(
                "seed {seed}: every promise was kept in {} steps, {:?}",
                run.steps, run.digest
            );
            print_tally(&run.tally);
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("seed {seed}: {violation}");
            ExitCode::FAILURE
        }
    }
}

fn many(arguments: &Arguments) -> ExitCode {
    let started = Instant::now();
    let (mut done, mut tally, mut steps, mut failed) = (0, Tally::default(), 0, 0);
    while done < arguments.seeds && failed < arguments.failures {
        let from = arguments.from + done;
        let count = PROGRESS_SEEDS.min(arguments.seeds - done);
        let report = run_many(
            from..from + count,
            arguments.options,
            arguments.threads,
            arguments.failures - failed,
        );
        for (seed, violation) in &report.violations {
            println!("seed {seed}: {violation}");
        }
        failed += report.violations.len();
        tally.add(&report.tally);
        steps += report.steps;
        done += count;
        let rate = done as f64 / started.elapsed().as_secs_f64();
        println!("{done} seeds, {steps} steps, {failed} failed, {rate:.0} seeds/s");
    }
    print_tally(&tally);
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn print_tally(tally: &Tally) {
    let counts: Vec<String> = tally
        .fields()
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    println!("{}", counts.join(", "));
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let options = Options::default();
    let mut arguments = Arguments {
        seed: None,
        from: 0,
        seeds: 100_000,
        threads,
        failures: 5,
        options,
    };
    while let Some(word) = words.next() {
        let mut number = || -> Result<u64, String> {
            let value = words.next().ok_or(format!("{word} needs a number"))?;
            value
                .parse()
                .map_err(|_| format!("{word} needs a number, not {value:?}"))
        };
        match word.as_str() {
            "--help" => return Ok(None),
            "--seed" => arguments.seed = Some(number()?),
            "--from" => arguments.from = number()?,
            "--seeds" => arguments.seeds = number()?,
            "--threads" => arguments.threads = number()?.max(1) as usize,
            "--failures" => arguments.failures = number()?.max(1) as usize,
            "--trace" => arguments.options.trace = true,
            "--no-fence" => arguments.options.fence = false,
            "--no-sync" => arguments.options.sync_at_start = false,
            "--sabotage" => {
                let name = words.next().unwrap_or_default();
                let all = [Sabotage::I1, Sabotage::I2, Sabotage::I3, Sabotage::I4, Sabotage::I5];
                let found = all.into_iter().find(|invariant| format!("{invariant:?}") == name);
                arguments.options.sabotage = Some(found.ok_or(format!("no invariant {name:?} to break"))?);
            }
            _ => return Err(format!("unknown argument {word:?}")),
        }
    }
    Ok(Some(arguments))
}
