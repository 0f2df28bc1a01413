//! Resync to this leg, while this node is Primary: what its dirty bits name is fetched from a peer that has it.
//!
//! The mirror image of `resync`: each request takes its range in the range order, the peer compares it by digests and
//! sends what differs, and it is written here. A bit is cleared once a flush of the local leg has made that durable
//! (I3). Meanwhile host writes go to both legs, and reads of what is dirty go to the peer (I6).

use super::Mirror;
use super::background::{CopyKind, CopyPhase, CopyRequest};
use super::peer::Peer;
use super::request::{Request, bit};
use crate::event::{
    ConnectionId, Copied, CopyFailure, CopyId, DisconnectReason, Event, Failure, PeerIndex, ReadFrom, VolumeMessage,
};
use crate::identity::Role;
use crate::range::ByteRange;
use crate::sabotage::Sabotage;
use crate::state::{LocalDisk, PeerState};

impl Mirror {
    /// A peer in state SyncTarget has come, or the image has: fetch what its bits name.
    pub(super) fn start_fetch(&mut self, peer: usize) {
        self.leg.sources |= bit(peer);
        self.data_is_back(peer);
        if self.superblock.disk == LocalDisk::Diskless {
            return;
        }
        self.begin_pass(peer);
        self.fetch(peer);
    }

    /// Ask for the next ranges, flush what was written here, or find that everything is done.
    pub(super) fn fetch(&mut self, peer: usize) {
        let has_image = self.superblock.disk != LocalDisk::Diskless && !self.leg.taking;
        let may = has_image && self.is_primary() && !self.stopping.is_asked() && !self.has_failed();
        if self.peers[peer].state != PeerState::SyncTarget || !may {
            return;
        }
        self.pace(peer);
        self.lend_ranges();
        self.ask_copies(peer, CopyKind::Fetch);
        let link = &self.peers[peer];
        let pass_over = link.is_pass_asked() && !link.resync.has(CopyKind::Fetch);
        if (pass_over && !link.resync.fetched.is_empty()) || link.resync.fetched.is_full() {
            self.local.request();
            self.issue_flushes();
        } else if pass_over && link.resync.is_settled() {
            self.end_of_fetch(peer);
        }
    }

    /// A mutation that waits only for a peer to come back (`suspend`) lends its range to what is fetched: the peer may not
    /// come into step before this leg is complete. Nothing newer starts before the peer is there.
    fn lend_ranges(&mut self) {
        let waits = |request: &Request| {
            let done = request.queued | request.in_flight == 0 && request.local.is_some();
            done && request.held != 0 && request.ordered
        };
        // Who has everything but these gets them as they are.
        let has_rest = super::peer::mask(&self.peers, |link| link.state == PeerState::SyncTarget);
        let has_rest = has_rest | self.leg.awaited.map_or(0, bit);
        for id in self.ids(waits) {
            let Some(request) = self.request(id).filter(|request| request.held & has_rest == 0) else {
                continue;
            };
            (request.ordered, request.lent) = (false, true);
            let range = request.mutation.range;
            self.release_range(range);
            self.leg.lent = true;
        }
    }

    /// What was lent waits for a peer to be in step: its blocks were dirty there.
    pub(super) fn return_lent(&mut self) {
        if !self.leg.lent {
            return;
        }
        let in_step = |link: &Peer| link.state == PeerState::Established && link.dirty.is_empty();
        let there = super::peer::mask(&self.peers, in_step);
        for id in self.ids(|request| request.lent && request.held & there != 0) {
            if let Some(request) = self.request(id) {
                request.held &= !there;
            }
            self.advance(id);
        }
        self.leg.lent = !self.ids(|request| request.lent && request.held != 0).is_empty();
    }

    pub(super) fn fetch_done(
        &mut self,
        peer: PeerIndex,
        connection: ConnectionId,
        copy: CopyId,
        outcome: Result<Copied, CopyFailure>,
    ) {
        let at = usize::from(peer.0);
        let Some(request) = self.take_copy(at, connection, copy) else {
            return;
        };
        // (Of one block that the peer could not read nothing was written.)
        let bad_sector = outcome == Err(CopyFailure::Peer(Failure::Io)) && request.range.halves().is_none();
        if outcome.is_err() && !bad_sector {
            self.perhaps_changed_here(at, &request);
        }
        match (outcome, request.kind) {
            (Err(CopyFailure::Link(failure) | CopyFailure::Peer(failure @ Failure::NoSpace)), _) => {
                return self.peer_failed(at, DisconnectReason::PeerFailed(failure));
            }
            // A bad sector there. The peer still has everything else: it is not given up for that, nor is the image.
            (Err(CopyFailure::Peer(Failure::Io)), CopyKind::Repair) => self.irreparable(request.range),
            (outcome, CopyKind::Repair) => self.repaired(request.range, outcome.is_ok()),
            (Ok(copied), _) => self.fetched(at, request, copied),
            (Err(CopyFailure::Local(Failure::Io)), _) if self.local_leg_failed() => {}
            (Err(failure), _) => self.copy_later(at, request, failure),
        }
        self.pump(at);
        self.go_on_with(at);
        self.caught_up(at);
    }

