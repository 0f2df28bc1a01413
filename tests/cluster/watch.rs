//! What is checked at random moments, how a run moves on to its next phase, and what must hold in the end.

use mirror_core::event::{HostOp, PeerIndex};
use mirror_core::resource::event::HostAccess;
use mirror_core::resource::status::LinkState;
use mirror_core::state::{LocalDisk, PeerState};

use crate::disk::GARBAGE;
use crate::node::node_of;
use crate::world::{Check, Phase, World};

/// Events between two looks at a node, on average.
const LOOK_EVERY: u64 = 100;
/// Events between two looks at whether everything has come back.
const PROGRESS_EVERY: u64 = 16;

impl World {
    /// At random moments: a node that is not Primary holds what a crash of the Primary could have left.
    pub fn watch_moment(&mut self) -> Check {
        if self.rng.below(LOOK_EVERY) != 0 {
            return Ok(());
        }
        let node = self.rng.index(self.nodes.len());
        if self.rng.chance(20) {
            self.probe(node)?;
        }
        if self.nodes[node].reign.is_none() {
            self.judge_prefix(node)?;
        }
        self.judge_bounds(node)
    }

    /// Over all volumes: whoever holds a write holds everything that was durable before it was made.
    fn judge_prefix(&self, node: usize) -> Check {
        let whole = |it: &crate::node::Volume| it.follows.is_some() && !it.partial && it.attached;
        let it = &self.nodes[node].volumes;
        // Volumes that were left behind one by one have no common moment.
        let apart =
            |volume: &crate::node::Volume| (volume.follows, volume.left_step) != (it[0].follows, it[0].left_step);
        if !it.iter().all(whole) || it.iter().any(apart) {
            return Ok(());
        }
        let Some(reign) = it[0].follows else { return Ok(()) };
        if self.reigns[reign].node == node {
            return Ok(());
        }
        let mut newest = 0;
        for volume in it {
            for slot in 0..volume.disk.slots() {
                let stamps = volume.disk.survivors(slot).filter(|&stamp| stamp < GARBAGE);
                let latest = stamps.map(|stamp| self.truth.submitted(stamp)).max();
                newest = newest.max(latest.unwrap_or(0));
            }
        }
        for (at, volume) in it.iter().enumerate() {
            let lineage = &self.reigns[reign].volumes[at];
            for slot in 0..volume.disk.slots().min(lineage.slots()) {
                // An image may be larger than the volume: one that had grown when another node refused to.
                let outside = self.plan.layouts[at].offset(slot) >= volume.offered;
                if outside || volume.disk.rotten.contains(&slot) {
                    continue;
                }
                // Two Secondaries may have grown together: what a new image holds there is marked, and copied over when there
                // is a Primary.
                let grown = self.plan.layouts[at].offset(slot) >= self.plan.layouts[at].size;
                for stamp in volume.disk.survivors(slot).filter(|&stamp| !grown || stamp < GARBAGE) {
                    let complaint = lineage.survives_as_of(&self.truth, slot, stamp, newest);
                    complaint.map_err(|text| {
                        let what = format!("{node}.{at} holds or may hold something of moment {newest}, but {text}");
                        self.violation("epochs", what)
                    })?;
                }
            }
        }
        Ok(())
    }

    /// I8: nothing grows beyond its bound.
    fn judge_bounds(&self, node: usize) -> Check {
        for (peer, link) in self.nodes[node].links.iter().enumerate() {
            let most = self.plan.credit().requests.max(1) as usize;
            if link.intake.in_progress() > most {
                return Err(self.violation("I8", format!("{node} does too much at once for its peer {peer}")));
            }
        }
        Ok(())
    }

    /// The safety phase is over: no more faults, and what is broken is mended.
    pub fn heal(&mut self) -> Check {
        if self.phase != Phase::Safety {
            return Ok(());
        }
        self.trace(|| "** heal".to_owned());
        self.phase = Phase::Convergence;
        self.healed_at = self.now;
        self.broken_until = Default::default();
        for node in &mut self.nodes {
            (node.paused_until, node.slow) = (node.paused_until.min(self.now), 1);
            for it in &mut node.volumes {
                it.failing = Default::default();
                it.bad.clear();
            }
        }
        Ok(())
    }

    /// Move on to the next phase when this one is over.
    pub fn progress(&mut self) -> Check {
        if self.phase == Phase::Safety || !self.steps.is_multiple_of(PROGRESS_EVERY) {
            let spent = self.hosts.submitted >= self.plan.host.requests && self.hosts.is_idle();
            if self.phase == Phase::Safety && spent && !self.plan.scripted && self.faults_are_over() {
                return self.heal();
            }
            return Ok(());
        }
        let Some(primary) = self.whole() else { return Ok(()) };
        if self.compare_all(primary)? {
            return Ok(());
        }
        match self.phase {
            Phase::Convergence => {
                self.judge_equal(primary)?;
                self.phase = Phase::FinalFlush;
                for volume in 0..self.plan.layouts.len() {
                    self.submit(primary, volume, 0, HostOp::Flush)?;
                }
                Ok(())
            }
            _ => {
                self.judge_equal(primary)?;
                self.judge_all_durable()?;
                self.phase = Phase::Over;
                Ok(())
            }
        }
    }

    fn faults_are_over(&self) -> bool {
        self.plan.faults.last().is_none_or(|&(at, _)| at < self.now)
    }

