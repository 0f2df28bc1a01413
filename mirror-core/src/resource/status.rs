//! What the resource is doing: a copy for whoever asks.

use alloc::string::String;
use alloc::vec::Vec;

use super::Resource;
use super::event::HostAccess;
use super::peer::{Joined, LaneStage, Link, Peer};
use super::roles::Change;
use crate::config::PeerKind;
use crate::event::PeerIndex;
use crate::identity::Role;
use crate::state::LocalDisk;

/// How far the connection to another blockmirror has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkState {
    /// Not connected and not trying.
    StandAlone,
    /// Trying.
    Connecting,
    /// Connected; what to do is being decided.
    Handshake,
    /// Decided; volumes are being prepared.
    Preparing,
    /// Every volume that can be is up.
    Connected,
}

/// One resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceStatus {
    /// Role.
    pub role: Role,
    /// A change of role is under way: which.
    pub changing: Option<&'static str>,
    /// What hosts may do.
    pub hosts: HostAccess,
    /// When this node last became Primary, in seconds since 1970; 0: never, or not known.
    pub primary_since: u64,
    /// The peers, by index; forgotten ones too.
    pub peers: Vec<PeerStatus>,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// What is there; `None`: not reached yet.
    pub kind: Option<PeerKind>,
    /// It was removed; the index is not used any more.
    pub removed: bool,
    /// The connection. Of a plain server: `Connecting`, and the mirrors have the truth.
    pub link: LinkState,
    /// Its role as it said last.
    pub role: Option<Role>,
    /// Its images by volume name, on the present connection.
    pub disks: Vec<(String, LocalDisk)>,
    /// Volumes for which nothing can be copied or replicated for now.
    pub parked: Vec<String>,
    /// Why the node stands alone towards it.
    pub stand_alone: Option<String>,
    /// It had no space left, and has not been in step since.
    pub no_space: bool,
    /// The data has diverged: what was seen.
    pub split_brain: Option<String>,
}

impl Resource {
    /// A copy of the present state.
    pub fn status(&self) -> ResourceStatus {
        ResourceStatus {
            role: self.role,
            changing: self.changing(),
            hosts: self.hosts.unwrap_or(HostAccess::Shut),
            primary_since: self.past.primary_since,
            peers: self.peers.iter().map(peer_status).collect(),
        }
    }

    /// How far the connection to a peer has come.
    pub fn link(&self, peer: PeerIndex) -> LinkState {
        link_state(&self.peers[super::place(peer)])
    }

    /// The peer that is Primary, as it said last, unless it is being looked for.
    pub fn primary_peer(&self) -> Option<&str> {
        let is_primary = |peer: &&Peer| {
            peer.record.is_some() && peer.role == Role::Primary && link_state(peer) != LinkState::Connecting
        };
        self.peers.iter().find(is_primary).map(|peer| peer.name.as_str())
    }

    /// What was seen when the data of this node and the peer's were found to have diverged.
    pub fn split_brain(&self, peer: PeerIndex) -> Option<&str> {
        self.peers[super::place(peer)].split_brain.as_deref()
    }

    pub(super) fn changing(&self) -> Option<&'static str> {
        match &self.change {
            None if self.growth.is_some() => Some("a volume grows"),
            None => None,
            Some(Change::Promotion(_)) => Some("becoming Primary"),
            Some(Change::Demotion(_)) => Some("becoming Secondary"),
        }
    }
}

pub(super) fn link_state(peer: &Peer) -> LinkState {
    match &peer.link {
        Link::Down if peer.stand_alone.is_some() => LinkState::StandAlone,
        Link::Down => LinkState::Connecting,
        Link::Comparing(_) => LinkState::Handshake,
        Link::Joined(joined) if joined.is_ready() => LinkState::Connected,
        Link::Joined(_) => LinkState::Preparing,
    }
}

fn peer_status(peer: &Peer) -> PeerStatus {
    let parked = |joined: &Joined| {
        let lanes = joined.lanes.iter().filter(|lane| lane.stage == LaneStage::Parked);
        lanes
            .map(|lane| joined.mine.volumes[lane.ruling.mine].name.clone())
            .collect()
    };
    PeerStatus {
        name: peer.name.clone(),
        kind: peer.kind,
        removed: peer.removed,
        link: link_state(peer),
        role: peer.record.as_ref().map(|_| peer.role),
        disks: peer.disks.clone(),
        parked: peer.joined().map(parked).unwrap_or_default(),
        stand_alone: peer.stand_alone.clone(),
        no_space: peer.no_space,
        split_brain: peer.split_brain.clone(),
    }
}
