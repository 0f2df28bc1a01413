//! New names for the data: before a reply that some peer's data does not back, and at every promotion (I4, I7).
//!
//! A new generation is durable here first; until a partner that is in step has it durably too, its record says that it
//! holds the one before. So whatever dies in between, the next handshake finds who has what.

use alloc::string::String;
use alloc::vec::Vec;

use super::Mirror;
use super::peer::{Gate, Peer, Told};
use super::request::PeerMask;
use crate::config::AckMode;
use crate::event::{Event, LinkKind, Output, PeerIndex, VolumeMessage};
use crate::identity::{EARLIER_MAX, Generation, Role};
use crate::range::BLOCK_BYTES;
use crate::sabotage::Sabotage;
use crate::state::{LocalDisk, PeerState};

impl Mirror {
    /// A peer that lacks something holds an earlier generation; the data here gets a new name before a reply that the
    /// peer's data does not back (I4).
    pub(super) fn need_generation(&mut self, peer: usize) {
        if self.role != Role::Primary || self.peers[peer].removed {
            return;
        }
        if self.nobody_has_data() {
            return self.withdraw_name(peer);
        }
        let current = self.superblock.generation;
        let link = &mut self.peers[peer];
        let told = core::mem::replace(&mut link.told, Told::Known);
        if link.record.generation == 0 {
            link.record.generation = current;
            link.gate = Gate::Wanted;
            let next = self.rng.identifier_after(current);
            return self.name_data(next);
        }
        match told {
            Told::Known => {}
            // It has not heard of the new name: its record stands as it is, and has to be durable.
            Told::Unsent | Told::Saving => {
                link.gate = Gate::Wanted;
                self.persisting.superblock_wanted = true;
            }
            // It may hold the new name already: what comes now needs another one.
            Told::Sent(_) => {
                link.gate = Gate::Wanted;
                if self.keeps(Sabotage::LostAfterTold) {
                    let next = self.rng.identifier_after(current);
                    self.name_data(next);
                }
            }
        }
    }

    /// The data gets another name though no peer stays behind for it (the leg here does): no reply before it is durable.
    pub(super) fn renew_generation(&mut self) {
        let next = self.rng.identifier_after(self.superblock.generation);
        self.name_data(next);
    }

    /// The data here is called `generation` from now on; partners that are in step are told once it is durable.
    pub(super) fn name_data(&mut self, generation: Generation) {
        let previous = self.superblock.generation;
        self.rename(generation);
        if self.is_primary() && !self.leg_is_complete() && !self.is_promoting() {
            // Those that have everything may all be lost before one of them has it.
            self.leg.confirmed.get_or_insert(previous);
            self.leg_gate = Gate::Wanted;
        }
        for link in &mut self.peers {
            if link.is_in_step() {
                if link.record.generation == 0 {
                    link.record.generation = previous;
                }
                link.told = Told::Unsent;
            }
        }
        self.persisting.superblock_wanted = true;
    }

    /// A partner has come that has everything. Out of sight it may have given its data to one that is away now, and with
    /// them their name: what that one misses from here on needs another name.
    pub(super) fn partner_is_back(&mut self, peer: usize) {
        if !self.may_have_passed_on(peer) {
            return self.tell_unless_renamed(peer);
        }
        let next = self.rng.identifier_after(self.superblock.generation);
        self.name_data(next);
    }

    /// The same of one that had everything, and is to be copied to: it may have given its data away before they were given up.
    pub(super) fn target_is_back(&mut self, peer: usize) {
        if self.peers[peer].record.generation == 0 && self.may_have_passed_on(peer) {
            self.need_generation(peer);
        }
    }

    /// Somebody is away that is known by an earlier name; what goes without it waits for the name that comes now.
    fn may_have_passed_on(&mut self, peer: usize) -> bool {
        let stream = self.role == Role::Primary && self.peers[peer].is_stream();
        if !stream || !self.keeps(Sabotage::PassedOn) {
            return false;
        }
        let mut any = false;
        for (at, link) in self.peers.iter_mut().enumerate() {
            let partner = at != peer && link.link == LinkKind::Stream && !link.removed;
            if partner && link.record.generation != 0 && !link.is_in_step() {
                (link.gate, any) = (Gate::Wanted, true);
            }
        }
        any
    }

    /// A partner has come that is in step: it hears the present name, whatever was said before.
    pub(super) fn tell_generation(&mut self, peer: usize) {
        if self.role == Role::Primary && self.peers[peer].is_stream() {
            self.peers[peer].told = Told::Unsent;
            if self.is_identity_durable() {
                self.peers[peer].told = Told::Saving;
                self.send_generation(peer);
            } else {
                self.persisting.superblock_wanted = true;
            }
        }
    }

    /// What the superblock says now is on stable storage.
    pub(super) fn is_identity_durable(&self) -> bool {
        !self.persisting.superblock_wanted && !self.persisting.is_saving_superblock()
    }

