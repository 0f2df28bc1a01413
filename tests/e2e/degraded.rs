//! Links that break in the less friendly ways.

use anyhow::{Result, ensure};
use blockmirror_tests::load::{BLOCK, Load};
use blockmirror_tests::pair::{EXPORT, Pair, Setup};
use blockmirror_tests::wait::{PATIENT, PROMPT};

const MIB: u64 = 1 << 20;
/// Short, so that a test need not wait; nothing is asserted about when they strike.
const SHORT: &str = "request_timeout = \"1s\"\nfence_timeout = \"2s\"";

#[test]
fn a_half_open_link_is_given_up_and_the_volume_goes_on() -> Result<()> {
    let pair = Pair::new(&Setup {
        peer: SHORT,
        ..Setup::default()
    })?;
    pair.assert_converges()?;
    pair.relay.stall();
    let mut raw = pair.primary.open(EXPORT)?;
    ensure!(
        raw.write(0, 0, &[8; 4096])? == 0,
        "the write is answered once the peer is given up"
    );
    pair.primary.wait_lost(EXPORT)?;
    ensure!(raw.write(0, MIB, &[8; 4096])? == 0);
    // The stalled bytes are delivered, or not: either way the legs end identical.
    pair.relay.restore();
    pair.assert_converges()
}

#[test]
fn a_flapping_link_does_not_lose_a_write() -> Result<()> {
    let pair = Pair::new(&Setup {
        peer: SHORT,
        ..Setup::default()
    })?;
    pair.assert_converges()?;
    let mut load = Load::new(64 * MIB / BLOCK, 32, 6);
    let mut raw = pair.primary.open(EXPORT)?;
    for flap in 1..=12 {
        load.run(&mut raw, |load| load.writes >= flap * 200)?;
        pair.relay.cut_once();
    }
    load.flush(&mut raw)?;
    ensure!(load.verify(&mut raw)? == 0);
    pair.assert_converges()
}

#[test]
fn a_peer_that_is_absent_at_the_start_is_no_obstacle() -> Result<()> {
    let mut pair = Pair::new(&Setup {
        seeded: 4 * MIB,
        ..Setup::default()
    })?;
    pair.primary.stop()?;
    pair.kill_remote();
    pair.primary.restart()?;
    let mut raw = pair.primary.open(EXPORT)?;
    ensure!(raw.write(0, 32 * MIB, &[4; 4096])? == 0);
    let peer = pair
        .primary
        .wait_peer(EXPORT, "a failed attempt", PROMPT, |peer| peer.last_error.is_some())?;
    ensure!(peer.attempts > 0, "{peer:?}");
    pair.restart_remote()?;
    pair.primary.wait_established(EXPORT, PATIENT)?;
    pair.assert_converges()
}
