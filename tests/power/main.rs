//! `scripts/power`: rounds of power cuts of both partners, with a tally; see [`blockmirror_tests::power`].

use anyhow::Result;
use blockmirror_tests::power::{self, Disks};
use blockmirror_tests::rounds::Rounds;

const USAGE: &str = "usage: power [--rounds N] [--seconds-max N] [--seed N] [--short]";

fn main() -> Result<()> {
    let options = Rounds::read(USAGE, (100, 900), (5, 60), |_, _| Ok(false))?;
    options.announce("power cuts of both nodes");
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
    options.conclude(tally.rounds);
    Ok(())
}
