//! Pages of `docs`, followed line by line, and what they promise of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Scenario;
use crate::daemon;
use crate::guest::{Guest, Machine};
use crate::page::Page;
use crate::raid::{self, STALL};
use crate::stage::Stage;

const MIB: u64 = 1 << 20;

/// docs/DEVICES.md.
pub const DEVICES: Scenario = Scenario {
    name: "devices-page",
    about: "the lines of docs/DEVICES.md, typed as they are: a device, a restart, a takeover, nbd-client",
    smoke: false,
    play: devices,
};
/// docs/REPLICA.md.
pub const REPLICA: Scenario = Scenario {
    name: "replica-page",
    about: "the lines of docs/REPLICA.md, typed as they are, over a slow line: how far behind, a cut, a drill, a takeover, and back",
    smoke: false,
    play: replica,
};
/// docs/RAID1.md.
pub const RAID: Scenario = Scenario {
    name: "raid-page",
    about: "the lines of docs/RAID1.md, typed as they are: an array, a filesystem, a watch that heals",
    smoke: false,
    play: raid1,
};

fn devices(stage: &Stage) -> Result<()> {
    let (alpha, bravo) = nodes(stage)?;
    let mut page = Page::new(include_str!("../../../docs/DEVICES.md"), &[&alpha, &bravo]);
    let said = page.section("Two daemons")?;
    ensure!(last(&said).contains("Established"), "{said:?}");
    page.section("A device with a filesystem")?;
    let begin = Instant::now();
    page.section("The daemon is started again")?;
    stage.note(format!(
        "25 MiB written durably in steps of 64 KiB, with a restart of the daemon: {:.1} s, no error",
        begin.elapsed().as_secs_f64()
    ));
    alpha.no_io_error()?;
    let begin = Instant::now();
    page.section("alpha dies")?;
    let said = page.section("bravo goes on")?;
    ensure!(last(&said).ends_with("written on alpha"), "{said:?}");
    stage.note(format!(
        "alpha is dead, its file is read on bravo: {:.1} s",
        begin.elapsed().as_secs_f64()
    ));
    bravo.run("test $(stat -c %s /srv/load) = $((400 * 65536))")?;
    page.section("The end")?;
    let is_gone = "test $(cat /sys/block/nbd0/size) = 0";
    bravo.run(is_gone)?;
    let said = page.section("With nbd-client")?;
    ensure!(last(&said).contains("written on alpha"), "{said:?}");
    bravo.until("the device is gone", daemon::PATIENT, is_gone)?;
    bravo.no_io_error()?;
    page.close()
}

fn replica(stage: &Stage) -> Result<()> {
    let (alpha, bravo) = nodes(stage)?;
    slow(stage);
    let mut page = Page::new(include_str!("../../../docs/REPLICA.md"), &[&alpha, &bravo]);
    page.section("Two daemons")?;
    let begin = Instant::now();
    let said = page.section("How far behind it is")?;
    let behind = raid::number(&said[1], "queue_bytes")?;
    stage.note(format!(
        "after 4 MiB: {:.1} MiB behind, confirmed after {:.1} s",
        behind as f64 / MIB as f64,
        begin.elapsed().as_secs_f64()
    ));
    ensure!((1..=64 * MIB).contains(&behind), "{said:?}");
    stage.link.cut();
    let said = page.section("The line is cut")?;
    ensure!(last(&said).contains("Outdated"), "{said:?}");
    slow(stage);
    let said = page.section("The line is back")?;
    let resync = last(&said).lines().find(|line| line.contains("last resync"));
    stage.note(format!(
        "2 MiB written while cut: {}",
        resync.unwrap_or_default().trim()
    ));
    ensure!(last(&said).contains("Established") && resync.is_some(), "{said:?}");
    let said = page.section("A drill")?;
    ensure!(last(&said).contains("while-cut"), "{said:?}");
    // What it is configured by is of just now.
    alpha.run("sync -f /etc/blockmirror/")?;
    let begin = Instant::now();
    let said = page.section("alpha is lost")?;
    let queued = said[0].lines().last().unwrap_or_default().parse::<u64>()?;
    let said = page.section("bravo takes over")?;
    let told = said[1]
        .lines()
        .filter(|line| line.starts_with("    ") && !line.contains("--accept"));
    stage.note(format!("told: {}", told.map(str::trim).collect::<Vec<_>>().join("; ")));
    ensure!(said[1].contains("whatever the Primary has written since"), "{said:?}");
    let kept = in_order(&bravo)?;
    stage.note(format!(
        "{:.1} MiB were behind; mounted on bravo after {:.1} s, with {kept} of 6 files of 1 MiB",
        queued as f64 / MIB as f64,
        begin.elapsed().as_secs_f64()
    ));
    ensure!(
        (6 - kept) * MIB <= queued,
        "more is lost than was behind: {queued} bytes"
    );
    bravo.run("test $(stat -c %s /srv/burst) = $((4 << 20)) && test $(stat -c %s /srv/while-cut) = $((2 << 20))")?;
    let alpha = stage.reboot(&alpha)?;
    address(&alpha)?;
    daemon::home(&alpha)?;
    page.booted(&alpha);
    let said = page.section("alpha is back")?;
    let resync = last(&said).lines().find(|line| line.contains("last resync"));
    stage.note(format!("back: {}", resync.unwrap_or_default().trim()));
    ensure!(last(&said).contains("Established"), "{said:?}");
    page.section("And serves again")?;
    ensure!(in_order(&alpha)? == kept, "something else is on alpha");
    for guest in [&alpha, &bravo] {
        guest.no_io_error()?;
    }
    page.close()
}

