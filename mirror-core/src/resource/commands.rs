//! Operators' commands. Every one is answered, within `COMMAND_MAX`.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::config::{COMMAND_MAX, COMMANDS_MAX};
use super::connect::part;
use super::event::{Answer, Command, CommandId, Volumes};
use super::orders::Purpose;
use super::peer::{Joined, Link};
use super::{Resource, index, place};
use crate::event::{Order, OrderRefusal};
use crate::identity::Role;
use crate::state::LocalDisk;

/// A command that waits for mirrors.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub id: CommandId,
    left: usize,
    until: Duration,
    failed: Option<String>,
    /// What follows.
    then: Then,
}

/// What follows when the mirrors have done their part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Nothing,
    /// The peer is there.
    PeerAdded(usize),
    /// The volume is there.
    VolumeAdded(usize),
    /// The data here are given up for the peer's, durably: it may be reached.
    Connect(usize),
}

impl Resource {
    pub(super) fn command(&mut self, id: CommandId, command: Command, world: &dyn Volumes) {
        if self.waiting.len() >= COMMANDS_MAX {
            self.refuse(id, "too many commands are under way: try again");
        } else if let Some(why) = self.unknown_names(&command) {
            self.refuse(id, &why);
        } else if changes_members(&command) && (self.change.is_some() || self.growth.is_some()) {
            self.refuse(
                id,
                "another change of the resource is under way: try again when it has ended",
            );
        } else {
            self.carry_out(id, command, world);
        }
    }

    fn carry_out(&mut self, id: CommandId, command: Command, world: &dyn Volumes) {
        match command {
            Command::Promote { force, accept } => self.promote(id, force, accept, world),
            Command::Demote => self.demote(id),
            Command::Connect { peer, discard_my_data } => self.connect(id, place(peer), discard_my_data),
            Command::Disconnect(peer) => self.disconnect(id, place(peer), world),
            Command::Invalidate(peer) => self.invalidate(id, place(peer)),
            Command::Detach(volume) => self.detach(id, volume, world),
            Command::Attach { volume, replaced } => self.command_for(id, volume, Order::Attach { replaced }),
            Command::Resize {
                volume,
                size,
                assume_clean,
                force,
            } => self.begin_growth(id, volume, (size, assume_clean, force), world),
            Command::Verify {
                volume,
                peer,
                repair,
                resume,
            } => self.verify(id, volume, place(peer), Order::Verify { peer, repair, resume }),
            Command::VerifyStop { volume, peer } => self.command_for(id, volume, Order::VerifyStop { peer }),
            Command::AddPeer { config, kind } => self.add_peer(id, config, kind),
            Command::RemovePeer(peer) => self.remove_peer(id, place(peer)),
            Command::AddVolume { name } => self.add_volume(id, name),
            Command::RemoveVolume(volume) => self.remove_volume(id, volume),
        }
    }

    fn unknown_names(&self, command: &Command) -> Option<String> {
        let (volume, peer) = match command {
            Command::Connect { peer, .. }
            | Command::Disconnect(peer)
            | Command::Invalidate(peer)
            | Command::RemovePeer(peer) => (None, Some(*peer)),
            Command::Detach(volume)
            | Command::Attach { volume, .. }
            | Command::Resize { volume, .. }
            | Command::RemoveVolume(volume) => (Some(*volume), None),
            Command::Verify { volume, peer, .. } | Command::VerifyStop { volume, peer } => (Some(*volume), Some(*peer)),
            Command::Promote { .. } | Command::Demote | Command::AddPeer { .. } | Command::AddVolume { .. } => {
                (None, None)
            }
        };
        let no_volume = volume.is_some_and(|at| self.volumes.get(at).is_none_or(|volume| volume.removed));
        let no_peer = peer.is_some_and(|at| self.peers.get(place(at)).is_none_or(|peer| peer.removed));
        if no_volume {
            Some("the resource has no such volume".to_owned())
        } else {
            no_peer.then(|| "the resource has no such peer".to_owned())
        }
    }

    fn refuse(&mut self, id: CommandId, why: &str) {
        self.answer(Some(id), Answer::Refused(why.to_owned()));
    }

    fn promote(&mut self, id: CommandId, force: bool, accept: Option<String>, world: &dyn Volumes) {
        if self.change.is_some() || self.growth.is_some() {
            self.refuse(
                id,
                "another change of the resource is under way: try again when it has ended",
            );
        } else if self.role == Role::Primary {
            self.answer(Some(id), Answer::Done);
        } else {
            self.past.rests = false;
            self.begin_promotion(Some(id), force, accept, world);
        }
    }

