//! What a mirror says of itself, for operators.

use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use super::Mirror;
use crate::event::PeerIndex;
use crate::identity::Role;
use crate::state::{DiskState, Fatal, LocalDisk, PeerState};

pub use super::rate::Limit;

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
    /// Found equal by digests.
    pub equal: u64,
    /// Still dirty.
    pub remaining: u64,
    /// Since it began.
    pub elapsed: Duration,
    /// Bytes per second by which the rest became less lately.
    pub speed: Option<u64>,
    /// How long the rest will take at that speed.
    pub rest: Option<Duration>,
    /// Bytes per second that are allowed now.
    pub allowed: u64,
    /// Bytes that may be in flight now.
    pub window: u64,
    /// What keeps it from being faster.
    pub limit: Limit,
}

/// Progress of a comparison, or the sum of the last one. All in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyStatus {
    /// To be compared.
    pub total: u64,
    /// Compared so far.
    pub done: u64,
    /// Found different, in whole blocks: dirty now.
    pub different: u64,
    /// Not compared: not readable, here or there.
    pub unread: u64,
    /// What is different will be copied.
    pub repair: bool,
    /// Everything was compared.
    pub finished: bool,
    /// Since it began.
    pub elapsed: Duration,
    /// Bytes per second lately.
    pub speed: Option<u64>,
    /// How long the rest will take at that speed.
    pub rest: Option<Duration>,
}

/// Neither the image of a Primary nor any peer that is connected has all of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoData {
    /// For so long.
    pub elapsed: Duration,
    /// How long changes wait still for somebody who has; zero: they are refused, `None`: without end.
    pub rest: Option<Duration>,
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
    /// The comparison that goes on.
    pub verify: Option<VerifyStatus>,
    /// The last one that ended.
    pub last_verify: Option<VerifyStatus>,
    /// It has been away for so long, and changes of hosts wait for it (`on_disconnect = "suspend"`).
    pub waited_for: Option<Duration>,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its role.
    pub role: Role,
    /// State of the local image.
    pub disk: LocalDisk,
    /// Names the data of this node.
    pub generation: u64,
    /// Earlier names that are remembered.
    pub history: usize,
    /// Extents in the activity log.
    pub hot_extents: usize,
    /// The volume has failed, by this.
    pub failed: Option<Fatal>,
    /// Mutations and flushes between `Host` and `Release`.
    pub requests: usize,
    /// Of these, how many wait for a peer to come back.
    pub held: usize,
    /// Nobody who is here has the data.
    pub no_data: Option<NoData>,
    /// In the order of the configuration.
    pub peers: Vec<PeerStatus>,
}

impl Mirror {
    /// The first run of blocks at or after block `from` in which this node and the peer differ, as far as is known: what
    /// a resync between them would copy. Where the peer is not known, everything.
    pub fn dirty_run(&self, peer: PeerIndex, from: u64) -> Option<Range<u64>> {
        match self.peers.get(usize::from(peer.0)) {
            Some(link) => link.dirty.next_run(from, u64::MAX),
            None => Some(from..u64::MAX),
        }
    }

    /// Nothing can be promised any more.
    pub(super) fn has_failed(&self) -> bool {
        self.fatal.is_some()
    }

    /// Mutations and flushes that wait for a peer to come back.
    fn held(&self) -> usize {
        let started = self.ids(|request| request.held != 0 && !request.replied).len();
        let flushes = self.flushes.iter().filter(|flush| flush.held != 0).count();
        self.suspended.len() + started + flushes
    }

    /// A snapshot.
    pub fn status(&self, now: Duration) -> Status {
        let primary = self.role == Role::Primary && !self.has_failed();
        let peers = self.peers.iter().map(|peer| {
            let dirty_bytes = peer.dirty_bytes(self.config.size);
            let running = |progress: ResyncStatus| ResyncStatus {
                remaining: dirty_bytes,
                elapsed: now.saturating_sub(peer.resync.started_at),
                speed: peer.resync.eta.speed(now, dirty_bytes),
                rest: peer.resync.eta.rest(now, dirty_bytes),
                allowed: peer.resync.rate.allowed(),
                window: peer.resync.rate.window(),
                limit: peer.resync.rate.limit(),
                ..progress
            };
            PeerStatus {
                state: peer.state,
                disk: match peer.state {
                    // Verify has found blocks that differ.
                    PeerState::Established if dirty_bytes > 0 => DiskState::Inconsistent,
                    PeerState::Established | PeerState::SyncTarget => DiskState::UpToDate,
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
                verify: peer.verify.as_ref().map(|verify| verify.status(now, self.config.size)),
                last_verify: peer.last_verify,
                waited_for: (primary && peer.is_waited_for()).then(|| now.saturating_sub(peer.gone_since)),
            }
        });
        Status {
            role: self.role,
            disk: self.superblock.disk,
            history: self.superblock.history.len(),
            generation: self.superblock.generation,
            hot_extents: self.log.as_ref().map_or(0, |log| log.len()),
            failed: self.fatal,
            requests: self.mutations + self.flushes.len(),
            held: self.held(),
            no_data: self.no_data(now).filter(|_| primary),
            peers: peers.collect(),
        }
    }
}
