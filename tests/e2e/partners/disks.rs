//! Images that go, come, grow, and come to be added.

use anyhow::{Result, ensure};
use blockmirror_client::admin::{DiskState, Order};
use blockmirror_tests::partners::{Partners, RESOURCE, Setup, assert_refused};
use blockmirror_tests::raw::{Raw, command};
use blockmirror_tests::wait::{self, PATIENT, PROMPT};

use super::{MIB, VOLUME, expect, fill, partners};

#[test]
fn a_detached_image_is_served_from_the_partner_and_catches_up() -> Result<()> {
    let partners = partners()?;
    let mut raw = partners.open(0, VOLUME)?;
    fill(&mut raw, 0, 100, 1)?;
    partners.nodes[0].order(&Order::Detach {
        volume: VOLUME.to_owned(),
    })?;
    ensure!(partners.nodes[0].volume(VOLUME)?.disk_state == Some(DiskState::Diskless));
    fill(&mut raw, 50, 100, 2)?;
    expect(&mut raw, 0, 50, 1)?;
    expect(&mut raw, 50, 100, 2)?;
    partners.nodes[0].order(&Order::Attach {
        volume: VOLUME.to_owned(),
        replaced: false,
    })?;
    partners.wait_in_step(0, PATIENT)?;
    ensure!(partners.nodes[0].volume(VOLUME)?.disk_state == Some(DiskState::UpToDate));
    expect(&mut raw, 50, 100, 2)?;
    partners.assert_identical()
}

#[test]
fn a_node_whose_image_is_gone_starts_without_it_and_its_partner_serves() -> Result<()> {
    let mut partners = partners()?;
    fill(&mut partners.open(0, VOLUME)?, 0, 100, 1)?;
    partners.nodes[0].kill();
    let (image, away) = (partners.image(0, VOLUME), partners.scratch.join("away.img"));
    std::fs::rename(&image, &away)?;
    partners.nodes[0].launch()?;
    partners.wait_connected(PATIENT)?;
    let resource = partners.resource(0)?;
    ensure!(resource.volumes[0].disk_state == Some(DiskState::Diskless));
    ensure!(
        resource.alerts.iter().any(|alert| alert.contains("has no image here")),
        "{:?}",
        resource.alerts
    );
    wait::until("the other node to know", PATIENT, || {
        let volume = partners.nodes[1].volume(VOLUME).ok()?;
        (volume.peers[0].disk_state == DiskState::Diskless).then_some(())
    })?;
    let why = partners.nodes[1].why(RESOURCE)?;
    let told = |line: &String| line.contains("volume db has no image on alpha (Diskless)");
    ensure!(why.facts.iter().any(told), "{why:?}");
    ensure!(!image.exists(), "an empty image has nothing of what was there");
    ensure!(partners.promote(0).is_err(), "the data is on the other node");
    partners.promote_whatever(1)?;
    let mut raw = partners.open(1, VOLUME)?;
    expect(&mut raw, 0, 100, 1)?;
    fill(&mut raw, 50, 100, 2)?;
    let attach = |replaced| Order::Attach {
        volume: VOLUME.to_owned(),
        replaced,
    };
    let refused = partners.nodes[0].order(&attach(false)).map(drop);
    assert_refused(refused, "is not there: bring it back")?;
    ensure!(!image.exists());
    std::fs::rename(&away, &image)?;
    partners.nodes[0].order(&attach(false))?;
    partners.wait_in_step(1, PATIENT)?;
    ensure!(partners.resource(0)?.alerts.is_empty());
    partners.assert_identical()?;
    // Once more, and it does not come back: an empty one takes its place.
    partners.nodes[0].stop()?;
    std::fs::remove_file(&image)?;
    partners.nodes[0].launch()?;
    partners.wait_connected(PATIENT)?;
    fill(&mut raw, 200, 10, 3)?;
    partners.nodes[0].order(&attach(true))?;
    partners.wait_in_step(1, PATIENT)?;
    expect(&mut raw, 0, 50, 1)?;
    expect(&mut raw, 200, 10, 3)?;
    partners.assert_identical()
}

#[test]
fn a_volume_grows_on_both_nodes_while_it_is_written() -> Result<()> {
    let partners = Partners::new(Setup {
        volumes: vec![(VOLUME.to_owned(), 32 * MIB)],
        ..Setup::default()
    })?;
    let mut raw = partners.open(0, VOLUME)?;
    fill(&mut raw, 0, 100, 1)?;
    partners.nodes[0].order(&Order::Resize {
        volume: VOLUME.to_owned(),
        size: 48 * MIB,
        assume_clean: false,
        force: false,
    })?;
    fill(&mut raw, 100, 100, 2)?;
    for side in 0..2 {
        ensure!(partners.image(side, VOLUME).metadata()?.len() == 48 * MIB);
    }
    // What has grown is reached by connections that were there before, for the kernel does not connect a device anew,
    fill(&mut raw, 32 * 256, 50, 4)?;
    // and a new one sees the new size.
    let mut grown = partners.open(0, VOLUME)?;
    fill(&mut grown, 48 * 256 - 50, 50, 3)?;
    partners.wait_in_step(0, PATIENT)?;
    partners.assert_identical()
}

