//! Verify: compare all blocks with a peer while the host goes on writing.
//!
//! ```text
//!  look (no lock) --differs--> compare (range closed to the host) --differs--> dirty --repair--> resync
//! ```
//! A first look takes no range, so what it finds may be a write on its way; only what differs with the range closed,
//! and in its place behind every earlier write, counts. The Primary is the source of a repair.
//!
//! A peer on which something differs lacks it like one that was away: it goes on under the name that its data had, and
//! the data here get another. It stays connected and gets every write.

use alloc::vec::Vec;
use core::time::Duration;

use super::Mirror;
use super::background::CopyKind;
use super::peer::Peer;
use super::rate::Rate;
use super::rate::eta::Eta;
use super::status::VerifyStatus;
use crate::config::COPY_BYTES_SLOW;
use crate::event::{ConnectionId, CopyFailure, CopyId, DisconnectReason, Event, OrderRefusal, PeerIndex, Ticket};
use crate::range::{BLOCK_BYTES, ByteRange};
use crate::sabotage::Sabotage;
use crate::state::PeerState;

/// Ranges that wait to be compared again at most: no first look is asked for beyond.
const SUSPECTS_MAX: usize = 256;
/// The place is written down this often.
const SAVE: Duration = Duration::from_secs(10);

/// A comparison that goes on, or waits for the peer to be in step again.
#[derive(Clone, Debug)]
pub(crate) struct Verify {
    repair: bool,
    /// The next block to look at.
    cursor: u64,
    /// Differed at the first look.
    suspects: Vec<ByteRange>,
    status: VerifyStatus,
    started_at: Duration,
    save_at: Duration,
    eta: Eta,
}

impl Verify {
    /// The place is written down then.
    pub(crate) fn save_at(&self) -> Duration {
        self.save_at
    }

    /// Progress so far.
    pub(crate) fn status(&self, now: Duration, size: u64) -> VerifyStatus {
        let left = size.saturating_sub(self.cursor * BLOCK_BYTES);
        VerifyStatus {
            done: size - left,
            speed: self.eta.speed(now, left),
            rest: self.eta.rest(now, left),
            elapsed: now.saturating_sub(self.started_at),
            ..self.status
        }
    }
}

impl Mirror {
    pub(super) fn order_verify(&mut self, ticket: Ticket, peer: PeerIndex, repair: bool, resume: bool) {
        let at = usize::from(peer.0);
        let link = &self.peers[at];
        let able = self.is_primary() && self.leg_is_complete() && link.state == PeerState::Established;
        if !able || link.verify.is_some() {
            return self.order_done(ticket, Err(OrderRefusal::WrongState));
        }
        let (now, size) = (self.now, self.config.size);
        let cursor = if resume { link.record.verify_cursor } else { 0 };
        let cursor = if cursor * BLOCK_BYTES < size { cursor } else { 0 };
        let mut eta = Eta::default();
        eta.start(now, size - cursor * BLOCK_BYTES);
        let rate = Rate::new(self.config.resync);
        let link = &mut self.peers[at];
        link.resync.rate = rate;
        link.resync.rate.start(now, &self.latency);
        link.verify = Some(Verify {
            repair,
            cursor,
            suspects: Vec::new(),
            status: VerifyStatus {
                total: size,
                repair,
                ..VerifyStatus::default()
            },
            started_at: now,
            save_at: now + SAVE,
            eta,
        });
        self.order_done(ticket, Ok(()));
        self.verify(at);
    }

    pub(super) fn order_verify_stop(&mut self, ticket: Ticket, peer: PeerIndex) {
        let at = usize::from(peer.0);
        if self.peers[at].verify.is_none() {
            return self.order_done(ticket, Err(OrderRefusal::WrongState));
        }
        self.save_place(at);
        self.close_verify(at, false);
        self.order_done(ticket, Ok(()));
    }

