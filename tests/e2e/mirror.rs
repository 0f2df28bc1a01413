//! A synchronous mirror in good times: what is answered is on both legs.

use anyhow::{Result, ensure};
use blockmirror_client::admin::PeerCommand;
use blockmirror_tests::compare;
use blockmirror_tests::load::{BLOCK, Load};
use blockmirror_tests::pair::{EXPORT, Pair, Setup, allocated_bytes};
use blockmirror_tests::raw::command;
use blockmirror_tests::wait::PATIENT;

const MIB: u64 = 1 << 20;

#[test]
fn an_answered_write_is_on_both_legs() -> Result<()> {
    let pair = Pair::new(&Setup::default())?;
    pair.primary.wait_established(EXPORT, PATIENT)?;
    let mut raw = pair.primary.open(EXPORT)?;
    for n in 0..64_u64 {
        ensure!(raw.write(0, n * 300_007, &vec![n as u8 + 1; 4097])? == 0);
    }
    // Not even a flush is needed: the page caches of both legs have it.
    compare::assert_identical(&pair.image, &pair.remote_image)
}

#[test]
fn a_verifying_load_leaves_identical_legs() -> Result<()> {
    let pair = Pair::new(&Setup::default())?;
    pair.primary.wait_established(EXPORT, PATIENT)?;
    let mut load = Load::new(64 * MIB / BLOCK, 32, 1);
    let mut raw = pair.primary.open(EXPORT)?;
    load.run(&mut raw, |load| load.writes >= 4000)?;
    load.flush(&mut raw)?;
    ensure!(load.verify(&mut raw)? == 0);
    compare::assert_identical(&pair.image, &pair.remote_image)
}

#[test]
fn trim_and_zeroes_are_replicated_as_such() -> Result<()> {
    let pair = Pair::new(&Setup {
        seeded: 32 * MIB,
        ..Setup::default()
    })?;
    pair.assert_converges()?;
    let before = allocated_bytes(&pair.remote_image)?;
    let forwarded = pair.relay.forwarded();
    let mut raw = pair.primary.open(EXPORT)?;
    ensure!(raw.call(0, command::TRIM, 0, 8 << 20)? == 0);
    ensure!(raw.call(0, command::WRITE_ZEROES, 8 * MIB, 8 << 20)? == 0);
    ensure!(raw.call(0, command::WRITE_ZEROES, 16 * MIB + 100, 5000)? == 0);
    ensure!(raw.call(command::NO_HOLE, command::WRITE_ZEROES, 20 * MIB, 1 << 20)? == 0);
    ensure!(raw.read(0, 4096)? == vec![0; 4096], "a trimmed range reads as zeroes");
    raw.flush()?;
    compare::assert_identical(&pair.image, &pair.remote_image)?;
    let freed = before - allocated_bytes(&pair.remote_image)?;
    ensure!(freed >= 15 * MIB, "the peer freed {freed} bytes of 16 MiB");
    let shipped = pair.relay.forwarded() - forwarded;
    ensure!(shipped < MIB, "{shipped} bytes crossed the link to zero 17 MiB");
    Ok(())
}

#[test]
fn a_slow_link_changes_nothing_but_the_speed() -> Result<()> {
    let pair = Pair::new(&Setup::default())?;
    pair.primary.wait_established(EXPORT, PATIENT)?;
    pair.relay.delay(std::time::Duration::from_millis(3));
    let mut load = Load::new(64 * MIB / BLOCK, 64, 2);
    let mut raw = pair.primary.open(EXPORT)?;
    load.run(&mut raw, |load| load.writes >= 800)?;
    load.flush(&mut raw)?;
    ensure!(load.verify(&mut raw)? == 0);
    compare::assert_identical(&pair.image, &pair.remote_image)
}

