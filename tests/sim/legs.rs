//! Operations of the legs: when they read, when they take effect, when their end is reported, and how they fail.

use std::ops::Range;

use mirror_core::event::{ConnectionId, Copied, CopyFailure, CopyId, Failure, Input, Mutation, PeerIndex, RequestId};
use mirror_core::range::{BLOCK_BYTES, ByteRange};

use crate::disk::{FlushPoint, OperationId, Stamp};
use crate::world::{Check, Event, World};

/// Where an operation runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// The primary's own disk.
    Local,
    /// A peer's, over this connection.
    Peer(usize, ConnectionId),
}

/// What an operation does.
#[derive(Clone, Debug)]
pub enum Work {
    /// A host mutation.
    Mutation {
        /// The request.
        id: RequestId,
        /// What it writes.
        stamp: Stamp,
        /// How.
        mutation: Mutation,
        /// Where.
        runs: Vec<Range<usize>>,
    },
    /// A flush.
    Flush(FlushPoint),
    /// A resync request.
    Copy {
        /// Its name.
        copy: CopyId,
        /// Its range.
        range: ByteRange,
        /// What was read on the local leg, once it was.
        content: Option<Vec<(usize, Stamp)>>,
        /// The local read fails.
        local_failure: Option<Failure>,
    },
}

/// One operation from its start to its report.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Where.
    pub leg: Leg,
    /// What.
    pub work: Work,
    /// How it ends.
    pub fate: Result<(), Failure>,
    /// It has taken effect.
    pub applied: bool,
    /// Its connection or process is gone: it may still take effect, but nobody hears of it.
    pub orphan: bool,
    /// It takes effect no earlier than this.
    pub not_before: u64,
}

impl Operation {
    /// It runs on this peer.
    pub fn is_of_peer(&self, peer: usize) -> bool {
        matches!(self.leg, Leg::Peer(at, _) if at == peer)
    }

    /// A resync request that has not read its source: nothing of it can land.
    pub fn is_unread(&self) -> bool {
        matches!(self.work, Work::Copy { content: None, .. })
    }

    /// What it may still write: slot and stamp.
    pub fn may_write(&self) -> Vec<(usize, Stamp)> {
        match &self.work {
            _ if self.applied => Vec::new(),
            Work::Mutation { stamp, runs, .. } => runs.iter().cloned().flatten().map(|slot| (slot, *stamp)).collect(),
            Work::Copy { content, .. } => content.clone().unwrap_or_default(),
            Work::Flush(_) => Vec::new(),
        }
    }
}

impl World {
    /// Start an operation.
    pub fn start(&mut self, leg: Leg, mut work: Work) {
        self.operation_serial += 1;
        let id = self.operation_serial;
        let fate = self.choose_fate(leg, &mut work);
        let (fastest, slowest, slow) = match (leg, &work) {
            (Leg::Local, Work::Flush(_)) => (50, 1500, self.primary.slow_local),
            (Leg::Local, _) => (5, 150, self.primary.slow_local),
            (Leg::Peer(peer, _), Work::Flush(_)) => (100, 3000, self.peers[peer].slow),
            (Leg::Peer(peer, _), _) => (40, 1200, self.peers[peer].slow),
        };
        let long_tail = if self.rng.chance(3) { 20 } else { 1 };
        let total = self.rng.between(fastest, slowest) * slow * long_tail;
        let apply = self.rng.between(1, total - 1);
        if matches!(work, Work::Copy { .. }) {
            let read = self.rng.below(apply);
            self.after(read, Event::Read(id));
        }
        if let Leg::Peer(peer, _) = leg
            && !self.peers[peer].passes_requests()
        {
            // Lost on the way; the other side waits for an answer until the connection is given up.
            let lost = Operation {
                leg,
                work,
                fate,
                applied: true,
                orphan: false,
                not_before: 0,
            };
            self.operations.insert(id, lost);
            return;
        }
        self.operations.insert(
            id,
            Operation {
                leg,
                work,
                fate,
                applied: false,
                orphan: false,
                not_before: 0,
            },
        );
        self.after(apply, Event::Apply(id));
        self.after(total, Event::Report(id));
    }

    /// A resync request reads the local leg.
    pub fn read(&mut self, id: OperationId) -> Check {
        let Some(Operation {
            work: Work::Copy { range, content, .. },
            ..
        }) = self.operations.get_mut(&id)
        else {
            return Ok(());
        };
        let slots = self.scenario.layout.runs(*range).into_iter().flatten();
        *content = Some(slots.map(|slot| (slot, self.local.read(slot))).collect());
        Ok(())
    }

    /// An operation takes effect.
    pub fn apply(&mut self, id: OperationId) -> Check {
        let Some(operation) = self.operations.get_mut(&id) else {
            return Ok(());
        };
        if operation.applied || self.now < operation.not_before {
            return Ok(());
        }
        operation.applied = true;
        let orphan = operation.orphan;
        let operation = operation.clone();
        self.take_effect(id, &operation, operation.fate.is_ok())?;
        if orphan {
            self.tally.late += 1;
            self.operations.remove(&id);
        }
        Ok(())
    }

    /// The end of an operation is reported to the mirror.
    pub fn report(&mut self, id: OperationId) -> Check {
        let Some(operation) = self.operations.get(&id) else {
            return Ok(());
        };
        if operation.orphan {
            return Ok(());
        }
        if let Leg::Peer(peer, _) = operation.leg
            && self.peers[peer].link.blocked
        {
            return Ok(());
        }
        let Some(operation) = self.operations.remove(&id) else {
            return Ok(());
        };
        // A failed write may have left something in the cache: a flush asked for from now on covers that too.
        self.disk(operation.leg).report(id);
        let input = self.report_input(operation);
        self.feed(input)
    }

