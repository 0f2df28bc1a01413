//! What hosts of one reign may expect. A reign is the time from one promotion of a node to its end as Primary.
//!
//! Per sector the reign keeps every write that an image of its lineage may hold, and decides by two rules which:
//! - *visible*: a read returns no write that was closed before a newer, answered write was submitted;
//! - *after a power loss* the same, but only against newer writes whose durability was answered.

use crate::disk::{Disk, GARBAGE, Stamp};
use crate::truth::{Moment, Truth, Write};

/// Why an image may not be as it is.
pub type Complaint = Result<(), String>;

/// After a restart or at a promotion: what was there counts as answered from then on.
#[derive(Clone, Copy, Debug)]
struct Seen {
    stamp: Stamp,
    at: Moment,
    durable: bool,
}

/// One volume of one reign.
#[derive(Clone, Debug, Default)]
pub struct Lineage {
    history: Vec<Vec<Stamp>>,
    seen: Vec<Option<Seen>>,
    /// Answered and not durable.
    volatile: Vec<Stamp>,
}

/// One reign.
#[derive(Clone, Debug)]
pub struct Reign {
    /// The Primary.
    pub node: usize,
    /// The reign it came from.
    pub parent: Option<usize>,
    /// By volume: what it began with is of this earlier reign, and came through this node, not from that Primary itself.
    pub came: Vec<Option<(usize, usize)>>,
    /// By volume.
    pub volumes: Vec<Lineage>,
    /// It began by force: what its base lacked was given up by the operator's word.
    pub forced: bool,
    /// Since when.
    pub since: Moment,
    /// Over since; 0: not yet.
    pub ended: Moment,
}

impl Reign {
    /// The node by which is judged whether this reign lacks a write because it was still on its way. Without its Primary a
    /// volume is copied from one node to another: what the second one has is what had come as far as the first, and who
    /// promotes the second by force gives up what was on its way to the first. What the Primary knew of the second when it
    /// answered says nothing of that: the two may not have been connected yet (700100109).
    pub fn stands_for(&self, write: &Write, volume: usize) -> usize {
        let came = self.came[volume].filter(|&(reign, _)| reign == write.reign);
        came.map_or(self.node, |(_, through)| through)
    }
}

impl Lineage {
    /// Begin with what this image holds; `settled`: none of it can be lost.
    pub fn begin(disk: &Disk, now: Moment) -> Self {
        let mut lineage = Self::default();
        for slot in 0..disk.slots() {
            let mut history: Vec<Stamp> = Vec::with_capacity(4);
            history.extend(disk.survivors(slot));
            let stamp = disk.read(slot);
            lineage.history.push(history);
            lineage.seen.push(Some(Seen {
                stamp,
                at: now,
                durable: disk.is_settled(slot),
            }));
        }
        lineage
    }

    /// Slots.
    pub fn slots(&self) -> usize {
        self.history.len()
    }

    /// A host submits a write.
    pub fn submit(&mut self, stamp: Stamp, slots: impl Iterator<Item = usize>) {
        for slot in slots {
            self.history[slot].push(stamp);
        }
    }

    /// A write was answered and is not durable yet.
    pub fn answered_volatile(&mut self, stamp: Stamp) {
        self.volatile.push(stamp);
    }

    /// A flush submitted at `since` was answered: returns the writes that are durable by it.
    pub fn flushed(&mut self, truth: &mut Truth, since: Moment) -> Vec<Stamp> {
        for seen in self.seen.iter_mut().flatten() {
            seen.durable |= seen.at < since;
        }
        let now = truth.tick();
        let mut durable = Vec::new();
        self.volatile.retain(|&stamp| {
            let Some(write) = truth.get_mut(stamp) else {
                return false;
            };
            let covered = write.closed != 0 && write.closed < since;
            if covered && write.durable == 0 {
                write.durable = now;
                durable.push(stamp);
            }
            !covered
        });
        durable
    }

    /// The volume has grown by sectors of this content.
    pub fn grow(&mut self, slots: usize, stamp: Stamp) {
        self.history.resize(slots, vec![stamp]);
        self.seen.resize(slots, None);
    }