#[test]
fn two_connections_of_a_host_see_one_order() -> Result<()> {
    let pair = Pair::new(&Setup::default())?;
    pair.primary.wait_established(EXPORT, PATIENT)?;
    let (mut a, mut b) = (pair.primary.open(EXPORT)?, pair.primary.open(EXPORT)?);
    for round in 0..200_u64 {
        let offset = (round % 8) * 6000;
        let cookies = (
            a.send_write(0, offset, &vec![1; 9000])?,
            b.send_write(0, offset + 3000, &vec![2; 9000])?,
        );
        ensure!(a.reply()? == (cookies.0, 0) && b.reply()? == (cookies.1, 0));
    }
    compare::assert_identical(&pair.image, &pair.remote_image)
}

#[test]
fn two_peers_both_follow() -> Result<()> {
    let mut pair = Pair::new(&Setup::default())?;
    let third = blockmirror_tests::scratch::Scratch::new()?;
    let image = third.join("third.img");
    let config = blockmirror_tests::config::Resource::plain(EXPORT, &image, 64 * MIB);
    let charlie = blockmirror_tests::node::Node::start(
        third.path(),
        &blockmirror_tests::config::NodeConfig::new("charlie", vec![config]),
    )?;
    pair.primary.stop()?;
    let peer = blockmirror_tests::config::Peer::new("charlie", &charlie.uri(EXPORT));
    pair.config.resources[0].peers.push(peer);
    pair.primary.configure(&pair.config)?;
    pair.primary.restart()?;
    let mut load = Load::new(64 * MIB / BLOCK, 16, 3);
    let mut raw = pair.primary.open(EXPORT)?;
    load.run(&mut raw, |load| load.writes >= 1000)?;
    blockmirror_tests::wait::until("both peers to be Established", PATIENT, || {
        let volume = pair.primary.volume(EXPORT).ok()?;
        let states = volume
            .peers
            .iter()
            .map(|peer| (peer.replication_state.to_string(), peer.dirty_bytes));
        states
            .into_iter()
            .all(|state| state == ("Established".to_owned(), 0))
            .then_some(())
    })?;
    load.flush(&mut raw)?;
    compare::assert_identical(&pair.image, &image)?;
    compare::assert_identical(&pair.image, &pair.remote_image)
}

#[test]
fn the_operator_disconnects_and_connects() -> Result<()> {
    let pair = Pair::new(&Setup {
        seeded: 8 * MIB,
        ..Setup::default()
    })?;
    pair.assert_converges()?;
    pair.primary.command(EXPORT, PeerCommand::Disconnect)?;
    pair.primary.wait_lost(EXPORT)?;
    let mut raw = pair.primary.open(EXPORT)?;
    ensure!(raw.write(0, 40 * MIB, &vec![9; 1 << 20])? == 0);
    let peer = pair.primary.peer(EXPORT)?;
    ensure!(
        peer.dirty_bytes == MIB,
        "1 MiB was written, {} bytes are dirty",
        peer.dirty_bytes
    );
    pair.primary.command(EXPORT, PeerCommand::Connect)?;
    pair.assert_converges()?;
    let resync = pair.primary.last_resync(EXPORT)?;
    ensure!(
        resync.copied_bytes == MIB,
        "1 MiB was dirty, {} bytes were copied",
        resync.copied_bytes
    );
    Ok(())
}

#[test]
fn a_full_resync_mends_a_peer_changed_behind_our_back() -> Result<()> {
    let pair = Pair::new(&Setup {
        seeded: 8 * MIB,
        ..Setup::default()
    })?;
    pair.assert_converges()?;
    std::os::unix::fs::FileExt::write_all_at(
        &std::fs::File::options().write(true).open(&pair.remote_image)?,
        &[0xee; 100_000],
        3 * MIB,
    )?;
    ensure!(
        compare::assert_identical(&pair.image, &pair.remote_image).is_err(),
        "the test changed nothing"
    );
    pair.primary.command(EXPORT, PeerCommand::Resync { full: true })?;
    pair.primary.wait_peer(EXPORT, "a full resync", PATIENT, |peer| {
        peer.last_resync
            .is_some_and(|resync| resync.dirty_at_start_bytes == 64 * MIB)
    })?;
    pair.assert_converges()
}