    fn demote(&mut self, id: CommandId) {
        if self.change.is_some() || self.growth.is_some() {
            self.refuse(
                id,
                "another change of the resource is under way: try again when it has ended",
            );
            return;
        }
        self.past.take_back = None;
        self.past.rests = true;
        if self.role == Role::Secondary {
            self.answer(Some(id), Answer::Done);
        } else {
            self.begin_demotion(Some(id), None);
        }
    }

    fn connect(&mut self, id: CommandId, peer: usize, discard: bool) {
        if discard && self.role == Role::Primary {
            let text = format!(
                "this node is Primary: its data cannot be given up while hosts use it: `blockmirror demote {}` first",
                self.config.name
            );
            self.refuse(id, &text);
        } else if discard && self.peers[peer].joined().is_some() {
            self.refuse(
                id,
                "the nodes are connected and their data has not diverged: nothing is to be given up",
            );
        } else if discard {
            // Durable first: the copy may take longer than this daemon lives.
            let order = Order::GiveUp {
                peer: index(peer),
                given_up: true,
            };
            self.command_for_all(id, &order, Then::Connect(peer));
        } else if self.peers[peer].joined().is_some() {
            // It may lack what a verify has found different.
            self.connect_again(peer);
            self.command_for_all(id, &part(peer, false), Then::Nothing);
        } else {
            self.connect_again(peer);
            self.answer(Some(id), Answer::Done);
        }
    }

    /// The operator has given the data of some volume up for the peer's, and it is there still.
    pub(super) fn has_word(&self, peer: usize, world: &dyn Volumes) -> bool {
        self.live_volumes().any(|volume| world.gives_up(volume, index(peer)))
    }

    /// That counts for every volume, and so only while there is none that got other data since: nobody gave that up.
    pub(super) fn gives_up(&self, peer: usize, world: &dyn Volumes) -> bool {
        let kept = |volume| world.keeps_data_from(volume, index(peer));
        self.has_word(peer, world) && !self.live_volumes().any(kept)
    }

    /// That does not count any more.
    pub(super) fn forget_word(&mut self, peer: usize) {
        if !self.orders.any(Purpose::Word { peer }) {
            self.order_all(&taken_back(peer), Purpose::Word { peer });
        }
    }

    /// That has been done on this connection.
    pub(super) fn forget_word_once(&mut self, peer: usize) {
        if let Link::Joined(joined) = &mut self.peers[peer].link
            && !core::mem::replace(&mut joined.word_done, true)
        {
            self.forget_word(peer);
        }
    }

    /// Everything here is durably worthless, and everything may differ from the peer; the next handshake does the rest,
    /// and is told again what changes while it is under way.
    fn invalidate(&mut self, id: CommandId, peer: usize) {
        let good = self.peers[peer].joined().is_some_and(Joined::is_ready)
            && self.peers[peer]
                .disks
                .iter()
                .all(|(_, disk)| *disk == LocalDisk::UpToDate);
        if self.role == Role::Primary || self.change.is_some() {
            let text = format!(
                "this node is Primary, or about to be: its data is in use: `blockmirror demote {}` first",
                self.config.name
            );
            self.refuse(id, &text);
            return;
        }
        if !good {
            self.refuse(id, "the peer is not connected, or does not have complete data itself");
            return;
        }
        for other in 0..self.peers.len() {
            self.close(other, "the operator has invalidated the data of this node");
        }
        let begin = Order::BeginTarget { source: index(peer) };
        let mut left = self.order_all(&begin, Purpose::Command(id));
        for other in self.partners().collect::<Vec<_>>() {
            left += self.order_all(&Order::Fill { peer: index(other) }, Purpose::Command(id));
        }
        self.wait(id, left, Then::Nothing);
    }

    fn detach(&mut self, id: CommandId, volume: usize, world: &dyn Volumes) {
        let name = self.volumes[volume].name.clone();
        let served = self.partners().any(|at| {
            let identity = world.identity(volume, index(at));
            let there = self.peers[at].has_complete(&name);
            let joined = self.peers[at].joined().is_some_and(Joined::is_ready);
            joined && there && identity.dirty_bytes == 0
        });
        if self.role == Role::Primary && !served {
            self.refuse(id, "hosts use the volume, and no connected peer has all of its data");
        } else if let Some(primary) = self.stands_in_for(volume) {
            let text = format!(
                "{primary} is Primary without complete data of its own, and this image is the only one that serves its \
                 hosts: attach that of {primary} first, or demote {primary}"
            );
            self.refuse(id, &text);
        } else {
            self.command_for(id, volume, Order::Detach);
        }
    }

