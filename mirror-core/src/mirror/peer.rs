//! What a mirror knows of one peer.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use super::background::Resync;
use super::request::PeerMask;
use super::status::VerifyStatus;
use super::verify::Verify;
use crate::bitmap::Bitmap;
use crate::config::{AckMode, OnDisconnect, PeerConfig, PeerKind};
use crate::event::{ConnectionId, CopyId, LinkKind, Mutation, RequestId};
use crate::flush_line::FlushLine;
use crate::identity::{Generation, Meeting};
use crate::metadata::{Geometry, PeerRecord, RestoredPeer, make_all_clean, make_all_dirty};
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
    /// It is durable here; partners that are in step have been told, and not all have it durably yet.
    Told,
}

/// Does a partner that is in step know the newest generation?
///
/// ```text
///  Known --new generation--> Unsent --superblock put out--> Saving --durable here--> Sent --durable there--> Known
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It has it, or it is not in step.
    Known,
    /// To be told once it is durable here.
    Unsent,
    /// It is being made durable here.
    Saving,
    /// Told: it may hold this one from here on.
    Sent(Generation),
}

/// Has the target of a resync noted that it is one?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// It has not been told.
    No,
    /// It has been told.
    Asked,
    /// Durably; or it is a plain server, which notes nothing.
    Yes,
}

/// One peer.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) config: PeerConfig,
    pub(crate) state: PeerState,
    pub(crate) connection: Option<ConnectionId>,
    /// The latest connection that was heard of.
    pub(crate) latest: Option<ConnectionId>,
    /// What is at its other end, or will be.
    pub(crate) link: LinkKind,
    /// The operator has parted with it, and it has not been back since: nothing waits for it.
    pub(crate) parted: bool,
    /// When its connection was lost; zero: it has not been there yet.
    pub(crate) gone_since: Duration,
    /// Out of the configuration: nothing is kept track of, its index is not used again.
    pub(crate) removed: bool,
    /// A write waits for it whatever its mode: the leg here is not complete.
    pub(crate) forced_sync: bool,
    /// SyncSource, and the peer fetches, or another Primary copies: nothing is pushed from here.
    pub(crate) passive: bool,
    pub(crate) begun: Begun,
    /// Told that its resync has ended, under this name; not answered yet.
    pub(crate) ended: Option<Generation>,
    pub(crate) told: Told,
    /// Told that the leg here is gone: it takes every block of it for different until it hears that none is.
    pub(crate) misses_leg: bool,
    /// Its resync has ended while the leg here lacks something: it stands in for that once this flush has completed.
    pub(crate) stand_in_after: Option<u64>,
    /// The last two meetings, as far as they are durable.
    pub(crate) met: [Meeting; 2],
    /// The same, once the superblock in flight is durable.
    pub(crate) saving_met: [Meeting; 2],
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
    /// Something that came while it was connected could not be applied here: no word of it on this connection makes the leg
    /// one that has everything.
    pub(crate) lacks: bool,
    /// When its connection was lost it had answered what it had not flushed.
    pub(crate) may_forget: bool,
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
    /// The comparison that goes on.
    pub(crate) verify: Option<Verify>,
    pub(crate) last_verify: Option<VerifyStatus>,
}

