//! The states of a peer, in the field's terms, and the one function that changes them.

use core::fmt;

/// How far the connection to a peer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionState {
    /// Not connected and not trying: an operator's `disconnect`.
    StandAlone,
    /// Trying.
    Connecting,
    /// Commands can be sent.
    Connected,
}

/// What goes over the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplicationState {
    /// Nothing: not connected.
    Off,
    /// Every write; the peer has everything else already.
    Established,
    /// Every write, and resync of what is dirty.
    SyncSource,
    /// Every write, and resync from the peer to the leg here.
    SyncTarget,
    /// Nothing: the queue was full, writes only mark blocks dirty until what is in flight has ended.
    Behind,
}

/// State of the local image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LocalDisk {
    /// No image: never attached, detached by the operator or by an I/O error. Data is served from a peer.
    Diskless,
    /// Parts of it are newer than others: a resync to it has begun and has not ended.
    Inconsistent,
    /// Complete, and known to be older than what a peer has.
    Outdated,
    /// Complete, and the newest as far as is known.
    #[default]
    UpToDate,
}

impl LocalDisk {
    /// The image is there and all of one time.
    pub(crate) const fn is_whole(self) -> bool {
        matches!(self, Self::Outdated | Self::UpToDate)
    }
}

/// What is known of the data of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskState {
    /// Parts of it are newer than others.
    Inconsistent,
    /// Complete as of an earlier time.
    Outdated,
    /// Complete; whether it is the newest is not known while it is not connected.
    Consistent,
    /// Complete and the newest.
    UpToDate,
}

/// Connection and replication state of a peer, together.
///
/// ```text
///                      PeerUp, clean                       queue full
///  StandAlone <-> Connecting ----------> Established <--------+-------> Behind
///                      |  PeerUp, dirty   ^  |  ^  |          |            |
///                      +----------------> SyncSource <--------+------------+
///                      |                  |  |  |  |         in flight ended
///                      |  PeerUp, target  |  v  |  v
///                      +----------------> SyncTarget -> Established (finished)
///  every connected state -> Connecting (connection lost) or StandAlone (operator)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerState {
    /// Not connected and not trying.
    StandAlone,
    /// Trying to connect.
    Connecting,
    /// Connected and in step.
    Established,
    /// Connected, resync runs.
    SyncSource,
    /// Connected, resync from the peer to here runs.
    SyncTarget,
    /// Connected, but only marking blocks dirty.
    Behind,
}

impl PeerState {
    /// The connection half.
    pub const fn connection(self) -> ConnectionState {
        match self {
            Self::StandAlone => ConnectionState::StandAlone,
            Self::Connecting => ConnectionState::Connecting,
            Self::Established | Self::SyncSource | Self::SyncTarget | Self::Behind => ConnectionState::Connected,
        }
    }

    /// The replication half.
    pub const fn replication(self) -> ReplicationState {
        match self {
            Self::StandAlone | Self::Connecting => ReplicationState::Off,
            Self::Established => ReplicationState::Established,
            Self::SyncSource => ReplicationState::SyncSource,
            Self::SyncTarget => ReplicationState::SyncTarget,
            Self::Behind => ReplicationState::Behind,
        }
    }

    /// Connected in any way.
    pub const fn is_connected(self) -> bool {
        matches!(self.connection(), ConnectionState::Connected)
    }

    /// Writes are sent to the peer in this state.
    pub const fn replicates(self) -> bool {
        matches!(self, Self::Established | Self::SyncSource | Self::SyncTarget)
    }

    /// Go to `to`; a step that is not in the diagram is a bug and stops here.
    pub(crate) fn transition(&mut self, to: Self) {
        let legal = match (*self, to) {
            (Self::StandAlone, Self::Connecting) => true,
            (Self::Connecting, Self::StandAlone | Self::Established | Self::SyncSource | Self::SyncTarget) => true,
            (Self::Established, Self::SyncSource | Self::SyncTarget | Self::Behind) => true,
            (Self::SyncSource, Self::Established | Self::SyncTarget | Self::Behind) => true,
            (Self::SyncTarget, Self::Established | Self::SyncSource) => true,
            (Self::Behind, Self::SyncSource) => true,
            (from, Self::Connecting | Self::StandAlone) => from.is_connected(),
            _ => false,
        };
        assert!(legal, "no step from {:?} to {to:?}", *self);
        *self = to;
    }
}

/// Why a volume takes no more changes. Never retried, never ignored: an operator has to look, and start the daemon again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fatal {
    /// A flush of the image failed: any of what it had answered may be gone.
    Flush,
    /// The metadata could not be written.
    Metadata,
    /// The image was gone, and the `async` partner that served in its place was lost before it had confirmed what was answered.
    Unconfirmed,
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flush => "a flush of the image has failed",
            Self::Metadata => "a metadata write has failed",
            Self::Unconfirmed => {
                "the image is gone, and the async partner that served was lost before it had confirmed what was answered"
            }
        })
    }
}
