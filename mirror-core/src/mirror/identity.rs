//! What a mirror says of itself to others: its identity, its dirty blocks.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use super::Mirror;
use crate::config::PeerKind;
use crate::event::PeerIndex;
use crate::identity::{Generation, Role, VolumeIdentity};
use crate::state::{LocalDisk, PeerState};

impl Mirror {
    /// Its role. Hosts may write only once [`Order::Promote`](crate::event::Order) is done.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The state of the local image.
    pub fn disk(&self) -> LocalDisk {
        self.superblock.disk
    }

    /// The generation of the data here.
    pub fn generation(&self) -> Generation {
        self.superblock.generation
    }

    /// Earlier generations, the latest first.
    pub fn history(&self) -> &[Generation] {
        &self.superblock.history
    }

    /// The generation that the peer is recorded to hold; 0: it is in step.
    pub fn record(&self, peer: PeerIndex) -> Generation {
        self.peers[usize::from(peer.0)].record.generation
    }

    /// Connection and replication state of the peer.
    pub fn peer_state(&self, peer: PeerIndex) -> PeerState {
        self.peers[usize::from(peer.0)].state
    }

    /// What the peer is to be told of this volume. The name is the shell's to fill in.
    pub fn identity(&self, peer: PeerIndex) -> VolumeIdentity {
        let at = usize::from(peer.0);
        let link = &self.peers[at];
        let partner = |other: &&super::Peer| other.config.kind == PeerKind::Partner && !other.removed;
        let others = self.peers.iter().enumerate().filter(|&(other, _)| other != at);
        let others = others.map(|(_, other)| other).filter(partner);
        let held = others.map(|other| other.record.generation);
        VolumeIdentity {
            name: String::new(),
            size: self.config.size,
            fresh: self.superblock.fresh,
            current: self.superblock.generation,
            for_peer: link.record.generation,
            for_others: held.filter(|&generation| generation != 0).collect(),
            history: self.superblock.history.clone(),
            withdrawn: self.unused_names(),
            disk: self.superblock.disk,
            crashed_primary: self.superblock.primary && self.role == Role::Secondary,
            dirty_bytes: link.dirty_bytes(self.config.size),
            acks_wait: self.superblock.acks_wait,
            sync: link.record.sync,
            met: link.met[0],
            met_before: link.met[1],
        }
    }

    /// What a peer that has the data may call them, beside what they are called here: while none is there.
    fn unused_names(&self) -> Vec<Generation> {
        if self.nobody_has_data() {
            self.withdrawn_names().to_vec()
        } else {
            Vec::new()
        }
    }

    /// The operator has given up for the peer's data what is here, and it is the same data still.
    pub fn gives_up(&self, peer: PeerIndex) -> bool {
        let word = self
            .peers
            .get(usize::from(peer.0))
            .map_or(0, |link| link.record.given_up);
        word != 0 && word == self.superblock.generation
    }

    /// There is data here that the operator has not given up for the peer's, or that came from a third node since.
    pub fn keeps_data_from(&self, peer: PeerIndex) -> bool {
        let word = self
            .peers
            .get(usize::from(peer.0))
            .map_or(0, |link| link.record.given_up);
        word == 0 && !self.superblock.fresh && self.superblock.disk == LocalDisk::UpToDate
    }

    /// Runs of blocks that are dirty for the peer, at and after block `from`, at most `max` runs.
    pub fn dirty_runs(&self, peer: PeerIndex, from: u64, max: usize) -> Vec<Range<u64>> {
        let dirty = &self.peers[usize::from(peer.0)].dirty;
        let mut runs = Vec::new();
        let mut at = from;
        while runs.len() < max {
            let Some(run) = dirty.next_run(at, u64::MAX) else { break };
            at = run.end;
            runs.push(run);
        }
        runs
    }

    /// No data was ever declared.
    pub fn is_fresh(&self) -> bool {
        self.superblock.fresh
    }

    /// It was Primary when it last ran, or is, and nobody else has been since, as far as is known here.
    pub fn was_primary(&self) -> bool {
        self.superblock.resume
    }
}
