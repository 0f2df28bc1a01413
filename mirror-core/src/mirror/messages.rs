//! What the mirrors of one volume on two nodes say to each other.
//!
//! ```text
//!  Primary            Secondary
//!  Generation ------> made durable ------> GenerationDone
//!  source             target
//!  SyncBegin -------> Inconsistent, durably ------> SyncBeginDone     (no handshake has announced the resync)
//!  copies ...
//!  SyncEnd ---------> UpToDate under the source's names, durably ------> SyncEndDone
//!  Primary, target    source
//!  InStep ----------> clean
//!  AlsoInStep ------> what this node and a third one have is the same
//!  Leg -------------> what the Primary's own leg lacks is noted
//! ```

use alloc::string::String;
use alloc::vec::Vec;

use super::Mirror;
use super::orders::Then;
use super::peer::{Begun, Peer, Told};
use crate::event::{ConnectionId, LinkKind, Output, PeerIndex, SyncPlan, VolumeMessage};
use crate::identity::{Generation, Role};
use crate::sabotage::Sabotage;
use crate::state::{LocalDisk, PeerState};

impl Mirror {
    pub(super) fn hear(&mut self, peer: PeerIndex, connection: ConnectionId, message: VolumeMessage) {
        let at = usize::from(peer.0);
        if !self.knows(peer) || self.has_failed() {
            return;
        }
        if self.is_early(at, connection) {
            // The other node's resource was quicker: what its mirror says and sends counts from here on.
            let begins = matches!(message, VolumeMessage::SyncBegin);
            let plan = if begins { SyncPlan::Target } else { SyncPlan::InStep };
            self.peer_up(peer, connection, LinkKind::Stream, plan);
        }
        if self.peers[at].connection != Some(connection) {
            return;
        }
        if self.peers[at].lacks {
            return self.ask_handshake(at);
        }
        match message {
            VolumeMessage::Generation {
                current,
                earlier,
                in_step,
            } => self.hear_generation(at, connection, current, &earlier, &in_step),
            VolumeMessage::GenerationDone { current } => self.generation_done(at, current),
            VolumeMessage::SyncBegin => self.hear_sync_begin(at, connection),
            VolumeMessage::SyncBeginDone => self.sync_begun(at),
            VolumeMessage::SyncEnd { current, history } => self.hear_sync_end(at, connection, current, history),
            VolumeMessage::SyncEndDone { current } => self.sync_ended(at, current),
            VolumeMessage::InStep { current } => self.hear_in_step(at, current),
            VolumeMessage::AlsoInStep { node, current } => self.hear_also_in_step(at, &node, current),
            VolumeMessage::Leg { disk } => self.hear_leg(at, disk),
        }
    }

    /// A change that came from a peer is not made here. Its sender will hear of it, and may have said already that this leg
    /// has everything, or has the data under a new name: such a word does not count any more. (It may have come on a
    /// connection that `PeerUp` has not named yet.)
    pub(super) fn missed_change(&mut self) {
        if self.role == Role::Secondary {
            let partners = self.peers.iter_mut().filter(|link| link.link == LinkKind::Stream);
            partners.for_each(|link| link.lacks = true);
        }
    }

    /// A connection that `PeerUp` has not named yet.
    fn is_early(&self, peer: usize, connection: ConnectionId) -> bool {
        let link = &self.peers[peer];
        let is_new = link.latest.is_none_or(|latest| connection > latest);
        self.role == Role::Secondary && link.connection.is_none() && is_new
    }

    /// In the order of the stream, after everything said and sent before.
    pub(super) fn say(&mut self, peer: PeerIndex, connection: ConnectionId, message: VolumeMessage) {
        if self.peers[usize::from(peer.0)].connection == Some(connection) {
            self.emit(Output::ToPeer {
                peer,
                connection,
                message,
            });
        }
    }

    pub(super) fn say_now(&mut self, peer: usize, message: VolumeMessage) {
        if let Some(connection) = self.peers[peer].connection {
            self.say(PeerIndex(peer as u8), connection, message);
        }
    }

    /// The Primary gives the data a new name.
    fn hear_generation(
        &mut self,
        peer: usize,
        connection: ConnectionId,
        current: Generation,
        earlier: &[Generation],
        in_step: &[String],
    ) {
        let listens = matches!(self.peers[peer].state, PeerState::Established | PeerState::SyncSource);
        if self.role == Role::Primary || !listens || current == 0 {
            return self.ask_handshake(peer);
        }
        self.stop_pushing(peer);
        // Who became Primary was told of what may be lost, and went on.
        self.superblock.answers_lost = false;
        // Whatever it is called: what comes from a Primary is not tracked here.
        self.follow(peer, in_step);
        self.cover_data();
        if self.superblock.generation != current || self.superblock.fresh {
            self.superblock.rename(current);
            if !self.superblock.fresh {
                self.superblock.remember_all(earlier);
            }
            self.superblock.fresh = false;
            self.persisting.superblock_wanted = true;
        }
        self.forget_primary();
        if self.peers[peer].state == PeerState::Established && self.peers[peer].dirty.is_empty() {
            self.peer_in_step(peer);
            if self.superblock.disk == LocalDisk::Outdated {
                // The Primary has found that nothing is missing.
                self.set_disk(LocalDisk::UpToDate);
            }
        }
        let done = VolumeMessage::GenerationDone { current };
        self.when_durable(Then::Say(PeerIndex(peer as u8), connection, done));
    }

