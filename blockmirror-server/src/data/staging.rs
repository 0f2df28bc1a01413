//! The bytes received and not yet consumed.

use crate::ring::{Buffer, BufferPool};

/// Bytes of a staging buffer: some fifteen 4 KiB writes in one receive.
pub(crate) const STAGING_BYTES: usize = 64 << 10;

/// Bytes of a staging buffer of a connection that has filled the smaller one: a deep queue comes in one receive.
const STAGING_BUSY_BYTES: usize = 256 << 10;

/// A buffer that is received into at its end and consumed at its front. While a receive is in flight the buffer is away.
#[derive(Debug)]
pub(crate) struct Staging {
    buffer: Option<Buffer>,
    start: usize,
    end: usize,
    /// The last receive filled it, with many small requests.
    was_full: bool,
}

impl Staging {
    /// Holds the bytes that came with the handshake.
    pub(crate) fn new(pool: &BufferPool, unread: &[u8]) -> Self {
        let mut buffer = pool.take(STAGING_BYTES.max(unread.len()));
        buffer.as_mut_slice()[..unread.len()].copy_from_slice(unread);
        Self {
            buffer: Some(buffer),
            start: 0,
            end: unread.len(),
            was_full: false,
        }
    }

    /// What is there.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.buffer {
            Some(buffer) => &buffer.as_slice()[self.start..self.end],
            None => &[],
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Bytes it can hold; 0 while the buffer is away.
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.as_ref().map_or(0, Buffer::len)
    }

    pub(crate) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.len());
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Give the buffer away to be received into, behind the bytes it holds: the buffer and their number. What is left
    /// moves to the front first. `None`: it is away already, or full.
    pub(crate) fn lend(&mut self) -> Option<(Buffer, usize)> {
        let mut buffer = self.buffer.take()?;
        if self.start > 0 {
            buffer.as_mut_slice().copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == buffer.len() {
            self.buffer = Some(buffer);
            return None;
        }
        Some((buffer, self.end))
    }

    /// The buffer is back with `count` more bytes.
    pub(crate) fn restore(&mut self, buffer: Buffer, count: usize) {
        self.end += count;
        self.was_full = self.end == buffer.len();
        self.buffer = Some(buffer);
    }

    /// What filled it was the start of one large payload: a larger buffer would only be one more copy.
    pub(crate) fn holds_large_payload(&mut self) {
        self.was_full = false;
    }

    /// Grow when it proved too small.
    pub(crate) fn adapt(&mut self, pool: &BufferPool) {
        if std::mem::take(&mut self.was_full) {
            self.grow(pool, STAGING_BUSY_BYTES);
        }
    }

    /// Make room for `bytes` in all, keeping what is there.
    pub(crate) fn grow(&mut self, pool: &BufferPool, bytes: usize) {
        let Some(old) = &self.buffer else { return };
        if old.len() >= bytes {
            return;
        }
        let mut buffer = pool.take(bytes);
        buffer.as_mut_slice()[..self.len()].copy_from_slice(self.bytes());
        (self.start, self.end) = (0, self.len());
        self.buffer = Some(buffer);
    }
}
