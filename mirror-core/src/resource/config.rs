//! What a resource is told at its start, and the named bounds of everything in it (I8).

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::config::PeerKind;
pub use crate::identity::SplitBrainPolicy;

/// A handshake that makes no progress for so long is given up, and tried again on a new connection.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Preparing the volumes after a handshake (bits, durable states) may take so long without progress.
pub const PREPARE_MAX: Duration = Duration::from_secs(60);
/// After a refusal that may heal by itself, the peer is tried again so much later.
pub const REFUSED_RETRY: Duration = Duration::from_secs(1);
/// A peer that had no space left is tried again so much later: every try begins a resync.
pub const SPACE_RETRY: Duration = Duration::from_secs(10);
/// While a handshake is under way, what was said of this node is compared with what is true so often.
pub const RECHECK: Duration = Duration::from_millis(100);
/// A promotion waits so long for handshakes that are under way.
pub const SETTLE_MAX: Duration = Duration::from_secs(5);
/// A promotion waits so long for the Primary to become Secondary.
pub const HANDOVER_MAX: Duration = Duration::from_secs(30);
/// A promotion waits so long for the other nodes' consent.
pub const CONSENT_MAX: Duration = Duration::from_secs(5);
/// A node that is asked for consent and sees another Primary waits so long to hear that it is none any more: in a
/// switchover the question may come before that news.
pub const CONSENT_NEWS: Duration = Duration::from_secs(2);
/// What a node has consented to stands so long, unless it hears how it ended.
pub const CONSENT_STANDS: Duration = Duration::from_secs(30);
/// A demotion waits so long for requests of hosts that are in flight.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);
/// A node that gave the role away takes it back when nobody has it after so long.
pub const HANDBACK: Duration = Duration::from_secs(5);
/// Growing the images of all nodes may take so long.
pub const GROW_MAX: Duration = Duration::from_secs(60);
/// An operator is answered within this time, whatever goes on.
pub const COMMAND_MAX: Duration = Duration::from_secs(90);
/// Commands under way at most.
pub const COMMANDS_MAX: usize = 16;
/// Connected nodes make a new common mark in their metadata so often (see `identity::meeting`).
pub const MEETING_EVERY: Duration = Duration::from_secs(60);
/// Runs of blocks in one BITMAP frame.
pub const BITMAP_RUNS: usize = 1024;
/// BITMAP frames per volume: what is left after so many is sent as one run, which only means more to compare.
pub const BITMAP_FRAMES_MAX: usize = 64;

/// One resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceConfig {
    /// Its name, for commands that an operator is told.
    pub name: String,
    /// This node's name.
    pub node: String,
    /// This node's random number of its present life.
    pub incarnation: u64,
    /// Random bits, for new generation identifiers.
    pub entropy: u64,
    /// Seconds since 1970, by this node's clock, at time zero of `handle`.
    pub clock: u64,
    /// Names of its volumes, by volume index.
    pub volumes: Vec<String>,
    /// Its peers, by peer index.
    pub peers: Vec<ResourcePeer>,
    /// The metadata of the volumes say that this node was Primary when it last stopped: see
    /// [`Restored::were_primary`](crate::metadata::Restored::were_primary).
    pub was_primary: bool,
    /// The metadata of some volume say that answered writes may be nowhere any more: see [`NodeIdentity`](crate::identity::NodeIdentity).
    pub answers_lost: bool,
    /// When this node last became Primary, in seconds since 1970, if that is known from before; else 0.
    pub primary_since: u64,
    /// What the node does at a restart if it was Primary.
    pub after_restart: AfterRestart,
    /// What is done about diverged data.
    pub split_brain: SplitBrainPolicy,
    /// Hosts may read while this node is Secondary.
    pub read_only_secondary: bool,
}

/// One peer of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourcePeer {
    /// Its name; of another blockmirror the name of its node.
    pub name: String,
    /// What is there, by the configuration or the metadata; `None`: it has not been reached yet.
    pub kind: Option<PeerKind>,
}

/// What a node that was Primary does when it starts again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AfterRestart {
    /// It becomes Primary again once every other blockmirror is connected, none is Primary, and none has newer data.
    #[default]
    Resume,
    /// It stays Secondary.
    Secondary,
}
