//! Operations of the images: when they end, what they did, and what is left of them when their node dies.

use mirror_core::ByteRange;
use mirror_core::event::{ConnectionId, CopyFailure, CopyId, Failure, Input, Mutation, PeerIndex, RequestId};

use crate::disk::{FlushPoint, ROT, Stamp};
use crate::node::node_of;
use crate::requests::{Content, Origin, Sectors};
use crate::serve::Serving;
use crate::world::{Check, Event, World};

/// What an operation does.
#[derive(Clone, Debug)]
pub enum Work {
    /// A mutation the mirror asked for.
    Mutate {
        /// The request.
        id: RequestId,
        /// Forced unit access.
        fua: bool,
    },
    /// A flush the mirror asked for.
    Flush(FlushPoint),
    /// A read.
    Read {
        /// Where.
        range: ByteRange,
        /// What for.
        purpose: Purpose,
    },
    /// What was fetched from a peer is written here.
    Store {
        /// What.
        sectors: Sectors,
        /// For which request of the mirror.
        fetch: Moving,
    },
}

/// A request of the mirror that moves or compares data.
#[derive(Clone, Copy, Debug)]
pub struct Moving {
    /// The peer.
    pub peer: usize,
    /// On which connection.
    pub connection: ConnectionId,
    /// Its name.
    pub copy: CopyId,
    /// Where.
    pub range: ByteRange,
}

/// What is read for what.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// To compare with a target and send what differs.
    Copy(Moving),
    /// To have a peer say what differs and send it.
    Fetch(Moving),
    /// To have a peer say what differs.
    Compare(Moving),
    /// For a peer.
    Serve(Serving),
    /// For a host: its number, and when it asked.
    Host(u32),
}

/// One operation from its start to its end.
#[derive(Clone, Debug)]
pub struct Operation {
    /// On which volume's image.
    pub volume: usize,
    /// What.
    pub work: Work,
    /// How it ends.
    pub fate: Result<(), Failure>,
    /// A write goes to the wrong place.
    pub astray: bool,
}

impl World {
    /// Start an operation on an image.
    pub fn start_operation(&mut self, node: usize, volume: usize, work: Work) {
        let unreadable = matches!(&work, Work::Read { range, .. } if self.is_bad(node, volume, *range));
        let it = &mut self.nodes[node].volumes[volume];
        let failing = &mut it.failing;
        let fate = match &work {
            Work::Mutate { .. } | Work::Store { .. } => failing.write.take().map_or(Ok(()), Err),
            Work::Flush(_) => Self::spend(&mut failing.flush),
            Work::Read { .. } if unreadable => Err(Failure::Io),
            Work::Read { .. } => Self::spend(&mut failing.read),
        };
        let astray = matches!(work, Work::Mutate { .. }) && std::mem::take(&mut failing.misdirected);
        it.struck |= fate.is_err() || astray;
        let (fastest, slowest) = match work {
            Work::Flush(_) => (50, 900),
            _ => (5, 120),
        };
        let tail = if self.rng.chance(3) { 15 } else { 1 };
        let delay = self.rng.between(fastest, slowest) * tail * self.nodes[node].slow;
        let owner = &mut self.nodes[node];
        owner.operation_serial += 1;
        let name = owner.operation_serial;
        let life = owner.life;
        let fate = if owner.volumes[volume].attached {
            fate
        } else {
            Err(Failure::Io)
        };
        self.tally.io_errors += u64::from(fate == Err(Failure::Io) && owner.volumes[volume].attached);
        self.tally.no_space += u64::from(fate == Err(Failure::NoSpace));
        owner.operations.insert(
            name,
            Operation {
                volume,
                work,
                fate,
                astray,
            },
        );
        self.after(delay, Event::Operation(node, life, name));
    }

