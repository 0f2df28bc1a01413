//! Resync: copy what is dirty, in one pass from the first block to the last, while the host goes on writing.
//!
//! Each resync request takes its range in the range order like a mutation, and never lands before an older write (see
//! `copies`). Its bits are cleared when a flush of the peer has made the copy durable (I3). New writes are sent as
//! usual meanwhile, so one pass is enough.

use core::time::Duration;

use super::Mirror;
use super::background::{CopyKind, CopyRequest};
use super::peer::{Begun, Peer};
use super::rate::Rate;
use super::status::ResyncStatus;
use crate::config::{COPIED_MAX, COPY_BYTES_MAX, COPY_BYTES_MIN};
use crate::event::{ConnectionId, Copied, CopyFailure, CopyId, DisconnectReason, Event, Failure, LinkKind, PeerIndex};
use crate::range::{BLOCK_BYTES, ByteRange};
use crate::sabotage::Sabotage;
use crate::state::PeerState;

/// After a block that could not be read, another try.
const RETRY: Duration = Duration::from_secs(5);
/// The bitmap's progress is written down at least this often while it changes.
const PERSIST: Duration = Duration::from_secs(1);
/// Bytes of a request over blocks that turned out equal: they cost reading, not sending.
const EQUAL_BYTES_MAX: u64 = 4 * COPY_BYTES_MIN;

impl Mirror {
    /// Connected, and blocks are dirty: copy them.
    pub(super) fn start_resync(&mut self, peer: usize) {
        self.set_peer_state(peer, PeerState::SyncSource);
        self.begin_pass(peer);
        self.begin_sync(peer);
        self.resync(peer);
    }

    /// A pass over the bitmap begins, in either direction.
    pub(super) fn begin_pass(&mut self, peer: usize) {
        let (now, limits) = (self.now, self.config.resync);
        let dirty = self.peers[peer].dirty_bytes(self.config.size);
        let resync = &mut self.peers[peer].resync;
        resync.restart_pass();
        resync.started_at = now;
        resync.persist_at = Some(now + PERSIST);
        resync.progress = Some(ResyncStatus {
            dirty_at_start: dirty,
            ..ResyncStatus::default()
        });
        resync.eta.start(now, dirty);
        resync.rate = Rate::new(limits);
        resync.rate.start(now, &self.latency);
        self.event(Event::ResyncStarted {
            peer: PeerIndex(peer as u8),
            dirty,
        });
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
        let link = &self.peers[peer];
        let begun = link.link == LinkKind::Nbd || (link.begun == Begun::Yes && link.ended.is_none());
        if link.state != PeerState::SyncSource
            || link.passive
            || !begun
            || self.stopping.is_asked()
            || self.has_failed()
        {
            return;
        }
        // A leg that lacks something is no source: what it lacks comes first.
        if !self.leg_is_complete() && self.is_primary() {
            return;
        }
        self.pace(peer);
        self.ask_copies(peer, CopyKind::Copy);
        let link = &self.peers[peer];
        let pass_over = link.is_pass_asked() && !link.resync.has(CopyKind::Copy);
        if (pass_over && !link.resync.copied.is_empty()) || link.resync.copied.is_full() {
            self.peers[peer].flush.request();
            self.issue_flushes();
        } else if pass_over && link.resync.is_settled() {
            self.end_of_pass(peer);
        }
    }

    /// As many requests as the rate and the bounds let out.
    pub(super) fn ask_copies(&mut self, peer: usize, kind: CopyKind) {
        while let Some(range) = self.next_copy(peer) {
            if !self.may_ask(peer, range.length) {
                return;
            }
            self.peers[peer].resync.asked_for(range);
            self.ask_copy(peer, kind, range);
        }
    }

    /// The next dirty range of what failed in one piece, or at the cursor; none while too much waits for a flush.
    fn next_copy(&mut self, peer: usize) -> Option<ByteRange> {
        let size = self.config.size;
        let Peer { dirty, resync, .. } = &mut self.peers[peer];
        if resync.waits_for_flush() >= 4 * COPIED_MAX {
            return None;
        }
        while let Some(half) = resync.halves.last() {
            let blocks = half.blocks();
            let run = dirty.next_run(blocks.start, blocks.end - blocks.start);
            if let Some(run) = run.filter(|run| run.start < blocks.end) {
                let offset = run.start * BLOCK_BYTES;
                return Some(ByteRange::new(
                    offset,
                    (run.end.min(blocks.end) * BLOCK_BYTES).min(size) - offset,
                ));
            }
            resync.halves.pop();
        }
        let step = if resync.step > COPY_BYTES_MIN {
            resync.step
        } else {
            resync.rate.step()
        };
        let run = dirty.next_run(resync.cursor, step / BLOCK_BYTES)?;
        let offset = run.start * BLOCK_BYTES;
        Some(ByteRange::new(offset, (run.end * BLOCK_BYTES).min(size) - offset))
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
        if let Err(CopyFailure::Peer(failure) | CopyFailure::Link(failure)) = outcome {
            return self.peer_failed(at, DisconnectReason::PeerFailed(failure));
        }
        let Some(request) = self.take_copy(at, connection, copy) else {
            return;
        };
        match outcome {
            Ok(copied) => self.copied(at, request, copied),
            Err(failure) => self.copy_later(at, request, failure),
        }
        self.pump(at);
        self.resync(at);
        self.caught_up(at);
    }