    /// Ask for the next comparisons, or find that everything is compared.
    pub(super) fn verify(&mut self, peer: usize) {
        let able = self.leg_is_complete() && self.is_primary() && !self.stopping.is_asked() && !self.has_failed();
        if self.peers[peer].state != PeerState::Established || self.peers[peer].verify.is_none() || !able {
            return;
        }
        self.pace(peer);
        self.ask_suspects(peer);
        self.ask_looks(peer);
        let size = self.config.size;
        let link = &self.peers[peer];
        let comparing = link.resync.has(CopyKind::Look) || link.resync.has(CopyKind::Compare);
        let over = |verify: &Verify| verify.suspects.is_empty() && verify.cursor * BLOCK_BYTES >= size;
        if !comparing && link.verify.as_ref().is_some_and(over) && self.is_noted(peer) {
            self.peers[peer].record.verify_cursor = 0;
            self.persisting.superblock_wanted = true;
            self.close_verify(peer, true);
        }
    }

    /// What was found is durable: whoever hears of the end finds it after a crash, too.
    fn is_noted(&self, peer: usize) -> bool {
        let marked = self.peers[peer].dirty.changed().is_empty();
        marked && !self.persisting.is_busy() && !self.persisting.superblock_wanted
    }

    /// What differed at the first look is compared with its range closed, a few at a time.
    fn ask_suspects(&mut self, peer: usize) {
        while let Some(range) = self.peers[peer]
            .verify
            .as_ref()
            .and_then(|verify| verify.suspects.last().copied())
        {
            if !self.may_ask(peer, range.length) {
                return;
            }
            if let Some(verify) = &mut self.peers[peer].verify {
                verify.suspects.pop();
            }
            self.ask_copy(peer, CopyKind::Compare, range);
        }
    }

    fn ask_looks(&mut self, peer: usize) {
        while let Some(range) = self.next_look(peer) {
            if !self.may_ask(peer, range.length) {
                return;
            }
            if let Some(verify) = &mut self.peers[peer].verify {
                verify.cursor = range.blocks().end;
            }
            self.ask_copy(peer, CopyKind::Look, range);
        }
    }

    /// The next blocks that are not known to differ anyway.
    fn next_look(&mut self, peer: usize) -> Option<ByteRange> {
        let size = self.config.size;
        let blocks = size.div_ceil(BLOCK_BYTES);
        let Peer {
            dirty, resync, verify, ..
        } = &mut self.peers[peer];
        let verify = verify.as_mut()?;
        if verify.suspects.len() >= SUSPECTS_MAX {
            return None;
        }
        let mut next_dirty = dirty.next_run(verify.cursor, u64::MAX);
        while let Some(run) = next_dirty.clone().filter(|run| run.start <= verify.cursor) {
            verify.cursor = run.end;
            next_dirty = dirty.next_run(verify.cursor, u64::MAX);
        }
        let start = verify.cursor;
        let end = next_dirty.map_or(blocks, |run| run.start);
        let end = end.min(start + resync.rate.step() / BLOCK_BYTES);
        if start >= end {
            return None;
        }
        let offset = start * BLOCK_BYTES;
        Some(ByteRange::new(offset, (end * BLOCK_BYTES).min(size) - offset))
    }

    pub(super) fn compare_done(
        &mut self,
        peer: PeerIndex,
        connection: ConnectionId,
        copy: CopyId,
        outcome: Result<Vec<ByteRange>, CopyFailure>,
    ) {
        let at = usize::from(peer.0);
        let Some(request) = self.take_copy(at, connection, copy) else {
            return;
        };
        let (now, range) = (self.now, request.range);
        let resync = &mut self.peers[at].resync;
        resync
            .rate
            .ended(range.length, range.length, now.saturating_sub(request.asked_at));
        match outcome {
            Ok(differing) => {
                let certain = request.kind == CopyKind::Compare || !self.keeps(Sabotage::Recheck);
                for part in differing.iter().filter_map(|part| part.within(range)) {
                    if certain {
                        self.found_different(at, part);
                    } else {
                        self.suspect(at, part);
                    }
                }
            }
            Err(CopyFailure::Link(failure)) => {
                self.compare_again(at, range);
                return self.peer_failed(at, DisconnectReason::PeerFailed(failure));
            }
            Err(CopyFailure::Local(failure)) => {
                self.note_unread(at, range.length);
                self.local_read_failed(range, failure);
            }
            // It cannot be read there: whatever it is, it can only be written again.
            Err(CopyFailure::Peer(_)) if self.is_repairing(at) => self.found_different(at, range),
            Err(CopyFailure::Peer(_)) => self.note_unread(at, range.length),
        }
        self.note_place(at);
        self.pump(at);
        self.verify(at);
        self.caught_up(at);
    }

