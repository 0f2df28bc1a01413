//! Every write that any host of the cluster ever made: what was asked, what was answered, what it was written over.
//!
//! The checker derives everything from this and from what the images hold. It knows nothing of generations or bitmaps.

use crate::disk::{GARBAGE, Run, Stamp};

/// Nodes of a cluster at most.
pub const NODES_MAX: usize = 4;

/// A moment on the logical clock of hosts' requests and answers; 0: never.
pub type Moment = u64;

/// What the Primary could say of one node's copy of a write when it answered it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Promise {
    /// Not answered, or not a peer.
    #[default]
    None,
    /// It is there.
    Has,
    /// `async`: on its way.
    Queued,
    /// It is not, and the Primary knows.
    Lacks,
}

/// One write.
#[derive(Clone, Debug)]
pub struct Write {
    /// In which reign.
    pub reign: usize,
    /// When.
    pub submitted: Moment,
    /// Answered, failed, or its connection died.
    pub closed: Moment,
    /// Answered with success.
    pub answered: Moment,
    /// Its durability was answered: forced unit access, or a flush.
    pub durable: Moment,
    /// Where.
    pub runs: Vec<Run>,
    /// What each slot held before, in the order of the runs, and whether that was seen on the Primary's own image; `None`:
    /// it has not landed.
    parents: Vec<Option<(Stamp, bool)>>,
    /// It has been applied on these nodes, as bits.
    pub landed: u8,
    /// By node.
    pub promised: [Promise; NODES_MAX],
}

/// All of them, and the logical clock.
#[derive(Clone, Debug)]
pub struct Truth {
    clock: Moment,
    writes: Vec<Write>,
}

/// Steps back from one stamp to an older one at most.
const STEPS_BACK_MAX: usize = 100_000;

impl Truth {
    /// Stamps below `initial` are old, durable writes of every volume.
    pub fn new(initial: Stamp) -> Self {
        let old = Write {
            reign: 0,
            submitted: 1,
            closed: 1,
            answered: 1,
            durable: 1,
            runs: Vec::new(),
            parents: Vec::new(),
            landed: 0,
            promised: [Promise::None; NODES_MAX],
        };
        Self {
            clock: 1,
            writes: vec![old; initial as usize],
        }
    }

    /// The next moment.
    pub fn tick(&mut self) -> Moment {
        self.clock += 1;
        self.clock
    }

    /// A host submits a write.
    pub fn submit(&mut self, reign: usize, runs: Vec<Run>) -> Stamp {
        let submitted = self.tick();
        let slots = runs.iter().map(ExactSizeIterator::len).sum();
        self.writes.push(Write {
            reign,
            submitted,
            closed: 0,
            answered: 0,
            durable: 0,
            runs,
            parents: vec![None; slots],
            landed: 0,
            promised: [Promise::None; NODES_MAX],
        });
        self.writes.len() as Stamp - 1
    }

    /// A write; `None` for garbage.
    pub fn get(&self, stamp: Stamp) -> Option<&Write> {
        self.writes.get(stamp as usize)
    }

    /// A write, to note something of it.
    pub fn get_mut(&mut self, stamp: Stamp) -> Option<&mut Write> {
        self.writes.get_mut(stamp as usize)
    }

    /// When it was submitted; garbage never was.
    pub fn submitted(&self, stamp: Stamp) -> Moment {
        self.get(stamp).map_or(0, |write| write.submitted)
    }

    /// It is over without an answer.
    pub fn give_up(&mut self, stamp: Stamp) {
        let now = self.tick();
        if let Some(write) = self.get_mut(stamp)
            && write.closed == 0
        {
            write.closed = now;
        }
    }

    /// Every write that is still open is over.
    pub fn close_all(&mut self, stamps: impl Iterator<Item = Stamp>) {
        stamps.for_each(|stamp| self.give_up(stamp));
    }

    /// The write lands on a slot that held `present`: on the Primary's own image (`firm`), or elsewhere.
    pub fn lands(&mut self, stamp: Stamp, slot: usize, present: Stamp, firm: bool) {
        if stamp == present {
            return;
        }
        let newer = self.submitted(present);
        let older = |other: Stamp| self.submitted(other) < newer;
        let Some(write) = self.get(stamp) else { return };
        let Some(at) = write.place(slot) else { return };
        let takes = match write.parents[at] {
            None => true,
            Some((other, was_firm)) => !was_firm && (firm || older(other)),
        };
        if let Some(write) = self.get_mut(stamp)
            && takes
        {
            write.parents[at] = Some((present, firm));
        }
    }

    /// Is `old` the write of this slot that `new` was made over, or one before that?
    pub fn is_ancestor(&self, old: Stamp, new: Stamp, slot: usize) -> bool {
        let mut at = new;
        for _ in 0..STEPS_BACK_MAX {
            if at == old {
                return true;
            }
            match self.get(at).and_then(|write| write.parent(slot)) {
                Some(parent) => at = parent,
                None => return false,
            }
        }
        false
    }

    /// `newer` was answered, and submitted after `older` was over: whoever sees `older` afterwards sees too little.
    pub fn supersedes(&self, newer: Stamp, older: Stamp) -> bool {
        if older >= GARBAGE {
            return newer < GARBAGE && self.get(newer).is_some_and(|write| write.answered != 0);
        }
        match (self.get(newer), self.get(older)) {
            (Some(newer), Some(older)) => newer.answered != 0 && older.closed != 0 && older.closed < newer.submitted,
            _ => false,
        }
    }
}

impl Write {
    /// What this slot held before.
    pub fn parent(&self, slot: usize) -> Option<Stamp> {
        self.parents[self.place(slot)?].map(|(parent, _)| parent)
    }

    /// Its slots.
    pub fn slots(&self) -> impl Iterator<Item = usize> + '_ {
        self.runs.iter().cloned().flatten()
    }

    fn place(&self, slot: usize) -> Option<usize> {
        let mut before = 0;
        for run in &self.runs {
            if run.contains(&slot) {
                return Some(before + slot - run.start);
            }
            before += run.len();
        }
        None
    }
}
