//! What is kept of one peer.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::event::Loss;
use super::why::HandshakeRecord;
use crate::config::PeerKind;
use crate::event::ConnectionId;
use crate::identity::{Decision, Generation, Meeting, NextMeeting, NodeIdentity, Role};
use crate::state::LocalDisk;

/// One peer of the resource.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub name: String,
    /// None: it has not been reached yet.
    pub kind: Option<PeerKind>,
    pub removed: bool,
    pub link: Link,
    /// The shell has been asked to reach it.
    pub dialled: bool,
    /// Not tried before: one of the two has just refused.
    pub not_before: Duration,
    /// It had no space left when it was in step last, or was to be.
    pub no_space: bool,
    /// Nor does it come in before, for that.
    pub rests_until: Duration,
    /// Why it is not tried to reach it, until an operator says otherwise.
    pub stand_alone: Option<String>,
    /// An operator has parted with it: no volume waits for it.
    pub parted: bool,
    /// Its data and ours have diverged: what was seen, until a handshake has succeeded.
    pub split_brain: Option<String>,
    /// It has (or may have, without its image) newer data than this node, as the last handshake found, and this node has not
    /// got it since.
    pub newer: bool,
    /// Volumes in which it had newer data than this node had under this name, at some handshake. It may say otherwise later:
    /// one that lived on another node's image falls back to its own.
    pub lacked: Vec<(usize, Generation)>,
    /// Volumes that were called this when a copy from it began, which may have answered more by this name than any other node
    /// has; the copy has not ended.
    pub unfetched: Vec<(usize, Generation)>,
    /// Its role as it said last, in this connection or an earlier one.
    pub role: Role,
    /// Its images, as it said last on this connection, by name.
    pub disks: Vec<(String, LocalDisk)>,
    /// What was missed on the connection that ends.
    pub missed: Option<Loss>,
    /// How the last connection on which it said who it is ended.
    pub end: Option<End>,
    /// It was told that it may become Primary, then, on the present connection.
    pub consented: Option<Duration>,
    /// It has asked, on this connection, whether it may; the answer waits for news of another node until then.
    pub asked: Option<(ConnectionId, Duration)>,
    /// The last handshake.
    pub record: Option<HandshakeRecord>,
}

/// How a connection ended.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// The peer's role, as it said last.
    pub role: Role,
    /// The peer closed it without a word: its process is gone.
    pub died: bool,
    /// What is missing here.
    pub loss: Option<Loss>,
}

impl End {
    /// Its process is gone, and what it had sent is known: it acknowledges nothing any more.
    pub fn is_known(&self) -> bool {
        self.died && self.loss.is_some_and(|missed| !missed.unknown)
    }
}

/// The connection to a peer.
///
/// ```text
///            Connected               verdicts agree                every volume
///   Down ---------------> Comparing ---------------> Joined ---.   up or parked
///    ^                        |  identity changed:      |  ^---'
///    |                        |  a new revision         |
///    '------------------------'<------------------------'
///      lost; refused; no progress; what was agreed does not hold any more
/// ```
#[derive(Clone, Debug)]
pub(super) enum Link {
    Down,
    Comparing(Comparing),
    Joined(Joined),
}

impl Link {
    pub fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::Down => None,
            Self::Comparing(comparing) => Some(comparing.connection),
            Self::Joined(joined) => Some(joined.connection),
        }
    }
}

/// Both say who they are and what they conclude.
#[derive(Clone, Debug)]
pub(super) struct Comparing {
    pub connection: ConnectionId,
    /// When the other was heard last, for the bound on waiting.
    pub progress: Duration,
    /// What was said last.
    pub said: Option<NodeIdentity>,
    /// What was heard last.
    pub heard: Option<NodeIdentity>,
    /// What follows from the two, once both are there.
    pub rulings: Option<Vec<Ruling>>,
    /// It has been said for these.
    pub verdict_said: bool,
    /// It has not been said although it could: why.
    pub held: Option<String>,
    /// The other's conclusion.
    pub verdict_heard: Option<VerdictHeard>,
}

/// A VERDICT frame.
#[derive(Clone, Debug)]
pub(super) struct VerdictHeard {
    pub my_revision: u32,
    pub your_revision: u32,
    pub verdicts: Vec<u8>,
    pub text: String,
}

