//! Memory of READ replies, over all connections of a volume.

use super::Volume;

/// Bytes of READ replies that the connections of a volume may hold, asked for or not yet sent. Clients that do not read
/// cost no more than this.
const REPLY_BYTES: u64 = 256 << 20;
/// What one connection may always hold, however much the others do.
const FLOOR_BYTES: u64 = 256 << 10;

impl Volume {
    /// May a connection that holds `held` bytes of replies ask for `bytes` more?
    pub(crate) fn has_reply_room(&mut self, held: u64, bytes: u64) -> bool {
        let fits = bytes == 0 || held + bytes <= FLOOR_BYTES || self.reply_bytes + bytes <= REPLY_BYTES;
        self.replies_full |= !fits;
        fits
    }

    /// A connection has asked for as many bytes.
    pub(crate) fn hold_reply(&mut self, bytes: u64) {
        self.reply_bytes += bytes;
    }

    /// They have been sent, or are no longer wanted.
    pub(crate) fn release_reply(&mut self, bytes: u64) {
        debug_assert!(self.reply_bytes >= bytes, "only what is held is released");
        self.reply_bytes = self.reply_bytes.saturating_sub(bytes);
        self.replies_full &= self.reply_bytes > 0;
    }

    /// A READ has had to wait for others' replies to be read, and nothing has changed about that.
    pub(crate) fn replies_are_full(&self) -> bool {
        self.replies_full
    }
}
