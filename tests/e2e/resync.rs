//! After a cut only what changed is copied, and the legs end identical.

use std::time::Duration;

use anyhow::{Result, ensure};
use blockmirror_client::admin::ReplicationState;
use blockmirror_tests::config::{NodeConfig, Peer, Resource, unix_uri};
use blockmirror_tests::load::{BLOCK, Load};
use blockmirror_tests::node::Node;
use blockmirror_tests::pair::{EXPORT, Pair, Setup};
use blockmirror_tests::wait::{self, PATIENT, PROMPT};

const MIB: u64 = 1 << 20;

#[test]
fn a_cut_costs_only_what_was_written_meanwhile() -> Result<()> {
    let pair = Pair::new(&Setup {
        seeded: 32 * MIB,
        ..Setup::default()
    })?;
    pair.assert_converges()?;
    pair.relay.cut();
    pair.primary.wait_lost(EXPORT)?;
    let mut raw = pair.primary.open(EXPORT)?;
    for n in 0..100_u64 {
        ensure!(raw.write(0, n * 64 * BLOCK, &vec![n as u8 + 1; BLOCK as usize])? == 0);
    }
    raw.flush()?;
    ensure!(pair.primary.peer(EXPORT)?.dirty_bytes == 100 * BLOCK);
    pair.relay.restore();
    pair.assert_converges()?;
    let resync = pair.primary.last_resync(EXPORT)?;
    ensure!(resync.dirty_at_start_bytes == 100 * BLOCK, "{resync:?}");
    ensure!(resync.copied_bytes == 100 * BLOCK, "{resync:?}");
    Ok(())
}

#[test]
fn the_first_resync_skips_holes() -> Result<()> {
    let pair = Pair::new(&Setup {
        size: 1 << 30,
        seeded: 8 * MIB,
        ..Setup::default()
    })?;
    pair.assert_converges()?;
    let resync = pair.primary.last_resync(EXPORT)?;
    ensure!(
        resync.copied_bytes <= 9 * MIB,
        "8 MiB of 1 GiB are allocated: {resync:?}"
    );
    ensure!(
        pair.relay.forwarded() < 12 * MIB,
        "{} bytes crossed the link",
        pair.relay.forwarded()
    );
    Ok(())
}

#[test]
fn images_known_equal_are_not_copied() -> Result<()> {
    let pair = Pair::new(&Setup {
        peer: "skip_initial_sync = true",
        ..Setup::default()
    })?;
    pair.assert_converges()?;
    let peer = pair.primary.peer(EXPORT)?;
    ensure!(
        peer.last_resync.is_none_or(|resync| resync.dirty_at_start_bytes == 0),
        "{peer:?}"
    );
    ensure!(
        pair.relay.forwarded() < 64 << 10,
        "{} bytes crossed the link",
        pair.relay.forwarded()
    );
    Ok(())
}

#[test]
fn an_interrupted_resync_goes_on_where_it_stopped() -> Result<()> {
    let pair = Pair::new(&Setup {
        seeded: 48 * MIB,
        ..Setup::default()
    })?;
    pair.relay.throttle(24 << 20);
    for _ in 0..3 {
        let at_start = pair.primary.peer(EXPORT)?.dirty_bytes;
        pair.primary.wait_peer(EXPORT, "some of the resync", PATIENT, |peer| {
            peer.dirty_bytes + 4 * MIB < at_start || peer.replication_state == ReplicationState::Established
        })?;
        pair.relay.cut();
        pair.primary.wait_lost(EXPORT)?;
        pair.relay.restore();
        pair.relay.throttle(24 << 20);
    }
    pair.relay.restore();
    pair.assert_converges()?;
    // Three interruptions lose at most the window in flight each; starting over would ship far more.
    let crossed = pair.relay.forwarded();
    ensure!(
        crossed < 48 * MIB + 3 * 12 * MIB,
        "{crossed} bytes crossed the link for 48 MiB"
    );
    Ok(())
}

#[test]
fn application_writes_go_on_during_resync() -> Result<()> {
    let pair = Pair::new(&Setup {
        seeded: 48 * MIB,
        ..Setup::default()
    })?;
    // The first image is not the load's: begin on zeroes.
    let mut raw = pair.primary.open(EXPORT)?;
    ensure!(raw.call(0, blockmirror_tests::raw::command::WRITE_ZEROES, 0, 64 << 20)? == 0);
    let mut load = Load::new(64 * MIB / BLOCK, 16, 4);
    for round in 0..3 {
        pair.relay.cut();
        load.run(&mut raw, |load| load.writes >= 1200 * (2 * round + 1))?;
        pair.relay.restore();
        load.run(&mut raw, |load| load.writes >= 1200 * (2 * round + 2))?;
    }
    load.flush(&mut raw)?;
    ensure!(load.verify(&mut raw)? == 0);
    pair.assert_converges()
}

