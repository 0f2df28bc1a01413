//! Generations: split brain, older data restored, replaced images, a Primary without an image.

use mirror_core::state::PeerState;

use crate::faults::Action;
use crate::node::peer_of;
use crate::stage::{Row, Stage, Step};

/// Names and scripts.
pub const ALL: &[Row] = &[
    ("split-brain", split_brain),
    ("split-brain-one-writes", split_brain_one_writes),
    ("revert-older-data", revert_older_data),
    ("resync-snapshot", resync_snapshot),
    ("pre-existing-data", pre_existing_data),
    ("recreate-node-day0", recreate_node),
    ("recreate-node-day0-diskless", recreate_node_diskless),
    ("storage-migration-uuid", recreate_node),
    ("diskless-primary-uuid-bump", diskless_primary_bump),
    ("diskless-primary-lost-peer-same-uuid", diskless_primary_lost_peer),
    ("diskless-primary-split-brain", diskless_primary_split_brain),
    ("uuid-detach-resync", uuid_detach_resync),
    ("uuid-disconnect-resync", uuid_disconnect_resync),
    ("diskless-connect-older", diskless_connect_older),
    ("toggle-disk", toggle_disk),
];

/// Both write while apart: both see it, nobody's data is touched until an operator says whose goes.
fn split_brain(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 2).ready()?;
    stage.cut(0, 1)?;
    stage.promote(1, true)?;
    stage.write_fua(0, 0, 1)?;
    stage.write_fua(1, 0, 2)?;
    let (kept, lost) = (stage.holds(0, 0, 1), stage.holds(1, 0, 2));
    stage.does(Action::Demote(1))?;
    stage.join(0, 1);
    stage.until_split(0, 1)?;
    stage.expect(
        "nobody's data is touched",
        stage.holds(0, 0, 1) == kept && stage.holds(1, 0, 2) == lost,
    )?;
    stage.does(Action::Connect {
        node: 1,
        to: 0,
        discard: true,
    })?;
    stage.act(Action::Connect {
        node: 0,
        to: 1,
        discard: false,
    })?;
    stage.until_whole()?;
    stage.expect("what was discarded is in the branch", stage.world.tally.saved > 0)?;
    stage.expect("the survivor's write is there", stage.holds(1, 0, 1) == kept)
}

/// Only one of two Primaries wrote: still nobody is overwritten without a word.
fn split_brain_one_writes(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.cut(0, 1)?;
    stage.write_fua(0, 0, 1)?;
    stage.promote(1, true)?;
    stage.does(Action::Demote(0))?;
    stage.does(Action::Demote(1))?;
    let kept = stage.holds(0, 0, 1);
    stage.join(0, 1);
    stage.pass(3_000_000)?;
    stage.expect("the acknowledged write is still there", stage.holds(0, 0, 1) == kept)
}

/// An image is rolled back together with its metadata: the other's data comes back to it.
fn revert_older_data(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.flush(0, 0)?;
    let snapshot = stage.snapshot(1);
    stage.write_fua(0, 0, 1)?;
    // They have met again since, more than once.
    for _ in 0..2 {
        stage.cut(0, 1)?;
        stage.join(0, 1);
        stage.until_whole()?;
    }
    stage.kill(1)?;
    stage.revert(1, snapshot);
    stage.start(1)?;
    stage.until_whole()?;
    stage.expect("the write is there", stage.same(0, 1))
}

/// A node starts from a copy of the other's image and metadata of its own: only differences are copied.
fn resync_snapshot(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    for block in 0..4 {
        stage.write_fua(0, 0, block)?;
    }
    stage.kill(1)?;
    stage.replace_node(1, true);
    stage.write(0, 0, 5)?;
    stage.start(1)?;
    stage.until_whole()?;
    stage.expect("most of it was found equal", stage.world.tally.equal > 0)
}

/// Both images hold something before anybody declared data: the one that is promoted counts.
fn pre_existing_data(seed: u64) -> Step {
    let stage = Stage::with(seed, 3, 1, |plan| plan.equal = false);
    let mut stage = stage.ready()?;
    stage.expect("all are equal", stage.same(0, 1) && stage.same(0, 2))?;
    stage.write(0, 0, 1)?;
    stage.until_whole()
}

/// A node comes back with an empty image and new metadata: it gets everything.
fn recreate_node(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.write(0, 0, 1)?;
    stage.kill(1)?;
    stage.write(0, 0, 2)?;
    stage.replace_node(1, false);
    stage.start(1)?;
    stage.until_whole()?;
    stage.expect("equal", stage.same(0, 1))
}

/// The same beside a Primary without an image: a third node has everything.
fn recreate_node_diskless(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.write(0, 0, 1)?;
    stage.does(Action::Detach { node: 0, volume: 0 })?;
    stage.kill(2)?;
    stage.write(0, 0, 2)?;
    stage.replace_node(2, false);
    stage.start(2)?;
    stage.until("it is back", |world| world.linked(0, 2))?;
    stage.write(0, 0, 3)?;
    stage.read(0, 0, 2)?;
    stage.attach_all()?;
    stage.until_whole()?;
    stage.expect("equal", stage.same(0, 2) && stage.same(1, 2))
}