    /// The Primary whose hosts have no other image than this node's, as far as is known here.
    fn stands_in_for(&self, volume: usize) -> Option<&str> {
        let volume = &self.volumes[volume];
        // Of one that has said nothing of its images on this connection it is not known.
        let lacks = |at: usize| !self.peers[at].disks.is_empty() && !self.peers[at].has_complete(&volume.name);
        if volume.disk != LocalDisk::UpToDate || !self.partners().all(lacks) {
            return None;
        }
        let primary = self.partners().find(|at| self.peers[*at].is_connected_primary())?;
        Some(&self.peers[primary].name)
    }

    fn verify(&mut self, id: CommandId, volume: usize, peer: usize, order: Order) {
        let primary = self.partners().find(|at| self.peers[*at].is_connected_primary());
        let plain = self.peers[peer].kind == Some(crate::config::PeerKind::Plain);
        if let (Role::Secondary, Some(at)) = (self.role, primary) {
            let text = format!(
                "{} is Primary: verify there, it knows what is being written",
                self.peers[at].name
            );
            self.refuse(id, &text);
        } else if !plain && !self.peers[peer].joined().is_some_and(Joined::is_ready) {
            self.refuse(id, "the peer is not connected");
        } else {
            self.command_for(id, volume, order);
        }
    }

    /// The answer is what the mirror says to the order.
    pub(super) fn command_for(&mut self, id: CommandId, volume: usize, order: Order) {
        self.order(volume, order, Purpose::Command(id));
        self.wait(id, 1, Then::Nothing);
    }

    /// The answer is what the mirrors say to the order.
    pub(super) fn command_for_all(&mut self, id: CommandId, order: &Order, then: Then) {
        let left = self.order_all(order, Purpose::Command(id));
        self.wait(id, left, then);
    }

    pub(super) fn wait(&mut self, id: CommandId, left: usize, then: Then) {
        self.waiting.push(Waiting {
            id,
            left,
            until: self.now + COMMAND_MAX,
            failed: None,
            then,
        });
    }

    /// A mirror has carried out an order of a command, or not.
    pub(super) fn command_order_done(&mut self, id: CommandId, volume: usize, outcome: Result<(), OrderRefusal>) {
        let name = self.volumes[volume].name.clone();
        let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.id == id) else {
            return;
        };
        waiting.left -= 1;
        if let Err(refusal) = outcome {
            waiting.failed = Some(format!("volume {name}: {}", in_words(refusal)));
        }
    }

    pub(super) fn commands_timeout(&self) -> Option<Duration> {
        self.waiting.iter().map(|waiting| waiting.until).min()
    }

    /// Answer what is done, or takes too long.
    pub(super) fn step_commands(&mut self) {
        let mut at = 0;
        while at < self.waiting.len() {
            let waiting = &self.waiting[at];
            let late = self.now >= waiting.until;
            if waiting.left > 0 && !late {
                at += 1;
                continue;
            }
            let waiting = self.waiting.swap_remove(at);
            let answer = match waiting.failed {
                Some(why) => Answer::Refused(why),
                None if waiting.left > 0 => {
                    Answer::Refused("it has not ended in time and goes on: see `blockmirror status`".to_owned())
                }
                None => Answer::Done,
            };
            self.follow(waiting.then, answer == Answer::Done);
            self.answer(Some(waiting.id), answer);
        }
    }

    fn follow(&mut self, then: Then, done: bool) {
        match then {
            Then::Nothing => {}
            Then::PeerAdded(peer) => self.peer_added(peer, done),
            Then::VolumeAdded(volume) => self.volume_added(volume, done),
            Then::Connect(peer) if done => self.connect_again(peer),
            // Some of the volumes may have taken it.
            Then::Connect(peer) => self.forget_word(peer),
        }
    }
}

/// What an order that is under way may have to do with would be gone.
fn changes_members(command: &Command) -> bool {
    matches!(
        command,
        Command::AddPeer { .. } | Command::RemovePeer(_) | Command::AddVolume { .. } | Command::RemoveVolume(_)
    )
}

/// The data here are not given up for the peer's.
pub(super) fn taken_back(peer: usize) -> Order {
    Order::GiveUp {
        peer: index(peer),
        given_up: false,
    }
}

/// For operators.
pub(super) fn in_words(refusal: OrderRefusal) -> &'static str {
    match refusal {
        OrderRefusal::WrongState => "not in its present role or state: see `blockmirror why`",
        OrderRefusal::Withheld => {
            "this node is Primary, no node that has all of the data is connected, and the image here may be the only one with \
             what was answered. Connect its partner and try again; or, if the partner is lost, demote this node first, then \
             attach: the image counts then"
        }
        OrderRefusal::Closed => "it has failed or stops",
        OrderRefusal::Failed(_) => "its metadata could not be written",
        OrderRefusal::NoRoom => "its metadata has no room for that",
        OrderRefusal::Overtaken => "a newer change has replaced it, or the connection was lost",
    }
}
