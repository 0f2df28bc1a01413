//! `scripts/power`: rounds of power cuts of both partners, with a tally; see [`blockmirror_tests::power`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use blockmirror_tests::power::{self, Disks};

const USAGE: &str = "usage: power [--rounds N] [--seconds-max N] [--seed N] [--short]";

struct Options {
    rounds: u64,
    limit: Duration,
    seed: u64,
}

fn main() -> Result<()> {
    let options = options(std::env::args().skip(1))?;
    println!(
        "power cuts of both nodes: up to {} rounds, {} s, seed {}",
        options.rounds,
        options.limit.as_secs(),
        options.seed
    );
    let tally = power::run(options.rounds, options.limit, options.seed, Disks::Honest, |tally| {
        if tally.rounds % 20 == 0 {
            println!(
                "  {} rounds, {} writes, {:.0} s",
                tally.rounds,
                tally.writes,
                tally.elapsed.as_secs_f64()
            );
        }
    })?;
    println!("{tally}");
    if tally.rounds < options.rounds {
        println!("(stopped by its time limit before {} rounds)", options.rounds);
    }
    Ok(())
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let mut options = Options {
        rounds: 100,
        limit: Duration::from_secs(900),
        seed: now,
    };
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<u64> { Ok(arguments.next().context(USAGE)?.parse()?) };
        match argument.as_str() {
            "--rounds" => options.rounds = number()?,
            "--seconds-max" => options.limit = Duration::from_secs(number()?),
            "--seed" => options.seed = number()?,
            "--short" => (options.rounds, options.limit) = (5, Duration::from_secs(60)),
            "--help" => {
                println!("{USAGE}");
                std::process::exit(0);
            }
            other => bail!("unknown argument {other:?}; {USAGE}"),
        }
    }
    Ok(options)
}
