//! Order: what has to have happened before something else does.

use std::cell::Cell;

use mirror_core::config::AckMode;
use mirror_core::event::{Failure, PeerIndex};
use mirror_core::resource::event::Input;
use mirror_core::state::PeerState;
use mirror_core::stream::Control;

use crate::faults::{Action, Cut, DiskFault, Fault};
use crate::net::id_of;
use crate::operation::Work;
use crate::stage::{LONG_US, Row, Stage, Step};

/// Names and scripts.
pub const ALL: &[Row] = &[
    ("requests-of-a-lost-connection", requests_of_a_lost_connection),
    ("lost-frame", lost_frame),
    ("late-words", late_words),
    ("verify-slow-disk", verify_slow_disk),
    ("resize-power-loss", resize_power_loss),
    ("resize-here-last", resize_here_last),
    ("target-before-copies", target_before_copies),
    ("target-in-the-stream", target_in_the_stream),
    ("async-without-image", async_without_image),
    ("async-image-and-peer-lost", async_image_and_peer_lost),
    ("copied-is-not-durable", copied_is_not_durable),
    ("handover-is-durable", handover_is_durable),
    ("demote-under-load", demote_under_load),
    ("met-means-durable", met_means_durable),
];

/// A connection is lost, and made anew, while a slow disk still works at what came on it: nobody hears of the new one
/// before that has ended.
fn requests_of_a_lost_connection(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    let (node, times, for_us) = (1, 2_000, 1_000);
    stage.strike(Fault::Slow { node, times, for_us })?;
    for block in 0..6 {
        stage.write_only(0, 0, block, false)?;
    }
    stage.until("they are under way", |world| !world.nodes[1].operations.is_empty())?;
    for other in [0, 2] {
        stage.break_link(1, other, Cut::Both, (0, 0), 100)?;
    }
    stage.until_whole()
}

/// A frame is missing in a stream: the connection is given up, and nothing is taken for what it is not.
fn lost_frame(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    for block in 0..4 {
        stage.write_only(0, 0, block, false)?;
    }
    stage.until("a write is on its way", |world| world.requests_under_way(0, 1) > 1)?;
    let taken = stage.world.take_frame(0, 1);
    stage.expect("a frame is taken away", taken)?;
    stage.until("all are answered", |world| world.hosts.unanswered[0] == 0)?;
    stage.expect("the connection was given up", stage.world.tally.lost > 0)?;
    stage.until_whole()
}

/// Words of a connection that is gone arrive when there is a newer one: they are nobody's.
fn late_words(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    let old = stage.world.nodes[0].links[0].conn;
    let connection = old.map(id_of).ok_or("no connection")?;
    stage.break_link(0, 1, Cut::Both, (0, 0), 100)?;
    stage.until("a newer connection", |world| {
        let conn = world.nodes[0].links[0].conn;
        conn.is_some() && conn != old
    })?;
    let (stand_alone, reason) = (true, "an old reason".to_owned());
    let goodbye = Input::Control {
        peer: PeerIndex(0),
        connection,
        control: Control::Goodbye { stand_alone, reason },
    };
    let fed = stage.world.feed_resource(0, goodbye);
    fed.and_then(|()| stage.world.settle(0))
        .map_err(|violation| violation.to_string())?;
    stage.until_whole()
}

/// The disk is slow and hosts write while it is compared: what is on its way is no difference.
fn verify_slow_disk(seed: u64) -> Step {
    let stage = Stage::with(seed, 2, 1, |plan| {
        (plan.host.requests, plan.host.pause_us) = (200, 100);
    });
    let mut stage = stage.ready()?;
    let copies = stage.world.tally.copies;
    let (node, times, for_us) = (0, 20, LONG_US);
    stage.strike(Fault::Slow { node, times, for_us })?;
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
    let quiet = stage.dirty(0, 1) == 0 && stage.world.tally.copies == copies;
    stage.expect("no false alarm", quiet)?;
    stage.until_whole()
}

/// Moments of a growth at which the power fails.
const MOMENTS: u64 = 12;

