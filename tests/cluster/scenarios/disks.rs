//! Images that fail: errors, no space, no image, growing ones.

use mirror_core::event::Failure;
use mirror_core::resource::status::LinkState;

use crate::faults::{Action, Cut, DiskFault};
use crate::stage::{LONG_US, Row, Stage, Step};

/// Events until a name that was told is durable, at most.
const PATIENCE_STEPS: usize = 10_000;

/// Names and scripts.
pub const ALL: &[Row] = &[
    ("io-errors", io_errors),
    ("io-errors-diskless", io_errors_diskless),
    ("interrupt-detach", detach_while_busy),
    ("unusual-bios", unusual_bios),
    ("stress-al", stress_al),
    ("allow-remote-read", remote_read),
    ("protocol-a-io", protocol_a),
    ("detach-asynchronous", detach_asynchronous),
    ("diskless", diskless),
    ("withdrawn-name", withdrawn_name),
    ("withdrawn-name-of-one", withdrawn_name_of_one),
    ("resize", resize),
    ("resize-one", resize_refused),
    ("resize-after-new-current", resize_after_new_current),
];

/// Each kind of error on each side: hosts see nothing while the other image is whole, and everything comes back.
fn io_errors(seed: u64) -> Step {
    for what in [
        DiskFault::Write(Failure::Io),
        DiskFault::Read,
        DiskFault::Flush,
        DiskFault::Write(Failure::NoSpace),
    ] {
        for node in 0..2 {
            let mut stage = Stage::new(seed, 2, 1).ready()?;
            stage.disk_fails(node, what)?;
            stage.write(0, 0, 1)?;
            stage.flush(0, 0)?;
            stage.read(0, 0, 1)?;
            stage.write(0, 0, 2)?;
            stage.pass(300_000)?;
            stage.attach_all()?;
            stage
                .until_whole()
                .map_err(|text| format!("{what:?} on {node}: {text}"))?;
        }
    }
    Ok(())
}

/// The image of the Primary fails under a busy host: it never sees an error.
fn io_errors_diskless(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    for block in 0..8 {
        stage.write_only(0, 0, block, false)?;
    }
    stage.disk_fails(0, DiskFault::Write(Failure::Io))?;
    for block in 0..8 {
        stage.write_only(0, 0, block + 3, false)?;
    }
    stage.until("all are answered", |world| world.hosts.unanswered[0] == 0)?;
    stage.expect("no error was seen", stage.world.tally.refusals == 0)?;
    stage.read(0, 0, 4)?;
    stage.attach_all()?;
    stage.until_whole()
}

/// An image is given up with writes under way.
fn detach_while_busy(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    for block in 0..8 {
        stage.write_only(0, 0, block, block == 2)?;
    }
    stage.does(Action::Detach { node: 0, volume: 0 })?;
    stage.until("all are answered", |world| world.hosts.unanswered[0] == 0)?;
    stage.expect("no error was seen", stage.world.tally.refusals == 0)?;
    stage.attach_all()?;
    stage.until_whole()
}

/// Zeroes, trims and long ranges, with and without the peer.
fn unusual_bios(seed: u64) -> Step {
    let stage = Stage::with(seed, 2, 1, |plan| {
        plan.host.requests = 120;
        plan.host.large_percent = 40;
    });
    let mut stage = stage.ready()?;
    stage.world.at(stage.world.now + 1, crate::world::Event::HostRequest);
    stage.until("half of it", |world| world.hosts.submitted >= 60)?;
    stage.break_link(0, 1, Cut::Both, (0, 0), 10_000)?;
    stage.until("hosts are done", |world| {
        world.hosts.submitted >= 120 && world.hosts.is_idle()
    })?;
    stage.until_whole()
}

/// More extents are written than may be hot.
fn stress_al(seed: u64) -> Step {
    let mut stage = Stage::with(seed, 2, 1, |plan| plan.hot_extents = 2).ready()?;
    for block in 0..60 {
        stage.write_only(0, 0, block, false)?;
    }
    stage.until("all are answered", |world| world.hosts.unanswered[0] == 0)?;
    stage.until_whole()
}

/// A sector that cannot be read is read from the peer, and the host sees no error.
fn remote_read(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.write(0, 0, 1)?;
    stage.disk_fails(0, DiskFault::Read)?;
    stage.read(0, 0, 1)?;
    stage.until_whole()
}

/// A busy `async` peer.
fn protocol_a(seed: u64) -> Step {
    let mut stage = Stage::asynchronous(seed, 2);
    stage.world.plan.host.requests = 200;
    stage.world.plan.host.pause_us = 100;
    let mut stage = stage.ready()?;
    stage.world.at(stage.world.now + 1, crate::world::Event::HostRequest);
    stage.until("hosts are done", |world| {
        world.hosts.submitted >= 200 && world.hosts.is_idle()
    })?;
    stage.until_whole()
}

