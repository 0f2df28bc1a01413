//! What the operator does when the faults are over: one step after the other towards a whole cluster.

use mirror_core::resource::event::HostAccess;
use mirror_core::resource::status::LinkState;
use mirror_core::state::{LocalDisk, PeerState};

use crate::faults::Action;
use crate::node::{Node, Volume, node_of, peer_of};
use crate::outcome::Violation;
use crate::world::{Check, World};

impl World {
    /// The faults are over: one step towards a whole cluster.
    pub fn look_and_heal(&mut self) -> Check {
        self.operator.looks += 1;
        if self.operator.waits() || self.nodes.iter().any(|node| !node.is_up()) {
            return Ok(());
        }
        let failed = |node: &Node| node.volumes.iter().any(|it| it.failed);
        if let Some(node) = self.nodes.iter().position(failed) {
            return self.carry_out(Action::Restart(node));
        }
        for node in 0..self.nodes.len() {
            for volume in 0..self.plan.layouts.len() {
                if self.lacks_image(node, volume) {
                    // Perhaps he was refused when he had put a new one in.
                    let replaced = self.nodes[node].volumes[volume].follows.is_none();
                    return self.carry_out(Action::Attach { node, volume, replaced });
                }
            }
        }
        let primaries: Vec<usize> = (0..self.nodes.len())
            .filter(|&node| self.nodes[node].access == HostAccess::ReadWrite)
            .collect();
        let survivor = self.survivor(&primaries);
        if primaries.len() == 1 && primaries[0] != survivor {
            return self.carry_out(Action::Demote(primaries[0]));
        }
        if primaries.len() > 1 {
            let extra = primaries.into_iter().find(|&node| node != survivor).unwrap_or(0);
            return self.carry_out(Action::Demote(extra));
        }
        if self.even_sizes()? {
            return Ok(());
        }
        if let Some(&primary) = primaries.first()
            && self.operator.looks.is_multiple_of(16)
            && (self.nobody_has_data() || self.lacks_data(primary))
        {
            // He has to declare some of what is left to be the data: by another promotion.
            return self.carry_out(Action::Demote(primary));
        }
        if self.reconnect(survivor)? {
            self.operator.reconnects += 1;
            if self.operator.reconnects % 10 == 5 && primaries.is_empty() {
                // Perhaps nobody's data is complete: he has to declare some.
                return self.find_primary(survivor);
            }
            if self.operator.reconnects % 10 == 9 && !primaries.is_empty() {
                // Perhaps its data is older than what it would have to overwrite: it has to give way.
                return self.carry_out(Action::Demote(survivor));
            }
            return Ok(());
        }
        if let Some(&primary) = primaries.first()
            && self.operator.looks.is_multiple_of(8)
            && let Some(from) = self.marked(primary)
        {
            // Blocks that a verify has marked are copied after the next handshake.
            let node = primary;
            return self.carry_out(Action::Disconnect { node, from });
        }
        if primaries.is_empty() && self.operator.looks.is_multiple_of(3) {
            return self.find_primary(survivor);
        }
        Ok(())
    }

    /// The node whose data is kept.
    fn survivor(&self, primaries: &[usize]) -> usize {
        let latest = |&&node: &&usize| self.nodes[node].reign.map_or(0, |reign| self.reigns[reign].since);
        let whole = |&&node: &&usize| {
            let reachable = |it: &Volume| it.states.iter().any(|state| state.is_connected());
            self.nodes[node].volumes.iter().all(|it| !it.partial || reachable(it))
        };
        if let Some(&node) = primaries.iter().filter(whole).max_by_key(latest) {
            return node;
        }
        let score = |&node: &usize| {
            let it = &self.nodes[node].volumes;
            let whole = it.iter().all(|it| !it.partial && it.attached);
            let reign = it.iter().filter_map(|it| it.follows).min().unwrap_or(0);
            let in_step = it.iter().all(|it| it.left_at == 0);
            (whole, in_step, reign, std::cmp::Reverse(node))
        };
        (0..self.nodes.len()).max_by_key(score).unwrap_or(0)
    }

    /// Of some volume no image is complete, not even an older one.
    fn nobody_has_data(&self) -> bool {
        let complete = |node: &Node, volume: usize| {
            let disk = node.volumes[volume].mirror.as_ref().map(mirror_core::Mirror::disk);
            matches!(disk, Some(LocalDisk::UpToDate | LocalDisk::Outdated))
        };
        (0..self.plan.layouts.len()).any(|volume| !self.nodes.iter().any(|node| complete(node, volume)))
    }

