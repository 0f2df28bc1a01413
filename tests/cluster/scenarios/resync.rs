//! Resync: direction, amount, interruption, the last message lost.

use mirror_core::identity::Role;

use crate::faults::{Action, Cut, Fault};
use crate::stage::{LONG_US, Row, Stage, Step};

/// Names and scripts.
pub const ALL: &[Row] = &[
    ("resync", resync),
    ("resync-initial", resync_initial),
    ("resync-finish", resync_finish),
    ("resync-missed-end-no-bits", resync_finish),
    ("resync-finish2", resync_finish2),
    ("resync-multiple-interrupt", resync_multiple_interrupt),
    ("resync-interrupt-variants", resync_interrupt_variants),
    ("resync-interrupt-conflict", resync_interrupt_conflict),
    ("resync-write-during-pause", resync_write_during_pause),
    ("resync-without-replication", writes_during_resync),
    ("write-during-resync", writes_during_resync),
    ("brief-resync-oos", brief_resync),
    ("resync-reconciliation", reconciliation),
    ("resync-double-target", double_target),
];

/// Generations come and go; each time as much is dirty as was written, and it goes to the right side.
fn resync(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    for round in 1..4 {
        stage.cut(0, 1)?;
        for block in 0..round {
            stage.write(0, 0, block)?;
        }
        let dirty = stage.dirty(0, 1);
        stage.expect("as much is dirty as was written", dirty >= 1 && dirty <= round as u64)?;
        stage.join(0, 1);
        stage.until_whole()?;
        stage.expect("nothing is dirty", stage.dirty(0, 1) == 0 && stage.dirty(1, 0) == 0)?;
    }
    stage.promote(1, false)?;
    stage.cut(0, 1)?;
    stage.write(1, 0, 3)?;
    stage.join(0, 1);
    stage.until_whole()
}

/// One node is promoted alone, the others come later while it serves.
fn resync_initial(seed: u64) -> Step {
    let mut stage = Stage::with(seed, 3, 1, |plan| plan.equal = false);
    stage.until("0 is up", |world| world.nodes[0].is_up())?;
    stage.break_link(0, 1, Cut::Both, (0, 0), LONG_US)?;
    stage.break_link(0, 2, Cut::Both, (0, 0), LONG_US)?;
    stage.promote(0, true)?;
    for block in 0..5 {
        stage.write(0, 0, block)?;
    }
    stage.join(0, 1);
    stage.until("1 has everything", |world| world.nodes[1].volumes[0].follows.is_some())?;
    stage.write(0, 0, 6)?;
    stage.join(0, 2);
    stage.until_whole()
}

/// The link breaks around the end of a resync: wherever the last words were lost, the next handshake ends right.
fn resync_finish(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    for moment in 0..12 {
        stage.cut(0, 1)?;
        stage.write(0, 0, moment)?;
        stage.join(0, 1);
        let before = stage.world.tally.copies;
        stage.until("something was copied", move |world| world.tally.copies > before)?;
        stage.pass(moment as u64 * 170 + seed % 100)?;
        stage.break_link(0, 1, Cut::Both, (0, 0), 1_000)?;
        stage.until_whole()?;
    }
    stage.expect("no split brain", stage.world.tally.split_brains == 0)
}

/// Two resyncs from one source end at different times.
fn resync_finish2(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.cut(0, 1)?;
    stage.write(0, 0, 1)?;
    stage.cut(0, 2)?;
    for block in 2..6 {
        stage.write(0, 0, block)?;
    }
    stage.join(0, 1);
    stage.pass(4_000)?;
    stage.join(0, 2);
    stage.until_whole()
}

/// Two targets are interrupted, and meet each other first.
fn resync_multiple_interrupt(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.cut(0, 1)?;
    stage.cut(0, 2)?;
    for block in 0..6 {
        stage.write(0, 0, block)?;
    }
    stage.join(0, 1);
    stage.join(0, 2);
    stage.pass(9_000 + seed % 10_000)?;
    stage.break_link(0, 1, Cut::Both, (0, 0), 400_000)?;
    stage.break_link(0, 2, Cut::Both, (0, 0), 600_000)?;
    stage.pass(100_000)?;
    stage.until_whole()
}

