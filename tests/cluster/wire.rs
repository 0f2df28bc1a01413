//! A part of the packets is encoded and decoded on its way, as on a real stream.

use mirror_core::stream::codec::{self, Payload as Length, Progress};
use mirror_core::stream::{Frame, Request};

use crate::net::Packet;
use crate::world::World;

impl World {
    /// In some runs every packet that has a frame becomes bytes and a frame again.
    pub fn through_the_codec(&mut self, packet: Packet) -> Packet {
        if self.plan.encode_every == 0 || !self.serial().is_multiple_of(self.plan.encode_every) {
            return packet;
        }
        match packet {
            Packet::Request {
                sequence,
                volume,
                request,
                payload,
            } => {
                let length = stand_in(request.payload_bytes());
                let frame = Frame::Request {
                    sequence,
                    volume,
                    request: with_digests(request),
                };
                match self.there_and_back(&frame, length) {
                    Frame::Request { request, .. } => Packet::Request {
                        sequence,
                        volume,
                        request: without_digests(request),
                        payload,
                    },
                    frame => unreachable!("a request came out as {frame:?}"),
                }
            }
            Packet::Answer { answer, payload } => {
                let length = stand_in(answer.payload_bytes());
                match self.there_and_back(&Frame::Answer(answer), length) {
                    Frame::Answer(answer) => Packet::Answer { answer, payload },
                    frame => unreachable!("an answer came out as {frame:?}"),
                }
            }
            Packet::Control(control) => match self.there_and_back(&Frame::Control(control), Length::NONE) {
                Frame::Control(control) => Packet::Control(control),
                frame => unreachable!("a control frame came out as {frame:?}"),
            },
            closed @ Packet::Closed { .. } => closed,
        }
    }

    fn there_and_back(&mut self, frame: &Frame, length: Length) -> Frame {
        self.tally.encoded += 1;
        let mut bytes = Vec::new();
        codec::encode(frame, length, &mut bytes);
        match codec::decode(&bytes) {
            Ok(Progress::Frame {
                frame: decoded,
                payload,
                consumed,
            }) => {
                assert_eq!(
                    (&decoded, payload, consumed),
                    (frame, length, bytes.len()),
                    "one form of everything"
                );
                decoded
            }
            other => unreachable!("{frame:?} came out as {other:?}"),
        }
    }
}

/// The payload itself stays beside the packet; only its length is real.
fn stand_in(bytes: u64) -> Length {
    let length = u32::try_from(bytes).unwrap_or(u32::MAX);
    let check = if length == 0 { 0 } else { 0x5eed };
    Length { length, check }
}

/// As many digests as the range has blocks; what they are compared with travels beside.
fn with_digests(request: Request) -> Request {
    let count = |range: mirror_core::ByteRange| (range.blocks().end - range.blocks().start) as usize;
    match request {
        Request::Compare { range, .. } => Request::Compare {
            range,
            digests: vec![7; count(range)],
        },
        Request::Fetch { range, .. } => Request::Fetch {
            range,
            digests: vec![7; count(range)],
        },
        other => other,
    }
}

fn without_digests(request: Request) -> Request {
    let digests = Vec::new();
    match request {
        Request::Compare { range, .. } => Request::Compare { range, digests },
        Request::Fetch { range, .. } => Request::Fetch { range, digests },
        other => other,
    }
}
