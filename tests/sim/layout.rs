//! Which bytes of the volume the simulation looks at.
//!
//! A volume of many 4 MiB extents would be slow to model sector by sector, so the host writes only inside a few
//! *windows*; their sectors are numbered densely as *slots*. Windows sit where arithmetic goes wrong: across a border
//! between extents, across a border between bitmap pages, and at the end of the volume, which is rarely a whole block.

use std::ops::Range;

use mirror_core::bitmap::PAGE_BLOCKS;
use mirror_core::config::MUTATION_BYTES_MAX;
use mirror_core::range::{BLOCK_BYTES, ByteRange, EXTENT_BYTES};

use crate::rng::Rng;

/// The unit in which content is modelled and in which a write can be torn.
pub const SECTOR_BYTES: u64 = 512;

#[derive(Clone, Debug)]
struct Window {
    offset: u64,
    slots: Range<usize>,
}

/// Size and windows of a volume.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Bytes of the volume.
    pub size: u64,
    windows: Vec<Window>,
}

impl Layout {
    /// A volume of so many extents, the last one perhaps short.
    pub fn new(rng: &mut Rng, extents: u64) -> Self {
        let tail = rng.pick(&[0, 0, 1, 3, 8, 11]) * SECTOR_BYTES;
        let size = extents * EXTENT_BYTES - tail;
        let mut places = vec![(size - 5 * BLOCK_BYTES + tail, size)];
        if extents > 1 {
            let border = rng.between(1, extents - 1) * EXTENT_BYTES;
            places.push((border - 3 * BLOCK_BYTES, border + 3 * BLOCK_BYTES));
        }
        if size > PAGE_BLOCKS * BLOCK_BYTES + EXTENT_BYTES {
            let border = PAGE_BLOCKS * BLOCK_BYTES;
            places.push((border - 2 * BLOCK_BYTES, border + 2 * BLOCK_BYTES));
        }
        for extent in 0..extents.min(7) {
            let extent = if extents > 7 { rng.below(extents) } else { extent };
            let start = extent * EXTENT_BYTES + rng.between(1, 900) * BLOCK_BYTES;
            places.push((start, start + rng.between(2, 8) * BLOCK_BYTES));
        }
        Self {
            size,
            windows: windows(places),
        }
    }

    /// Number of slots.
    pub fn slots(&self) -> usize {
        self.windows.last().map_or(0, |window| window.slots.end)
    }

    /// The slots a range covers, as runs in order.
    pub fn runs(&self, range: ByteRange) -> Vec<Range<usize>> {
        let mut runs = Vec::new();
        for window in &self.windows {
            let end = window.offset + window.slots.len() as u64 * SECTOR_BYTES;
            let (from, to) = (range.offset.max(window.offset), range.end().min(end));
            if from < to {
                let slot = |at: u64| window.slots.start + ((at - window.offset) / SECTOR_BYTES) as usize;
                runs.push(slot(from)..slot(to));
            }
        }
        runs
    }

    /// The bitmap block a slot lies in.
    pub fn block(&self, slot: usize) -> u64 {
        self.offset(slot) / BLOCK_BYTES
    }

    /// First byte of a slot.
    pub fn offset(&self, slot: usize) -> u64 {
        let at = self.windows.partition_point(|window| window.slots.end <= slot);
        let window = &self.windows[at];
        window.offset + (slot - window.slots.start) as u64 * SECTOR_BYTES
    }

    /// A small range inside one window: mostly whole blocks, at times odd sectors.
    pub fn small_range(&self, rng: &mut Rng) -> ByteRange {
        let window = &self.windows[rng.index(self.windows.len())];
        let sectors = window.slots.len() as u64;
        let unit = if rng.chance(60) { BLOCK_BYTES / SECTOR_BYTES } else { 1 };
        let length = (rng.between(1, 4) * unit).min(sectors);
        let start = rng.below(sectors - length + 1) / unit * unit;
        ByteRange::new(window.offset + start * SECTOR_BYTES, length * SECTOR_BYTES)
    }

    /// A range from inside one window towards another, over at most so many extents.
    pub fn large_range(&self, rng: &mut Rng, extents_max: usize) -> ByteRange {
        let (one, two) = (self.small_range(rng), self.small_range(rng));
        let start = one.offset.min(two.offset);
        let last = (start / EXTENT_BYTES + extents_max as u64) * EXTENT_BYTES;
        let end = one.end().max(two.end()).min(last).min(start + MUTATION_BYTES_MAX);
        ByteRange::new(start, end - start)
    }
}

/// Sorted and disjoint windows from places that may overlap.
fn windows(mut places: Vec<(u64, u64)>) -> Vec<Window> {
    places.sort_unstable();
    let mut windows: Vec<Window> = Vec::new();
    let mut covered = 0;
    let mut slots = 0;
    for (start, end) in places {
        let start = start.max(covered);
        if start < end {
            let next = slots + ((end - start) / SECTOR_BYTES) as usize;
            windows.push(Window {
                offset: start,
                slots: slots..next,
            });
            (covered, slots) = (end, next);
        }
    }
    windows
}
