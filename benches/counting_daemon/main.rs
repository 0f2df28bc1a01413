//! The daemon with an allocator that counts, for `scripts/bench --steady`: it writes into a file, every now and then, how
//! many times memory was asked for.

use std::alloc::System;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use blockmirror_server::config::Config;
use blockmirror_server::control::{self, Options};
use blockmirror_server::log;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How often the file is written.
const EVERY: Duration = Duration::from_millis(10);
const USAGE: &str = "usage: counting-daemon --config FILE --count FILE";

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ["--config", config, "--count", count] = arguments[..] else {
        bail!(USAGE)
    };
    let config = Config::load(Path::new(config)).context("the configuration")?;
    log::start(log::Format::Text, "info")?;
    let count = File::create(count).context("the file of the count")?;
    std::thread::spawn(move || write_counts(&count));
    // Nobody stops it in order.
    let (_trigger, shutdown) = control::shutdown();
    Ok(control::run(config, Options::default(), shutdown).await?)
}

/// Forever, and without an allocation of its own.
fn write_counts(file: &File) -> std::io::Result<()> {
    loop {
        let stats = ALLOCATOR.stats();
        let mut line = [b' '; 32];
        write!(&mut line[..], "{}", stats.allocations + stats.reallocations)?;
        file.write_all_at(&line, 0)?;
        std::thread::sleep(EVERY);
    }
}
