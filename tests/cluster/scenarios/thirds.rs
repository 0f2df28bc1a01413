//! What two nodes do behind the back of a third.

use std::cell::Cell;

use mirror_core::event::PeerIndex;
use mirror_core::state::{LocalDisk, PeerState};

use crate::faults::{Action, Cut, Fault};
use crate::node::peer_of;
use crate::stage::{LONG_US, Row, Stage, Step};
use crate::world::World;

/// Names and scripts.
pub const ALL: &[Row] = &[
    ("left-behind-unnoticed", left_behind_unnoticed),
    ("left-behind-after-a-copy", left_behind_after_a_copy),
    ("data-passed-on", data_passed_on),
    ("record-of-another-line", record_of_another_line),
    ("promoted-at-the-same-moment", promoted_at_the_same_moment),
    ("chain-of-copies", chain_of_copies),
    ("one-source-at-a-time", one_source_at_a_time),
    ("told-and-lost", told_and_lost),
    ("first-meetings", first_meetings),
    ("no-peer-of-the-primary", no_peer_of_the_primary),
    ("answers-lost-with-an-image", answers_lost_with_an_image),
];

/// Two Secondaries are in step when the Primary goes on without one of them: they take note of it, so that the one left
/// behind has everything once the Primary is gone.
fn left_behind_unnoticed(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.cut(0, 2)?;
    stage.write_fua(0, 0, 1)?;
    left_behind_has_it(&mut stage, 0, 1)
}

/// The same between two nodes that had to copy when they met, one of them as Primary: since the copy has ended they are in
/// step, whatever they had said to each other.
fn left_behind_after_a_copy(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.cut(0, 2)?;
    stage.write_fua(0, 0, 1)?;
    stage.join(0, 2);
    stage.until_whole()?;
    stage.cut(1, 2)?;
    stage.promote(1, false)?;
    stage.write_fua(1, 0, 2)?;
    left_behind_has_it(&mut stage, 1, 2)
}

/// The Primary of a reign that went on without 2 dies; what it wrote to this block is with 2 once that is Primary.
fn left_behind_has_it(stage: &mut Stage, primary: usize, block: usize) -> Step {
    let written = stage.holds(primary, 0, block);
    stage.kill(primary)?;
    stage.until("its end is seen", |world| !world.linked(0, 1))?;
    stage.pass(5_000_000)?;
    stage.act(Action::Promote { node: 2, force: true })?;
    stage.until("hosts may write", |world| world.serves_hosts(2))?;
    stage.expect("the write is there", stage.holds(2, 0, block) == written)?;
    stage.join(primary, 2);
    stage.start(primary)?;
    stage.until_whole()
}

/// A partner that was away for a moment has given its data, and their name, to a node that the Primary believes behind.
fn data_passed_on(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.cut(0, 2)?;
    stage.write(0, 0, 1)?;
    stage.flush(0, 0)?;
    stage.cut(0, 1)?;
    stage.until("2 has it from 1", |world| {
        let it = &world.nodes[2].volumes[0];
        let generation = |node: usize| {
            world.nodes[node].volumes[0]
                .mirror
                .as_ref()
                .map(mirror_core::Mirror::generation)
        };
        !it.partial && generation(2) == generation(0)
    })?;
    stage.pass(100_000)?;
    stage.join(0, 1);
    stage.until("1 is back", |world| world.is_connected(0, 1))?;
    stage.write(0, 0, 2)?;
    stage.join(0, 2);
    stage.until_whole()
}

/// A node gave its data up for another's. What it knew of a third node, which has the data that were given up, is not
/// known of the data it has now: the third was not given up.
fn record_of_another_line(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.cut(0, 1)?;
    stage.cut(0, 2)?;
    stage.promote(1, true)?;
    stage.until("2 follows", |world| {
        world.is_connected(1, 2) && !world.nodes[2].volumes[0].partial
    })?;
    stage.write_fua(1, 0, 1)?;
    let kept = stage.holds(2, 0, 1);
    stage.cut(1, 2)?;
    stage.write_fua(1, 0, 2)?;
    stage.write_fua(0, 0, 3)?;
    stage.does(Action::Demote(1))?;
    stage.join(0, 1);
    stage.until_split(0, 1)?;
    stage.gives_up(1, 0)?;
    stage.until("1 has what 0 has", |world| {
        world.is_connected(0, 1) && !world.nodes[1].volumes[0].partial
    })?;
    stage.promote(1, false)?;
    stage.join(1, 2);
    stage.until_split(1, 2)?;
    stage.expect("nobody's data is touched", stage.holds(2, 0, 1) == kept)
}