    /// Everything is back and in step, and nothing is on its way: the Primary.
    pub fn whole(&self) -> Option<usize> {
        let mut serving = (0..self.nodes.len()).filter(|&node| self.nodes[node].access == HostAccess::ReadWrite);
        let primary = serving.next()?;
        let failed = |node: &crate::node::Node| node.volumes.iter().any(|it| it.failed);
        let up = |node: &crate::node::Node| node.is_up() && !failed(node);
        let one = serving.next().is_none() && self.nodes.iter().all(up);
        let quiet = self.hosts.is_idle() && self.nodes.iter().all(is_quiet);
        let used = |conn: &crate::net::Conn| !conn.is_quiet() || conn.is_broken();
        let silent = one && quiet && !self.conns.iter().any(|conn| conn.open != [false; 2] && used(conn));
        (silent && (0..self.nodes.len()).all(|node| self.is_in_step(node, primary))).then_some(primary)
    }

    /// A node is connected to every other, and nothing differs as far as it knows. (Two nodes that are not Primary leave
    /// it to the Primary to say what differs.)
    fn is_in_step(&self, node: usize, primary: usize) -> bool {
        let Some(resource) = &self.nodes[node].resource else {
            return false;
        };
        (0..self.nodes[node].links.len()).all(|peer| {
            let index = PeerIndex(peer as u8);
            if node != primary && node_of(node, peer) != primary {
                return resource.link(index) != LinkState::StandAlone;
            }
            let volumes = self.nodes[node].volumes.iter();
            resource.link(index) == LinkState::Connected
                && volumes.filter_map(|it| it.mirror.as_ref()).all(|mirror| {
                    mirror.disk() == LocalDisk::UpToDate
                        && mirror.peer_state(index) == PeerState::Established
                        && mirror.record(index) == 0
                        && mirror.dirty_runs(index, 0, 1).is_empty()
                })
        })
    }

    /// All images hold the same, and it is what hosts were promised.
    pub fn judge_equal(&self, primary: usize) -> Check {
        let Some(reign) = self.nodes[primary].reign else {
            return Ok(());
        };
        for volume in 0..self.plan.layouts.len() {
            let lineage = &self.reigns[reign].volumes[volume];
            let own = &self.nodes[primary].volumes[volume];
            for slot in 0..lineage.slots().min(own.disk.slots()) {
                let stamp = own.disk.read(slot);
                let at = self.plan.layouts[volume].offset(slot);
                if at >= own.offered || own.disk.rotten.contains(&slot) {
                    continue;
                }
                let complaint = lineage.visible(&self.truth, slot, stamp);
                complaint.map_err(|text| self.violation("end", format!("{primary}.{volume}: {text}")))?;
                for peer in 0..self.nodes[primary].links.len() {
                    let other = node_of(primary, peer);
                    let theirs = self.nodes[other].volumes[volume].disk.read(slot);
                    if theirs != stamp {
                        let text = format!("{volume}: slot {slot} is {stamp} on {primary}, {theirs} on {other}");
                        return Err(self.violation("images differ", text));
                    }
                }
            }
        }
        Ok(())
    }

    /// After the last flush no image has anything left to lose.
    fn judge_all_durable(&self) -> Check {
        if self.plan.mode == mirror_core::config::AckMode::Async {
            return Ok(());
        }
        for (node, it) in self.nodes.iter().enumerate() {
            for (volume, it) in it.volumes.iter().enumerate() {
                let slot = (0..it.disk.slots()).find(|&slot| !it.disk.is_settled(slot));
                if let Some(slot) = slot {
                    let text = format!("{node}.{volume}: slot {slot} is volatile after the last flush");
                    return Err(self.violation("I5", text));
                }
            }
        }
        Ok(())
    }

    /// A run that does not come to its end.
    pub fn stuck(&self, how: &str) -> Check {
        let mut text = format!(
            "{how}, {} us after the last fault",
            self.now.saturating_sub(self.healed_at)
        );
        for (at, node) in self.nodes.iter().enumerate() {
            let role = node.resource.as_ref().map(mirror_core::resource::Resource::role);
            text.push_str(&format!("\n  {at}: {role:?}, hosts {:?}", node.access));
            for (volume, it) in node.volumes.iter().enumerate() {
                let disk = it.mirror.as_ref().map(mirror_core::Mirror::disk);
                text.push_str(&format!(
                    "\n    volume {volume}: {disk:?}, {} requests, peers:",
                    it.requests.len
                ));
                for peer in 0..node.links.len() {
                    let index = PeerIndex(peer as u8);
                    let link = node.resource.as_ref().map(|resource| resource.link(index));
                    let dirty = it.mirror.as_ref().map(|mirror| mirror.dirty_runs(index, 0, 4));
                    let record = it.mirror.as_ref().map(|mirror| mirror.record(index));
                    text.push_str(&format!(
                        " {} {link:?} {:?} record {record:x?} dirty {dirty:?};",
                        node_of(at, peer),
                        it.states[peer]
                    ));
                }
            }
        }
        Err(self.violation("liveness", text))
    }
}

fn is_quiet(node: &crate::node::Node) -> bool {
    // (A volume that has failed refuses everything until its daemon is started again.)
    let rests = |it: &crate::node::Volume| it.persisting.is_none() && !it.failed;
    let still = |it: &crate::node::Volume| rests(it) && it.requests.len == 0 && it.held.is_empty();
    node.operations.is_empty() && node.said.is_empty() && !node.turning && node.volumes.iter().all(still)
}