    /// There is a Primary, which alone says what is copied to whom, or this leg is about to be overwritten itself.
    pub(super) fn stop_pushing(&mut self, teacher: usize) {
        for at in 0..self.peers.len() {
            if self.peers[at].state == PeerState::SyncSource && !self.peers[at].passive {
                self.peers[at].passive = true;
                if at != teacher {
                    self.ask_handshake(at);
                }
            }
        }
    }

    /// A resync to here begins that no handshake has announced.
    fn hear_sync_begin(&mut self, peer: usize, connection: ConnectionId) {
        if self.role == Role::Primary {
            return self.ask_handshake(peer);
        }
        self.set_peer_state(peer, PeerState::SyncTarget);
        let was_begun = self.superblock.disk == LocalDisk::Inconsistent && self.is_identity_durable();
        let noted = self.peers[peer].record.sync;
        self.begin_target(peer);
        if noted != 0 {
            // At the handshake, by both: they may have met again since.
            self.peers[peer].record.sync = noted;
        }
        if !was_begun {
            // What follows in the stream is not applied before this is durable.
            self.beginning += 1;
        }
        let index = PeerIndex(peer as u8);
        if was_begun {
            self.say(index, connection, VolumeMessage::SyncBeginDone);
        } else {
            self.when_durable(Then::Begun(index, connection));
        }
    }

    pub(super) fn target_begun(&mut self, peer: PeerIndex, connection: ConnectionId) {
        self.beginning -= 1;
        self.say(peer, connection, VolumeMessage::SyncBeginDone);
        self.resume_suspended();
    }

    /// Tell the target of a resync that it is one, before anything newer than what it lacks is sent.
    pub(super) fn begin_sync(&mut self, peer: usize) {
        let link = &mut self.peers[peer];
        if !link.is_stream() || link.begun != Begun::No {
            return;
        }
        if self.peers[peer].record.sync == 0 {
            self.note_sync(peer);
        }
        if self.keeps(Sabotage::SyncBegin) {
            self.peers[peer].begun = Begun::Asked;
            self.say_now(peer, VolumeMessage::SyncBegin);
        } else {
            self.peers[peer].begun = Begun::Yes;
        }
    }

    fn sync_begun(&mut self, peer: usize) {
        if self.peers[peer].begun == Begun::Asked {
            self.peers[peer].begun = Begun::Yes;
            self.resync(peer);
        }
    }

    /// Every block that was dirty is durable on the peer: it may call its data what it is called here. False: not yet,
    /// the name is not durable here.
    pub(super) fn sync_end(&mut self, peer: usize) -> bool {
        if self.peers[peer].begun != Begun::Yes || self.peers[peer].ended.is_some() || !self.is_identity_durable() {
            return false;
        }
        assert!(
            self.peers[peer].dirty.is_empty(),
            "I9: a peer with dirty blocks is not in step"
        );
        let current = self.superblock.generation;
        let link = &mut self.peers[peer];
        // What comes after this in the stream finds it a target no more.
        (link.ended, link.begun, link.misses_leg) = (Some(current), Begun::No, false);
        if self.role == Role::Primary {
            // It may hold the present name from here on.
            link.told = Told::Sent(current);
        }
        let history = self.superblock.history.clone();
        self.say_now(peer, VolumeMessage::SyncEnd { current, history });
        true
    }

    /// The source has sent everything, durably.
    fn hear_sync_end(&mut self, peer: usize, connection: ConnectionId, current: Generation, history: Vec<Generation>) {
        if self.role == Role::Primary || self.peers[peer].state != PeerState::SyncTarget || current == 0 {
            return self.ask_handshake(peer);
        }
        self.follow(peer, &[]);
        self.take_names(current, history);
        self.forget_other_lines();
        if self.superblock.disk != LocalDisk::Diskless {
            self.set_disk(LocalDisk::UpToDate);
        }
        // What an operator has given up for another node is not here any more, whatever it is called.
        let others = self.peers.iter_mut().enumerate().filter(|(at, _)| *at != peer);
        others.for_each(|(_, link)| link.record.given_up = 0);
        self.now_clean(peer);
        let done = VolumeMessage::SyncEndDone { current };
        self.when_durable(Then::Say(PeerIndex(peer as u8), connection, done));
    }

    /// Neither side lacks anything of the other's.
    fn now_clean(&mut self, peer: usize) {
        let instance = self.rng.identifier() as u32;
        self.peers[peer].forget_dirty(instance);
        self.peers[peer].record.sync = 0;
        self.peer_in_step(peer);
        self.peers[peer].passive = false;
        self.set_peer_state(peer, PeerState::Established);
        self.persisting.superblock_wanted = true;
        self.refresh_modes();
    }

