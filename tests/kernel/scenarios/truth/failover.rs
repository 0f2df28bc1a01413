//! A device that is attached to both nodes outlives the one that is Primary.

use std::time::Instant;

use anyhow::Result;

use super::{Filesystem, Load, Pair, promote_by_force};
use crate::scenarios::Scenario;
use crate::stage::Stage;

/// The export, wherever it is served.
const ANYWHERE: &str = "nbd://alpha/db,nbd://bravo/db";

/// With ext4.
pub const EXT4: Scenario = Scenario {
    name: "failover-ext4",
    about: "the Primary is killed, the node with the device is promoted: for the load on ext4 that is a pause",
    smoke: false,
    play: failover,
};

fn failover(stage: &Stage) -> Result<()> {
    let pair = Pair::new(stage, Filesystem::Ext4)?;
    pair.make(&pair.bravo, ANYWHERE)?;
    let load = Load::begin(&pair.bravo, "load")?;
    let killed = Instant::now();
    pair.alpha.kill();
    promote_by_force(&pair.bravo)?;
    let promoted = killed.elapsed();
    load.goes_on()?;
    stage.note(format!(
        "after the kill: promoted {promoted:.1?}; the load paused for {:.1?}",
        load.pause()
    ));
    let written = load.end()?;
    pair.prove(&pair.bravo, &written)
}
