//! Background traffic of one peer: how far resync has come, what is asked for, what waits to become durable.

use alloc::vec::Vec;
use core::time::Duration;

use super::rate::Rate;
use super::rate::eta::Eta;
use super::status::ResyncStatus;
use crate::config::{COPIED_MAX, COPY_BYTES_MIN, COPY_BYTES_SLOW, ResyncRate};
use crate::event::CopyId;
use crate::range::ByteRange;

/// Parts of failed requests that wait to be asked for alone: a window of the longest requests, cut down to blocks.
const HALVES_MAX: usize = 512;

/// Resync of one peer.
#[derive(Clone, Debug)]
pub(crate) struct Resync {
    /// Next block to look at.
    pub(crate) cursor: u64,
    /// Bytes of the next resync request.
    pub(crate) step: u64,
    pub(crate) copies: Vec<CopyRequest>,
    /// What is left of requests that failed: asked for before the cursor goes on, the last first.
    pub(crate) halves: Vec<ByteRange>,
    /// Copied, not covered by a flush yet.
    pub(crate) copied: Unsettled,
    /// Copied, the flush in flight covers them.
    pub(crate) flushing: Unsettled,
    /// Fetched and written here, not covered by a flush of the local leg yet.
    pub(crate) fetched: Unsettled,
    /// Fetched, the local flush in flight covers them.
    pub(crate) settling: Unsettled,
    pub(crate) rate: Rate,
    pub(crate) eta: Eta,
    /// The rate lets the next request out then.
    pub(crate) wake_at: Option<Duration>,
    /// The local leg could not be read somewhere: another pass not before this.
    pub(crate) retry_at: Option<Duration>,
    /// Write the bitmap's progress down not later than this.
    pub(crate) persist_at: Option<Duration>,
    pub(crate) progress: Option<ResyncStatus>,
    pub(crate) started_at: Duration,
    pub(crate) last: Option<ResyncStatus>,
}

/// Ranges that were copied and are not durable yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unsettled {
    ranges: Vec<ByteRange>,
    weight: usize,
}

impl Unsettled {
    /// Enough to be flushed.
    pub(crate) fn is_full(&self) -> bool {
        self.weight >= COPIED_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(crate) fn push(&mut self, range: ByteRange) {
        self.weight += weight(range);
        self.ranges.push(range);
    }

    /// Take over all of the other.
    pub(crate) fn append(&mut self, other: &mut Self) {
        self.weight += core::mem::take(&mut other.weight);
        self.ranges.append(&mut other.ranges);
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&ByteRange) -> bool) {
        self.ranges.retain(keep);
        self.weight = self.ranges.iter().copied().map(weight).sum();
    }

    /// They are durable, or do not count.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = ByteRange> + '_ {
        self.weight = 0;
        self.ranges.drain(..)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// How much a range counts: what it keeps dirty, and the work of one more flush, both matter.
fn weight(range: ByteRange) -> usize {
    range.length.min(COPY_BYTES_MIN).div_ceil(COPY_BYTES_SLOW) as usize
}

/// A resync request from the moment its range is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CopyRequest {
    pub(crate) id: CopyId,
    pub(crate) range: ByteRange,
    pub(crate) kind: CopyKind,
    pub(crate) phase: CopyPhase,
    /// The host changed its blocks in the dark meanwhile: they stay dirty whatever it copied.
    pub(crate) stale: bool,
    /// When it was asked for, then when it was sent.
    pub(crate) asked_at: Duration,
}

/// What a background request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CopyKind {
    /// Resync to the peer.
    Copy,
    /// Resync to the leg here.
    Fetch,
    /// A range that could not be read here is fetched and written again.
    Repair,
    /// Verify, the range closed to the host.
    Compare,
    /// Verify, the first look: the range is open.
    Look,
}

/// Life of a resync request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CopyPhase {
    /// Waits for host mutations on its range.
    Ordering,
    /// In the peer's queue or window, its range closed to the host.
    Queued,
    /// Sent.
    InFlight,
}

impl Resync {
    pub(crate) fn new() -> Self {
        Self {
            cursor: 0,
            step: COPY_BYTES_MIN,
            copies: Vec::new(),
            halves: Vec::new(),
            copied: Unsettled::default(),
            flushing: Unsettled::default(),
            fetched: Unsettled::default(),
            settling: Unsettled::default(),
            rate: Rate::new(ResyncRate::default()),
            eta: Eta::default(),
            wake_at: None,
            retry_at: None,
            persist_at: None,
            progress: None,
            started_at: Duration::ZERO,
            last: None,
        }
    }

    /// From the first block again.
    pub(crate) fn restart_pass(&mut self) {
        self.cursor = 0;
        self.step = COPY_BYTES_MIN;
        self.retry_at = None;
        self.halves.clear();
    }

    /// A request failed: each half of it is asked for alone, so that one bad sector keeps back nothing but itself.
    /// False: it was one block, or too much is cut up already.
    pub(crate) fn halve(&mut self, range: ByteRange) -> bool {
        let Some([first, second]) = range.halves().filter(|_| self.halves.len() + 2 <= HALVES_MAX) else {
            return false;
        };
        self.halves.extend([second, first]);
        true
    }

    /// The range is asked for: what comes next is behind it.
    pub(crate) fn asked_for(&mut self, range: ByteRange) {
        let end = range.blocks().end;
        match self.halves.pop() {
            None => self.cursor = end,
            Some(half) if range.end() < half.end() => {
                self.halves.push(ByteRange::new(range.end(), half.end() - range.end()));
            }
            Some(_) => {}
        }
    }

    /// Nothing that was copied or fetched waits to become durable.
    pub(crate) fn is_settled(&self) -> bool {
        self.waits_for_flush() == 0
    }

    /// The weight of the ranges that were copied or fetched and are not durable yet.
    pub(crate) fn waits_for_flush(&self) -> usize {
        [&self.copied, &self.flushing, &self.fetched, &self.settling]
            .iter()
            .map(|ranges| ranges.weight)
            .sum()
    }

    /// Requests of this kind are asked for.
    pub(crate) fn has(&self, kind: CopyKind) -> bool {
        self.copies.iter().any(|copy| copy.kind == kind)
    }

    /// This one is asked for.
    pub(crate) fn is_asked(&self, kind: CopyKind, range: ByteRange) -> bool {
        self.copies.iter().any(|copy| copy.kind == kind && copy.range == range)
    }

    /// Bytes of the requests asked for.
    pub(crate) fn in_flight_bytes(&self) -> u64 {
        self.copies.iter().map(|copy| copy.range.length).sum()
    }
}
