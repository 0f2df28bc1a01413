//! The payload of a frame: its length and CRC are in the header, its bytes are the shell's.

use super::PAYLOAD_BYTES_MAX;

/// Length and CRC of a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Payload {
    /// Bytes; 0: none.
    pub length: u32,
    /// CRC-32 (IEEE) of them; 0 when there are none.
    pub crc: u32,
}

impl Payload {
    /// No payload.
    pub const NONE: Self = Self { length: 0, crc: 0 };

    /// Of bytes in one piece.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = PayloadHasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Whether these are the bytes.
    pub fn matches(self, bytes: &[u8]) -> bool {
        Self::of(bytes) == self
    }
}

/// Of bytes in several pieces.
#[derive(Clone, Debug, Default)]
pub struct PayloadHasher {
    crc: crc32fast::Hasher,
    length: u64,
}

impl PayloadHasher {
    /// Adds the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// Length and CRC of all pieces.
    pub fn finish(self) -> Payload {
        assert!(
            self.length <= PAYLOAD_BYTES_MAX,
            "I8: a payload has at most {PAYLOAD_BYTES_MAX} bytes"
        );
        Payload {
            length: u32::try_from(self.length).unwrap_or(u32::MAX),
            crc: self.crc.finalize(),
        }
    }
}
