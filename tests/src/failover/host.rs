//! A host that writes all the time, to whatever node grants its volume.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use blockmirror_client::client::{Access, FailoverClient, Patience};
use blockmirror_client::uri::UriList;
use tokio::task::JoinSet;

use crate::load::BLOCK;
use crate::raw::Raw;
use crate::wait::{self, PROMPT};

/// Requests in flight.
const WRITERS: u64 = 4;
/// Blocks of one writer, written round and round.
const REGION: u64 = 512;
/// Every writer flushes after so many writes.
const FLUSH_EVERY: u64 = 64;

/// The running host.
pub(super) struct Host {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

struct Shared {
    stop: AtomicBool,
    pulse: Mutex<Pulse>,
    /// By block: the number of the newest write asked for, and of the newest one answered.
    blocks: Vec<(AtomicU64, AtomicU64)>,
}

/// When answers came.
pub(super) struct Pulse {
    last: Instant,
    longest: Duration,
    answers: u64,
}

impl Pulse {
    /// Count pauses from now on; one that lasts counts from its beginning.
    pub(super) fn forget_pauses(&mut self) {
        self.longest = Duration::ZERO;
    }

    /// The longest time between two answers, the later of them since [`Pulse::forget_pauses`].
    pub(super) fn longest_pause(&self) -> Duration {
        self.longest
    }

    fn beat(&mut self) {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.last);
        self.last = now;
        self.answers += 1;
    }
}

impl Host {
    /// Starts to write by this list of URIs.
    pub(super) fn start(uris: &[String], size: u64, patience: Patience) -> Result<Self> {
        ensure!(WRITERS * REGION * BLOCK <= size, "the volume is too small for the host");
        let uris: UriList = uris.join(",").parse()?;
        let block = || (AtomicU64::new(0), AtomicU64::new(0));
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            pulse: Mutex::new(Pulse {
                last: Instant::now(),
                longest: Duration::ZERO,
                answers: 0,
            }),
            blocks: (0..WRITERS * REGION).map(|_| block()).collect(),
        });
        let running = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(write_all(running, uris, patience))
        });
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// When answers came.
    pub(super) fn pulse(&self) -> MutexGuard<'_, Pulse> {
        self.shared.pulse()
    }

    /// Wait for so many more answers.
    pub(super) fn wait_progress(&self, answers: u64) -> Result<()> {
        let before = self.pulse().answers;
        wait::until("the host to go on", PROMPT, || {
            (self.pulse().answers >= before + answers).then_some(())
        })
    }

    /// Stop, and require that every answered write is there. Returns how many there were.
    pub(super) fn finish(mut self, raw: &mut Raw) -> Result<u64> {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok().context("the host panicked")??;
        }
        for (block, (asked, answered)) in self.shared.blocks.iter().enumerate() {
            let data = raw.read(block as u64 * BLOCK, BLOCK as u32)?;
            let number = u64::from_le_bytes(data[..8].try_into()?);
            let (asked, answered) = (asked.load(Ordering::Relaxed), answered.load(Ordering::Relaxed));
            ensure!(
                (answered..=asked).contains(&number),
                "block {block} holds write {number}, answered were writes up to {answered} of {asked}"
            );
            ensure!(data == content(block as u64, number), "block {block} is not whole");
        }
        Ok(self.pulse().answers)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn pulse(&self) -> MutexGuard<'_, Pulse> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn write_all(shared: Arc<Shared>, uris: UriList, patience: Patience) -> Result<()> {
    let client = FailoverClient::connect(&uris, Access::ReadWrite, patience).await?;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(Arc::clone(&shared), client.clone(), writer * REGION));
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    Ok(())
}

async fn write(shared: Arc<Shared>, client: FailoverClient, first: u64) -> Result<()> {
    for number in 1.. {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let block = first + number % REGION;
        let (asked, answered) = &shared.blocks[block as usize];
        asked.store(number, Ordering::Relaxed);
        client.write(block * BLOCK, &content(block, number), false).await?;
        answered.store(number, Ordering::Relaxed);
        shared.pulse().beat();
        if number % FLUSH_EVERY == 0 {
            client.flush().await?;
        }
    }
    Ok(())
}

/// A block that was never written is all zeroes, as its number 0 is.
fn content(block: u64, number: u64) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK as usize];
    if number > 0 {
        bytes.fill((block ^ number) as u8);
        bytes[..8].copy_from_slice(&number.to_le_bytes());
    }
    bytes
}
