//! Who has what is answered.

use mirror_core::state::PeerState;

use crate::disk::Stamp;
use crate::node::{PEERS, peer_of};
use crate::reign::Lineage;
use crate::truth::Promise;
use crate::world::World;

impl World {
    /// By node, what the Primary can say of a write it answers.
    pub fn promises(&self, node: usize, volume: usize, stamp: Stamp, states: [PeerState; PEERS]) -> Vec<Promise> {
        let lineage = self.nodes[node].reign.map(|reign| &self.reigns[reign].volumes[volume]);
        let asynchronous = self.plan.mode == mirror_core::config::AckMode::Async;
        let has = |other: usize| {
            let disk = &self.nodes[other].volumes[volume].disk;
            let mut slots = self.truth.get(stamp).into_iter().flat_map(|write| write.slots());
            slots.all(|slot| {
                if slot >= disk.slots() {
                    return false;
                }
                let present = disk.read(slot);
                if asynchronous && other != node {
                    // Another that was written at the same time does not stand for it.
                    return self.truth.is_ancestor(stamp, present, slot);
                }
                let fine = |lineage: &Lineage| lineage.visible(&self.truth, slot, present).is_ok();
                disk.rotten.contains(&slot) || lineage.is_some_and(fine)
            })
        };
        (0..self.nodes.len())
            .map(|other| {
                // `async`: one that fell Behind lacks what an operator's force gives up, as the queue before it.
                let replicates = other != node && states[peer_of(node, other)].is_connected();
                // What a peer forgets after it has answered only a flush could have kept. (`async`: it need not have.)
                let forgot = !asynchronous && other != node && self.nodes[other].volumes[volume].power_lost;
                let landed = self
                    .truth
                    .get(stamp)
                    .is_some_and(|write| write.landed >> other & 1 == 1);
                if has(other) || (other != node && (forgot || landed)) {
                    Promise::Has
                } else if asynchronous && replicates {
                    Promise::Queued
                } else {
                    Promise::Lacks
                }
            })
            .collect()
    }
}
