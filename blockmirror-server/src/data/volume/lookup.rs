//! What peers ask about the image: digests to compare with, contents they lack, reads they cannot serve themselves.
//!
//! The answer shows everything that came before the question on the stream: a question waits for the mutations before it
//! that overlap its range and have not ended.

use mirror_core::ByteRange;
use mirror_core::event::{ConnectionId, Failure, PeerIndex};

use super::Volume;
use super::compare::{differing, is_zero};
use super::request::{ImageWork, StreamOrigin, failure_of};
use crate::data::slab::Slab;
use crate::data::stream::StreamReply;
use crate::data::turn::Turn;
use crate::image::{ImageError, ImageRequest};
use crate::ring::Buffer;

/// Longest range of one question, bytes: what one answer may cost in memory here.
const LOOKUP_BYTES_MAX: u64 = 32 << 20;

/// Bytes of all questions that are being looked up in one volume; one always is.
const LOOKUPS_BYTES_MAX: u64 = 64 << 20;

/// What is asked about a range.
#[derive(Debug)]
pub(super) enum Question {
    /// Which blocks differ from these digests?
    Compare(Vec<u64>),
    /// What do the blocks hold that differ from these?
    Fetch(Vec<u64>),
    /// What is there?
    Read,
}

#[derive(Debug)]
struct Lookup {
    origin: StreamOrigin,
    range: ByteRange,
    question: Question,
}

/// Questions under way.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    running: Slab<Lookup>,
    /// Bytes of these.
    bytes: u64,
    /// Behind mutations they have to show, or for want of room; as many as the credits of the peers allow.
    held: Vec<Lookup>,
}

impl Lookups {
    fn has_room(&self, bytes: u64) -> bool {
        self.bytes == 0 || self.bytes + bytes <= LOOKUPS_BYTES_MAX
    }
}

impl Volume {
    pub(super) fn look_up(&mut self, turn: &mut Turn, origin: StreamOrigin, range: ByteRange, question: Question) {
        let servable = range.length <= LOOKUP_BYTES_MAX && range.end() <= self.image.size();
        if !servable || !self.has_image() {
            return self.streamed(origin, StreamReply::Failed(Failure::Io));
        }
        let lookup = Lookup {
            origin,
            range,
            question,
        };
        if !self.lookups.has_room(range.length) || self.is_behind_a_mutation(origin, range) {
            self.lookups.held.push(lookup);
        } else {
            self.start_lookup(turn, lookup);
        }
    }

    /// Start the questions whose mutations have ended, as far as there is room.
    pub(super) fn release_lookups(&mut self, turn: &mut Turn) {
        let mut at = 0;
        while let Some(lookup) = self.lookups.held.get(at) {
            if !self.lookups.has_room(lookup.range.length) {
                return;
            }
            if self.is_behind_a_mutation(lookup.origin, lookup.range) {
                at += 1;
            } else {
                let lookup = self.lookups.held.remove(at);
                self.start_lookup(turn, lookup);
            }
        }
    }

    /// The connection is gone: questions that were not started never are.
    pub(super) fn drop_held_lookups(&mut self, peer: PeerIndex, connection: ConnectionId) {
        let mut held = std::mem::take(&mut self.lookups.held);
        held.retain(|lookup| {
            let gone = lookup.origin.is_of(peer, connection);
            if gone {
                self.streamed(lookup.origin, StreamReply::Failed(Failure::Io));
            }
            !gone
        });
        self.lookups.held = held;
    }

    /// The image has been read for a question.
    pub(super) fn looked_up(&mut self, id: u32, result: Result<(), ImageError>, buffer: Option<Buffer>) {
        let Some(lookup) = self.lookups.running.remove(id) else {
            return;
        };
        self.lookups.bytes -= lookup.range.length;
        let reply = match (result, buffer) {
            (Ok(()), Some(buffer)) => answer(&lookup, self.seed_of(lookup.origin.peer), buffer),
            (Ok(()), None) => StreamReply::Failed(Failure::Io),
            (Err(error), _) => StreamReply::Failed(failure_of(&error)),
        };
        if let (StreamReply::Differs(ranges), Some(incoming)) = (&reply, self.incoming(lookup.origin.peer)) {
            let differing: u64 = ranges.iter().map(|range| range.length).sum();
            incoming.equal(lookup.range.length.saturating_sub(differing));
        }
        self.streamed(lookup.origin, reply);
    }

    fn start_lookup(&mut self, turn: &mut Turn, lookup: Lookup) {
        let ByteRange { offset, length } = lookup.range;
        let buffer = turn.driver.pool().take(length as usize);
        self.lookups.bytes += length;
        let id = self.lookups.running.insert(lookup);
        self.submit_image(turn, ImageWork::Lookup(id), ImageRequest::Read { buffer, offset });
    }
}

fn answer(lookup: &Lookup, seed: u64, buffer: Buffer) -> StreamReply {
    let range = lookup.range;
    let wanted = match &lookup.question {
        Question::Compare(digests) => return StreamReply::Differs(differing(range, seed, buffer.as_slice(), digests)),
        Question::Fetch(digests) => differing(range, seed, buffer.as_slice(), digests),
        Question::Read => vec![range],
    };
    let payload = buffer.into_payload();
    let (mut holes, mut parts) = (Vec::new(), Vec::new());
    for part in &wanted {
        let from = (part.offset - range.offset) as usize;
        let bytes = payload.slice(from..from + part.length as usize);
        if is_zero(bytes.as_slice()) {
            holes.push(*part);
        } else {
            parts.push(bytes);
        }
    }
    StreamReply::Contents {
        ranges: wanted,
        holes,
        parts,
    }
}
