//! `mode = "async"`: answered when applied here; the peer follows, in order, within a bounded queue.

use anyhow::{Result, ensure};
use blockmirror_tests::load::{BLOCK, Load};
use blockmirror_tests::pair::{EXPORT, Pair, Setup};
use blockmirror_tests::wait::PROMPT;

const MIB: u64 = 1 << 20;

#[test]
fn writes_are_answered_while_the_link_stands_still() -> Result<()> {
    let pair = Pair::new(&Setup {
        peer: "mode = \"async\"",
        ..Setup::default()
    })?;
    pair.assert_converges()?;
    pair.relay.stall();
    let mut load = Load::new(64 * MIB / BLOCK, 16, 7);
    let mut raw = pair.primary.open(EXPORT)?;
    load.run(&mut raw, |load| load.writes >= 500)?;
    load.flush(&mut raw)?;
    let peer = pair.primary.peer(EXPORT)?;
    ensure!(
        peer.queue_bytes > 0 || peer.in_flight > 0,
        "nothing waits for a link that stands still: {peer:?}"
    );
    pair.relay.restore();
    ensure!(load.verify(&mut raw)? == 0);
    pair.assert_converges()
}

#[test]
fn a_full_queue_makes_the_peer_behind_and_resync_brings_it_back() -> Result<()> {
    let pair = Pair::new(&Setup {
        peer: "mode = \"async\"\nqueue = \"32MiB\"",
        ..Setup::default()
    })?;
    pair.assert_converges()?;
    pair.relay.stall();
    let mut raw = pair.primary.open(EXPORT)?;
    for n in 0..60_u64 {
        ensure!(
            raw.write(0, n * MIB, &vec![n as u8 + 1; 1 << 20])? == 0,
            "the application notices nothing"
        );
    }
    let peer = pair
        .primary
        .wait_peer(EXPORT, "the queue to overflow", PROMPT, |peer| peer.dirty_bytes > 0)?;
    ensure!(
        peer.queue_bytes <= 32 * MIB,
        "the queue holds {} bytes, its bound is 32 MiB",
        peer.queue_bytes
    );
    pair.relay.restore();
    pair.assert_converges()
}

#[test]
fn an_async_mirror_survives_a_cut_under_load() -> Result<()> {
    let pair = Pair::new(&Setup {
        peer: "mode = \"async\"",
        ..Setup::default()
    })?;
    pair.assert_converges()?;
    let mut load = Load::new(64 * MIB / BLOCK, 32, 8);
    let mut raw = pair.primary.open(EXPORT)?;
    for round in 1..=6 {
        load.run(&mut raw, |load| load.writes >= round * 400)?;
        if round % 2 == 1 {
            pair.relay.cut();
        } else {
            pair.relay.restore();
        }
    }
    load.flush(&mut raw)?;
    ensure!(load.verify(&mut raw)? == 0);
    pair.assert_converges()
}
