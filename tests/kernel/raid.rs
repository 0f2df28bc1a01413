//! An array of md in `alpha`, with a leg in `bravo`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::daemon;
use crate::guest::{Guest, Machine};
use crate::stage::Stage;

/// For a copy of everything.
pub const COPY: Duration = Duration::from_secs(240);
/// For what waits for timeouts of nbd.
pub const STALL: Duration = Duration::from_secs(90);
/// The local leg.
pub const LOCAL: &str = "/dev/disk/by-id/virtio-local";
/// What the other leg is in its guest.
pub const FAR: &str = "/dev/disk/by-id/virtio-far";

/// Both guests, with a disk of so many bytes each; `alpha` can keep records over a reboot.
pub fn pair(stage: &Stage, bytes: u64) -> Result<(Arc<Guest>, Arc<Guest>)> {
    let alpha = Machine::named("alpha").disk("local", bytes).disk("home", 64 << 20);
    let (alpha, bravo) = stage.boot_pair(alpha, Machine::named("bravo").disk("far", bytes))?;
    prepare(&alpha)?;
    serve(&bravo)?;
    Ok((alpha, bravo))
}

/// What `alpha` needs after a boot.
pub fn prepare(alpha: &Guest) -> Result<()> {
    daemon::home(alpha)?;
    alpha.run("modprobe nbd nbds_max=0; modprobe raid1")?;
    Ok(())
}

/// The leg's export, as it is after a boot of `bravo` as well.
pub fn serve(bravo: &Guest) -> Result<()> {
    daemon::serve(bravo, FAR, "leg", "")
}

/// An array `data`, in sync; what was said.
pub fn create(alpha: &Guest, more: &str) -> Result<String> {
    let command = format!("blockmirror raid create data --local {LOCAL} nbd://bravo/leg /dev/nbd0 --wait {more}");
    alpha.run_for(&command, COPY)
}

/// What the kernel says of the array, such as `md/degraded`.
pub fn kernel(alpha: &Guest, file: &str) -> Result<String> {
    alpha.run(&format!(
        "cat /sys/block/$(basename $(readlink -f /dev/md/data))/{file}"
    ))
}

/// Waits until the bitmap is clean: md clears bits some seconds after the last write, and what has been written just before a cut
/// counts as changed.
pub fn settle(alpha: &Guest, local: &str) -> Result<()> {
    let script = format!("mdadm --examine-bitmap {local} | grep ' 0 dirty'");
    alpha.until("the bitmap is clean", STALL, &script)
}

/// A figure of the report of the array.
pub fn figure(alpha: &Guest, what: &str) -> Result<String> {
    alpha.run(&format!(
        "blockmirror --json raid status data | jq -r '.arrays[0]{what}'"
    ))
}

/// Writes to all of a stretch of the array, in random order; what is there can be told by [`verify`].
pub fn write(array: &str, offset_mib: u64, mib: u64) -> String {
    format!("{} --rw=randwrite --do_verify=0", fio(array, offset_mib, mib))
}

/// Reads what [`write`] has written.
pub fn verify(array: &str, offset_mib: u64, mib: u64) -> String {
    format!("{} --rw=randread --verify_only=1", fio(array, offset_mib, mib))
}

fn fio(array: &str, offset_mib: u64, mib: u64) -> String {
    format!(
        "fio --name=stretch --filename={array} --offset={offset_mib}m --size={mib}m --bs=16k --iodepth=8 --ioengine=libaio \
         --direct=1 --verify=crc32c --randseed=7"
    )
}

/// Both legs hold the same, as md compares them.
pub fn compare(alpha: &Guest, array: &str) -> Result<()> {
    alpha.run_for(
        &format!(
            "md=/sys/block/$(basename $(readlink -f {array}))/md
            echo check >$md/sync_action; sleep 1
            while [ \"$(cat $md/sync_action)\" != idle ]; do sleep 0.5; done"
        ),
        COPY,
    )?;
    let differ = alpha.run(&format!(
        "cat /sys/block/$(basename $(readlink -f {array}))/md/mismatch_cnt"
    ))?;
    ensure!(differ == "0", "the legs differ in {differ} sectors");
    Ok(())
}

/// Starts a watch, whose events go to `/tmp/watch.log`.
pub fn watch(alpha: &Guest) -> Result<()> {
    alpha.run(
        "setsid blockmirror --json raid watch --metrics tcp:127.0.0.1:9188 >/tmp/watch.log 2>&1 </dev/null &
        sleep 0.5",
    )?;
    alpha.until("the watch looks", STALL, "grep -q running /tmp/watch.log")
}

/// Waits until the watch has told of as many events of a kind.
pub fn told(alpha: &Guest, event: &str, times: u32) -> Result<()> {
    let script = format!(
        "[ \"$(grep -c '\"event\":\"{event}\"' /tmp/watch.log)\" -ge {times} ] || {{ tail -n 5 /tmp/watch.log; false; }}"
    );
    alpha.until(&format!("the watch tells {event}"), STALL + COPY, &script)
}

/// A number in the JSON a command has printed.
pub fn number(json: &str, key: &str) -> Result<u64> {
    let rest = json.split(&format!("\"{key}\":")).nth(1);
    let digits: String = rest
        .context(key.to_owned())?
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().with_context(|| format!("{key} in {json}"))
}
