//! Block status: the extents of a metadata context, and the payload by which a client asks for some contexts only.

use alloc::vec::Vec;

use crate::constants::{MAX_CONTEXTS, MAX_STATUS_EXTENTS};
use crate::misbehaved::PeerMisbehaved;
use crate::reader::{Reader, Truncated};
use crate::reply::ChunkKind;

/// What the flags of an extent mean in the contexts we know.
pub mod extent_flags {
    /// `base:allocation`: not allocated; writing may fail for want of space.
    pub const HOLE: u64 = 1 << 0;
    /// `base:allocation`: reads as zeroes.
    pub const ZERO: u64 = 1 << 1;
    /// `qemu:dirty-bitmap:NAME` and our own contexts of the same kind: differs from what the bitmap is about.
    pub const DIRTY: u64 = 1 << 0;
}

/// A stretch of an export with one status, as it is in a block status chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes; not 0. Extents follow each other without a gap.
    pub length: u64,
    /// What the context says of it. More than 32 bits only with extended headers.
    pub flags: u64,
}

/// Longest extent in 32 bits: what is left of 4 GiB by the largest block size, so that the next one begins aligned.
const MAX_NARROW_EXTENT: u64 = (1 << 32) - (1 << 16);
/// Bytes of an extent in 32 bits, and of the context's number before the first.
const NARROW: (usize, usize) = (8, 4);
/// Bytes of an extent in 64 bits, and of the context's number and their count before the first.
const WIDE: (usize, usize) = (16, 8);

/// Appends the payload of a block status chunk. See [`ReplyTo::put_status`](crate::reply::ReplyTo::put_status).
pub(crate) fn put_extents(wide: bool, context: u32, extents: &[Extent], output: &mut Vec<u8>) {
    let limit = MAX_STATUS_EXTENTS as usize;
    output.extend_from_slice(&context.to_be_bytes());
    if wide {
        let extents = extents.get(..limit).unwrap_or(extents);
        let count = u32::try_from(extents.len()).unwrap_or(MAX_STATUS_EXTENTS);
        output.extend_from_slice(&count.to_be_bytes());
        for extent in extents {
            output.extend_from_slice(&extent.length.to_be_bytes());
            output.extend_from_slice(&extent.flags.to_be_bytes());
        }
        return;
    }
    for (length, flags) in extents.iter().flat_map(narrowed).take(limit) {
        output.extend_from_slice(&length.to_be_bytes());
        output.extend_from_slice(&flags.to_be_bytes());
    }
}

/// An extent in pieces that fit 32 bits.
fn narrowed(extent: &Extent) -> impl Iterator<Item = (u32, u32)> {
    let (length, flags) = (extent.length, extent.flags as u32);
    let pieces = length.div_ceil(MAX_NARROW_EXTENT);
    (0..pieces).map(move |piece| {
        let rest = length - piece * MAX_NARROW_EXTENT;
        (rest.min(MAX_NARROW_EXTENT) as u32, flags)
    })
}

/// Reads the whole payload of a block status chunk of `kind`, either of the two: the context's number and its extents.
///
/// # Errors
/// The rule that was broken. The length of `payload` is one that `kind` can have, or that is the rule.
pub fn decode_status(kind: ChunkKind, payload: &[u8]) -> Result<(u32, Vec<Extent>), PeerMisbehaved> {
    let wrong_length = |_| PeerMisbehaved::WrongChunkLength {
        kind: kind.to_wire(),
        length: payload.len() as u64,
    };
    let mut reader = Reader::new(payload);
    let context = reader.u32().map_err(wrong_length)?;
    let wide = kind == ChunkKind::BlockStatusExt;
    if wide {
        let announced = reader.u32().map_err(wrong_length)?;
        let carried = reader.remaining() / WIDE.0;
        if usize::try_from(announced) != Ok(carried) {
            return Err(PeerMisbehaved::WrongExtentCount { announced, carried });
        }
    }
    let mut extents = Vec::with_capacity(reader.remaining() / NARROW.0);
    while !reader.is_empty() {
        let extent = read_extent(&mut reader, wide).map_err(wrong_length)?;
        if extent.length == 0 {
            return Err(PeerMisbehaved::EmptyExtent);
        }
        extents.push(extent);
    }
    match extents.is_empty() {
        true => Err(wrong_length(Truncated)),
        false => Ok((context, extents)),
    }
}

fn read_extent(reader: &mut Reader<'_>, wide: bool) -> Result<Extent, Truncated> {
    Ok(match wide {
        true => Extent {
            length: reader.u64()?,
            flags: reader.u64()?,
        },
        false => Extent {
            length: u64::from(reader.u32()?),
            flags: u64::from(reader.u32()?),
        },
    })
}

