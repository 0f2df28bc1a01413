//! The header of a frame.

use super::wire::{Malformed, Reader};
use super::{HEADER_BYTES, Payload, SMALL_BYTES, answer, control, request};
use crate::stream::frame::{Frame, Sequence};

/// Bytes of the header that its CRC covers.
const CHECKED_BYTES: usize = HEADER_BYTES - 4;

/// What every frame begins with.
pub(super) struct Header {
    pub(super) body: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) volume: u16,
    pub(super) sequence: Sequence,
    pub(super) payload: Payload,
    pub(super) crc: u32,
}

impl Header {
    pub(super) fn new(payload: Payload) -> Self {
        Self {
            body: 0,
            kind: 0,
            flags: 0,
            volume: 0,
            sequence: 0,
            payload,
            crc: 0,
        }
    }

    pub(super) fn decode(head: &[u8; HEADER_BYTES]) -> Self {
        let [
            l0,
            l1,
            l2,
            l3,
            kind,
            flags,
            v0,
            v1,
            s0,
            s1,
            s2,
            s3,
            s4,
            s5,
            s6,
            s7,
            p0,
            p1,
            p2,
            p3,
            c0,
            c1,
            c2,
            c3,
            h0,
            h1,
            h2,
            h3,
        ] = *head;
        Self {
            body: u32::from_le_bytes([l0, l1, l2, l3]),
            kind,
            flags,
            volume: u16::from_le_bytes([v0, v1]),
            sequence: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            payload: Payload {
                length: u32::from_le_bytes([p0, p1, p2, p3]),
                check: u32::from_le_bytes([c0, c1, c2, c3]),
            },
            crc: u32::from_le_bytes([h0, h1, h2, h3]),
        }
    }

    pub(super) fn finish(&self, head: &mut [u8; HEADER_BYTES], body: &[u8]) {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let words = [
            u64::from(length) | u64::from(self.kind) << 32 | u64::from(self.flags) << 40 | u64::from(self.volume) << 48,
            self.sequence,
            u64::from(self.payload.length) | u64::from(self.payload.check) << 32,
        ];
        for (place, word) in head.as_chunks_mut().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        let crc = frame_crc(head, body);
        if let Some(place) = head.last_chunk_mut::<4>() {
            *place = crc.to_le_bytes();
        }
    }

    pub(super) fn frame(&self, body: &mut Reader<'_>) -> Result<Frame, Malformed> {
        match self.kind {
            request::FIRST..=request::LAST => Ok(Frame::Request {
                sequence: self.sequence,
                volume: self.volume,
                request: request::decode(self, body)?,
            }),
            answer::FIRST..=answer::LAST => Ok(Frame::Answer(answer::decode(self, body)?)),
            control::FIRST..=control::LAST => Ok(Frame::Control(control::decode(self, body)?)),
            _ => Err(Malformed("its type is unknown in this version")),
        }
    }
}

/// Of the header without its CRC, and the body.
pub(super) fn frame_crc(head: &[u8; HEADER_BYTES], body: &[u8]) -> u32 {
    let head = head.get(..CHECKED_BYTES).unwrap_or_default();
    // In one piece where it is short, which nearly every frame is: what is not a multiple of 16 goes byte by byte.
    let mut joined = [0; SMALL_BYTES];
    if let Some(joined) = joined.get_mut(..CHECKED_BYTES + body.len()) {
        let (start, rest) = joined.split_at_mut(CHECKED_BYTES);
        start.copy_from_slice(head);
        rest.copy_from_slice(body);
        return crc32fast::hash(joined);
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(body);
    hasher.finalize()
}
