//! Resync: roles that change under it, crashes, forced and repeated resyncs, images that come while it runs.

use mirror_core::event::PeerIndex;
use mirror_core::state::{LocalDisk, PeerState};

use crate::faults::{Action, Cut, Fault};
use crate::operation::Work;
use crate::stage::{LONG_US, Row, Stage, Step};

/// Names and scripts.
pub const ALL: &[Row] = &[
    ("resync-source-becomes-target", source_changes),
    ("switch-sync-source", source_changes),
    ("resync-from-weak", source_dies),
    ("resync-to-older", resync_to_older),
    ("resync-target-primary", target_primary),
    ("resync-target-promote", target_promote),
    ("resync-target-promote-interrupt", target_promote_interrupt),
    ("resync-after-primary-crash", after_primary_crash),
    ("resync-based-on-disk-states", based_on_disk_states),
    ("attach-concurrent", attach_concurrent),
    ("attach-while-connected-not-uptodate", attach_not_uptodate),
    ("attach-while-connected-resize", attach_resize),
    ("busy-resync", busy_resync),
    ("busy-resync-start", busy_resync),
    ("force-resync", invalidate),
    ("invalidate", invalidate),
    ("ahead-behind", ahead_behind),
    ("checksum-resync", checksum_resync),
    ("double-power-cut", double_power_cut),
    ("resync-chain-close", chain_close),
    ("power-cut-after-resync", power_cut_after_resync),
];

/// The role moves to another node in the middle of a resync.
fn source_changes(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.cut(0, 2)?;
    for block in 0..6 {
        stage.write(0, 0, block)?;
    }
    stage.join(0, 2);
    stage.until("a resync runs", |world| world.nodes[2].volumes[0].partial)?;
    stage.act(Action::Promote { node: 1, force: false })?;
    stage.until("one Primary", |world| world.primaries() == 1)?;
    let primary = if stage.world.serves_hosts(1) { 1 } else { 0 };
    stage.write(primary, 0, 3)?;
    stage.until_whole()
}

/// The source dies in the middle of a resync: the target is finished from the other node with the same data.
fn source_dies(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.cut(0, 2)?;
    for block in 0..6 {
        stage.write(0, 0, block)?;
    }
    stage.join(0, 2);
    stage.until("a resync runs", |world| world.nodes[2].volumes[0].partial)?;
    stage.kill(0)?;
    stage.until("its end is seen", |world| !world.linked(0, 1) && !world.linked(0, 2))?;
    stage.promote(1, true)?;
    stage.write(1, 0, 4)?;
    stage.until("2 is whole", |world| !world.nodes[2].volumes[0].partial)?;
    stage.start(0)?;
    stage.until_whole()
}

/// A node is left several generations behind: no split brain, and the second time less is dirty than at first.
fn resync_to_older(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.cut(0, 2)?;
    stage.cut(1, 2)?;
    for round in 0..4 {
        let node = (round + 1) % 2;
        stage.promote(node, false)?;
        stage.write(node, 0, round)?;
    }
    stage.join(0, 2);
    stage.join(1, 2);
    stage.until_whole()?;
    stage.expect("no split brain", stage.world.tally.split_brains == 0)
}

/// The Primary's own image is the target: it serves all the while, and reads are right.
fn target_primary(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    for block in 0..4 {
        stage.write(0, 0, block)?;
    }
    stage.does(Action::Detach { node: 0, volume: 0 })?;
    stage.write(0, 0, 1)?;
    stage
        .world
        .act(Action::Attach {
            node: 0,
            volume: 0,
            replaced: true,
        })
        .map_err(|violation| violation.to_string())?;
    for block in 0..6 {
        stage.read(0, 0, block)?;
        stage.write(0, 0, block + 2)?;
        stage.read(0, 0, block + 2)?;
    }
    stage.until_whole()
}

/// The role is asked for on the target of a resync.
fn target_promote(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.cut(0, 1)?;
    for block in 0..6 {
        stage.write(0, 0, block)?;
    }
    stage.join(0, 1);
    stage.until("a resync runs", |world| world.nodes[1].volumes[0].partial)?;
    stage.act(Action::Promote { node: 1, force: false })?;
    stage.until("one Primary", |world| world.primaries() == 1)?;
    stage.until_whole()
}