/// All but one node lose their images, the Primary's first: it serves from the one that is left.
fn diskless(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.write(0, 0, 1)?;
    stage.does(Action::Detach { node: 0, volume: 0 })?;
    stage.write(0, 0, 2)?;
    stage.does(Action::Detach { node: 1, volume: 0 })?;
    stage.write(0, 0, 3)?;
    for block in 1..4 {
        stage.read(0, 0, block)?;
    }
    stage.attach_all()?;
    stage.until_whole()
}

/// The volume grows on all nodes under load.
fn resize(seed: u64) -> Step {
    let mut stage = Stage::with(seed, 3, 1, |plan| plan.host.requests = 150).ready()?;
    stage.world.at(stage.world.now + 1, crate::world::Event::HostRequest);
    stage.does(Action::Resize { node: 0, volume: 0 })?;
    let grown = stage.world.plan.layouts[0].grown;
    stage.until("all are larger", move |world| {
        world.nodes.iter().all(|node| node.volumes[0].size == grown)
    })?;
    stage.until("hosts are done", |world| {
        world.hosts.submitted >= 150 && world.hosts.is_idle()
    })?;
    stage.until_whole()
}

/// A peer that is not there cannot grow: nothing changes.
fn resize_refused(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.kill(1)?;
    stage.until("gone", |world| !world.linked(0, 1))?;
    stage.act(Action::Resize { node: 0, volume: 0 })?;
    stage.write(0, 0, 1)?;
    stage.start(1)?;
    if stage.world.nodes[0].volumes[0].size == stage.world.plan.layouts[0].size {
        return stage.until_whole();
    }
    stage.pass(3_000_000)
}

/// The volume grows right after a new generation.
fn resize_after_new_current(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.cut(0, 1)?;
    stage.write(0, 0, 1)?;
    stage.join(0, 1);
    stage.until_whole()?;
    stage.does(Action::Resize { node: 0, volume: 0 })?;
    stage.write(0, 0, 2)?;
    stage.until_whole()
}

/// Nothing is asynchronous any more from the moment at which the Primary's image is to be given up.
fn detach_asynchronous(seed: u64) -> Step {
    let mut stage = Stage::asynchronous(seed, 2).ready()?;
    stage.break_link(0, 1, Cut::Stall, (LONG_US, LONG_US), 100_000)?;
    let action = Action::Detach { node: 0, volume: 0 };
    stage.world.act(action).map_err(|violation| violation.to_string())?;
    stage.pass(10_000)?;
    stage.write_only(0, 0, 1, false)?;
    stage.pass(50_000)?;
    stage.expect("the partner is waited for", stage.world.hosts.unanswered[0] == 1)?;
    stage.until("answers", |world| {
        world.hosts.unanswered[0] == 0 && !world.operator.waits()
    })?;
    stage.expect("the partner has it", stage.holds(1, 0, 1) != 0)?;
    stage.attach_all()?;
    stage.until_whole()
}

/// The image of the Primary fails at a write. Node 1 makes the new name of the data durable and dies before the Primary, which
/// hears nothing from it any more, knows that.
fn dies_with_a_name(stage: &mut Stage) -> Step {
    let before = stage.generation(0);
    stage.break_link(1, 0, Cut::OneWay, (LONG_US, LONG_US), LONG_US)?;
    stage.disk_fails(0, DiskFault::Write(Failure::Io))?;
    stage.write_only(0, 0, 1, false)?;
    for _ in 0..PATIENCE_STEPS {
        if stage.durable(1, 0)? != before {
            break;
        }
        stage.tick()?;
    }
    let name = stage.durable(1, 0)?;
    stage.expect("node 1 has noted another name", name != before)?;
    stage.cut(0, 1)?;
    stage.kill(1)?;
    for other in 2..stage.world.nodes.len() {
        stage.cut(0, other)?;
    }
    stage.expect("nothing is answered", stage.world.hosts.unanswered[0] == 1)?;
    stage.expect("the name is withdrawn", stage.generation(0) == before)
}

/// A partner dies in the moment in which it has noted the name that a Primary without its image gives the data: it comes back,
/// and serves.
fn withdrawn_name(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    dies_with_a_name(&mut stage)?;
    stage.start(1)?;
    stage.join(0, 1);
    stage.until("the write is answered", |world| world.hosts.unanswered[0] == 0)?;
    stage.expect("no error was seen", stage.world.tally.refusals == 0)?;
    stage.attach_all()?;
    stage.until_whole()
}

/// One of two has noted it. The other one comes back first, and takes the one for a node that is behind.
fn withdrawn_name_of_one(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.cut(1, 2)?;
    stage.break_link(0, 2, Cut::Both, (LONG_US, LONG_US), LONG_US)?;
    dies_with_a_name(&mut stage)?;
    stage.join(0, 2);
    stage.until("the write is answered", |world| world.hosts.unanswered[0] == 0)?;
    stage.expect("no error was seen", stage.world.tally.refusals == 0)?;
    stage.start(1)?;
    stage.join(1, 2);
    stage.pass(1_000_000)?;
    let parted = stage.link(1, 2) == Some(LinkState::StandAlone);
    stage.expect("the two wait for the Primary", !parted)?;
    stage.join(0, 1);
    stage.attach_all()?;
    stage.until_whole()
}
