//! The short form of `scripts/power`: power cuts of both partners right after an acknowledged flush.

use std::time::Duration;

use anyhow::{Result, ensure};
use blockmirror_tests::power::{self, Disks};

/// Rounds of the short form.
const ROUNDS: u64 = 5;
/// Rounds within which a lie has to be noticed.
const LIES: u64 = 10;
const LIMIT: Duration = Duration::from_secs(200);
const SEED: u64 = 3;

#[test]
fn no_flushed_write_is_lost_on_either_side_to_a_power_cut_of_both() -> Result<()> {
    let tally = power::run(ROUNDS, LIMIT, SEED, Disks::Honest, |_| {})?;
    ensure!(tally.rounds == ROUNDS && tally.compared == ROUNDS, "{tally}");
    ensure!(
        tally.writes > 0 && tally.flushes > 0 && tally.after_flush > 0,
        "{tally}"
    );
    // A cut that takes nothing would prove nothing.
    ensure!(tally.taken.iter().all(|blocks| *blocks > 0), "{tally}");
    Ok(())
}

#[test]
fn a_write_that_disks_lost_although_they_were_asked_to_keep_it_is_noticed() -> Result<()> {
    match power::run(LIES, LIMIT, SEED, Disks::Lying, |_| {}) {
        Ok(tally) => anyhow::bail!("nobody noticed\n{tally}"),
        Err(error) => {
            let text = format!("{error:#}");
            ensure!(
                text.contains("was acknowledged and flushed"),
                "noticed for another reason: {text}"
            );
            Ok(())
        }
    }
}
