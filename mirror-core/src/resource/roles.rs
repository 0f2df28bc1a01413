//! The role of this node, what others are told of it and say of theirs, and what hosts may do.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::config::{CONSENT_STANDS, HANDBACK};
use super::demote::Demotion;
use super::event::{Answer, CommandId, Event, HostAccess, Output, Volumes};
use super::peer::{Joined, Link};
use super::promote::Promotion;
use super::{AfterRestart, Resource, ResourceConfig, index};
use crate::event::OrderRefusal;
use crate::identity::Role;
use crate::sabotage::Sabotage;
use crate::state::LocalDisk;
use crate::stream::Control;

/// A change of role under way; one at a time.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Promotion(Promotion),
    Demotion(Demotion),
}

/// What is known of who was Primary last.
#[derive(Clone, Debug)]
pub(super) struct Past {
    /// This node, as far as it knows.
    pub mine: bool,
    /// That was in this life of the daemon: nobody can have taken over without this node's knowing why it may have.
    pub this_life: bool,
    /// Another node.
    pub last_primary: Option<usize>,
    /// It was seen to be Primary, and nobody is known or likely to have been since.
    pub sure: bool,
    /// Who it was if the last one, which was allowed to take the role, did not; `Some(None)`: nobody knows.
    pub unless_taken: Option<Option<usize>>,
    /// Answered writes may be nowhere any more: see `NodeIdentity`.
    pub answers_lost: bool,
    /// It gave the role up in order, while this node was in step with it: whoever else was had everything then.
    pub left_in_order: bool,
    /// The operator demoted this node: it does not become Primary by itself.
    pub rests: bool,
    /// This node takes the role (back) from then on, once all are together and nobody has it.
    pub take_back: Option<Duration>,
    /// When this node last became Primary, in seconds since 1970.
    pub primary_since: u64,
}

impl Past {
    pub fn new(config: &ResourceConfig) -> Self {
        let resumes = config.was_primary && config.after_restart == AfterRestart::Resume;
        Self {
            mine: config.was_primary,
            this_life: false,
            last_primary: None,
            sure: false,
            unless_taken: None,
            answers_lost: config.answers_lost,
            left_in_order: false,
            rests: false,
            take_back: resumes.then_some(Duration::ZERO),
            primary_since: config.primary_since,
        }
    }
}

impl Resource {
    /// What has become possible for a change of role, or is overdue; or whether one is due by itself.
    pub(super) fn step_change(&mut self, world: &dyn Volumes) {
        match &self.change {
            Some(Change::Promotion(_)) => self.step_promotion(world),
            Some(Change::Demotion(_)) => self.step_demotion(world),
            None => self.step_idle(world),
        }
    }

    pub(super) fn change_timeout(&self) -> Option<Duration> {
        match &self.change {
            Some(Change::Promotion(promotion)) => promotion.timeout(),
            Some(Change::Demotion(demotion)) => demotion.timeout(),
            None => self.past.take_back.filter(|at| *at > self.now),
        }
    }

    /// Mirrors are being told of a new role: what identifiers say is between two states.
    pub(super) fn is_giving_orders(&self) -> bool {
        match &self.change {
            Some(Change::Promotion(promotion)) => promotion.is_ordering(),
            Some(Change::Demotion(demotion)) => demotion.is_ordering(),
            None => false,
        }
    }

    /// Somebody is becoming Primary, as far as is known here: between the old Primary and the new one there is none.
    pub(super) fn is_role_moving(&self) -> bool {
        let consented = |at: usize| {
            self.peers[at]
                .consented
                .is_some_and(|at| self.now < at + CONSENT_STANDS)
        };
        self.change.is_some() || self.connected_partners().any(consented)
    }