/// A resync is broken by a cut, a kill or a disconnect, on either side: it goes on, and counters return to zero.
fn resync_interrupt_variants(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    for variant in 0..6 {
        stage.cut(0, 1)?;
        for block in 0..4 {
            stage.write(0, 0, block + variant)?;
        }
        stage.join(0, 1);
        stage.until("a resync runs", |world| world.nodes[1].volumes[0].partial)?;
        stage.pass(200)?;
        match variant {
            0 => stage.break_link(0, 1, Cut::Both, (0, 3_000), 5_000)?,
            1 => stage.break_link(0, 1, Cut::OneWay, (2_000, 0), 5_000)?,
            2 => stage.strike(Fault::Kill {
                node: 1,
                down_us: 5_000,
            })?,
            3 => stage.strike(Fault::Power {
                node: Some(1),
                down_us: 5_000,
            })?,
            4 => {
                stage.does(Action::Disconnect { node: 1, from: 0 })?;
                stage.act(Action::Connect {
                    node: 1,
                    to: 0,
                    discard: false,
                })?;
            }
            _ => stage.strike(Fault::Pause {
                node: 1,
                for_us: 20_000,
            })?,
        }
        if stage.link(0, 1) == Some(mirror_core::resource::status::LinkState::StandAlone) {
            stage.act(Action::Connect {
                node: 0,
                to: 1,
                discard: false,
            })?;
        }
        stage.until_whole()?;
        stage.expect("nothing is dirty", stage.dirty(0, 1) == 0)?;
    }
    Ok(())
}

/// Writes overlap a resync on a slow disk, and it breaks: nothing is stuck.
fn resync_interrupt_conflict(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.cut(0, 1)?;
    for block in 0..6 {
        stage.write(0, 0, block)?;
    }
    let slow = Fault::Slow {
        node: 1,
        times: 50,
        for_us: 100_000,
    };
    stage.strike(slow)?;
    stage.join(0, 1);
    stage.until("a resync runs", |world| world.nodes[1].volumes[0].partial)?;
    for block in 0..6 {
        stage.write_only(0, 0, block, false)?;
    }
    stage.break_link(0, 1, Cut::Both, (0, 0), 10_000)?;
    stage.until("all are answered", |world| world.hosts.unanswered[0] == 0)?;
    stage.until_whole()
}

/// Writes while the peer is away and its resync has been interrupted are part of the next one.
fn resync_write_during_pause(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.cut(0, 1)?;
    stage.write(0, 0, 1)?;
    stage.join(0, 1);
    stage.until("a resync runs", |world| world.nodes[1].volumes[0].partial)?;
    stage.cut(0, 1)?;
    stage.write(0, 0, 2)?;
    let written = stage.holds(0, 0, 2);
    stage.join(0, 1);
    stage.until_whole()?;
    stage.expect("the write is there", stage.holds(1, 0, 2) == written)
}

/// Writes go on during a resync with three nodes: everything ends, and is equal.
fn writes_during_resync(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 2).ready()?;
    stage.cut(0, 1)?;
    for block in 0..6 {
        stage.write(0, block % 2, block)?;
    }
    stage.join(0, 1);
    for round in 0..30 {
        stage.write_only(0, round % 2, round, false)?;
        stage.pass(400)?;
    }
    stage.until_whole()
}

/// Writes arrive around an almost empty resync: it does not end too early.
fn brief_resync(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    for round in 0..8 {
        stage.cut(0, 1)?;
        stage.write(0, 0, round)?;
        stage.join(0, 1);
        let before = stage.world.conns.len();
        stage.until("a connection begins", move |world| world.conns.len() > before)?;
        for block in 0..4 {
            stage.write_only(0, 0, round + block, false)?;
            stage.pass(seed % 300 + 100)?;
        }
        stage.until_whole()?;
    }
    Ok(())
}

/// The Primary vanishes when two others are at different places of its stream: they end equal.
fn reconciliation(seed: u64) -> Step {
    let stage = Stage::with(seed, 3, 1, |plan| plan.mode = mirror_core::config::AckMode::Async);
    let mut stage = stage.ready()?;
    stage.break_link(0, 2, Cut::Stall, (LONG_US, LONG_US), LONG_US)?;
    for block in 0..5 {
        stage.write(0, 0, block)?;
    }
    stage.kill(0)?;
    stage.lose_stalled();
    stage
        .world
        .conns
        .iter_mut()
        .for_each(|conn| conn.open = conn.open.map(|open| open));
    stage.pass(4_000_000)?;
    stage.promote(1, true)?;
    stage.start(0)?;
    stage.join(0, 2);
    stage.pass(1_000_000)?;
    stage.lose_stalled();
    stage.until_whole()?;
    stage.expect("two are Secondary", stage.role(2) == Some(Role::Secondary))
}

/// Two targets at once, with writes: nothing stays dirty.
fn double_target(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.cut(0, 1)?;
    stage.cut(0, 2)?;
    for block in 0..6 {
        stage.write(0, 0, block)?;
    }
    stage.join(0, 1);
    stage.join(0, 2);
    stage.pass(3_000)?;
    stage.write(0, 0, 7)?;
    stage.until_whole()?;
    stage.expect("nothing is dirty", stage.dirty(0, 1) == 0 && stage.dirty(0, 2) == 0)
}