    /// A superblock is being put out: it holds every change of identity made so far.
    pub(super) fn saving_generation(&mut self) {
        let gates = self.peers.iter_mut().map(|link| &mut link.gate);
        for gate in gates.chain([&mut self.leg_gate]) {
            if *gate == Gate::Wanted {
                *gate = Gate::InTransaction;
            }
        }
        for link in &mut self.peers {
            if link.told == Told::Unsent {
                link.told = Told::Saving;
            }
        }
    }

    /// The superblock is durable: partners are told (I10), and gates that wait for nobody else open.
    pub(super) fn generation_durable(&mut self) {
        let gates = self.peers.iter_mut().map(|link| &mut link.gate);
        for gate in gates.chain([&mut self.leg_gate]) {
            if *gate == Gate::InTransaction {
                *gate = Gate::Told;
            }
        }
        for peer in 0..self.peers.len() {
            if self.peers[peer].told == Told::Saving {
                self.send_generation(peer);
            }
        }
        self.open_gates();
        for peer in 0..self.peers.len() {
            // The end of a resync waits for the name it is told with.
            self.resync(peer);
        }
    }

    fn send_generation(&mut self, peer: usize) {
        let Some(connection) = self.peers[peer].connection else {
            return;
        };
        let current = self.superblock.generation;
        self.peers[peer].told = Told::Sent(current);
        let message = VolumeMessage::Generation {
            current,
            earlier: self.superblock.history.iter().take(EARLIER_MAX).copied().collect(),
            in_step: self.in_step_by_name(peer),
        };
        self.emit(Output::ToPeer {
            peer: PeerIndex(peer as u8),
            connection,
            message,
        });
    }

    /// Partners, beside this one, that have what the present generation stands for.
    fn in_step_by_name(&self, beside: usize) -> Vec<String> {
        let has_it = |(at, link): &(usize, &Peer)| {
            let partner = link.link == LinkKind::Stream && !link.removed && *at != beside;
            partner && (link.record.generation == 0 || link.is_in_step())
        };
        let names = self.peers.iter().enumerate().filter(has_it);
        names.map(|(_, link)| link.config.name.clone()).collect()
    }

    /// A partner has the generation durably.
    pub(super) fn generation_done(&mut self, peer: usize, current: Generation) {
        if self.peers[peer].told != Told::Sent(current) || current != self.superblock.generation {
            return;
        }
        self.peers[peer].told = Told::Known;
        if self.peers[peer].state == PeerState::SyncTarget && self.leg.confirmed.take().is_some() {
            self.resume_suspended();
        }
        self.peer_in_step(peer);
        self.announce_in_step(peer);
        self.open_gates();
    }

    /// Gates open when every partner that was told has answered, or is lost: replies that waited go out (I4).
    pub(super) fn open_gates(&mut self) {
        let waits = self.peers.iter().any(|link| link.told != Told::Known);
        if waits && self.keeps(Sabotage::GenerationAlone) {
            return;
        }
        let generation = self.superblock.generation;
        for at in 0..self.peers.len() {
            if self.peers[at].gate == Gate::Told {
                self.peers[at].gate = Gate::Open;
                self.event(Event::Degraded {
                    peer: PeerIndex(at as u8),
                    generation,
                });
            }
        }
        if self.leg_gate == Gate::Told {
            self.open_leg_gate();
        }
        for id in self.ids(|request| request.gated) {
            self.advance(id);
        }
        self.advance_flushes();
    }

    /// A peer has everything durably, by the new name. Before anything is answered without the image here, the metadata
    /// says that it is not whole any more.
    fn open_leg_gate(&mut self) {
        let left = self.leg.left.take_if(|_| !self.leg.withdrawn);
        if left.is_some() || (self.superblock.whole && !self.leg.withdrawn) {
            self.superblock.whole = false;
            self.superblock.left_at = left.unwrap_or(self.superblock.left_at);
            self.persisting.superblock_wanted = true;
            self.leg_gate = Gate::Wanted;
        } else {
            self.leg_gate = Gate::Open;
            self.leg.confirmed = None;
        }
    }

    /// Peers whose new generation is not durable yet; or which get none before somebody has the data again, and may have the
    /// name of now.
    fn closed_gates(&self) -> PeerMask {
        let nobody = self.nobody_has_data();
        let has_name = |link: &Peer| link.record.generation == 0 || link.told != Told::Known;
        let unnamed = |link: &Peer| nobody && link.connection.is_none() && !link.removed && has_name(link);
        super::peer::mask(&self.peers, |link| link.gate != Gate::Open || unnamed(link))
    }

    /// Gates a reply waits for that goes without the peers in its own mask.
    pub(super) fn reply_gates(&self) -> ReplyGates {
        // A Secondary answers its Primary, whose gates they are.
        if self.has_failed() || self.role == Role::Secondary || !self.keeps(Sabotage::I4) {
            return ReplyGates::default();
        }
        ReplyGates {
            peers: self.closed_gates(),
            leg: self.leg_gate != Gate::Open || self.leg.withdrawn,
        }
    }

