//! Blocks side by side: by digest, or byte by byte.

use mirror_core::ByteRange;
use mirror_core::stream::digest::digest_blocks;
use mirror_core::stream::frame::DIGEST_BLOCK_BYTES;

const BLOCK: usize = DIGEST_BLOCK_BYTES as usize;

/// Where the blocks of `data`, which is at `range`, do not have these digests. A digest too few or too many differs.
pub(super) fn differing(range: ByteRange, seed: u64, data: &[u8], digests: &[u64]) -> Vec<ByteRange> {
    let ours = digest_blocks(seed, data);
    runs(range, |block| ours.get(block) != digests.get(block))
}

/// Where two pieces of data differ that are both at `range`; `None`: nothing is known of one of them.
pub(super) fn differing_bytes(range: ByteRange, ours: Option<&[u8]>, theirs: &[u8]) -> Vec<ByteRange> {
    let Some(ours) = ours else { return vec![range] };
    runs(range, |block| {
        let from = block * BLOCK;
        let part = |data: &[u8]| -> Option<(usize, usize)> {
            Some((from, (from + BLOCK).min(data.len()))).filter(|(from, to)| from < to)
        };
        match (part(ours), part(theirs)) {
            (Some((from, to)), Some((_, other))) => to != other || ours[from..to] != theirs[from..to],
            (None, None) => false,
            _ => true,
        }
    })
}

/// All zero.
pub(crate) fn is_zero(data: &[u8]) -> bool {
    let (chunks, rest) = data.as_chunks::<16>();
    chunks.iter().all(|chunk| u128::from_ne_bytes(*chunk) == 0) && rest.iter().all(|&byte| byte == 0)
}

/// Neighbouring blocks of `range` that are `wanted`, as ranges.
fn runs(range: ByteRange, wanted: impl Fn(usize) -> bool) -> Vec<ByteRange> {
    let mut found: Vec<ByteRange> = Vec::new();
    let blocks = range.length.div_ceil(DIGEST_BLOCK_BYTES) as usize;
    for block in (0..blocks).filter(|&block| wanted(block)) {
        let offset = range.offset + (block * BLOCK) as u64;
        let length = DIGEST_BLOCK_BYTES.min(range.end() - offset);
        match found.last_mut() {
            Some(last) if last.end() == offset => last.length += length,
            _ => found.push(ByteRange::new(offset, length)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_found_in_runs_by_digest_and_by_bytes() {
        let range = ByteRange::new(3 * DIGEST_BLOCK_BYTES, 4 * DIGEST_BLOCK_BYTES + 100);
        let ours = vec![7; range.length as usize];
        let mut theirs = ours.clone();
        let same = digest_blocks(1, &theirs);
        assert_eq!(differing(range, 1, &ours, &same), []);
        assert_eq!(differing_bytes(range, Some(&ours), &theirs), []);
        theirs[BLOCK + 5] = 1;
        theirs[2 * BLOCK] = 1;
        theirs[4 * BLOCK + 99] = 1;
        let expected = [
            ByteRange::new(4 * DIGEST_BLOCK_BYTES, 2 * DIGEST_BLOCK_BYTES),
            ByteRange::new(7 * DIGEST_BLOCK_BYTES, 100),
        ];
        assert_eq!(differing(range, 1, &ours, &digest_blocks(1, &theirs)), expected);
        assert_eq!(differing_bytes(range, Some(&ours), &theirs), expected);
        assert_eq!(
            differing(range, 1, &ours, &same[..4]),
            expected[1..],
            "a digest too few"
        );
        assert_eq!(differing_bytes(range, None, &theirs), [range]);
    }

    #[test]
    fn zero_is_zero_to_the_last_byte() {
        assert!(is_zero(&[]) && is_zero(&[0; 33]));
        let mut data = [0; 33];
        data[32] = 1;
        assert!(!is_zero(&data));
        data = [0; 33];
        data[15] = 1;
        assert!(!is_zero(&data));
    }
}
