//! The guest with the filesystem is killed, and the other one goes on with it.

use std::time::Instant;

use anyhow::Result;

use super::{Filesystem, Journal, Load, Pair, attach, mount, power_on, promote_by_force};
use crate::daemon;
use crate::scenarios::Scenario;
use crate::stage::Stage;

/// With ext4.
pub const EXT4: Scenario = Scenario {
    name: "takeover-ext4",
    about: "a guest is killed while it writes to ext4; the other one mounts it: every fsynced file is there",
    smoke: true,
    play: |stage| takeover(stage, Filesystem::Ext4),
};
/// With XFS.
pub const XFS: Scenario = Scenario {
    name: "takeover-xfs",
    about: "the same with XFS",
    smoke: false,
    play: |stage| takeover(stage, Filesystem::Xfs),
};
/// The way back.
pub const RETURN: Scenario = Scenario {
    name: "takeover-return-ext4",
    about: "then the killed one boots again, catches up under a load, and takes the role and the filesystem back",
    smoke: false,
    play: way_back,
};

fn takeover(stage: &Stage, filesystem: Filesystem) -> Result<()> {
    let (pair, written) = taken_over(stage, filesystem)?;
    pair.prove(&pair.bravo, &written)
}

fn way_back(stage: &Stage) -> Result<()> {
    let (mut pair, before) = taken_over(stage, Filesystem::Ext4)?;
    let load = Load::begin(&pair.bravo, "after")?;
    pair.alpha = power_on(stage, &pair.alpha)?;
    daemon::in_step(&pair.bravo, "alpha")?;
    pair.alpha
        .run("blockmirror status | grep -E 'resource db .*Secondary'")?;
    let after = load.end()?;
    before.check(&pair.bravo)?;
    pair.prove(&pair.bravo, &after)?;
    pair.alpha.run("blockmirror promote db")?;
    attach(&pair.alpha, "db")?;
    mount(&pair.alpha)?;
    before.check(&pair.alpha)?;
    pair.prove(&pair.alpha, &after)?;
    pair.same_images()
}

/// Alpha is gone, and what it wrote is on `/mnt` of bravo.
fn taken_over(stage: &Stage, filesystem: Filesystem) -> Result<(Pair<'_>, Journal)> {
    let pair = Pair::new(stage, filesystem)?;
    pair.make(&pair.alpha, "db")?;
    let load = Load::begin(&pair.alpha, "before")?;
    load.goes_on()?;
    let killed = Instant::now();
    pair.alpha.kill();
    promote_by_force(&pair.bravo)?;
    let promoted = killed.elapsed();
    attach(&pair.bravo, "db")?;
    mount(&pair.bravo)?;
    let mounted = killed.elapsed();
    stage.note(format!(
        "after the kill: promoted {promoted:.1?}, mounted {mounted:.1?}"
    ));
    let written = load.killed()?;
    written.check(&pair.bravo)?;
    Ok((pair, written))
}
