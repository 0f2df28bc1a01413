//! The reasons behind the present state, for `blockmirror why`: nothing here decides anything.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::config::AfterRestart;
use super::event::HostAccess;
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
    pub fn why(&self) -> Why {
        let mut limits = Vec::new();
        let mut next = Vec::new();
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
        self.advise(&mut next);
        Why {
            role: self.role,
            because: self.role_because(),
            hosts: self.hosts.unwrap_or(HostAccess::Shut),
            limits,
            next,
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

    /// A connected peer that has said that it has all of the volume.
    fn complete_at(&self, volume: &str) -> Option<&str> {
        let has_it = |at: &usize| {
            let said = (volume, LocalDisk::UpToDate);
            let mut disks = self.peers[*at].disks.iter();
            let joined = self.peers[*at].joined().is_some_and(Joined::is_ready);
            joined && disks.any(|(name, disk)| (name.as_str(), *disk) == said)
        };
        let at = self.partners().find(has_it)?;
        Some(&self.peers[at].name)
    }

    /// Peers that have said on the present connection that a volume has no image there, and the volume.
    fn without_image(&self) -> impl Iterator<Item = (&str, &str)> {
        let peers = self.peers.iter().filter(|peer| !peer.removed);
        peers.flat_map(|peer| {
            let gone = peer.disks.iter().filter(|(_, disk)| *disk == LocalDisk::Diskless);
            gone.map(|(volume, _)| (peer.name.as_str(), volume.as_str()))
        })
    }

    /// Commands stand in backquotes, whole: they are typed as they stand.
    fn advise(&self, next: &mut Vec<String>) {
        let (resource, node) = (&self.config.name, &self.config.node);
        for peer in self.peers.iter().filter(|peer| !peer.removed) {
            let name = &peer.name;
            if peer.split_brain.is_some() {
                next.push(format!(
                    "decide whose data counts; to keep what is here: on {name} `blockmirror connect --discard-my-data \
                     {resource} {node}` (what differs is saved to a branch first), here `blockmirror connect {resource} {name}`"
                ));
            } else if peer.no_space {
                next.push(format!("make room where the images of {name} are"));
            } else if peer.stand_alone.is_some() {
                next.push(format!(
                    "when the reason is gone: `blockmirror connect {resource} {name}`"
                ));
            }
        }
        let nobody = self.partners().all(|at| !self.peers[at].is_connected_primary());
        if self.role == Role::Secondary && nobody && self.change.is_none() {
            next.push(format!(
                "if hosts are to work, here or on another node: `blockmirror promote {resource}`"
            ));
        }
        let connected = self.partners().any(|at| self.peers[at].joined().is_some());
        for at in self.live_volumes().filter(|_| connected) {
            if self.volumes[at].disk == LocalDisk::Diskless {
                next.push(format!(
                    "when its image is there again: `blockmirror attach {}`",
                    self.volumes[at].name
                ));
            }
        }
        for (peer, volume) in self.without_image() {
            next.push(format!(
                "when its image is there again: on {peer} `blockmirror attach {volume}`"
            ));
        }
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
