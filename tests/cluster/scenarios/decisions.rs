//! Decisions at a handshake that only a certain past leads to: each of these goes wrong without the rule it is about.

use std::cell::Cell;

use mirror_core::event::PeerIndex;

use crate::faults::{Action, Cut, Fault};
use crate::stage::{LONG_US, Row, Stage, Step};
use crate::world::World;

/// Names and scripts.
pub const ALL: &[Row] = &[
    ("unrelated-data", unrelated_data),
    ("older-primary", older_primary),
    ("survivor-of-a-crash", survivor_of_a_crash),
    ("resync-goes-on", resync_goes_on),
    ("restored-and-moved-on", restored_and_moved_on),
    ("policy-zero-changes", policy_zero_changes),
    ("volumes-of-two-times", volumes_of_two_times),
    ("given-up-in-every-volume", given_up_in_every_volume),
];

/// Two nodes that never met each declared data of their own: neither counts before an operator says which.
fn unrelated_data(seed: u64) -> Step {
    let mut stage = Stage::with(seed, 2, 1, |plan| plan.equal = false);
    stage.break_link(0, 1, Cut::Both, (0, 0), LONG_US)?;
    stage.promote(0, true)?;
    stage.promote(1, true)?;
    stage.write_fua(0, 0, 1)?;
    stage.write_fua(1, 0, 2)?;
    let (kept, lost) = (stage.holds(0, 0, 1), stage.holds(1, 0, 2));
    stage.does(Action::Demote(1))?;
    stage.join(0, 1);
    stage.until_split(0, 1)?;
    let untouched = stage.holds(0, 0, 1) == kept && stage.holds(1, 0, 2) == lost;
    stage.expect("nobody's data is touched", untouched)?;
    stage.gives_up(1, 0)?;
    stage.until_whole()
}

/// A Primary that was alone, and wrote nothing, meets newer data: it is not overwritten under its hosts.
fn older_primary(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.cut(0, 1)?;
    stage.promote(1, true)?;
    stage.write_fua(1, 0, 1)?;
    stage.does(Action::Demote(1))?;
    let held = stage.holds(0, 0, 1);
    stage.join(0, 1);
    stage.pass(3_000_000)?;
    stage.expect("its data is what it was", stage.holds(0, 0, 1) == held)?;
    stage.does(Action::Demote(0))?;
    stage.connects(0, 1)?;
    stage.promote(1, true)?;
    stage.until_whole()?;
    stage.expect(
        "then it has the newer data",
        stage.holds(0, 0, 1) == stage.holds(1, 0, 1),
    )
}

/// What a power loss took from the cache of a Primary is still on its partner, and comes back from there.
fn survivor_of_a_crash(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    for block in 0..8 {
        stage.write(0, 0, block)?;
        let written = stage.holds(0, 0, block);
        let down_us = 20_000;
        stage.strike(Fault::Power { node: Some(0), down_us })?;
        stage.until("it takes its role back", |world| world.serves_hosts(0))?;
        stage.until_whole()?;
        let there = (0..2).all(|node| stage.holds(node, 0, block) == written);
        stage.expect("what was answered is on both", there)?;
    }
    Ok(())
}

/// A resync that was cut off goes on: what was equal when it began is not compared again.
fn resync_goes_on(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.cut(0, 1)?;
    for block in 0..3 {
        stage.write(0, 0, block)?;
    }
    let written = stage.dirty(0, 1);
    let (node, times, for_us) = (1, 200, 400_000);
    stage.strike(Fault::Slow { node, times, for_us })?;
    stage.join(0, 1);
    let copies = stage.world.tally.copies;
    stage.until("something was copied", |world| world.tally.copies > copies)?;
    stage.cut(0, 1)?;
    stage.expect("something is left to copy", stage.dirty(0, 1) > 0)?;
    stage.join(0, 1);
    let most = Cell::new(0);
    stage.until("it has ended", |world| {
        most.set(most.get().max(marked(world)));
        world.whole().is_some()
    })?;
    stage.expect("no more was marked than was written", most.get() <= written)?;
    stage.until_whole()
}

/// Blocks marked on node 0 for node 1.
fn marked(world: &World) -> u64 {
    let mirror = world.nodes[0].volumes[0].mirror.as_ref();
    let runs = mirror.map(|mirror| mirror.dirty_runs(PeerIndex(0), 0, usize::MAX));
    runs.into_iter().flatten().map(|run| run.end - run.start).sum()
}

