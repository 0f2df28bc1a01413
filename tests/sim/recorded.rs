//! What the metadata file may say is dirty after a crash: what is dirty or hot now, and what the file still says for want
//! of a transaction. Anything else would be copied without a reason.

use mirror_core::event::PeerIndex;
use mirror_core::range::{BLOCK_BYTES, EXTENT_BLOCKS};
use mirror_core::state::PeerState;

use crate::links::Peer;
use crate::world::{Check, World};

impl World {
    /// Blocks dirty for a peer.
    pub fn dirty_blocks(&self, peer: PeerIndex) -> u64 {
        let Some(mirror) = &self.primary.mirror else { return 0 };
        if usize::from(peer.0) >= self.primary.configured {
            return 0;
        }
        (0..self.scenario.layout.size.div_ceil(BLOCK_BYTES))
            .filter(|&block| mirror.is_dirty(peer, block))
            .count() as u64
    }

    /// What may be dirty after the next start: what is dirty or hot now, or is so on disk for want of a transaction.
    pub fn note_may_be_dirty(&mut self) {
        let Some(mirror) = &self.primary.mirror else { return };
        let blocks = self.scenario.layout.size.div_ceil(BLOCK_BYTES);
        let hot = |block: u64| {
            self.primary
                .logged
                .iter()
                .any(|log| log.contains(&(block / EXTENT_BLOCKS)))
        };
        let of_peer = |(at, peer): (usize, &Peer)| {
            let dirty = |block: u64| mirror.is_dirty(PeerIndex(at as u8), block);
            let recorded = |block: u64| peer.recorded.as_ref().is_some_and(|dirty| dirty[block as usize]);
            (0..blocks)
                .map(|block| dirty(block) || recorded(block) || hot(block))
                .collect()
        };
        self.primary.may_be_dirty = Some(self.configured().map(of_peer).collect());
    }

    /// A transaction that began at this step is durable: the file knows which peers were in step by then.
    pub fn note_persisted(&mut self, started: u64) -> Check {
        let generation = self
            .primary
            .durable_generation()
            .map_err(|error| self.violation("metadata", error))?;
        for (peer, state) in self.peers.iter_mut().zip(&self.primary.states) {
            if *state == PeerState::Established && peer.in_step_since.is_some_and(|step| step < started) {
                peer.recorded = None;
                peer.generation = Some(generation);
            }
        }
        Ok(())
    }

    /// A peer is in step or no longer: bits that are clear here may still be set in the file until the next transaction.
    pub fn note_recorded(&mut self, peer: usize, state: PeerState) {
        let Some(mirror) = &self.primary.mirror else { return };
        let blocks = self.scenario.layout.size.div_ceil(BLOCK_BYTES);
        if matches!(state, PeerState::SyncSource | PeerState::Behind) {
            let before = self.peers[peer].recorded.take();
            let recorded = |block: u64| before.as_ref().is_some_and(|dirty| dirty[block as usize]);
            let dirty = |block: u64| mirror.is_dirty(PeerIndex(peer as u8), block);
            self.peers[peer].recorded = Some((0..blocks).map(|block| recorded(block) || dirty(block)).collect());
        }
    }
}
