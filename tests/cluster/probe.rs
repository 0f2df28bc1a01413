//! What if the power failed now? The metadata that would be left must know everything that may then differ.

use mirror_core::event::PeerIndex;
use mirror_core::state::{LocalDisk, PeerState};

use crate::disk::{ROT, Stamp};
use crate::node::node_of;
use crate::operation::Work;
use crate::requests::Content;
use crate::world::{Check, World};

impl World {
    /// A Primary that loses its power now: whatever may differ from a peer in step is dirty when it starts again (I1).
    pub fn probe(&mut self, node: usize) -> Check {
        if self.nodes[node].reign.is_none() || self.nodes[node].stopping {
            return Ok(());
        }
        let volume = self.rng.index(self.plan.layouts.len());
        let Some(mirror) = &self.nodes[node].volumes[volume].mirror else {
            return Ok(());
        };
        let in_step = |peer: usize| {
            let index = PeerIndex(peer as u8);
            mirror.peer_state(index) == PeerState::Established && mirror.record(index) == 0
        };
        let peers: Vec<usize> = (0..self.nodes[node].links.len())
            .filter(|&peer| in_step(peer))
            .collect();
        let it = &self.nodes[node].volumes[volume];
        if mirror.disk() != LocalDisk::UpToDate || it.partial || it.failed || peers.is_empty() {
            return Ok(());
        }
        let mut store = it.store.clone();
        if let Some((transaction, _)) = &it.persisting {
            store.carry_out_partly(transaction, &mut self.rng);
        }
        store.power_loss(&mut self.rng);
        let left = self.restored_from(node, volume, store.durable())?;
        let here = self.may_hold(node, volume);
        for peer in peers {
            let other = node_of(node, peer);
            let follows = self.nodes[other].volumes[volume].follows == self.nodes[node].reign;
            if !follows || self.nodes[other].volumes[volume].partial {
                continue;
            }
            let there = self.may_hold(other, volume);
            for (slot, (mine, theirs)) in here.iter().zip(&there).enumerate() {
                let alike = mine.iter().chain(theirs).all(|&stamp| stamp == mine[0]);
                let rotten = mine.is_empty() || theirs.is_empty() || self.is_rotten(volume, slot);
                let block = self.plan.layouts[volume].block(slot);
                if !alike && !rotten && !left.is_dirty(PeerIndex(peer as u8), block) {
                    let text = format!(
                        "if {node} lost its power now, slot {slot} (block {block}) of volume {volume} might be {mine:?} \
                         here and {theirs:?} on {other}, and would not be dirty"
                    );
                    return Err(self.violation("I1", text));
                }
            }
        }
        Ok(())
    }

    /// Some image holds rot in this slot.
    fn is_rotten(&self, volume: usize, slot: usize) -> bool {
        let mut nodes = self.nodes.iter();
        nodes.any(|node| node.volumes[volume].disk.rotten.contains(&slot))
    }

    /// Per slot, everything an image may hold after a crash: what survives and what is on its way.
    fn may_hold(&self, node: usize, volume: usize) -> Vec<Vec<Stamp>> {
        let it = &self.nodes[node].volumes[volume];
        let mut all: Vec<Vec<Stamp>> = (0..it.disk.slots())
            .map(|slot| it.disk.survivors(slot).collect())
            .collect();
        for operation in self.nodes[node]
            .operations
            .values()
            .filter(|operation| operation.volume == volume)
        {
            let Work::Mutate { id, .. } = operation.work else {
                continue;
            };
            if let Some(Content::Stamp(stamp)) = it.requests.get(id).map(|request| &request.content)
                && let Some(write) = self.truth.get(*stamp)
            {
                for slot in write.slots() {
                    if let Some(stamps) = all.get_mut(slot) {
                        stamps.push(*stamp);
                    }
                }
            }
        }
        all.iter_mut().for_each(|stamps| stamps.retain(|&stamp| stamp < ROT));
        all
    }
}
