//! The daemon that serves a filesystem dies and is started again.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use super::{Filesystem, Load, Pair, mount};
use crate::daemon;
use crate::scenarios::Scenario;
use crate::stage::Stage;

/// Between its end and its start.
const AWAY: Duration = Duration::from_secs(2);

/// With ext4.
pub const EXT4: Scenario = Scenario {
    name: "crash-ext4",
    about: "kill -9 of the daemon under a load on ext4, twice, started again each time: nothing but pauses",
    smoke: false,
    play: |stage| crash(stage, Filesystem::Ext4),
};
/// With XFS.
pub const XFS: Scenario = Scenario {
    name: "crash-xfs",
    about: "the same with XFS",
    smoke: false,
    play: |stage| crash(stage, Filesystem::Xfs),
};

fn crash(stage: &Stage, filesystem: Filesystem) -> Result<()> {
    let pair = Pair::new(stage, filesystem)?;
    pair.make(&pair.alpha, "db")?;
    let load = Load::begin(&pair.alpha, "load")?;
    for _ in 0..2 {
        daemon::stop(&pair.alpha, "KILL")?;
        sleep(AWAY);
        daemon::start(&pair.alpha)?;
        load.goes_on()?;
        stage.note(format!("away for {AWAY:?}: the load paused for {:.1?}", load.pause()));
    }
    daemon::in_step(&pair.alpha, "bravo")?;
    let written = load.end()?;
    pair.alpha.run("umount /mnt")?;
    mount(&pair.alpha)?;
    pair.prove(&pair.alpha, &written)?;
    pair.same_images()
}
