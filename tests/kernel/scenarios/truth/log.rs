//! What the disk below a volume holds after every flush: dm-log-writes tells it (`replay-log`).

use std::time::Duration;

use anyhow::Result;

use super::{Filesystem, Load, Pair, attach, mount};
use crate::daemon::{self, PATIENT};
use crate::guest::{Guest, Machine};
use crate::scenarios::Scenario;
use crate::stage::Stage;

/// For all points.
const REPLAY: Duration = Duration::from_secs(500);
const LOG_BYTES: u64 = 1 << 30;
const LOGGED: &str = "logged";

/// The disk of the Primary, with ext4.
pub const EXT4: Scenario = Scenario {
    name: "flushes-ext4",
    about: "at every flush point of the Primary's disk ext4 is clean, and every file that was fsynced by then is there",
    smoke: false,
    play: |stage| play(stage, Filesystem::Ext4, "alpha", "sync", "files"),
};
/// With XFS.
pub const XFS: Scenario = Scenario {
    name: "flushes-xfs",
    about: "the same with XFS",
    smoke: false,
    play: |stage| play(stage, Filesystem::Xfs, "alpha", "sync", "files"),
};
/// That of the partner.
pub const PARTNER: Scenario = Scenario {
    name: "flushes-partner-ext4",
    about: "at every flush point of the Secondary's disk (sync) the same",
    smoke: false,
    play: |stage| play(stage, Filesystem::Ext4, "bravo", "sync", "files"),
};
/// It may be behind, but never in disorder.
pub const BEHIND: Scenario = Scenario {
    name: "flushes-async-ext4",
    about: "at every flush point of the Secondary's disk (async) ext4 is clean",
    smoke: false,
    play: |stage| play(stage, Filesystem::Ext4, "bravo", "async", ""),
};

/// `user` has the load and the logged disk; `files`: fsynced ones are looked for at every point.
fn play(stage: &Stage, filesystem: Filesystem, user: &str, mode: &str, files: &str) -> Result<()> {
    let pair = pair(stage, filesystem, user, mode)?;
    let user = if user == "alpha" { &pair.alpha } else { &pair.bravo };
    attach(user, "nbd://alpha/db")?;
    user.run(filesystem.make())?;
    mount(user)?;
    if mode == "async" {
        // A superblock that counts a mount was written after the filesystem was made, and made durable.
        let counted = format!("dumpe2fs -h /dev/mapper/{LOGGED} | grep -E '^Mount count: +1$'");
        user.until("the partner has the filesystem", PATIENT, &counted)?;
    }
    user.run(&format!("sync -f /mnt; dmsetup message {LOGGED} 0 mark begin"))?;
    let written = Load::begin_marking(user, LOGGED)?.end()?;
    pair.prove(user, &written)?;
    daemon::in_step(&pair.alpha, "bravo")?;
    daemon::stop(user, "TERM")?;
    let name = filesystem.name();
    let points = user.run_for(
        &format!(
            "dmsetup remove {LOGGED}; modprobe loop; truncate -s {} /tmp/image
            replay-log $(realpath /dev/disk/by-id/virtio-log) /tmp/image /scenarios/point {name} /tmp/image {files}",
            filesystem.bytes()
        ),
        REPLAY,
    )?;
    stage.note(format!("{name} at {points} of the log"));
    Ok(())
}

/// Partners of which `user` has its image on a disk with a log.
fn pair<'a>(stage: &'a Stage, filesystem: Filesystem, user: &str, mode: &str) -> Result<Pair<'a>> {
    let machine = |name| match Machine::named(name).disk("home", filesystem.home()) {
        machine if name == user => machine.disk("data", filesystem.bytes()).disk("log", LOG_BYTES),
        machine => machine,
    };
    let (alpha, bravo) = stage.boot_pair(machine("alpha"), machine("bravo"))?;
    for guest in [&alpha, &bravo] {
        guest.run("modprobe nbd nbds_max=0; modprobe dm-log-writes")?;
        if guest.machine().name == user {
            guest.run(&format!(
                "cd /dev/disk/by-id; sectors=$(blockdev --getsz virtio-data)
                dmsetup create {LOGGED} --table \"0 $sectors log-writes $(realpath virtio-data) $(realpath virtio-log)\""
            ))?;
        }
    }
    let volume = |guest: &Guest| {
        if guest.machine().name == user {
            format!("image = \"/dev/mapper/{LOGGED}\"\nmetadata = \"/var/lib/blockmirror/db.metadata\"")
        } else {
            format!("image = \"{}\"\nsize = {}", daemon::IMAGE, filesystem.bytes())
        }
    };
    daemon::partners_with(&alpha, &bravo, volume, &format!("mode = \"{mode}\""), "")?;
    Ok(Pair {
        stage,
        filesystem,
        alpha,
        bravo,
    })
}
