//! Roles: promotion, demotion, switchover, and who may.

use mirror_core::config::{AckMode, OnDisconnect};
use mirror_core::identity::Role;
use mirror_core::resource::event::{Answer, HostAccess};
use mirror_core::state::PeerState;

use crate::faults::{Action, Cut, DiskFault, Fault};
use crate::node::peer_of;
use crate::stage::{LONG_US, Row, Stage, Step};

/// Names and scripts.
pub const ALL: &[Row] = &[
    ("may-promote", may_promote),
    ("switch-primaries", switch_primaries),
    ("concurrent-promote-demote", concurrent_promote_demote),
    ("two-primaries-reject", two_primaries_reject),
    ("process-wakeup", process_wakeup),
    ("outdate", outdate),
    ("outdate-early", outdate_early),
    ("outdate-not-all", outdate_not_all),
    ("lost-primary-after-no-writes", lost_primary_after_no_writes),
    ("twopc-conflict-one-initiator", both_promote),
    ("takeover-after-kill", takeover_after_kill),
    ("switchover-under-load", switchover_under_load),
    ("promotion-cut-short", promotion_cut_short),
    ("image-lost-while-promoted", image_lost_while_promoted),
];

/// A node in the middle of a resync is not promoted without force; a complete one is told what it may lack.
fn may_promote(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.cut(0, 1)?;
    stage.refuses(Action::Promote { node: 1, force: false })?;
    stage.expect("it is Secondary", stage.role(1) == Some(Role::Secondary))?;
    stage.write(0, 0, 1)?;
    stage.join(0, 1);
    stage.until_whole()?;
    stage.does(Action::Demote(0))?;
    stage.promote(1, false)?;
    stage.until_whole()
}

/// The role goes to and fro forty times, by asking for it on the other node.
fn switch_primaries(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 2).ready()?;
    for round in 0..40 {
        let node = (round + 1) % 2;
        stage.promote(node, false)?;
        stage.expect("the other gave it away", stage.role(1 - node) == Some(Role::Secondary))?;
        stage.write(node, round % 2, round)?;
    }
    stage.expect("no split brain", stage.world.tally.split_brains == 0)?;
    stage.until_whole()
}

/// A promotion waits for the other Primary to leave.
fn concurrent_promote_demote(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.write_only(0, 0, 1, false)?;
    stage
        .world
        .act(Action::Demote(0))
        .map_err(|violation| violation.to_string())?;
    stage
        .world
        .act(Action::Promote { node: 1, force: false })
        .map_err(|violation| violation.to_string())?;
    stage.until("answers", |world| !world.operator.waits())?;
    if stage.world.nodes[1].access != HostAccess::ReadWrite {
        stage.promote(1, false)?;
    }
    stage.write(1, 0, 2)?;
    stage.until_whole()?;
    stage.expect("no split brain", stage.world.tally.split_brains == 0)
}

/// Two Primaries meet: neither overwrites the other, and both say so. Then one gives way.
fn two_primaries_reject(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.cut(0, 1)?;
    stage.promote(1, true)?;
    if !seed.is_multiple_of(3) {
        stage.write(0, 0, 1)?;
    }
    if !seed.is_multiple_of(2) {
        stage.write(1, 0, 2)?;
    }
    stage.join(0, 1);
    stage.pass(2_000_000)?;
    stage.expect("both are Primary still", stage.world.primaries() == 2)?;
    stage.does(Action::Demote(1))?;
    stage.pass(2_000_000)?;
    stage.act(Action::Connect {
        node: 1,
        to: 0,
        discard: true,
    })?;
    stage.act(Action::Connect {
        node: 0,
        to: 1,
        discard: false,
    })?;
    stage.until_whole()
}

