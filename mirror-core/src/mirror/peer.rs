//! What a mirror knows of one peer.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use super::request::PeerMask;
use super::status::ResyncStatus;
use crate::bitmap::Bitmap;
use crate::config::{AckMode, COPY_BYTES_MIN, PeerConfig};
use crate::event::{ConnectionId, CopyId, Mutation, RequestId};
use crate::flush_line::FlushLine;
use crate::metadata::{Geometry, PeerRecord};
use crate::order::RangeOrder;
use crate::range::{BLOCK_BYTES, ByteRange};
use crate::state::PeerState;

/// What stands in a peer's queue, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A host mutation.
    Mutation(RequestId, ByteRange),
    /// A resync request.
    Copy(CopyId, ByteRange),
    /// Everything before it is durable on the peer before anything after it is sent (`async`).
    Barrier,
    /// Everything before it is answered by the peer before anything after it is sent (`async`, after a FUA mutation).
    Fence,
}

/// May replies depend on this peer's new generation?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// It is durable, or none is needed.
    Open,
    /// A superblock has to be written.
    Wanted,
    /// It is being written.
    InTransaction,
}

/// One peer.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) config: PeerConfig,
    pub(crate) state: PeerState,
    pub(crate) connection: Option<ConnectionId>,
    /// Metadata.
    pub(crate) slot: u32,
    pub(crate) record: PeerRecord,
    pub(crate) sequences: Vec<u64>,
    pub(crate) gate: Gate,
    /// Blocks the peer lacks (I3, I9).
    pub(crate) dirty: Bitmap,
    /// Blocks it answered since its last flush was issued: dirty again when the connection is lost.
    pub(crate) unstable: Bitmap,
    /// Blocks the flush in flight makes durable.
    pub(crate) flushing: Bitmap,
    pub(crate) flush: FlushLine,
    /// Not sent yet.
    pub(crate) queue: VecDeque<Entry>,
    /// Payload bytes queued or sent and not answered.
    pub(crate) queue_bytes: u64,
    /// A barrier at the head of the queue waits for this flush.
    pub(crate) barrier: Option<u64>,
    /// Mutations and copies that left the queue and have not ended.
    pub(crate) window: usize,
    /// `async`: what left the queue, so that overlapping entries keep their order; sent when active.
    pub(crate) order: RangeOrder,
    pub(crate) resync: Resync,
}

/// Resync of one peer.
#[derive(Clone, Debug)]
pub(crate) struct Resync {
    /// Next block to look at.
    pub(crate) cursor: u64,
    /// Bytes of the next resync request.
    pub(crate) step: u64,
    pub(crate) copies: Vec<CopyRequest>,
    /// Copied, not covered by a flush yet.
    pub(crate) copied: Vec<ByteRange>,
    /// Copied, the flush in flight covers them.
    pub(crate) flushing: Vec<ByteRange>,
    /// The local leg could not be read somewhere: another pass not before this.
    pub(crate) retry_at: Option<Duration>,
    /// Write the bitmap's progress down not later than this.
    pub(crate) persist_at: Option<Duration>,
    pub(crate) progress: Option<ResyncStatus>,
    pub(crate) started_at: Duration,
    pub(crate) last: Option<ResyncStatus>,
}

/// A resync request from the moment its range is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CopyRequest {
    pub(crate) id: CopyId,
    pub(crate) range: ByteRange,
    pub(crate) phase: CopyPhase,
    /// The host changed its blocks in the dark meanwhile: they stay dirty whatever it copied.
    pub(crate) stale: bool,
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

impl Peer {
    pub(crate) fn is_sync(&self) -> bool {
        self.config.mode == AckMode::Sync
    }

    /// What would be lost if the connection went now is dirty: everything that was answered but not flushed.
    pub(crate) fn distrust_unflushed(&mut self) {
        self.dirty.merge(&self.unstable);
        self.dirty.merge(&self.flushing);
        self.unstable.reset();
        self.flushing.reset();
        self.flush.reset();
    }

    /// The range differs on the peer, or may: no copy of it that is under way counts (I3).
    pub(crate) fn mark_dirty(&mut self, range: ByteRange) {
        self.dirty.set(range.blocks());
        let overlaps =
            |other: &ByteRange| other.blocks().start < range.blocks().end && range.blocks().start < other.blocks().end;
        self.resync.copied.retain(|copied| !overlaps(copied));
        self.resync.flushing.retain(|copied| !overlaps(copied));
        for copy in &mut self.resync.copies {
            copy.stale |= overlaps(&copy.range);
        }
    }

    /// The peer answered a mutation.
    pub(crate) fn note_applied(&mut self, mutation: &Mutation) {
        if !mutation.fua {
            self.unstable.set(mutation.range.blocks());
        }
    }

    /// A flush is being issued: it covers what was answered so far.
    pub(crate) fn start_flush(&mut self) {
        core::mem::swap(&mut self.unstable, &mut self.flushing);
        debug_assert!(self.unstable.is_empty(), "I5: one flush in flight");
        self.resync.flushing.append(&mut self.resync.copied);
    }

    /// The flush completed: copies it covers are durable, their blocks are clean (I3).
    pub(crate) fn finish_flush(&mut self) {
        self.flush.completed();
        self.flushing.reset();
        for copied in self.resync.flushing.drain(..) {
            self.dirty.clear(copied.blocks());
        }
    }

    /// Begin all over: no copy made so far counts, the bitmap alone says what is to be done (I9).
    pub(crate) fn reset_resync_pass(&mut self) {
        self.resync.restart_pass();
        self.resync.copied.clear();
        self.resync.flushing.clear();
        for copy in &mut self.resync.copies {
            copy.stale = true;
        }
    }

    pub(crate) fn dirty_bytes(&self, size: u64) -> u64 {
        (self.dirty.count() * BLOCK_BYTES).min(size)
    }

    /// Too much is queued for another mutation of this length. An empty queue takes one of any length.
    pub(crate) fn is_full(&self, length: u64) -> bool {
        let bytes = self.queue_bytes > 0 && self.queue_bytes + length > self.config.queue_bytes;
        bytes || self.queue.len() + self.window >= self.config.queue_requests
    }
}

impl Resync {
    pub(crate) fn new() -> Self {
        Self {
            cursor: 0,
            step: COPY_BYTES_MIN,
            copies: Vec::new(),
            copied: Vec::new(),
            flushing: Vec::new(),
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
    }

    /// Nothing under way that the end of the pass would have to wait for.
    pub(crate) fn is_quiet(&self) -> bool {
        self.copies.is_empty() && self.copied.is_empty() && self.flushing.is_empty()
    }
}

/// Durable side of the volume, shared by all peers.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub(crate) geometry: Geometry,
    pub(crate) log_sequence: u64,
}

/// Peers whose state satisfies `test`.
pub(crate) fn mask(peers: &[Peer], test: impl Fn(&Peer) -> bool) -> PeerMask {
    peers
        .iter()
        .enumerate()
        .filter(|(_, peer)| test(peer))
        .fold(0, |mask, (at, _)| mask | super::request::bit(at))
}