/// Reads fail and writes wait while nobody who is there has the data, and that is what an operator is told.
#[test]
fn a_primary_without_its_image_says_so_when_its_partner_is_lost() -> Result<()> {
    let mut partners = partners()?;
    let mut raw = partners.open(0, VOLUME)?;
    fill(&mut raw, 0, 10, 1)?;
    let detach = Order::Detach {
        volume: VOLUME.to_owned(),
    };
    partners.nodes[0].order(&detach)?;
    partners.nodes[1].kill();
    let lost = "neither its image here nor any connected peer has all of it";
    wait::until("the loss to be told", PATIENT, || {
        let alerts = partners.resource(0).ok()?.alerts;
        alerts.iter().any(|alert| alert.contains(lost)).then_some(())
    })?;
    let why = partners.nodes[0].why(RESOURCE)?;
    ensure!(why.facts.iter().any(|fact| fact.contains(lost)), "{why:?}");
    ensure!(
        why.facts.iter().all(|fact| !fact.contains("may read and write")),
        "{why:?}"
    );
    ensure!(
        why.advice[0].contains("bring back who had everything last: bravo"),
        "{why:?}"
    );
    let cookie = raw.send_write(0, 0, &[9; 4096])?;
    wait::until("the write to wait", PROMPT, || {
        (partners.nodes[0].volume(VOLUME).ok()?.requests_held == 1).then_some(())
    })?;
    partners.nodes[1].restart()?;
    let reply = raw.reply().map_err(|error| error.context(partners.describe()))?;
    ensure!(reply == (cookie, 0), "the data are back");
    let why = partners.nodes[0].why(RESOURCE)?;
    ensure!(
        why.facts.iter().any(|fact| fact.contains("may read and write")),
        "{why:?}"
    );
    Ok(())
}

fn shrink(partners: &Partners, side: usize, force: bool) -> Result<String> {
    let order = Order::Resize {
        volume: VOLUME.to_owned(),
        size: 32 * MIB,
        assume_clean: false,
        force,
    };
    Ok(partners.nodes[side]
        .order(&order)
        .err()
        .map_or_else(String::new, |error| format!("{error:#}")))
}

#[test]
fn a_volume_gets_smaller_only_by_force_at_rest_and_where_nothing_is() -> Result<()> {
    let mut partners = partners()?;
    let mut raw = partners.open(0, VOLUME)?;
    fill(&mut raw, 0, 100, 1)?;
    fill(&mut raw, 40 * 256, 10, 3)?;
    ensure!(shrink(&partners, 0, false)?.contains("with --force"));
    ensure!(shrink(&partners, 0, true)?.contains("is Primary"));
    drop(raw);
    partners.demote(0)?;
    let refused = shrink(&partners, 0, true)?;
    ensure!(refused.contains("something is beyond"), "{refused}");
    ensure!(refused.contains("keeps its size everywhere"), "{refused}");
    partners.promote(1)?;
    let mut raw = partners.open(1, VOLUME)?;
    expect(&mut raw, 40 * 256, 10, 3)?;
    ensure!(raw.call(0, command::TRIM, 40 * MIB, 10 * 4096)? == 0);
    raw.flush()?;
    drop(raw);
    partners.demote(1)?;
    ensure!(shrink(&partners, 1, true)?.is_empty());
    for side in 0..2 {
        ensure!(partners.image(side, VOLUME).metadata()?.len() == 32 * MIB);
        // The configuration still has the old size.
        partners.nodes[side].kill();
        partners.nodes[side].restart()?;
    }
    partners.wait_connected(PATIENT)?;
    partners.promote(0)?;
    let mut raw = partners.open(0, VOLUME)?;
    expect(&mut raw, 0, 100, 1)?;
    ensure!(raw.write(0, 32 * MIB, &[1; 4096])? != 0, "there is nothing there");
    fill(&mut raw, 32 * 256 - 10, 10, 4)?;
    partners.wait_in_step(0, PATIENT)?;
    partners.assert_identical()
}

/// A database waits for its log before it writes its tables: whatever a takeover finds, the log is there.
#[test]
fn two_volumes_keep_one_order_on_an_asynchronous_partner() -> Result<()> {
    let mut partners = Partners::new(Setup {
        volumes: vec![("db".to_owned(), 16 * MIB), ("log".to_owned(), 16 * MIB)],
        peer: "mode = \"async\"".to_owned(),
        ..Setup::default()
    })?;
    let (mut log, mut db) = (partners.open(0, "log")?, partners.open(0, "db")?);
    let step = |log: &mut Raw, db: &mut Raw, number: u64| -> Result<()> {
        ensure!(log.write(0, number * 4096, &number.to_le_bytes().repeat(512))? == 0);
        log.flush()?;
        ensure!(db.write(0, number * 4096, &number.to_le_bytes().repeat(512))? == 0);
        Ok(())
    };
    for number in 1..600 {
        step(&mut log, &mut db, number)?;
    }
    partners.nodes[0].kill();
    partners.promote_whatever(1)?;
    let (mut log, mut db) = (partners.open(1, "log")?, partners.open(1, "db")?);
    let mut last = 0;
    for number in 1..600_u64 {
        let wanted = number.to_le_bytes().repeat(512);
        let in_db = db.read(number * 4096, 4096)? == wanted;
        let in_log = log.read(number * 4096, 4096)? == wanted;
        ensure!(in_log || !in_db, "entry {number} is in the tables, and not in the log");
        if in_log {
            ensure!(last == number - 1, "entry {number} is there, entry {} is not", last + 1);
            last = number;
        }
    }
    ensure!(last > 0, "nothing has arrived at all");
    Ok(())
}
