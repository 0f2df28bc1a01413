//! A host that follows its volume from node to node by a list of URIs: the short form of `scripts/bench --failover`. How
//! long it takes is not judged here, only that it works, and that nothing is lost.

use anyhow::{Result, ensure};
use blockmirror_tests::failover;

#[test]
fn a_host_with_a_list_of_uris_follows_switchovers_and_takeovers_and_loses_no_answered_write() -> Result<()> {
    let figures = failover::run(3, 2, 0)?;
    let counts = (figures.switchovers.len(), figures.takeovers.len());
    ensure!(counts == (3, 2) && figures.writes > 0, "{figures}");
    let text = figures.to_string();
    ensure!(
        text.contains("| takeover after kill -9: last answer to first | 2 |"),
        "{text}"
    );
    Ok(())
}

#[test]
fn a_primary_that_stands_still_is_replaced_by_force_only_and_no_answered_write_is_lost() -> Result<()> {
    let figures = failover::run(0, 0, 1)?;
    ensure!(figures.silent.len() == 1 && figures.writes > 0, "{figures}");
    let refusal = &figures.silent[0].refusal;
    ensure!(
        !refusal.is_empty(),
        "promoted without force although the Primary may still serve hosts"
    );
    Ok(())
}