/// The power of the Primary fails somewhere in a growth, with blocks to copy: not one of them is forgotten.
fn resize_power_loss(seed: u64) -> Step {
    for moment in 0..MOMENTS {
        // One extent is hot at most: of the others only the dirty bits know.
        let mut stage = Stage::with(seed, 2, 1, |plan| plan.hot_extents = 1).ready()?;
        stage.cut(0, 1)?;
        for block in 0..12 {
            stage.write_fua(0, 0, block)?;
        }
        let (node, times, for_us) = (1, 400, 60_000);
        stage.strike(Fault::Slow { node, times, for_us })?;
        stage.join(0, 1);
        stage.until("a resync runs", |world| {
            world.nodes[1].volumes[0].partial && world.is_connected(0, 1)
        })?;
        let action = Action::Resize { node: 0, volume: 0 };
        stage.world.act(action).map_err(|violation| violation.to_string())?;
        stage.world.nodes[0].volumes[0].slow_metadata = 10;
        stage.until("its metadata change", |world| {
            world.nodes[0].volumes[0].resizing.is_some()
        })?;
        stage.pass(moment * 1_500 + seed % 1_000)?;
        let down_us = 5_000;
        stage.strike(Fault::Power { node: Some(0), down_us })?;
        stage.world.nodes[0].volumes[0].slow_metadata = 1;
        stage.until("it is up again", |world| world.nodes.iter().all(|node| node.is_up()))?;
        stage.even_sizes()?;
        stage.promote(0, true)?;
        stage.until_whole().map_err(|text| format!("moment {moment}: {text}"))?;
    }
    Ok(())
}

/// A volume grows: the Primary's own is the last, so that nothing is written where another has no room.
fn resize_here_last(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.world.nodes[2].volumes[0].slow_metadata = 50;
    let action = Action::Resize { node: 0, volume: 0 };
    stage.world.act(action).map_err(|violation| violation.to_string())?;
    let first = Cell::new(false);
    let grown = stage.world.plan.layouts[0].grown;
    stage.until("all are larger", |world| {
        let offers = |node: usize| world.nodes[node].volumes[0].offered;
        first.set(first.get() || (1..3).any(|other| offers(0) > offers(other)));
        (0..3).all(|node| offers(node) == grown)
    })?;
    stage.expect("the Primary's was the last", !first.get())?;
    stage.world.nodes[2].volumes[0].slow_metadata = 1;
    stage.until_whole()
}

/// A target whose metadata disk is slow: not a sector of it is overwritten before it is durably called Inconsistent.
fn target_before_copies(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.cut(0, 1)?;
    for block in 0..6 {
        stage.write(0, 0, block)?;
    }
    stage.world.nodes[1].volumes[0].slow_metadata = 200;
    stage.join(0, 1);
    stage.until_whole()?;
    stage.world.nodes[1].volumes[0].slow_metadata = 1;
    Ok(())
}

/// An `async` peer falls Behind and catches up without a new handshake: it is told in the stream that it is a target.
fn target_in_the_stream(seed: u64) -> Step {
    let stage = Stage::with(seed, 2, 1, |plan| {
        plan.mode = AckMode::Async;
        (plan.queue_requests, plan.queue_bytes) = (4, 16 << 10);
    });
    let mut stage = stage.ready()?;
    stage.world.nodes[1].volumes[0].slow_metadata = 50;
    stage.break_link(0, 1, Cut::Stall, (LONG_US, LONG_US), 50_000)?;
    for block in 0..20 {
        stage.write(0, 0, block)?;
    }
    stage.expect("it fell Behind", stage.world.tally.behind > 0)?;
    stage.until_whole()
}

/// `async`, and the image of the Primary has failed: what is on its way when its partner is lost is not answered as done, for nobody
/// may have it.
fn async_without_image(seed: u64) -> Step {
    let mut stage = Stage::asynchronous(seed, 2).ready()?;
    stage.break_link(0, 1, Cut::Stall, (LONG_US, LONG_US), LONG_US)?;
    stage.disk_fails(0, DiskFault::Write(Failure::Io))?;
    stage.write_only(0, 0, 1, false)?;
    stage.until("the image is given up", |world| !world.nodes[0].volumes[0].attached)?;
    stage.cut(0, 1)?;
    stage.until("all are answered", |world| world.hosts.unanswered[0] == 0)?;
    stage.join(0, 1);
    stage.until("connected again", |world| world.is_connected(0, 1))?;
    stage.attach_all()?;
    stage.until_whole()
}

