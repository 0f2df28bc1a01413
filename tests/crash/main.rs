//! `scripts/crash`: rounds of kill -9, with a tally; see [`blockmirror_tests::crash`].

use anyhow::Result;
use blockmirror_tests::crash;
use blockmirror_tests::rounds::Rounds;

const USAGE: &str = "usage: crash [--rounds N] [--seconds-max N] [--seed N] [--short]";

fn main() -> Result<()> {
    let options = Rounds::read(USAGE, (200, 900), (12, 60), |_, _| Ok(false))?;
    options.announce("kill -9");
    let tally = crash::run(options.rounds, options.limit, options.seed, |tally| {
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
