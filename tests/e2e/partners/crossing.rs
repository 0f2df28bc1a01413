//! Two nodes that dial each other at the same moment.

use anyhow::{Result, ensure};
use blockmirror_tests::wait::PATIENT;

use super::{VOLUME, expect, fill, partners};

/// A daemon that starts finds its peer's connection waiting, and dials itself. A second handshake would cut the first one
/// off in the middle, with a resync that has begun.
#[test]
fn a_node_that_is_started_again_has_one_handshake() -> Result<()> {
    let mut partners = partners()?;
    fill(&mut partners.open(0, VOLUME)?, 0, 100, 1)?;
    for side in [0, 1, 0, 1, 0, 1] {
        let streams = |log: String| log.matches("stream to the peer resource").count();
        let before = streams(partners.nodes[0].log());
        partners.nodes[side].restart()?;
        partners.wait_connected(PATIENT)?;
        partners.wait_in_step(0, PATIENT)?;
        let handshakes = streams(partners.nodes[0].log()) - before;
        ensure!(
            handshakes == 1,
            "{handshakes} after a restart of node {side}:\n{}",
            partners.nodes[0].log()
        );
    }
    expect(&mut partners.open(0, VOLUME)?, 0, 100, 1)?;
    partners.assert_identical()
}
