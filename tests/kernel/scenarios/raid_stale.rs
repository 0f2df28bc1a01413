//! Legs that hold something else than the array believes, and devices that are somebody else's.

use anyhow::{Result, ensure};

use super::Scenario;
use crate::guest::Guest;
use crate::raid::{self, COPY, LOCAL};
use crate::stage::Stage;

const ARRAY: &str = "/dev/md/data";
const MIB: u64 = 1 << 20;

/// The array goes on with its leg alone, and is started with the local one.
pub const OLD: Scenario = Scenario {
    name: "raid-stale",
    about: "no start with a local leg that has old data, no bitmap for a leg that was the array alone; --full copies everything",
    smoke: false,
    play: old,
};
/// The number of the leg's device, taken by others.
pub const FOREIGN: Scenario = Scenario {
    name: "raid-foreign",
    about: "a device that is attached to something else is neither added to the array, nor let go",
    smoke: false,
    play: foreign,
};

fn old(stage: &Stage) -> Result<()> {
    let (alpha, _bravo) = raid::pair(stage, 96 * MIB)?;
    raid::create(&alpha, "--bitmap-chunk 1MiB")?;
    alpha.run_for(&raid::write(ARRAY, 0, 16), COPY)?;
    raid::settle(&alpha, LOCAL)?;
    let uuid = raid::figure(&alpha, ".uuid")?;
    lose_local(&alpha, 32)?;
    // As it is told.
    alpha.run(&format!(
        "mdadm --assemble --run {ARRAY} --uuid={uuid} /dev/nbd0 2>&1 && mdadm {ARRAY} --re-add {LOCAL} 2>&1"
    ))?;
    synced(&alpha)?;
    ensure!(raid::figure(&alpha, ".is_local_behind")? == "false");
    raid::compare(&alpha, ARRAY)?;
    alpha.run_for(&raid::verify(ARRAY, 32, 8), COPY)?;
    raid::settle(&alpha, LOCAL)?;
    lose_local(&alpha, 48)?;
    alpha.run("blockmirror raid start data --force")?;
    let refused = alpha.refuses("blockmirror raid heal data")?;
    ensure!(refused.contains("the array has run with it alone"), "{refused}");
    stage.note(refused.lines().last().unwrap_or_default().to_owned());
    ensure!(raid::kernel(&alpha, "md/degraded")? == "1");
    // To keep what the leg has.
    alpha.run(&format!(
        "mdadm --stop {ARRAY} 2>&1 && mdadm --assemble --run {ARRAY} --uuid={uuid} /dev/nbd0 2>&1 &&
        mdadm --zero-superblock {LOCAL} && mdadm {ARRAY} --add {LOCAL} 2>&1"
    ))?;
    synced(&alpha)?;
    raid::compare(&alpha, ARRAY)?;
    alpha.run_for(&raid::verify(ARRAY, 48, 8), COPY)?;
    // To keep what is here.
    raid::settle(&alpha, LOCAL)?;
    lose_local(&alpha, 64)?;
    alpha.run("blockmirror raid start data --force")?;
    ensure!(
        alpha
            .refuses("blockmirror raid heal data")?
            .contains("the array has run with it alone")
    );
    let said = alpha.run_for("blockmirror --json raid add data --full --wait", COPY)?;
    let copied = raid::number(&said, "copied_bytes")?;
    stage.note(format!("--full: {} of 96 MiB copied", copied / MIB));
    ensure!(copied > 80 * MIB, "{said}");
    raid::compare(&alpha, ARRAY)?;
    alpha.run_for(&raid::verify(ARRAY, 0, 16), COPY)?;
    alpha.run_for(&raid::verify(ARRAY, 48, 8), COPY)?;
    // A leg that is in sync, and that md would take back at once.
    alpha.run("blockmirror raid remove data")?;
    let said = alpha.run_for("blockmirror --json raid add data --full --wait", COPY)?;
    ensure!(raid::number(&said, "copied_bytes")? > 80 * MIB, "{said}");
    raid::compare(&alpha, ARRAY)
}

/// The local leg fails, the array goes on with the other one, and is stopped: it does not start with old data.
fn lose_local(alpha: &Guest, offset_mib: u64) -> Result<()> {
    alpha.run(&format!(
        "mdadm {ARRAY} --fail {LOCAL} 2>&1; mdadm {ARRAY} --remove {LOCAL} 2>&1"
    ))?;
    alpha.run_for(&raid::write(ARRAY, offset_mib, 8), COPY)?;
    let said = alpha.run("blockmirror raid status data")?;
    ensure!(said.contains("the local one has old data"), "{said}");
    alpha.run(&format!("udevadm settle; mdadm --stop {ARRAY} 2>&1"))?;
    for name in ["data", ""] {
        let refused = alpha.refuses(&format!("blockmirror raid start {name}"))?;
        ensure!(refused.contains("has old data"), "{refused}");
    }
    Ok(())
}

fn synced(alpha: &Guest) -> Result<()> {
    let script = "blockmirror --json raid status data | jq -e '.arrays[0] | .degraded == 0 and .action == null'";
    alpha.until("both legs have everything", COPY, script)
}

fn foreign(stage: &Stage) -> Result<()> {
    let (alpha, _bravo) = raid::pair(stage, 64 * MIB)?;
    raid::create(&alpha, "--bitmap-chunk 1MiB")?;
    alpha.run("blockmirror raid remove data")?;
    // The same export by another name is another one, as far as anybody can tell.
    for (attach, word, detach) in [
        (
            "blockmirror attach nbd://10.0.0.2/leg /dev/nbd0",
            "/dev/nbd0 is attached to nbd://",
            "blockmirror detach /dev/nbd0",
        ),
        (
            "nbd-client -N leg bravo 10809 /dev/nbd0 2>&1",
            "does not say to what",
            "nbd-client -d /dev/nbd0 2>&1; sleep 1",
        ),
    ] {
        alpha.run(attach)?;
        for command in ["add data", "add data --full", "heal data", "remove data"] {
            let refused = alpha.refuses(&format!("blockmirror raid {command}"))?;
            ensure!(refused.contains(word), "{command}: {refused}");
        }
        alpha.run("test \"$(cat /sys/block/nbd0/size)\" != 0 && test -z \"$(ls /sys/block/nbd0/holders)\"")?;
        alpha.run(detach)?;
    }
    alpha.run_for("blockmirror raid add data --wait", COPY)?;
    raid::compare(&alpha, ARRAY)
}
