//! The link between a filesystem and its volume is cut and comes back; or that between the partners below it.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use super::{Filesystem, Load, Pair, attach, mount};
use crate::daemon;
use crate::scenarios::Scenario;
use crate::stage::Stage;

/// Nobody gives anybody up within this time.
const BRIEF: Duration = Duration::from_secs(1);
/// Longer than partners (`dead_after`, 3 s) and devices (`--answer-timeout`, 10 s) wait for each other.
const LONG: Duration = Duration::from_secs(15);

/// Too short for anybody to notice.
pub const BRIEF_EXT4: Scenario = Scenario {
    name: "cut-brief-ext4",
    about: "the link to the volume is cut for a moment, under a load on ext4: nothing but a pause",
    smoke: true,
    play: |stage| cut(stage, Filesystem::Ext4, BRIEF),
};
/// Everybody has given up everybody.
pub const EXT4: Scenario = Scenario {
    name: "cut-ext4",
    about: "the same for longer than partners and devices wait: nothing but a longer pause",
    smoke: false,
    play: |stage| cut(stage, Filesystem::Ext4, LONG),
};
/// With XFS.
pub const XFS: Scenario = Scenario {
    name: "cut-xfs",
    about: "the same with XFS",
    smoke: false,
    play: |stage| cut(stage, Filesystem::Xfs, LONG),
};
/// The device is where the Primary is: the load goes on without the partner.
pub const PARTNER: Scenario = Scenario {
    name: "cut-partner-ext4",
    about: "the link to the partner is cut, under a load on ext4; in step again, the partner has all of it",
    smoke: false,
    play: partner,
};

fn cut(stage: &Stage, filesystem: Filesystem, length: Duration) -> Result<()> {
    let pair = Pair::new(stage, filesystem)?;
    pair.make(&pair.bravo, "nbd://alpha/db")?;
    let load = Load::begin(&pair.bravo, "load")?;
    stage.link.cut();
    sleep(length);
    stage.link.restore();
    load.goes_on()?;
    stage.note(format!("cut for {length:?}: the load paused for {:.1?}", load.pause()));
    daemon::in_step(&pair.alpha, "bravo")?;
    let written = load.end()?;
    pair.bravo.run("umount /mnt")?;
    mount(&pair.bravo)?;
    pair.prove(&pair.bravo, &written)?;
    pair.same_images()
}

fn partner(stage: &Stage) -> Result<()> {
    let pair = Pair::new(stage, Filesystem::Ext4)?;
    pair.make(&pair.alpha, "db")?;
    let load = Load::begin(&pair.alpha, "load")?;
    stage.link.cut();
    sleep(LONG);
    load.goes_on()?;
    stage.note(format!("cut for {LONG:?}: the load paused for {:.1?}", load.pause()));
    stage.link.restore();
    daemon::in_step(&pair.alpha, "bravo")?;
    let written = load.end()?;
    pair.prove(&pair.alpha, &written)?;
    pair.bravo.run("blockmirror promote db")?;
    attach(&pair.bravo, "db")?;
    mount(&pair.bravo)?;
    pair.prove(&pair.bravo, &written)?;
    pair.same_images()
}
