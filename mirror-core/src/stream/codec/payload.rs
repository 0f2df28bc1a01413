//! The payload of a frame: its length and checksum are in the header, its bytes are the shell's.

use core::fmt;
use core::hash::Hasher;

use twox_hash::XxHash3_64;
use twox_hash::xxhash3_64::{DEFAULT_SECRET_LENGTH, RawHasher, SecretBuffer};

use super::PAYLOAD_BYTES_MAX;
use crate::stream::hello::FEATURE_XXH3;

/// How payloads are checked on a connection.
///
/// CRC-32 is as fast as a processor's carry-less multiplier, XXH3 as fast as its memory: half the time of a long payload.
/// Frames themselves have a CRC-32 whatever was agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// CRC-32 (IEEE): what every release can.
    #[default]
    Crc32,
    /// The lower half of XXH3 with 64 bits, not seeded.
    Xxh3,
}

impl Checksum {
    /// The one for a connection whose nodes have these features in common.
    pub const fn of_features(features: u64) -> Self {
        if features & FEATURE_XXH3 != 0 {
            Self::Xxh3
        } else {
            Self::Crc32
        }
    }
}

/// Length and checksum of a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Payload {
    /// Bytes; 0: none.
    pub length: u32,
    /// Of the bytes, by the [`Checksum`] of the connection; 0 when there are none.
    pub check: u32,
}

impl Payload {
    /// No payload.
    pub const NONE: Self = Self { length: 0, check: 0 };

    /// Of bytes in one piece.
    pub fn of(checksum: Checksum, bytes: &[u8]) -> Self {
        Self::new(
            bytes.len() as u64,
            match checksum {
                Checksum::Crc32 => crc32fast::hash(bytes),
                Checksum::Xxh3 => XxHash3_64::oneshot(bytes) as u32,
            },
        )
    }

    /// Whether these are the bytes.
    pub fn matches(self, checksum: Checksum, bytes: &[u8]) -> bool {
        Self::of(checksum, bytes) == self
    }

    fn new(length: u64, check: u32) -> Self {
        assert!(
            length <= PAYLOAD_BYTES_MAX,
            "I8: a payload has at most {PAYLOAD_BYTES_MAX} bytes"
        );
        if length == 0 {
            return Self::NONE;
        }
        Self {
            length: u32::try_from(length).unwrap_or(u32::MAX),
            check,
        }
    }
}

/// Of bytes in several pieces. About 600 bytes, kept in place: it is made for every long payload and asks for no memory.
pub struct PayloadHasher {
    state: State,
    length: u64,
}

#[expect(clippy::large_enum_variant, reason = "the large one is the usual one")]
enum State {
    Crc32(crc32fast::Hasher),
    Xxh3(Xxh3),
}

/// XXH3 with the usual secret, where it lies.
type Xxh3 = RawHasher<&'static [u8; DEFAULT_SECRET_LENGTH]>;

impl fmt::Debug for PayloadHasher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PayloadHasher")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl PayloadHasher {
    /// Of nothing yet.
    pub fn new(checksum: Checksum) -> Self {
        let state = match checksum {
            Checksum::Crc32 => State::Crc32(crc32fast::Hasher::new()),
            Checksum::Xxh3 => State::Xxh3(Xxh3::new(SecretBuffer::default())),
        };
        Self { state, length: 0 }
    }

    /// Adds the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Crc32(state) => state.update(bytes),
            State::Xxh3(state) => state.write(bytes),
        }
        self.length += bytes.len() as u64;
    }

    /// Length and checksum of all pieces.
    pub fn finish(self) -> Payload {
        Payload::new(
            self.length,
            match self.state {
                State::Crc32(state) => state.finalize(),
                State::Xxh3(state) => state.finish() as u32,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::range::ByteRange;
    use crate::stream::Request;
    use crate::stream::codec::encode_request;

    /// Made by another program than this one.
    #[test]
    fn golden_checksums() {
        let long: Vec<u8> = (0..100_000_u32).map(|at| (at * 7) as u8).collect();
        for (bytes, golden) in [(&long[..], 0x40e5_fca3), (b"a", 0x1e96_4e1f), (b"", 0)] {
            assert_eq!(Payload::of(Checksum::Xxh3, bytes).check, golden);
        }
        assert_eq!(Payload::of(Checksum::Crc32, b"123456789").check, 0xcbf4_3926);
    }

    #[test]
    fn golden_frame_with_xxh3() {
        let write = Request::Write {
            range: ByteRange::new(0x1000, 512),
            fua: true,
        };
        let mut bytes = Vec::new();
        encode_request(1, 2, &write, Payload::of(Checksum::Xxh3, &[b'x'; 512]), &mut bytes);
        let hex: alloc::string::String = bytes.iter().map(|byte| alloc::format!("{byte:02x}")).collect();
        let golden = "0c0000000101020001000000000000000002000066ea93c344992245001000000000000000020000";
        assert_eq!(hex, golden);
    }

    #[test]
    fn both_nodes_need_the_feature() {
        assert_eq!(Checksum::of_features(0), Checksum::Crc32);
        assert_eq!(Checksum::of_features(1), Checksum::Crc32);
        assert_eq!(Checksum::of_features(2 | 4), Checksum::Xxh3);
    }
}
