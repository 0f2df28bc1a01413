//! `scripts/bench --steady`: what a daemon asks of the allocator per request once it runs, and whether its memory grows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use blockmirror_tests::config::{NodeConfig, Resource};
use blockmirror_tests::node::Node;
use blockmirror_tests::pair;
use blockmirror_tests::partners::{Partners, Setup};
use blockmirror_tests::scratch::Scratch;
use blockmirror_tests::tool;
use blockmirror_tests::wait::PATIENT;

use crate::fio::{self, LARGE, Row, SMALL};
use crate::systems::IMAGE_SIZE;

/// What fio does while allocations are counted.
const ROWS: [Row; 6] = [
    row("4 KiB random write, depth 32", "randwrite", SMALL, 32),
    row("4 KiB random read, depth 32", "randread", SMALL, 32),
    row("64 KiB random write, depth 32", "randwrite", 64 << 10, 32),
    row("64 KiB random read, depth 32", "randread", 64 << 10, 32),
    row("1 MiB sequential write, depth 8", "write", LARGE, 8),
    row("1 MiB sequential read, depth 8", "read", LARGE, 8),
];
/// Time in a run of fio after which everything is warm, time during which is counted, and time for the end.
const PHASES: [Duration; 3] = [
    Duration::from_millis(1500),
    Duration::from_millis(2000),
    Duration::from_millis(500),
];
/// Lines of the table of memory.
const STEPS: u64 = 10;

const fn row(name: &'static str, pattern: &'static str, block: u64, depth: u32) -> Row {
    Row {
        name,
        pattern,
        block,
        depth,
    }
}

/// A daemon that counts, or two that are partners: the Primary counts.
struct Counted {
    name: &'static str,
    uri: String,
    count: PathBuf,
    daemon: Daemon,
    _scratch: Scratch,
}

enum Daemon {
    One(Box<Node>),
    Two(Box<Partners>),
}

/// Count allocations, then watch memory over so many requests.
pub fn run(requests: u64) -> Result<()> {
    let daemons = [alone("plain", false)?, alone("mirror on, no peer", true)?, partners()?];
    println!("Allocations in {:?} under load, and per request:\n", PHASES[1]);
    println!(
        "| | {} |\n|---{}|",
        daemons.each_ref().map(|it| it.name).join(" | "),
        "|---:".repeat(3)
    );
    for row in &ROWS {
        let cells = daemons
            .iter()
            .map(|daemon| {
                daemon
                    .allocations(row)
                    .with_context(|| format!("{} on {}", row.name, daemon.name))
            })
            .collect::<Result<Vec<String>>>()?;
        println!("| {} | {} |", row.name, cells.join(" | "));
    }
    let idle = daemons.iter().map(Counted::idle).collect::<Result<Vec<String>>>()?;
    println!("| nothing to do | {} |\n", idle.join(" | "));
    println!("Resident memory in KiB over {requests} requests of 4 KiB each, half of them writes, depth 32:\n");
    println!(
        "| requests | {} |\n|---:{}|",
        daemons.each_ref().map(|it| it.name).join(" | "),
        "|---:".repeat(3)
    );
    for step in 0..=STEPS {
        if step > 0 {
            for daemon in &daemons {
                daemon.mixed(requests / STEPS)?;
            }
        }
        let cells = daemons
            .iter()
            .map(|daemon| Ok((daemon.node().process().context("it is gone")?.resident_bytes()?.0 >> 10).to_string()))
            .collect::<Result<Vec<String>>>()?;
        println!("| {} | {} |", requests / STEPS * step, cells.join(" | "));
    }
    Ok(())
}

fn alone(name: &'static str, mirror: bool) -> Result<Counted> {
    let scratch = Scratch::in_memory()?;
    let image = scratch.sparse_file("image", IMAGE_SIZE)?;
    pair::seed(&image, IMAGE_SIZE)?;
    let resource = match mirror {
        true => Resource::mirrored("db", &image, IMAGE_SIZE, Vec::new()),
        false => Resource::plain("db", &image, IMAGE_SIZE),
    };
    let count = scratch.join("count");
    let node = Node::stopped(scratch.path(), &NodeConfig::new("alpha", vec![resource]))?;
    let mut node = node.with_binary("counting-daemon", &counting(&count));
    node.restart()?;
    Ok(Counted {
        name,
        uri: node.uri("db"),
        count,
        daemon: Daemon::One(Box::new(node)),
        _scratch: scratch,
    })
}

fn partners() -> Result<Counted> {
    let scratch = Scratch::in_memory()?;
    let count = scratch.join("count");
    let mut partners = Partners::fresh(Setup {
        volumes: vec![("db".to_owned(), IMAGE_SIZE)],
        in_memory: true,
        ..Setup::default()
    })?;
    let [alpha, _] = &mut partners.nodes;
    alpha.stop()?;
    alpha.switch_binary("counting-daemon", &counting(&count));
    alpha.restart()?;
    partners.wait_connected(PATIENT)?;
    partners.promote_whatever(0)?;
    partners.wait_in_step(0, PATIENT)?;
    Ok(Counted {
        name: "sync, partner",
        uri: partners.nodes[0].uri("db"),
        count,
        daemon: Daemon::Two(Box::new(partners)),
        _scratch: scratch,
    })
}

fn counting(count: &Path) -> [String; 2] {
    ["--count".to_owned(), count.display().to_string()]
}

impl Counted {
    fn node(&self) -> &Node {
        match &self.daemon {
            Daemon::One(node) => node,
            Daemon::Two(partners) => &partners.nodes[0],
        }
    }

    fn counted(&self) -> Result<u64> {
        let text = std::fs::read_to_string(&self.count)?;
        text.trim().parse().with_context(|| format!("not a count: {text:?}"))
    }

    /// Counted in the middle of a run, since a connection that comes or goes is no request.
    fn allocations(&self, row: &Row) -> Result<String> {
        let [warm, counting, rest] = PHASES;
        let total = (warm + counting + rest).as_secs_f64();
        let (sample, counts) = std::thread::scope(|scope| {
            let run = scope.spawn(|| fio::run_once(row, &self.uri, total));
            std::thread::sleep(warm);
            let before = self.counted();
            std::thread::sleep(counting);
            let after = self.counted();
            (run.join(), (before, after))
        });
        let Ok(sample) = sample else {
            bail!("the thread of fio ended early")
        };
        let (requests, made) = (sample?.iops * counting.as_secs_f64(), counts.1? - counts.0?);
        Ok(format!("{made} ({:.4})", made as f64 / requests))
    }

    fn idle(&self) -> Result<String> {
        let before = self.counted()?;
        std::thread::sleep(PHASES[1]);
        Ok((self.counted()? - before).to_string())
    }

    fn mixed(&self, requests: u64) -> Result<()> {
        let (uri, bytes) = (format!("--uri={}", self.uri), format!("--io_size={}", requests * SMALL));
        let size = format!("--size={IMAGE_SIZE}");
        let usual = [
            "--name=mixed",
            "--thread",
            "--ioengine=nbd",
            "--rw=randrw",
            "--bs=4k",
            "--iodepth=32",
        ];
        let arguments = [&usual[..], &["--norandommap", &uri, &bytes, &size]].concat();
        tool::check("fio", &arguments, Duration::from_secs(3600)).map(drop)
    }
}