    /// The Primary lacks some of its own data, and nobody brings it: whoever has an image has it from before that, or waits to
    /// be copied to itself.
    fn lacks_data(&self, primary: usize) -> bool {
        let brings = |state: &PeerState| state.is_connected() && *state != PeerState::SyncSource;
        self.nodes[primary].volumes.iter().any(|it| {
            let whole = it
                .mirror
                .as_ref()
                .is_none_or(|mirror| mirror.disk() == LocalDisk::UpToDate);
            !whole && !it.states.iter().any(brings)
        })
    }

    /// A volume that has grown on one node only grows on the other.
    fn even_sizes(&mut self) -> Result<bool, Violation> {
        for volume in 0..self.plan.layouts.len() {
            let largest = self
                .nodes
                .iter()
                .map(|node| node.volumes[volume].offered)
                .max()
                .unwrap_or(0);
            // The Primary first: what it is connected to grows with it.
            let by_role = |&node: &usize| self.nodes[node].access != HostAccess::ReadWrite;
            let mut small: Vec<usize> = (0..self.nodes.len())
                .filter(|&node| self.nodes[node].volumes[volume].offered < largest)
                .collect();
            small.sort_by_key(by_role);
            let small = small.first().copied();
            // Growing may be under way: only what stays apart is his.
            if let Some(node) = small.filter(|_| self.operator.looks % 16 == 8) {
                self.carry_out(Action::Resize { node, volume })?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A peer in step, but for blocks that are marked as different.
    fn marked(&self, node: usize) -> Option<usize> {
        let differs = |peer: usize| {
            let index = mirror_core::event::PeerIndex(peer as u8);
            self.nodes[node].volumes.iter().any(|it| {
                let dirty = |mirror: &mirror_core::Mirror| !mirror.dirty_runs(index, 0, 1).is_empty();
                it.states[peer] == PeerState::Established && it.mirror.as_ref().is_some_and(dirty)
            })
        };
        let marked = (0..self.nodes[node].links.len()).find(|&peer| differs(peer));
        marked.map(|peer| node_of(node, peer))
    }

    fn stands_alone(&self, node: usize, peer: usize) -> bool {
        let index = mirror_core::event::PeerIndex(peer as u8);
        let resource = self.nodes[node].resource.as_ref();
        resource.is_some_and(|resource| resource.link(index) == LinkState::StandAlone)
    }

    /// Nobody is Primary: without force first, then by force, then without the others.
    fn find_primary(&mut self, survivor: usize) -> Check {
        self.operator.refused += 1;
        if self.operator.refused > 12 && self.operator.refused.is_multiple_of(4) {
            for from in (0..self.nodes.len()).filter(|&from| from != survivor) {
                self.carry_out(Action::Disconnect { node: survivor, from })?;
            }
        }
        let force = self.operator.refused > 4;
        self.promote(survivor, force)
    }

    /// Links that wait for an operator: the others give way to the survivor.
    fn reconnect(&mut self, survivor: usize) -> Result<bool, Violation> {
        let mut acted = false;
        for node in 0..self.nodes.len() {
            for peer in 0..self.nodes[node].links.len() {
                if !self.stands_alone(node, peer) {
                    continue;
                }
                let to = node_of(node, peer);
                let split = self.is_split(node, to) || self.is_split(to, node);
                let discard = split && (to == survivor || (node != survivor && to < node));
                acted = true;
                self.carry_out(Action::Connect { node, to, discard })?;
            }
        }
        Ok(acted)
    }

    /// A node says that the other's history has diverged from its own.
    pub fn is_split(&self, node: usize, other: usize) -> bool {
        let peer = mirror_core::event::PeerIndex(peer_of(node, other) as u8);
        let resource = self.nodes[node].resource.as_ref();
        resource.is_some_and(|resource| resource.split_brain(peer).is_some())
    }

    /// At the end everything is compared, if sectors rotted: what differs is repaired from the Primary.
    pub fn compare_all(&mut self, primary: usize) -> Result<bool, Violation> {
        let rotten = self
            .nodes
            .iter()
            .any(|node| node.volumes.iter().any(|it| !it.disk.rotten.is_empty()));
        if !rotten || self.operator.compared > 40 {
            return Ok(false);
        }
        if self.operator.waits() || self.operator.looks < self.operator.compared * 8 {
            return Ok(true);
        }
        self.operator.compared += 1;
        for volume in 0..self.plan.layouts.len() {
            for with in (0..self.nodes.len()).filter(|&with| with != primary) {
                let (node, repair) = (primary, true);
                self.carry_out(Action::Verify {
                    node,
                    volume,
                    with,
                    repair,
                })?;
            }
        }
        Ok(true)
    }
}
