//! Digests of blocks: what two nodes compare before data is sent.
//!
//! XXH3 with 64 bits, seeded with a number that both nodes draw anew for every connection. So contents that look alike
//! to it cannot be made on purpose, and a difference that one connection missed (one block in 2^64) is found by the next.

use alloc::vec::Vec;

use twox_hash::XxHash3_64;

use super::frame::DIGEST_BLOCK_BYTES;
use crate::range::BLOCK_BYTES;

const _: () = assert!(
    DIGEST_BLOCK_BYTES == BLOCK_BYTES,
    "a digest stands for one block of the dirty bitmap"
);

/// The digest of one block, or of the shorter last one of a volume.
pub fn digest_block(seed: u64, block: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, block)
}

/// One digest per block; the last one may be of a shorter block.
pub fn digest_blocks(seed: u64, bytes: &[u8]) -> Vec<u64> {
    bytes
        .chunks(DIGEST_BLOCK_BYTES as usize)
        .map(|block| digest_block(seed, block))
        .collect()
}

/// The digest of a block of zeroes: for holes, which need not be read.
pub fn digest_of_zeroes(seed: u64, length: usize) -> u64 {
    const ZEROES: [u8; DIGEST_BLOCK_BYTES as usize] = [0; DIGEST_BLOCK_BYTES as usize];
    assert!(length <= ZEROES.len(), "a digest stands for at most one block");
    digest_block(seed, ZEROES.get(..length).unwrap_or(&ZEROES))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are the format: another node computes them too.
    #[test]
    fn golden_digests() {
        let block: Vec<u8> = (0..4096_u32).map(|byte| byte as u8).collect();
        assert_eq!(digest_block(0, &[]), 0x2d06_8005_38d3_94c2);
        assert_eq!(digest_block(0, &block), 0xeb4b_7c37_0787_9151);
        assert_eq!(digest_block(7, &block), 0x8e0e_c451_b9f3_8ed8);
        assert_eq!(digest_blocks(7, &[&block[..], &block[..100]].concat()).len(), 2);
    }

    #[test]
    fn a_hole_has_the_digest_of_zeroes() {
        for length in [1, 512, 4095, 4096] {
            assert_eq!(digest_of_zeroes(9, length), digest_block(9, &alloc::vec![0; length]));
        }
        assert_ne!(digest_of_zeroes(9, 4096), digest_of_zeroes(9, 512));
        assert_ne!(digest_of_zeroes(9, 4096), digest_of_zeroes(8, 4096));
    }

    #[test]
    fn one_bit_makes_another_digest() {
        let mut bytes = alloc::vec![0_u8; 3 * 4096];
        let before = digest_blocks(1, &bytes);
        bytes[5000] ^= 1;
        let after = digest_blocks(1, &bytes);
        assert_eq!((before[0], before[2]), (after[0], after[2]));
        assert_ne!(before[1], after[1]);
    }
}