/// Writers held because the peer is gone all finish when it is back.
fn process_wakeup(seed: u64) -> Step {
    let stage = Stage::with(seed, 2, 1, |plan| plan.on_disconnect = OnDisconnect::Suspend);
    let mut stage = stage.ready()?;
    stage.cut(0, 1)?;
    for block in 0..5 {
        stage.write_only(0, 0, block, false)?;
    }
    stage.pass(500_000)?;
    stage.expect("all five are held", stage.world.hosts.unanswered[0] == 5)?;
    stage.join(0, 1);
    stage.until("all are answered", |world| world.hosts.unanswered[0] == 0)?;
    stage.until_whole()
}

/// A node that was left behind with writes is not promoted without force; one that missed nothing is taken back as it is.
fn outdate(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.cut(0, 2)?;
    stage.write(0, 0, 1)?;
    stage.refuses(Action::Promote { node: 2, force: false })?;
    stage.join(0, 2);
    stage.until_whole()
}

/// The Primary drops a peer that has not noticed, writes, and demotes: the peer must not be promoted over that.
fn outdate_early(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.break_link(0, 1, Cut::Both, (0, 60_000), LONG_US)?;
    stage.write(0, 0, 1)?;
    stage.does(Action::Demote(0))?;
    stage.refuses(Action::Promote { node: 1, force: false })?;
    stage.join(0, 1);
    stage.until("it has everything", |world| {
        world.is_connected(0, 1) && world.nodes[1].volumes[0].states[0] == PeerState::Established
    })?;
    stage.promote(1, false)?;
    stage.until_whole()?;
    stage.expect("no split brain", stage.world.tally.split_brains == 0)
}

/// The Primary comes back to one of two peers while the other follows: nobody is left behind.
fn outdate_not_all(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.cut(0, 1)?;
    stage.cut(0, 2)?;
    stage.write(0, 0, 1)?;
    stage.join(0, 1);
    stage.until("1 is back", |world| world.is_connected(0, 1))?;
    stage.write(0, 0, 2)?;
    stage.join(0, 2);
    stage.until_whole()
}

/// The role moves around without a write, nodes go away and come back: nobody is stuck.
fn lost_primary_after_no_writes(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 4, 1).ready()?;
    stage.promote(1, false)?;
    stage.kill(1)?;
    stage.pass(50_000)?;
    stage.promote(2, true)?;
    stage.start(1)?;
    stage.pass(1_000_000)?;
    stage.until_whole()
}

/// Two nodes are promoted at the same moment: one of them becomes Primary.
fn both_promote(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.does(Action::Demote(0))?;
    for node in [0, 1] {
        let action = Action::Promote { node, force: false };
        stage.world.act(action).map_err(|violation| violation.to_string())?;
    }
    stage.until("answers", |world| !world.operator.waits())?;
    stage.until("one Primary", |world| world.primaries() == 1)?;
    stage.expect("no split brain", stage.world.tally.split_brains == 0)?;
    stage.until_whole()
}

/// The Primary's process is killed: the other takes over with every acknowledged write, and the old one follows it.
fn takeover_after_kill(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 2).ready()?;
    for block in 0..6 {
        stage.write(0, block % 2, block)?;
    }
    stage.flush(0, 0)?;
    stage.kill(0)?;
    stage.until("the end is seen", |world| !world.linked(0, 1))?;
    if stage.act(Action::Promote { node: 1, force: false })? != Answer::Done {
        stage.promote(1, true)?;
    }
    stage.until("hosts may write", |world| world.serves_hosts(1))?;
    stage.write(1, 0, 3)?;
    stage.start(0)?;
    stage.until_whole()?;
    stage.expect("no split brain", stage.world.tally.split_brains == 0)
}

/// The role is asked for while writes are under way.
fn switchover_under_load(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 2).ready()?;
    for round in 0..10 {
        let (from, to) = (round % 2, (round + 1) % 2);
        for block in 0..8 {
            stage.write_only(from, block % 2, block + round, block == 3)?;
        }
        stage.promote(to, false)?;
        stage.expect("nothing is left behind", stage.world.hosts.unanswered[from] == 0)?;
    }
    stage.until_whole()
}

