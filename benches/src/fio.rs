//! One run of fio's nbd engine against one server.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use blockmirror_tests::tool;
use serde_json::Value;

use crate::systems::IMAGE_SIZE;

/// A workload.
pub struct Row {
    /// Its name in the tables.
    pub name: &'static str,
    /// fio's `rw`.
    pub pattern: &'static str,
    /// Bytes per request.
    pub block: u64,
    /// Requests in flight.
    pub depth: u32,
}

/// What one run found.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Requests per second.
    pub iops: f64,
    /// Bytes per second, in units of a million.
    pub megabytes: f64,
    /// Median time of one request, in microseconds.
    pub p50: f64,
    /// Its 99th percentile.
    pub p99: f64,
    /// Processor time of the server per request, in microseconds.
    pub cpu: f64,
}

/// A small request, in bytes.
pub const SMALL: u64 = 4 << 10;
/// A large request, in bytes.
pub const LARGE: u64 = 1 << 20;

/// Workloads of the plain servers.
pub const PLAIN_ROWS: [Row; 6] = [
    Row {
        name: "4 KiB random write, depth 1",
        pattern: "randwrite",
        block: SMALL,
        depth: 1,
    },
    Row {
        name: "4 KiB random write, depth 32",
        pattern: "randwrite",
        block: SMALL,
        depth: 32,
    },
    Row {
        name: "4 KiB random read, depth 1",
        pattern: "randread",
        block: SMALL,
        depth: 1,
    },
    Row {
        name: "4 KiB random read, depth 32",
        pattern: "randread",
        block: SMALL,
        depth: 32,
    },
    Row {
        name: "1 MiB sequential write, depth 16",
        pattern: "write",
        block: LARGE,
        depth: 16,
    },
    Row {
        name: "1 MiB sequential read, depth 16",
        pattern: "read",
        block: LARGE,
        depth: 16,
    },
];

/// Workloads of the mirrors: what is mirrored is writes.
pub const MIRROR_ROWS: [Row; 3] = [
    Row {
        name: "4 KiB random write, depth 1",
        pattern: "randwrite",
        block: SMALL,
        depth: 1,
    },
    Row {
        name: "4 KiB random write, depth 32",
        pattern: "randwrite",
        block: SMALL,
        depth: 32,
    },
    Row {
        name: "1 MiB sequential write, depth 16",
        pattern: "write",
        block: LARGE,
        depth: 16,
    },
];

impl Row {
    /// Whether its natural figure is bytes and not requests.
    pub fn is_large(&self) -> bool {
        self.block == LARGE
    }
}

/// What can be measured: something with a URI that costs processor time.
pub trait Target {
    /// Where clients connect.
    fn uri(&self) -> &str;
    /// Processor time of the server so far.
    fn cpu_time(&self) -> Result<Duration>;
}

/// Run `row` against `target` for `seconds`, after a moment of warming up that counts for nothing.
pub fn run(row: &Row, target: &dyn Target, seconds: f64) -> Result<Sample> {
    let uri = format!("--uri={}", target.uri());
    let engine = ["--ioengine=nbd", &uri];
    once(row, &engine, 0.2)?;
    let before = target.cpu_time()?;
    let report = once(row, &engine, seconds)?;
    let cpu = target.cpu_time()?.saturating_sub(before);
    sample(row, &report, cpu)
}

/// Run `row` once, without warming up; what it cost the server is not asked.
pub fn run_once(row: &Row, uri: &str, seconds: f64) -> Result<Sample> {
    let report = once(row, &["--ioengine=nbd", &format!("--uri={uri}")], seconds)?;
    sample(row, &report, Duration::ZERO)
}

/// Run `row` on an image itself, by io_uring: what the storage can do without a server.
pub fn run_on_image(row: &Row, image: &Path, direct: bool, seconds: f64) -> Result<Sample> {
    let (file, direct) = (
        format!("--filename={}", image.display()),
        format!("--direct={}", u8::from(direct)),
    );
    let engine = ["--ioengine=io_uring", &file, &direct];
    once(row, &engine, 0.2)?;
    sample(row, &once(row, &engine, seconds)?, Duration::ZERO)
}

fn sample(row: &Row, report: &Value, cpu: Duration) -> Result<Sample> {
    let job = &report["jobs"][0];
    ensure!(job["error"] == 0, "fio reports error {}", job["error"]);
    let side = &job[if row.pattern.ends_with("read") { "read" } else { "write" }];
    let figure = |value: &Value| value.as_f64().context("fio's report lacks a figure");
    let requests = figure(&side["total_ios"])?;
    ensure!(requests > 0.0, "fio did nothing");
    Ok(Sample {
        iops: figure(&side["iops"])?,
        megabytes: figure(&side["bw_bytes"])? / 1e6,
        p50: figure(&side["clat_ns"]["percentile"]["50.000000"])? / 1e3,
        p99: figure(&side["clat_ns"]["percentile"]["99.000000"])? / 1e3,
        cpu: cpu.as_secs_f64() * 1e6 / requests,
    })
}

fn once(row: &Row, engine: &[&str], seconds: f64) -> Result<Value> {
    let (pattern, block, depth) = (
        format!("--rw={}", row.pattern),
        format!("--bs={}", row.block),
        format!("--iodepth={}", row.depth),
    );
    let (size, runtime) = (
        format!("--size={IMAGE_SIZE}"),
        format!("--runtime={:.0}ms", seconds * 1e3),
    );
    let usual = [
        "--name=row",
        "--thread",
        "--time_based",
        "--norandommap",
        "--randrepeat=0",
        "--output-format=json",
    ];
    let arguments = [&usual[..], &[&pattern, &block, &depth, &size, &runtime], engine].concat();
    let text = tool::check("fio", &arguments, Duration::from_secs(120))?;
    let start = text.find('{').context("fio printed no report")?;
    Ok(serde_json::from_str(&text[start..])?)
}
