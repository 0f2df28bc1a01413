//! The bytes received and not yet consumed.

use std::io;

use crate::ring::{Buffer, BufferPool, Socket, receive_now};

/// Bytes of a staging buffer: some fifteen 4 KiB writes in one receive.
pub(crate) const STAGING_BYTES: usize = 64 << 10;

/// Bytes of a staging buffer of a connection that has filled the smaller one: a deep queue comes in one receive.
const STAGING_BUSY_BYTES: usize = 256 << 10;

/// A buffer that is received into at its end and consumed at its front. While a receive is in flight the buffer is away.
#[derive(Debug)]
pub(crate) struct Staging {
    buffer: Option<Buffer>,
    /// Bytes of the buffer.
    size: usize,
    start: usize,
    end: usize,
    /// The last receive filled it, with many small requests.
    was_full: bool,
    /// Bytes to hold at most: what follows them is not to be copied out of here. `None`: whatever comes.
    limit: Option<usize>,
}

impl Staging {
    /// Holds the bytes that came with the handshake.
    pub(crate) fn new(pool: &BufferPool, unread: &[u8]) -> Self {
        let size = STAGING_BYTES.max(unread.len());
        let mut buffer = pool.take(size);
        buffer.as_mut_slice()[..unread.len()].copy_from_slice(unread);
        Self {
            buffer: Some(buffer),
            size,
            start: 0,
            end: unread.len(),
            was_full: false,
            limit: None,
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

    /// From now on receive so many bytes and no more, as long as there are fewer; `None`: as many as there is room for.
    pub(crate) fn limit(&mut self, bytes: Option<usize>) {
        self.limit = bytes;
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
        if let Some(limit) = self.limit.filter(|limit| *limit > self.end) {
            buffer.set_len(limit.min(buffer.len()));
        }
        Some((buffer, self.end))
    }

    /// The buffer is back with `count` more bytes.
    pub(crate) fn restore(&mut self, mut buffer: Buffer, count: usize) {
        buffer.set_len(self.size);
        self.end += count;
        self.was_full = self.end == buffer.len();
        self.buffer = Some(buffer);
    }

    /// Receive what is there now, up to the limit: what came of it, as of any receive. `None`: nothing is there, or
    /// there is no limit, or it has been reached.
    pub(crate) fn receive_now(&mut self, socket: &Socket) -> Option<io::Result<usize>> {
        let room = self.end..self.start + self.limit?;
        let into = self.buffer.as_mut()?.as_mut_slice().get_mut(room)?;
        if into.is_empty() {
            return None;
        }
        let result = receive_now(socket, into);
        if let Some(Ok(count)) = &result {
            self.end += count;
        }
        result
    }

    /// As many bytes as the limit allows are there.
    pub(crate) fn has_reached_limit(&self) -> bool {
        self.limit.is_some_and(|limit| self.len() >= limit)
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
        self.size = bytes;
        self.buffer = Some(buffer);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_limit_holds_until_it_is_reached_or_lifted() {
        let pool = BufferPool::new();
        let mut staging = Staging::new(&pool, b"");
        staging.limit(Some(28));
        let (buffer, filled) = staging.lend().unwrap();
        assert_eq!((buffer.len(), filled), (28, 0));
        staging.restore(buffer, 10);
        assert!(!staging.has_reached_limit());
        let (buffer, filled) = staging.lend().unwrap();
        assert_eq!((buffer.len(), filled), (28, 10));
        staging.restore(buffer, 18);
        assert!(staging.has_reached_limit());
        assert_eq!((staging.len(), staging.capacity()), (28, STAGING_BYTES));
        staging.adapt(&pool);
        assert_eq!(
            staging.capacity(),
            STAGING_BYTES,
            "reaching the limit is not filling the buffer"
        );
        let (buffer, _) = staging.lend().unwrap();
        assert_eq!(
            buffer.len(),
            STAGING_BYTES,
            "with the limit reached, what comes belongs here"
        );
        staging.restore(buffer, 0);
        staging.consume(28);
        staging.limit(None);
        assert_eq!(staging.lend().unwrap().0.len(), STAGING_BYTES);
    }

    #[test]
    fn what_is_there_is_received_up_to_the_limit() {
        let pool = BufferPool::new();
        let (mut far, near) = UnixStream::pair().unwrap();
        let near = Socket::new(near.into()).unwrap();
        let mut staging = Staging::new(&pool, b"ab");
        far.write_all(b"cdefgh").unwrap();
        assert!(
            staging.receive_now(&near).is_none(),
            "without a limit it is the engine's"
        );
        staging.limit(Some(5));
        assert_eq!(staging.receive_now(&near).unwrap().unwrap(), 3);
        assert!(staging.receive_now(&near).is_none(), "the limit is reached");
        assert_eq!(staging.bytes(), b"abcde");
        staging.consume(5);
        assert_eq!(staging.receive_now(&near).unwrap().unwrap(), 3);
        assert!(staging.receive_now(&near).is_none(), "nothing is there");
        drop(far);
        assert_eq!(staging.receive_now(&near).unwrap().unwrap(), 0);
    }
}
