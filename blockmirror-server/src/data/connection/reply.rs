//! From the end of a request to the bytes of its reply.

use std::io;

use nbd_proto::reply::simple_reply;
use nbd_proto::{Refusal, ReplyFlags, ReplyTo, Request};

use super::{Connection, Held, Phase};
use crate::data::outbox::Sent;
use crate::data::token::Kind;
use crate::data::turn::Turn;
use crate::data::volume::{Volume, is_zero};
use crate::ring::{Buffer, FileRange, Op, Segment};

/// Zeroes that are sent as a hole, from such a place of the READ on. They are looked for in what was read: that costs
/// nothing where the first bytes of a piece are not zero, asks no file system, and finds what is zero without being a
/// hole. A shorter piece is sent as fast as it is described.
const HOLE_BYTES: usize = 64 << 10;

/// READs from so many bytes on are sent out of the page cache where they lie there.
const SEND_RANGE_BYTES: u64 = 32 << 10;

/// The end of a host request.
#[derive(Debug)]
pub(crate) struct HostReply {
    /// The slot of the connection it came on.
    pub(crate) connection: u32,
    /// The client's name for it.
    pub(crate) cookie: u64,
    /// Where its range begins.
    pub(crate) offset: u64,
    /// `Some`: a READ of this many bytes.
    pub(crate) read: Option<u64>,
    /// It is to be answered in one piece.
    pub(crate) df: bool,
    /// How it ended, with the data of a READ that succeeded.
    pub(crate) outcome: Result<Option<Buffer>, Refusal>,
    /// Where in its range it failed, if that is known.
    pub(crate) failed_at: Option<u64>,
}

impl Connection {
    /// A request of this connection has ended. `None`: without a reply, because it was abandoned.
    pub(crate) fn on_reply(&mut self, reply: Option<HostReply>, turn: &Turn) {
        debug_assert!(self.in_flight > 0, "only what was handed over ends");
        self.in_flight -= 1;
        self.last_active = turn.now;
        if let Some(reply) = reply {
            self.push_reply(reply);
        }
    }

    /// A send came back.
    pub(crate) fn on_sent(&mut self, volume: &mut Volume, turn: &mut Turn, result: io::Result<usize>, op: Op) {
        match self.outbox.sent(turn, self.token(Kind::Send), result, op) {
            // Not yet a sign of life: who takes a little now and then holds what others need just as well.
            Sent::Partly => {}
            Sent::Whole => {
                self.last_active = turn.now;
                self.window.requests -= self.sending.requests;
                self.window.bytes -= self.sending.bytes;
                volume.release_reply(self.sending.bytes);
                self.sending = Held::default();
                self.proceed(volume, turn);
            }
            Sent::Failed(error) => self.lose(volume, turn, &format!("cannot send: {error}")),
        }
    }

    /// Queue the reply to a request that was refused before anything was started.
    pub(super) fn refuse(&mut self, request: &Request, refusal: Refusal) {
        self.window.requests += 1;
        self.push_reply(HostReply {
            connection: self.slot,
            cookie: request.cookie,
            offset: request.offset,
            read: None,
            df: false,
            outcome: Err(refusal),
            failed_at: None,
        });
    }

    /// An answer in the style that was negotiated.
    pub(super) fn reply_to(&self, cookie: u64, offset: u64) -> ReplyTo {
        ReplyTo {
            style: self.negotiated.replies,
            cookie,
            offset,
        }
    }

    /// What a READ asks for, if it can be sent out of the page cache.
    pub(super) fn find_cached(&self, volume: &Volume, turn: &Turn, offset: u64, length: u64) -> Option<FileRange> {
        if length < SEND_RANGE_BYTES || self.socket.is_secure() || !turn.driver.sends_files() {
            return None;
        }
        let holes = self.negotiated.replies.has_chunks();
        volume.cached_range(offset, length, holes.then_some(HOLE_BYTES as u64))
    }

    /// Queue the reply to a READ that is in the page cache.
    pub(super) fn push_cached(&mut self, to: ReplyTo, range: FileRange) {
        self.queued.requests += 1;
        self.queued.file_bytes += range.length as u64;
        self.push_whole(to, Segment::File(range));
    }

    /// All that a READ asks for, as data in one piece.
    fn push_whole(&mut self, to: ReplyTo, data: Segment) {
        if to.style.has_chunks() {
            self.outbox
                .push_header(&to.offset_data(ReplyFlags::DONE, to.offset, data.len() as u32));
        } else {
            self.outbox.push_header(&to.success());
        }
        self.outbox.push(data);
    }

    fn push_reply(&mut self, reply: HostReply) {
        self.queued.requests += 1;
        self.queued.bytes += reply.read.unwrap_or(0);
        let delivers = matches!(self.phase, Phase::Open | Phase::Draining { deliver: true });
        if !delivers {
            return;
        }
        let to = self.reply_to(reply.cookie, reply.offset);
        match reply.outcome {
            Ok(Some(data)) if reply.read.is_some() => self.push_read(to, reply.df, data),
            Ok(_) => self.outbox.push_header(&to.success()),
            Err(Refusal { error, message }) if to.style.has_chunks() => {
                self.outbox
                    .push(Segment::Bytes(to.error(error, message, reply.failed_at)));
            }
            Err(refusal) => self.outbox.push_header(&simple_reply(to.cookie, Some(refusal.error))),
        }
    }

    /// What a READ has brought, once all of it is known to be good: data, and holes where there are [`HOLE_BYTES`] of
    /// zeroes or more. With DF it is one of the two.
    fn push_read(&mut self, to: ReplyTo, df: bool, data: Buffer) {
        let whole = data.len();
        if !to.style.has_chunks() {
            return self.push_whole(to, Segment::Buffer(data));
        }
        let mut first = run_at(data.as_slice(), 0);
        if df && first.end < whole {
            first = Run {
                is_hole: false,
                end: whole,
            };
        }
        if first.end == whole {
            if first.is_hole {
                return self
                    .outbox
                    .push_header(&to.hole(ReplyFlags::DONE, to.offset, whole as u32));
            }
            return self.push_whole(to, Segment::Buffer(data));
        }
        let data = data.into_payload();
        let (mut at, mut run) = (0, first);
        loop {
            let (offset, length) = (to.offset + at as u64, (run.end - at) as u32);
            let flags = if run.end == whole {
                ReplyFlags::DONE
            } else {
                ReplyFlags::empty()
            };
            if run.is_hole {
                self.outbox.push_header(&to.hole(flags, offset, length));
            } else {
                self.outbox.push_header(&to.offset_data(flags, offset, length));
                self.outbox.push(Segment::Payload(data.slice(at..run.end)));
            }
            if run.end == whole {
                return;
            }
            at = run.end;
            run = run_at(data.as_slice(), at);
        }
    }
}

/// A part of what a READ has brought.
struct Run {
    is_hole: bool,
    end: usize,
}

/// The run that begins at `at`, which is a multiple of [`HOLE_BYTES`].
fn run_at(data: &[u8], at: usize) -> Run {
    let mut pieces = data.get(at..).unwrap_or_default().chunks(HOLE_BYTES);
    let is_hole_piece = |piece: &[u8]| piece.len() == HOLE_BYTES && is_zero(piece);
    let Some(first) = pieces.next() else {
        return Run {
            is_hole: false,
            end: data.len(),
        };
    };
    let is_hole = is_hole_piece(first);
    let like: usize = pieces
        .take_while(|piece| is_hole_piece(piece) == is_hole)
        .map(<[u8]>::len)
        .sum();
    Run {
        is_hole,
        end: at + first.len() + like,
    }
}