    fn fetched(&mut self, peer: usize, request: CopyRequest, copied: Copied) {
        let keeps_i3 = self.keeps(Sabotage::I3);
        self.note_progress(peer, &request, copied);
        let resync = &mut self.peers[peer].resync;
        if !request.stale && self.superblock.disk != LocalDisk::Diskless {
            resync.fetched.push(request.range);
        }
        if !keeps_i3 {
            self.peers[peer].dirty.clear(request.range.blocks());
        }
        if copied.shipped + copied.zeroed > 0 {
            self.changed_here(peer, request.range);
        }
    }

    /// A fetch that did not come to a good end may have written some of what differed, which the next one finds equal. The
    /// others may be in step with what was here before. (A leg that lacks something is nobody's source.)
    pub(super) fn perhaps_changed_here(&mut self, source: usize, request: &CopyRequest) {
        let sent = request.kind == CopyKind::Fetch && request.phase == CopyPhase::InFlight;
        if sent && self.is_primary() && self.leg_is_complete() {
            self.changed_here(source, request.range);
        }
    }

    /// The leg here holds something else now: what the other peers have of it is not known.
    fn changed_here(&mut self, source: usize, range: ByteRange) {
        for at in (0..self.peers.len()).filter(|&at| at != source) {
            self.peers[at].mark_dirty(range);
            if !self.peers[at].state.is_connected() {
                self.need_generation(at);
            }
        }
    }

    /// A flush of the local leg is being issued: it covers what was fetched so far.
    pub(super) fn start_local_flush(&mut self) {
        for link in &mut self.peers {
            link.resync.settling.append(&mut link.resync.fetched);
        }
    }

    /// It has completed: what it covers is durable here, those blocks are clean (I3).
    pub(super) fn finish_local_flush(&mut self) {
        for link in &mut self.peers {
            let Peer { dirty, resync, .. } = link;
            for range in resync.settling.drain() {
                dirty.clear(range.blocks());
            }
        }
    }

    /// The cursor has reached the end and everything fetched is durable here.
    fn end_of_fetch(&mut self, peer: usize) {
        if !self.peers[peer].dirty.is_empty() {
            if self.peers[peer].resync.retry_at.is_none() {
                self.peers[peer].resync.cursor = 0;
                self.ask_copies(peer, CopyKind::Fetch);
            }
            return;
        }
        if self.superblock.disk != LocalDisk::UpToDate {
            // Durable before the peer hears of it (I10).
            self.set_disk(LocalDisk::UpToDate);
        }
        if !self.is_identity_durable() {
            return;
        }
        self.leg.sources &= !bit(peer);
        let (current, finished) = (self.superblock.generation, self.close_progress(peer));
        self.set_peer_state(peer, PeerState::Established);
        self.peer_in_step(peer);
        self.refresh_modes();
        self.peers[peer].misses_leg = false;
        self.say_now(peer, VolumeMessage::InStep { current });
        self.event(Event::ResyncFinished {
            peer: PeerIndex(peer as u8),
            shipped: finished.shipped,
            zeroed: finished.zeroed,
        });
        // Others may lack what was fetched.
        self.resync_all();
        self.announce_all();
    }

    /// Where to read the range: every block of it is the newest there (I6).
    pub fn read_from(&self, range: ByteRange) -> ReadFrom {
        if !self.lacks(range) || !self.keeps(Sabotage::I6) {
            return ReadFrom::Local;
        }
        match self.server_of(range) {
            Some((peer, connection)) => ReadFrom::Peer(PeerIndex(peer as u8), connection),
            None => ReadFrom::Nowhere,
        }
    }

    /// Some of the range is not here, or not readable.
    fn lacks(&self, range: ByteRange) -> bool {
        if self.role == Role::Secondary {
            return matches!(self.superblock.disk, LocalDisk::Diskless | LocalDisk::Inconsistent);
        }
        let unreadable = self.leg.bad.iter().any(|bad| bad.overlaps(range));
        let blocks = range.blocks();
        let behind = |(at, link): (usize, &Peer)| {
            self.leg.sources & bit(at) != 0
                && !self.leg_is_complete()
                && link
                    .dirty
                    .next_run(blocks.start, 1)
                    .is_some_and(|run| run.start < blocks.end)
        };
        self.superblock.disk == LocalDisk::Diskless || unreadable || self.peers.iter().enumerate().any(behind)
    }

    /// A peer that has the newest of every block of the range, and sees our requests in order.
    pub(super) fn server_of(&self, range: ByteRange) -> Option<(usize, ConnectionId)> {
        let blocks = range.blocks();
        let serves = |link: &Peer| match link.state {
            PeerState::SyncTarget => true,
            PeerState::Established | PeerState::SyncSource => {
                let run = link.dirty.next_run(blocks.start, 1);
                run.is_none_or(|run| run.start >= blocks.end)
            }
            PeerState::StandAlone | PeerState::Connecting | PeerState::Behind => false,
        };
        if self.role == Role::Secondary {
            return None;
        }
        let mut peers = self.peers.iter().enumerate();
        peers.find_map(|(at, link)| {
            let connection = link.connection.filter(|_| link.is_stream() && serves(link))?;
            Some((at, connection))
        })
    }
}