/// The same, and the link breaks.
fn target_promote_interrupt(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.cut(0, 1)?;
    for block in 0..6 {
        stage.write(0, 0, block)?;
    }
    stage.join(0, 1);
    stage.until("a resync runs", |world| world.nodes[1].volumes[0].partial)?;
    let action = Action::Promote { node: 1, force: false };
    stage.world.act(action).map_err(|violation| violation.to_string())?;
    stage.pass(seed % 4_000)?;
    stage.break_link(0, 1, Cut::Both, (0, 0), 30_000)?;
    stage.until("the answer", |world| !world.operator.waits())?;
    stage.until("one Primary", |world| world.primaries() == 1)?;
    stage.until_whole()
}

/// The Primary loses its power with writes under way, and comes back: no more differs than was hot.
fn after_primary_crash(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    for block in 0..5 {
        stage.write_only(0, 0, block, false)?;
    }
    stage.pass(seed % 900)?;
    let down_us = 20_000;
    stage.strike(Fault::Power { node: Some(0), down_us })?;
    stage.until("it takes its role back", |world| world.serves_hosts(0))?;
    stage.until_whole()?;
    stage.expect("no split brain", stage.world.tally.split_brains == 0)
}

/// Equal generations: the better image is the source.
fn based_on_disk_states(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.does(Action::Demote(0))?;
    stage.does(Action::Detach { node: 1, volume: 0 })?;
    stage.does(Action::Attach {
        node: 1,
        volume: 0,
        replaced: true,
    })?;
    stage.pass(2_000_000)?;
    stage.promote(0, false)?;
    stage.until_whole()
}

/// Two nodes attach their images at the same time, with writes.
fn attach_concurrent(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    for node in [1, 2] {
        stage.does(Action::Detach { node, volume: 0 })?;
    }
    stage.write(0, 0, 1)?;
    for node in [1, 2] {
        let attach = Action::Attach {
            node,
            volume: 0,
            replaced: node == 2,
        };
        stage.world.act(attach).map_err(|violation| violation.to_string())?;
    }
    stage.write(0, 0, 2)?;
    stage.until_whole()
}

/// An image that was detached while it had bits to get is attached: old bits survive.
fn attach_not_uptodate(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.cut(0, 1)?;
    stage.write(0, 0, 1)?;
    stage.does(Action::Detach { node: 1, volume: 0 })?;
    stage.join(0, 1);
    stage.pass(500_000)?;
    stage.write(0, 0, 2)?;
    stage.does(Action::Attach {
        node: 1,
        volume: 0,
        replaced: false,
    })?;
    stage.until_whole()
}

/// The volume grows on both, then a resync brings what a node missed in the old and in the new part.
fn attach_resize(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.does(Action::Resize { node: 0, volume: 0 })?;
    stage.until_whole()?;
    stage.does(Action::Detach { node: 1, volume: 0 })?;
    stage.write(0, 0, 1)?;
    stage.does(Action::Attach {
        node: 1,
        volume: 0,
        replaced: false,
    })?;
    stage.until_whole()
}

/// Heavy writes before and while a resync runs, `async` too: it ends.
fn busy_resync(seed: u64) -> Step {
    let stage = Stage::with(seed, 2, 2, |plan| {
        if seed.is_multiple_of(2) {
            plan.mode = mirror_core::config::AckMode::Async;
        }
        plan.host.requests = 300;
        plan.host.pause_us = 150;
    });
    let mut stage = stage.ready()?;
    stage.world.at(stage.world.now + 1, crate::world::Event::HostRequest);
    stage.pass(5_000)?;
    stage.break_link(0, 1, Cut::Both, (0, 0), 8_000)?;
    stage.until("hosts are done", |world| {
        world.hosts.submitted >= 300 && world.hosts.is_idle()
    })?;
    stage.until_whole()
}

/// A node's data is declared worthless: it gets what differs, by digests.
fn invalidate(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    for block in 0..3 {
        stage.write(0, 0, block)?;
    }
    stage.does(Action::Invalidate { node: 1, from: 0 })?;
    stage.until_whole()?;
    stage.expect("most of it was found equal", stage.world.tally.equal > 0)
}