/// What a handshake concludes for one volume that both have.
#[derive(Clone, Debug)]
pub(super) struct Ruling {
    pub volume: usize,
    /// Its place in what this node said.
    pub mine: usize,
    /// Its place in what the other said.
    pub theirs: usize,
    pub decision: Decision,
    pub next: NextMeeting,
}

/// The handshake has ended well.
#[derive(Clone, Debug)]
pub(super) struct Joined {
    pub connection: ConnectionId,
    pub progress: Duration,
    pub mine: NodeIdentity,
    pub theirs: NodeIdentity,
    pub lanes: Vec<Lane>,
    pub meet: Meet,
    /// The operator's word, which has done what it was for, was taken back. Once: a volume that has failed keeps it.
    pub word_done: bool,
}

impl Joined {
    /// Every volume is up, or stays parked.
    pub fn is_ready(&self) -> bool {
        self.lanes
            .iter()
            .all(|lane| matches!(lane.stage, LaneStage::Up | LaneStage::Parked))
    }
}

/// One volume on a connection.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub ruling: Ruling,
    pub stage: LaneStage,
    /// Orders that have been given to the mirror for it and are not done.
    pub orders: usize,
    /// This node's bits have to be told once the orders are done, and have not been.
    pub tells_bits: bool,
    /// The other's bits have to come, and have not all come.
    pub wants_bits: bool,
    pub met: NextMeeting,
    /// The last growth on this connection was led by the other as Primary, which knows what was marked here for it.
    pub grows_with_peer: bool,
    /// Neither side lacked anything once on this connection: that the peer does now has come since.
    pub was_in_step: bool,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneStage {
    /// Durable states and bits are on their way.
    Preparing,
    /// The mirror has been told that the peer is up.
    Up,
    /// Nothing can be copied or replicated for now.
    Parked,
}

/// The regular meeting of two connected nodes; see `identity::meeting`.
#[derive(Clone, Debug)]
pub(super) struct Meet {
    /// When the next one is due; only the node whose name comes first looks at it.
    pub due: Duration,
    /// One that is under way: its salt, orders not done, whether the other has answered.
    pub under_way: Option<Mark>,
    /// The other has begun one, which waits until every volume here is up: its salt.
    pub asked: Option<u64>,
}

/// One regular meeting under way.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub salt: u64,
    pub orders: usize,
    /// The other has it durably, or waits for this node.
    pub answered: bool,
    /// The other began it.
    pub asked: bool,
}

impl Peer {
    /// It has said on this connection that its image of the volume is complete.
    pub fn has_complete(&self, volume: &str) -> bool {
        let mut disks = self.disks.iter();
        disks.any(|(name, disk)| name == volume && *disk == LocalDisk::UpToDate)
    }

    pub fn new(name: String, kind: Option<PeerKind>) -> Self {
        Self {
            name,
            kind,
            removed: false,
            link: Link::Down,
            dialled: false,
            not_before: Duration::ZERO,
            no_space: false,
            rests_until: Duration::ZERO,
            stand_alone: None,
            parted: false,
            split_brain: None,
            newer: false,
            lacked: Vec::new(),
            unfetched: Vec::new(),
            role: Role::Secondary,
            disks: Vec::new(),
            missed: None,
            end: None,
            consented: None,
            asked: None,
            record: None,
        }
    }

    /// It is another blockmirror, or nobody knows yet.
    pub fn may_be_partner(&self) -> bool {
        !self.removed && self.kind != Some(PeerKind::Plain)
    }

    /// The handshake is done and everything that could be prepared is.
    pub fn joined(&self) -> Option<&Joined> {
        match &self.link {
            Link::Joined(joined) => Some(joined),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn joined_mut(&mut self) -> Option<&mut Joined> {
        match &mut self.link {
            Link::Joined(joined) => Some(joined),
            _ => None,
        }
    }

    /// It is connected, and has said on this connection that it is Primary.
    pub fn is_connected_primary(&self) -> bool {
        let said = match &self.link {
            Link::Down => false,
            Link::Comparing(comparing) => comparing.heard.is_some(),
            Link::Joined(_) => true,
        };
        said && self.role == Role::Primary
    }
}

impl Lane {
    /// The mark both have in their metadata for each other.
    pub fn next_mark(&self, salt: u64) -> (Meeting, Meeting) {
        (self.met.met.after(salt), self.met.met)
    }
}
