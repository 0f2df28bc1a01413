//! What an operator asks of a resource.

use blockmirror_client::admin::PeerCommand;
use mirror_core::event::{Command as MirrorCommand, PeerIndex};
use mirror_core::resource::event::{Answer, Command, CommandId, Input};
use tokio::sync::oneshot;

use crate::data::message::ResourceOrder;
use crate::data::thread::DataThread;

/// Who waits for the answer to a command, and what is done then.
pub(super) struct Waiting {
    then: Then,
    answer: oneshot::Sender<Answer>,
}

/// What the shell does once the core has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Nothing,
    /// The last peer stays if the core has taken it.
    KeepPeer,
    /// The volume with this number in the thread stays if the core has taken it.
    KeepVolume {
        place: usize,
    },
    /// The image of the volume of the resource stays if the core has it taken.
    KeepImage(usize),
    /// The volume of the resource is gone if the core has let it go.
    DropVolume(usize),
}

impl DataThread {
    /// Take a command; it is answered when it is done.
    pub(in crate::data) fn resource_command(
        &mut self,
        resource: usize,
        order: ResourceOrder,
        answer: oneshot::Sender<Answer>,
    ) {
        let refusal = if self.stopping.is_some() {
            Some("the daemon is stopping")
        } else if self.resources.get(resource).is_none_or(|side| !side.has_core()) {
            Some("this resource has no role: it is not mirrored")
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let _ = answer.send(Answer::Refused(refusal.to_owned()));
            return;
        }
        match order {
            ResourceOrder::Core(command) => self.core_command(resource, command, Then::Nothing, answer),
            ResourceOrder::AddPeer { config, plan, partner } => {
                self.add_peer(resource, config, &plan, partner, answer);
            }
            ResourceOrder::RemovePeer(peer) => {
                let command = Command::RemovePeer(PeerIndex(peer as u8));
                self.core_command(resource, command, Then::Nothing, answer);
            }
            ResourceOrder::AddVolume(plan) => self.add_volume(resource, *plan, answer),
            ResourceOrder::RemoveVolume(volume) => {
                self.core_command(
                    resource,
                    Command::RemoveVolume(volume),
                    Then::DropVolume(volume),
                    answer,
                );
            }
            ResourceOrder::Attach {
                volume,
                image,
                replaced,
                identity,
            } => self.attach(resource, volume, (*image, identity), replaced, answer),
        }
    }

    /// The core has answered a command.
    pub(super) fn answered(&mut self, resource: usize, waiting: Waiting, answer: Answer) {
        let done = answer == Answer::Done;
        match waiting.then {
            Then::Nothing => {}
            Then::KeepPeer if done => self.peer_kept(resource),
            Then::KeepPeer => self.forget_last_peer(resource),
            Then::KeepVolume { place } if done => self.volume_added(resource, place),
            Then::KeepVolume { place } => self.forget_volume(resource, place),
            Then::KeepImage(volume) => {
                let place = self.resources[resource].volumes.get(volume).copied().flatten();
                if let Some(place) = place.filter(|_| !done) {
                    self.volumes[place].withdraw_offer(&mut self.turn);
                }
            }
            Then::DropVolume(volume) => {
                if let Some(place) = self.resources[resource]
                    .volumes
                    .get(volume)
                    .copied()
                    .flatten()
                    .filter(|_| done)
                {
                    self.drop_volume(resource, place);
                }
            }
        }
        // Whoever asked may have given up.
        let _ = waiting.answer.send(answer);
    }

    /// Take a command about one plain peer of one volume. What is about a partner is an order to the resource.
    pub(in crate::data) fn peer_command(
        &mut self,
        (volume, peer): (usize, usize),
        command: PeerCommand,
        answer: oneshot::Sender<Result<(), String>>,
    ) {
        // Whoever asked may have given up.
        let _ = answer.send(self.carry_out(volume, peer, command));
    }

    fn carry_out(&mut self, place: usize, peer: usize, command: PeerCommand) -> Result<(), String> {
        if self.stopping.is_some() {
            return Err("the daemon is stopping".to_owned());
        }
        let Some(volume) = self.volumes.get_mut(place) else {
            return Err("no such volume".to_owned());
        };
        if peer >= volume.peer_count() {
            return Err(format!("volume {} has no such peer", volume.export()));
        }
        let index = PeerIndex(peer as u8);
        if volume.is_partner(index) {
            return Err(match command {
                PeerCommand::Resync { full: true } => {
                    "the peer is a blockmirror: verify with --repair compares and copies what differs, and invalidate on \
                     the peer makes it take everything anew"
                }
                // It was found out a moment ago: whoever asked took it for a plain server.
                _ => "the peer has turned out to be a blockmirror, which the whole resource connects to: ask again",
            }
            .to_owned());
        }
        volume.command(
            &self.turn,
            match command {
                PeerCommand::Connect | PeerCommand::Resync { full: false } => MirrorCommand::Connect(index),
                PeerCommand::Disconnect => MirrorCommand::Disconnect(index),
                PeerCommand::Resync { full: true } => MirrorCommand::Invalidate(index),
            },
        );
        Ok(())
    }

    pub(super) fn core_command(
        &mut self,
        resource: usize,
        command: Command,
        then: Then,
        answer: oneshot::Sender<Answer>,
    ) {
        let side = &mut self.resources[resource];
        side.commands += 1;
        let id = CommandId(side.commands);
        side.answers.insert(id, Waiting { then, answer });
        side.inbox.push_back(Input::Command { id, command });
    }

    /// Make the image of a volume larger, or make sure that it can be smaller.
    pub(super) fn grow(&mut self, at: usize, volume: usize, size: u64) {
        let side = &mut self.resources[at];
        let Some(place) = side.volumes.get(volume).copied().flatten() else {
            return;
        };
        let outcome = self.volumes[place].grow(size);
        side.inbox.push_back(Input::Grown { volume, outcome });
    }
}