/// Two nodes are promoted while nothing that they say arrives: there is never more than one Primary.
fn promoted_at_the_same_moment(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.does(Action::Demote(0))?;
    stage.pass(100_000)?;
    stage.break_link(1, 2, Cut::Stall, (LONG_US, LONG_US), 40_000)?;
    for node in [1, 2] {
        let action = Action::Promote { node, force: false };
        stage.world.act(action).map_err(|violation| violation.to_string())?;
    }
    let most = Cell::new(0);
    stage.until("answers", |world| {
        most.set(most.get().max(world.primaries()));
        !world.operator.waits()
    })?;
    stage.expect("never two", most.get() <= 1)?;
    stage.join(1, 2);
    if stage.world.primaries() == 0 {
        stage.pass(6_000_000)?;
    }
    if stage.world.primaries() == 0 {
        stage.promote(1, true)?;
    }
    stage.until_whole()
}

/// A node that is copied to is a source itself: it ends that first, for nobody is copied to from an image that is not
/// whole.
fn chain_of_copies(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.cut(0, 1)?;
    stage.cut(1, 2)?;
    stage.write_fua(0, 0, 1)?;
    stage.cut(0, 2)?;
    for block in 2..6 {
        stage.write_fua(0, 0, block)?;
    }
    stage.does(Action::Demote(0))?;
    let (node, times, for_us) = (1, 100, 2_000_000);
    stage.strike(Fault::Slow { node, times, for_us })?;
    stage.join(1, 2);
    let source = |world: &World, node: usize, to: usize| {
        world.nodes[node].volumes[0].states[peer_of(node, to)] == PeerState::SyncSource
    };
    stage.until("2 is copied to 1", |world| source(world, 2, 1))?;
    stage.join(0, 2);
    let mixed = Cell::new(false);
    stage.until("2 has what 0 has", |world| {
        let whole =
            world.nodes[2].volumes[0].mirror.as_ref().map(mirror_core::Mirror::disk) == Some(LocalDisk::UpToDate);
        mixed.set(mixed.get() || (source(world, 2, 1) && !whole));
        source(world, 0, 2) || mixed.get()
    })?;
    stage.until("it has been copied", |world| {
        let whole =
            world.nodes[2].volumes[0].mirror.as_ref().map(mirror_core::Mirror::disk) == Some(LocalDisk::UpToDate);
        mixed.set(mixed.get() || (source(world, 2, 1) && !whole));
        whole
    })?;
    stage.expect("nothing was copied from a part", !mixed.get())?;
    stage.until("1 has it from 2", |world| {
        let generation = |node: usize| {
            world.nodes[node].volumes[0]
                .mirror
                .as_ref()
                .map(mirror_core::Mirror::generation)
        };
        !world.nodes[1].volumes[0].partial && generation(1) == generation(2)
    })?;
    stage.join(0, 1);
    stage.pass(2_000_000)?;
    stage.promote(0, true)?;
    stage.until_whole()
}

/// Two nodes have what a third lacks: one of them at a time copies to it.
fn one_source_at_a_time(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.cut(0, 2)?;
    stage.cut(1, 2)?;
    for block in 0..4 {
        stage.write_fua(0, 0, block)?;
    }
    stage.does(Action::Demote(0))?;
    let (node, times, for_us) = (2, 100, 2_000_000);
    stage.strike(Fault::Slow { node, times, for_us })?;
    stage.join(0, 2);
    stage.join(1, 2);
    let (most, connections) = (Cell::new(0), stage.world.tally.connections);
    stage.until("it has been copied", |world| {
        let sources = (0..2).filter(|&node| world.nodes[node].volumes[0].states[1] == PeerState::SyncSource);
        most.set(most.get().max(sources.count()));
        most.get() > 0 && !world.nodes[2].volumes[0].partial
    })?;
    stage.expect("from one at a time", most.get() == 1)?;
    // One that comes does not drive the other away, again and again.
    let made = stage.world.tally.connections - connections;
    stage.expect("in peace", made < 12)?;
    stage.promote(0, true)?;
    stage.until_whole()
}