    /// A node that mirrors to plain servers only, or was Primary before, needs no operator. One whose last partner was removed
    /// while it was Secondary does: that may be Primary, and go on.
    fn step_idle(&mut self, world: &dyn Volumes) {
        if self.role == Role::Primary || self.past.rests || !self.knows_kinds() {
            return;
        }
        let alone = self.partners().next().is_none();
        let may = if alone {
            !self.had_partners()
        } else {
            self.may_take_back(world)
        };
        if !may {
            return;
        }
        if self.permit(world, alone, None).is_ok() {
            self.begin_promotion(None, alone, None, world);
        }
    }

    /// It had the role, everybody is there, and nobody has it.
    fn may_take_back(&self, world: &dyn Volumes) -> bool {
        let due = self.past.take_back.is_some_and(|at| self.now >= at);
        let together = |at: usize| {
            let peer = &self.peers[at];
            peer.joined().is_some_and(Joined::is_ready) && peer.role == Role::Secondary && peer.consented.is_none()
        };
        let fresh = |volume: usize| world.identity(volume, index(0)).fresh;
        due && self.partners().all(together) && !self.live_volumes().all(fresh)
    }

    /// An attempt to take the role without an operator has failed.
    pub(super) fn put_off_take_back(&mut self) {
        if self.past.take_back.is_some() {
            self.past.take_back = Some(self.now + HANDBACK);
        }
    }

    /// A mirror has carried out an order of a change of role, or not.
    pub(super) fn role_order_done(&mut self, volume: usize, outcome: Result<(), OrderRefusal>) {
        match &mut self.change {
            Some(Change::Promotion(promotion)) => promotion.order_done(volume, outcome),
            Some(Change::Demotion(demotion)) => demotion.order_done(volume, outcome),
            None => {}
        }
    }

    /// The mirrors take too long for an operator to wait; the change goes on.
    pub(super) fn answer_late(&mut self) {
        let by = match &mut self.change {
            Some(Change::Promotion(promotion)) => promotion.by.take(),
            Some(Change::Demotion(demotion)) => demotion.by.take(),
            None => None,
        };
        let text = "the volumes have not followed in time, and still may: see `blockmirror status`";
        self.answer(by, Answer::Refused(String::from(text)));
    }

    /// The role is another one.
    pub(super) fn set_role(&mut self, role: Role) {
        self.role = role;
        self.event(Event::Role(role));
        self.tell_state();
    }

    /// Tell everybody what this node is. Not while it is becoming something else: who has agreed would take it for the end
    /// of that, and hears at the end.
    pub(super) fn tell_state(&mut self) {
        if matches!(&self.change, Some(Change::Promotion(promotion)) if promotion.asks_or_orders()) {
            return;
        }
        let disks = self.disks_by_name();
        for peer in 0..self.peers.len() {
            self.tell_state_to(peer, disks.clone());
        }
    }

    fn tell_state_to(&mut self, peer: usize, disks: Vec<LocalDisk>) {
        let said = match &self.peers[peer].link {
            Link::Down => false,
            Link::Comparing(comparing) => comparing.said.is_some(),
            Link::Joined(_) => true,
        };
        if let Some(connection) = self.peers[peer].link.connection().filter(|_| said) {
            let role = self.role;
            self.emit(Output::Send {
                peer: index(peer),
                connection,
                control: Control::State { role, disks },
            });
        }
    }

    fn disks_by_name(&self) -> Vec<LocalDisk> {
        let mut volumes: Vec<(&str, LocalDisk)> = self
            .live_volumes()
            .map(|at| (self.volumes[at].name.as_str(), self.volumes[at].disk))
            .collect();
        volumes.sort_unstable_by(|a, b| a.0.cmp(b.0));
        volumes.into_iter().map(|(_, disk)| disk).collect()
    }

