//! Verify: what rotted is found, nothing else is.

use crate::disk::ROT;
use crate::faults::{Action, Cut};
use crate::stage::{Row, Stage, Step};

/// Names and scripts.
pub const ALL: &[Row] = &[
    ("verify", verify),
    ("verify-under-load", verify_under_load),
    ("verify-target-becomes-inconsistent", verify_interrupted),
];

/// Sectors that rotted on a peer are found, each of them, and repaired.
fn verify(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    let slots = stage.world.plan.layouts[0].slots;
    for slot in [0, slots / 2, slots - 1] {
        let disk = &mut stage.world.nodes[1].volumes[0].disk;
        let stamp = disk.read(slot);
        disk.rot(slot, ROT + stamp);
    }
    stage.does(Action::Verify {
        node: 0,
        volume: 0,
        with: 1,
        repair: true,
    })?;
    stage.until("all are repaired", |world| {
        world.nodes[1].volumes[0].disk.rotten.is_empty()
    })?;
    stage.until_whole()?;
    stage.expect("equal", stage.same(0, 1))
}

/// Under load, `async` too, nothing is found that is not there.
fn verify_under_load(seed: u64) -> Step {
    let stage = Stage::with(seed, 2, 1, |plan| {
        if seed.is_multiple_of(2) {
            plan.mode = mirror_core::config::AckMode::Async;
        }
        plan.host.requests = 200;
    });
    let mut stage = stage.ready()?;
    let copies = stage.world.tally.copies;
    stage.world.at(stage.world.now + 1, crate::world::Event::HostRequest);
    stage.does(Action::Verify {
        node: 0,
        volume: 0,
        with: 1,
        repair: false,
    })?;
    stage.until("hosts are done", |world| {
        world.hosts.submitted >= 200 && world.hosts.is_idle()
    })?;
    stage.until_whole()?;
    stage.expect(
        "no false alarm",
        stage.dirty(0, 1) == 0 && stage.world.tally.copies == copies,
    )
}

/// The link breaks during a verify, and a resync follows.
fn verify_interrupted(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    let action = Action::Verify {
        node: 0,
        volume: 0,
        with: 1,
        repair: true,
    };
    stage.world.act(action).map_err(|violation| violation.to_string())?;
    stage.pass(seed % 2_000)?;
    stage.break_link(0, 1, Cut::Both, (0, 0), 5_000)?;
    stage.write(0, 0, 1)?;
    stage.until("the answer", |world| !world.operator.waits())?;
    stage.until_whole()
}
