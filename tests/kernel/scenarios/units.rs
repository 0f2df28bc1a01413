//! The units and rules of `configs`, in a guest whose first process is systemd.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Scenario;
use crate::daemon::{self, PATIENT};
use crate::guest::{Guest, Machine};
use crate::raid;
use crate::stage::Stage;

/// `blockmirror-attach@.service`.
pub const ATTACH: Scenario = Scenario {
    name: "units-attach",
    about: "systemd: a device and its mount from the boot on, restarts while it is used, a shutdown in order, the next boot",
    smoke: false,
    play: attach,
};
/// `blockmirror-raid-start.service`, `blockmirror-raid.service` and the rule.
pub const RAID: Scenario = Scenario {
    name: "units-raid",
    about: "systemd: an array starts at the boot, with its leg or without, and is healed",
    smoke: false,
    play: raid_units,
};

const ATTACH_UNIT: &str = "blockmirror-attach@nbd0";
/// A boot of systemd, and what it starts.
const BOOTED: Duration = Duration::from_secs(180);

fn attach(stage: &Stage) -> Result<()> {
    let bravo = Machine::named("bravo").disk("data", 128 << 20);
    let (alpha, bravo) = stage.boot_pair(Machine::named("alpha").systemd(), bravo)?;
    daemon::serve(&bravo, "/dev/disk/by-id/virtio-data", "db", "")?;
    alpha.run(&format!(
        "install -m 644 /configs/blockmirror-attach@.service /etc/systemd/system
        install -m 644 /configs/99-blockmirror.rules /etc/udev/rules.d
        mkdir -p /etc/blockmirror/attach /etc/modules-load.d /srv
        printf 'EXPORT=nbd://bravo/db\nOPTIONS=--connections 2 --answer-timeout 3\n' >/etc/blockmirror/attach/nbd0.conf
        echo '/dev/nbd0 /srv ext4 _netdev,nofail,x-systemd.after={ATTACH_UNIT}.service,x-systemd.device-timeout=0 0 2' >>/etc/fstab
        mkdir -p /etc/systemd/system/{ATTACH_UNIT}.service.d
        printf '[Service]\\nTimeoutStartSec=10\\n' >/etc/systemd/system/{ATTACH_UNIT}.service.d/impatient.conf
        udevadm control --reload; systemctl daemon-reload
        systemctl enable --now {ATTACH_UNIT}; udevadm settle
        mkfs.ext4 -q /dev/disk/by-blockmirror/db
        systemctl start srv.mount; mountpoint -q /srv; echo first >/srv/file"
    ))?;
    // While it is used: the device stays as it is, and the next process takes it over.
    alpha.run(&format!(
        "systemctl restart {ATTACH_UNIT}; systemctl is-active {ATTACH_UNIT}
        mountpoint -q /srv; echo second >>/srv/file; sync -f /srv"
    ))?;
    alpha.run(&format!("systemctl kill -s KILL {ATTACH_UNIT}"))?;
    alpha.until(
        "it is started again",
        PATIENT,
        &format!("systemctl is-active {ATTACH_UNIT}"),
    )?;
    daemon::stop(&bravo, "KILL")?;
    daemon::serve(&bravo, "/dev/disk/by-id/virtio-data", "db", "")?;
    alpha.run("echo third >>/srv/file; sync -f /srv")?;
    alpha.no_io_error()?;
    let alpha = again(stage, &alpha)?;
    alpha.until("it is mounted", BOOTED, "mountpoint -q /srv")?;
    let file = alpha.run("cat /srv/file; dmesg | grep -i 'nbd0.*recover' || true")?;
    ensure!(file == "first\nsecond\nthird\nlast", "{file}");
    stage.note("restarted while used, mounted after the next boot; nothing to recover");
    alpha.no_io_error()?;
    // The node comes later than the unit's patience.
    off(&alpha)?;
    daemon::stop(&bravo, "TERM")?;
    let alpha = stage.boot(alpha.machine().clone())?;
    alpha.until(
        "the unit has begun again",
        BOOTED,
        &format!("test $(systemctl show -P NRestarts {ATTACH_UNIT}) -gt 0"),
    )?;
    daemon::serve(&bravo, "/dev/disk/by-id/virtio-data", "db", "")?;
    alpha.until("it is mounted", BOOTED, "mountpoint -q /srv")?;
    stage.note("mounted when the node comes after the boot, too");
    alpha.no_io_error()
}

/// Shuts it down in order, and starts it again.
fn again(stage: &Stage, alpha: &Arc<Guest>) -> Result<Arc<Guest>> {
    off(alpha)?;
    stage.boot(alpha.machine().clone())
}

/// Shuts it down in order, with something that has not been written out.
fn off(alpha: &Guest) -> Result<()> {
    alpha.run("echo last >>/srv/file; setsid systemctl poweroff >/dev/null 2>&1 </dev/null &")?;
    let console = alpha.wait_off()?;
    for line in console.lines() {
        ensure!(
            !line.contains("I/O error") && !line.contains("Failed to unmount /srv"),
            "{line}"
        );
    }
    Ok(())
}

fn raid_units(stage: &Stage) -> Result<()> {
    let alpha = Machine::named("alpha").systemd().disk("local", 128 << 20);
    let (alpha, bravo) = stage.boot_pair(alpha, Machine::named("bravo").disk("far", 128 << 20))?;
    raid::serve(&bravo)?;
    alpha.run(
        "install -m 644 /configs/blockmirror-raid-start.service /configs/blockmirror-raid.service /etc/systemd/system
        install -m 644 /configs/63-blockmirror-raid.rules /configs/99-blockmirror.rules /etc/udev/rules.d
        mkdir -p /etc/modules-load.d /srv; printf 'nbd\nraid1\n' >/etc/modules-load.d/blockmirror.conf
        echo 'options nbd nbds_max=0' >/etc/modprobe.d/nbd.conf; modprobe nbd; modprobe raid1
        udevadm control --reload; systemctl daemon-reload",
    )?;
    raid::create(&alpha, "")?;
    alpha.run(
        "mkfs.ext4 -q /dev/md/data
        echo '/dev/md/data /srv ext4 _netdev,nofail 0 2' >>/etc/fstab; systemctl daemon-reload
        systemctl enable --now blockmirror-raid blockmirror-raid-start; systemctl start srv.mount
        mountpoint -q /srv; echo first >/srv/file",
    )?;
    let alpha = again(stage, &alpha)?;
    alpha.until("it is mounted", BOOTED, "mountpoint -q /srv")?;
    alpha.until("both legs are there", BOOTED, "grep -F '[UU]' /proc/mdstat")?;
    stage.note("mounted after a boot, both legs in sync");
    // Without the other node it starts as well.
    off(&alpha)?;
    daemon::stop(&bravo, "TERM")?;
    let alpha = stage.boot(alpha.machine().clone())?;
    alpha.until(
        "it is mounted",
        BOOTED,
        "mountpoint -q /srv; grep -E '\\[(U_|_U)\\]' /proc/mdstat",
    )?;
    raid::serve(&bravo)?;
    alpha.until("both legs are there", BOOTED, "grep -F '[UU]' /proc/mdstat")?;
    let file = alpha.run("cat /srv/file")?;
    ensure!(file == "first\nlast\nlast", "{file}");
    raid::compare(&alpha, "/dev/md/data")?;
    stage.note("mounted after a boot without the other node, healed when that was back");
    Ok(())
}