    /// Another node's role and images.
    pub(super) fn heard_state(&mut self, peer: usize, role: Role, disks: &[LocalDisk], world: &dyn Volumes) {
        let known = &mut self.peers[peer].disks;
        if known.len() == disks.len() {
            for (entry, disk) in known.iter_mut().zip(disks) {
                entry.1 = *disk;
            }
        }
        let leaves = role == Role::Secondary && self.peers[peer].is_connected_primary();
        self.heard_role(peer, role);
        // It speaks for those that had everything, to the end. What was on its way to this node and to another one when it
        // lost both, only one of them may have got.
        if leaves && self.is_in_step(peer, world) {
            self.past.left_in_order = true;
        }
    }

    pub(super) fn heard_role(&mut self, peer: usize, role: Role) {
        self.peers[peer].role = role;
        self.peers[peer].consented = None;
        if role == Role::Primary {
            self.past.last_primary = Some(peer);
            self.past.sure = true;
            self.past.unless_taken = None;
            (self.past.answers_lost, self.past.left_in_order) = (false, false);
            if self.role == Role::Secondary {
                self.past.mine = false;
                self.past.take_back = None;
            }
        }
    }

    /// The state of an image has changed.
    pub(super) fn disk_changed(&mut self, volume: usize, disk: LocalDisk) {
        let before = core::mem::replace(&mut self.volumes[volume].disk, disk);
        if before == disk {
            return;
        }
        self.tell_state();
        let gone_or_back = before == LocalDisk::Diskless || disk == LocalDisk::Diskless;
        if self.role == Role::Secondary && gone_or_back {
            for peer in 0..self.peers.len() {
                if self.peers[peer].joined().is_some() {
                    self.close(peer, "an image of this node has gone, or is back: decide again");
                }
            }
        }
    }

    pub(super) fn read_disks(&mut self, world: &dyn Volumes) {
        if self.peers.is_empty() {
            return;
        }
        for volume in 0..self.volumes.len() {
            if !self.volumes[volume].removed {
                self.volumes[volume].disk = world.identity(volume, index(0)).disk;
            }
        }
    }

    /// Tell the shell what hosts may do, whenever that changes.
    pub(super) fn admit_hosts(&mut self) {
        let readable = |at: usize| matches!(self.volumes[at].disk, LocalDisk::UpToDate | LocalDisk::Outdated);
        let secondary = if self.config.read_only_secondary && self.live_volumes().all(readable) {
            HostAccess::ReadOnly
        } else {
            HostAccess::Shut
        };
        let access = match (&self.change, self.role) {
            (Some(Change::Demotion(_)), _) => HostAccess::Shut,
            (Some(Change::Promotion(promotion)), Role::Secondary)
                if promotion.is_ordering() && !self.keeps(Sabotage::PromotedBeforeHosts) =>
            {
                HostAccess::ReadWrite
            }
            (_, Role::Primary) => HostAccess::ReadWrite,
            (_, Role::Secondary) => secondary,
        };
        if self.hosts != Some(access) {
            self.hosts = Some(access);
            self.emit(Output::Hosts(access));
        }
    }

    /// The mirrors have stopped in order: what was Primary has given everything to everybody it could.
    pub(super) fn stop(&mut self) {
        let by = match self.change.take() {
            Some(Change::Promotion(promotion)) => promotion.by,
            Some(Change::Demotion(demotion)) => demotion.by,
            None => None,
        };
        self.role = Role::Secondary;
        self.tell_state();
        for peer in 0..self.peers.len() {
            // Nothing is dialled again.
            if self.peers[peer].dialled {
                self.emit(Output::CancelDial(index(peer)));
            }
            self.peers[peer].dialled = true;
            let reason = alloc::format!("{} stops", self.config.node);
            self.say_goodbye(peer, false, reason);
        }
        for waiting in core::mem::take(&mut self.waiting) {
            self.answer(Some(waiting.id), Answer::Refused(String::from("the daemon stops")));
        }
        self.answer(by, Answer::Refused(String::from("the daemon stops")));
        self.stopped = true;
    }

    pub(super) fn answer(&mut self, id: Option<CommandId>, answer: Answer) {
        if let Some(id) = id {
            self.emit(Output::Answer { id, answer });
        }
    }
}
