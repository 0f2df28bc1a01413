//! Which bytes of a volume the simulation looks at: a few windows where arithmetic goes wrong, their sectors numbered
//! densely as slots. Everything between them is zero on every image, for ever.

use mirror_core::range::{BLOCK_BYTES, ByteRange, EXTENT_BYTES};

use crate::disk::Run;
use crate::rng::Rng;

/// The unit in which content is modelled and in which a write can be torn.
pub const SECTOR_BYTES: u64 = 512;

const BLOCK_SECTORS: u64 = BLOCK_BYTES / SECTOR_BYTES;

#[derive(Clone, Debug)]
struct Window {
    offset: u64,
    slots: Run,
}

/// Sizes and windows of a volume.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Bytes at the start.
    pub size: u64,
    /// Bytes after it has grown.
    pub grown: u64,
    windows: Vec<Window>,
    /// Slots before it grows.
    pub slots: usize,
    /// Slots after it has grown.
    pub grown_slots: usize,
}

impl Layout {
    /// A volume of so many extents, the last one perhaps short.
    pub fn new(rng: &mut Rng, extents: u64) -> Self {
        let tail = rng.pick(&[0, 0, 0, 1, 3, 8]) * SECTOR_BYTES;
        let size = extents * EXTENT_BYTES - tail;
        let grown = (extents + 1) * EXTENT_BYTES;
        let mut places = vec![(size - 3 * BLOCK_BYTES + tail, size)];
        if extents > 1 {
            let border = rng.between(1, extents - 1) * EXTENT_BYTES;
            places.push((border - 2 * BLOCK_BYTES, border + 2 * BLOCK_BYTES));
        }
        for extent in 0..extents {
            let start = extent * EXTENT_BYTES + rng.between(1, 900) * BLOCK_BYTES;
            places.push((start, start + rng.between(1, 4) * BLOCK_BYTES));
        }
        let added = size.next_multiple_of(EXTENT_BYTES) + rng.between(1, 900) * BLOCK_BYTES;
        places.push((added, added + 2 * BLOCK_BYTES));
        let windows = windows(places);
        let inside = windows.iter().rfind(|window| window.offset < size);
        let slots = inside.map_or(0, |window| window.slots.end);
        let grown_slots = windows.last().map_or(0, |window| window.slots.end);
        Self {
            size,
            grown,
            windows,
            slots,
            grown_slots,
        }
    }

    /// The slots a range covers, as runs in order.
    pub fn runs(&self, range: ByteRange) -> impl Iterator<Item = Run> + '_ {
        self.windows.iter().filter_map(move |window| {
            let end = window.offset + window.slots.len() as u64 * SECTOR_BYTES;
            let (from, to) = (range.offset.max(window.offset), range.end().min(end));
            let slot = |at: u64| window.slots.start + ((at - window.offset) / SECTOR_BYTES) as usize;
            (from < to).then(|| slot(from)..slot(to))
        })
    }

    /// The slots a range covers.
    pub fn slots_of(&self, range: ByteRange) -> impl Iterator<Item = usize> + '_ {
        self.runs(range).flatten()
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

    /// The bytes of a slot's block, of a volume of this size.
    pub fn block_range(&self, slot: usize, size: u64) -> ByteRange {
        let start = self.block(slot) * BLOCK_BYTES;
        ByteRange::new(start, BLOCK_BYTES.min(size - start))
    }

    /// A small range inside one window of a volume of this size: mostly whole blocks, at times odd sectors.
    pub fn small_range(&self, rng: &mut Rng, size: u64) -> ByteRange {
        let usable = self.windows.iter().filter(|window| window.offset < size).count();
        let window = &self.windows[rng.index(usable)];
        let sectors = window.slots.len() as u64;
        let unit = if rng.chance(60) { BLOCK_SECTORS } else { 1 };
        let length = (rng.between(1, 3) * unit).min(sectors);
        let start = rng.below(sectors - length + 1) / unit * unit;
        ByteRange::new(window.offset + start * SECTOR_BYTES, length * SECTOR_BYTES)
    }

    /// A range from inside one window to inside another.
    pub fn large_range(&self, rng: &mut Rng, size: u64) -> ByteRange {
        let (one, two) = (self.small_range(rng, size), self.small_range(rng, size));
        let start = one.offset.min(two.offset);
        ByteRange::new(start, one.end().max(two.end()) - start)
    }
}

/// Sorted and disjoint windows from places that may overlap.
fn windows(mut places: Vec<(u64, u64)>) -> Vec<Window> {
    places.sort_unstable();
    let mut windows: Vec<Window> = Vec::new();
    let (mut covered, mut slots) = (0, 0);
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
