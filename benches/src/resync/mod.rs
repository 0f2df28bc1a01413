//! `scripts/bench --resync`: what a resync moves, how fast, and what hosts feel of it.
//!
//! Two partners in network namespaces; a part of a large image is changed all over while they are apart. The link is
//! limited by a token bucket, or not at all; what it can do is measured by a plain TCP transfer in the same run, what
//! the disk of the target can do by the writes the target has to do, in a file of its own ([`disk`]).

mod crash;
mod disk;
mod hosts;
mod report;
mod slow_disk;
pub mod wire;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use blockmirror_client::admin::ResyncStatus;
use blockmirror_tests::load::{BLOCK, Random};
use blockmirror_tests::partners::{Partners, Setup};
use blockmirror_tests::raw::Raw;
use blockmirror_tests::wait::{self, PATIENT};

use self::disk::Disk;
use self::slow_disk::SlowDisk;

const VOLUME: &str = "db";
/// One block of so many is changed.
const CHANGED: u64 = 100;
/// Writes in flight while the image is filled and changed.
const DEPTH: usize = 32;
/// Bytes of the TCP transfer that shows what a limited link can do.
const WIRE_BYTES: u64 = 64 << 20;
/// Of one that is not limited.
const WIRE_BYTES_FREE: u64 = 1 << 30;
/// It is looked this often whether a resync is over; how long it took the daemon knows better. What asking both nodes
/// every few milliseconds costs was a tenth of two processors.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How large, and how often.
pub struct Scale {
    size: u64,
    rounds: usize,
    crashes: usize,
}

impl Scale {
    /// What the figures of the documentation are measured with, or a short form.
    pub fn new(short: bool) -> Self {
        Self {
            size: if short { 1 << 30 } else { 8 << 30 },
            rounds: if short { 1 } else { 3 },
            crashes: if short { 1 } else { 5 },
        }
    }
}

/// A link: its name in the tables, and its limit as `tc` reads it.
struct Link {
    name: &'static str,
    limit: Option<&'static str>,
    in_memory: bool,
    /// Bytes per second that the target may write, where its disk is to be slower than the machine's.
    disk_limit: Option<u64>,
    /// The image is so many times as large, so that a resync over a fast link takes long enough to be measured.
    times: u64,
}

const LINKS: [Link; 4] = [
    Link {
        name: "200 Mbit/s, images in memory",
        limit: Some("200mbit"),
        in_memory: true,
        disk_limit: None,
        times: 1,
    },
    Link {
        name: "1 Gbit/s, images in memory",
        limit: Some("1gbit"),
        in_memory: true,
        disk_limit: None,
        times: 3,
    },
    Link {
        name: "not limited, images on disk",
        limit: None,
        in_memory: false,
        disk_limit: None,
        times: 1,
    },
    Link {
        name: "not limited, disk limited to 100 MB/s",
        limit: None,
        in_memory: false,
        disk_limit: Some(100_000_000),
        times: 3,
    },
];

/// One resync of what was changed while the nodes were apart.
struct Pass {
    /// Bytes per second the link was measured to carry.
    link: f64,
    /// Bytes per second the disk was measured to make durable.
    disk: f64,
    resync: ResyncStatus,
}

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// How fast it is.
    Speed,
    /// What hosts feel of it.
    Hosts,
    /// What it moves after a crash.
    Crash,
}

/// Measure these and print them.
pub fn run(scale: &Scale, parts: &[Part]) -> Result<()> {
    for part in parts {
        match part {
            Part::Speed => every_link(scale)?,
            Part::Hosts => report::hosts(&hosts::measure(scale).context("hosts during a resync")?),
            Part::Crash => report::crashes(&crash::measure(scale.crashes).context("resync after a crash")?),
        }
    }
    Ok(())
}

fn every_link(scale: &Scale) -> Result<()> {
    println!(
        "one block of {BLOCK} bytes of {CHANGED} changed at random places while apart; medians of {}\n",
        scale.rounds
    );
    let mut rows = Vec::new();
    for link in &LINKS {
        let passes = speed(link, scale).with_context(|| link.name.to_owned())?;
        rows.push((
            format!("{}, {} GiB", link.name, (scale.size * link.times) >> 30),
            passes,
        ));
    }
    report::speed(&rows);
    Ok(())
}

