//! The short form of `scripts/chaos`: some rounds of trouble between two partners in network namespaces.

use std::time::Duration;

use anyhow::{Result, ensure};
use blockmirror_tests::chaos::{self, Strike};
use blockmirror_tests::namespaces;

/// Rounds of the short form: several kinds of strikes, and time for nothing else.
const ROUNDS: u64 = 8;
const SEED: u64 = 2;

#[test]
fn no_flushed_write_is_lost_between_partners_in_trouble() -> Result<()> {
    if !namespaces::possible("trouble between partners") {
        return Ok(());
    }
    let tally = chaos::run(ROUNDS, Duration::from_secs(240), SEED, None, |_| {})?;
    ensure!(tally.rounds == ROUNDS && tally.compared == ROUNDS, "{tally}");
    ensure!(tally.writes > 0 && tally.flushes > 0, "{tally}");
    let kinds = tally.strikes.iter().filter(|count| **count > 0).count();
    ensure!(kinds >= Strike::ALL.len() / 3, "only {kinds} kinds of strikes\n{tally}");
    Ok(())
}
