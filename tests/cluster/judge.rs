//! Holding answers, landings and overwritten sectors against what hosts were promised.

use mirror_core::config::{AckMode, OnDisconnect};
use mirror_core::event::Refusal;
use mirror_core::state::{LocalDisk, PeerState};

use crate::disk::{GARBAGE, ROT, Stamp};
use crate::node::{PEERS, Word, node_of, peer_of};
use crate::outcome::Broken;
use crate::requests::{Asked, Sectors};
use crate::truth::{Moment, Promise};
use crate::world::{Check, World};

/// What the checker remembers beside reigns and writes.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Generations that writes were answered under, and by whom.
    written_under: Vec<(u64, usize)>,
    grown: [bool; 4],
    /// An operator gave some node's data up: what another lacks of it is lost by his word.
    pub discarded: bool,
    /// A scenario took frames out of a stream.
    pub frames_taken: bool,
}

impl Memory {
    /// Some image of the volume has grown.
    pub fn grew(&mut self, volume: usize) {
        if let Some(grown) = self.grown.get_mut(volume) {
            *grown = true;
        }
    }
}

impl World {
    /// A host request was answered.
    pub fn judge_reply(
        &mut self,
        node: usize,
        volume: usize,
        asked: Asked,
        outcome: Result<(), Refusal>,
        abandoned: bool,
        states: [PeerState; PEERS],
    ) -> Check {
        if let Err(refusal) = outcome {
            self.tally.refusals += 1;
            if let Asked::Write { stamp, .. } = asked {
                self.truth.give_up(stamp);
            }
            // Nobody hears what becomes of a request whose connection is gone.
            return if abandoned {
                Ok(())
            } else {
                self.judge_refusal(node, refusal)
            };
        }
        if abandoned {
            return Ok(());
        }
        match asked {
            Asked::Write { stamp, fua } => self.judge_write(node, volume, stamp, fua, states),
            Asked::Flush(since) => self.judge_flush(node, volume, since, states),
        }
    }

    fn judge_write(
        &mut self,
        node: usize,
        volume: usize,
        stamp: Stamp,
        fua: bool,
        states: [PeerState; PEERS],
    ) -> Check {
        self.tally.writes += 1;
        let now = self.truth.tick();
        if let Some(write) = self.truth.get_mut(stamp) {
            (write.closed, write.answered) = (now, now);
            write.durable = if fua { now } else { 0 };
        }
        let Some(reign) = self.nodes[node]
            .reign
            .or_else(|| self.truth.get(stamp).map(|write| write.reign))
        else {
            return Ok(());
        };
        if !fua {
            self.reigns[reign].volumes[volume].answered_volatile(stamp);
        }
        let promised = self.promises(node, volume, stamp, states);
        if let Some(write) = self.truth.get_mut(stamp) {
            write.promised[..promised.len()].copy_from_slice(&promised);
        }
        let own = &self.nodes[node].volumes[volume];
        let whole = own.attached && !own.partial;
        if whole && promised[node] != Promise::Has {
            return Err(self.violation(
                "write",
                format!("write {stamp} is answered by {node}.{volume}, which lacks it"),
            ));
        }
        if !promised.contains(&Promise::Has) {
            return Err(self.violation("write", format!("write {stamp} is answered and nobody has it")));
        }
        self.judge_generation_used(node, volume)?;
        if fua {
            self.judge_durable(node, volume, &[stamp], states)?;
        }
        for other in (0..promised.len()).filter(|&other| other != node) {
            if promised[other] == Promise::Lacks {
                let state = states[peer_of(node, other)];
                self.judge_lack(node, other, volume, state, "a write")?;
            }
        }
        Ok(())
    }

    /// Something was answered that a peer lacks: only its state and its policy may allow that, and only under a
    /// generation that the peer does not have (I4).
    fn judge_lack(&mut self, node: usize, other: usize, volume: usize, state: PeerState, what: &str) -> Check {
        self.tally.degraded += 1;
        let sync = self.plan.mode == AckMode::Sync;
        let parted =
            self.plan.on_disconnect == OnDisconnect::Suspend && self.operator.has_parted(node, other, self.now);
        let free = peer_of(node, other) > 0 || self.plan.on_disconnect == OnDisconnect::Continue || parted;
        let allowed = match state {
            PeerState::Established => !sync,
            state if state.is_connected() => true,
            _ => !sync || free || self.nodes[node].stopping,
        };
        if !allowed {
            let text = format!("{node}.{volume} answers {what} that {other} ({state:?}) lacks");
            return Err(self.violation("promise", text));
        }
        let theirs = &self.nodes[other].volumes[volume];
        if theirs.partial || theirs.follows.is_none() || !theirs.created {
            return Ok(());
        }
        if !sync && self.is_half_open(node) {
            // A peer that has given this node up already may have passed its generation on; soon there is a new one.
            return Ok(());
        }
        let (mine, held) = (
            self.known(node, volume)?.generation,
            self.known(other, volume)?.generation,
        );
        if mine == held && self.nodes[node].volumes[volume].attached {
            let text = format!("{node}.{volume} answers {what} that {other} lacks, under the generation {other} has");
            return Err(self.violation("I4", text));
        }
        Ok(())
    }