fn speed(link: &Link, scale: &Scale) -> Result<Vec<Pass>> {
    let size = scale.size * link.times;
    let mut partners = apart(size, link.in_memory)?;
    let disk = Disk::new(&partners.scratch.join("disk-speed"), changed_places(size))?;
    let slow = link
        .disk_limit
        .map(|limit| SlowDisk::new(partners.scratch.path(), limit));
    let slow = slow.transpose()?;
    if let Some(slow) = &slow {
        slow.take(partners.nodes[1].running()?.id())?;
    }
    let mut passes = Vec::new();
    for round in 0..scale.rounds {
        change(&partners, size, round as u64 + 2)?;
        let disk = match &slow {
            Some(slow) => slow.limited(|| disk.speed()),
            None => disk.speed(),
        };
        let disk = disk.context("what the disk can do")?;
        passes.push(together(&mut partners, link, disk)?);
        part(&partners)?;
    }
    partners.assert_identical()?;
    Ok(passes)
}

/// Two partners with data at all places that are changed later, then disconnected.
fn apart(size: u64, in_memory: bool) -> Result<Partners> {
    let partners = Partners::new(Setup {
        volumes: vec![(VOLUME.to_owned(), size)],
        namespaces: true,
        in_memory,
        ..Setup::default()
    })?;
    change(&partners, size, 1)?;
    partners.wait_in_step(0, PATIENT)?;
    part(&partners)?;
    Ok(partners)
}

fn part(partners: &Partners) -> Result<()> {
    partners.disconnect(0)?;
    wait::until("the nodes to be apart", PATIENT, || {
        (!partners.is_connected(0)).then_some(())
    })
}

/// Where the blocks are that are changed, in the order in which they are.
fn changed_places(size: u64) -> Vec<u64> {
    let mut random = Random::new(size);
    let blocks = 0..size / BLOCK / CHANGED;
    blocks.map(|_| random.below(size / BLOCK) * BLOCK).collect()
}

/// Write the blocks that are changed, the same ones every time, with this mark.
fn change(partners: &Partners, size: u64, mark: u64) -> Result<()> {
    let mut raw = partners.open(0, VOLUME)?;
    let mut in_flight = 0;
    for place in changed_places(size) {
        let mut bytes = vec![mark as u8; BLOCK as usize];
        bytes[..8].copy_from_slice(&place.to_le_bytes());
        raw.send_write(0, place, &bytes)?;
        in_flight += 1;
        if in_flight == DEPTH {
            answered(&mut raw)?;
            in_flight -= 1;
        }
    }
    for _ in 0..in_flight {
        answered(&mut raw)?;
    }
    raw.flush()
}

fn answered(raw: &mut Raw) -> Result<()> {
    let (_, error) = raw.reply()?;
    ensure!(error == 0, "a write was answered with error {error}");
    Ok(())
}

/// Connect them over this link, and wait until both have everything.
fn together(partners: &mut Partners, link: &Link, disk: f64) -> Result<Pass> {
    let namespaces = partners.link.as_ref().context("no namespaces")?;
    let bytes = match link.limit {
        Some(rate) => {
            namespaces.limit(rate)?;
            WIRE_BYTES
        }
        None => WIRE_BYTES_FREE,
    };
    let wire = wire::speed(namespaces, bytes).context("what the link can do")?;
    partners.connect(0, false)?;
    let started = Instant::now();
    while !partners.is_in_step(0) {
        ensure!(started.elapsed() < PATIENT * 2, "the resync does not end");
        std::thread::sleep(LOOK_EVERY);
    }
    let resync = partners.nodes[0].last_resync(VOLUME)?;
    let (bytes, seconds) = (resync.copied_bytes, resync.elapsed_seconds);
    eprintln!("{}: {bytes} bytes in {seconds:.2} s", link.name);
    Ok(Pass {
        link: wire,
        disk,
        resync,
    })
}
