//! The guest with the filesystem loses its power, and goes on with it.

use anyhow::Result;

use super::{Filesystem, Load, Pair, attach, mount, power_on};
use crate::daemon;
use crate::scenarios::Scenario;
use crate::stage::Stage;

/// With ext4.
pub const EXT4: Scenario = Scenario {
    name: "power-ext4",
    about: "the power of the Primary goes under a load on ext4; booted again every fsynced file is there",
    smoke: false,
    play: |stage| primary(stage, Filesystem::Ext4),
};
/// With XFS.
pub const XFS: Scenario = Scenario {
    name: "power-xfs",
    about: "the same with XFS",
    smoke: false,
    play: |stage| primary(stage, Filesystem::Xfs),
};
/// Nobody is left who knows what was written.
pub const BOTH: Scenario = Scenario {
    name: "power-both-ext4",
    about: "the power of both nodes goes; booted again, the same",
    smoke: false,
    play: both,
};
/// The guest that has the device, and the partner, are one.
pub const HOST: Scenario = Scenario {
    name: "power-host-ext4",
    about: "the power of the Secondary goes, which writes to ext4 on the Primary's volume; the same",
    smoke: false,
    play: host,
};

fn primary(stage: &Stage, filesystem: Filesystem) -> Result<()> {
    let mut pair = Pair::new(stage, filesystem)?;
    pair.make(&pair.alpha, "db")?;
    let load = Load::begin(&pair.alpha, "load")?;
    load.goes_on()?;
    pair.alpha.kill();
    let written = load.killed()?;
    pair.alpha = power_on(stage, &pair.alpha)?;
    // It takes its role again when its partner has told that nobody else has it.
    attach(&pair.alpha, "db")?;
    mount(&pair.alpha)?;
    pair.prove(&pair.alpha, &written)?;
    daemon::in_step(&pair.alpha, "bravo")?;
    pair.same_images()
}

fn host(stage: &Stage) -> Result<()> {
    let mut pair = Pair::new(stage, Filesystem::Ext4)?;
    pair.make(&pair.bravo, "nbd://alpha/db")?;
    let load = Load::begin(&pair.bravo, "load")?;
    load.goes_on()?;
    pair.bravo.kill();
    let written = load.killed()?;
    pair.bravo = power_on(stage, &pair.bravo)?;
    attach(&pair.bravo, "nbd://alpha/db")?;
    mount(&pair.bravo)?;
    pair.prove(&pair.bravo, &written)?;
    daemon::in_step(&pair.alpha, "bravo")?;
    pair.same_images()
}

fn both(stage: &Stage) -> Result<()> {
    let mut pair = Pair::new(stage, Filesystem::Ext4)?;
    pair.make(&pair.alpha, "db")?;
    let load = Load::begin(&pair.alpha, "load")?;
    load.goes_on()?;
    pair.alpha.kill();
    pair.bravo.kill();
    let written = load.killed()?;
    pair.alpha = power_on(stage, &pair.alpha)?;
    pair.bravo = power_on(stage, &pair.bravo)?;
    attach(&pair.alpha, "db")?;
    mount(&pair.alpha)?;
    pair.prove(&pair.alpha, &written)?;
    daemon::in_step(&pair.alpha, "bravo")?;
    pair.same_images()
}
