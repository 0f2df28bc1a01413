//! What a host may expect, derived from nothing but its own requests and their answers.
//!
//! The checker does not know how the mirror works. It keeps, per sector, every write the host has asked for, and
//! decides by two rules which of them a leg may hold:
//! - *visible*: a read returns no write that was closed (answered, failed or given up) before a newer, answered write
//!   was submitted;
//! - *after a power loss* the same, but only against newer writes that a flush or forced unit access has made durable.
//!
//! Order is real-time order on one logical clock; writes that were open together may be seen in either order.

use std::ops::Range;

use crate::disk::{Disk, Stamp};

/// Slots next to each other.
pub type Run = Range<usize>;

#[derive(Clone, Debug)]
struct Write {
    submitted: u64,
    /// Answered, failed, or its connection died.
    closed: Option<u64>,
    answered: bool,
    durable: bool,
    runs: Vec<Run>,
}

/// Every write, and per slot the ones that may still matter.
#[derive(Clone, Debug)]
pub struct Checker {
    clock: u64,
    writes: Vec<Write>,
    history: Vec<Vec<Stamp>>,
    /// After a restart: what the local leg was seen to hold. Older writes do not come back on their own.
    seen: Vec<Option<Seen>>,
    /// Answered and not durable.
    volatile: Vec<Stamp>,
}

/// A write of which part may have landed counts as answered in the slots where it was seen.
#[derive(Clone, Copy, Debug)]
struct Seen {
    stamp: Stamp,
    at: u64,
    durable: bool,
}

