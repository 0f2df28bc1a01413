//! `scripts/hostile`: hostile and broken clients beside one that behaves; see [`blockmirror_tests::hostile`].

use std::time::Duration;

use anyhow::{Context, Result};
use blockmirror_tests::hostile::{self, Attack, Measure, Outcome};
use blockmirror_tests::rounds::Rounds;

const USAGE: &str = "usage: hostile [--rounds N] [--only ATTACK] [--short]";

fn main() -> Result<()> {
    let mut attacks = Attack::ALL.to_vec();
    let options = Rounds::read(USAGE, (7, 0), (2, 0), |argument, more| {
        if argument != "--only" {
            return Ok(false);
        }
        let name = more.next().context(USAGE)?;
        attacks.retain(|attack| attack.name() == name);
        anyhow::ensure!(
            !attacks.is_empty(),
            "{name:?} is none of {:?}",
            Attack::ALL.map(Attack::name)
        );
        Ok(true)
    })?;
    let measure = Measure {
        rounds: options.rounds,
        period: Duration::from_secs(3),
        one_after_another: 10_000,
        at_once: 1_000,
    };
    println!(
        "{} rounds of quiet and attack; memory bound {} MiB",
        measure.rounds,
        hostile::memory_bound() >> 20
    );
    println!("{}", Outcome::head());
    hostile::run(&attacks, &measure, |outcome| println!("{outcome}"))?;
    Ok(())
}
