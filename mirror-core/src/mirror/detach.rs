//! Giving the image up, and taking it again.

use super::Mirror;
use super::background::CopyPhase;
use super::orders::Then;
use super::peer::{Gate, Peer};
use super::request::{PeerMask, Phase, Request, bit};
use crate::config::AckMode;
use crate::event::{Failure, OrderRefusal, Refusal, Ticket, VolumeMessage};
use crate::identity::Role;
use crate::metadata::ImageIdentity;
use crate::range::{ByteRange, EXTENT_BYTES};
use crate::state::{LocalDisk, PeerState};

/// The operator wants the image given up: waits for this flush of a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    ticket: Ticket,
    peer: usize,
    flush: u64,
}

impl Mirror {
    /// A Secondary without an image: what its Primary sends fails, and so do flushes of what it has sent.
    pub(super) fn leave_image(&mut self) {
        self.superblock.whole = self.superblock.disk.is_whole();
        self.leg.flush_lost = self.local.is_in_flight();
        self.local.set_absent(true);
        self.persisting.covered_by = None;
        self.set_disk(LocalDisk::Diskless);
        for (_, ticket) in core::mem::take(&mut self.meetings) {
            self.order_done(ticket, Err(OrderRefusal::Failed(Failure::Io)));
        }
        for flush in core::mem::take(&mut self.flushes) {
            self.refuse(flush.id, Refusal::Local(Failure::Io));
        }
    }

    /// A flush has failed on a Secondary: any of what it has applied may be gone for good, also what its peers take to be
    /// here. Never tried again, never ignored: everything is taken from a peer again.
    pub(super) fn lose_image(&mut self) {
        if self.superblock.disk != LocalDisk::Diskless {
            self.leave_image();
        }
        self.superblock.whole = false;
        self.persisting.superblock_wanted = true;
    }

    /// The volume lives on its peers from here on. False, and nothing changed, when none has everything.
    pub(super) fn detach(&mut self) -> bool {
        let complete = (0..self.peers.len())
            .filter(|&peer| self.stands_in(peer))
            .fold(0, |mask, peer| mask | bit(peer));
        if complete == 0 || self.is_changing_role() {
            return false;
        }
        self.note_what_is_missing();
        // Until a peer has everything durably, the image is not given up in the metadata: should all die now, what was
        // answered may be nowhere else. (After a flush that failed, the image may have lost what it had.)
        self.superblock.whole = self.leg_is_complete() && !self.leg.flush_failed;
        self.leg.flush_lost = self.local.is_in_flight();
        self.local.set_absent(true);
        self.leg.bad.clear();
        self.set_disk(LocalDisk::Diskless);
        for peer in 0..self.peers.len() {
            self.drop_unsent_copies(peer);
            if complete & bit(peer) != 0 {
                self.leg.sources |= bit(peer);
                self.set_peer_state(peer, PeerState::SyncTarget);
            }
        }
        self.refresh_modes();
        self.tell_leg();
        if self.superblock.left_at == 0 && self.leg.left.is_none() {
            self.leave_behind();
        }
        self.renew_generation();
        for id in self.suspended.clone() {
            self.let_range_go(id);
        }
        self.rely_on(complete);
        true
    }

    /// The image is left behind with what the data is called now. Not before a peer has everything if it may lack what it
    /// had, and a peer what was answered: as long as they have the earlier name only, neither is taken for the data.
    fn leave_behind(&mut self) {
        if self.leg.flush_failed && !self.every_partner_is_sync() {
            self.leg.left = Some(self.superblock.generation);
        } else {
            self.superblock.left_at = self.superblock.generation;
        }
    }

    /// Blocks that the image may lack: everything written since its last flush, and what is in flight.
    fn note_what_is_missing(&mut self) {
        let Some(log) = &self.log else { return };
        let local = &self.local;
        let size = self.config.size;
        for extent in log.unsettled(|stamps| local.covers(stamps[0])) {
            let offset = u64::from(extent) * EXTENT_BYTES;
            let range = ByteRange::new(offset, EXTENT_BYTES.min(size - offset));
            for link in &mut self.peers {
                link.mark_dirty(range);
            }
        }
    }

    fn tell_leg(&mut self) {
        let disk = self.superblock.disk;
        for peer in 0..self.peers.len() {
            if self.peers[peer].is_stream() {
                self.peers[peer].misses_leg = true;
                self.say_now(peer, VolumeMessage::Leg { disk });
            }
        }
    }