    /// In pieces that close little to the host for a short time only.
    fn suspect(&mut self, peer: usize, range: ByteRange) {
        let Some(verify) = &mut self.peers[peer].verify else {
            return;
        };
        let mut at = range.offset;
        while at < range.end() {
            let piece = ByteRange::new(at, (range.end() - at).min(COPY_BYTES_SLOW));
            verify.suspects.push(piece);
            at = piece.end();
        }
    }

    /// It was not compared to the end: once more, from here on.
    pub(super) fn compare_again(&mut self, peer: usize, range: ByteRange) {
        if let Some(verify) = &mut self.peers[peer].verify {
            verify.cursor = verify.cursor.min(range.blocks().start);
        }
    }

    fn found_different(&mut self, peer: usize, range: ByteRange) {
        let before = self.peers[peer].dirty.count();
        self.peers[peer].mark_dirty(range);
        let found = (self.peers[peer].dirty.count() - before) * BLOCK_BYTES;
        if let Some(verify) = &mut self.peers[peer].verify {
            verify.status.different += found;
        }
        self.persisting.progress_wanted = true;
        // By the same name the two would be taken for equal, and what rotted could be copied from there. (Of a peer that is
        // fetched from it is the leg here that lacks it.)
        if self.peers[peer].state != PeerState::SyncTarget && self.keeps(Sabotage::DifferentIsBehind) {
            self.need_generation(peer);
        }
        self.event(Event::Different {
            peer: PeerIndex(peer as u8),
            range,
        });
    }

    fn is_repairing(&self, peer: usize) -> bool {
        self.peers[peer].verify.as_ref().is_some_and(|verify| verify.repair)
    }

    fn note_unread(&mut self, peer: usize, bytes: u64) {
        if let Some(verify) = &mut self.peers[peer].verify {
            verify.status.unread += bytes;
        }
    }

    /// Progress, and now and then the place it could go on from.
    fn note_place(&mut self, peer: usize) {
        let (now, size) = (self.now, self.config.size);
        let Some(verify) = &mut self.peers[peer].verify else {
            return;
        };
        verify.eta.note(now, size.saturating_sub(verify.cursor * BLOCK_BYTES));
        if now >= verify.save_at {
            self.save_place(peer);
        }
    }

    /// Everything before the place has been compared to the end.
    fn save_place(&mut self, peer: usize) {
        let now = self.now;
        let Peer {
            resync, verify, record, ..
        } = &mut self.peers[peer];
        let Some(verify) = verify else { return };
        let comparing = |kind| matches!(kind, CopyKind::Look | CopyKind::Compare);
        let asked = resync
            .copies
            .iter()
            .filter(|copy| comparing(copy.kind))
            .map(|copy| copy.range);
        let starts = asked
            .chain(verify.suspects.iter().copied())
            .map(|range| range.blocks().start);
        verify.save_at = now + SAVE;
        record.verify_cursor = starts.chain([verify.cursor]).min().unwrap_or(0);
        self.persisting.superblock_wanted = true;
    }

    pub(super) fn verify_timeout(&mut self) {
        for peer in 0..self.peers.len() {
            if self.peers[peer]
                .verify
                .as_ref()
                .is_some_and(|verify| verify.save_at <= self.now)
            {
                self.save_place(peer);
            }
        }
    }

    /// The connection is lost: what was not compared to the end will be compared again.
    pub(super) fn pause_verify(&mut self, peer: usize) {
        if let Some(verify) = &mut self.peers[peer].verify {
            let first = verify.suspects.iter().map(|range| range.blocks().start).min();
            verify.cursor = first.unwrap_or(verify.cursor).min(verify.cursor);
            verify.suspects.clear();
        }
    }

    fn close_verify(&mut self, peer: usize, finished: bool) {
        let (now, size) = (self.now, self.config.size);
        let Some(verify) = self.peers[peer].verify.take() else {
            return;
        };
        let status = VerifyStatus {
            finished,
            ..verify.status(now, size)
        };
        self.peers[peer].last_verify = Some(status);
        self.event(Event::VerifyFinished {
            peer: PeerIndex(peer as u8),
            different: status.different,
            finished,
        });
        let found = !self.peers[peer].dirty.is_empty();
        if verify.repair && found && self.peers[peer].state == PeerState::Established {
            self.start_resync(peer);
        }
    }
}
