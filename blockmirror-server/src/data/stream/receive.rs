//! From received bytes to whole frames: header and body, then the payload, then its checksum.

use std::{io, mem};

use mirror_core::stream::Frame;
use mirror_core::stream::codec::{self, Checksum, DecodeError, FRAME_BYTES_MAX, PayloadHasher, Progress};

use super::ledger::protocol;
use super::work::StreamLost;
use crate::data::arriving::Arriving;
use crate::data::staging::{STAGING_BYTES, Staging};
use crate::ring::{Buffer, BufferPool, Payload, Socket};

/// Payloads up to this many bytes are copied out of the staging buffer; longer ones are received in place.
const STAGED_BYTES: usize = 16 << 10;

const _: () = assert!(STAGED_BYTES <= STAGING_BYTES, "a staged payload fits the buffer");

/// What was received and is not yet a whole frame.
pub(super) struct Inbound {
    /// What payloads are checked by on this connection.
    checksum: Checksum,
    staging: Staging,
    incoming: Incoming,
}

/// What the next bytes are.
#[expect(
    clippy::large_enum_variant,
    reason = "one per connection, and a box would be memory asked for per payload"
)]
enum Incoming {
    /// A frame.
    Frame,
    /// The payload of this one, small, waited for in the staging buffer.
    Staged(Expected),
    /// The rest of the payload of this one, received in place.
    Direct(Expected, Arriving),
}

struct Expected {
    frame: Frame,
    check: codec::Payload,
}

impl Expected {
    fn length(&self) -> usize {
        self.check.length as usize
    }
}

impl Inbound {
    /// Holds the bytes that came with the handshake.
    pub(super) fn new(pool: &BufferPool, checksum: Checksum, unread: &[u8]) -> Self {
        Self {
            checksum,
            staging: Staging::new(pool, unread),
            incoming: Incoming::Frame,
        }
    }

    /// The buffer to receive into, and the bytes it holds. `None`: it is away.
    pub(super) fn lend(&mut self, pool: &BufferPool) -> Option<(Buffer, usize)> {
        match &mut self.incoming {
            Incoming::Direct(_, arriving) => arriving.lend(),
            Incoming::Frame | Incoming::Staged(_) => {
                self.staging.adapt(pool);
                self.staging.lend()
            }
        }
    }

    /// The buffer is back with `count` more bytes.
    pub(super) fn restore(&mut self, home: Buffer, count: usize) {
        match &mut self.incoming {
            Incoming::Direct(_, arriving) => arriving.restore(home, count),
            Incoming::Frame | Incoming::Staged(_) => self.staging.restore(home, count),
        }
    }

    /// Receive more of a long payload, as far as it is there: what came of it. `None`: nothing is there, or nothing of
    /// that kind is awaited.
    pub(super) fn receive_now(&mut self, socket: &Socket) -> Option<io::Result<usize>> {
        match &mut self.incoming {
            Incoming::Direct(_, arriving) => arriving.receive_now(socket),
            Incoming::Frame | Incoming::Staged(_) => None,
        }
    }

    /// A long payload has come to its end, and `next` has not been asked for it.
    pub(super) fn is_whole(&self) -> bool {
        matches!(&self.incoming, Incoming::Direct(_, arriving) if arriving.is_whole())
    }

    /// Throw away what is there, and what is half received.
    pub(super) fn discard(&mut self) {
        self.incoming = Incoming::Frame;
        let length = self.staging.len();
        self.staging.consume(length);
    }

    /// The next whole frame and its payload. `None`: more bytes are needed. `judge` sees a frame before any memory is
    /// taken for its payload.
    pub(super) fn next(
        &mut self,
        pool: &BufferPool,
        judge: impl FnOnce(&Frame) -> Result<(), StreamLost>,
    ) -> Result<Option<(Frame, Option<Payload>)>, StreamLost> {
        if matches!(self.incoming, Incoming::Frame) {
            match codec::decode(self.staging.bytes()).map_err(damaged)? {
                Progress::NeedMore { total } => {
                    // A long frame needs a staging buffer that can hold it.
                    if total.is_some_and(|total| total > self.staging.capacity()) {
                        self.staging.grow(pool, FRAME_BYTES_MAX);
                    }
                    return Ok(None);
                }
                Progress::Frame {
                    frame,
                    payload,
                    consumed,
                } => {
                    judge(&frame)?;
                    self.staging.consume(consumed);
                    if payload.length == 0 {
                        return Ok(Some((frame, None)));
                    }
                    if let Some(payload) = self.staged(pool, payload)? {
                        return Ok(Some((frame, Some(payload))));
                    }
                    self.begin_payload(pool, Expected { frame, check: payload });
                }
            }
        }
        self.finish(pool)
    }

    fn begin_payload(&mut self, pool: &BufferPool, expected: Expected) {
        if expected.length() <= STAGED_BYTES {
            self.incoming = Incoming::Staged(expected);
            return;
        }
        let check = PayloadHasher::new(self.checksum);
        let arriving = Arriving::new(pool, expected.length(), &mut self.staging, Some(check));
        self.incoming = Incoming::Direct(expected, arriving);
    }

    /// The payload, if it is a short one and all of it is there.
    fn staged(&mut self, pool: &BufferPool, expected: codec::Payload) -> Result<Option<Payload>, StreamLost> {
        let length = expected.length as usize;
        if length > STAGED_BYTES {
            return Ok(None);
        }
        let Some(bytes) = self.staging.bytes().get(..length) else {
            return Ok(None);
        };
        let (payload, found) = (pool.payload_of(bytes), codec::Payload::of(self.checksum, bytes));
        self.staging.consume(length);
        compare(expected, found)?;
        Ok(Some(payload))
    }

    /// The frame whose payload is awaited, if all of it is there.
    fn finish(&mut self, pool: &BufferPool) -> Result<Option<(Frame, Option<Payload>)>, StreamLost> {
        let (expected, payload, check) = match mem::replace(&mut self.incoming, Incoming::Frame) {
            Incoming::Frame => return Ok(None),
            Incoming::Staged(expected) => {
                let Some(payload) = self.staged(pool, expected.check)? else {
                    self.incoming = Incoming::Staged(expected);
                    return Ok(None);
                };
                return Ok(Some((expected.frame, Some(payload))));
            }
            Incoming::Direct(expected, mut arriving) => match arriving.finish() {
                Some((payload, check)) => (expected, payload, check.unwrap_or_default()),
                None => {
                    self.incoming = Incoming::Direct(expected, arriving);
                    return Ok(None);
                }
            },
        };
        compare(expected.check, check)?;
        Ok(Some((expected.frame, Some(payload))))
    }
}

fn compare(expected: codec::Payload, found: codec::Payload) -> Result<(), StreamLost> {
    if found == expected {
        return Ok(());
    }
    Err(StreamLost::Damaged(format!(
        "the checksum of {} bytes of payload from the peer is wrong: the network or memory damages data",
        expected.length
    )))
}

fn damaged(error: DecodeError) -> StreamLost {
    match error {
        DecodeError::Damaged { .. } => StreamLost::Damaged(format!("{error}: the network or memory damages data")),
        DecodeError::TooLong(_) | DecodeError::Malformed { .. } => protocol(error.to_string()),
    }
}
