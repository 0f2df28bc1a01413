//! A write of a dead connection must never land after a newer acknowledged write.

use anyhow::{Result, ensure};
use blockmirror_tests::compare;
use blockmirror_tests::pair::{EXPORT, Pair, Setup};
use blockmirror_tests::wait::PATIENT;

const OLD: u8 = 0x11;
const NEW: u8 = 0x22;

#[test]
fn a_write_of_a_dead_host_connection_never_lands_late() -> Result<()> {
    let pair = Pair::new(&Setup::default())?;
    pair.primary.wait_established(EXPORT, PATIENT)?;
    let mut second = pair.primary.open(EXPORT)?;
    for round in 0..300_u64 {
        let offset = (round % 16) << 21;
        let mut first = pair.primary.open(EXPORT)?;
        first.send_write(0, offset, &vec![OLD; 1 << 20])?;
        drop(first);
        ensure!(second.write(0, offset, &vec![NEW; 1 << 20])? == 0);
        ensure!(
            second.read(offset, 1 << 20)? == vec![NEW; 1 << 20],
            "round {round}: the old write came back"
        );
    }
    for slot in 0..16_u64 {
        ensure!(
            second.read(slot << 21, 1 << 20)? == vec![NEW; 1 << 20],
            "slot {slot}: the old write came back"
        );
    }
    compare::assert_identical(&pair.image, &pair.remote_image)
}

#[test]
fn a_write_of_a_dead_peer_connection_never_lands_late() -> Result<()> {
    let pair = Pair::new(&Setup {
        peer: "request_timeout = \"1s\"\nfence_timeout = \"30s\"",
        ..Setup::default()
    })?;
    pair.assert_converges()?;
    let mut raw = pair.primary.open(EXPORT)?;
    for round in 0..4_u64 {
        // The old write is on the link, on its way, when the peer is given up; then the link moves again.
        pair.relay.stall();
        ensure!(raw.write(0, round << 20, &vec![OLD; 1 << 20])? == 0);
        ensure!(raw.write(0, round << 20, &vec![NEW; 1 << 20])? == 0);
        pair.relay.restore();
        pair.assert_converges()?;
        ensure!(raw.read(round << 20, 1 << 20)? == vec![NEW; 1 << 20]);
    }
    Ok(())
}