    /// Some peer has given the connection up, and this node does not know.
    fn is_half_open(&self, node: usize) -> bool {
        (0..self.nodes[node].links.len()).any(|peer| {
            let other = node_of(node, peer);
            let there = peer_of(other, node);
            let link = &self.nodes[node].links[peer];
            let conn = self.nodes[other].links[there].conn;
            // What was decided while the connection seemed to be there comes out after it is given up.
            link.conn.map_or(link.given_up == self.now, |own| conn != Some(own))
        })
    }

    /// I7: two nodes never answer writes under one generation.
    fn judge_generation_used(&mut self, node: usize, volume: usize) -> Check {
        let Some(mirror) = &self.nodes[node].volumes[volume].mirror else {
            return Ok(());
        };
        let generation = mirror.generation();
        match self
            .judge
            .written_under
            .iter()
            .rev()
            .find(|&&(known, _)| known == generation)
        {
            Some(&(_, by)) if by == node => Ok(()),
            Some(&(_, by)) => {
                let text = format!("{node} and {by} both answer writes under generation {generation:x}");
                Err(self.violation("I7", text))
            }
            None => {
                self.judge.written_under.push((generation, node));
                Ok(())
            }
        }
    }

    fn judge_flush(&mut self, node: usize, volume: usize, since: Moment, states: [PeerState; PEERS]) -> Check {
        self.tally.flushes += 1;
        let Some(reign) = self.nodes[node].reign else {
            return Ok(());
        };
        let durable = self.reigns[reign].volumes[volume].flushed(&mut self.truth, since);
        self.judge_durable(node, volume, &durable, states)
    }

    /// These writes were answered as durable: they survive a power loss wherever the mode says.
    fn judge_durable(&self, node: usize, volume: usize, stamps: &[Stamp], states: [PeerState; PEERS]) -> Check {
        let Some(reign) = self.nodes[node].reign else {
            return Ok(());
        };
        let lineage = &self.reigns[reign].volumes[volume];
        for other in 0..self.nodes.len() {
            let it = &self.nodes[other].volumes[volume];
            let promised = if other == node {
                it.attached && !it.partial
            } else {
                let state = states[peer_of(node, other)];
                // One that has been made Primary by force since it said so has a life of its own.
                let follows = it.follows == Some(reign) && !it.partial;
                self.plan.mode == AckMode::Sync && state == PeerState::Established && follows
            };
            if !promised {
                continue;
            }
            for slot in stamps
                .iter()
                .filter_map(|&stamp| self.truth.get(stamp))
                .flat_map(|write| write.slots())
            {
                if slot >= it.disk.slots() || it.disk.rotten.contains(&slot) {
                    continue;
                }
                let complaint = lineage.all_survive(&self.truth, &it.disk, slot);
                complaint
                    .map_err(|text| self.violation("I5", format!("durable by {node}, but {other}.{volume}: {text}")))?;
            }
        }
        Ok(())
    }

    fn judge_refusal(&self, node: usize, refusal: Refusal) -> Check {
        let caused = match refusal {
            Refusal::Local(_) => {
                self.plan.has_disk_faults() || self.nodes[node].volumes.iter().any(|it| !it.attached || it.partial)
            }
            Refusal::PeerGone(_) => self.plan.on_disconnect != OnDisconnect::Continue || self.plan.has_disk_faults(),
            Refusal::VolumeFailed => self.nodes[node].volumes.iter().any(|it| it.failed) || self.plan.has_disk_faults(),
            Refusal::Stopping => self.nodes[node].stopping,
            #[allow(unreachable_patterns, reason = "newer reasons")]
            _ => true,
        };
        if caused {
            return Ok(());
        }
        Err(self.violation("refusal", format!("{node}: {refusal:?} has no cause")))
    }

    /// A host's read was answered.
    pub fn judge_read(&self, node: usize, volume: usize, reign: usize, since: Moment, sectors: &Sectors) -> Check {
        let lineage = &self.reigns[reign].volumes[volume];
        for &(slot, stamp) in sectors {
            let slot = slot as usize;
            let rotten =
                (0..self.nodes.len()).any(|other| self.nodes[other].volumes[volume].disk.rotten.contains(&slot));
            if rotten || slot >= lineage.slots() {
                continue;
            }
            let complaint = lineage.readable(&self.truth, slot, stamp, since);
            complaint.map_err(|text| self.violation("I6", format!("{node}.{volume}: {text}")))?;
        }
        Ok(())
    }

