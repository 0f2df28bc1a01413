//! Resync moves what differs and nothing else; verify finds what nobody knew of.

use anyhow::{Result, ensure};
use blockmirror_client::admin::{Order, PeerCommand, PeerStatus, VerifyStatus};
use blockmirror_tests::load::{BLOCK, Load};
use blockmirror_tests::pair::seed;
use blockmirror_tests::partners::{Partners, RESOURCE, Setup};
use blockmirror_tests::scratch::Scratch;
use blockmirror_tests::wait::{self, PATIENT};

use super::{MIB, VOLUME, fill, partners, tamper};

#[test]
fn a_resync_ships_only_what_differs() -> Result<()> {
    let mut partners = partners()?;
    fill(&mut partners.open(0, VOLUME)?, 0, 2000, 1)?;
    partners.nodes[1].kill();
    // The same again: dirty, and equal. Then ten blocks that are not.
    let mut raw = partners.open(0, VOLUME)?;
    fill(&mut raw, 0, 2000, 1)?;
    fill(&mut raw, 500, 10, 2)?;
    partners.nodes[1].restart()?;
    partners.wait_in_step(0, PATIENT)?;
    let resync = partners.nodes[0].last_resync(VOLUME)?;
    ensure!(resync.dirty_at_start_bytes >= 2000 * 4096, "{resync:?}");
    ensure!(
        resync.copied_bytes <= 10 * 4096,
        "{} bytes were sent for 40960 that differ",
        resync.copied_bytes
    );
    partners.assert_identical()
}

#[test]
fn the_node_that_is_copied_to_shows_how_far_it_is() -> Result<()> {
    let partners = Partners::new(Setup {
        resource: "resync_max = \"8MiB\"".to_owned(),
        ..Setup::default()
    })?;
    partners.disconnect(0)?;
    partners.nodes[0].wait_lost(VOLUME)?;
    fill(&mut partners.open(0, VOLUME)?, 0, 4000, 1)?;
    partners.connect(0, false)?;
    let peer = partners.nodes[1].wait_peer(VOLUME, "progress of the resync", PATIENT, |peer| {
        peer.resync
            .is_some_and(|resync| resync.done_bytes > 0 && resync.remaining_bytes > 0)
    })?;
    let seen = peer.resync.ok_or_else(|| anyhow::anyhow!("it was there"))?;
    ensure!(seen.eta_seconds.is_some() && seen.bytes_per_second > 0.0, "{seen:?}");
    partners.wait_in_step(0, PATIENT)?;
    let sent = partners.nodes[0].last_resync(VOLUME)?;
    ensure!(
        seen.dirty_at_start_bytes == sent.dirty_at_start_bytes,
        "{seen:?}, {sent:?}"
    );
    let came = partners.nodes[1].last_resync(VOLUME)?;
    ensure!(came.done_bytes == sent.done_bytes, "{came:?}, {sent:?}");
    ensure!(came.copied_bytes == sent.copied_bytes, "{came:?}, {sent:?}");
    partners.assert_identical()
}

#[test]
fn a_stale_copy_seeds_a_peer() -> Result<()> {
    let scratch = Scratch::new()?;
    let original = scratch.join("original");
    seed(&original, 16 * MIB)?;
    let partners = {
        let mut fresh = Partners::fresh(Setup {
            volumes: vec![(VOLUME.to_owned(), 16 * MIB)],
            ..Setup::default()
        })?;
        for side in 0..2 {
            fresh.nodes[side].kill();
            std::fs::copy(&original, fresh.image(side, VOLUME))?;
        }
        // The copy is older in three places.
        for place in [0, 5 * MIB, 16 * MIB - 4096] {
            tamper(&fresh.image(1, VOLUME), place, &[9; 4096])?;
        }
        for node in &mut fresh.nodes {
            node.restart()?;
        }
        fresh.wait_connected(PATIENT)?;
        fresh
    };
    partners.promote_whatever(0)?;
    partners.wait_in_step(0, PATIENT)?;
    let resync = partners.nodes[0].last_resync(VOLUME)?;
    ensure!(resync.copied_bytes == 3 * 4096, "{resync:?}");
    partners.assert_identical()
}

#[test]
fn verify_finds_planted_differences_exactly_and_repairs_them() -> Result<()> {
    let partners = partners()?;
    fill(&mut partners.open(0, VOLUME)?, 0, 1000, 1)?;
    for block in [17, 400, 401, 999_u64] {
        tamper(&partners.image(1, VOLUME), block * 4096 + 100, b"rot")?;
    }
    let found = verify(&partners, false)?;
    ensure!(found.differing_bytes == 4 * 4096, "{found:?}");
    verify(&partners, true)?;
    partners.wait_in_step(0, PATIENT)?;
    partners.assert_identical()?;
    ensure!(verify(&partners, false)?.differing_bytes == 0);
    Ok(())
}

/// A block of node 1 rots, and a comparison on node 0 marks it.
fn mark_one(partners: &Partners, block: u64) -> Result<()> {
    tamper(&partners.image(1, VOLUME), block * 4096 + 100, b"rot")?;
    let found = verify(partners, false)?;
    ensure!(found.differing_bytes == 4096, "{found:?}");
    Ok(())
}

