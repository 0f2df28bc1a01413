//! A leg's disk with a volatile cache, sector by sector.
//!
//! A sector holds a *stamp*: the name of the write that put it there. A zeroing write has a stamp of its own too, so
//! that the order of two zeroings shows. What is not flushed survives a power loss in any combination: each sector
//! keeps either what was durable or any one of the values written since.

use std::collections::{BTreeMap, BTreeSet};

use crate::rng::Rng;

/// The name of a write; 0 is a sector never written.
pub type Stamp = u32;

/// A write to a disk, named by the operation that does it.
pub type OperationId = u64;

#[derive(Clone, Debug, Default)]
struct Cell {
    durable: Stamp,
    cached: Vec<(Stamp, OperationId)>,
}

/// Content of one leg, what is durable of it and what is only cached.
#[derive(Clone, Debug)]
pub struct Disk {
    cells: Vec<Cell>,
    cached: BTreeSet<usize>,
    /// When an operation was reported done; only of operations that still have something cached.
    reported: BTreeMap<OperationId, u64>,
    reports: u64,
}

/// The moment a flush was asked for: it covers what had been reported done by then, and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct FlushPoint(u64);

impl Disk {
    /// A disk with this durable content.
    pub fn new(content: &[Stamp]) -> Self {
        let cells = content
            .iter()
            .map(|&durable| Cell {
                durable,
                cached: Vec::new(),
            })
            .collect();
        Self {
            cells,
            cached: BTreeSet::new(),
            reported: BTreeMap::new(),
            reports: 0,
        }
    }

    /// What a read returns.
    pub fn read(&self, slot: usize) -> Stamp {
        let cell = &self.cells[slot];
        cell.cached.last().map_or(cell.durable, |&(stamp, _)| stamp)
    }

    /// Everything a read could return after a power loss now.
    pub fn survivors(&self, slot: usize) -> impl Iterator<Item = Stamp> + '_ {
        let cell = &self.cells[slot];
        std::iter::once(cell.durable).chain(cell.cached.iter().map(|&(stamp, _)| stamp))
    }

    /// Put a value; `durable` is forced unit access.
    pub fn write(&mut self, slot: usize, stamp: Stamp, operation: OperationId, durable: bool) {
        let cell = &mut self.cells[slot];
        if durable {
            *cell = Cell {
                durable: stamp,
                cached: Vec::new(),
            };
            self.cached.remove(&slot);
        } else {
            cell.cached.push((stamp, operation));
            self.cached.insert(slot);
        }
    }

    /// The operation's end was reported: a flush asked for from now on covers it.
    pub fn report(&mut self, operation: OperationId) {
        self.reports += 1;
        self.reported.insert(operation, self.reports);
    }

    /// A flush is asked for.
    pub fn flush_point(&self) -> FlushPoint {
        FlushPoint(self.reports)
    }

    /// The flush has done its work.
    pub fn flush(&mut self, point: FlushPoint) {
        let Self {
            cells,
            cached,
            reported,
            ..
        } = self;
        cached.retain(|&slot| {
            let cell = &mut cells[slot];
            let covered =
                |&(_, operation): &(Stamp, OperationId)| reported.get(&operation).is_some_and(|&at| at <= point.0);
            if let Some(last) = cell.cached.iter().rposition(covered) {
                cell.durable = cell.cached[last].0;
                cell.cached.drain(..=last);
            }
            !cell.cached.is_empty()
        });
        if cached.is_empty() {
            reported.clear();
        }
    }

    /// The power fails: each cached sector keeps one of its values.
    pub fn power_loss(&mut self, rng: &mut Rng) {
        let kept_percent = rng.pick(&[0, 30, 50, 80, 100]);
        for slot in std::mem::take(&mut self.cached) {
            let cell = &mut self.cells[slot];
            if rng.chance(kept_percent) {
                cell.durable = cell.cached[rng.index(cell.cached.len())].0;
            }
            cell.cached.clear();
        }
        self.reported.clear();
    }

    /// The process that wrote is dead, the kernel is not: what it wrote stays, and a later flush covers it.
    pub fn writer_died(&mut self) {
        self.reports += 1;
        let (cells, reported) = (&self.cells, &mut self.reported);
        for &slot in &self.cached {
            for &(_, operation) in &cells[slot].cached {
                reported.entry(operation).or_insert(self.reports);
            }
        }
    }
}