/// The Primary's new name for the data has reached a node, its answer has not come back when the link breaks: the Primary
/// takes it to have the name, and what comes then gets another.
fn told_and_lost(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.flush(0, 0)?;
    stage.cut(0, 2)?;
    let before = stage.durable(1, 0)?;
    stage.write_only(0, 0, 1, false)?;
    while stage.durable(1, 0)? == before {
        stage.tick()?;
    }
    stage.break_link(0, 1, Cut::Both, (0, 0), LONG_US)?;
    stage.until("it is answered", |world| world.hosts.unanswered[0] == 0)?;
    stage.write(0, 0, 2)?;
    stage.join(0, 1);
    stage.join(0, 2);
    stage.until_whole()
}

/// Three nodes meet for the first time while one of them becomes Primary and copies to the others, in a dozen orders of events:
/// what each says of itself changes in the middle of handshakes. Then one is left behind, and what it knows of the others is
/// put to the test.
fn first_meetings(seed: u64) -> Step {
    for order in 0..12 {
        left_behind_unnoticed(seed * 12 + order)?;
    }
    Ok(())
}

/// A node that the Primary knows no more hears nothing from it. Its other peer, which does, brings it what it lacks once that
/// is Primary, and does not take it to be in step because nobody has said that it is not.
fn no_peer_of_the_primary(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    // The two meet anew, now that they have the same data.
    stage.cut(1, 2)?;
    stage.join(1, 2);
    stage.until("1 and 2 have met", |world| world.is_connected(1, 2))?;
    stage.pass(100_000)?;
    stage.cut(0, 1)?;
    stage.does(Action::Remove { node: 0, peer: 1 })?;
    stage.write_fua(0, 0, 1)?;
    let written = stage.holds(0, 0, 1);
    stage.promote(2, false)?;
    stage.until("1 is in step with 2", |world| {
        world.is_connected(1, 2) && !world.nodes[1].volumes[0].partial
    })?;
    stage.until("nothing is left to copy", |world| {
        let mirror = world.nodes[2].volumes[0].mirror.as_ref();
        mirror.is_some_and(|mirror| mirror.dirty_runs(PeerIndex(1), 0, 1).is_empty())
    })?;
    stage.expect("the write is there", stage.holds(1, 0, 1) == written)
}

/// An asynchronous Primary has answered what nobody else has got, dies, and is given a new image, which another node fills by
/// the same name. Everybody is together and whole, and none becomes Primary without a word, also after a power loss.
fn answers_lost_with_an_image(seed: u64) -> Step {
    let mut stage = Stage::asynchronous(seed, 3).ready()?;
    stage.write_fua(0, 0, 1)?;
    stage.pass(300_000)?;
    for other in [1, 2] {
        stage.break_link(0, other, Cut::Both, (LONG_US, 2_000), LONG_US)?;
    }
    stage.write_fua(0, 0, 1)?;
    stage.strike(Fault::Kill {
        node: 0,
        down_us: 5_000,
    })?;
    stage.until("the node is up", |world| world.nodes[0].is_up())?;
    let (node, volume, replaced) = (0, 0, true);
    stage.does(Action::Detach { node, volume })?;
    stage.does(Action::Attach { node, volume, replaced })?;
    stage.join(0, 1);
    stage.until("filled", |world| {
        let mirror = world.nodes[0].volumes[0].mirror.as_ref();
        mirror.is_some_and(|mirror| mirror.disk() == LocalDisk::UpToDate)
    })?;
    let (node, down_us) = (None, 1_000);
    stage.strike(Fault::Power { node, down_us })?;
    stage.join(0, 2);
    for node in 0..3 {
        stage.until("together", |world| {
            [(0, 1), (0, 2), (1, 2)]
                .iter()
                .all(|&(one, other)| world.is_connected(one, other))
        })?;
        stage.refuses(Action::Promote { node, force: false })?;
    }
    stage.promote(2, true)?;
    stage.until_whole()
}
