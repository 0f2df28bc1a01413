//! A long payload on its way in: received in place, and piece by piece where a checksum is wanted.

use std::io;

use mirror_core::stream::codec::{self, PayloadHasher};

use super::staging::Staging;
use crate::ring::{Buffer, BufferPool, Payload, Socket, receive_now};

/// Bytes of a piece whose checksum is wanted: they are still in the processor's cache when it is computed. From memory
/// it takes three times as long.
const PIECE_BYTES: usize = 128 << 10;
/// Bytes of long payloads taken off one socket without asking the engine in between; the others of the thread come next.
pub(crate) const NOW_BYTES: usize = 1 << 20;

/// The payload, and what is known of it so far.
#[derive(Debug)]
pub(crate) struct Arriving {
    /// Away while a receive is in flight.
    buffer: Option<Buffer>,
    length: usize,
    filled: usize,
    check: Option<PayloadHasher>,
}

impl Arriving {
    /// A payload of `length` bytes that begins with what is staged, checked by `check`.
    pub(crate) fn new(
        pool: &BufferPool,
        length: usize,
        staging: &mut Staging,
        mut check: Option<PayloadHasher>,
    ) -> Self {
        staging.holds_large_payload();
        let mut buffer = pool.take(length);
        let filled = staging.len().min(length);
        let there = &staging.bytes()[..filled];
        if let Some(check) = &mut check {
            check.update(there);
        }
        buffer.as_mut_slice()[..filled].copy_from_slice(there);
        staging.consume(filled);
        Self {
            buffer: Some(buffer),
            length,
            filled,
            check,
        }
    }

    /// All of it is there.
    pub(crate) fn is_whole(&self) -> bool {
        self.filled == self.length
    }

    /// The buffer to receive the next piece into, and the bytes it holds. `None`: it is away.
    pub(crate) fn lend(&mut self) -> Option<(Buffer, usize)> {
        let mut buffer = self.buffer.take()?;
        buffer.set_len(self.piece_end());
        Some((buffer, self.filled))
    }

    /// The buffer is back with `count` more bytes.
    pub(crate) fn restore(&mut self, mut buffer: Buffer, count: usize) {
        buffer.set_len(self.length);
        self.note(&buffer, count);
        self.buffer = Some(buffer);
    }

    /// Receive the next piece, as much of it as is there: what came of it, as of any receive. `None`: nothing is
    /// there yet, or nothing is missing.
    pub(crate) fn receive_now(&mut self, socket: &Socket) -> Option<io::Result<usize>> {
        if self.is_whole() {
            return None;
        }
        let room = self.filled..self.piece_end();
        let mut buffer = self.buffer.take()?;
        let result = receive_now(socket, &mut buffer.as_mut_slice()[room]);
        if let Some(Ok(count)) = &result {
            self.note(&buffer, *count);
        }
        self.buffer = Some(buffer);
        result
    }

    /// The payload, and its length and checksum if they were wanted. `None`: it is not whole, or its buffer is away.
    pub(crate) fn finish(&mut self) -> Option<(Payload, Option<codec::Payload>)> {
        if !self.is_whole() {
            return None;
        }
        let payload = self.buffer.take()?.into_payload();
        Some((payload, self.check.take().map(PayloadHasher::finish)))
    }

    fn piece_end(&self) -> usize {
        match self.check {
            Some(_) => self.length.min(self.filled + PIECE_BYTES),
            None => self.length,
        }
    }

    fn note(&mut self, buffer: &Buffer, count: usize) {
        if let Some(check) = &mut self.check {
            check.update(&buffer.as_slice()[self.filled..self.filled + count]);
        }
        self.filled += count;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::data::stream::CHECKSUM;

    const LENGTH: usize = 3 * PIECE_BYTES + 5;

    fn bytes() -> Vec<u8> {
        (0..LENGTH).map(|at| (at * 31 % 251) as u8).collect()
    }

    fn arriving(staged: &[u8], checked: bool) -> (BufferPool, Arriving) {
        let pool = BufferPool::new();
        let mut staging = Staging::new(&pool, staged);
        let check = checked.then(|| PayloadHasher::new(CHECKSUM));
        let arriving = Arriving::new(&pool, LENGTH, &mut staging, check);
        (pool, arriving)
    }

    #[test]
    fn a_payload_comes_piece_by_piece_either_way() {
        let bytes = bytes();
        let (_pool, mut arriving) = arriving(&bytes[..100], true);
        let (mut buffer, filled) = arriving.lend().unwrap();
        assert_eq!((filled, buffer.len()), (100, 100 + PIECE_BYTES));
        buffer.as_mut_slice()[100..300].copy_from_slice(&bytes[100..300]);
        arriving.restore(buffer, 200);

        let (mut far, near) = UnixStream::pair().unwrap();
        let near = Socket::new(near.into()).unwrap();
        assert!(arriving.receive_now(&near).is_none(), "nothing is there");
        let rest = bytes[300..].to_vec();
        let sender = std::thread::spawn(move || {
            far.write_all(&rest).unwrap();
            far.write_all(b"of the next request").unwrap();
            far
        });
        while !arriving.is_whole() {
            if let Some(result) = arriving.receive_now(&near) {
                assert!((1..=PIECE_BYTES).contains(&result.unwrap()));
            }
        }
        assert!(arriving.receive_now(&near).is_none(), "nothing is missing");
        let _far = sender.join().unwrap();
        let (payload, check) = arriving.finish().unwrap();
        assert_eq!(payload.as_slice(), bytes);
        assert_eq!(check, Some(codec::Payload::of(CHECKSUM, &bytes)));
    }

    #[test]
    fn what_is_not_checked_is_not_cut() {
        let (_pool, mut arriving) = arriving(&[], false);
        let (buffer, filled) = arriving.lend().unwrap();
        assert_eq!((filled, buffer.len()), (0, LENGTH));
        assert!(arriving.finish().is_none(), "the buffer is away");
    }

    #[test]
    fn an_end_in_the_middle_is_seen() {
        let (_pool, mut arriving) = arriving(&bytes()[..7], true);
        let (mut far, near) = UnixStream::pair().unwrap();
        let near = Socket::new(near.into()).unwrap();
        far.write_all(&bytes()[7..20]).unwrap();
        drop(far);
        assert_eq!(arriving.receive_now(&near).unwrap().unwrap(), 13);
        assert_eq!(arriving.receive_now(&near).unwrap().unwrap(), 0);
        assert!(arriving.finish().is_none());
    }
}
