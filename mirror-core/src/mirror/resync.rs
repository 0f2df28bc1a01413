//! Resync: copy what is dirty, in one pass from the first block to the last, while the host goes on writing.
//!
//! Each resync request takes its range in the range order like a mutation: it waits for the mutations on it, and later
//! ones wait for it. It goes through the peer's queue behind them, so it never lands before an older write. Its bits
//! are cleared when a flush of the peer has made the copy durable (I3). New writes are sent as usual meanwhile, so one
//! pass is enough.

use alloc::vec::Vec;
use core::time::Duration;

use super::peer::{CopyPhase, CopyRequest, Entry, Peer};
use super::status::ResyncStatus;
use super::{COPY_ID, Mirror};
use crate::config::{COPIED_MAX, COPY_BYTES_MAX, COPY_BYTES_MIN, RESYNC_WINDOW};
use crate::event::{ConnectionId, Copied, CopyFailure, CopyId, DisconnectReason, Event, PeerIndex};
use crate::range::{BLOCK_BYTES, ByteRange};
use crate::sabotage::Sabotage;
use crate::state::PeerState;

/// After a local read error, another try.
const RETRY: Duration = Duration::from_secs(5);
/// The bitmap's progress is written down at least this often while it changes.
const PERSIST: Duration = Duration::from_secs(1);

impl Mirror {
    /// Connected, and blocks are dirty: copy them.
    pub(super) fn start_resync(&mut self, peer: usize) {
        self.set_peer_state(peer, PeerState::SyncSource);
        let dirty = self.peers[peer].dirty_bytes(self.config.size);
        let resync = &mut self.peers[peer].resync;
        resync.restart_pass();
        resync.started_at = self.now;
        resync.persist_at = Some(self.now + PERSIST);
        resync.progress = Some(ResyncStatus {
            dirty_at_start: dirty,
            ..ResyncStatus::default()
        });
        self.event(Event::ResyncStarted {
            peer: PeerIndex(peer as u8),
            dirty,
        });
        self.resync(peer);
    }

    pub(super) fn resync_all(&mut self) {
        for peer in 0..self.peers.len() {
            if self.peers[peer].state == PeerState::Established && !self.peers[peer].dirty.is_empty() {
                self.start_resync(peer);
            }
            self.resync(peer);
        }
    }

    /// Ask for the next ranges, flush what was copied, or find that everything is done.
    pub(super) fn resync(&mut self, peer: usize) {
        if self.peers[peer].state != PeerState::SyncSource || self.stopping.is_asked() || self.failed {
            return;
        }
        self.ask_copies(peer);
        let resync = &self.peers[peer].resync;
        let pass_over = resync.copies.is_empty();
        if (pass_over && !resync.copied.is_empty()) || resync.copied.len() >= COPIED_MAX {
            self.peers[peer].flush.request();
            self.issue_flushes();
        } else if pass_over && resync.is_quiet() {
            self.end_of_pass(peer);
        }
    }

    fn ask_copies(&mut self, peer: usize) {
        while self.peers[peer].resync.copies.len() < RESYNC_WINDOW {
            let Some(range) = self.next_copy(peer) else { return };
            self.ask_copy(peer, range);
        }
    }

    /// The next dirty range at the cursor, none while too much waits for a flush.
    fn next_copy(&mut self, peer: usize) -> Option<ByteRange> {
        let size = self.config.size;
        let Peer { dirty, resync, .. } = &mut self.peers[peer];
        if resync.copied.len() + resync.flushing.len() >= 4 * COPIED_MAX {
            return None;
        }
        let run = dirty.next_run(resync.cursor, resync.step / BLOCK_BYTES)?;
        resync.cursor = run.end;
        let offset = run.start * BLOCK_BYTES;
        Some(ByteRange::new(offset, (run.end * BLOCK_BYTES).min(size) - offset))
    }

    fn ask_copy(&mut self, peer: usize, range: ByteRange) {
        self.copies += 1;
        // The range order knows 31 bits of the name: enough to tell apart the few that live together.
        let id = CopyId(self.copies & u64::from(COPY_ID - 1));
        self.peers[peer].resync.copies.push(CopyRequest {
            id,
            range,
            phase: CopyPhase::Ordering,
            stale: false,
        });
        if self.order.admit(COPY_ID | id.0 as u32, range) {
            self.copy_ordered(id.0 as u32);
        }
    }

    /// The range is closed to the host now.
    pub(super) fn copy_ordered(&mut self, id: u32) {
        let owner = |peer: &Peer| peer.resync.copies.iter().position(|copy| copy.id.0 as u32 == id);
        let found = self
            .peers
            .iter()
            .enumerate()
            .find_map(|(at, peer)| owner(peer).map(|copy| (at, copy)));
        let Some((peer, at)) = found else { return };
        let copy = self.peers[peer].resync.copies[at];
        self.peers[peer].resync.copies[at].phase = CopyPhase::Queued;
        if self.peers[peer].state == PeerState::SyncSource {
            self.enqueue_copy(peer, copy.id, copy.range);
        } else {
            self.forget_copy(peer, copy.id);
            self.caught_up(peer);
        }
    }

