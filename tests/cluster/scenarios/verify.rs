//! Verify: what rotted is found, nothing else is.

use mirror_core::event::PeerIndex;
use mirror_core::state::LocalDisk;

use crate::disk::{ROT, Stamp};
use crate::faults::{Action, Cut, Fault};
use crate::node::{Node, peer_of};
use crate::stage::{Row, Stage, Step};
use crate::world::World;

/// Names and scripts.
pub const ALL: &[Row] = &[
    ("verify", verify),
    ("verify-under-load", verify_under_load),
    ("verify-target-becomes-inconsistent", verify_interrupted),
    ("verify-marked-primary-dies", marked_primary_dies),
    ("verify-marked-role-moves", marked_role_moves),
    ("verify-marked-third-takes-over", marked_third_takes_over),
    ("verify-marked-survivor-takes-over", marked_survivor_takes_over),
    ("verify-marked-is-resynced", marked_is_resynced),
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

/// A sector of node 1 has rotted, a verify without repair on node 0 has marked it; and what good data it holds.
fn marked(seed: u64, nodes: usize) -> Result<(Stage, Stamp), String> {
    let mut stage = Stage::new(seed, nodes, 1).ready()?;
    stage.write(0, 0, 3)?;
    stage.flush(0, 0)?;
    stage.until_whole()?;
    let good = stage.holds(0, 0, 3);
    let per_block = (mirror_core::range::BLOCK_BYTES / crate::layout::SECTOR_BYTES) as usize;
    let slot = 3 * per_block % stage.world.plan.layouts[0].slots;
    stage.world.nodes[1].volumes[0].disk.rot(slot, ROT + good);
    stage.does(Action::Verify {
        node: 0,
        volume: 0,
        with: 1,
        repair: false,
    })?;
    stage.until("its end", |world| {
        let mirror = world.nodes[0].volumes[0].mirror.as_ref();
        let verify = mirror.and_then(|mirror| mirror.status(core::time::Duration::ZERO).peers[0].last_verify);
        verify.is_some_and(|verify| verify.finished)
    })?;
    stage.expect(
        "marked, and nothing else",
        stage.dirty(0, 1) == 1 && stage.holds(1, 0, 3) != good,
    )?;
    Ok((stage, good))
}

/// A node has it that another one holds the present generation.
fn knows_in_step(world: &World, node: usize, other: usize) -> bool {
    let mirror = world.nodes[node].volumes[0].mirror.as_ref();
    mirror.is_some_and(|mirror| mirror.record(PeerIndex(peer_of(node, other) as u8)) == 0)
}

/// The good side has been copied from.
fn mended(stage: &mut Stage, good: Stamp) -> Step {
    stage.until("what rotted is mended", |world| {
        world.nodes.iter().all(|node| node.volumes[0].disk.rotten.is_empty())
    })?;
    stage.until("the copy ends", |world| {
        let up = |node: &Node| {
            node.volumes[0]
                .mirror
                .as_ref()
                .is_some_and(|mirror| mirror.disk() == LocalDisk::UpToDate)
        };
        world.is_connected(0, 1)
            && world.nodes.iter().all(up)
            && knows_in_step(world, 0, 1)
            && knows_in_step(world, 1, 0)
    })?;
    let nodes = stage.world.nodes.len();
    stage.expect(
        "the good data are everywhere",
        (0..nodes).all(|node| stage.holds(node, 0, 3) == good),
    )
}

/// It is mended, and can have the role then.
fn takes_over_mended(mut stage: Stage, good: Stamp) -> Step {
    mended(&mut stage, good)?;
    stage.promote(1, false)?;
    stage.read(1, 0, 3)?;
    stage.until_whole()
}

/// The Primary is killed, or loses its power, and comes back: it was not the one that lacked something.
fn marked_primary_dies(seed: u64) -> Step {
    let (mut stage, good) = marked(seed, 2)?;
    stage.write(0, 0, 7)?;
    let down_us = 1_000_000;
    stage.strike(match seed.is_multiple_of(2) {
        true => Fault::Kill { node: 0, down_us },
        false => Fault::Power { node: Some(0), down_us },
    })?;
    stage.until("it is back", |world| world.nodes[0].is_up())?;
    takes_over_mended(stage, good)
}

/// The node with the rot cannot have the role before it is mended, and is as soon as the other is demoted.
fn marked_role_moves(seed: u64) -> Step {
    let (mut stage, good) = marked(seed, 2)?;
    stage.refuses(Action::Promote { node: 1, force: false })?;
    stage.does(Action::Demote(0))?;
    // Before the two have met again it does not know what it lacks, but that it may lack something.
    stage.pass(seed * 37 % 400)?;
    stage.refuses(Action::Promote { node: 1, force: false })?;
    takes_over_mended(stage, good)
}

/// What one node has found another one mends.
fn marked_third_takes_over(seed: u64) -> Step {
    let (mut stage, good) = marked(seed, 3)?;
    stage.until("the third has the name", |world| knows_in_step(world, 0, 2))?;
    match seed % 3 {
        0 => stage.does(Action::Demote(0))?,
        1 => {}
        _ => {
            let down_us = 20_000_000;
            stage.strike(Fault::Kill { node: 0, down_us })?;
            stage.until("it is gone", |world| !world.nodes[0].is_up())?;
        }
    }
    stage.promote(2, false)?;
    stage.until("everything is mended", |world| world.whole().is_some())?;
    mended(&mut stage, good)?;
    stage.until_whole()
}

/// The Primary is lost for good, as far as the other one knows, which takes over: each then has what the other lacks, and
/// neither is copied over the other without a word.
fn marked_survivor_takes_over(seed: u64) -> Step {
    let (mut stage, good) = marked(seed, 2)?;
    stage.strike(Fault::Kill {
        node: 0,
        down_us: 20_000_000,
    })?;
    stage.until("it is gone", |world| !world.linked(0, 1))?;
    stage.promote(1, true)?;
    stage.until_split(0, 1)?;
    stage.expect("the good data are kept", stage.holds(0, 0, 3) == good)
}

/// The operator's `resync` copies what is marked, without parting the two.
fn marked_is_resynced(seed: u64) -> Step {
    let (mut stage, good) = marked(seed, 2)?;
    stage.write(0, 0, 7)?;
    stage.does(Action::Connect {
        node: 0,
        to: 1,
        discard: false,
    })?;
    mended(&mut stage, good)?;
    stage.until_whole()
}
