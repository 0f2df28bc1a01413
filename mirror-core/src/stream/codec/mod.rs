//! Frames as bytes. docs/STREAM.md has the tables.
//!
//! ```text
//!  header, 28 bytes, little-endian                                        body            payload
//!  ┌────────┬──────┬───────┬────────┬──────────┬─────────┬─────────┬─────┬───────────────┬──────────────────┐
//!  │ body   │ type │ flags │ volume │ sequence │ payload │ payload │ CRC │ by type       │ by its length    │
//!  │ length │ u8   │ u8    │ u16    │ u64      │ length  │ check   │ u32 │               │ in the header    │
//!  │ u32    │      │       │        │          │ u32     │ u32     │     │               │                  │
//!  └────────┴──────┴───────┴────────┴──────────┴─────────┴─────────┴─────┴───────────────┴──────────────────┘
//! ```
//! The header's CRC covers the 24 bytes before it and the body. The payload has a [`Checksum`] of its own, so that it is read
//! once where it is received, and once where it is sent however many peers get it.
//!
//! No input makes the decoder panic, or allocate more than has arrived.

mod answer;
mod control;
mod header;
mod identity;
mod payload;
mod request;
pub(super) mod wire;

use alloc::vec::Vec;

pub use payload::{Checksum, Payload, PayloadHasher};

use self::header::{Header, frame_crc};
use self::wire::{Malformed, Reader, Sink};
use super::frame::{Answer, Control, Frame, Request, Sequence};
use crate::config::{COPY_BYTES_MAX, MUTATION_BYTES_MAX};
use crate::range::BLOCK_BYTES;

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 28;
/// Longest body.
pub const BODY_BYTES_MAX: usize = 224 << 10;
/// Longest frame, payload apart: what a receiver has to gather at most.
pub const FRAME_BYTES_MAX: usize = HEADER_BYTES + BODY_BYTES_MAX;
/// Bytes a frame may have to be encoded without allocation.
pub const SMALL_BYTES: usize = 64;
/// Longest range of one request.
pub const RANGE_BYTES_MAX: u64 = if MUTATION_BYTES_MAX > COPY_BYTES_MAX {
    MUTATION_BYTES_MAX
} else {
    COPY_BYTES_MAX
};
/// Longest payload of one frame.
pub const PAYLOAD_BYTES_MAX: u64 = RANGE_BYTES_MAX;
/// Digests of one request at most.
pub const DIGESTS_MAX: usize = (RANGE_BYTES_MAX / BLOCK_BYTES) as usize;
/// Ranges of one list at most: every other block of the longest range.
pub const RANGES_MAX: usize = DIGESTS_MAX / 2;
/// Requests answered by one frame at most.
pub const DONE_MAX: usize = 4096;
/// Runs of blocks in one BITMAP at most.
pub const RUNS_MAX: usize = 4096;
/// Bytes of a text at most; a longer one is cut when it is sent.
pub const TEXT_BYTES_MAX: usize = 2048;
/// Bytes of a name at most.
pub const NAME_BYTES_MAX: usize = 255;

const _: () = assert!(
    DIGESTS_MAX * 8 + 64 <= BODY_BYTES_MAX,
    "I8: the longest COMPARE fits a body"
);
const _: () = assert!(
    RANGES_MAX * 24 + 64 <= BODY_BYTES_MAX,
    "I8: the longest CONTENTS fits a body"
);

/// What came out of received bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A frame is not complete.
    NeedMore {
        /// Its bytes without payload, once the header is there.
        total: Option<usize>,
    },
    /// A frame; its payload's bytes follow those consumed.
    Frame {
        /// What it says.
        frame: Frame,
        /// What follows.
        payload: Payload,
        /// Bytes of header and body.
        consumed: usize,
    },
}

/// Bytes that are no frame; the connection must be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than any frame.
    #[error("a frame of {0} bytes is announced, the limit is {BODY_BYTES_MAX}: the stream has lost its place")]
    TooLong(u32),
    /// The CRC is wrong.
    #[error("a frame of type {kind} has CRC {found:#010x} instead of {expected:#010x}: it was damaged on its way")]
    Damaged {
        /// Type, if that is not what was damaged.
        kind: u8,
        /// As computed.
        expected: u32,
        /// As it says.
        found: u32,
    },
    /// Of a type or with fields that this version does not have.
    #[error("a frame of type {kind} is malformed: {what}")]
    Malformed {
        /// Type.
        kind: u8,
        /// What is wrong.
        what: &'static str,
    },
}

/// Decodes the frame at the start of `bytes`.
///
/// # Errors
/// The bytes are no frame, however many follow.
pub fn decode(bytes: &[u8]) -> Result<Progress, DecodeError> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(Progress::NeedMore { total: None });
    };
    let header = Header::decode(head);
    let length = usize::try_from(header.body).unwrap_or(usize::MAX);
    if length > BODY_BYTES_MAX {
        return Err(DecodeError::TooLong(header.body));
    }
    let consumed = HEADER_BYTES + length;
    let Some(body) = rest.get(..length) else {
        return Ok(Progress::NeedMore { total: Some(consumed) });
    };
    let expected = frame_crc(head, body);
    if expected != header.crc {
        return Err(DecodeError::Damaged {
            kind: header.kind,
            expected,
            found: header.crc,
        });
    }
    let malformed = |Malformed(what)| DecodeError::Malformed {
        kind: header.kind,
        what,
    };
    let mut reader = Reader::new(body);
    let frame = header.frame(&mut reader).map_err(malformed)?;
    reader.end().map_err(malformed)?;
    let payload = header.payload;
    if u64::from(payload.length) != payload_bytes(&frame) || payload.length == 0 && payload.check != 0 {
        return Err(malformed(Malformed("its payload has not the length it needs")));
    }
    Ok(Progress::Frame {
        frame,
        payload,
        consumed,
    })
}

