//! `blockmirror raid`: an array with a leg in the other guest.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Scenario;
use crate::daemon;
use crate::raid::{self, COPY, LOCAL, STALL};
use crate::stage::Stage;

const ARRAY: &str = "/dev/md/data";
const MIB: u64 = 1 << 20;
/// What a leg that comes back may be sent, of what has changed.
const PART: f64 = 1.2;

/// The link is cut under a load.
pub const HEAL: Scenario = Scenario {
    name: "raid-heal",
    about: "a leg whose link is cut fails, the array goes on; heal copies what has changed",
    smoke: true,
    play: heal,
};
/// The same without anybody who does something about it.
pub const WATCH: Scenario = Scenario {
    name: "raid-watch",
    about: "a watch sees a leg fail at once, and brings it back by itself",
    smoke: false,
    play: watch,
};
/// The guest with the array loses its power.
pub const REBOOT: Scenario = Scenario {
    name: "raid-reboot",
    about: "after a boot the array starts with its local leg, the other one comes back by its bitmap",
    smoke: false,
    play: reboot,
};
/// An array of mdadm's and nbd-client's.
pub const ADOPT: Scenario = Scenario {
    name: "raid-adopt",
    about: "an array of others is adopted, its leg removed and added; no other array is touched",
    smoke: false,
    play: adopt,
};

fn heal(stage: &Stage) -> Result<()> {
    let (alpha, _bravo) = raid::pair(stage, 192 * MIB)?;
    let dry = format!("blockmirror raid create data --local {LOCAL} nbd://bravo/leg /dev/nbd0 --dry-run");
    let said = alpha.run(&dry)?;
    ensure!(said.contains("mdadm --create /dev/md/data"), "{said}");
    alpha.run("test ! -e /dev/md/data && test ! -e /dev/nbd0 && ! blockmirror raid status data")?;
    // Debian's kernel in an emulator is no measure for a network.
    raid::create(&alpha, "--bitmap-chunk 4MiB --write-behind 0")?;
    alpha.run_for(&raid::write(ARRAY, 0, 48), COPY)?;
    raid::settle(&alpha, LOCAL)?;
    stage.link.cut();
    let cut = Instant::now();
    alpha.run_for(&raid::write(ARRAY, 64, 32), STALL)?;
    stage.note(format!(
        "32 MiB written {:.1} s after the cut",
        cut.elapsed().as_secs_f64()
    ));
    ensure!(raid::kernel(&alpha, "md/degraded")? == "1");
    let dirty: u64 = raid::figure(&alpha, ".bitmap.dirty_bytes")?.parse()?;
    stage.link.restore();
    let said = alpha.run_for("blockmirror --json raid heal data", COPY)?;
    let copied = raid::number(&said, "copied_bytes")?;
    let part = copied as f64 / (32 * MIB) as f64;
    stage.note(format!(
        "32 MiB changed, bitmap {} MiB, copied {:.1} MiB: {part:.2}",
        dirty / MIB,
        copied as f64 / MIB as f64
    ));
    ensure!((1.0..=PART).contains(&part), "{said}");
    raid::compare(&alpha, ARRAY)?;
    alpha.run_for(&raid::verify(ARRAY, 0, 48), COPY)?;
    alpha.run_for(&raid::verify(ARRAY, 64, 32), COPY)?;
    let again = alpha.run("blockmirror raid heal data")?;
    ensure!(again == "data is in sync", "{again}");
    Ok(())
}

fn watch(stage: &Stage) -> Result<()> {
    let (alpha, bravo) = raid::pair(stage, 96 * MIB)?;
    raid::create(&alpha, "--bitmap-chunk 1MiB --answer-timeout 5 --dead-timeout 2")?;
    raid::watch(&alpha)?;
    // A restart that is shorter than the dead timeout is a pause.
    let load = alpha.start(&raid::write(ARRAY, 0, 16), STALL);
    daemon::stop(&bravo, "KILL")?;
    raid::serve(&bravo)?;
    load.join()?;
    ensure!(
        raid::kernel(&alpha, "md/degraded")? == "0",
        "a short restart has failed the leg"
    );
    // A daemon that stays away.
    daemon::stop(&bravo, "KILL")?;
    let killed = Instant::now();
    alpha.run_for(&raid::write(ARRAY, 16, 16), STALL)?;
    raid::told(&alpha, "leg_failed", 1)?;
    stage.note(format!(
        "a daemon that is gone: told after {:.1} s",
        killed.elapsed().as_secs_f64()
    ));
    sleep(Duration::from_secs(5));
    raid::serve(&bravo)?;
    let back = Instant::now();
    raid::told(&alpha, "healed", 1)?;
    stage.note(format!(
        "it is back: in sync after {:.1} s",
        back.elapsed().as_secs_f64()
    ));
    // A link that is cut.
    stage.link.cut();
    let cut = Instant::now();
    alpha.run_for(&raid::write(ARRAY, 32, 16), STALL)?;
    raid::told(&alpha, "leg_failed", 2)?;
    stage.note(format!(
        "a link that is cut: told after {:.1} s",
        cut.elapsed().as_secs_f64()
    ));
    stage.link.restore();
    let back = Instant::now();
    raid::told(&alpha, "healed", 2)?;
    stage.note(format!(
        "it is back: in sync after {:.1} s",
        back.elapsed().as_secs_f64()
    ));
    let metrics =
        alpha.run("exec 3<>/dev/tcp/127.0.0.1/9188; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3")?;
    for line in [
        "blockmirror_raid_leg_failures_total{array=\"data\"} 2",
        "blockmirror_raid_heals_total{array=\"data\"} 2",
        "blockmirror_raid_leg_in_sync{array=\"data\"} 1",
    ] {
        ensure!(metrics.contains(line), "{line}: {metrics}");
    }
    // What an operator takes out stays out.
    alpha.run("blockmirror raid remove data; sleep 8; blockmirror --json raid status | jq -e '.arrays[0].leg.standing == null'")?;
    alpha.run_for("blockmirror raid add data --wait", COPY)?;
    raid::compare(&alpha, ARRAY)?;
    alpha.run_for(&raid::verify(ARRAY, 0, 48), COPY)?;
    Ok(())
}

