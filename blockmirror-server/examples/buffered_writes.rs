//! The measurement behind the inline policy of `ring`: what a buffered write costs within the data thread and by way
//! of the ring, and when it blocks. The figures and what follows from them are in `docs/MEASUREMENTS.md`.
//!
//! `cargo run --release -p blockmirror-server --example buffered_writes -- DIRECTORY...`
//!
//! Each directory stands for its file system; a file of 256 MiB is made there and removed again.

use std::env;
use std::fs::{self, File};
use std::io::{ErrorKind, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use blockmirror_server::ring::{EngineChoice, FileHandle, InlinePolicy, Op, open_driver_with};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use rustix::io::{Errno, ReadWriteFlags};

const FILE: u64 = 256 << 20;
const DEPTH: usize = 32;

/// What a run of writes took.
struct Figures {
    latencies: Vec<Duration>,
    elapsed: Duration,
    processor: Duration,
}

impl Figures {
    fn of(run: impl FnOnce(&mut Vec<Duration>) -> Result<()>) -> Result<Self> {
        let (mut latencies, start, before) = (Vec::new(), Instant::now(), processor_time()?);
        run(&mut latencies)?;
        latencies.sort_unstable();
        Ok(Self {
            latencies,
            elapsed: start.elapsed(),
            processor: processor_time()? - before,
        })
    }

    fn print(&self, name: &str) {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let count = self.latencies.len();
        let at = |part: f64| micros(self.latencies[((count - 1) as f64 * part) as usize]);
        let per_write = |time: Duration| micros(time) / count as f64;
        println!(
            "  {name:34} {:8.2} us/write, processor {:8.2} us, latency p50 {:8.1} p99 {:9.1} max {:9.1} us",
            per_write(self.elapsed),
            per_write(self.processor),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

/// User and system time of all threads so far, kernel workers of the ring among them.
fn processor_time() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}

/// Places in the file, in no order, the same ones in each run.
fn places(count: usize, length: usize) -> impl Iterator<Item = u64> {
    let slots = FILE / length as u64;
    (0..count as u64).map(move |number| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % slots * length as u64)
}

fn inline(file: &File, count: usize, length: usize) -> Result<Figures> {
    let bytes = vec![1; length];
    Figures::of(|latencies| {
        for offset in places(count, length) {
            let start = Instant::now();
            file.write_all_at(&bytes, offset)?;
            latencies.push(start.elapsed());
        }
        Ok(())
    })
}

fn by_ring(file: &FileHandle, count: usize, length: usize) -> Result<Figures> {
    let mut driver = open_driver_with(EngineChoice::Uring, InlinePolicy::Never)?;
    let payload = driver.pool().payload_of(&vec![2; length]);
    let mut started = Vec::with_capacity(count);
    Figures::of(|latencies| {
        let (mut places, mut ended) = (places(count, length), Vec::new());
        while latencies.len() < count {
            while started.len() - latencies.len() < DEPTH {
                let Some(offset) = places.next() else { break };
                let write = Op::Write {
                    file: file.clone(),
                    payload: payload.clone(),
                    offset,
                    durable: false,
                };
                let token = started.len() as u64;
                started.push(Instant::now());
                ended.extend(driver.submit(token, write));
            }
            driver.wait(None, &mut ended)?;
            for completion in ended.drain(..) {
                ensure!(completion.result? == length, "a short write");
                latencies.push(started[completion.token as usize].elapsed());
            }
        }
        Ok(())
    })
}

fn nowait(file: &File, count: usize, length: usize) -> Result<String> {
    let bytes = vec![3; length];
    let mut refused = 0;
    for offset in places(count, length) {
        match rustix::io::pwritev2(file, &[IoSlice::new(&bytes)], offset, ReadWriteFlags::NOWAIT) {
            Ok(written) => refused += usize::from(written < length),
            Err(Errno::AGAIN) => refused += 1,
            Err(Errno::OPNOTSUPP) => return Ok("not supported".to_owned()),
            Err(error) => bail!(error),
        }
    }
    Ok(format!("supported, {refused} of {count} refused"))
}

/// Parts of blocks that are not in the page cache: each write reads from the disk first.
fn uncached_edges(file: &File, count: usize) -> Result<Figures> {
    file.sync_all()?;
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?;
    Figures::of(|latencies| {
        for offset in places(count, 4096) {
            let start = Instant::now();
            file.write_all_at(&[5; 100], offset + 1000)?;
            latencies.push(start.elapsed());
        }
        Ok(())
    })
}

/// Inline writes while another thread flushes without end, as clients that flush do.
fn beside_flushes(file: &File, count: usize, length: usize) -> Result<Figures> {
    let stop = Arc::new(AtomicBool::new(false));
    let flusher = thread::spawn({
        let (file, stop) = (file.try_clone()?, Arc::clone(&stop));
        move || {
            while !stop.load(Ordering::Relaxed) {
                file.sync_data()?;
            }
            std::io::Result::Ok(())
        }
    });
    let figures = inline(file, count, length);
    stop.store(true, Ordering::Relaxed);
    match flusher.join() {
        Ok(result) => result?,
        Err(_) => bail!("the flushing thread has failed"),
    }
    figures
}

fn measure(directory: &Path) -> Result<()> {
    let path = directory.join(".buffered-writes.measure");
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    // Gone with the process, however that ends.
    fs::remove_file(&path)?;
    println!("{}:", directory.display());
    file.set_len(FILE)?;
    inline(&file, 4096, 64 << 10)?.print("64 KiB inline, into holes");
    for at in (0..FILE).step_by(1 << 20) {
        file.write_all_at(&vec![4; 1 << 20], at)?;
    }
    let handle = FileHandle::new(file.try_clone()?)?;
    for (length, count) in [(4 << 10, 20_000), (64 << 10, 4000), (1 << 20, 400)] {
        let kib = length >> 10;
        inline(&file, count, length)?.print(&format!("{kib} KiB inline"));
        by_ring(&handle, count, length)?.print(&format!("{kib} KiB by the ring, depth {DEPTH}"));
        println!("  {kib} KiB with RWF_NOWAIT: {}", nowait(&file, count, length)?);
    }
    beside_flushes(&file, 20_000, 4096)?.print("4 KiB inline beside fdatasync");
    uncached_edges(&file, 2000)?.print("100 bytes inline, block not cached");
    Ok(())
}

fn main() -> Result<()> {
    let directories: Vec<_> = env::args_os().skip(1).collect();
    if directories.is_empty() {
        bail!(std::io::Error::new(
            ErrorKind::InvalidInput,
            "name at least one directory to measure in"
        ));
    }
    directories
        .iter()
        .try_for_each(|directory| measure(Path::new(directory)))
}
