//! Holding the world against the checker: at every answer, at every change of state, after every crash, and at random
//! moments as if a crash came now.

use std::time::Duration;

use mirror_core::Mirror;
use mirror_core::config::{AckMode, OnDisconnect};
use mirror_core::event::{HostOp, PeerIndex};
use mirror_core::range::{BLOCK_BYTES, EXTENT_BYTES};
use mirror_core::state::PeerState;

use crate::checker::Moment;
use crate::disk::{Disk, Stamp};
use crate::legs::{Leg, Operation};
use crate::world::{Check, Phase, World};

/// Inputs between two looks at bounds and what-if crashes, on average.
const LOOK_EVERY: u64 = 80;

impl World {
    /// After every input: a peer that became Established has everything.
    pub fn note_states(&mut self) -> Check {
        let Some(mirror) = &self.primary.mirror else {
            return Ok(());
        };
        let status = mirror.status(Duration::from_micros(self.now));
        for (at, peer) in status.peers.iter().enumerate() {
            let before = std::mem::replace(&mut self.primary.states[at], peer.state);
            if before != peer.state {
                self.note_recorded(at, peer.state);
                self.peers[at].invalidated &= peer.state == PeerState::SyncSource;
            }
            if peer.state == PeerState::Established && before != PeerState::Established {
                if self.peers[at].recorded.is_none() {
                    let generation = self.primary.durable_generation();
                    self.peers[at].generation = generation.ok();
                }
                self.peers[at].in_step_since = Some(self.steps);
                self.judge_established(at)?;
            }
        }
        Ok(())
    }

    /// Every slot of a peer that is in step.
    fn judge_established(&mut self, peer: usize) -> Check {
        if let Some(latest) = self.peers[peer].latest_sent {
            self.judge_order_of_flushes(peer, latest)?;
        }
        let crate::links::Peer { plan, disk, .. } = &self.peers[peer];
        let violation = |text| self.violation("established", format!("peer {peer}: {text}"));
        for slot in self.checker.everything() {
            if plan.mode == AckMode::Sync {
                self.checker.visible(slot, disk.read(slot)).map_err(violation)?;
                disk.survivors(slot)
                    .try_for_each(|stamp| self.checker.survives(slot, stamp))
                    .map_err(violation)?;
            } else {
                self.checker.exists(slot, disk.read(slot)).map_err(violation)?;
            }
        }
        Ok(())
    }

    /// A write was answered.
    pub fn judge_write(&mut self, stamp: Stamp, fua: bool) -> Check {
        self.tally.writes += 1;
        self.checker.answer(stamp, fua);
        let runs = self.checker.runs(stamp);
        let fine = |disk: &Disk, forgot: bool| {
            if !forgot {
                self.checker.all_visible(disk, runs)?;
            }
            if fua {
                self.checker.all_survive(disk, runs)
            } else {
                Ok(())
            }
        };
        fine(&self.local, false).map_err(|text| self.violation("write", format!("local: {text}")))?;
        let mut lacking = Vec::new();
        for (at, peer) in self.configured().filter(|(_, peer)| peer.plan.mode == AckMode::Sync) {
            // Applied on both and answered is the promise; what a peer then forgets only a flush could have kept.
            if let Err(text) = fine(&peer.disk, peer.forgotten.contains(&stamp)) {
                self.judge_lack(at, &text)?;
                lacking.push(at);
            }
        }
        self.tally.degraded += lacking.len() as u64;
        let answered = self.checker.now();
        for peer in self
            .peers
            .iter_mut()
            .filter(|peer| fua && peer.plan.mode == AckMode::Async)
        {
            peer.flushed.push((stamp, answered));
        }
        lacking.into_iter().try_for_each(|peer| self.judge_generation(peer))
    }

    /// A flush submitted at `since` was answered.
    pub fn judge_flush(&mut self, since: Moment) -> Check {
        self.tally.flushes += 1;
        let durable = self.checker.flushed(since);
        let answered = self.checker.now();
        let check = |disk: &Disk| {
            durable
                .iter()
                .try_for_each(|&stamp| self.checker.all_survive(disk, self.checker.runs(stamp)))
        };
        check(&self.local).map_err(|text| self.violation("I5", format!("flush, local: {text}")))?;
        if self.primary.unflushed_life {
            let all = [self.checker.everything()];
            let result = self.checker.all_survive(&self.local, &all);
            result.map_err(|text| self.violation("I5", format!("first flush after a restart, local: {text}")))?;
        }
        for (at, peer) in self.configured().filter(|(_, peer)| peer.plan.mode == AckMode::Sync) {
            check(&peer.disk).or_else(|text| self.judge_lack(at, &text))?;
        }
        self.primary.unflushed_life = false;
        for peer in self.peers.iter_mut().filter(|peer| peer.plan.mode == AckMode::Async) {
            peer.flushed.extend(durable.iter().map(|&stamp| (stamp, answered)));
        }
        Ok(())
    }

