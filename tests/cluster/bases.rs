//! What an image holds when its node becomes Primary, comes into step, dies, or starts again, held against what hosts were
//! promised.

use crate::disk::Disk;
use crate::node::{node_of, peer_of};
use crate::reign::Complaint;
use crate::world::{Check, World};

impl World {
    /// Is what a node begins its reign with what was promised to hosts before?
    pub fn judge_base(&mut self, node: usize, volume: usize, disk: &Disk, forced: bool) -> Check {
        let it = &self.nodes[node].volumes[volume];
        let Some(follows) = it.follows else { return Ok(()) };
        if (it.partial && forced) || self.judge.discarded {
            return Ok(());
        }
        let lineage = &self.reigns[follows].volumes[volume];
        let limit = it.with_its_primary_until();
        let forgot = it.power_lost || it.forgot_at > self.reigns[follows].since;
        for slot in 0..lineage.slots().min(disk.slots()) {
            let stamp = disk.read(slot);
            let complaint: Complaint = if it.disk.rotten.contains(&slot) {
                Ok(())
            } else if forced && self.plan.mode == mirror_core::config::AckMode::Async {
                lineage.exists(slot, stamp)
            } else if forced {
                lineage.survives_as_of(&self.truth, slot, stamp, limit)
            } else if forgot {
                lineage.survives(&self.truth, slot, stamp)
            } else {
                lineage.visible(&self.truth, slot, stamp)
            };
            complaint.map_err(|text| {
                let how = if forced { "by force" } else { "without force" };
                self.violation("promotion", format!("{node}.{volume} is promoted {how}: {text}"))
            })?;
        }
        Ok(())
    }

    /// Nobody becomes Primary without force while the Primary whose data it has still is.
    pub fn judge_beside(&self, node: usize) -> Check {
        if self.nodes[node].forcing {
            return Ok(());
        }
        let followed: Vec<_> = self.nodes[node].volumes.iter().filter_map(|it| it.follows).collect();
        let mut others = (0..self.nodes.len()).filter(|&other| other != node);
        let primary = others.find(|&other| self.nodes[other].reign.is_some_and(|reign| followed.contains(&reign)));
        match primary {
            Some(other) => Err(self.violation("promotion", format!("{node} is promoted without force beside {other}"))),
            None => Ok(()),
        }
    }

    /// A node has died: does its image hold what its hosts were promised?
    pub fn judge_death(&mut self, node: usize, power: bool) -> Check {
        let Some(reign) = self.nodes[node].reign else {
            return Ok(());
        };
        for volume in 0..self.plan.layouts.len() {
            let it = &self.nodes[node].volumes[volume];
            if it.partial || !it.attached {
                continue;
            }
            let lineage = &self.reigns[reign].volumes[volume];
            for slot in 0..lineage.slots().min(it.disk.slots()) {
                let stamp = it.disk.read(slot);
                let complaint = if power || it.power_lost {
                    lineage.survives(&self.truth, slot, stamp)
                } else {
                    lineage.visible(&self.truth, slot, stamp)
                };
                complaint.map_err(|text| self.violation("crash", format!("{node}.{volume}: {text}")))?;
            }
        }
        self.reign_ends(node);
        Ok(())
    }

    /// A node has read its metadata after a crash: what differs from a peer that was in step is dirty.
    pub fn judge_start(&mut self, node: usize) -> Check {
        for volume in 0..self.plan.layouts.len() {
            let it = &self.nodes[node].volumes[volume];
            let Some(follows) = it.follows else { continue };
            if self.reigns[follows].node != node || it.partial || !it.attached {
                continue;
            }
            for peer in 0..self.nodes[node].links.len() {
                let theirs = &self.nodes[node_of(node, peer)].volumes[volume];
                let same = theirs.follows == Some(follows) && theirs.left_at == 0 && !theirs.partial;
                let mirror = self.nodes[node].volumes[volume].mirror.as_ref();
                let record = mirror.map(|mirror| mirror.record(mirror_core::event::PeerIndex(peer as u8)));
                if !same || record != Some(0) {
                    continue;
                }
                self.judge_coverage(node, volume, peer)?;
            }
        }
        Ok(())
    }

    /// Marks of either node count: a copy from a third one marks everything on the node that it was made to.
    fn judge_coverage(&mut self, node: usize, volume: usize, peer: usize) -> Check {
        let other = node_of(node, peer);
        let bytes = self.nodes[other].volumes[volume].store.durable().to_vec();
        let after_crash = self.restored_from(other, volume, &bytes)?;
        let back = mirror_core::event::PeerIndex(peer_of(other, node) as u8);
        let it = &self.nodes[node].volumes[volume];
        let theirs = &self.nodes[other].volumes[volume];
        let Some(mirror) = it.mirror.as_ref() else {
            return Ok(());
        };
        let layout = &self.plan.layouts[volume];
        for slot in 0..it.disk.slots().min(theirs.disk.slots()) {
            let (here, there) = (it.disk.read(slot), theirs.disk.read(slot));
            let rotten = it.disk.rotten.contains(&slot) || theirs.disk.rotten.contains(&slot);
            let index = mirror_core::event::PeerIndex(peer as u8);
            let block = layout.block(slot);
            if after_crash.is_dirty(back, block) {
                continue;
            }
            if here != there && !rotten && layout.offset(slot) < it.offered && !mirror.is_dirty(index, block) {
                let text = format!(
                    "after a restart slot {slot} (block {block}) is {here} on {node}.{volume} and {there} on its \
                     peer {peer}, which counts as in step, but it is not dirty"
                );
                return Err(self.violation("coverage", text));
            }
        }
        Ok(())
    }

    /// A node that has just come into step holds what hosts of the reign were promised: everything, or all but what may be on
    /// its way to it.
    pub fn judge_in_step(&mut self, reign: usize, other: usize, volume: usize, everything: bool) -> Check {
        let disk = &self.nodes[other].volumes[volume].disk;
        let lineage = &self.reigns[reign].volumes[volume];
        for slot in 0..lineage.slots().min(disk.slots()) {
            let stamp = disk.read(slot);
            let outside = self.plan.layouts[volume].offset(slot) >= self.nodes[other].volumes[volume].offered;
            let complaint = if outside || disk.rotten.contains(&slot) {
                Ok(())
            } else if everything {
                lineage
                    .visible(&self.truth, slot, stamp)
                    .and_then(|()| lineage.all_survive(&self.truth, disk, slot))
            } else {
                lineage.exists(slot, stamp)
            };
            complaint.map_err(|text| self.violation("in step", format!("{other}.{volume}: {text}")))?;
        }
        Ok(())
    }
}
