//! The present state of a volume, for the operator.

use blockmirror_client::admin::{ConnectionState, DiskState, ReplicationState};
use mirror_core::config::PeerKind;
use mirror_core::state;
use mirror_core::status::{PeerStatus, ResyncStatus};

use super::message::{PeerSnapshot, ResyncSnapshot};
use super::peer::{Link, Peer};

/// What the core and the link know of a peer.
pub(super) fn peer_snapshot(peer: &Peer, kind: PeerKind, status: &PeerStatus) -> PeerSnapshot {
    PeerSnapshot {
        name: peer.name().to_owned(),
        connection_state: connection_state(status.state.connection()),
        replication_state: replication_state(status.state.replication()),
        disk_state: disk_state(status.disk),
        dirty_bytes: status.dirty_bytes,
        in_flight: peer.link().map_or(status.in_flight, Link::in_flight),
        queue_bytes: status.queue_bytes,
        resync: status.resync.as_ref().map(resync_snapshot),
        last_resync: status.last_resync.as_ref().map(resync_snapshot),
        kind,
        verify: status.verify,
        last_verify: status.last_verify,
        last_error: peer.last_error().map(str::to_owned),
        attempts: peer.attempts(),
        waited_for: status.waited_for,
    }
}

const fn connection_state(state: state::ConnectionState) -> ConnectionState {
    match state {
        state::ConnectionState::StandAlone => ConnectionState::StandAlone,
        state::ConnectionState::Connecting => ConnectionState::Connecting,
        state::ConnectionState::Connected => ConnectionState::Connected,
    }
}

const fn replication_state(state: state::ReplicationState) -> ReplicationState {
    match state {
        state::ReplicationState::Off => ReplicationState::Off,
        state::ReplicationState::Established => ReplicationState::Established,
        state::ReplicationState::SyncSource => ReplicationState::SyncSource,
        state::ReplicationState::SyncTarget => ReplicationState::SyncTarget,
        state::ReplicationState::Behind => ReplicationState::Behind,
    }
}

const fn disk_state(state: state::DiskState) -> DiskState {
    match state {
        state::DiskState::Inconsistent => DiskState::Inconsistent,
        state::DiskState::Outdated => DiskState::Outdated,
        state::DiskState::Consistent => DiskState::Consistent,
        state::DiskState::UpToDate => DiskState::UpToDate,
    }
}

const fn resync_snapshot(status: &ResyncStatus) -> ResyncSnapshot {
    ResyncSnapshot {
        dirty_at_start_bytes: status.dirty_at_start,
        done_bytes: status.done,
        copied_bytes: status.shipped,
        zeroed_bytes: status.zeroed,
        equal_bytes: status.equal,
        remaining_bytes: status.remaining,
        bytes_per_second: status.speed,
        eta: status.rest,
        allowed_bytes_per_second: status.allowed,
        limit: status.limit,
        elapsed: status.elapsed,
    }
}