/// Appends a frame.
pub fn encode(frame: &Frame, payload: Payload, output: &mut Vec<u8>) {
    match frame {
        Frame::Request {
            sequence,
            volume,
            request,
        } => encode_request(*sequence, *volume, request, payload, output),
        Frame::Answer(answer) => encode_answer(answer, payload, output),
        Frame::Control(control) => encode_control(control, output),
    }
}

/// Appends a request. Its payload, if it has one, is to be sent behind.
pub fn encode_request(sequence: Sequence, volume: u16, request: &Request, payload: Payload, output: &mut Vec<u8>) {
    assert_payload(payload, request.payload_bytes());
    append(output, payload, |header, sink| {
        (header.sequence, header.volume) = (sequence, volume);
        request::encode(request, header, sink);
    });
}

/// As [`encode_request`], without allocation; `None`: it is not a small one.
pub fn small_request(sequence: Sequence, volume: u16, request: &Request, payload: Payload) -> Option<Small> {
    assert_payload(payload, request.payload_bytes());
    let mut small = Small {
        bytes: [0; SMALL_BYTES],
        length: HEADER_BYTES,
        overflown: false,
    };
    let mut header = Header::new(payload);
    (header.sequence, header.volume) = (sequence, volume);
    request::encode(request, &mut header, &mut small);
    let (head, rest) = small.bytes.split_first_chunk_mut::<HEADER_BYTES>()?;
    let body = rest.get(..small.length - HEADER_BYTES).filter(|_| !small.overflown)?;
    header.finish(head, body);
    Some(small)
}

/// Appends an answer. Its payload, if it has one, is to be sent behind.
pub fn encode_answer(answer: &Answer, payload: Payload, output: &mut Vec<u8>) {
    assert_payload(payload, answer.payload_bytes());
    append(output, payload, |header, sink| answer::encode(answer, header, sink));
}

/// Appends as many frames as these numbers of done requests need.
pub fn encode_done(done: &[Sequence], output: &mut Vec<u8>) {
    for batch in done.chunks(DONE_MAX) {
        append(output, Payload::NONE, |header, sink| {
            answer::encode_done(batch, header, sink);
        });
    }
}

/// Appends a control frame.
pub fn encode_control(control: &Control, output: &mut Vec<u8>) {
    append(output, Payload::NONE, |header, sink| {
        control::encode(control, header, sink);
    });
}

/// Decodes arbitrary bytes in every way there is, and panics when a decoder does what it must not: for fuzzing.
///
/// Once as they are, once with the CRC of the first frame put right, so that what is behind it is reached.
pub fn read_any(bytes: &[u8]) {
    check_decoded(bytes);
    let mut bytes = bytes.to_vec();
    if let Some((head, rest)) = bytes.split_first_chunk_mut::<HEADER_BYTES>() {
        let length = usize::try_from(Header::decode(head).body).unwrap_or(usize::MAX);
        let body = rest.get(..length).unwrap_or(rest);
        Header::decode(head).finish(head, body);
    }
    check_decoded(&bytes);
}

/// There is one form of everything: what decodes encodes to the same bytes.
fn check_decoded(bytes: &[u8]) {
    let Ok(Progress::Frame {
        frame,
        payload,
        consumed,
    }) = decode(bytes)
    else {
        return;
    };
    let mut again = Vec::new();
    encode(&frame, payload, &mut again);
    assert_eq!(bytes.get(..consumed), Some(&again[..]), "{frame:?}");
}

/// A frame in a fixed array.
#[derive(Clone, Copy, Debug)]
pub struct Small {
    bytes: [u8; SMALL_BYTES],
    length: usize,
    overflown: bool,
}

impl Small {
    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Sink for Small {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        match self.bytes.get_mut(self.length..end) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.length = end;
            }
            None => self.overflown = true,
        }
    }
}

/// The payload a frame is given is the one it says.
fn assert_payload(payload: Payload, bytes: u64) {
    assert_eq!(u64::from(payload.length), bytes, "a frame has the payload it says");
}

fn append(output: &mut Vec<u8>, payload: Payload, body: impl FnOnce(&mut Header, &mut Vec<u8>)) {
    let start = output.len();
    output.extend_from_slice(&[0; HEADER_BYTES]);
    let mut header = Header::new(payload);
    body(&mut header, output);
    let (_, frame) = output.split_at_mut(start);
    if let Some((head, body)) = frame.split_first_chunk_mut::<HEADER_BYTES>() {
        assert!(
            body.len() <= BODY_BYTES_MAX,
            "I8: a body has at most {BODY_BYTES_MAX} bytes"
        );
        header.finish(head, body);
    }
}

/// Payload bytes that must follow a frame.
fn payload_bytes(frame: &Frame) -> u64 {
    match frame {
        Frame::Request { request, .. } => request.payload_bytes(),
        Frame::Answer(answer) => answer.payload_bytes(),
        Frame::Control(_) => 0,
    }
}

#[cfg(test)]
mod tests;
