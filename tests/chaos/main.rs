//! `scripts/chaos`: rounds of trouble between two partners; see [`blockmirror_tests::chaos`].

use anyhow::{Context, Result};
use blockmirror_tests::chaos::{self, Strike};
use blockmirror_tests::rounds::Rounds;

const USAGE: &str = "usage: chaos [--rounds N] [--seconds-max N] [--seed N] [--only STRIKE] [--short]";

fn main() -> Result<()> {
    let mut only = None;
    let options = Rounds::read(USAGE, (300, 3_000), (8, 90), |argument, more| {
        if argument != "--only" {
            return Ok(false);
        }
        let name = more.next().context(USAGE)?;
        let found = Strike::ALL.into_iter().find(|strike| strike.name() == name);
        only = Some(found.with_context(|| format!("{name:?} is none of {:?}", Strike::ALL.map(Strike::name)))?);
        Ok(true)
    })?;
    options.announce("trouble between partners");
    let tally = chaos::run(options.rounds, options.limit, options.seed, only, |tally| {
        if tally.rounds % 20 == 0 {
            let (rounds, writes, split) = (tally.rounds, tally.writes, tally.split_brains);
            println!(
                "  {rounds} rounds, {writes} writes, {split} split brains, {:.0} s",
                tally.elapsed.as_secs_f64()
            );
        }
    })?;
    println!("{tally}");
    options.conclude(tally.rounds);
    Ok(())
}