    /// Something could not be read, or not written here: its bits stay for another pass.
    pub(super) fn copy_later(&mut self, peer: usize, request: CopyRequest, failure: CopyFailure) {
        let now = self.now;
        let resync = &mut self.peers[peer].resync;
        // Where there is no space, smaller pieces find none either.
        let unreadable = matches!(
            failure,
            CopyFailure::Local(Failure::Io) | CopyFailure::Peer(Failure::Io)
        );
        if !unreadable || !resync.halve(request.range) {
            resync.retry_at = Some(now + RETRY);
        }
        let took = now.saturating_sub(request.asked_at);
        resync.rate.ended(request.range.length, 0, took);
    }

    fn copied(&mut self, peer: usize, request: CopyRequest, copied: Copied) {
        let keeps_i3 = self.keeps(Sabotage::I3);
        self.note_progress(peer, &request, copied);
        let Peer { dirty, resync, .. } = &mut self.peers[peer];
        if !keeps_i3 {
            dirty.clear(request.range.blocks());
        }
        if !request.stale {
            resync.copied.push(request.range);
        }
    }

    /// Progress, rate and the size of the next request.
    pub(super) fn note_progress(&mut self, peer: usize, request: &CopyRequest, copied: Copied) {
        let now = self.now;
        let length = request.range.length;
        let equal = length.saturating_sub(copied.shipped + copied.zeroed);
        let Peer { dirty, resync, .. } = &mut self.peers[peer];
        if let Some(progress) = &mut resync.progress {
            progress.shipped += copied.shipped;
            progress.zeroed += copied.zeroed;
            progress.equal += equal;
            progress.done += length;
        }
        resync.step = match copied {
            Copied { shipped: 0, .. } if equal == 0 => (resync.step * 2).min(COPY_BYTES_MAX),
            Copied { shipped: 0, .. } => (resync.step * 2).min(EQUAL_BYTES_MAX),
            _ => COPY_BYTES_MIN,
        };
        resync
            .rate
            .ended(length, copied.shipped + equal, now.saturating_sub(request.asked_at));
        resync.eta.note(now, dirty.count() * BLOCK_BYTES);
    }

    /// The cursor has reached the end and everything copied is durable.
    fn end_of_pass(&mut self, peer: usize) {
        if !self.peers[peer].dirty.is_empty() {
            // Bits behind the cursor: a block that became dirty during the pass, or could not be read here.
            if self.peers[peer].resync.retry_at.is_none() {
                self.peers[peer].resync.cursor = 0;
                self.ask_copies(peer, CopyKind::Copy);
            }
            return;
        }
        self.persisting.progress_wanted |= self.peers[peer].resync.persist_at.take().is_some();
        if self.peers[peer].link == LinkKind::Stream {
            self.sync_end(peer);
        } else {
            self.resync_finished(peer);
            self.peer_in_step(peer);
        }
    }

    /// Nothing is dirty any more, and both sides know.
    pub(super) fn resync_finished(&mut self, peer: usize) {
        self.set_peer_state(peer, PeerState::Established);
        let ResyncStatus { shipped, zeroed, .. } = self.close_progress(peer);
        self.persisting.progress_wanted = true;
        self.event(Event::ResyncFinished {
            peer: PeerIndex(peer as u8),
            shipped,
            zeroed,
        });
        self.verify(peer);
    }

    /// What the pass that ends has done.
    pub(super) fn close_progress(&mut self, peer: usize) -> ResyncStatus {
        let now = self.now;
        let resync = &mut self.peers[peer].resync;
        let mut status = resync.progress.take().unwrap_or_default();
        status.elapsed = now.saturating_sub(resync.started_at);
        resync.last = Some(status);
        resync.persist_at = None;
        resync.wake_at = None;
        status
    }

    pub(super) fn resync_timeout(&mut self) {
        for peer in 0..self.peers.len() {
            let link = &mut self.peers[peer];
            if link.resync.retry_at.is_some_and(|at| at <= self.now) {
                // The pass under way comes to its end first: the next one begins there.
                link.resync.retry_at = None;
                self.go_on_with(peer);
            }
            if self.peers[peer].resync.wake_at.is_some_and(|at| at <= self.now) {
                self.peers[peer].resync.wake_at = None;
                self.go_on_with(peer);
            }
            let link = &mut self.peers[peer];
            if link.resync.persist_at.is_some_and(|at| at <= self.now) {
                link.resync.persist_at = Some(self.now + PERSIST);
                self.persisting.progress_wanted = true;
                self.flush_copied(peer);
            }
        }
    }

    /// Whatever goes on in the background with this peer goes on.
    pub(super) fn go_on_with(&mut self, peer: usize) {
        self.resync(peer);
        self.fetch(peer);
        self.verify(peer);
    }

    /// Make durable what was copied so far, so that it does not have to be copied again.
    fn flush_copied(&mut self, peer: usize) {
        let link = &mut self.peers[peer];
        if !link.resync.copied.is_empty() {
            link.flush.request();
        }
        if !link.resync.fetched.is_empty() {
            self.local.request();
        }
        self.issue_flushes();
    }
}