    /// An operation ends.
    pub fn operation_ends(&mut self, node: usize, life: u32, name: u32) -> Check {
        if self.nodes[node].life != life {
            return Ok(());
        }
        let Some(operation) = self.nodes[node].operations.remove(&name) else {
            return Ok(());
        };
        let whole = operation.fate.is_ok();
        self.judge_late(node, &operation)?;
        self.take_effect(node, name, &operation, whole)?;
        let volume = operation.volume;
        match operation.work {
            Work::Mutate { id, .. } => {
                let outcome = operation.fate;
                self.feed_mirror(node, volume, Input::LocalDone { id, outcome })?;
            }
            Work::Flush(_) => {
                if !whole && self.nodes[node].volumes[volume].attached {
                    // What the image had in its cache may be gone.
                    let now = self.truth.tick();
                    self.nodes[node].volumes[volume].forgets(now);
                }
                self.feed_mirror(node, volume, Input::LocalFlushDone(operation.fate))?;
            }
            Work::Read { range, purpose } => self.read_ends(node, volume, range, purpose, operation.fate)?,
            Work::Store { fetch, sectors } => {
                let shipped = if sectors.is_empty() { 0 } else { fetch.range.length };
                let outcome = operation.fate.map_err(CopyFailure::Local);
                let outcome = outcome.map(|()| mirror_core::event::Copied { shipped, zeroed: 0 });
                self.fetch_ends(node, volume, fetch, outcome)?;
            }
        }
        self.settle(node)
    }

    /// The node dies: what its operations had not done is done in part, or not at all.
    pub fn interrupt(&mut self, node: usize) -> Check {
        for (name, operation) in std::mem::take(&mut self.nodes[node].operations) {
            let writes = matches!(operation.work, Work::Mutate { .. } | Work::Store { .. });
            if writes && self.rng.chance(50) {
                let whole = operation.fate.is_ok() && self.rng.chance(30);
                self.take_effect(node, name, &operation, whole)?;
            }
        }
        Ok(())
    }

    /// Some sector of the range cannot be read.
    fn is_bad(&self, node: usize, volume: usize, range: ByteRange) -> bool {
        let bad = &self.nodes[node].volumes[volume].bad;
        let mut slots = self.plan.layouts[volume].slots_of(range);
        !bad.is_empty() && slots.any(|slot| bad.contains(&slot))
    }

    fn spend(fault: &mut bool) -> Result<(), Failure> {
        if std::mem::take(fault) {
            Err(Failure::Io)
        } else {
            Ok(())
        }
    }

    /// Write to the image: all of it, or any part of its sectors.
    fn take_effect(&mut self, node: usize, name: u32, operation: &Operation, whole: bool) -> Check {
        let volume = operation.volume;
        let (durable, source, is_copy) = match &operation.work {
            Work::Flush(point) => {
                if whole {
                    self.nodes[node].volumes[volume].disk.flush(*point);
                }
                return Ok(());
            }
            Work::Read { .. } => return Ok(()),
            Work::Mutate { id, fua } => {
                let Some(request) = self.nodes[node].volumes[volume].requests.get(*id) else {
                    return Err(self.violation("payload", format!("{id:?} is applied after its release")));
                };
                let source = match request.origin {
                    Origin::Stream { copied_from, .. } => copied_from,
                    _ => None,
                };
                (*fua && whole, source, source.is_some())
            }
            Work::Store { fetch, .. } => (false, Some(node_of(node, fetch.peer)), true),
        };
        let sectors = self.sectors_of(node, operation);
        let copies_rot: Vec<usize> = match source {
            Some(source) if is_copy => self.nodes[source].volumes[volume].disk.rotten.clone(),
            _ => Vec::new(),
        };
        let (mut done, mut misdirected) = (0, false);
        for &(slot, stamp) in &sectors {
            if !whole && self.rng.chance(50) {
                continue;
            }
            done += 1;
            let slot = slot as usize;
            let present = self.nodes[node].volumes[volume].disk.read(slot);
            if is_copy {
                self.judge_overwrite(node, volume, slot, present, stamp, source.unwrap_or(node))?;
            } else {
                self.judge_landing(node, volume, slot, present, stamp)?;
            }
            self.nodes[node].volumes[volume].bad.remove(&slot);
            let disk = &mut self.nodes[node].volumes[volume].disk;
            if operation.astray {
                let other = (slot + 1) % disk.slots();
                disk.rot(other, ROT + stamp);
                if present != stamp {
                    disk.miss(slot);
                }
                misdirected = true;
            } else if stamp >= ROT || copies_rot.contains(&slot) {
                disk.rot(slot, stamp);
            } else {
                disk.write(slot, stamp, name, durable);
            }
        }
        self.tally.misdirected += u64::from(misdirected);
        self.tally.torn += u64::from(done > 0 && done < sectors.len());
        if let Some(write) = sectors.first().and_then(|&(_, stamp)| self.truth.get_mut(stamp))
            && whole
            && !is_copy
        {
            write.landed |= 1 << node;
        }
        self.note_refused(node, operation, &sectors, is_copy);
        let slots = sectors.iter().map(|&(slot, _)| slot as usize);
        self.nodes[node].volumes[volume].disk.report(name, slots);
        Ok(())
    }

