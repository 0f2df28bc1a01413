//! A load of so many writes per second, and how long each of them took.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use blockmirror_client::client::Client;
use blockmirror_client::uri::NbdUri;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::load::{BLOCK, Random};

/// Writes in flight at most; one whose time comes meanwhile starts late, and that counts.
const IN_FLIGHT: usize = 256;
const SEED: u64 = 11;

/// The running load: one block at a random place at every tick, whether the ones before were answered or not.
pub struct Pace {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

struct Shared {
    stop: AtomicBool,
    /// When each was due, and how long after that it was answered.
    answered: Mutex<Vec<(Instant, Duration)>>,
}

impl Pace {
    /// Starts it, on the first `size` bytes of an export.
    pub fn start(uri: &str, size: u64, per_second: u32) -> Result<Self> {
        let uri: NbdUri = uri.parse()?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            answered: Mutex::new(Vec::new()),
        });
        let running = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(write_all(running, uri, size, Duration::from_secs(1) / per_second))
        });
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// How long writes took that were due in this time, in order of length.
    pub fn latencies(&self, from: Instant, to: Instant) -> Vec<Duration> {
        let answered = self.shared.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let within = answered.iter().filter(|(due, _)| (from..to).contains(due));
        let mut latencies: Vec<Duration> = within.map(|(_, took)| *took).collect();
        latencies.sort_unstable();
        latencies
    }

    /// Stop, and require that every write was answered.
    pub fn finish(mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        match self.thread.take() {
            Some(thread) => thread.join().ok().context("the load panicked")?,
            None => Ok(()),
        }
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// The value below which `percent` of a sorted list are.
pub fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    sorted.get(sorted.len() * percent / 100).or(sorted.last()).copied()
}

async fn write_all(shared: Arc<Shared>, uri: NbdUri, size: u64, interval: Duration) -> Result<()> {
    let client = Client::connect(&uri).await?;
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut random = Random::new(SEED);
    let mut writes = JoinSet::new();
    let mut due = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        tokio::time::sleep_until(due.into()).await;
        let permit = Arc::clone(&in_flight).acquire_owned().await?;
        let offset = random.below(size / BLOCK) * BLOCK;
        let bytes = vec![random.below(256) as u8; BLOCK as usize];
        let (client, shared) = (client.clone(), Arc::clone(&shared));
        writes.spawn(async move {
            let asked = client.write(offset, &bytes, false).await;
            let took = due.elapsed();
            drop(permit);
            let mut answered = shared.answered.lock().unwrap_or_else(PoisonError::into_inner);
            answered.push((due, took));
            asked
        });
        due += interval;
        while let Some(ended) = writes.try_join_next() {
            ended??;
        }
    }
    while let Some(ended) = writes.join_next().await {
        ended??;
    }
    Ok(())
}