/// Two Primaries write without images of their own, each with a partner that stands in: the partners see that they differ.
fn diskless_primary_split_brain(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 4, 1).ready()?;
    let between = [(0, 1), (0, 3), (1, 2), (2, 3)];
    for (one, other) in between {
        stage.cut(one, other)?;
    }
    stage.does(Action::Detach { node: 0, volume: 0 })?;
    stage.promote(1, true)?;
    stage.until("3 has everything", |world| {
        let theirs = world.nodes[1].volumes[0].states[peer_of(1, 3)];
        theirs == PeerState::Established
    })?;
    stage.does(Action::Detach { node: 1, volume: 0 })?;
    stage.write_fua(0, 0, 1)?;
    stage.write_fua(1, 0, 1)?;
    let held = (stage.holds(2, 0, 1), stage.holds(3, 0, 1));
    stage.expect("each has its Primary's write", held.0 != held.1)?;
    stage.does(Action::Demote(1))?;
    for (one, other) in between {
        stage.join(one, other);
    }
    stage.until_split(2, 3)?;
    let now = (stage.holds(2, 0, 1), stage.holds(3, 0, 1));
    stage.expect("nobody's data is touched", now == held)
}

/// A Primary without an image writes while a peer is away: that peer is behind, and the one that is there is not.
fn diskless_primary_bump(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.does(Action::Detach { node: 0, volume: 0 })?;
    let before = stage.generation(1);
    stage.cut(0, 2)?;
    stage.write(0, 0, 1)?;
    stage.expect("a new generation", stage.generation(1) != before)?;
    let once = stage.generation(1);
    stage.write(0, 0, 2)?;
    stage.expect("one for one absence", stage.generation(1) == once)?;
    stage.join(0, 2);
    stage.does(Action::Attach {
        node: 0,
        volume: 0,
        replaced: false,
    })?;
    stage.until_whole()
}

/// The peer that serves a Primary without an image goes away and comes back.
fn diskless_primary_lost_peer(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.does(Action::Detach { node: 0, volume: 0 })?;
    stage.write_fua(0, 0, 1)?;
    stage.cut(0, 1)?;
    stage.join(0, 1);
    stage.until("connected again", |world| world.is_connected(0, 1))?;
    stage.pass(500_000)?;
    stage.write(0, 0, 2)?;
    stage.does(Action::Attach {
        node: 0,
        volume: 0,
        replaced: false,
    })?;
    stage.until_whole()
}

/// The image is detached, writes go on, it is attached again: only what was written meanwhile is copied.
fn uuid_detach_resync(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.does(Action::Detach { node: 0, volume: 0 })?;
    for block in 0..3 {
        stage.write(0, 0, block)?;
    }
    stage.read(0, 0, 1)?;
    stage.does(Action::Attach {
        node: 0,
        volume: 0,
        replaced: false,
    })?;
    stage.read(0, 0, 2)?;
    stage.until_whole()
}

/// The peer is gone, in order or not, and writes go on: it gets what it missed.
fn uuid_disconnect_resync(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    if seed.is_multiple_of(2) {
        stage.does(Action::Disconnect { node: 1, from: 0 })?;
    } else {
        stage.kill(1)?;
    }
    stage.until("gone", |world| !world.linked(0, 1))?;
    let before = stage.generation(0);
    stage.write(0, 0, 1)?;
    stage.expect("a new generation", stage.generation(0) != before)?;
    stage.expect("little is dirty", stage.dirty(0, 1) <= 2)?;
    if seed.is_multiple_of(2) {
        stage.act(Action::Connect {
            node: 1,
            to: 0,
            discard: false,
        })?;
        stage.act(Action::Connect {
            node: 0,
            to: 1,
            discard: false,
        })?;
    } else {
        stage.start(1)?;
    }
    stage.until_whole()
}

/// A node with older data meets a Primary without an image first: it is not read from.
fn diskless_connect_older(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.cut(0, 2)?;
    stage.cut(1, 2)?;
    stage.write(0, 0, 1)?;
    stage.does(Action::Detach { node: 0, volume: 0 })?;
    stage.join(0, 2);
    stage.pass(1_000_000)?;
    stage.read(0, 0, 1)?;
    stage.join(1, 2);
    stage.does(Action::Attach {
        node: 0,
        volume: 0,
        replaced: false,
    })?;
    stage.until_whole()
}

/// An image goes and comes, with and without writes, the same one and a new one.
fn toggle_disk(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    for round in 0..3 {
        stage.does(Action::Detach { node: 0, volume: 0 })?;
        if round != 1 {
            stage.write(0, 0, round)?;
        }
        let replaced = round == 2;
        stage.does(Action::Attach {
            node: 0,
            volume: 0,
            replaced,
        })?;
        stage.read(0, 0, round)?;
        stage.until_whole()?;
    }
    stage.expect("equal", stage.same(0, 1))
}