    /// A host's write lands on a sector: never on a newer one.
    pub fn judge_landing(&mut self, node: usize, volume: usize, slot: usize, present: Stamp, stamp: Stamp) -> Check {
        // One that failed here comes again before those after it, which have landed and come again as well.
        let again = self.nodes[node].volumes[volume].refused.contains(&stamp);
        if present < GARBAGE && present != stamp && !again && self.truth.supersedes(present, stamp) {
            let text =
                format!("{node}.{volume} slot {slot}: write {stamp} lands over the newer, answered write {present}");
            return Err(self.violation("order", text));
        }
        let own = self.truth.get(stamp).map(|write| self.reigns[write.reign].node) == Some(node);
        let firm = own && !self.nodes[node].volumes[volume].partial;
        self.truth.lands(stamp, slot, present, firm);
        Ok(())
    }

    /// A copy overwrites a sector: nothing that was answered is lost without the operator's word.
    pub fn judge_overwrite(
        &mut self,
        node: usize,
        volume: usize,
        slot: usize,
        present: Stamp,
        stamp: Stamp,
        source: usize,
    ) -> Check {
        if present != stamp && stamp < ROT {
            self.judge_claim(node, volume, slot, source)?;
        }
        let it = &self.nodes[node].volumes[volume];
        if present == stamp
            || present >= GARBAGE
            || stamp >= ROT
            || it.word == Word::Worthless
            || it.refused.contains(&present)
            || it.disk.rotten.contains(&slot)
            || self.nodes[source].volumes[volume].disk.rotten.contains(&slot)
        {
            return Ok(());
        }
        let Some(write) = self.truth.get(present) else {
            return Ok(());
        };
        // What came while the image was not whole was not entrusted to it.
        // Nor is what an image held that was being overwritten by somebody else already.
        let torn = it.partial && (write.answered > it.partial_since || it.partial_from != Some(source));
        if it.follows.is_none() || torn {
            return Ok(());
        }
        // What its Primary answered, or made durable, after it had gone on without this node, it did not entrust to it: that
        // is of a generation of the Primary's own, and the copy here may be a stray one.
        let limit = it.with_its_primary_until();
        let durable = write.durable != 0 && write.durable < limit;
        // A node may have said that it has it before its power failed, and been heard afterwards.
        let forgot_at = self.nodes[source].volumes[volume].forgot_at;
        let volatile = !durable && forgot_at > self.truth.submitted(present);
        let entrusted = write.answered != 0 && write.answered < limit && !volatile;
        if !entrusted || self.truth.is_ancestor(present, stamp, slot) {
            return Ok(());
        }
        if self.given_up_by_force(present, source, volume) {
            return Ok(());
        }
        if it.word == Word::Discard {
            let saved = it.branch.as_ref().and_then(|branch| branch.get(&slot));
            if saved == Some(&present) {
                return Ok(());
            }
            let text =
                format!("{node}.{volume} slot {slot}: write {present} is discarded and not in the branch ({saved:?})");
            return Err(self.violation("branch", text));
        }
        let text = format!(
            "{node}.{volume} slot {slot}: write {present}, answered, is overwritten by write {stamp} of {source}, which \
             was not made over it, and nobody gave it up (promised: {:?})",
            write.promised
        );
        Err(self.violation("discarded", text))
    }

    /// I10: an image that is copied to block by block is not whole. If the power failed now, would its metadata say so?
    fn judge_claim(&mut self, node: usize, volume: usize, slot: usize, source: usize) -> Check {
        let it = &self.nodes[node].volumes[volume];
        if it.disk.rotten.contains(&slot) || !it.partial || self.known(node, volume)?.disk != LocalDisk::UpToDate {
            return Ok(());
        }
        let text = format!(
            "{node}.{volume} slot {slot} is overwritten by {source}, but a crash now would find the image called whole"
        );
        Err(self.violation("I10", text))
    }

    /// `async`: a promotion by force gave up what was still on its way to the node promoted.
    fn given_up_by_force(&self, present: Stamp, source: usize, volume: usize) -> bool {
        let Some(write) = self.truth.get(present) else {
            return false;
        };
        // What it had in its cache only nobody had promised of it.
        let asynchronous = self.plan.mode == AckMode::Async;
        let mut at = self.nodes[source].reign.or(self.nodes[source].volumes[volume].follows);
        while let Some(reign) = at {
            let it = &self.reigns[reign];
            let forgotten = asynchronous && self.nodes[it.node].volumes[volume].forgot_at > write.submitted;
            let promised = write.promised[it.stands_for(write, volume)];
            let lacked = forgotten || !matches!(promised, Promise::Has | Promise::Lacks);
            if it.forced && lacked {
                return true;
            }
            at = it.parent;
        }
        false
    }

    /// A copy is about to overwrite these bytes: what they hold is saved, if a branch is open.
    pub fn save_to_branch(&mut self, node: usize, volume: usize, range: mirror_core::ByteRange) {
        if self.options.broken == Some(Broken::Branch) || self.nodes[node].volumes[volume].branch.is_none() {
            return;
        }
        let present = self.content(node, volume, range);
        let it = &mut self.nodes[node].volumes[volume];
        if let Some(branch) = &mut it.branch {
            for (slot, stamp) in present {
                branch.entry(slot as usize).or_insert(stamp);
                self.tally.saved += 1;
            }
        }
    }
}
