//! What an export is, as far as the protocol is concerned.

use alloc::string::String;

use crate::constants::{
    DEFAULT_MAXIMUM_PAYLOAD, DEFAULT_PREFERRED_BLOCK, MAX_MINIMUM_BLOCK, MIN_PREFERRED_BLOCK, UNLIMITED_PAYLOAD,
};
use crate::flags::TransmissionFlags;

/// Block size constraints of an export, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    /// Offsets and lengths must be multiples of this. A power of two, 1 to 65536.
    pub minimum: u32,
    /// Requests aligned to this are efficient. A power of two, at least 512 and at least `minimum`.
    pub preferred: u32,
    /// Longest READ or WRITE. [`UNLIMITED_PAYLOAD`] means there is no limit.
    pub maximum_payload: u32,
}

/// One export of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// Canonical name, as LIST gives it. At most 4096 bytes, no NUL.
    pub name: String,
    /// Human description, may be empty. At most 4096 bytes, no NUL.
    pub description: String,
    /// Size in bytes; a multiple of the minimum block size, or the tail cannot be reached.
    pub size: u64,
    /// What it can do. [`TransmissionFlags::HAS_FLAGS`] and [`TransmissionFlags::SEND_DF`] are set by the handshake.
    pub flags: TransmissionFlags,
    /// Its block size constraints.
    pub block_sizes: BlockSizes,
}

impl Default for BlockSizes {
    /// What both sides assume when nothing was negotiated.
    fn default() -> Self {
        Self {
            minimum: 1,
            preferred: DEFAULT_PREFERRED_BLOCK,
            maximum_payload: DEFAULT_MAXIMUM_PAYLOAD,
        }
    }
}

impl BlockSizes {
    /// Whether the three sizes obey the protocol's rules for an export of `size` bytes.
    pub fn are_valid(&self, size: u64) -> bool {
        let minimum = self.minimum.is_power_of_two() && self.minimum <= MAX_MINIMUM_BLOCK;
        let preferred = self.preferred.is_power_of_two() && self.preferred >= self.minimum.max(MIN_PREFERRED_BLOCK);
        minimum && preferred && self.is_payload_valid(size)
    }

    fn is_payload_valid(&self, size: u64) -> bool {
        // A small export may have a limit below the preferred size: nothing longer can be asked of it.
        let floor = u64::from(self.preferred).min(size).max(1);
        self.maximum_payload == UNLIMITED_PAYLOAD
            || (self.maximum_payload.is_multiple_of(self.minimum) && u64::from(self.maximum_payload) >= floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid(minimum: u32, preferred: u32, maximum_payload: u32) -> bool {
        BlockSizes {
            minimum,
            preferred,
            maximum_payload,
        }
        .are_valid(1 << 30)
    }

    #[test]
    fn sizes_must_be_powers_of_two_in_order() {
        assert!(BlockSizes::default().are_valid(0));
        assert!(valid(1, 512, 512));
        assert!(valid(65_536, 65_536, 65_536));
        assert!(valid(512, 4096, UNLIMITED_PAYLOAD));
        assert!(!valid(0, 4096, 1 << 20));
        assert!(!valid(3, 4096, 1 << 20));
        assert!(!valid(131_072, 131_072, 1 << 20));
        assert!(!valid(1, 256, 1 << 20));
        assert!(!valid(4096, 512, 1 << 20));
        assert!(!valid(1, 5000, 1 << 20));
        assert!(!valid(1, 4096, 2048));
        assert!(!valid(512, 4096, 4097));
    }

    #[test]
    fn a_small_export_may_have_a_small_payload_limit() {
        let sizes = BlockSizes {
            minimum: 1,
            preferred: 4096,
            maximum_payload: 100,
        };
        assert!(sizes.are_valid(100));
        assert!(!sizes.are_valid(101));
        assert!(
            !BlockSizes {
                maximum_payload: 0,
                ..sizes
            }
            .are_valid(0)
        );
    }
}
