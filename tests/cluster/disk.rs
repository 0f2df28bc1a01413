//! The image of one volume on one node: sectors that hold stamps, a volatile cache that a power loss takes.
//!
//! A sector holds a *stamp*: the name of the write that put it there. What is not flushed survives a power loss in any
//! combination: each sector keeps what was durable or any one of the values written since.

use crate::rng::Rng;

/// The name of a write; 0 is a sector never written.
pub type Stamp = u32;

/// Stamps from here on are no write's: what an image held before it was ours, or rot.
pub const GARBAGE: Stamp = 3_000_000_000;
/// Stamps from here on are bit rot and misdirected writes.
pub const ROT: Stamp = 3_500_000_000;

/// Slots next to each other.
pub type Run = std::ops::Range<usize>;

#[derive(Clone, Copy, Debug)]
struct Cached {
    stamp: Stamp,
    operation: u32,
    /// When its end was reported; 0: not yet.
    reported: u32,
}

#[derive(Clone, Debug, Default)]
struct Cell {
    durable: Stamp,
    cached: Vec<Cached>,
}

/// Content of one image, what is durable of it and what is only cached.
#[derive(Clone, Debug)]
pub struct Disk {
    cells: Vec<Cell>,
    /// Slots with anything cached, in no order.
    cached: Vec<u32>,
    reports: u32,
    /// What the rotten sectors held before; they are silent about it.
    pub rotten: Vec<usize>,
}

/// The moment a flush was asked for: it covers what had been reported done by then, and nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct FlushPoint(u32);

impl Disk {
    /// A disk with this durable content.
    pub fn new(content: &[Stamp]) -> Self {
        let cell = |&durable: &Stamp| Cell {
            durable,
            cached: Vec::new(),
        };
        Self {
            cells: content.iter().map(cell).collect(),
            cached: Vec::new(),
            reports: 0,
            rotten: Vec::new(),
        }
    }

    /// Slots.
    pub fn slots(&self) -> usize {
        self.cells.len()
    }

    /// What a read returns.
    pub fn read(&self, slot: usize) -> Stamp {
        let cell = &self.cells[slot];
        cell.cached.last().map_or(cell.durable, |cached| cached.stamp)
    }

    /// Everything a read could return after a power loss now, rot left out.
    pub fn survivors(&self, slot: usize) -> impl Iterator<Item = Stamp> + '_ {
        let cell = &self.cells[slot];
        let all = std::iter::once(cell.durable).chain(cell.cached.iter().map(|cached| cached.stamp));
        all.filter(|&stamp| stamp < ROT)
    }

    /// Nothing of this slot can be lost any more.
    pub fn is_settled(&self, slot: usize) -> bool {
        self.cells[slot].cached.is_empty()
    }

    /// Put a value; `durable` is forced unit access.
    pub fn write(&mut self, slot: usize, stamp: Stamp, operation: u32, durable: bool) {
        let cell = &mut self.cells[slot];
        if durable {
            self.rotten.retain(|&rotten| rotten != slot);
            cell.durable = stamp;
            cell.cached.clear();
            return;
        }
        if cell.cached.is_empty() {
            self.cached.push(slot as u32);
        }
        cell.cached.push(Cached {
            stamp,
            operation,
            reported: 0,
        });
    }

    /// The operation's end was reported: a flush asked for from now on covers it.
    pub fn report(&mut self, operation: u32, slots: impl Iterator<Item = usize>) {
        self.reports += 1;
        for slot in slots {
            for cached in &mut self.cells[slot].cached {
                if cached.operation == operation && cached.reported == 0 {
                    cached.reported = self.reports;
                }
            }
        }
    }

    /// A flush is asked for.
    pub fn flush_point(&self) -> FlushPoint {
        FlushPoint(self.reports)
    }

    /// The flush has done its work.
    pub fn flush(&mut self, point: FlushPoint) {
        let (cells, rotten) = (&mut self.cells, &mut self.rotten);
        self.cached.retain(|&slot| {
            let cell = &mut cells[slot as usize];
            let covered = |cached: &Cached| cached.reported != 0 && cached.reported <= point.0;
            if let Some(last) = cell.cached.iter().rposition(covered) {
                cell.durable = cell.cached[last].stamp;
                cell.cached.drain(..=last);
                rotten.retain(|&rotten| rotten != slot as usize);
            }
            !cell.cached.is_empty()
        });
    }

    /// The power fails: each cached sector keeps one of its values.
    pub fn power_loss(&mut self, rng: &mut Rng) {
        let kept_percent = rng.pick(&[0, 30, 50, 80, 100]);
        for slot in std::mem::take(&mut self.cached) {
            let cell = &mut self.cells[slot as usize];
            if !cell.cached.is_empty() && rng.chance(kept_percent) {
                cell.durable = cell.cached[rng.index(cell.cached.len())].stamp;
            }
            cell.cached.clear();
        }
    }

    /// The process that wrote is dead, the kernel is not: what it wrote stays, and a later flush covers it.
    pub fn writer_died(&mut self) {
        self.reports += 1;
        for &slot in &self.cached {
            for cached in &mut self.cells[slot as usize].cached {
                if cached.reported == 0 {
                    cached.reported = self.reports;
                }
            }
        }
    }

    /// A sector goes bad without a word.
    pub fn rot(&mut self, slot: usize, stamp: Stamp) {
        self.cells[slot].durable = stamp;
        self.cells[slot].cached.clear();
        self.rotten.push(slot);
    }

    /// A write to this sector went elsewhere, and nobody knows.
    pub fn miss(&mut self, slot: usize) {
        self.cells[slot].durable = self.read(slot);
        self.cells[slot].cached.clear();
        self.rotten.push(slot);
    }

    /// More sectors, all of this content.
    pub fn grow(&mut self, slots: usize, stamp: Stamp) {
        let fresh = Cell {
            durable: stamp,
            cached: Vec::new(),
        };
        self.cells.resize(slots.max(self.cells.len()), fresh);
    }
}
