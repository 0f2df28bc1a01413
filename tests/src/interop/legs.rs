//! Our initiator on other people's servers: remote legs, and the `blockmirror` command.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use blockmirror_client::admin::LinkKind;
use serde_json::Value;

use crate::compare;
use crate::foreign::Foreign;
use crate::load::{BLOCK, Load};
use crate::pair::{EXPORT, Pair, Remote, Setup, seed};
use crate::raw::command;
use crate::scratch::Scratch;
use crate::tool;
use crate::wait::PATIENT;

/// Size of the volume.
pub const SIZE: u64 = 64 << 20;
/// Any export name reaches an nbdkit device; the others call theirs so.
pub const LEG: &str = "leg";
/// Bytes zeroed, and as many trimmed.
const ZEROED: u32 = 3 << 20;

/// Starts a server of an image in a folder.
pub type Serve = fn(&Path, &Path) -> Result<Foreign>;

/// One thing our initiator does, and how.
pub type Trial = (&'static str, fn(Serve) -> Result<()>);

/// The servers that are tried.
pub const SERVERS: [(&str, Serve); 5] = [
    ("nbdkit", |folder, image| Foreign::nbdkit_file(folder, image, &[], &[])),
    ("nbd-server", Foreign::nbd_server),
    ("qemu-storage-daemon", Foreign::qemu_storage_daemon),
    ("qemu-storage-daemon, TLS", Foreign::qemu_storage_daemon_tls),
    ("qemu-nbd", Foreign::qemu_nbd),
];

/// What is tried with each of them.
pub const TRIALS: [Trial; 7] = [
    ("remote leg, sync, through a cut", |serve| {
        identical_after_cut(&Setup::default(), serve)
    }),
    ("remote leg, async, through a cut", |serve| {
        let setup = Setup {
            peer: "mode = \"async\"",
            ..Setup::default()
        };
        identical_after_cut(&setup, serve)
    }),
    ("remote leg that is killed and comes back", identical_after_deaths),
    ("found to be a plain NBD server", |serve| {
        let setup = Setup {
            peer: "protocol = \"auto\"",
            ..Setup::default()
        };
        let pair = Pair::with_foreign(&setup, LEG, serve)?;
        let peer = pair.primary.wait_established(EXPORT, PATIENT)?;
        ensure!(peer.link == LinkKind::Nbd, "{peer:?}");
        pair.assert_converges()
    }),
    ("`blockmirror copy`, both ways", copy_both_ways),
    ("`blockmirror compare`", compare_sees_differences),
    ("`blockmirror info`, `map`: as nbdinfo has it", looks_as_nbdinfo_has_it),
];

/// Load, cut, load, restore under load; then everything is on the peer, and the resync copied no more than was dirty.
pub fn cut_and_resync(pair: &Pair) -> Result<()> {
    pair.primary.wait_established(EXPORT, PATIENT)?;
    let mut load = Load::new(SIZE / BLOCK, 16, 11);
    let mut raw = pair.primary.open(EXPORT)?;
    load.run(&mut raw, |load| load.writes >= 400)?;
    load.flush(&mut raw)?;
    pair.relay.cut();
    pair.primary.wait_lost(EXPORT)?;
    load.run(&mut raw, |load| load.writes >= 800)?;
    pair.relay.restore();
    load.run(&mut raw, |load| load.writes >= 1200)?;
    load.flush(&mut raw)?;
    ensure!(load.verify(&mut raw)? == 0);
    // Holes and zeroes, which not every server takes as such.
    ensure!(raw.call(0, command::WRITE_ZEROES, 30 << 20, ZEROED)? == 0);
    ensure!(raw.call(0, command::TRIM, 40 << 20, ZEROED)? == 0);
    raw.flush()?;
    let peer = pair.primary.wait_established(EXPORT, PATIENT)?;
    let resync = peer.last_resync.context("no resync took place")?;
    ensure!(
        resync.copied_bytes + resync.zeroed_bytes <= resync.dirty_at_start_bytes,
        "{resync:?}"
    );
    // The link may have come back only after the zeroes.
    let written = load.touched_bytes() + 2 * u64::from(ZEROED);
    ensure!(resync.dirty_at_start_bytes <= written, "{resync:?}, written: {written}");
    Ok(())
}

/// The same with a server of one's own; then both images are compared.
pub fn identical_after_cut(setup: &Setup<'_>, serve: impl FnOnce(&Path, &Path) -> Result<Foreign>) -> Result<()> {
    let pair = Pair::with_foreign(setup, LEG, serve)?;
    cut_and_resync(&pair)?;
    pair.assert_converges()
}

/// The server is killed three times under load, and started again.
pub fn identical_after_deaths(serve: impl FnOnce(&Path, &Path) -> Result<Foreign>) -> Result<()> {
    let mut pair = Pair::with_foreign(&Setup::default(), LEG, serve)?;
    pair.primary.wait_established(EXPORT, PATIENT)?;
    let mut load = Load::new(SIZE / BLOCK, 16, 13);
    let mut raw = pair.primary.open(EXPORT)?;
    for round in 1..=3 {
        load.run(&mut raw, |load| load.writes >= round * 400)?;
        pair.kill_remote();
        load.run(&mut raw, |load| load.writes >= round * 400 + 200)?;
        pair.restart_remote()?;
    }
    load.flush(&mut raw)?;
    ensure!(load.verify(&mut raw)? == 0);
    pair.assert_converges()
}

/// The URI of whoever serves the remote leg.
pub fn uri_of(remote: &Remote) -> String {
    match remote {
        Remote::Foreign(foreign) => foreign.uri(),
        Remote::Node(node) => node.uri(LEG),
    }
}

/// Two servers of one kind, the first with random data in it.
fn two(serve: Serve) -> Result<(Scratch, [Foreign; 2])> {
    let scratch = Scratch::new()?;
    let start = |name: &str, seeded: u64| {
        let folder = scratch.join(name);
        std::fs::create_dir(&folder)?;
        let image = scratch.sparse_file(&format!("{name}.img"), SIZE)?;
        seed(&image, seeded)?;
        serve(&folder, &image)
    };
    let servers = [start("left", 20 << 20)?, start("right", 0)?];
    Ok((scratch, servers))
}

fn blockmirror(arguments: &[&str]) -> Result<tool::Outcome> {
    tool::run(&tool::binary("blockmirror")?.display().to_string(), arguments, PATIENT)
}

fn copy_both_ways(serve: Serve) -> Result<()> {
    let (scratch, servers) = two(serve)?;
    let (left, right) = (servers[0].uri(), servers[1].uri());
    let [left_image, right_image] = ["left.img", "right.img"].map(|name| scratch.join(name));
    let copied = blockmirror(&["copy", &left, &right])?;
    ensure!(copied.status.success(), "{}", copied.text());
    compare::assert_identical(&left_image, &right_image)?;
    seed(&right_image, 5 << 20)?;
    let copied = blockmirror(&["copy", &right, &left])?;
    ensure!(copied.status.success(), "{}", copied.text());
    compare::assert_identical(&left_image, &right_image)
}

fn compare_sees_differences(serve: Serve) -> Result<()> {
    let (scratch, servers) = two(serve)?;
    let (left, right) = (servers[0].uri(), servers[1].uri());
    let different = blockmirror(&["compare", &left, &right])?;
    ensure!(different.status.code() == Some(1), "{}", different.text());
    seed(&scratch.join("right.img"), 20 << 20)?;
    let equal = blockmirror(&["compare", &left, &right])?;
    ensure!(equal.status.success(), "{}", equal.text());
    Ok(())
}

fn looks_as_nbdinfo_has_it(serve: Serve) -> Result<()> {
    let (_scratch, servers) = two(serve)?;
    servers.iter().try_for_each(|server| same_look(&server.uri()))
}

/// `blockmirror` and `nbdinfo` say the same of an export: its size, its contexts, and where its data is.
pub fn same_look(uri: &str) -> Result<()> {
    let ours = blockmirror(&["--json", "info", uri])?;
    ensure!(ours.status.success(), "{}", ours.text());
    let ours: Value = serde_json::from_str(&ours.stdout)?;
    let theirs: Value = serde_json::from_str(&tool::check("nbdinfo", &["--json", uri], PATIENT)?)?;
    let (ours, theirs) = (&ours["exports"][0], &theirs["exports"][0]);
    ensure!(ours["size_bytes"] == theirs["export-size"], "{ours} {theirs}");
    ensure!(ours["read_only"] == theirs["is_read_only"], "{ours} {theirs}");
    let contexts = |look: &Value| look["contexts"].as_array().cloned().unwrap_or_default();
    ensure!(contexts(ours) == contexts(theirs), "{ours} {theirs}");
    let map = blockmirror(&["--json", "map", uri])?;
    if contexts(theirs).is_empty() {
        ensure!(map.text().contains("it has none"), "{}", map.text());
        return Ok(());
    }
    ensure!(map.status.success(), "{}", map.text());
    let theirs = tool::check("nbdinfo", &["--map", "--json", uri], PATIENT)?;
    let [ours, theirs] = [serde_json::from_str(&map.stdout)?, serde_json::from_str(&theirs)?];
    ensure!(joined(&ours)? == joined(&theirs)?, "{ours} {theirs}");
    Ok(())
}

/// Where each extent ends and what it is, equal neighbours joined.
fn joined(map: &Value) -> Result<Vec<(u64, Value)>> {
    let mut ends: Vec<(u64, Value)> = Vec::new();
    for extent in map.as_array().context("a map is a list")? {
        let number = |key: &str| extent[key].as_u64().with_context(|| format!("no {key} in {extent}"));
        let end = number("offset")? + number("length")?;
        match ends.last_mut() {
            Some((last, kind)) if *kind == extent["type"] => *last = end,
            _ => ends.push((end, extent["type"].clone())),
        }
    }
    Ok(ends)
}
