//! Promotions by force, of what is there and of what can follow.

use crate::faults::{Action, DiskFault, Fault};
use crate::stage::{Row, Stage, Step};

/// Names and scripts.
pub const ALL: &[Row] = &[
    ("declared-in-part", declared_in_part),
    ("promotion-refused-by-one", promotion_refused_by_one),
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