    /// Something was answered that a synchronous peer lacks: only its state and its policy may allow that.
    fn judge_lack(&self, peer: usize, text: &str) -> Check {
        let state = self.primary.said_in[peer];
        let policy = self.peers[peer].plan.on_disconnect;
        let allowed = match state {
            PeerState::Established => false,
            PeerState::SyncSource | PeerState::SyncTarget | PeerState::Behind => true,
            // A stop ends every wait.
            PeerState::Connecting | PeerState::StandAlone => {
                let parted = policy == OnDisconnect::Suspend && self.now <= self.primary.free_until[peer];
                policy == OnDisconnect::Continue || parted || self.primary.stopping
            }
        };
        if allowed {
            return Ok(());
        }
        Err(self.violation(
            "promise",
            format!("answered, but peer {peer} ({state:?}, {policy:?}): {text}"),
        ))
    }

    /// I4: a write was answered that the peer lacks. The metadata must already name a newer generation than the one
    /// the peer last held.
    fn judge_generation(&mut self, peer: usize) -> Check {
        let Some(held) = self.peers[peer].generation else {
            return Ok(());
        };
        let recorded = self
            .primary
            .durable_generation()
            .map_err(|error| self.violation("metadata", error))?;
        if recorded == held {
            return Err(self.violation(
                "I4",
                format!("a write that peer {peer} lacks was answered under its generation"),
            ));
        }
        Ok(())
    }

    /// The primary's process or power is gone: is what its leg holds what the host was promised?
    pub fn judge_local(&mut self, power: bool) -> Check {
        for slot in self.checker.everything() {
            let stamp = self.local.read(slot);
            let verdict = if power {
                self.checker.survives(slot, stamp)
            } else {
                self.checker.visible(slot, stamp)
            };
            verdict.map_err(|text| self.violation("crash", format!("local: {text}")))?;
        }
        if power {
            self.checker.power_lost(&self.local);
            self.peers.iter_mut().for_each(|peer| peer.flushed.clear());
        } else {
            self.checker.process_died(&self.local);
        }
        Ok(())
    }

    /// The primary has read its metadata: everything that differs is dirty, and nothing is that needs not be.
    pub fn judge_start(&mut self, mirror: &Mirror) -> Check {
        self.judge_coverage(mirror, "after a restart")?;
        let Some(allowed) = self.primary.may_be_dirty.take() else {
            return Ok(());
        };
        for (peer, allowed) in allowed.iter().enumerate().take(self.primary.configured) {
            let index = PeerIndex(peer as u8);
            let extra = (0..allowed.len()).find(|&at| !allowed[at] && mirror.is_dirty(index, at as u64));
            if let Some(block) = extra {
                let text = format!("block {block} of peer {peer} is dirty, though it was neither dirty nor hot");
                return Err(self.violation("restart copies too much", text));
            }
        }
        Ok(())
    }

    /// Whatever may differ between the legs after a crash is dirty in this mirror.
    pub fn judge_coverage(&self, mirror: &Mirror, when: &str) -> Check {
        let local = self.may_hold(&self.local, |leg| leg == Leg::Local);
        for (at, peer) in self.configured() {
            let theirs = self.may_hold(&peer.disk, |leg| matches!(leg, Leg::Peer(of, _) if of == at));
            for slot in self.checker.everything() {
                let alike = |stamp: &Stamp| *stamp == local[slot][0];
                if local[slot].iter().all(alike) && theirs[slot].iter().all(alike) {
                    continue;
                }
                let block = self.scenario.layout.block(slot);
                if !mirror.is_dirty(PeerIndex(at as u8), block) {
                    let text = format!(
                        "{when}: slot {slot} (block {block}, extent {}) may be {:?} here and {:?} on peer {at}, but \
                         is not dirty",
                        block * BLOCK_BYTES / EXTENT_BYTES,
                        local[slot],
                        theirs[slot]
                    );
                    return Err(self.violation("coverage", text));
                }
            }
        }
        Ok(())
    }

    /// The mirror says it has stopped: everything answered is durable.
    pub fn judge_stopped(&mut self) -> Check {
        if self.primary.broken {
            return Ok(());
        }
        let now = self.checker.now();
        self.checker.flushed(now);
        let all = [self.checker.everything()];
        let result = self.checker.all_survive(&self.local, &all);
        result.map_err(|text| self.violation("stop", format!("stopped, local: {text}")))
    }

