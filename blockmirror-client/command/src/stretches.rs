//! The source of a copy, in parts that are data or zeroes, as far as the server can say.

use std::collections::VecDeque;

use nbd_proto::Extent;
use nbd_proto::extent_flags::ZERO;

use crate::failure::Failure;
use crate::map::ALLOCATION;
use crate::side::Side;

/// Bytes of data copied at once.
const PIECE: u64 = 1 << 20;
/// Bytes zeroed at once, where the other side needs no data for it.
const ZERO_PIECE: u64 = 1 << 30;
/// Bytes the source is asked about at once.
const LOOK_AHEAD: u64 = 4 << 30;
/// Zeroes begin and end at multiples of this, so that everything is a multiple of any block size the other side may have.
const ALIGNMENT: u64 = 65_536;

/// A part of the source that is copied at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub offset: u64,
    pub length: u64,
    /// The source says that it reads as zeroes.
    pub is_zero: bool,
}

/// The source from its beginning to its end.
pub struct Stretches<'a> {
    from: &'a Side,
    size: u64,
    next: u64,
    /// What is known of the source from `next` on, in order.
    known: VecDeque<Stretch>,
}

impl<'a> Stretches<'a> {
    pub fn new(from: &'a Side, size: u64) -> Self {
        Self {
            from,
            size,
            next: 0,
            known: VecDeque::new(),
        }
    }

    /// The next part; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Stretch>, Failure> {
        if self.known.is_empty() && self.next < self.size {
            self.look().await?;
        }
        let Some(first) = self.known.front_mut() else {
            return Ok(None);
        };
        let longest = if first.is_zero { ZERO_PIECE } else { PIECE };
        let stretch = Stretch {
            length: first.length.min(longest),
            ..*first
        };
        first.offset += stretch.length;
        first.length -= stretch.length;
        if first.length == 0 {
            self.known.pop_front();
        }
        self.next += stretch.length;
        Ok(Some(stretch))
    }

    /// Asks the source what is data from here on; where it cannot say, all of it is.
    async fn look(&mut self) -> Result<(), Failure> {
        let left = self.size - self.next;
        let told = self.from.status(ALLOCATION, self.next, left.min(LOOK_AHEAD)).await?;
        let extents = told.unwrap_or_else(|| vec![Extent { length: left, flags: 0 }]);
        self.known = stretches(self.next, self.size, &extents);
        Ok(())
    }
}

/// What extents from `start` on, which is aligned, come to: at least one stretch, without a gap, up to the last aligned
/// place they reach or the end of the source.
fn stretches(start: u64, size: u64, extents: &[Extent]) -> VecDeque<Stretch> {
    let whole = |at: u64| if at >= size { size } else { at / ALIGNMENT * ALIGNMENT };
    let told: u64 = extents.iter().map(|extent| extent.length).sum();
    // A stretch that is told in too small pieces is read.
    let end = whole(start + told).max((start + ALIGNMENT).min(size));
    let mut known = VecDeque::new();
    let mut at = start;
    for extent in extents {
        let (first, last) = (at.div_ceil(ALIGNMENT) * ALIGNMENT, whole(at + extent.length));
        if extent.flags & ZERO != 0 && first < last {
            add(&mut known, start, first, false);
            add(&mut known, start, last, true);
        }
        at += extent.length;
    }
    add(&mut known, start, end, false);
    known
}

/// Goes on from the end of what is known to `end`.
fn add(known: &mut VecDeque<Stretch>, start: u64, end: u64, is_zero: bool) {
    let offset = known.back().map_or(start, |last| last.offset + last.length);
    if end <= offset {
        return;
    }
    match known.back_mut() {
        Some(last) if last.is_zero == is_zero => last.length += end - offset,
        _ => known.push_back(Stretch {
            offset,
            length: end - offset,
            is_zero,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;

    /// End of each stretch in KiB, and whether it is zero, for extents of so many KiB, zero or not.
    fn ends(start: u64, size: u64, extents: &[(u64, bool)]) -> Vec<(u64, bool)> {
        let extents: Vec<Extent> = extents
            .iter()
            .map(|&(length, is_zero)| Extent {
                length: length * KIB,
                flags: if is_zero { ZERO } else { 0 },
            })
            .collect();
        let mut at = start * KIB;
        let mut ends = Vec::new();
        for stretch in stretches(at, size * KIB, &extents) {
            assert_eq!(stretch.offset, at, "without a gap");
            at += stretch.length;
            ends.push((at / KIB, stretch.is_zero));
        }
        ends
    }

    #[test]
    fn zeroes_are_whole_blocks() {
        assert_eq!(ends(0, 1024, &[(256, true), (256, false)]), [(256, true), (512, false)]);
        assert_eq!(
            ends(0, 1024, &[(10, false), (250, true), (764, false)]),
            [(64, false), (256, true), (1024, false)]
        );
        assert_eq!(
            ends(64, 1024, &[(100, true)]),
            [(128, true)],
            "the rest is asked for again"
        );
        assert_eq!(
            ends(64, 1024, &[(10, true)]),
            [(128, false)],
            "too small to be worth it"
        );
        assert_eq!(ends(64, 1024, &[(30, true), (40, true)]), [(128, false)]);
        assert_eq!(
            ends(0, 1024, &[(64, true), (64, true), (128, false)]),
            [(128, true), (256, false)]
        );
    }

    #[test]
    fn the_end_is_the_sources() {
        assert_eq!(ends(0, 100, &[(100, true)]), [(100, true)]);
        assert_eq!(ends(0, 100, &[(10, true), (90, false)]), [(100, false)]);
        assert_eq!(ends(64, 100, &[(10, false), (26, true)]), [(100, false)]);
        // An export that has grown since tells of more than is copied.
        assert_eq!(ends(0, 100, &[(64, false), (500, true)]), [(64, false), (100, true)]);
    }
}
