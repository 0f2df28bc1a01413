//! `scripts/chaos`: rounds of trouble between two partners; see [`blockmirror_tests::chaos`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use blockmirror_tests::chaos::{self, Strike};

const USAGE: &str = "usage: chaos [--rounds N] [--seconds-max N] [--seed N] [--only STRIKE] [--short]";

struct Options {
    rounds: u64,
    limit: Duration,
    seed: u64,
    only: Option<Strike>,
}

fn main() -> Result<()> {
    let options = options(std::env::args().skip(1))?;
    let (rounds, seconds, seed) = (options.rounds, options.limit.as_secs(), options.seed);
    println!("trouble between partners: up to {rounds} rounds, {seconds} s, seed {seed}");
    let tally = chaos::run(rounds, options.limit, seed, options.only, |tally| {
        if tally.rounds % 20 == 0 {
            let (rounds, writes, split) = (tally.rounds, tally.writes, tally.split_brains);
            println!(
                "  {rounds} rounds, {writes} writes, {split} split brains, {:.0} s",
                tally.elapsed.as_secs_f64()
            );
        }
    })?;
    println!("{tally}");
    if tally.rounds < rounds {
        println!("(stopped by its time limit before {rounds} rounds)");
    }
    Ok(())
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let mut options = Options {
        rounds: 300,
        limit: Duration::from_secs(3_000),
        seed: now,
        only: None,
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().context(USAGE);
        match argument.as_str() {
            "--rounds" => options.rounds = value()?.parse()?,
            "--seconds-max" => options.limit = Duration::from_secs(value()?.parse()?),
            "--seed" => options.seed = value()?.parse()?,
            "--only" => {
                let name = value()?;
                let found = Strike::ALL.into_iter().find(|strike| strike.name() == name);
                options.only =
                    Some(found.with_context(|| format!("{name:?} is none of {:?}", Strike::ALL.map(Strike::name)))?);
            }
            "--short" => (options.rounds, options.limit) = (8, Duration::from_secs(90)),
            "--help" => {
                println!("{USAGE}");
                std::process::exit(0);
            }
            other => bail!("unknown argument {other:?}; {USAGE}"),
        }
    }
    Ok(options)
}