fn reboot(stage: &Stage) -> Result<()> {
    let (alpha, _bravo) = raid::pair(stage, 192 * MIB)?;
    raid::create(&alpha, "--bitmap-chunk 4MiB")?;
    alpha.run_for(&raid::write(ARRAY, 0, 64), COPY)?;
    raid::settle(&alpha, LOCAL)?;
    let alpha = stage.reboot(&alpha)?;
    raid::prepare(&alpha)?;
    let begin = Instant::now();
    let said = alpha.run("blockmirror raid start")?;
    alpha.run(&format!("test -b {ARRAY}"))?;
    stage.note(format!("{said}, {:.1} s", begin.elapsed().as_secs_f64()));
    alpha.run_for(&raid::verify(ARRAY, 0, 64), COPY)?;
    alpha.run_for(&raid::write(ARRAY, 64, 16), COPY)?;
    let said = alpha.run_for("blockmirror --json raid heal data", COPY)?;
    let copied = raid::number(&said, "copied_bytes")?;
    stage.note(format!(
        "16 MiB changed after the boot, {:.1} MiB copied",
        copied as f64 / MIB as f64
    ));
    // What was under way when the power went is copied, too: a bit or two of 4 MiB.
    ensure!((16 * MIB..=16 * MIB * 6 / 5 + 8 * MIB).contains(&copied), "{said}");
    raid::compare(&alpha, ARRAY)?;
    alpha.run_for(&raid::verify(ARRAY, 64, 16), COPY)?;
    Ok(())
}

fn adopt(stage: &Stage) -> Result<()> {
    let (alpha, _bravo) = raid::pair(stage, 96 * MIB)?;
    let create = format!(
        "attach() {{ nbd-client -N leg -t 5 bravo 10809 /dev/nbd0 2>&1; }}
        # udev may have the new device open for a moment.
        attach || {{ udevadm settle; sleep 1; attach; }} || {{ dmesg | tail -n 5; false; }}
        mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --bitmap=none {LOCAL} --write-mostly /dev/nbd0 2>&1
        udevadm settle; mdadm --wait /dev/md0 || true"
    );
    alpha.run_for(&create, COPY)?;
    let adopt = "blockmirror raid adopt data /dev/md0 nbd://bravo/leg /dev/nbd0 --answer-timeout 5 --dead-timeout 2";
    let refused = alpha.refuses(adopt)?;
    ensure!(refused.contains("mdadm --grow --bitmap=internal /dev/md0"), "{refused}");
    alpha.run("mdadm --grow --bitmap=internal --bitmap-chunk=1M /dev/md0 2>&1")?;
    alpha.run(adopt)?;
    alpha.run_for(&raid::write("/dev/md0", 0, 16), COPY)?;
    raid::settle(&alpha, LOCAL)?;
    stage.link.cut();
    alpha.run_for(&raid::write("/dev/md0", 16, 16), STALL)?;
    stage.link.restore();
    let said = alpha.run_for("blockmirror --json raid heal data", COPY)?;
    let copied = raid::number(&said, "copied_bytes")?;
    stage.note(format!(
        "adopted: 16 MiB changed, {:.1} MiB copied",
        copied as f64 / MIB as f64
    ));
    ensure!(copied <= 16 * MIB * 6 / 5 + MIB, "{said}");
    // From now on it is attached by us.
    let backend =
        alpha.run("cat /sys/block/nbd0/backend; blockmirror --json raid status | jq -e '.arrays[0].agent'")?;
    ensure!(backend.starts_with("nbd://bravo"), "{backend}");
    raid::compare(&alpha, "/dev/md0")?;
    alpha.run("blockmirror raid remove data")?;
    alpha.run("test \"$(cat /sys/block/md0/md/degraded)\" = 1; test \"$(cat /sys/block/nbd0/size)\" = 0")?;
    alpha.run_for(&raid::write("/dev/md0", 32, 4), COPY)?;
    alpha.run_for("blockmirror raid add data --wait", COPY)?;
    raid::compare(&alpha, "/dev/md0")?;
    alpha.run("blockmirror raid remove data --forget")?;
    let refused = alpha.refuses("blockmirror raid heal data")?;
    ensure!(refused.contains("no array of blockmirror's"), "{refused}");
    alpha.run_for(&raid::verify("/dev/md0", 0, 36), COPY)?;
    // Another array under the same name is not ours.
    alpha.run(adopt)?;
    alpha.run(&format!(
        "mdadm --stop /dev/md0 2>&1; mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --bitmap=internal {LOCAL} missing 2>&1"
    ))?;
    let refused = alpha.refuses("blockmirror raid heal data")?;
    ensure!(refused.contains("another array now"), "{refused}");
    Ok(())
}
