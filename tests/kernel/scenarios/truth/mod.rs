//! Filesystems on volumes: after whatever happens they are clean, and every file that was fsynced is there.

pub mod crash;
pub mod cut;
pub mod failover;
mod load;
pub mod log;
pub mod power;
pub mod takeover;

use std::sync::Arc;

use anyhow::{Result, ensure};

use self::load::{Journal, Load};
use crate::daemon::{self, PATIENT};
use crate::guest::{Guest, Machine};
use crate::stage::Stage;

/// What is on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filesystem {
    Ext4,
    Xfs,
}

impl Filesystem {
    fn make(self) -> &'static str {
        match self {
            Self::Ext4 => "mkfs.ext4 -q /dev/nbd0",
            Self::Xfs => "mkfs.xfs -q /dev/nbd0",
        }
    }

    /// Succeeds when nothing is wrong with one that was mounted, and its journal played, since it was used last.
    fn check(self) -> &'static str {
        match self {
            Self::Ext4 => "e2fsck -fn /dev/nbd0",
            Self::Xfs => "xfs_repair -n /dev/nbd0",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// Of its volume: XFS is not made smaller than 300 MiB.
    fn bytes(self) -> u64 {
        match self {
            Self::Ext4 => 64 << 20,
            Self::Xfs => 320 << 20,
        }
    }

    /// Bytes of the disk that has the image of it, and more.
    fn home(self) -> u64 {
        self.bytes() + (96 << 20)
    }
}

/// Two partners in step, `alpha` Primary.
struct Pair<'a> {
    stage: &'a Stage,
    filesystem: Filesystem,
    alpha: Arc<Guest>,
    bravo: Arc<Guest>,
}

impl<'a> Pair<'a> {
    fn new(stage: &'a Stage, filesystem: Filesystem) -> Result<Self> {
        let machine = |name| Machine::named(name).disk("home", filesystem.home());
        let (alpha, bravo) = stage.boot_pair(machine("alpha"), machine("bravo"))?;
        daemon::partners(&alpha, &bravo, &format!("{}B", filesystem.bytes()), "", "")?;
        for guest in [&alpha, &bravo] {
            guest.run("modprobe nbd nbds_max=0")?;
        }
        Ok(Self {
            stage,
            filesystem,
            alpha,
            bravo,
        })
    }

    /// A new filesystem on `/dev/nbd0` of `guest`, which is attached to `uris`, and mounted.
    fn make(&self, guest: &Guest, uris: &str) -> Result<()> {
        attach(guest, uris)?;
        guest.run(self.filesystem.make())?;
        mount(guest)
    }

    /// Nothing of what was durable is missing on `/dev/nbd0` of the guest, mounted, and nothing is wrong with the rest, and no
    /// error was seen. Detached at the end.
    fn prove(&self, guest: &Guest, journal: &Journal) -> Result<()> {
        journal.check(guest)?;
        guest.run("umount /mnt")?;
        guest.run(self.filesystem.check())?;
        guest.no_io_error()?;
        guest.run("blockmirror detach /dev/nbd0")?;
        self.stage.note(journal.size());
        Ok(())
    }

    /// At rest, both nodes hold the same.
    fn same_images(&self) -> Result<()> {
        daemon::in_step(&self.bravo, "alpha")?;
        let [one, other] = [&self.alpha, &self.bravo].map(|guest| {
            daemon::stop(guest, "TERM")?;
            guest.run(&format!("sha256sum <{}", daemon::IMAGE))
        });
        ensure!(one? == other?, "the images differ");
        Ok(())
    }
}

/// `/dev/nbd0` of the guest, of an export.
fn attach(guest: &Guest, uris: &str) -> Result<()> {
    guest.until(
        "it is attached",
        PATIENT,
        &format!("blockmirror attach {uris} /dev/nbd0"),
    )
}

/// As a newcomer would, with discards as they come.
fn mount(guest: &Guest) -> Result<()> {
    guest.run("mount -o discard /dev/nbd0 /mnt").map(drop)
}

/// The power of a guest comes back: its daemon runs again.
fn power_on(stage: &Stage, guest: &Guest) -> Result<Arc<Guest>> {
    let guest = stage.reboot(guest)?;
    daemon::home(&guest)?;
    daemon::start(&guest)?;
    guest.run("modprobe nbd nbds_max=0")?;
    Ok(guest)
}

/// The word of an operator who knows that the Primary is gone: what may be lost is accepted as it is told.
fn promote_by_force(guest: &Guest) -> Result<()> {
    let script =
        "said=$(blockmirror promote --force db 2>&1) || eval \"$(grep -o 'blockmirror promote .*' <<<\"$said\")\"";
    guest.until(
        "it is promoted",
        PATIENT,
        &format!("{script} && blockmirror status | grep -E 'resource db .*Primary'"),
    )
}
