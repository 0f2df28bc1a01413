//! Byte ranges and the arithmetic that rounds them to blocks and extents.

use core::ops::Range;

/// Bytes of one dirty-bitmap unit: 4 KiB, one bit.
pub const BLOCK_BYTES: u64 = 4096;
/// Bytes of one activity-log unit: 4 MiB, one slot.
pub const EXTENT_BYTES: u64 = 4 << 20;
/// Blocks in one extent.
pub const EXTENT_BLOCKS: u64 = EXTENT_BYTES / BLOCK_BYTES;

const _: () = assert!(EXTENT_BYTES.is_multiple_of(BLOCK_BYTES));

/// A non-empty run of bytes of a volume: `offset..offset + length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Number of bytes, at least 1.
    pub length: u64,
}

impl ByteRange {
    /// The range `offset..offset + length`; `length` must not be 0 and the end must fit in 64 bits.
    pub const fn new(offset: u64, length: u64) -> Self {
        assert!(length > 0, "a range is never empty");
        assert!(offset.checked_add(length).is_some(), "a range ends within 64 bits");
        Self { offset, length }
    }

    /// One past the last byte.
    pub const fn end(self) -> u64 {
        self.offset + self.length
    }

    /// True when the two ranges share a byte.
    pub const fn overlaps(self, other: Self) -> bool {
        self.offset < other.end() && other.offset < self.end()
    }

    /// The part of it that lies within another range.
    pub fn within(self, other: Self) -> Option<Self> {
        let (start, end) = (self.offset.max(other.offset), self.end().min(other.end()));
        (start < end).then(|| Self::new(start, end - start))
    }

    /// The two halves of a range that begins at a block, cut between blocks; `None`: it is one block.
    pub fn halves(self) -> Option<[Self; 2]> {
        let blocks = self.blocks();
        let middle = blocks.start.midpoint(blocks.end) * BLOCK_BYTES;
        let first = Self::new(
            self.offset,
            middle.checked_sub(self.offset).filter(|length| *length > 0)?,
        );
        Some([first, Self::new(middle, self.end() - middle)])
    }

    /// Indexes of the blocks touched, the first and last perhaps in part.
    pub const fn blocks(self) -> Range<u64> {
        self.offset / BLOCK_BYTES..self.end().div_ceil(BLOCK_BYTES)
    }

    /// Indexes of the extents touched.
    pub const fn extents(self) -> Range<u64> {
        self.offset / EXTENT_BYTES..self.end().div_ceil(EXTENT_BYTES)
    }
}