    /// Nothing waits any more for a partner to hear of a name: this node is not Primary now.
    pub(super) fn forget_gates(&mut self) {
        self.leg_gate = Gate::Open;
        (self.leg.confirmed, self.leg.left, self.leg.withdrawn) = (None, None, false);
        for link in &mut self.peers {
            (link.gate, link.told) = (Gate::Open, Told::Known);
        }
    }

    /// The peer has everything, durably: it holds this generation.
    pub(super) fn peer_in_step(&mut self, peer: usize) {
        let link = &mut self.peers[peer];
        let known = link.record.generation == 0 && link.record.synced && !link.record.base_dirty;
        if (known && link.record.sync == 0) || link.told != Told::Known {
            return;
        }
        link.record.sync = 0;
        link.record.generation = 0;
        link.record.synced = true;
        self.persisting.superblock_wanted = true;
    }

    /// The data here is, from now on, what another node calls `generation`: no peer but `teacher`, and those that it counts
    /// `in_step`, is known to have it. What the others lack, or those that lacked something, nobody knows from here on. A
    /// peer that the teacher does not speak of may be none of its own: it hears nothing from it, and gets nothing.
    pub(super) fn follow(&mut self, teacher: usize, in_step: &[String]) {
        let held = self.superblock.generation;
        let mut left_behind = Vec::new();
        for at in 0..self.peers.len() {
            let link = &self.peers[at];
            if at == teacher || link.removed {
                continue;
            }
            let plain = link.link == LinkKind::Nbd;
            let stays = !in_step.contains(&link.config.name) && self.kept.keeps(Sabotage::UnlistedDoubted);
            let lacks = link.record.generation != 0 || link.record.sync != 0 || !link.dirty.is_empty();
            if !plain && !stays && !lacks {
                continue;
            }
            if self.peers[at].record.generation == 0 {
                if self.peers[at].state == PeerState::Established {
                    left_behind.push(at);
                }
                self.peers[at].record.generation = held;
            }
            self.doubt(at);
        }
        self.persisting.superblock_wanted = true;
        if !self.keeps(Sabotage::BehindMeetsAnew) {
            return;
        }
        for at in left_behind {
            // Else it could become Primary with older data, and overwrite this node, which takes it to be in step.
            self.ask_handshake(at);
        }
    }

    /// Where the peer's data differ nobody knows: everything is dirty.
    pub(super) fn doubt(&mut self, peer: usize) {
        let dirty = &self.peers[peer].dirty;
        let full = dirty.count() == self.config.size.div_ceil(BLOCK_BYTES) && dirty.changed().is_empty();
        if self.keeps(Sabotage::Doubt) && !full {
            let instance = self.rng.identifier() as u32;
            self.peers[peer].fill(instance);
        }
    }

    /// Nobody is Primary here any more, and this node does not ask to be again by itself.
    pub(super) fn forget_primary(&mut self) {
        if self.role == Role::Secondary {
            (self.superblock.primary, self.superblock.resume) = (false, false);
        }
    }

    /// The state of the image changes; durable with the next superblock.
    pub(super) fn set_disk(&mut self, disk: LocalDisk) {
        if self.superblock.disk != disk {
            self.superblock.disk = disk;
            if disk == LocalDisk::UpToDate {
                self.superblock.left_at = 0;
                self.leg.left = None;
            }
            self.persisting.superblock_wanted = true;
            self.event(Event::Disk(disk));
            self.refresh_modes();
        }
    }

    /// Which peers a reply waits for: those of mode `sync`, and every one while the leg here is not complete.
    pub(super) fn refresh_modes(&mut self) {
        let incomplete = self.superblock.disk != LocalDisk::UpToDate || self.leg.leaving.is_some();
        let incomplete = incomplete && self.keeps(Sabotage::ForcedSync);
        for link in &mut self.peers {
            link.forced_sync = incomplete || link.state == PeerState::SyncTarget;
        }
        let waited_for = self.sync_mask;
        self.sync_mask = super::peer::mask(&self.peers, Peer::is_sync);
        self.wait_no_more(waited_for & !self.sync_mask);
        let acks_wait = self.every_partner_is_sync();
        if self.role == Role::Primary && self.superblock.acks_wait && !acks_wait {
            self.superblock.acks_wait = false;
            self.persisting.superblock_wanted = true;
        }
    }

    /// No write is answered before every partner that is there has it, by the configuration.
    pub(super) fn every_partner_is_sync(&self) -> bool {
        let mut partners = self
            .peers
            .iter()
            .filter(|link| link.link == LinkKind::Stream && !link.removed);
        partners.all(|link| link.config.mode == AckMode::Sync)
    }
}

/// Which gates are closed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReplyGates {
    peers: PeerMask,
    leg: bool,
}

impl ReplyGates {
    /// A reply that goes without these peers has to wait.
    pub(super) fn hold(self, degraded: PeerMask) -> bool {
        self.leg || degraded & self.peers != 0
    }
}
