//! The reasons behind the present state, for `blockmirror why`: nothing here decides anything.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::config::AfterRestart;
use super::event::{HostAccess, Volumes};
use super::peer::{Joined, LaneStage, Link, Ruling};
use super::status::{LinkState, link_state};
use super::{Resource, Volume};
use crate::config::PeerKind;
use crate::event::PeerIndex;
use crate::identity::{Decision, Explanation, NodeIdentity, Role, Side, Verdict, explain};
use crate::state::LocalDisk;

/// Why the resource is as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// Role.
    pub role: Role,
    /// Why this role.
    pub because: String,
    /// What hosts may do.
    pub hosts: HostAccess,
    /// What keeps it from better.
    pub limits: Vec<String>,
    /// What an operator could do, most useful first.
    pub next: Vec<String>,
    /// Per peer that is there.
    pub peers: Vec<PeerWhy>,
}

/// Why a peer is as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerWhy {
    /// Its name.
    pub name: String,
    /// The connection.
    pub link: LinkState,
    /// Why it is in this state.
    pub because: String,
    /// The last handshake in which both said who they are.
    pub handshake: Option<HandshakeRecord>,
}

/// One handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeRecord {
    /// When, by the time of `handle`.
    pub at: Duration,
    /// What this node said.
    pub mine: NodeIdentity,
    /// What the other said.
    pub theirs: NodeIdentity,
    /// What was decided, per volume of both.
    pub volumes: Vec<VolumeRecord>,
    /// How it ended.
    pub outcome: String,
}

/// One volume of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRecord {
    /// Its name.
    pub name: String,
    /// Verdict and rule.
    pub decision: Decision,
    /// In words, with inputs and alternatives.
    pub explanation: Explanation,
}

impl Resource {
    /// Why it is as it is.
    pub fn why(&self, world: &dyn Volumes) -> Why {
        let mut limits = Vec::new();
        for at in self.live_volumes() {
            self.disk_limit(at, &mut limits);
        }
        let live = self.peers.iter().enumerate().filter(|(_, peer)| !peer.removed);
        let peers: Vec<PeerWhy> = live
            .map(|(at, peer)| PeerWhy {
                name: peer.name.clone(),
                link: link_state(peer),
                because: self.peer_because(at),
                handshake: peer.record.clone(),
            })
            .collect();
        for peer in peers.iter().filter(|peer| peer.link != LinkState::Connected) {
            limits.push(format!("{}: {}", peer.name, peer.because));
        }
        for (peer, volume) in self.without_image() {
            limits.push(format!("volume {volume} has no image on {peer} (Diskless)"));
        }
        Why {
            role: self.role,
            because: self.role_because(),
            hosts: self.hosts.unwrap_or(HostAccess::Shut),
            limits,
            next: self.advise(world),
            peers,
        }
    }

    /// Bytes of a volume that the peer compares with those here after the last handshake, and copies where they differ:
    /// at most, for blocks may be dirty on both.
    pub fn coming(&self, volume: usize, peer: PeerIndex) -> u64 {
        let Some(record) = &self.peers[usize::from(peer.0)].record else {
            return 0;
        };
        let name = &self.volumes[volume].name;
        let of = |node: &NodeIdentity| {
            let mut volumes = node.volumes.iter();
            let found = volumes.find(|told| told.name == *name);
            found.map_or((0, 0), |told| (told.dirty_bytes, told.size))
        };
        let ((here, size), (there, _)) = (of(&record.mine), of(&record.theirs));
        let mut decided = record.volumes.iter().filter(|decided| decided.name == *name);
        match decided.next().map(|decided| decided.decision.verdict) {
            Some(Verdict::Target { full: true }) => size,
            Some(Verdict::Target { full: false }) => (here + there).min(size),
            _ => 0,
        }
    }

