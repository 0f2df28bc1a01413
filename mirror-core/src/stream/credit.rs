//! Credits: what a receiver lets its sender have in flight.

/// Payload bytes and requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Credit {
    /// Bytes, by [`Need::cost`](super::frame::Need).
    pub bytes: u64,
    /// Requests.
    pub requests: u32,
}

impl Credit {
    /// Bytes a receiver grants at most.
    pub const BYTES_MAX: u64 = 1 << 30;
    /// Requests a receiver grants at most.
    pub const REQUESTS_MAX: u32 = 1 << 16;
    /// When the configuration says nothing.
    pub const DEFAULT: Self = Self {
        bytes: 32 << 20,
        requests: 1024,
    };

    /// Within the bounds, and not so little that nothing would move.
    #[must_use]
    pub fn clamped(self) -> Self {
        Self {
            bytes: self.bytes.clamp(1, Self::BYTES_MAX),
            requests: self.requests.clamp(1, Self::REQUESTS_MAX),
        }
    }
}