#[test]
fn what_verify_has_marked_is_never_copied_from() -> Result<()> {
    let mut partners = partners()?;
    fill(&mut partners.open(0, VOLUME)?, 0, 1000, 1)?;
    let good = std::fs::read(partners.image(0, VOLUME))?;
    let whole = |partners: &Partners| {
        partners.assert_identical()?;
        ensure!(std::fs::read(partners.image(0, VOLUME))? == good, "the rot was copied");
        Ok(())
    };
    mark_one(&partners, 17)?;
    partners.nodes[0].kill();
    partners.nodes[0].restart()?;
    partners.promote_whatever(0)?;
    partners.wait_in_step(0, PATIENT)?;
    whole(&partners)?;
    mark_one(&partners, 18)?;
    partners.demote(0)?;
    wait::until("the other to have everything, and the role", PATIENT, || {
        partners.promote(1).ok()
    })?;
    partners.wait_in_step(1, PATIENT)?;
    whole(&partners)
}

#[test]
fn resync_copies_to_a_connected_partner_what_verify_has_marked() -> Result<()> {
    let partners = partners()?;
    fill(&mut partners.open(0, VOLUME)?, 0, 1000, 1)?;
    mark_one(&partners, 17)?;
    partners.nodes[0].command(VOLUME, PeerCommand::Resync { full: false })?;
    partners.wait_in_step(0, PATIENT)?;
    ensure!(partners.nodes[0].last_resync(VOLUME)?.copied_bytes == 4096);
    partners.assert_identical()
}

#[test]
fn verify_raises_no_false_alarm_under_load() -> Result<()> {
    let partners = partners()?;
    let mut load = Load::new(64 * MIB / BLOCK, 16, 3);
    let socket = partners.nodes[0].socket();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let found = std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut raw = blockmirror_tests::raw::Raw::open(&socket, VOLUME)?;
            load.run(&mut raw, |_| stop.load(std::sync::atomic::Ordering::Relaxed))
        });
        let found = verify(&partners, false);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        worker.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
        found
    })?;
    ensure!(found.finished && found.differing_bytes == 0, "{found:?}");
    partners.assert_identical()
}

#[test]
fn a_comparison_goes_on_where_it_was_stopped_after_a_restart() -> Result<()> {
    let mut partners = Partners::new(Setup {
        resource: "resync_max = \"16MiB\"".to_owned(),
        ..Setup::default()
    })?;
    let verify = |resume| Order::Verify {
        name: VOLUME.to_owned(),
        peer: None,
        repair: false,
        resume,
    };
    partners.nodes[0].order(&verify(false))?;
    let under_way = |least: u64| {
        move |peer: &PeerStatus| {
            peer.verify
                .is_some_and(|verify| verify.done_bytes >= least && verify.done_bytes < 48 * MIB)
        }
    };
    partners.nodes[0].wait_peer(VOLUME, "the comparison to get on", PATIENT, under_way(16 * MIB))?;
    partners.nodes[0].order(&Order::VerifyStop {
        name: VOLUME.to_owned(),
        peer: None,
    })?;
    partners.nodes[0].stop()?;
    partners.nodes[0].launch()?;
    partners.wait_in_step(0, PATIENT)?;
    // One where it has been, one where it has not.
    for place in [0, 63 * MIB] {
        tamper(&partners.image(1, VOLUME), place, &[9; 4096])?;
    }
    for resume in [true, false] {
        partners.nodes[0].order(&verify(resume))?;
        let ended = partners.nodes[0].wait_peer(VOLUME, "the comparison to end", PATIENT, |peer| {
            peer.verify.is_none() && peer.last_verify.is_some_and(|verify| verify.finished)
        })?;
        let found = ended.last_verify.map_or(0, |verify| verify.differing_bytes);
        // What one has found is marked: the next one passes it over.
        ensure!(found == 4096, "resume {resume}: {found}");
    }
    Ok(())
}

#[test]
fn a_node_with_an_empty_disk_is_filled_again() -> Result<()> {
    let mut partners = partners()?;
    fill(&mut partners.open(0, VOLUME)?, 0, 500, 1)?;
    partners.nodes[1].kill();
    let image = partners.image(1, VOLUME);
    std::fs::remove_file(&image)?;
    std::fs::remove_file(format!("{}.blockmirror", image.display()))?;
    partners.nodes[1].restart()?;
    partners.wait_in_step(0, PATIENT)?;
    partners.assert_identical()
}

#[test]
fn an_image_put_back_with_its_metadata_is_recognised() -> Result<()> {
    let mut partners = partners()?;
    fill(&mut partners.open(0, VOLUME)?, 0, 100, 1)?;
    partners.nodes[1].stop()?;
    let image = partners.image(1, VOLUME);
    let files = [image.display().to_string(), format!("{}.blockmirror", image.display())];
    for file in &files {
        std::fs::copy(file, format!("{file}.old"))?;
    }
    partners.nodes[1].restart()?;
    partners.wait_in_step(0, PATIENT)?;
    fill(&mut partners.open(0, VOLUME)?, 50, 100, 2)?;
    partners.nodes[1].stop()?;
    for file in &files {
        // In place: the file itself stays, as with a snapshot that is rolled back.
        let old = std::fs::read(format!("{file}.old"))?;
        tamper(std::path::Path::new(file), 0, &old)?;
    }
    partners.nodes[1].restart()?;
    partners.wait_in_step(0, PATIENT)?;
    partners.assert_identical()
}

/// One comparison from its order to its end.
fn verify(partners: &Partners, repair: bool) -> Result<VerifyStatus> {
    partners.nodes[0].order(&Order::Verify {
        name: RESOURCE.to_owned(),
        peer: None,
        repair,
        resume: false,
    })?;
    wait::until("the end of verify", PATIENT, || {
        let peer = partners.nodes[0].peer(VOLUME).ok()?;
        if peer.verify.is_some() {
            return None;
        }
        peer.last_verify.filter(|last| last.finished && last.repair == repair)
    })
}