/// The image fails, and the `async` partner is lost before it confirmed what was answered: whether it has it nobody knows, and
/// sent again it would land on what is newer there. The volume fails instead, and the partner's data are of one moment.
fn async_image_and_peer_lost(seed: u64) -> Step {
    let mut stage = Stage::asynchronous(seed, 2).ready()?;
    let how = if seed.is_multiple_of(2) {
        Cut::Stall
    } else {
        Cut::OneWay
    };
    stage.break_link(1, 0, how, (LONG_US, LONG_US), LONG_US)?;
    for block in [0, 1, 2, 0, 1] {
        stage.write(0, 0, block)?;
    }
    stage.pass(20_000)?;
    let has: Vec<_> = (0..3).map(|block| stage.holds(1, 0, block)).collect();
    stage.disk_fails(0, DiskFault::Write(Failure::Io))?;
    stage.write_only(0, 0, 6, false)?;
    stage.until("the image is given up", |world| !world.nodes[0].volumes[0].attached)?;
    stage.cut(0, 1)?;
    stage.until("the volume fails", |world| world.nodes[0].volumes[0].failed)?;
    stage.join(0, 1);
    stage.pass(200_000)?;
    let same = (0..3).all(|block| stage.holds(1, 0, block) == has[block]);
    stage.expect("the partner's data are not touched", same)?;
    let restart = stage.world.act(Action::Restart(0));
    restart.map_err(|violation| violation.to_string())?;
    stage.until("the daemon is back", |world| world.nodes[0].is_up())?;
    stage.attach_all()?;
    stage.until_whole()
}

/// What was copied and not made durable is lost with the power of the target: it is copied again.
fn copied_is_not_durable(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    for round in 0..8 {
        stage.cut(0, 1)?;
        for block in 0..3 {
            stage.write(0, 0, block + round)?;
        }
        stage.join(0, 1);
        let copies = stage.world.tally.copies;
        stage.until("something was copied", |world| world.tally.copies > copies)?;
        let down_us = 5_000;
        stage.strike(Fault::Power { node: Some(1), down_us })?;
        stage.until_whole()?;
    }
    Ok(())
}

/// The role moves in order: everything answered before is durable on both nodes by then.
fn handover_is_durable(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 2).ready()?;
    for round in 0..4 {
        let (from, to) = (round % 2, (round + 1) % 2);
        for block in 0..6 {
            stage.write(from, block % 2, block + round)?;
        }
        stage.does(Action::Demote(from))?;
        let mut volumes = stage.world.nodes.iter().flat_map(|node| &node.volumes);
        let durable = volumes.all(|it| (0..it.disk.slots()).all(|slot| it.disk.is_settled(slot)));
        stage.expect("all of it is durable", durable)?;
        stage.promote(to, false)?;
    }
    stage.until_whole()
}

/// A node is told to become Secondary with writes under way on a slow disk: they end, and are answered, first.
fn demote_under_load(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    let (node, times, for_us) = (0, 100, 100_000);
    stage.strike(Fault::Slow { node, times, for_us })?;
    for block in 0..8 {
        stage.write_only(0, 0, block % 2, false)?;
    }
    stage.does(Action::Demote(0))?;
    let fine = stage.world.hosts.unanswered[0] == 0 && stage.world.tally.refusals == 0;
    stage.expect("all were answered", fine)?;
    stage.promote(1, false)?;
    stage.until_whole()
}

/// What a node applied before it meets another, which has lost its memory of it, is durable before anything is built on
/// it.
fn met_means_durable(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    for round in 0..3 {
        for block in 0..4 {
            stage.write(0, 0, block + round)?;
        }
        let down_us = 5_000;
        stage.strike(Fault::Power { node: Some(0), down_us })?;
        stage.world.nodes[1].slow = 1_000;
        stage.until("a flush is under way", |world| {
            let mut operations = world.nodes[1].operations.values();
            operations.any(|operation| matches!(operation.work, Work::Flush(_)))
        })?;
        stage.world.nodes[1].slow = 1;
        stage.until("they are in step", |world| {
            let it = &world.nodes[0].volumes[0];
            world.serves_hosts(0) && it.states[0] == PeerState::Established
        })?;
        stage.strike(Fault::Power { node: Some(1), down_us })?;
        stage.until_whole()?;
    }
    Ok(())
}
