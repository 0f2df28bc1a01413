//! From the end of a request to the bytes of its reply.

use std::io;

use nbd_proto::reply::simple_reply;
use nbd_proto::{Refusal, ReplyFlags, ReplyTo, Request};

use super::{Connection, Held, Phase};
use crate::data::outbox::Sent;
use crate::data::token::Kind;
use crate::data::turn::Turn;
use crate::data::volume::Volume;
use crate::ring::{Buffer, Op, Segment};

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
        self.last_active = turn.now;
        match self.outbox.sent(turn, self.token(Kind::Send), result, op) {
            Sent::Partly => {}
            Sent::Whole => {
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
            outcome: Err(refusal),
            failed_at: None,
        });
    }

    fn push_reply(&mut self, reply: HostReply) {
        self.queued.requests += 1;
        self.queued.bytes += reply.read.unwrap_or(0);
        let delivers = matches!(self.phase, Phase::Open | Phase::Draining { deliver: true });
        if !delivers {
            return;
        }
        let to = ReplyTo {
            style: self.negotiated.replies,
            cookie: reply.cookie,
            offset: reply.offset,
        };
        match reply.outcome {
            Ok(data) => self.push_success(to, reply.read, data),
            Err(Refusal { error, message }) if to.style.has_chunks() => {
                self.outbox
                    .push(Segment::Bytes(to.error(error, message, reply.failed_at)));
            }
            Err(refusal) => self.outbox.push_header(&simple_reply(to.cookie, Some(refusal.error))),
        }
    }

    /// A READ is answered in one piece whether DF asks for it or not, once all of it is known to be good.
    fn push_success(&mut self, to: ReplyTo, read: Option<u64>, data: Option<Buffer>) {
        match read {
            Some(length) if to.style.has_chunks() => {
                let header = to.offset_data(ReplyFlags::DONE, to.offset, length as u32);
                self.outbox.push_header(&header);
            }
            _ => self.outbox.push_header(&to.success()),
        }
        if let Some(buffer) = data {
            self.outbox.push(Segment::Buffer(buffer));
        }
    }
}