/// Whether a block status chunk of either kind can have this many bytes of payload.
pub(crate) fn can_have(wide: bool, length: u64) -> bool {
    let (extent, fixed) = if wide { WIDE } else { NARROW };
    let (extent, fixed) = (extent as u64, fixed as u64);
    length.checked_sub(fixed).is_some_and(|rest| {
        rest.is_multiple_of(extent) && (1..=u64::from(MAX_STATUS_EXTENTS)).contains(&(rest / extent))
    })
}

/// The payload of a BLOCK_STATUS that asks for some of the selected contexts only. Only with extended headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusFilter {
    /// Bytes of the range that is asked about.
    pub length: u64,
    /// The numbers of the contexts that are wanted.
    pub contexts: Vec<u32>,
}

impl StatusFilter {
    /// Most bytes such a payload can sensibly have: each context once. A longer one must name one twice.
    pub const MAX_LENGTH: usize = 8 + 4 * MAX_CONTEXTS;

    /// The payload as it goes out.
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(8 + 4 * self.contexts.len());
        payload.extend_from_slice(&self.length.to_be_bytes());
        for context in &self.contexts {
            payload.extend_from_slice(&context.to_be_bytes());
        }
        payload
    }

    /// Reads a whole payload. Its fields are not judged yet: see [`validate_filtered`](crate::validate_filtered).
    ///
    /// # Errors
    /// [`Truncated`]: the length is not that of an effect length and whole numbers.
    pub fn decode(payload: &[u8]) -> Result<Self, Truncated> {
        let mut reader = Reader::new(payload);
        let length = reader.u64()?;
        let mut contexts = Vec::with_capacity(reader.remaining() / size_of::<u32>());
        while !reader.is_empty() {
            contexts.push(reader.u32()?);
        }
        Ok(Self { length, contexts })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use alloc::vec;

    #[test]
    fn what_does_not_fit_32_bits_is_split_without_a_gap() {
        let long = Extent {
            length: (16 << 40) + 512,
            flags: 3,
        };
        let mut payload = Vec::new();
        put_extents(false, 7, &[long, Extent { length: 1, flags: 0 }], &mut payload);
        let (context, extents) = decode_status(ChunkKind::BlockStatus, &payload).unwrap();
        assert_eq!(context, 7);
        let (last, split) = extents.split_last().unwrap();
        assert_eq!(*last, Extent { length: 1, flags: 0 });
        assert_eq!(split.iter().map(|extent| extent.length).sum::<u64>(), long.length);
        assert!(
            split
                .iter()
                .all(|extent| extent.flags == 3 && extent.length <= u64::from(u32::MAX))
        );
        assert!(
            split
                .iter()
                .rev()
                .skip(1)
                .all(|extent| extent.length.is_multiple_of(65536))
        );
    }

    #[test]
    fn sixty_four_bits_go_out_whole() {
        let extents = vec![
            Extent {
                length: 1 << 60,
                flags: 1 << 40,
            },
            Extent { length: 512, flags: 0 },
        ];
        let mut payload = Vec::new();
        put_extents(true, 9, &extents, &mut payload);
        assert!(can_have(true, payload.len() as u64));
        assert_eq!(decode_status(ChunkKind::BlockStatusExt, &payload), Ok((9, extents)));
        payload[7] = 3;
        assert_eq!(
            decode_status(ChunkKind::BlockStatusExt, &payload),
            Err(PeerMisbehaved::WrongExtentCount {
                announced: 3,
                carried: 2
            })
        );
    }

    #[test]
    fn a_status_without_extents_or_with_an_empty_one_is_none() {
        let nothing = decode_status(ChunkKind::BlockStatus, &[0, 0, 0, 1]);
        assert_eq!(nothing, Err(PeerMisbehaved::WrongChunkLength { kind: 5, length: 4 }));
        let empty = decode_status(ChunkKind::BlockStatus, &[0; 12]);
        assert_eq!(empty, Err(PeerMisbehaved::EmptyExtent));
        for length in [0, 3, 4, 11, 13, 4 + 8 * ((1 << 20) + 1)] {
            assert!(!can_have(false, length), "{length}");
        }
        assert!(can_have(false, 12) && can_have(false, 4 + 8 * (1 << 20)));
        for length in [8, 16, 23, 25, 8 + 16 * ((1 << 20) + 1)] {
            assert!(!can_have(true, length), "{length}");
        }
    }

    #[test]
    fn a_filter_survives_the_wire_and_must_be_whole() {
        let filter = StatusFilter {
            length: 1 << 50,
            contexts: vec![1, 1 << 31],
        };
        let payload = filter.encode();
        assert_eq!(payload.len(), 16);
        assert_eq!(StatusFilter::decode(&payload), Ok(filter));
        assert_eq!(StatusFilter::decode(&payload[..7]), Err(Truncated));
        assert_eq!(StatusFilter::decode(&payload[..10]), Err(Truncated));
    }
}