    fn role_because(&self) -> String {
        if let Some(change) = self.changing() {
            return change.to_owned();
        }
        let primary = self.partners().find(|at| self.peers[*at].is_connected_primary());
        match (self.role, primary) {
            (Role::Primary, _) if self.partners().next().is_none() => {
                "every peer is a plain NBD server: there is nobody else who could be Primary".to_owned()
            }
            (Role::Primary, _) => "it was promoted, and nobody has taken the role since".to_owned(),
            (Role::Secondary, Some(at)) => format!("{} is Primary", self.peers[at].name),
            (Role::Secondary, None) if self.past.rests => "its operator demoted it".to_owned(),
            (Role::Secondary, None) if self.past.take_back.is_some() => {
                let missing: Vec<&str> = self
                    .partners()
                    .filter(|at| !self.peers[*at].joined().is_some_and(Joined::is_ready))
                    .map(|at| self.peers[at].name.as_str())
                    .collect();
                format!(
                    "it was Primary before and becomes so again once every node is connected and none has newer data; \
                     missing: {}",
                    if missing.is_empty() {
                        "none".to_owned()
                    } else {
                        missing.join(", ")
                    }
                )
            }
            (Role::Secondary, None) if self.config.after_restart == AfterRestart::Secondary && self.past.mine => {
                "role_after_restart = \"secondary\"".to_owned()
            }
            (Role::Secondary, None) => match self.past.last_primary {
                Some(at) => format!(
                    "{} was Primary last, and nobody has been promoted since",
                    self.peers[at].name
                ),
                None => "nobody has been promoted since this daemon started".to_owned(),
            },
        }
    }

    fn peer_because(&self, at: usize) -> String {
        let peer = &self.peers[at];
        if peer.kind == Some(PeerKind::Plain) {
            return "a plain NBD server: each volume connects by itself".to_owned();
        }
        match &peer.link {
            Link::Down => match &peer.stand_alone {
                Some(reason) => format!("stands alone: {reason}"),
                None if peer.no_space => "had no space left: it is tried again every few seconds".to_owned(),
                None if peer.kind.is_none() => "not reached yet: what is there is not known".to_owned(),
                None => "not reached".to_owned(),
            },
            Link::Comparing(comparing) => match (&comparing.held, &comparing.heard) {
                (Some(held), _) => held.clone(),
                (None, None) => "connected, and has not said who it is".to_owned(),
                (None, Some(_)) => "both have said who they are; waiting for its verdict".to_owned(),
            },
            Link::Joined(joined) => {
                let parked = joined
                    .lanes
                    .iter()
                    .filter(|lane| lane.stage == LaneStage::Parked)
                    .count();
                let outcome = peer.record.as_ref().map_or("", |record| record.outcome.as_str());
                match (joined.is_ready(), parked) {
                    (false, _) => format!("volumes are being prepared: {outcome}"),
                    (true, _) => outcome.to_owned(),
                }
            }
        }
    }

    /// What is here of the volume, unless it is all.
    fn disk_limit(&self, at: usize, limits: &mut Vec<String>) {
        let Volume { name, disk, .. } = &self.volumes[at];
        let text = match disk {
            LocalDisk::UpToDate => return,
            LocalDisk::Diskless if self.role == Role::Secondary => "has no image here".to_owned(),
            LocalDisk::Diskless => match self.complete_at(name) {
                Some(peer) => format!("has no image here: {peer} serves it"),
                None => "has no image here, and no connected peer has all of it".to_owned(),
            },
            LocalDisk::Inconsistent => "is Inconsistent here: a resync to it has not ended".to_owned(),
            LocalDisk::Outdated => "is Outdated here: another node has newer data".to_owned(),
        };
        limits.push(format!("volume {name} {text}"));
    }
}

impl HandshakeRecord {
    /// Both have said who they are, and this follows.
    pub(super) fn new(
        resource: &str,
        at: Duration,
        mine: &NodeIdentity,
        theirs: &NodeIdentity,
        rulings: &[Ruling],
    ) -> Self {
        let volumes = rulings
            .iter()
            .map(|ruling| {
                let (ours, other) = (&mine.volumes[ruling.mine], &theirs.volumes[ruling.theirs]);
                VolumeRecord {
                    name: ours.name.clone(),
                    decision: ruling.decision,
                    explanation: explain(
                        resource,
                        &ruling.decision,
                        &Side::new(mine, ours),
                        &Side::new(theirs, other),
                    ),
                }
            })
            .collect();
        Self {
            at,
            mine: mine.clone(),
            theirs: theirs.clone(),
            volumes,
            outcome: "under way".to_owned(),
        }
    }
}
