//! Peers and volumes come and go while the resource works.

use alloc::string::String;
use alloc::vec::Vec;

use super::commands::Then;
use super::event::{Answer, CommandId, Output};
use super::orders::Purpose;
use super::peer::{Link, Peer};
use super::{Resource, Volume, index};
use crate::config::{PEERS_MAX, PeerConfig, PeerKind};
use crate::event::Order;
use crate::identity::Role;

impl Resource {
    /// A new peer of every volume.
    pub(super) fn add_peer(&mut self, id: CommandId, config: PeerConfig, kind: Option<PeerKind>) {
        if self.peers.iter().filter(|peer| !peer.removed).count() >= PEERS_MAX {
            self.answer(
                Some(id),
                Answer::Refused("the resource has as many peers as it can have".into()),
            );
            return;
        }
        if self.peers.iter().any(|peer| !peer.removed && peer.name == config.name) {
            self.answer(Some(id), Answer::Refused("the resource has a peer of this name".into()));
            return;
        }
        self.peers.push(Peer::new(config.name.clone(), kind));
        let order = Order::AddPeer(config);
        let peer = self.peers.len() - 1;
        self.command_for_all(id, &order, Then::PeerAdded(peer));
    }

    /// The mirrors have taken it, or not.
    pub(super) fn peer_added(&mut self, peer: usize, added: bool) {
        if added {
            self.dial(peer);
        } else {
            self.peers[peer].removed = true;
        }
    }

    /// A peer is forgotten.
    pub(super) fn remove_peer(&mut self, id: CommandId, peer: usize) {
        self.peers[peer].removed = true;
        if self.peers[peer].dialled {
            self.peers[peer].dialled = false;
            self.emit(Output::CancelDial(index(peer)));
        }
        self.say_goodbye(peer, false, "this node has no such peer any more".into());
        let doubted = self.doubted_without(peer);
        if self.past.last_primary == Some(peer) {
            self.past.last_primary = None;
        }
        self.past.unless_taken.take_if(|before| *before == Some(peer));
        for other in doubted {
            self.order_all(&Order::Fill { peer: index(other) }, Purpose::Nothing);
        }
        self.command_for_all(id, &Order::RemovePeer(index(peer)), Then::Nothing);
    }

    /// Who may differ from this node in what the peer, which goes for good, wrote as the last Primary: it was to tell.
    fn doubted_without(&self, peer: usize) -> Vec<usize> {
        let stays = |at: &usize| *at != peer && !self.peers[*at].removed;
        let known = self.past.mine || (self.past.sure && self.past.last_primary.as_ref().is_some_and(stays));
        if self.role == Role::Primary || known || self.peers[peer].kind == Some(PeerKind::Plain) {
            return Vec::new();
        }
        self.partners().collect()
    }

    /// A new volume. The connections are made anew: the first words on one name the volumes.
    pub(super) fn add_volume(&mut self, id: CommandId, name: String) {
        if self.live_volumes().any(|at| self.volumes[at].name == name) {
            self.answer(
                Some(id),
                Answer::Refused("the resource has a volume of this name".into()),
            );
            return;
        }
        self.volumes.push(Volume::new(name));
        let volume = self.volumes.len() - 1;
        self.meet_anew("a volume was added");
        self.part_new_volume(volume);
        if self.role == Role::Primary && self.partners().next().is_some() {
            let order = Order::Promote {
                generation: self.rng.identifier(),
                doubtful: Vec::new(),
                since: self.past.primary_since,
            };
            self.order(volume, order, Purpose::Command(id));
            self.wait(id, 1, Then::VolumeAdded(volume));
        } else {
            self.answer(Some(id), Answer::Done);
        }
    }

    /// Its mirror has become Primary, or not: then it is let go.
    pub(super) fn volume_added(&mut self, volume: usize, added: bool) {
        if !added {
            self.volumes[volume].removed = true;
            self.meet_anew("a volume could not be added");
            self.end_orders(volume);
        }
    }

    /// Volumes there have ever been: the number of the next one.
    pub fn volumes_ever(&self) -> usize {
        self.volumes.len()
    }

    /// A volume is forgotten.
    pub(super) fn remove_volume(&mut self, id: CommandId, volume: usize) {
        self.volumes[volume].removed = true;
        self.meet_anew("a volume was removed");
        self.end_orders(volume);
        self.answer(Some(id), Answer::Done);
    }

    fn meet_anew(&mut self, reason: &str) {
        for peer in 0..self.peers.len() {
            if !matches!(self.peers[peer].link, Link::Down) {
                self.close(peer, reason);
            }
        }
    }

    /// A mirror whose peer's kind is being written down has to know it before the role changes.
    pub(super) fn knows_kinds(&self) -> bool {
        !self.orders.any(Purpose::Kind)
    }

    /// There is a partner, or there was one in this life of the daemon.
    pub(super) fn had_partners(&self) -> bool {
        self.peers.iter().any(|peer| peer.kind != Some(PeerKind::Plain))
    }
}