    /// At random moments: bounds, and what a power loss now would leave.
    pub fn watch_moment(&mut self) -> Check {
        if self.rng.below(LOOK_EVERY) != 0 {
            return Ok(());
        }
        let Some(mirror) = &self.primary.mirror else {
            return Ok(());
        };
        let status = mirror.status(Duration::from_micros(self.now));
        for (at, peer) in status.peers.iter().enumerate() {
            let plan = &self.peers[at].plan;
            // An empty queue takes one request of any length.
            let longest = self.scenario.hot_extents as u64 * EXTENT_BYTES;
            if plan.mode == AckMode::Async && peer.queue_bytes > plan.queue_bytes.max(longest) {
                return Err(self.violation("I8", format!("{} bytes are queued for peer {at}", peer.queue_bytes)));
            }
        }
        if status.hot_extents > self.scenario.hot_extents {
            return Err(self.violation("I8", format!("{} extents are hot", status.hot_extents)));
        }
        self.probe()
    }

    /// What if the power failed now?
    fn probe(&mut self) -> Check {
        self.tally.probes += 1;
        let bytes = self.primary.store.after_power_loss(&mut self.rng);
        let restored = self.primary.restore(&bytes, &self.peer_slots(), 1);
        let (restored, _) = restored.map_err(|error| self.violation("metadata", error))?;
        let mirror = self.new_mirror(restored);
        self.judge_coverage(&mirror, "if the power failed now")
    }

    /// Move on to the next phase when this one is over.
    pub fn progress(&mut self) -> Check {
        let done = match self.phase {
            Phase::Safety => self.host.submitted >= self.scenario.host.requests && self.host.requests.is_empty(),
            Phase::Convergence | Phase::FinalFlush => self.has_converged(),
            Phase::Over => false,
        };
        if !done {
            return Ok(());
        }
        match self.phase {
            Phase::Safety => self.heal(),
            Phase::Convergence => {
                self.judge_equal()?;
                self.phase = Phase::FinalFlush;
                self.submit(0, HostOp::Flush)
            }
            Phase::FinalFlush | Phase::Over => {
                self.judge_equal()?;
                self.judge_all_durable()?;
                self.phase = Phase::Over;
                Ok(())
            }
        }
    }

    fn has_converged(&self) -> bool {
        let Some(mirror) = &self.primary.mirror else {
            return false;
        };
        let status = mirror.status(Duration::from_micros(self.now));
        let in_step = status
            .peers
            .iter()
            .all(|peer| peer.state == PeerState::Established && peer.dirty_bytes == 0);
        let whole = self.primary.configured == self.peers.len();
        whole
            && in_step
            && !self.primary.stopping
            && !self.primary.broken
            && self.host.requests.is_empty()
            && self.is_quiet()
    }

    /// Nothing is on its way, and no connection is gone without the primary's knowledge.
    fn is_quiet(&self) -> bool {
        let sound = |peer: &crate::links::Peer| peer.up && !peer.link.blocked;
        self.operations.is_empty() && self.primary.is_quiet() && self.peers.iter().all(sound)
    }

    /// All legs hold the same, and it is what the host was promised.
    fn judge_equal(&self) -> Check {
        for slot in self.checker.everything() {
            let stamp = self.local.read(slot);
            self.checker
                .visible(slot, stamp)
                .map_err(|text| self.violation("end", format!("local: {text}")))?;
            for (at, peer) in self.peers.iter().enumerate() {
                let theirs = peer.disk.read(slot);
                if theirs != stamp {
                    let text = format!("slot {slot} is {stamp} here, {theirs} on peer {at}");
                    return Err(self.violation("legs differ", text));
                }
            }
        }
        Ok(())
    }

    /// After the last flush no leg has anything left to lose.
    fn judge_all_durable(&self) -> Check {
        let legs = std::iter::once(&self.local).chain(self.peers.iter().map(|peer| &peer.disk));
        for (leg, disk) in legs.enumerate() {
            for slot in self.checker.everything() {
                if disk.survivors(slot).any(|stamp| stamp != disk.read(slot)) {
                    return Err(
                        self.violation("I5", format!("leg {leg}: slot {slot} is volatile after the last flush"))
                    );
                }
            }
        }
        Ok(())
    }

    /// Per slot, everything a leg may hold after a crash: what survives and what is on its way.
    fn may_hold(&self, disk: &Disk, mine: impl Fn(Leg) -> bool) -> Vec<Vec<Stamp>> {
        let mut all: Vec<Vec<Stamp>> = self
            .checker
            .everything()
            .map(|slot| disk.survivors(slot).collect())
            .collect();
        let on_leg = |operation: &&Operation| mine(operation.leg);
        for (slot, stamp) in self.operations.values().filter(on_leg).flat_map(Operation::may_write) {
            all[slot].push(stamp);
        }
        all
    }
}
