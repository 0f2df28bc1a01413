//! What a mirror says of itself, for operators.

use alloc::vec::Vec;
use core::time::Duration;

use super::Mirror;
use crate::state::{DiskState, PeerState};

/// Progress of a resync, or the sum of the last one. All in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResyncStatus {
    /// Dirty when it began.
    pub dirty_at_start: u64,
    /// Covered so far, payload and holes.
    pub done: u64,
    /// Payload sent.
    pub shipped: u64,
    /// Zeroed on the peer, or found zero there.
    pub zeroed: u64,
    /// Still dirty.
    pub remaining: u64,
    /// Since it began.
    pub elapsed: Duration,
}

/// One peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Connection and replication state.
    pub state: PeerState,
    /// What is known of its data.
    pub disk: DiskState,
    /// Bytes it lacks, in whole blocks.
    pub dirty_bytes: u64,
    /// Payload bytes it has not answered, queued or sent: what an `async` peer may lack beyond its dirty blocks.
    pub queue_bytes: u64,
    /// Entries queued for it.
    pub queued: usize,
    /// Requests sent to it and not answered.
    pub in_flight: usize,
    /// The resync that runs.
    pub resync: Option<ResyncStatus>,
    /// The last one that finished.
    pub last_resync: Option<ResyncStatus>,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Names the data of this node.
    pub generation: u64,
    /// Extents in the activity log.
    pub hot_extents: usize,
    /// A local flush or a metadata write failed.
    pub failed: bool,
    /// Mutations and flushes between `Host` and `Release`.
    pub requests: usize,
    /// In the order of the configuration.
    pub peers: Vec<PeerStatus>,
}

impl Mirror {
    /// A snapshot.
    pub fn status(&self, now: Duration) -> Status {
        let peers = self.peers.iter().map(|peer| {
            let dirty_bytes = peer.dirty_bytes(self.config.size);
            let running = |progress: ResyncStatus| ResyncStatus {
                remaining: dirty_bytes,
                elapsed: now.saturating_sub(peer.resync.started_at),
                ..progress
            };
            PeerStatus {
                state: peer.state,
                disk: match peer.state {
                    PeerState::Established => DiskState::UpToDate,
                    PeerState::SyncSource => DiskState::Inconsistent,
                    _ if !peer.record.synced => DiskState::Inconsistent,
                    _ if dirty_bytes > 0 => DiskState::Outdated,
                    _ => DiskState::Consistent,
                },
                dirty_bytes,
                queue_bytes: peer.queue_bytes,
                queued: peer.queue.len(),
                in_flight: peer.window,
                resync: peer.resync.progress.map(running),
                last_resync: peer.resync.last,
            }
        });
        Status {
            generation: self.superblock.generation,
            hot_extents: self.log.as_ref().map_or(0, |log| log.len()),
            failed: self.failed,
            requests: self.mutations + self.flushes.len(),
            peers: peers.collect(),
        }
    }
}