    /// What was answered so far has to be durable on the peers that are left, and so has what flushes wait for.
    fn rely_on(&mut self, complete: PeerMask) {
        for peer in (0..self.peers.len()).filter(|&peer| complete & bit(peer) != 0) {
            self.fence_answered(peer);
            let target = self.peers[peer].flush.request();
            for flush in &mut self.flushes {
                if flush.targets[peer] == 0 {
                    flush.targets[peer] = target;
                    flush.waiting |= bit(peer);
                    flush.degraded &= !bit(peer);
                }
            }
        }
        self.issue_flushes();
        for id in self.ids(|request| !request.replied) {
            self.advance(id);
        }
        self.advance_flushes();
    }

    /// What was answered may still be on its way to an asynchronous peer, or in progress there: no flush that comes from here
    /// on overtakes it.
    fn fence_answered(&mut self, peer: usize) {
        if self.peers[peer].config.mode == AckMode::Async {
            self.enqueue_barrier(peer);
        }
    }

    /// Mutations and flushes that the image has not answered.
    fn is_image_busy(&self) -> bool {
        let waits = |request: &Request| request.phase == Phase::Started && request.local.is_none();
        let sent = |link: &Peer| link.resync.copies.iter().any(|copy| copy.phase == CopyPhase::InFlight);
        let mutating = self.requests.iter().flatten().any(waits);
        mutating || self.leg.flush_lost || self.local.is_in_flight() || self.peers.iter().any(sent)
    }

    /// An operator's word. What was answered by then is made durable on a peer first: it may be lost the next moment,
    /// and with it what only the image here holds.
    pub(super) fn order_detach(&mut self, ticket: Ticket) {
        if self.superblock.disk == LocalDisk::Diskless {
            return self.order_when_durable(ticket);
        }
        if self.role == Role::Secondary {
            self.leave_image();
            return self.order_when_durable(ticket);
        }
        let stands_in = (0..self.peers.len()).find(|&peer| self.stands_in(peer));
        let (Some(peer), None, false) = (stands_in, self.leg.leaving, self.is_changing_role()) else {
            return self.order_done(ticket, Err(OrderRefusal::WrongState));
        };
        // Issued from now on, it comes behind everything answered so far; what is sent from now on is durable by itself.
        self.fence_answered(peer);
        let flush = self.peers[peer].flush.request();
        self.leg.leaving = Some(Leaving { ticket, peer, flush });
        self.refresh_modes();
        self.issue_flushes();
    }

    /// A peer has flushed, or is lost: the image may be given up now, or not at all.
    pub(super) fn leaving_step(&mut self) {
        let Some(Leaving { ticket, peer, flush }) = self.leg.leaving else {
            return;
        };
        let able = self.stands_in(peer) && !self.has_failed() && !self.is_changing_role();
        if able && !self.peers[peer].flush.reached(flush) {
            return;
        }
        self.leg.leaving = None;
        let gone = self.lives_on_peers() || (able && self.detach());
        self.refresh_modes();
        if gone {
            self.order_when_durable(ticket);
        } else {
            self.order_done(ticket, Err(OrderRefusal::WrongState));
        }
    }

    /// Peers whose resync had ended as the leg here was lost stand in for it, or are in step if it is back.
    pub(super) fn stand_in_step(&mut self) {
        for peer in 0..self.peers.len() {
            let link = &self.peers[peer];
            let Some(flush) = link.stand_in_after else { continue };
            let (durable, state) = (link.flush.reached(flush), link.state);
            let complete = self.leg_is_complete();
            let ready = complete || !self.is_primary() || (durable && !self.is_sent_and_held(peer));
            if self.has_failed() || !ready {
                continue;
            }
            self.peers[peer].stand_in_after = None;
            match state {
                PeerState::SyncSource if !self.is_primary() => self.ask_handshake(peer),
                PeerState::SyncSource if complete => self.after_sync_end(peer),
                PeerState::SyncSource => self.stand_in(peer),
                _ => {}
            }
        }
    }

