//! `scripts/bench --resync`: what a resync moves, how fast, and what hosts feel of it.
//!
//! Two partners in network namespaces; a part of a large image is changed all over while they are apart. The link is
//! limited by a token bucket, or not at all; what it can do is measured by a plain TCP transfer in the same run, what
//! the disk of the target can do by writing blocks of the same size at such places and making them durable.

mod crash;
mod hosts;
mod report;
pub mod wire;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use blockmirror_client::admin::ResyncStatus;
use blockmirror_tests::load::{BLOCK, Random};
use blockmirror_tests::partners::{Partners, Setup};
use blockmirror_tests::raw::Raw;
use blockmirror_tests::wait::{self, PATIENT};

const VOLUME: &str = "db";
/// One block of so many is changed.
const CHANGED: u64 = 100;
/// Writes in flight while the image is filled and changed.
const DEPTH: usize = 32;
/// Bytes of the TCP transfer that shows what a limited link can do.
const WIRE_BYTES: u64 = 64 << 20;
/// Of one that is not limited.
const WIRE_BYTES_FREE: u64 = 1 << 30;
/// Blocks written to see what the disk can do.
const DISK_BLOCKS: u64 = 4096;
/// They are made durable after so many.
const DISK_BATCH: u64 = 64;

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
    /// The image is so many times as large, so that a resync over a fast link takes long enough to be measured.
    times: u64,
}

const LINKS: [Link; 3] = [
    Link {
        name: "200 Mbit/s, images in memory",
        limit: Some("200mbit"),
        in_memory: true,
        times: 1,
    },
    Link {
        name: "1 Gbit/s, images in memory",
        limit: Some("1gbit"),
        in_memory: true,
        times: 3,
    },
    Link {
        name: "not limited, images on disk",
        limit: None,
        in_memory: false,
        times: 1,
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
    let mut passes = Vec::new();
    for round in 0..scale.rounds {
        change(&partners, size, round as u64 + 2)?;
        passes.push(together(&mut partners, link)?);
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

/// Write the blocks that are changed, the same ones every time, with this mark.
fn change(partners: &Partners, size: u64, mark: u64) -> Result<()> {
    let mut raw = partners.open(0, VOLUME)?;
    let (mut random, mut in_flight) = (Random::new(size), 0);
    for _ in 0..size / BLOCK / CHANGED {
        let block = random.below(size / BLOCK);
        let mut bytes = vec![mark as u8; BLOCK as usize];
        bytes[..8].copy_from_slice(&block.to_le_bytes());
        raw.send_write(0, block * BLOCK, &bytes)?;
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
fn together(partners: &mut Partners, link: &Link) -> Result<Pass> {
    let namespaces = partners.link.as_ref().context("no namespaces")?;
    let bytes = match link.limit {
        Some(rate) => {
            namespaces.limit(rate)?;
            WIRE_BYTES
        }
        None => WIRE_BYTES_FREE,
    };
    let wire = wire::speed(namespaces, bytes).context("what the link can do")?;
    let disk = disk_speed(partners).context("what the disk can do")?;
    partners.connect(0, false)?;
    partners.wait_in_step(0, PATIENT * 2)?;
    let resync = partners.nodes[0].last_resync(VOLUME)?;
    let (bytes, seconds) = (resync.copied_bytes, resync.elapsed_seconds);
    eprintln!("{}: {bytes} bytes in {seconds:.2} s", link.name);
    Ok(Pass {
        link: wire,
        disk,
        resync,
    })
}

/// Bytes per second that become durable where the images are: blocks at random places, many of them at a time.
fn disk_speed(partners: &Partners) -> Result<f64> {
    let path = partners.scratch.join("disk-speed");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)?;
    let mut random = Random::new(DISK_BLOCKS);
    let block = vec![0x33; BLOCK as usize];
    let spread = 64 * DISK_BLOCKS;
    let places: Vec<u64> = (0..DISK_BLOCKS).map(|_| random.below(spread) * BLOCK).collect();
    // Space first: the images have theirs.
    for place in &places {
        file.write_all_at(&block, *place)?;
    }
    file.sync_data()?;
    let started = Instant::now();
    for batch in places.chunks(DISK_BATCH as usize) {
        for place in batch {
            file.write_all_at(&block, *place)?;
        }
        file.sync_data()?;
    }
    let speed = (DISK_BLOCKS * BLOCK) as f64 / started.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    Ok(speed)
}
