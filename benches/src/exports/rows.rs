//! What clients do: fio at several depths and sizes, nbdcopy with one connection and with four.

use std::time::{Duration, Instant};

use anyhow::Result;
use blockmirror_tests::tool;

use crate::fio::{self, LARGE, Row, SMALL, Sample, Target};
use crate::systems::IMAGE_SIZE;

use super::scene::Stage;

/// A middling request, in bytes.
const MIDDLE: u64 = 64 << 10;
/// Requests in flight of an nbdcopy, over all of its connections.
const COPY_REQUESTS: u32 = 64;

/// One line of the tables.
pub enum Work {
    /// Requests of one size at one depth.
    Fio(Row),
    /// The whole export read or written.
    Copy(Row, Copy),
}

/// What an nbdcopy does.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    connections: u32,
    writes: bool,
}

const fn row(name: &'static str, pattern: &'static str, block: u64, depth: u32) -> Work {
    Work::Fio(Row {
        name,
        pattern,
        block,
        depth,
    })
}

const fn copy(name: &'static str, connections: u32, writes: bool) -> Work {
    let row = Row {
        name,
        pattern: if writes { "write" } else { "read" },
        block: LARGE,
        depth: COPY_REQUESTS,
    };
    Work::Copy(row, Copy { connections, writes })
}

/// All of them.
pub const WORK: [Work; 28] = [
    row("4 KiB random write, depth 1", "randwrite", SMALL, 1),
    row("4 KiB random write, depth 8", "randwrite", SMALL, 8),
    row("4 KiB random write, depth 32", "randwrite", SMALL, 32),
    row("4 KiB random write, depth 128", "randwrite", SMALL, 128),
    row("4 KiB random read, depth 1", "randread", SMALL, 1),
    row("4 KiB random read, depth 8", "randread", SMALL, 8),
    row("4 KiB random read, depth 32", "randread", SMALL, 32),
    row("4 KiB random read, depth 128", "randread", SMALL, 128),
    row("64 KiB random write, depth 1", "randwrite", MIDDLE, 1),
    row("64 KiB random write, depth 8", "randwrite", MIDDLE, 8),
    row("64 KiB random write, depth 32", "randwrite", MIDDLE, 32),
    row("64 KiB random write, depth 128", "randwrite", MIDDLE, 128),
    row("64 KiB random read, depth 1", "randread", MIDDLE, 1),
    row("64 KiB random read, depth 8", "randread", MIDDLE, 8),
    row("64 KiB random read, depth 32", "randread", MIDDLE, 32),
    row("64 KiB random read, depth 128", "randread", MIDDLE, 128),
    row("1 MiB sequential write, depth 1", "write", LARGE, 1),
    row("1 MiB sequential write, depth 8", "write", LARGE, 8),
    row("1 MiB sequential write, depth 32", "write", LARGE, 32),
    row("1 MiB sequential write, depth 128", "write", LARGE, 128),
    row("1 MiB sequential read, depth 1", "read", LARGE, 1),
    row("1 MiB sequential read, depth 8", "read", LARGE, 8),
    row("1 MiB sequential read, depth 32", "read", LARGE, 32),
    row("1 MiB sequential read, depth 128", "read", LARGE, 128),
    copy("nbdcopy, written over 1 connection", 1, true),
    copy("nbdcopy, written over 4 connections", 4, true),
    copy("nbdcopy, read over 1 connection", 1, false),
    copy("nbdcopy, read over 4 connections", 4, false),
];

impl Work {
    /// How it stands in the tables.
    pub fn row(&self) -> &Row {
        match self {
            Self::Fio(row) | Self::Copy(row, _) => row,
        }
    }

    /// Do it once.
    pub fn run(&self, stage: &Stage, target: &dyn Target, seconds: f64) -> Result<Sample> {
        match self {
            Self::Fio(row) => fio::run(row, target, seconds),
            Self::Copy(_, copy) => copy.run(stage, target),
        }
    }

    /// The same on the image itself, without a server; `None`: nothing compares.
    pub fn run_on_image(&self, stage: &Stage, seconds: f64) -> Option<Result<Sample>> {
        match self {
            Self::Fio(row) => Some(fio::run_on_image(row, &stage.image(), stage.scene.direct, seconds)),
            Self::Copy(..) => None,
        }
    }
}

impl Copy {
    /// Time counts from the start of the program to its end; of single requests nothing is known.
    fn run(self, stage: &Stage, target: &dyn Target) -> Result<Sample> {
        let (connections, requests) = (
            format!("--connections={}", self.connections),
            format!("--requests={}", COPY_REQUESTS / self.connections),
        );
        let source = stage.source().display().to_string();
        let (from, to) = if self.writes {
            (source.as_str(), target.uri())
        } else {
            (target.uri(), "null:")
        };
        let before = target.cpu_time()?;
        let started = Instant::now();
        let arguments = [connections.as_str(), &requests, "--request-size=1048576", from, to];
        tool::check("nbdcopy", &arguments, Duration::from_secs(120))?;
        let seconds = started.elapsed().as_secs_f64();
        let cpu = target.cpu_time()?.saturating_sub(before);
        let requests = (IMAGE_SIZE / LARGE) as f64;
        Ok(Sample {
            iops: requests / seconds,
            megabytes: IMAGE_SIZE as f64 / 1e6 / seconds,
            p50: 0.0,
            p99: 0.0,
            cpu: cpu.as_secs_f64() * 1e6 / requests,
        })
    }
}
