//! Promotions by force, of what is there and of what can follow.

use mirror_core::config::AckMode;
use mirror_core::state::LocalDisk;

use crate::faults::{Action, Cut, DiskFault, Fault};
use crate::node::PEERS;
use crate::stage::{LONG_US, Row, Stage, Step};

/// Names and scripts.
pub const ALL: &[Row] = &[
    ("declared-in-part", declared_in_part),
    ("promotion-refused-by-one", promotion_refused_by_one),
    ("behind-the-end-of-a-copy", behind_the_end_of_a_copy),
];

/// A new image that nothing has been copied to yet is declared to be the data, as nobody else is there: it is no later state
/// of what the other has, and that is overwritten by word only.
fn declared_in_part(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.write_fua(0, 0, 1)?;
    stage.does(Action::Demote(0))?;
    stage.cut(0, 1)?;
    let kept = stage.holds(0, 0, 1);
    let (node, volume) = (1, 0);
    stage.does(Action::Detach { node, volume })?;
    let replaced = true;
    stage.does(Action::Attach { node, volume, replaced })?;
    stage.promote(1, true)?;
    stage.write_fua(1, 0, 2)?;
    stage.join(0, 1);
    stage.until_split(0, 1)?;
    stage.expect("the other's data is not touched", stage.holds(0, 0, 1) == kept)?;
    stage.gives_up(0, 1)?;
    stage.until_whole()
}

/// The metadata of one volume cannot be written when its node is promoted: that is refused, and the others keep the names they
/// have, so that the next meeting does not find one volume newer here and another there.
fn promotion_refused_by_one(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 3).ready()?;
    let volume = (seed % 3) as usize;
    stage.cut(0, 1)?;
    let names = |stage: &mut Stage| {
        (0..3)
            .map(|volume| stage.durable(1, volume))
            .collect::<Result<Vec<_>, _>>()
    };
    let before = names(&mut stage)?;
    let (node, what) = (1, DiskFault::Metadata);
    stage.strike(Fault::DiskFails { node, volume, what })?;
    stage.refuses(Action::Promote { node: 1, force: true })?;
    stage.pass(100_000)?;
    let unchanged = names(&mut stage)? == before;
    stage.expect("nothing has another name", unchanged)?;
    stage.join(0, 1);
    let restart = stage.world.act(Action::Restart(1));
    restart.map_err(|violation| violation.to_string())?;
    stage.until_whole()
}

/// An asynchronous Primary has said that a copy is complete, answers a write that waits behind that word, and dies. The word
/// arrives, the write does not: it is given up by the operator who promotes the other node by force, as what is on its way to
/// an asynchronous partner ever is.
fn behind_the_end_of_a_copy(seed: u64) -> Step {
    let mut stage = Stage::with(seed, 2, 1, |plan| {
        (plan.mode, plan.credit) = (AckMode::Async, (64 << 20, 1));
    })
    .ready()?;
    stage.cut(0, 1)?;
    stage.write_fua(0, 0, 1)?;
    stage.write_fua(0, 0, 2)?;
    stage.world.nodes[0].volumes[0].end_said = [None; PEERS];
    stage.join(0, 1);
    stage.until("word that the copy is complete is on its way", |world| {
        let waiting = world.nodes[0].links[0].outflow.waiting();
        world.nodes[0].volumes[0].end_said[0].is_some() && waiting == 0
    })?;
    stage.break_link(0, 1, Cut::Stall, (LONG_US, LONG_US), 50_000)?;
    stage.write_fua(0, 0, 2)?;
    let answered = stage.holds(0, 0, 2);
    stage.expect(
        "it has not been heard",
        stage.world.nodes[1].volumes[0].copied.is_none(),
    )?;
    stage.kill(0)?;
    stage.until("it is heard", |world| {
        let mirror = world.nodes[1].volumes[0].mirror.as_ref();
        mirror.is_some_and(|mirror| mirror.disk() == LocalDisk::UpToDate)
    })?;
    stage.expect("the write is lost", stage.holds(1, 0, 2) != answered)?;
    stage.until("its end is seen", |world| !world.linked(0, 1))?;
    stage.refuses(Action::Promote { node: 1, force: false })?;
    stage.promote(1, true)?;
    stage.start(0)?;
    stage.until_whole()
}
