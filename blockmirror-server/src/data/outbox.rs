//! What waits to be sent on one socket: everything gathered into one send, and never two sends in flight.

use std::io;
use std::mem;

use super::token::Token;
use super::turn::Turn;
use crate::ring::{InlineBytes, Op, Segment, Socket};

/// Segments of one send, at most; the kernel takes 1024.
const SEND_SEGMENTS: usize = 512;

/// The send queue of a socket.
///
/// Bytes go out in the order they were pushed. Only one send is in flight: several on one socket may finish in any
/// order once its buffer is full, and mix. What is pushed meanwhile goes out with the next one.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: Vec<Segment>,
    /// Short headers, packed until they fill a segment: they belong behind everything in `queue`.
    headers: Packed,
    /// The vector of the last send, kept for its memory.
    spare: Vec<Segment>,
    in_flight: bool,
}

#[derive(Debug)]
struct Packed {
    bytes: [u8; InlineBytes::CAPACITY],
    len: usize,
}

impl Default for Packed {
    fn default() -> Self {
        Self {
            bytes: [0; InlineBytes::CAPACITY],
            len: 0,
        }
    }
}

/// What became of a send.
#[derive(Debug)]
pub(crate) enum Sent {
    /// A part went out; the rest is in flight again.
    Partly,
    /// All of it went out.
    Whole,
    /// The connection is broken.
    Failed(io::Error),
}

impl Outbox {
    /// Queue a header of at most [`InlineBytes::CAPACITY`] bytes.
    pub(crate) fn push_header(&mut self, header: &[u8]) {
        if self.headers.len + header.len() > InlineBytes::CAPACITY {
            self.pack();
        }
        let Some(room) = self
            .headers
            .bytes
            .get_mut(self.headers.len..self.headers.len + header.len())
        else {
            self.queue.push(Segment::Bytes(header.to_vec()));
            return;
        };
        room.copy_from_slice(header);
        self.headers.len += header.len();
    }

    /// Queue a segment.
    pub(crate) fn push(&mut self, segment: Segment) {
        self.pack();
        self.queue.push(segment);
    }

    /// Nothing queued and nothing in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_drained() && !self.in_flight
    }

    /// Nothing queued; a send may be in flight.
    pub(crate) fn is_drained(&self) -> bool {
        self.queue.is_empty() && self.headers.len == 0
    }

    /// A send is in flight.
    pub(crate) fn in_flight(&self) -> bool {
        self.in_flight
    }

    /// Drop what is queued.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.headers.len = 0;
    }

    /// Send what is queued, unless a send is in flight. True: one was started now, with everything that was queued
    /// (or its first [`SEND_SEGMENTS`]).
    pub(crate) fn flush(&mut self, turn: &mut Turn, token: Token, socket: &Socket) -> bool {
        if self.in_flight || self.is_drained() {
            return false;
        }
        self.pack();
        let mut segments = mem::take(&mut self.spare);
        if self.queue.len() <= SEND_SEGMENTS {
            mem::swap(&mut segments, &mut self.queue);
        } else {
            segments.extend(self.queue.drain(..SEND_SEGMENTS));
        }
        self.in_flight = true;
        turn.submit(
            token,
            Op::Send {
                socket: socket.clone(),
                segments,
                skip: 0,
            },
        );
        true
    }

    /// A send came back: go on with its rest, or keep its vector for the next one.
    pub(crate) fn sent(&mut self, turn: &mut Turn, token: Token, result: io::Result<usize>, op: Op) -> Sent {
        let Op::Send {
            socket,
            mut segments,
            skip,
        } = op
        else {
            return Sent::Failed(io::Error::other("a send came back as another operation"));
        };
        let outcome = match result {
            Ok(sent) => {
                let total: usize = segments.iter().map(Segment::len).sum();
                if skip + sent < total {
                    turn.submit(
                        token,
                        Op::Send {
                            socket,
                            segments,
                            skip: skip + sent,
                        },
                    );
                    return Sent::Partly;
                }
                Sent::Whole
            }
            Err(error) if is_transient(&error) => {
                turn.submit(token, Op::Send { socket, segments, skip });
                return Sent::Partly;
            }
            Err(error) => Sent::Failed(error),
        };
        self.in_flight = false;
        segments.clear();
        self.spare = segments;
        outcome
    }

    /// Move the packed headers behind what is queued.
    fn pack(&mut self) {
        if self.headers.len == 0 {
            return;
        }
        self.queue
            .push(Segment::copy_of(&self.headers.bytes[..self.headers.len]));
        self.headers.len = 0;
    }
}

/// Worth trying again as it is: the operation was interrupted, nothing is broken.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}
