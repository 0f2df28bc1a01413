//! BLOCK_STATUS: answered at once, from what the volume can look up without waiting.

use nbd_proto::{ReplyFlags, Request, validate_filtered};

use super::receive::{Incoming, Step};
use super::{Connection, Phase};
use crate::data::turn::Turn;
use crate::data::volume::{EXTENTS_MAX, Volume};
use crate::ring::Segment;

/// Bytes of the reply for one context, at most: a header, and extents with 64-bit lengths.
const CONTEXT_BYTES: u64 = 64 + 16 * EXTENTS_MAX as u64;

impl Connection {
    /// The payload of a BLOCK_STATUS that names contexts is awaited, or there.
    pub(super) fn step_filter(&mut self, volume: &mut Volume, turn: &mut Turn, request: &Request) -> Step {
        let length = request.length as usize;
        if self.staging.len() < length {
            return Step::Starved;
        }
        if !self.may_reply(volume, turn, self.status_bytes()) {
            return Step::Stalled;
        }
        let payload = self.staging.bytes().get(..length).unwrap_or_default();
        let verdict = validate_filtered(request, payload, &self.negotiated);
        self.staging.consume(length);
        self.incoming = Incoming::Header;
        match verdict {
            Ok(asked) => self.answer_status(volume, request, asked.length, asked.one, asked.contexts),
            Err(refusal) => self.refuse(request, refusal),
        }
        Step::Again
    }

    /// What a reply may have at most, before it is known.
    pub(super) fn status_bytes(&self) -> u64 {
        self.contexts.len() as u64 * CONTEXT_BYTES
    }

    /// One chunk for each context whose bit is set in `chosen`.
    pub(super) fn answer_status(
        &mut self,
        volume: &mut Volume,
        request: &Request,
        length: u64,
        one: bool,
        chosen: u64,
    ) {
        let range = request.offset..request.offset + length;
        let to = self.reply_to(request.cookie, request.offset);
        let named = self.negotiated.contexts.iter().zip(&self.contexts);
        let chosen = (0..).zip(named).filter(|(bit, _)| chosen >> *bit & 1 == 1);
        let mut contexts = chosen.map(|(_, named)| named).peekable();
        let mut reply = Vec::new();
        while let Some((context, kind)) = contexts.next() {
            let flags = match contexts.peek() {
                Some(_) => ReplyFlags::empty(),
                None => ReplyFlags::DONE,
            };
            let extents = volume.extents(*kind, range.clone(), one);
            to.put_status(flags, context.id, &extents, &mut reply);
        }
        let bytes = reply.len() as u64;
        self.window.requests += 1;
        self.window.bytes += bytes;
        self.queued.requests += 1;
        self.queued.bytes += bytes;
        self.burst += self.status_bytes();
        volume.hold_reply(bytes);
        if matches!(self.phase, Phase::Open | Phase::Draining { deliver: true }) {
            self.outbox.push(Segment::Bytes(reply));
        }
    }
}