    pub(super) fn copy_done(
        &mut self,
        peer: PeerIndex,
        connection: ConnectionId,
        copy: CopyId,
        outcome: Result<Copied, CopyFailure>,
    ) {
        let at = usize::from(peer.0);
        if self.peers[at].connection != Some(connection) {
            return;
        }
        if let Err(CopyFailure::Peer(failure)) = outcome {
            return self.peer_failed(at, DisconnectReason::PeerFailed(failure));
        }
        let Some(place) = self.peers[at]
            .resync
            .copies
            .iter()
            .position(|request| request.id == copy)
        else {
            return;
        };
        let request = self.peers[at].resync.copies.remove(place);
        self.left_window(at, request.range);
        self.release_range(request.range);
        match outcome {
            Ok(copied) => self.copied(at, request, copied),
            Err(_) => self.peers[at].resync.retry_at = Some(self.now + RETRY),
        }
        self.pump(at);
        self.resync(at);
        self.caught_up(at);
    }

    fn copied(&mut self, peer: usize, request: CopyRequest, copied: Copied) {
        let keeps_i3 = self.keeps(Sabotage::I3);
        let Peer { dirty, resync, .. } = &mut self.peers[peer];
        if let Some(progress) = &mut resync.progress {
            progress.shipped += copied.shipped;
            progress.zeroed += copied.zeroed;
            progress.done += request.range.length;
        }
        resync.step = if copied.shipped == 0 {
            (resync.step * 2).min(COPY_BYTES_MAX)
        } else {
            COPY_BYTES_MIN
        };
        if !keeps_i3 {
            dirty.clear(request.range.blocks());
        }
        if !request.stale {
            resync.copied.push(request.range);
        }
    }

    /// The cursor has reached the end and everything copied is durable.
    fn end_of_pass(&mut self, peer: usize) {
        let now = self.now;
        let link = &mut self.peers[peer];
        if !link.dirty.is_empty() {
            // Bits behind the cursor: a block that became dirty during the pass, or could not be read here.
            if link.resync.retry_at.is_none() {
                link.resync.cursor = 0;
                self.ask_copies(peer);
            }
            return;
        }
        let mut status = link.resync.progress.take().unwrap_or_default();
        status.elapsed = now - link.resync.started_at;
        link.resync.last = Some(status);
        link.resync.persist_at = None;
        self.persisting.progress_wanted = true;
        self.set_peer_state(peer, PeerState::Established);
        self.peer_in_step(peer);
        let ResyncStatus { shipped, zeroed, .. } = status;
        self.event(Event::ResyncFinished {
            peer: PeerIndex(peer as u8),
            shipped,
            zeroed,
        });
    }

    /// A resync request that was not sent: its range is open to the host again, its bits stay.
    pub(super) fn forget_copy(&mut self, peer: usize, copy: CopyId) {
        let copies = &mut self.peers[peer].resync.copies;
        let Some(place) = copies.iter().position(|request| request.id == copy) else {
            return;
        };
        let request = copies.remove(place);
        self.close_copy(request);
    }

    /// The connection is gone, and every resync request with it.
    pub(super) fn drop_copies(&mut self, peer: usize) {
        for request in core::mem::take(&mut self.peers[peer].resync.copies) {
            self.close_copy(request);
        }
        self.peers[peer].reset_resync_pass();
        self.peers[peer].resync.progress = None;
        self.peers[peer].resync.persist_at = None;
    }

    /// The mirror stops: what was not sent stays dirty.
    pub(super) fn drop_unsent_copies(&mut self, peer: usize) {
        let link = &mut self.peers[peer];
        let ordering = link
            .resync
            .copies
            .iter()
            .filter(|copy| copy.phase == CopyPhase::Ordering)
            .map(|copy| copy.id);
        let queued = link.queue.iter().filter_map(|entry| match entry {
            Entry::Copy(copy, _) => Some(*copy),
            Entry::Mutation(..) | Entry::Barrier | Entry::Fence => None,
        });
        let unsent: Vec<CopyId> = ordering.chain(queued).collect();
        link.queue.retain(|entry| !matches!(entry, Entry::Copy(..)));
        for copy in unsent {
            self.forget_copy(peer, copy);
        }
    }

    fn close_copy(&mut self, request: CopyRequest) {
        let key = COPY_ID | request.id.0 as u32;
        if request.phase == CopyPhase::Ordering {
            self.leave_order(key, request.range);
        } else {
            self.release_range(request.range);
        }
    }

    pub(super) fn resync_timeout(&mut self) {
        for peer in 0..self.peers.len() {
            let link = &mut self.peers[peer];
            if link.resync.retry_at.is_some_and(|at| at <= self.now) {
                link.resync.retry_at = None;
                link.resync.cursor = 0;
                self.resync(peer);
            }
            let link = &mut self.peers[peer];
            if link.resync.persist_at.is_some_and(|at| at <= self.now) {
                link.resync.persist_at = Some(self.now + PERSIST);
                self.persisting.progress_wanted = true;
                if !link.resync.copied.is_empty() {
                    link.flush.request();
                    self.issue_flushes();
                }
            }
        }
    }
}