    /// The peer has not answered yet what is held for another one, or what another one had that is lost with all who had the
    /// data, and would go to it (again, and durably) instead.
    fn is_sent_and_held(&self, peer: usize) -> bool {
        let nobody = self.nobody_has_data();
        let waits = |request: &Request| request.held != 0 || (nobody && !request.replied);
        let mut requests = self.requests.iter().flatten();
        requests.any(|request| waits(request) && (request.queued | request.in_flight) & bit(peer) != 0)
    }

    fn stand_in(&mut self, peer: usize) {
        self.close_progress(peer);
        self.set_peer_state(peer, PeerState::SyncTarget);
        self.refresh_modes();
        self.rely_on(bit(peer));
        self.tell_unless_renamed(peer);
        self.start_fetch(peer);
        self.resend_held(peer);
        self.resume_flushes(peer);
        self.resume_suspended();
    }

    /// The peer has everything that is here, and sees our requests in order.
    fn stands_in(&self, peer: usize) -> bool {
        let link = &self.peers[peer];
        let in_step = link.state == PeerState::Established && link.dirty.is_empty();
        link.is_stream() && (in_step || link.state == PeerState::SyncTarget)
    }

    /// The image may be the only one with what was answered, and this node would fetch over it.
    fn is_all_there_is(&self) -> bool {
        let unconfirmed = self.leg.confirmed.is_some() || self.leg.withdrawn;
        self.is_primary() && self.superblock.is_withheld() && unconfirmed
    }

    /// A peer has everything durably, and the image is taken again; or none will, and it counts after a demotion.
    pub(super) fn attaching_step(&mut self) {
        let Some(ticket) = self.leg.attaching else {
            return;
        };
        let waits = self.is_all_there_is();
        if waits && !self.nobody_has_data() && self.closed().is_none() {
            return;
        }
        self.leg.attaching = None;
        if waits {
            let refusal = self.closed().map_or(OrderRefusal::Withheld, |_| OrderRefusal::Closed);
            self.order_done(ticket, Err(refusal));
        } else {
            self.order_attach(ticket, false);
        }
    }

    pub(super) fn order_attach(&mut self, ticket: Ticket, replaced: bool) {
        let here = self.superblock.disk == LocalDisk::Diskless;
        let offered = self.leg.offered.take();
        if !here || self.leg.attaching.is_some() || self.leg.metadata_dead || self.is_image_busy() {
            return self.order_done(ticket, Err(OrderRefusal::WrongState));
        }
        if self.is_all_there_is() && !replaced {
            (self.leg.attaching, self.leg.offered) = (Some(ticket), offered);
            return;
        }
        if let Some(image) = offered {
            let size = self.superblock.image.size;
            self.superblock.image = ImageIdentity { size, ..image };
        }
        if replaced {
            for peer in 0..self.peers.len() {
                self.doubt(peer);
                // What was copied before is gone.
                self.peers[peer].record.sync = 0;
            }
        }
        self.local.set_absent(false);
        self.leg.flush_failed = false;
        for flush in &mut self.flushes {
            // What it covers is on the peers; the image lacks it, and is known to.
            flush.local = 0;
        }
        if self.is_primary() && self.superblock.whole {
            // Nothing is answered that it lacks before the metadata says that it is not whole any more (I10).
            self.leg_gate = Gate::Wanted;
        }
        self.superblock.whole &= !replaced && self.role == Role::Secondary;
        self.set_disk(self.superblock.taken_again());
        self.leg.taking = true;
        self.when_durable(Then::Taken(ticket));
        if self.is_primary() {
            self.tell_leg();
            for peer in 0..self.peers.len() {
                if self.peers[peer].state == PeerState::SyncTarget {
                    self.start_fetch(peer);
                }
            }
            if self.leg_is_complete() {
                self.announce_all();
            }
        }
    }

    /// The metadata says what the image lacks, or that it was given up at least: a crash does not find it called whole (I10).
    pub(super) fn image_taken(&mut self, ticket: Ticket) {
        self.leg.taking = false;
        self.order_done(ticket, Ok(()));
        for peer in 0..self.peers.len() {
            self.fetch(peer);
        }
    }

    /// Another image is there in the place of the one that was given up. It is this volume's once an
    /// [`Order::Attach`](crate::event::Order) is carried out, and not before: a superblock that names it while what it lacks
    /// is not marked would have it taken for the old one after a restart.
    pub fn offer_image(&mut self, image: ImageIdentity) {
        self.leg.offered = Some(image);
    }
}