#[test]
fn a_clean_restart_of_the_primary_needs_no_resync() -> Result<()> {
    let mut pair = Pair::new(&Setup {
        seeded: 8 * MIB,
        ..Setup::default()
    })?;
    pair.assert_converges()?;
    let mut raw = pair.primary.open(EXPORT)?;
    ensure!(raw.write(0, 0, &vec![3; 1 << 20])? == 0);
    drop(raw);
    pair.primary.stop()?;
    let forwarded = pair.relay.forwarded();
    pair.primary.restart()?;
    pair.assert_converges()?;
    let shipped = pair.relay.forwarded() - forwarded;
    ensure!(
        shipped < 64 << 10,
        "{shipped} bytes crossed the link after a clean restart"
    );
    Ok(())
}

#[test]
fn dirty_blocks_survive_a_clean_restart() -> Result<()> {
    let mut pair = Pair::new(&Setup {
        seeded: 8 * MIB,
        ..Setup::default()
    })?;
    pair.assert_converges()?;
    pair.relay.cut();
    pair.primary.wait_lost(EXPORT)?;
    let mut raw = pair.primary.open(EXPORT)?;
    ensure!(raw.write(0, 33 * MIB, &vec![5; 2 << 20])? == 0);
    drop(raw);
    pair.primary.stop()?;
    pair.primary.restart()?;
    ensure!(
        pair.primary.peer(EXPORT)?.dirty_bytes == 2 * MIB,
        "{:?}",
        pair.primary.peer(EXPORT)?
    );
    pair.relay.restore();
    pair.assert_converges()?;
    ensure!(pair.primary.last_resync(EXPORT)?.copied_bytes == 2 * MIB);
    Ok(())
}

#[test]
fn a_killed_peer_is_resynchronised() -> Result<()> {
    let mut pair = Pair::new(&Setup::default())?;
    pair.assert_converges()?;
    let mut load = Load::new(64 * MIB / BLOCK, 16, 5);
    let mut raw = pair.primary.open(EXPORT)?;
    let mut killed = false;
    load.run(&mut raw, |load| {
        if load.writes >= 500 && !killed {
            pair.kill_remote();
            killed = true;
        }
        load.writes >= 1500
    })?;
    pair.restart_remote()?;
    load.run(&mut raw, |load| load.writes >= 2000)?;
    load.flush(&mut raw)?;
    ensure!(load.verify(&mut raw)? == 0);
    pair.assert_converges()
}

#[test]
fn a_peer_that_does_not_fit_is_named_and_left_alone() -> Result<()> {
    let scratch = blockmirror_tests::scratch::Scratch::new()?;
    let small = Node::start(
        scratch.path(),
        &NodeConfig::new(
            "bravo",
            vec![Resource::plain(EXPORT, &scratch.join("small.img"), 16 * MIB)],
        ),
    )?;
    let peer = Peer::new("bravo", &unix_uri(&small.socket(), EXPORT));
    let config = NodeConfig::new(
        "alpha",
        vec![Resource::mirrored(EXPORT, &scratch.join("a.img"), 64 * MIB, vec![peer])],
    );
    let primary = Node::start(scratch.path(), &config)?;
    let peer = primary.wait_peer(EXPORT, "the misfit to be named", PROMPT, |peer| {
        peer.last_error
            .as_ref()
            .is_some_and(|error| error.contains("size") || error.contains("bytes"))
    })?;
    ensure!(peer.replication_state == ReplicationState::Off, "{peer:?}");
    let mut raw = primary.open(EXPORT)?;
    ensure!(raw.write(0, 48 * MIB, &[1; 4096])? == 0, "the volume goes on alone");
    Ok(())
}

#[test]
fn progress_is_reported_while_a_resync_runs() -> Result<()> {
    let pair = Pair::new(&Setup {
        seeded: 48 * MIB,
        ..Setup::default()
    })?;
    pair.relay.throttle(16 << 20);
    let mut seen = Vec::new();
    wait::until("the resync to end", Duration::from_secs(60), || {
        let peer = pair.primary.peer(EXPORT).ok()?;
        if let Some(resync) = peer.resync {
            seen.push(resync);
        }
        (peer.replication_state == ReplicationState::Established).then_some(())
    })?;
    ensure!(seen.len() >= 3, "progress was seen {} times", seen.len());
    ensure!(
        seen.windows(2).all(|pair| pair[0].done_bytes <= pair[1].done_bytes),
        "progress went backwards"
    );
    ensure!(
        seen.iter().any(|resync| resync.eta_seconds.is_some()),
        "no ETA was ever given"
    );
    Ok(())
}