    /// The target has everything up to the end it was told of, under that name.
    fn sync_ended(&mut self, peer: usize, current: Generation) {
        let link = &mut self.peers[peer];
        if link.ended.take() != Some(current) {
            return;
        }
        if link.told == Told::Sent(current) {
            link.told = Told::Known;
        }
        let is_newest = current == self.superblock.generation;
        link.record.generation = if is_newest { 0 } else { current };
        (link.record.synced, link.record.sync) = (true, 0);
        self.persisting.superblock_wanted = true;
        if self.peers[peer].state == PeerState::SyncSource && self.peers[peer].begun == Begun::No {
            self.after_sync_end(peer);
        } else {
            self.settle_name(peer);
        }
    }

    /// Its resync has ended, under some name.
    fn settle_name(&mut self, peer: usize) {
        if self.peers[peer].record.generation == 0 {
            self.announce_in_step(peer);
            self.open_gates();
        } else if self.peers[peer].state == PeerState::Established {
            self.tell_generation(peer);
        }
    }

    /// Whatever is dirty now was found, or written, since the end was told.
    pub(super) fn after_sync_end(&mut self, peer: usize) {
        if self.is_primary() && !self.leg_is_complete() {
            // It has all that was here then, and got all that was written since: it is the leg here that lacks something.
            self.peers[peer].stand_in_after = Some(self.peers[peer].flush.request());
            self.issue_flushes();
        } else if self.peers[peer].dirty.is_empty() {
            self.resync_finished(peer);
        } else {
            // Another resync, and another end.
            self.start_resync(peer);
        }
        self.settle_name(peer);
    }

    /// The Primary was a target, and has fetched everything.
    fn hear_in_step(&mut self, peer: usize, current: Generation) {
        if self.role == Role::Primary || current != self.superblock.generation {
            return self.ask_handshake(peer);
        }
        if self.superblock.disk == LocalDisk::Outdated {
            // The Primary has it all from here: nothing newer is anywhere.
            self.set_disk(LocalDisk::UpToDate);
        }
        self.now_clean(peer);
    }

    /// A partner is in step: all the others that are hear it, and it hears of them, so that none keeps blocks of the
    /// other for different that this node has compared with both.
    pub(super) fn announce_in_step(&mut self, peer: usize) {
        if self.role != Role::Primary || !self.peers[peer].is_settled() {
            return;
        }
        self.announce_leg(peer);
        let current = self.superblock.generation;
        for other in 0..self.peers.len() {
            if other != peer && self.peers[other].is_settled() {
                for (to, about) in [(other, peer), (peer, other)] {
                    let node = self.peers[about].config.name.clone();
                    self.say_now(to, VolumeMessage::AlsoInStep { node, current });
                }
            }
        }
    }

    /// The leg here has everything (again).
    pub(super) fn announce_all(&mut self) {
        for peer in 0..self.peers.len() {
            self.announce_in_step(peer);
        }
    }

    /// The leg here has everything again. What a partner noted when it was gone does not hold any more.
    fn announce_leg(&mut self, peer: usize) {
        let current = self.superblock.generation;
        if self.leg_is_complete() && core::mem::take(&mut self.peers[peer].misses_leg) {
            self.say_now(peer, VolumeMessage::InStep { current });
        }
    }

    /// Another node has what the Primary has, as this one does. What a crash of the Primary leaves different between the
    /// two is what a promotion doubts (I9).
    fn hear_also_in_step(&mut self, peer: usize, node: &str, current: Generation) {
        let in_step = self.peers[peer].state == PeerState::Established && self.peers[peer].dirty.is_empty();
        let complete = self.role == Role::Secondary && self.superblock.disk == LocalDisk::UpToDate && in_step;
        let named = |link: &Peer| link.config.name == node && !link.removed;
        let Some(other) = self.peers.iter().position(named).filter(|&other| other != peer) else {
            return;
        };
        let copying = matches!(self.peers[other].state, PeerState::SyncSource | PeerState::SyncTarget);
        if !complete || copying || current != self.superblock.generation {
            return;
        }
        let link = &self.peers[other];
        if link.record.generation != 0 || link.record.sync != 0 || !link.dirty.is_empty() {
            let instance = self.rng.identifier() as u32;
            self.peers[other].forget_dirty(instance);
            self.peer_in_step(other);
            self.persisting.superblock_wanted = true;
        }
    }

    /// The Primary's own leg is gone, or back: what it writes from here on is not on it.
    fn hear_leg(&mut self, peer: usize, disk: LocalDisk) {
        if self.role == Role::Primary || disk != LocalDisk::Diskless {
            return;
        }
        if self.peers[peer].record.generation == 0 {
            self.peers[peer].record.generation = self.superblock.generation;
        }
        self.doubt(peer);
        self.persisting.superblock_wanted = true;
    }
}
