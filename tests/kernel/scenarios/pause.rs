//! What is a pause for a device, and no error: the daemon, the link, and the process that keeps it come and go. (What filesystems make of that is in `truth`.)

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Scenario;
use crate::daemon::{self, PATIENT};
use crate::device::{self, DEVICE};
use crate::guest::{Guest, Machine};
use crate::stage::Stage;

/// Killed, and stopped in order, under a load.
pub const DAEMON: Scenario = Scenario {
    name: "attach-daemon-restart",
    about: "the daemon is killed, and stopped, under a load and started again: a pause, no error; 1 and 4 connections",
    smoke: false,
    play: daemon_restart,
};
/// Cut without a word.
pub const LINK: Scenario = Scenario {
    name: "attach-link-cut",
    about: "the link is cut for 10 s and returns under a load: a pause, no error; 1 and 4 connections",
    smoke: false,
    play: link_cut,
};
/// The process that keeps the device.
pub const AGENT: Scenario = Scenario {
    name: "attach-agent-restart",
    about: "the process that keeps the device is killed and started again under a load, also with TLS: no error",
    smoke: false,
    play: agent_restart,
};
/// Longer than requests wait.
pub const DEAD: Scenario = Scenario {
    name: "attach-dead-timeout",
    about: "no node for longer than requests wait: they fail, the device works again by itself, and this is told",
    smoke: false,
    play: dead_timeout,
};
/// Let go while it is used.
pub const DISCONNECT: Scenario = Scenario {
    name: "attach-disconnect",
    about: "detach --force under a load: errors, no hang, and the device can be attached again",
    smoke: false,
    play: disconnect,
};
/// The guest's power goes.
pub const REBOOT: Scenario = Scenario {
    name: "attach-reboot",
    about: "the power of the machine with the device goes: what was synced is there, the filesystem is clean",
    smoke: false,
    play: reboot,
};

const DISK: &str = "/dev/disk/by-id/virtio-data";

fn nodes(stage: &Stage) -> Result<(Arc<Guest>, Arc<Guest>)> {
    let bravo = Machine::named("bravo").disk("data", 128 << 20);
    let (alpha, bravo) = stage.boot_pair(Machine::named("alpha").cpus(2), bravo)?;
    device::driver(&alpha)?;
    daemon::serve(&bravo, DISK, "db", "")?;
    Ok((alpha, bravo))
}

fn daemon_restart(stage: &Stage) -> Result<()> {
    let (alpha, bravo) = nodes(stage)?;
    for connections in [1, 4] {
        device::attach(&alpha, "nbd://bravo/db", &format!("--connections {connections}"))?;
        for signal in ["KILL", "TERM"] {
            let load = device::start_load(&alpha, 25)?;
            let (_, pause) = device::pause(&alpha, || {
                daemon::stop(&bravo, signal)?;
                std::thread::sleep(Duration::from_secs(1));
                daemon::serve(&bravo, DISK, "db", "")?;
                load.join()
            })?;
            stage.note(format!(
                "{connections} connections, SIG{signal}: {:.1} s of pause",
                pause.as_secs_f64()
            ));
        }
        device::detach(&alpha)?;
    }
    alpha.no_io_error()
}

fn link_cut(stage: &Stage) -> Result<()> {
    let (alpha, _bravo) = nodes(stage)?;
    for connections in [1, 4] {
        device::attach(&alpha, "nbd://bravo/db", &format!("--connections {connections}"))?;
        let load = device::start_load(&alpha, 40)?;
        let (_, pause) = device::pause(&alpha, || {
            stage.link.cut();
            std::thread::sleep(Duration::from_secs(10));
            stage.link.restore();
            load.join()
        })?;
        stage.note(format!(
            "{connections} connections: {:.1} s of pause",
            pause.as_secs_f64()
        ));
        device::detach(&alpha)?;
    }
    alpha.no_io_error()
}

