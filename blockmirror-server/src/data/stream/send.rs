//! From requests, answers and control frames to the bytes of one send per turn.

use mirror_core::stream::codec::Checksum;
use mirror_core::stream::frame::Sequence;
use mirror_core::stream::{Answer, Control, Request, codec};

use super::work::{Checked, StreamReply};
use crate::data::outbox::Outbox;
use crate::data::token::Token;
use crate::data::turn::Turn;
use crate::ring::{InlineBytes, Segment, Socket};

/// Payload bytes that are put behind a send in flight at most: what is said meanwhile, an answer or a heartbeat, waits
/// for these to go out, and on a slow link not for everything the peer has granted.
const AHEAD_BYTES: u64 = 1 << 20;

/// What is given to the peer, in order.
pub(super) struct Outbound {
    /// What payloads are checked by on this connection.
    checksum: Checksum,
    pub(super) outbox: Outbox,
    /// Where frames are put together.
    scratch: Vec<u8>,
    /// Payload bytes of requests that wait for the next send.
    ahead: u64,
}

impl Outbound {
    pub(super) fn new(checksum: Checksum) -> Self {
        Self {
            checksum,
            outbox: Outbox::default(),
            scratch: Vec::new(),
            ahead: 0,
        }
    }

    /// There is room for another request.
    pub(super) fn has_room(&self) -> bool {
        self.ahead < AHEAD_BYTES
    }

    /// Send what is queued, unless a send is in flight.
    pub(super) fn flush(&mut self, turn: &mut Turn, token: Token, socket: &Socket) {
        if self.outbox.flush(turn, token, socket) {
            self.ahead = 0;
        }
    }

    pub(super) fn request(&mut self, sequence: Sequence, volume: u16, request: &Request, payload: Option<Checked>) {
        let check = payload
            .as_ref()
            .map_or(codec::Payload::NONE, |payload| payload.check(self.checksum));
        match codec::small_request(sequence, volume, request, check) {
            Some(small) => self.outbox.push_header(small.as_slice()),
            None => self.frame(|frame| codec::encode_request(sequence, volume, request, check, frame)),
        }
        if let Some(checked) = payload {
            self.ahead += checked.payload.len() as u64;
            self.outbox.push(Segment::Payload(checked.payload));
        }
    }

    /// `Done` of several requests.
    pub(super) fn done(&mut self, sequences: &[Sequence]) {
        self.frame(|frame| codec::encode_done(sequences, frame));
    }

    pub(super) fn answer(&mut self, sequence: Sequence, reply: StreamReply) {
        let (answer, parts) = match reply {
            StreamReply::Done => return self.done(&[sequence]),
            StreamReply::Failed(failure) => (Answer::Failed { sequence, failure }, Vec::new()),
            StreamReply::Differs(ranges) => (Answer::Differs { sequence, ranges }, Vec::new()),
            StreamReply::Contents { ranges, holes, parts } => (
                Answer::Contents {
                    sequence,
                    ranges,
                    holes,
                },
                parts,
            ),
        };
        let mut check = codec::PayloadHasher::new(self.checksum);
        for part in &parts {
            check.update(part.as_slice());
        }
        let check = check.finish();
        self.frame(|frame| codec::encode_answer(&answer, check, frame));
        for part in parts {
            self.outbox.push(Segment::Payload(part));
        }
    }

    pub(super) fn control(&mut self, control: &Control) {
        self.frame(|frame| codec::encode_control(control, frame));
    }

    fn frame(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        self.scratch.clear();
        encode(&mut self.scratch);
        if self.scratch.len() <= InlineBytes::CAPACITY {
            self.outbox.push_header(&self.scratch);
        } else {
            self.outbox.push(Segment::Bytes(std::mem::take(&mut self.scratch)));
        }
    }
}