    /// A write of another node that fails here is not this node's to keep; until it has come again.
    fn note_refused(&mut self, node: usize, operation: &Operation, sectors: &Sectors, is_copy: bool) {
        let follows = self.nodes[node].reign.is_none();
        let refused = &mut self.nodes[node].volumes[operation.volume].refused;
        for (_, stamp) in sectors {
            if operation.fate.is_ok() {
                refused.remove(stamp);
            } else if follows && !is_copy {
                refused.insert(*stamp);
            }
        }
    }

    /// What an operation writes, sector by sector.
    fn sectors_of(&self, node: usize, operation: &Operation) -> Sectors {
        match &operation.work {
            Work::Mutate { id, .. } => {
                let request = self.nodes[node].volumes[operation.volume].requests.get(*id);
                match request.map(|request| &request.content) {
                    Some(Content::Stamp(stamp)) => self.sectors_of_write(*stamp),
                    Some(Content::Sectors(sectors)) => sectors.clone(),
                    _ => Vec::new(),
                }
            }
            Work::Store { sectors, .. } => sectors.clone(),
            _ => Vec::new(),
        }
    }

    fn sectors_of_write(&self, stamp: Stamp) -> Sectors {
        let write = self.truth.get(stamp);
        let slots = write.into_iter().flat_map(|write| write.slots());
        slots.map(|slot| (slot as u32, stamp)).collect()
    }

    /// What an image holds in a range.
    pub fn content(&self, node: usize, volume: usize, range: ByteRange) -> Sectors {
        let disk = &self.nodes[node].volumes[volume].disk;
        let slots = self.plan.layouts[volume].slots_of(range);
        slots
            .filter(|&slot| slot < disk.slots())
            .map(|slot| (slot as u32, disk.read(slot)))
            .collect()
    }

    /// The mirror asks the local leg for a mutation.
    pub fn local(&mut self, node: usize, volume: usize, id: RequestId, mutation: Mutation) -> Check {
        if self.nodes[node].volumes[volume].requests.get(id).is_none() {
            return Err(self.violation("payload", format!("{id:?} is asked of the local leg after its release")));
        }
        let fua = mutation.fua;
        self.start_operation(node, volume, Work::Mutate { id, fua });
        Ok(())
    }

    /// A request that moves data has ended, one way or the other.
    pub fn fetch_ends(
        &mut self,
        node: usize,
        volume: usize,
        moving: Moving,
        outcome: Result<mirror_core::event::Copied, CopyFailure>,
    ) -> Check {
        self.tally.fetches += 1;
        let Moving {
            peer, connection, copy, ..
        } = moving;
        let peer = PeerIndex(peer as u8);
        let input = Input::FetchDone {
            peer,
            connection,
            copy,
            outcome,
        };
        self.feed_mirror(node, volume, input)
    }
}