fn agent_restart(stage: &Stage) -> Result<()> {
    let (alpha, bravo) = nodes(stage)?;
    device::attach(&alpha, "nbd://bravo/db", "--connections 4")?;
    restart_agent(stage, &alpha, "nbd://bravo/db", "--connections 4")?;
    // The new one keeps it: it is what brings connections now.
    daemon::stop(&bravo, "KILL")?;
    daemon::serve(&bravo, DISK, "db", "")?;
    device::moves(&alpha, PATIENT)?;
    device::detach(&alpha)?;
    daemon::stop(&bravo, "KILL")?;
    bravo.run(&format!(
        "setsid blockmirror-server serve {DISK} --export db --tcp 0.0.0.0:10809 --tls require --tls-certificates /pki --allow anyone \
         >>/tmp/tls.log 2>&1 </dev/null &"
    ))?;
    let uri = "nbds://bravo/db?tls-certificates=/pki&tls-hostname=localhost";
    bravo.until(
        "the daemon answers",
        PATIENT,
        "nbdinfo --size 'nbds://localhost/db?tls-certificates=/pki'",
    )?;
    device::attach(&alpha, uri, "--connections 2")?;
    restart_agent(stage, &alpha, uri, "--connections 2")?;
    device::detach(&alpha)?;
    alpha.no_io_error()
}

fn restart_agent(stage: &Stage, alpha: &Arc<Guest>, uri: &str, more: &str) -> Result<()> {
    let load = device::start_load(alpha, 20)?;
    let (_, pause) = device::pause(alpha, || {
        let agent = device::agent(alpha)?;
        alpha.run(&format!("kill -KILL {agent}"))?;
        std::thread::sleep(Duration::from_secs(1));
        let said = device::attach(alpha, uri, more)?;
        ensure!(said.contains("already"), "{said}");
        load.join()
    })?;
    stage.note(format!("{uri}: {:.1} s of pause", pause.as_secs_f64()));
    Ok(())
}

fn dead_timeout(stage: &Stage) -> Result<()> {
    let (alpha, bravo) = nodes(stage)?;
    device::attach(&alpha, "nbd://bravo/db", "--dead-timeout 4")?;
    daemon::stop(&bravo, "KILL")?;
    alpha.refuses(&format!("dd if={DEVICE} of=/dev/null bs=4k count=1 iflag=direct"))?;
    alpha.until(
        "it is told",
        PATIENT,
        "grep 'FAIL NOW' /run/blockmirror-attach/nbd0.log",
    )?;
    daemon::serve(&bravo, DISK, "db", "")?;
    alpha.until(
        "it works again",
        PATIENT,
        &format!("dd if={DEVICE} of=/dev/null bs=4k count=1 iflag=direct"),
    )?;
    device::detach(&alpha)
}

fn disconnect(stage: &Stage) -> Result<()> {
    let (alpha, _bravo) = nodes(stage)?;
    device::attach(&alpha, "nbd://bravo/db", "--connections 4")?;
    let load = device::start_load(&alpha, 60)?;
    alpha.run(&format!("blockmirror detach --force {DEVICE}"))?;
    ensure!(load.join().is_err(), "the load should have seen errors");
    alpha.until("the device is free", PATIENT, "test ! -e /sys/block/nbd0/pid")?;
    device::attach(&alpha, "nbd://bravo/db", "--connections 4")?;
    alpha.run_for(&device::load(5, ""), Duration::from_secs(90))?;
    device::detach(&alpha)
}

fn reboot(stage: &Stage) -> Result<()> {
    let (alpha, _bravo) = nodes(stage)?;
    device::attach(&alpha, "nbd://bravo/db", "--connections 4")?;
    alpha.run(&format!("mkfs.ext4 -q {DEVICE}; mount {DEVICE} /mnt"))?;
    let load = alpha.start(
        "for i in $(seq 500); do dd if=/dev/urandom of=/mnt/$i bs=16k count=1 conv=fsync 2>/dev/null; sha256sum /mnt/$i >>/mnt/sums
        sync /mnt/sums; echo $i >/tmp/synced; done",
        Duration::from_secs(180),
    );
    alpha.until("some are synced", PATIENT, "test $(cat /tmp/synced) -gt 20")?;
    let synced = alpha.run("cat /tmp/synced")?;
    let alpha = stage.reboot(&alpha)?;
    let _ = load.join();
    device::driver(&alpha)?;
    device::attach(&alpha, "nbd://bravo/db", "")?;
    alpha.run(&format!(
        "mount {DEVICE} /mnt; test $(wc -l </mnt/sums) -ge {synced}; head -n {synced} /mnt/sums | sha256sum -c --quiet -
        umount /mnt; e2fsck -fn {DEVICE}"
    ))?;
    stage.note(format!("{synced} files were synced, all are there"));
    device::detach(&alpha)?;
    alpha.no_io_error()
}