/// When a flush was submitted: it has to cover every write answered before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Checker {
    /// A volume whose first content is known; each stamp in it is an old, durable write.
    pub fn new(content: &[Stamp]) -> Self {
        let known = Write {
            submitted: 0,
            closed: Some(0),
            answered: true,
            durable: true,
            runs: Vec::new(),
        };
        let stamps = content.iter().max().map_or(1, |&highest| highest as usize + 1);
        Self {
            clock: 1,
            writes: vec![known; stamps],
            history: content.iter().map(|&stamp| vec![stamp]).collect(),
            seen: vec![None; content.len()],
            volatile: Vec::new(),
        }
    }

    /// Now.
    pub fn now(&mut self) -> Moment {
        self.clock += 1;
        Moment(self.clock)
    }

    /// The host submits a write.
    pub fn submit(&mut self, runs: Vec<Run>) -> Stamp {
        let submitted = self.now().0;
        let stamp = self.writes.len() as Stamp;
        for slot in runs.iter().cloned().flatten() {
            self.history[slot].push(stamp);
        }
        self.writes.push(Write {
            submitted,
            closed: None,
            answered: false,
            durable: false,
            runs,
        });
        stamp
    }

    /// The write was answered; `durable` when it was forced unit access.
    pub fn answer(&mut self, stamp: Stamp, durable: bool) {
        let now = self.now().0;
        let write = &mut self.writes[stamp as usize];
        write.closed.get_or_insert(now);
        write.answered = true;
        write.durable |= durable;
        if !durable {
            self.volatile.push(stamp);
        }
    }

    /// The write failed or its connection is gone: it may have happened, in part or whole, but is over.
    pub fn give_up(&mut self, stamp: Stamp) {
        let now = self.now().0;
        self.writes[stamp as usize].closed.get_or_insert(now);
    }

    /// A flush submitted at `since` was answered: returns the writes that have become durable by it.
    pub fn flushed(&mut self, since: Moment) -> Vec<Stamp> {
        for seen in self.seen.iter_mut().flatten() {
            seen.durable |= seen.at < since.0;
        }
        let writes = &mut self.writes;
        let mut durable = Vec::new();
        self.volatile.retain(|&stamp| {
            let write = &mut writes[stamp as usize];
            let covered = write.closed.is_some_and(|closed| closed < since.0);
            if covered {
                write.durable = true;
                durable.push(stamp);
            }
            !covered
        });
        durable
    }

    /// Slots of a write.
    pub fn runs(&self, stamp: Stamp) -> &[Run] {
        &self.writes[stamp as usize].runs
    }

    /// When the write was submitted.
    pub fn submitted(&self, stamp: Stamp) -> Moment {
        Moment(self.writes[stamp as usize].submitted)
    }

    /// The primary's process died and the local leg is as it is: what is there has been seen.
    pub fn process_died(&mut self, local: &Disk) {
        self.begin_anew(local, false);
    }

    /// The primary lost its power, and what is on its disk now is all there is: history begins anew.
    pub fn power_lost(&mut self, local: &Disk) {
        self.begin_anew(local, true);
        self.volatile.clear();
        for (slot, history) in self.history.iter_mut().enumerate() {
            history.clear();
            history.push(local.read(slot));
        }
    }

    /// Does a leg that may lag behind hold an existing write?
    pub fn exists(&self, slot: usize, stamp: Stamp) -> Result<(), String> {
        self.known(slot, stamp)?;
        if let Some(seen) = self.seen[slot]
            && stamp != seen.stamp
            && self.writes[stamp as usize].submitted < seen.at
        {
            let seen = seen.stamp;
            return Err(format!(
                "slot {slot} holds write {stamp}, though write {seen} was seen there after a restart"
            ));
        }
        Ok(())
    }

    /// May a read return this?
    pub fn visible(&self, slot: usize, stamp: Stamp) -> Result<(), String> {
        self.exists(slot, stamp)?;
        let newer = self.history[slot]
            .iter()
            .find(|&&newer| self.supersedes(slot, newer, stamp));
        match newer {
            Some(newer) => Err(format!(
                "slot {slot} holds write {stamp}, though the newer write {newer} was answered"
            )),
            None => Ok(()),
        }
    }

    /// May this be what is left after a power loss?
    pub fn survives(&self, slot: usize, stamp: Stamp) -> Result<(), String> {
        self.known(slot, stamp)?;
        let durable = |newer: Stamp| {
            let seen = self.seen[slot].is_some_and(|seen| seen.durable && seen.stamp == newer);
            seen || self.writes[newer as usize].durable
        };
        let newer = self.history[slot]
            .iter()
            .find(|&&newer| durable(newer) && self.supersedes(slot, newer, stamp));
        match newer {
            Some(newer) => Err(format!(
                "slot {slot} may fall back to write {stamp}, though the newer write {newer} was flushed"
            )),
            None => Ok(()),
        }
    }

    /// May `stamp` land where `present` is? An older write must not land over a newer, answered one.
    pub fn lands(&self, slot: usize, stamp: Stamp, present: Stamp) -> Result<(), String> {
        let both_known = self.history[slot].contains(&stamp) && self.history[slot].contains(&present);
        if both_known && self.supersedes(slot, present, stamp) {
            return Err(format!(
                "slot {slot}: write {stamp} lands over the newer, answered write {present}"
            ));
        }
        Ok(())
    }

    /// Every slot of the runs may be read from this disk.
    pub fn all_visible(&self, disk: &Disk, runs: &[Run]) -> Result<(), String> {
        runs.iter()
            .cloned()
            .flatten()
            .try_for_each(|slot| self.visible(slot, disk.read(slot)))
    }

    /// Every slot of the runs may lose power on this disk.
    pub fn all_survive(&self, disk: &Disk, runs: &[Run]) -> Result<(), String> {
        runs.iter()
            .cloned()
            .flatten()
            .try_for_each(|slot| disk.survivors(slot).try_for_each(|stamp| self.survives(slot, stamp)))
    }

    /// No slot of this write may fall back to anything older than it.
    pub fn is_durable_on(&self, disk: &Disk, stamp: Stamp) -> Result<(), String> {
        for slot in self.runs(stamp).iter().cloned().flatten() {
            for survivor in disk.survivors(slot) {
                self.known(slot, survivor)?;
                if self.supersedes(slot, stamp, survivor) {
                    return Err(format!(
                        "slot {slot} may fall back to write {survivor}, older than write {stamp}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Every slot.
    pub fn everything(&self) -> Run {
        0..self.history.len()
    }

    fn known(&self, slot: usize, stamp: Stamp) -> Result<(), String> {
        if self.history[slot].contains(&stamp) {
            return Ok(());
        }
        Err(format!(
            "slot {slot} holds write {stamp}, which no longer exists or was never made there"
        ))
    }

    fn supersedes(&self, slot: usize, newer: Stamp, older: Stamp) -> bool {
        let seen = self.seen[slot].is_some_and(|seen| seen.stamp == newer);
        let (newer, older) = (&self.writes[newer as usize], &self.writes[older as usize]);
        (newer.answered || seen) && older.closed.is_some_and(|closed| closed < newer.submitted)
    }

    /// Everything open is over, and what the local leg holds has been seen.
    fn begin_anew(&mut self, local: &Disk, durable: bool) {
        let at = self.now().0;
        for write in &mut self.writes {
            write.closed.get_or_insert(at);
        }
        for (slot, seen) in self.seen.iter_mut().enumerate() {
            *seen = Some(Seen {
                stamp: local.read(slot),
                at,
                durable,
            });
        }
    }
}