    /// What the slot held at the beginning.
    pub fn base(&self, slot: usize) -> Stamp {
        self.seen[slot].map_or(0, |seen| seen.stamp)
    }

    /// A node that follows from the beginning may fall back to this older content: then the base was not durable.
    pub fn admit(&mut self, slot: usize, stamp: Stamp) {
        if !self.history[slot].contains(&stamp) {
            self.history[slot].insert(0, stamp);
            if let Some(seen) = &mut self.seen[slot] {
                seen.durable = false;
            }
        }
    }

    /// Does the slot hold a write of this lineage?
    pub fn exists(&self, slot: usize, stamp: Stamp) -> Complaint {
        if self.history[slot].contains(&stamp) {
            return Ok(());
        }
        Err(format!(
            "slot {slot} holds write {stamp}, which was never made there or no longer exists (known: {:?})",
            self.history[slot]
        ))
    }

    /// May a read return this?
    pub fn visible(&self, truth: &Truth, slot: usize, stamp: Stamp) -> Complaint {
        self.exists(slot, stamp)?;
        match self.newer(truth, slot, stamp, |_, _| true) {
            Some(newer) => Err(format!(
                "slot {slot} holds write {stamp}, though the newer write {newer} was answered"
            )),
            None => Ok(()),
        }
    }

    /// May a read that began at `since` return this?
    pub fn readable(&self, truth: &Truth, slot: usize, stamp: Stamp, since: Moment) -> Complaint {
        self.exists(slot, stamp)?;
        let before = |_: &Seen, newer: Stamp| truth.get(newer).is_some_and(|write| write.answered < since);
        match self.newer(truth, slot, stamp, before) {
            Some(newer) => Err(format!(
                "a read returned write {stamp} of slot {slot}, though the newer write {newer} had been answered"
            )),
            None => Ok(()),
        }
    }

    /// May this be what is left after a power loss?
    pub fn survives(&self, truth: &Truth, slot: usize, stamp: Stamp) -> Complaint {
        self.survives_as_of(truth, slot, stamp, Moment::MAX)
    }

    /// The same, held only against what was durable before `limit`.
    pub fn survives_as_of(&self, truth: &Truth, slot: usize, stamp: Stamp, limit: Moment) -> Complaint {
        self.exists(slot, stamp)?;
        let durable = |seen: &Seen, newer: Stamp| {
            let was_seen = seen.durable && seen.stamp == newer && seen.at < limit;
            was_seen
                || truth
                    .get(newer)
                    .is_some_and(|write| write.durable != 0 && write.durable < limit)
        };
        match self.newer(truth, slot, stamp, durable) {
            Some(newer) => Err(format!(
                "slot {slot} is or may fall back to write {stamp}, though the newer write {newer} was durable"
            )),
            None => Ok(()),
        }
    }

    /// Every value the slot may have after a power loss is allowed.
    pub fn all_survive(&self, truth: &Truth, disk: &Disk, slot: usize) -> Complaint {
        disk.survivors(slot)
            .try_for_each(|stamp| self.survives(truth, slot, stamp))
    }

    /// A newer write of this slot of which `counts` says that it is one.
    fn newer(&self, truth: &Truth, slot: usize, stamp: Stamp, counts: impl Fn(&Seen, Stamp) -> bool) -> Option<Stamp> {
        const NOTHING: Seen = Seen {
            stamp: Stamp::MAX,
            at: 0,
            durable: false,
        };
        let seen = self.seen[slot].unwrap_or(NOTHING);
        let supersedes = |newer: Stamp| {
            if newer == stamp {
                return false;
            }
            if newer == seen.stamp {
                // What was there at the beginning of the reign is newer than everything else from before it.
                let before = truth.get(stamp).is_none_or(|write| write.submitted < seen.at);
                return before && stamp < GARBAGE;
            }
            truth.supersedes(newer, stamp)
        };
        let mut all = self.history[slot].iter().copied();
        all.find(|&newer| supersedes(newer) && counts(&seen, newer))
    }
}
