//! A layer around the daemon's I/O engine under which a kill -9 is a power cut.
//!
//! Files are used as ever, and beside each lies what of it is durable (`platter.rs`): there a write arrives when it was
//! asked for as durable, or when a sync that started after it has ended, or by chance. Whoever kills the daemon puts
//! that in the file's place before it starts again. What the daemon makes durable before its engine runs counts as
//! durable: it does that by calls that wait.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::Result;
use blockmirror_server::ring::{BufferPool, Completion, Driver, EngineReport, FileHandle, Op, Waker};

use super::platter::{Platter, key};
use super::ranges::Ranges;
use blockmirror_tests::load::Random;

/// The longest a sync is held back, so that cuts come in the middle of it.
const SYNC_MICROS: u64 = 2_000;
/// One of so many waits writes something back early.
const EARLY: u64 = 8;

/// The layer.
pub struct PowerLayer {
    inner: Box<dyn Driver>,
    /// Whether a sync makes anything durable. A disk where it does not has to be noticed by whoever looks.
    lies: bool,
    platters: HashMap<(u64, u64), Platter>,
    /// Syncs under way, by token: what was dirty when they started. No two syncs share a token.
    under_way: HashMap<u64, Ranges>,
    /// Syncs that have ended and are held back, in the order of their ends.
    held: VecDeque<(Instant, Completion)>,
    random: Random,
}

impl PowerLayer {
    /// Around `inner`, on disks that keep what they promise.
    pub fn honest(inner: Box<dyn Driver>) -> Box<dyn Driver> {
        Self::around(inner, false)
    }

    /// Around `inner`, on disks that answer a sync and do nothing.
    pub fn lying(inner: Box<dyn Driver>) -> Box<dyn Driver> {
        Self::around(inner, true)
    }

    fn around(inner: Box<dyn Driver>, lies: bool) -> Box<dyn Driver> {
        Box::new(Self {
            inner,
            lies,
            platters: HashMap::new(),
            under_way: HashMap::new(),
            held: VecDeque::new(),
            random: Random::new(u64::from(std::process::id())),
        })
    }

    /// The file's durable part is there from its first operation on.
    fn begins(&mut self, token: u64, op: &Op) -> Result<()> {
        match op {
            Op::Write { file, .. } | Op::Allocate { file, .. } => drop(self.platter(file)?),
            Op::Sync { file } => {
                let dirty = self.platter(file)?.dirty();
                self.under_way.insert(token, dirty);
            }
            Op::Receive { .. } | Op::Send { .. } | Op::Read { .. } | Op::Prefetch { .. } => {}
        }
        Ok(())
    }

    fn platter(&mut self, file: &FileHandle) -> Result<&mut Platter> {
        match self.platters.entry(key(file)?) {
            Entry::Occupied(found) => Ok(found.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(Platter::of(file.as_raw_fd())?)),
        }
    }

    /// An operation has ended: `None` when it is held back.
    fn ended(&mut self, completion: Completion) -> Option<Completion> {
        if matches!(completion.op, Op::Sync { .. }) {
            let due = Instant::now() + Duration::from_micros(self.random.below(SYNC_MICROS));
            self.held.push_back((due, completion));
            return None;
        }
        Some(self.took_effect(completion))
    }

    fn took_effect(&mut self, mut completion: Completion) -> Completion {
        if let Err(error) = self.take_effect(&completion) {
            completion.result = Err(io::Error::other(error));
        }
        completion
    }

    fn take_effect(&mut self, completion: &Completion) -> Result<()> {
        let covers = match completion.op {
            Op::Sync { .. } => self.under_way.remove(&completion.token),
            _ => None,
        };
        let Ok(count) = completion.result else {
            return Ok(());
        };
        match &completion.op {
            Op::Write {
                file, offset, durable, ..
            } => {
                let platter = self.platter(file)?;
                platter.note(*offset, count as u64);
                if *durable {
                    platter.settle_bytes(*offset, count as u64)?;
                }
            }
            Op::Sync { file } if !self.lies => self.platter(file)?.settle(&covers.unwrap_or_default())?,
            Op::Allocate {
                file, offset, length, ..
            } => self.platter(file)?.note(*offset, *length),
            _ => {}
        }
        Ok(())
    }

    /// Syncs whose time has come. They end in the order in which they came, as on a disk with one queue.
    fn release(&mut self, out: &mut Vec<Completion>) {
        while self.held.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            let Some((_, completion)) = self.held.pop_front() else {
                break;
            };
            out.push(self.took_effect(completion));
        }
    }

    fn write_back_early(&mut self) -> Result<()> {
        if self.random.below(EARLY) == 0 && !self.platters.is_empty() {
            let (which, choice) = (
                self.random.below(self.platters.len() as u64),
                self.random.below(1 << 40),
            );
            if let Some(platter) = self.platters.values_mut().nth(which as usize) {
                platter.settle_some(choice)?;
            }
        }
        Ok(())
    }
}

impl Driver for PowerLayer {
    fn submit(&mut self, token: u64, op: Op) -> Option<Completion> {
        if let Err(error) = self.begins(token, &op) {
            return Some(Completion {
                token,
                result: Err(io::Error::other(error)),
                op,
            });
        }
        let completion = self.inner.submit(token, op)?;
        self.ended(completion)
    }

    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()> {
        let until_due = |due: Instant| due.saturating_duration_since(Instant::now());
        let timeout = match (self.held.front(), timeout) {
            (None, timeout) => timeout,
            (Some((due, _)), None) => Some(until_due(*due)),
            (Some((due, _)), Some(timeout)) => Some(timeout.min(until_due(*due))),
        };
        let mut completed = Vec::new();
        self.inner.wait(timeout, &mut completed)?;
        for completion in completed {
            out.extend(self.ended(completion));
        }
        self.write_back_early().map_err(io::Error::other)?;
        self.release(out);
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn pool(&self) -> &BufferPool {
        self.inner.pool()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.held.len()
    }

    fn describe(&self) -> EngineReport {
        let inner = self.inner.describe();
        EngineReport {
            name: inner.name,
            detail: format!("{}, under which a kill is a power cut", inner.detail),
        }
    }
}