/// 10 Mbit/s, and 50 ms each way.
fn slow(stage: &Stage) {
    stage.link.restore();
    stage.link.slow(Duration::from_millis(50), 10_000_000 / 8);
}

/// How many of the files are there that were written last; each is whole, and there is none behind one that is missing.
fn in_order(guest: &Guest) -> Result<u64> {
    let kept = guest.run("ls /srv | grep -c ^last- || true")?.parse()?;
    let script = format!("for n in $(seq {kept}); do test $(stat -c %s /srv/last-$n) = $((1 << 20)); done");
    guest.run(&script).with_context(|| format!("{kept} files"))?;
    Ok(kept)
}

fn raid1(stage: &Stage) -> Result<()> {
    let bytes = 64 * MIB;
    let alpha = Machine::named("alpha").disk("local", bytes).disk("home", 64 * MIB);
    let (alpha, bravo) = stage.boot_pair(alpha, Machine::named("bravo").disk("far", bytes))?;
    daemon::home(&alpha)?;
    let mut page = Page::new(include_str!("../../../docs/RAID1.md"), &[&alpha, &bravo]);
    let said = page.section("From nothing to an array")?;
    let said = last(&said);
    stage.note(said.lines().next().unwrap_or_default().to_owned());
    ensure!(said.matches("in sync").count() == 2, "{said}");
    // What the page promises of it.
    alpha.run("dd if=/dev/urandom of=/srv/file bs=1M count=4 conv=fsync 2>&1")?;
    stage.link.cut();
    alpha.run_for("dd if=/dev/urandom of=/srv/more bs=1M count=4 conv=fsync 2>&1", STALL)?;
    stage.link.restore();
    let in_sync =
        "blockmirror --json raid status data | jq -e '.arrays[0] | .leg.standing == \"in_sync\" and .degraded == 0'";
    alpha.until("the watch has healed it", STALL, in_sync)?;
    raid::compare(&alpha, "/dev/md/data")?;
    page.close()
}

/// Two machines as the pages have them: with these addresses, with keys, and with what the tree has in `configs`.
fn nodes(stage: &Stage) -> Result<(Arc<Guest>, Arc<Guest>)> {
    let machine = |name| Machine::named(name).disk("home", 192 * MIB);
    let (alpha, bravo) = stage.boot_pair(machine("alpha"), machine("bravo"))?;
    for guest in [&alpha, &bravo] {
        address(guest)?;
        daemon::home(guest)?;
        guest.run("cp /pki/*.pem /etc/blockmirror; modprobe loop")?;
    }
    Ok((alpha, bravo))
}

fn address(guest: &Guest) -> Result<()> {
    let number = if guest.machine().name == "alpha" { 1 } else { 2 };
    let script = format!("sed -i 's/10\\.0\\.0\\./192.0.2./' /etc/hosts; ip address add 192.0.2.{number}/24 dev eth0");
    guest.run(&script).map(drop)
}

fn last(said: &[String]) -> &str {
    said.last().map_or("", String::as_str)
}