/// All lose their power, and again when one has become Primary by force in one volume, but not in the other: what the cut
/// left different between the two Secondaries is not taken for known.
fn promotion_cut_short(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 2).ready()?;
    for block in 0..8 {
        stage.write(0, 0, block)?;
        stage.write(0, 1, block)?;
    }
    let power = |node, down_us| Fault::Power { node, down_us };
    stage.strike(power(Some(0), LONG_US))?;
    for node in [1, 2] {
        stage.strike(power(Some(node), 200))?;
    }
    stage.until("the two are back", |world| world.is_connected(1, 2))?;
    let before = [stage.durable(2, 0)?, stage.durable(2, 1)?];
    let promote = Action::Promote { node: 2, force: true };
    stage.world.act(promote).map_err(|violation| violation.to_string())?;
    while [stage.durable(2, 0)?, stage.durable(2, 1)?] == before {
        stage.tick()?;
    }
    let named = [stage.durable(2, 0)?, stage.durable(2, 1)?];
    stage.expect(
        "one of two has the name",
        named[0] == before[0] || named[1] == before[1],
    )?;
    for node in [1, 2] {
        stage.strike(power(Some(node), 200))?;
    }
    stage.until("the two are back again", |world| world.is_connected(1, 2))?;
    stage.promote(2, true)?;
    stage.start(0)?;
    stage.until_whole()
}

/// The image of one volume, and the connections, are lost when that volume has its new name and another has not: the reign
/// begins with nobody to serve that volume. Whoever comes then has the data, serves them, and is the one who has what was
/// written when the Primary is gone.
fn image_lost_while_promoted(seed: u64) -> Step {
    let (node, down_us) = (0, 5_000);
    for mode in [AckMode::Sync, AckMode::Async] {
        for ends in [None, Some(Fault::Kill { node, down_us })] {
            let stage = Stage::with(seed, 2, 2, |plan| plan.mode = mode).ready()?;
            let text = format!("{mode:?}, {ends:?}");
            serves_without_image(stage, ends).map_err(|why| format!("{text}: {why}"))?;
        }
    }
    Ok(())
}

/// The same, after the reign before was ended by this, or else by its operator.
fn serves_without_image(mut stage: Stage, ends: Option<Fault>) -> Step {
    for block in 0..4 {
        stage.write_only(0, 0, block, false)?;
    }
    let before = stage.generation(1);
    if let Some(fault) = ends {
        stage.strike(fault)?;
        stage.world.nodes[0].volumes[1].slow_metadata = 200;
    } else {
        stage.does(Action::Demote(0))?;
        stage.world.nodes[0].volumes[1].slow_metadata = 200;
        let action = Action::Promote { node: 0, force: false };
        stage.world.act(action).map_err(|violation| violation.to_string())?;
    }
    stage.until("the other has the new name", |world| {
        let mirror = world.nodes[1].volumes[0].mirror.as_ref();
        mirror.is_some_and(|mirror| mirror.generation() != before)
    })?;
    let (node, volume, what) = (0, 0, DiskFault::Metadata);
    stage.strike(Fault::DiskFails { node, volume, what })?;
    stage.until("the image is given up", |world| world.lacks_image(0, 0))?;
    stage.cut(0, 1)?;
    stage.world.nodes[0].volumes[1].slow_metadata = 1;
    stage.until("hosts may write", |world| {
        world.nodes[0].access == HostAccess::ReadWrite
    })?;
    stage.join(0, 1);
    stage.until("connected, and the other volume is in step", |world| {
        let states = [(0, 1), (1, 0)].map(|(node, other)| world.nodes[node].volumes[1].states[peer_of(node, other)]);
        world.is_connected(0, 1) && states == [PeerState::Established; 2]
    })?;
    stage.read(0, 0, 1)?;
    stage.write_fua(0, 0, 2)?;
    let written = stage.holds(1, 0, 2);
    let (node, down_us) = (Some(0), 5_000);
    stage.strike(Fault::Power { node, down_us })?;
    stage.promote(1, true)?;
    stage.expect("what was written is there", stage.holds(1, 0, 2) == written)?;
    stage.until_whole()
}