/// An image is put back together with its metadata, and then its node goes on from there: where the two parted nobody
/// knows, so that everything is compared once one side is given up.
fn restored_and_moved_on(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.flush(0, 0)?;
    let snapshot = stage.snapshot(1);
    stage.write_fua(0, 0, 1)?;
    for _ in 0..3 {
        stage.cut(0, 1)?;
        stage.join(0, 1);
        stage.until_whole()?;
    }
    stage.cut(0, 1)?;
    stage.write_fua(0, 0, 2)?;
    stage.kill(1)?;
    stage.revert(1, snapshot);
    stage.start(1)?;
    stage.promote(1, true)?;
    stage.write_fua(1, 0, 3)?;
    stage.does(Action::Demote(1))?;
    stage.join(0, 1);
    stage.until_split(0, 1)?;
    stage.gives_up(1, 0)?;
    stage.until_whole()
}

/// Both were Primary apart, one of them wrote nothing: the policy gives that one up, and says nothing of split brain.
fn policy_zero_changes(seed: u64) -> Step {
    let mut stage = Stage::with(seed, 2, 1, |plan| plan.policy = 3).ready()?;
    stage.cut(0, 1)?;
    stage.promote(1, true)?;
    stage.write_fua(1, 0, 1)?;
    let written = stage.holds(1, 0, 1);
    stage.does(Action::Demote(0))?;
    stage.promote(0, true)?;
    stage.does(Action::Demote(0))?;
    stage.join(0, 1);
    stage.until("the one that wrote is the source", |world| world.is_connected(0, 1))?;
    stage.expect("nobody has to decide", stage.world.tally.split_brains == 0)?;
    stage.until("it has been copied", |world| !world.nodes[0].volumes[0].partial)?;
    stage.promote(1, false)?;
    stage.until_whole()?;
    stage.expect("the write is on both", stage.holds(0, 0, 1) == written)
}

/// Two volumes, and two promotions that failed half way, each with another volume done: nodes that parted, though no
/// volume shows it by itself.
fn volumes_of_two_times(seed: u64) -> Step {
    let mut stage = apart(seed, |stage| {
        Ok(half_promoted(stage, 0, 0)? && half_promoted(stage, 1, 1)?)
    })?;
    stage.join(0, 1);
    stage.until_split(0, 1)?;
    stage.gives_up(1, 0)?;
    stage.promote(0, true)?;
    stage.until_whole()
}

/// One volume has diverged, of the other this node only has newer data: who is given up is given up in both.
fn given_up_in_every_volume(seed: u64) -> Step {
    let mut stage = apart(seed, |stage| half_promoted(stage, 0, 0))?;
    let held = stage.holds(0, 1, 2);
    stage.promote(1, true)?;
    stage.write_fua(1, 0, 1)?;
    stage.write_fua(1, 1, 2)?;
    stage.does(Action::Demote(1))?;
    stage.join(0, 1);
    stage.until_split(0, 1)?;
    stage.gives_up(1, 0)?;
    stage.promote(0, true)?;
    stage.until_whole()?;
    let old = (0..2).all(|node| stage.holds(node, 1, 2) == held);
    stage.expect("both volumes are of one time", old)
}

/// Times that a past is tried for: how far a dying metadata disk gets is a matter of chance.
const TRIES: u64 = 40;

/// Two Secondaries that do not see each other, with such a past.
fn apart(seed: u64, past: impl Fn(&mut Stage) -> Result<bool, String>) -> Result<Stage, String> {
    for attempt in 0..TRIES {
        let mut stage = Stage::new(seed + attempt * 1_000, 2, 2).ready()?;
        stage.does(Action::Demote(0))?;
        stage.cut(0, 1)?;
        if past(&mut stage)? {
            return Ok(stage);
        }
    }
    Err("no attempt led to the past that is wanted".to_owned())
}

/// A promotion by force that a power loss ends: one volume has its new generation, the other has not. False: both do.
fn half_promoted(stage: &mut Stage, node: usize, first: usize) -> Result<bool, String> {
    let other = 1 - first;
    let before = [stage.durable(node, first)?, stage.durable(node, other)?];
    stage.world.nodes[node].volumes[other].slow_metadata = 1_000;
    let action = Action::Promote { node, force: true };
    stage.world.act(action).map_err(|violation| violation.to_string())?;
    while stage.durable(node, first)? == before[0] {
        stage.tick()?;
    }
    let down_us = 5_000;
    stage.strike(Fault::Power {
        node: Some(node),
        down_us,
    })?;
    stage.world.nodes[node].volumes[other].slow_metadata = 1;
    stage.until("it is up again", |world| world.nodes[node].is_up())?;
    Ok(stage.durable(node, other)? == before[1])
}
