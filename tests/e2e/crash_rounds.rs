//! The short form of `scripts/crash`: kill -9 of primary, peer and both, under a verifying load.

use std::time::Duration;

use anyhow::{Result, ensure};
use blockmirror_tests::crash;

#[test]
fn no_flushed_write_is_lost_to_kill_9() -> Result<()> {
    let tally = crash::run(9, Duration::from_secs(240), 2, |_| {})?;
    ensure!(tally.rounds == 9 && tally.compared >= 2 && tally.writes > 0, "{tally}");
    Ok(())
}