impl Peer {
    pub(crate) fn new(config: PeerConfig, record: PeerRecord, restored: RestoredPeer, blocks: u64) -> Self {
        Self {
            state: PeerState::StandAlone,
            connection: None,
            latest: None,
            link: match config.kind {
                PeerKind::Plain => LinkKind::Nbd,
                PeerKind::Partner => LinkKind::Stream,
            },
            config,
            parted: false,
            gone_since: Duration::ZERO,
            removed: false,
            forced_sync: false,
            passive: false,
            begun: Begun::No,
            ended: None,
            told: Told::Known,
            misses_leg: false,
            stand_in_after: None,
            met: record.met,
            saving_met: record.met,
            slot: restored.slot,
            record,
            sequences: restored.sequences,
            gate: Gate::Open,
            dirty: restored.dirty,
            unstable: Bitmap::new(blocks),
            flushing: Bitmap::new(blocks),
            may_forget: false,
            lacks: false,
            flush: FlushLine::default(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            barrier: None,
            window: 0,
            order: RangeOrder::new(),
            resync: Resync::new(),
            verify: None,
            last_verify: None,
        }
    }

    /// A write is answered when it has been applied there too.
    pub(crate) fn is_sync(&self) -> bool {
        self.config.mode == AckMode::Sync || self.forced_sync
    }

    /// What becomes of changes while it is gone. The operator who parts with it goes on without it.
    pub(crate) fn policy(&self) -> OnDisconnect {
        match self.config.on_disconnect {
            OnDisconnect::Suspend if self.parted => OnDisconnect::Continue,
            policy => policy,
        }
    }

    /// Changes wait for it to be back.
    pub(crate) fn is_waited_for(&self) -> bool {
        let gone = !self.state.is_connected() && !self.removed;
        gone && self.policy() == OnDisconnect::Suspend
    }

    /// Requests to it are queued and ordered here: an asynchronous plain server. A partner keeps them in order itself.
    pub(crate) fn has_order(&self) -> bool {
        self.config.mode == AckMode::Async && self.link == LinkKind::Nbd
    }

    /// The host does not wait for it: it may fall Behind.
    pub(crate) fn goes_ahead(&self) -> bool {
        matches!(self.state, PeerState::Established | PeerState::SyncSource) && !self.is_sync()
    }

    /// It has not all that was written before: what is dirty is missing there.
    pub(crate) fn misses_blocks(&self) -> bool {
        self.state != PeerState::SyncTarget && !self.dirty.is_empty()
    }

    /// It is another blockmirror, and connected.
    pub(crate) fn is_stream(&self) -> bool {
        self.link == LinkKind::Stream && self.connection.is_some()
    }

    /// A partner that has everything, or everything that this node lacks: it has to know every new generation.
    pub(crate) fn is_in_step(&self) -> bool {
        let known = self.record.generation == 0 || self.told != Told::Known;
        match self.state {
            PeerState::Established => self.is_stream() && known,
            PeerState::SyncTarget => self.is_stream(),
            _ => false,
        }
    }

    /// A partner that has everything, under the name it has here: neither side lacks anything.
    pub(crate) fn is_settled(&self) -> bool {
        let clean = self.record.generation == 0 && self.told == Told::Known && self.dirty.is_empty();
        clean && self.state == PeerState::Established && self.is_stream()
    }

    /// What would be lost if the connection went now is dirty: everything that was answered but not flushed.
    pub(crate) fn distrust_unflushed(&mut self) {
        self.may_forget = !(self.unstable.is_empty() && self.flushing.is_empty());
        self.dirty.merge(&self.unstable);
        self.dirty.merge(&self.flushing);
        self.unstable.reset();
        self.flushing.reset();
        self.flush.reset();
    }

    /// The range differs on the peer, or may: no copy of it that is under way counts (I3).
    pub(crate) fn mark_dirty(&mut self, range: ByteRange) {
        if self.removed {
            return;
        }
        self.dirty.set(range.blocks());
        let overlaps =
            |other: &ByteRange| other.blocks().start < range.blocks().end && range.blocks().start < other.blocks().end;
        self.resync.copied.retain(|copied| !overlaps(copied));
        self.resync.flushing.retain(|copied| !overlaps(copied));
        self.resync.fetched.retain(|copied| !overlaps(copied));
        self.resync.settling.retain(|copied| !overlaps(copied));
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
        for copied in self.resync.flushing.drain() {
            self.dirty.clear(copied.blocks());
        }
    }

    /// Begin all over: no copy made so far counts, the bitmap alone says what is to be done (I9).
    pub(crate) fn reset_resync_pass(&mut self) {
        self.resync.restart_pass();
        self.resync.copied.clear();
        self.resync.flushing.clear();
        self.resync.fetched.clear();
        self.resync.settling.clear();
        for copy in &mut self.resync.copies {
            copy.stale = true;
        }
    }

    /// Every dirty block before the end has been asked for.
    pub(crate) fn is_pass_asked(&self) -> bool {
        self.resync.halves.is_empty() && self.dirty.next_run(self.resync.cursor, 1).is_none()
    }

    /// Background traffic goes to it, or may any moment.
    pub(crate) fn is_in_pass(&self) -> bool {
        let verifies = self.verify.is_some() && self.state == PeerState::Established;
        self.resync.progress.is_some() || verifies
    }

    /// When it wants to be looked at.
    pub(crate) fn timers(&self) -> impl Iterator<Item = Duration> {
        let resync = &self.resync;
        let save_at = self.verify.as_ref().map(Verify::save_at);
        [resync.retry_at, resync.persist_at, resync.wake_at, save_at]
            .into_iter()
            .flatten()
    }

    pub(crate) fn dirty_bytes(&self, size: u64) -> u64 {
        (self.dirty.count() * BLOCK_BYTES).min(size)
    }

    /// It has, durably, every block that is set: nothing is dirty any more. `instance` is random (see `make_all_dirty`).
    pub(crate) fn forget_dirty(&mut self, instance: u32) {
        make_all_clean(&mut self.record, instance);
        self.dirty.reset();
        self.reset_resync_pass();
    }

    /// Every block is dirty.
    pub(crate) fn fill(&mut self, instance: u32) {
        make_all_dirty(&mut self.record, instance);
        self.dirty.fill();
        self.reset_resync_pass();
    }

    /// Too much is queued for another mutation of this length. An empty queue takes one of any length.
    pub(crate) fn is_full(&self, length: u64) -> bool {
        let bytes = self.queue_bytes > 0 && self.queue_bytes + length > self.config.queue_bytes;
        bytes || self.queue.len() + self.window >= self.config.queue_requests
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
