//! Devices of the kernel in guests, made by `blockmirror attach`.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::daemon::PATIENT;
use crate::guest::{Guest, Running};

/// The device that scenarios use.
pub const DEVICE: &str = "/dev/nbd0";
/// A verifying load may take so long.
const LOAD: Duration = Duration::from_secs(180);

/// Loads the driver, with no devices but those that are asked for, and the udev rules that come with us.
pub fn driver(guest: &Guest) -> Result<()> {
    guest.run(
        "modprobe nbd nbds_max=0; cp /configs/99-blockmirror.rules /etc/udev/rules.d/; udevadm control --reload",
    )?;
    Ok(())
}

/// Attaches `what`; `more` are further arguments. Times that are short for a test: what was sent and not answered is sent
/// again after 3 s.
pub fn attach(guest: &Guest, what: &str, more: &str) -> Result<String> {
    guest.run(&format!(
        "blockmirror attach '{what}' {DEVICE} --answer-timeout 3 {more}"
    ))
}

/// Detaches it, and sees that it is gone.
pub fn detach(guest: &Guest) -> Result<()> {
    guest.run(&format!(
        "blockmirror detach {DEVICE}
        test $(cat /sys/block/nbd0/size) = 0 && test ! -e /sys/block/nbd0/backend"
    ))?;
    Ok(())
}

/// A load that writes, reads back and compares, for so many seconds; it fails at the first error. What overlaps is never under way
/// at once: which of two such writes counts is not said when one of them has to be sent again.
pub fn load(seconds: u64, more: &str) -> String {
    format!(
        "fio --name=load --filename={DEVICE} --direct=1 --ioengine=libaio --rw=randrw --bsrange=4k-64k --size=48m --iodepth=8 \
         --serialize_overlap=1 --time_based --runtime={seconds} --verify=crc32c --verify_backlog=64 --randrepeat=0 {more}"
    )
}

/// The load, while the scenario goes on.
pub fn start_load(guest: &std::sync::Arc<Guest>, seconds: u64) -> Result<Running> {
    let running = guest.start(&load(seconds, ""), LOAD);
    guest.until(
        "the load runs",
        PATIENT,
        "test $(gawk '{ print $5 }' /sys/block/nbd0/stat) -gt 50",
    )?;
    Ok(running)
}

/// The longest time without a request that has finished, from now until `during` has ended.
pub fn pause<T>(guest: &Guest, during: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    const SAMPLES: &str = "/tmp/samples";
    guest.run(&format!(
        "rm -f {SAMPLES}; setsid bash -c 'until [ -e {SAMPLES}.end ]; do
            read -r up _ </proc/uptime; read -r a b c d e f </sys/block/nbd0/stat; echo $up $a $e; sleep 0.1
        done >{SAMPLES}; rm {SAMPLES}.end' >/dev/null 2>&1 </dev/null &"
    ))?;
    let ended = during()?;
    guest.run(&format!("touch {SAMPLES}.end"))?;
    guest.until("the samples are taken", PATIENT, &format!("test ! -e {SAMPLES}.end"))?;
    let longest = guest.run(&format!(
        "gawk '{{ now = $1; done = $2 + $3; if (done != last) {{ if (NR > 1 && now - since > most) most = now - since; since = now; last = done }} }}
            END {{ printf \"%d\", most * 1000 }}' {SAMPLES}"
    ))?;
    Ok((ended, Duration::from_millis(longest.parse()?)))
}

/// Waits until the device does something, from now on.
pub fn moves(guest: &Guest, deadline: Duration) -> Result<Duration> {
    let since = Instant::now();
    let script = format!("timeout -s KILL 100 dd if={DEVICE} of=/dev/null bs=4k count=1 iflag=direct");
    guest.run_for(&script, deadline)?;
    Ok(since.elapsed())
}

/// The process that keeps it.
pub fn agent(guest: &Guest) -> Result<String> {
    let process = guest.run("cat /run/blockmirror-attach/nbd0.agent")?;
    ensure!(!process.is_empty(), "nobody keeps the device");
    Ok(process)
}