    /// Whoever ran the operations is gone: what had not taken effect does so in part, or not at all.
    pub fn interrupt(&mut self, leg_is_hit: impl Fn(Leg) -> bool) -> Check {
        let hit: Vec<OperationId> = self
            .operations
            .iter()
            .filter(|(_, operation)| leg_is_hit(operation.leg))
            .map(|(&id, _)| id)
            .collect();
        for id in hit {
            let Some(operation) = self.operations.get_mut(&id) else {
                continue;
            };
            let unapplied = !std::mem::replace(&mut operation.applied, true);
            if unapplied && self.rng.chance(50) && !matches!(operation.work, Work::Flush(_)) {
                let operation = operation.clone();
                self.take_effect(id, &operation, false)?;
            }
        }
        Ok(())
    }

    /// Write to the leg: all of it, or any part of its sectors.
    fn take_effect(&mut self, id: OperationId, operation: &Operation, whole: bool) -> Check {
        let (content, durable) = match &operation.work {
            Work::Flush(point) => {
                if whole {
                    self.disk(operation.leg).flush(*point);
                }
                return Ok(());
            }
            Work::Mutation {
                stamp, runs, mutation, ..
            } => {
                let slots = runs.iter().cloned().flatten();
                (slots.map(|slot| (slot, *stamp)).collect(), mutation.fua && whole)
            }
            Work::Copy {
                content, local_failure, ..
            } => {
                let readable = local_failure.is_none();
                (content.clone().filter(|_| readable).unwrap_or_default(), false)
            }
        };
        for (slot, stamp) in content {
            if whole || self.rng.chance(50) {
                let present = self.disk(operation.leg).read(slot);
                self.checker.lands(slot, stamp, present).map_err(|text| {
                    self.violation("order", format!("{:?}: {text} ({:?})", operation.leg, operation.work))
                })?;
                self.disk(operation.leg).write(slot, stamp, id, durable);
            }
        }
        Ok(())
    }

    fn disk(&mut self, leg: Leg) -> &mut crate::disk::Disk {
        match leg {
            Leg::Local => &mut self.local,
            Leg::Peer(peer, _) => &mut self.peers[peer].disk,
        }
    }

    fn choose_fate(&mut self, leg: Leg, work: &mut Work) -> Result<(), Failure> {
        match (leg, work) {
            (Leg::Local, Work::Mutation { .. }) => self.primary.failing_local.take().map_or(Ok(()), Err),
            (Leg::Local, Work::Flush(_)) => {
                if std::mem::take(&mut self.primary.failing_flush) {
                    Err(Failure::Io)
                } else {
                    Ok(())
                }
            }
            (Leg::Local, Work::Copy { .. }) => Ok(()),
            (Leg::Peer(peer, _), work) => {
                if let Work::Copy { local_failure, .. } = work
                    && self.rng.chance(30)
                {
                    *local_failure = self.primary.failing_local.take();
                }
                self.peers[peer].failing.pop().map_or(Ok(()), Err)
            }
        }
    }

    /// What the mirror is told at the end of an operation.
    pub fn report_input(&mut self, operation: Operation) -> Input {
        let outcome = operation.fate;
        match (operation.leg, operation.work) {
            (Leg::Local, Work::Mutation { id, .. }) => {
                // A copy over the failed range that is not durable yet is made again as a whole.
                self.peers
                    .iter_mut()
                    .for_each(|peer| peer.invalidated |= outcome.is_err());
                Input::LocalDone { id, outcome }
            }
            (Leg::Local, _) => {
                self.primary.broken |= outcome.is_err();
                Input::LocalFlushDone(outcome)
            }
            (Leg::Peer(peer, connection), work) => {
                let peer = PeerIndex(peer as u8);
                match work {
                    Work::Mutation { id, stamp, .. } => {
                        if outcome.is_ok() {
                            self.peers[usize::from(peer.0)].answered.insert(stamp);
                        }
                        Input::PeerDone {
                            peer,
                            connection,
                            id,
                            outcome,
                        }
                    }
                    Work::Flush(_) => Input::PeerFlushDone {
                        peer,
                        connection,
                        outcome,
                    },
                    Work::Copy {
                        copy,
                        range,
                        content,
                        local_failure,
                    } => {
                        self.tally.copies += 1;
                        let outcome = match (local_failure, outcome) {
                            (Some(failure), _) => {
                                self.allow_resync(range);
                                Err(CopyFailure::Local(failure))
                            }
                            (None, Err(failure)) => Err(CopyFailure::Peer(failure)),
                            (None, Ok(())) => Ok(self.copied(range, &content.unwrap_or_default())),
                        };
                        Input::CopyDone {
                            peer,
                            connection,
                            copy,
                            outcome,
                        }
                    }
                }
            }
        }
    }

    /// Blocks with anything but holes were shipped, the rest was zeroed.
    fn copied(&self, range: ByteRange, content: &[(usize, Stamp)]) -> Copied {
        let mut blocks: Vec<u64> = content
            .iter()
            .filter(|&&(_, stamp)| stamp != 0)
            .map(|&(slot, _)| self.scenario.layout.block(slot))
            .collect();
        blocks.dedup();
        let data = (blocks.len() as u64 * BLOCK_BYTES).min(range.length);
        let shipped = if self.scenario.dense { range.length } else { data };
        Copied {
            shipped,
            zeroed: range.length - shipped,
        }
    }
}