/// The queue of an `async` peer overflows: it falls Behind in all volumes together, and catches up.
fn ahead_behind(seed: u64) -> Step {
    let stage = Stage::with(seed, 2, 2, |plan| {
        plan.mode = mirror_core::config::AckMode::Async;
        plan.queue_requests = 4;
        plan.queue_bytes = 16 << 10;
    });
    let mut stage = stage.ready()?;
    stage.break_link(0, 1, Cut::Stall, (LONG_US, LONG_US), 50_000)?;
    for block in 0..20 {
        stage.write(0, block % 2, block)?;
    }
    stage.expect("it fell Behind", stage.world.tally.behind > 0)?;
    stage.until_whole()
}

/// Most data are equal: digests show it, and little is sent.
fn checksum_resync(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.write(0, 0, 1)?;
    stage.does(Action::Invalidate { node: 1, from: 0 })?;
    stage.cut(0, 1)?;
    stage.join(0, 1);
    stage.until_whole()?;
    stage.expect("most of it was found equal", stage.world.tally.equal > 0)
}

/// Power fails on both nodes right after an acknowledged flush: nothing of it is lost on either.
fn double_power_cut(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 2).ready()?;
    for block in 0..6 {
        stage.write(0, block % 2, block)?;
    }
    stage.flush(0, 0)?;
    stage.flush(0, 1)?;
    let held: Vec<_> = (0..6).map(|block| stage.holds(0, block % 2, block)).collect();
    let down_us = 10_000;
    stage.strike(Fault::Power { node: None, down_us })?;
    for node in 0..2 {
        let kept = (0..6).all(|block| stage.holds(node, block % 2, block) == held[block]);
        stage.expect("everything flushed is there", kept)?;
    }
    stage.until("it takes its role back", |world| world.serves_hosts(0))?;
    stage.until_whole()
}

/// Two Secondaries that never met meanwhile, one of which was filled again by the Primary, are connected: the ring is closed.
fn chain_close(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.cut(1, 2)?;
    stage.write(0, 0, 1)?;
    stage.kill(2)?;
    stage.write(0, 0, 2)?;
    stage.start(2)?;
    stage.until("it is filled again", |world| world.linked(0, 2))?;
    stage.write(0, 0, 3)?;
    stage.join(1, 2);
    stage.until_whole()?;
    stage.expect("equal", stage.same(0, 1) && stage.same(1, 2))
}

/// The Primary loses its power and gets back from a partner what it had answered, then both lose theirs: what the partner
/// gave is on its own stable storage, however long that took. (Without the third nobody becomes Primary in between.)
fn power_cut_after_resync(seed: u64) -> Step {
    for slow in [1, 1_000] {
        let mut stage = Stage::new(seed, 3, 1).ready()?;
        stage.kill(2)?;
        stage.until("its end is seen", |world| !world.linked(0, 2) && !world.linked(1, 2))?;
        for block in 0..8 {
            stage.write(0, 0, block)?;
        }
        let node = Some(0);
        stage.strike(Fault::Power { node, down_us: 200 })?;
        stage.world.nodes[1].slow = slow;
        stage.until("a flush is under way", |world| {
            let mut operations = world.nodes[1].operations.values();
            operations.any(|operation| matches!(operation.work, Work::Flush(_)))
        })?;
        stage.world.nodes[1].slow = 1;
        stage.until("0 has it again", |world| {
            let in_step = |node: usize| {
                let mirror = world.nodes[node].volumes[0].mirror.as_ref();
                mirror.is_some_and(|it| {
                    it.disk() == LocalDisk::UpToDate && it.peer_state(PeerIndex(0)) == PeerState::Established
                })
            };
            world.is_connected(0, 1) && in_step(0) && in_step(1)
        })?;
        for node in [Some(0), Some(1)] {
            stage.strike(Fault::Power { node, down_us: 200 })?;
        }
        stage.until("both are back", |world| world.is_connected(0, 1))?;
        stage.start(2)?;
        stage.promote(1, true)?;
        stage.until_whole()?;
    }
    Ok(())
}
