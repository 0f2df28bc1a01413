//! Where the pieces of a resync request begin and end.

use blockmirror_client::pipeline::Limits;

use crate::image::{Extent, ExtentKind};

/// Bytes of one piece of data.
pub(super) const PIECE_BYTES: u64 = 1 << 20;
/// The dirty block: what is copied, and looked at for zeroes, as a whole.
const BLOCK: u64 = 4096;

/// What is at `offset`, up to `end` at most, in whole blocks: a file system may know of holes within a block, which a
/// peer need not be able to write around. What is partly data is data.
pub(super) fn in_blocks(extent: Extent, offset: u64, end: u64) -> Extent {
    in_blocks_of(BLOCK, extent, offset, end)
}

/// The same in blocks of any size.
pub(super) fn in_blocks_of(block: u64, extent: Extent, offset: u64, end: u64) -> Extent {
    if extent.end >= end {
        return Extent { end, ..extent };
    }
    let next = (offset / block + 1) * block;
    let (kind, to) = match extent.kind {
        ExtentKind::Data => (ExtentKind::Data, extent.end.next_multiple_of(block)),
        ExtentKind::Hole => match extent.end - extent.end % block {
            hole if hole > offset => (ExtentKind::Hole, hole),
            _ => (ExtentKind::Data, next),
        },
    };
    Extent {
        kind,
        end: to.max(next).min(end),
    }
}

/// Longest piece that is read from a peer: one READ, for all of its bytes are looked at together.
pub(super) fn longest_read(limits: &Limits) -> u64 {
    let (payload, block) = (u64::from(limits.maximum_payload), u64::from(limits.minimum_block));
    let whole = payload - payload % block;
    let blocks = payload - payload % block.max(BLOCK);
    if blocks > 0 { blocks } else { whole }.min(PIECE_BYTES)
}

/// From the first block that is not zero to the end of the last; `None`: all is zero.
pub(super) fn not_zero(data: &[u8]) -> Option<(usize, usize)> {
    let used = |block: &[u8]| block.iter().any(|&byte| byte != 0);
    let block = BLOCK as usize;
    let first = data.chunks(block).position(used)?;
    let last = data.chunks(block).rposition(used)?;
    Some((first * block, ((last + 1) * block).min(data.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_are_left_alone() {
        const BLOCK: usize = super::BLOCK as usize;
        assert_eq!(not_zero(&[0; 3 * BLOCK]), None);
        assert_eq!(not_zero(&[]), None);
        let mut data = vec![0; 4 * BLOCK + 10];
        data[BLOCK + 5] = 1;
        assert_eq!(not_zero(&data), Some((BLOCK, 2 * BLOCK)));
        data[4 * BLOCK + 9] = 1;
        assert_eq!(not_zero(&data), Some((BLOCK, 4 * BLOCK + 10)));
    }

    #[test]
    fn data_grows_and_holes_shrink_to_whole_blocks() {
        let end = 10 * BLOCK + 512;
        let span = |kind, offset, to| {
            let extent = in_blocks(Extent { kind, end: to }, offset, end);
            (extent.kind, extent.end)
        };
        use ExtentKind::{Data, Hole};
        assert_eq!(span(Data, 0, 1), (Data, BLOCK));
        assert_eq!(span(Data, 0, BLOCK), (Data, BLOCK));
        assert_eq!(span(Data, BLOCK, 3 * BLOCK + 512), (Data, 4 * BLOCK));
        assert_eq!(span(Hole, 0, 3 * BLOCK + 512), (Hole, 3 * BLOCK));
        assert_eq!(
            span(Hole, BLOCK, 2 * BLOCK - 1),
            (Data, 2 * BLOCK),
            "a hole within a block"
        );
        // A peer that takes less than a block at a time leaves the cursor within one.
        assert_eq!(span(Hole, 512, 1024), (Data, BLOCK));
        assert_eq!(span(Hole, 512, 3 * BLOCK), (Hole, 3 * BLOCK));
        // The volume may end within a block.
        assert_eq!(span(Data, 9 * BLOCK, 10 * BLOCK + 1), (Data, end));
        assert_eq!(span(Hole, 9 * BLOCK, end), (Hole, end));
        assert_eq!(span(Hole, 9 * BLOCK, 2 * end), (Hole, end));
        // An answer that makes no progress is taken for data.
        assert_eq!(span(Data, BLOCK, BLOCK), (Data, 2 * BLOCK));
    }
}
