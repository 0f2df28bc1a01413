//! From the end of a request to the bytes of its reply.

use std::io;

use nbd_proto::reply::simple_reply;
use nbd_proto::{Refusal, ReplyFlags, ReplyTo};

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
    /// `Some`: a READ of this many bytes from this offset.
    pub(crate) read: Option<(u64, u64)>,
    /// How it ended, with the data of a READ that succeeded.
    pub(crate) outcome: Result<Option<Buffer>, Refusal>,
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
    pub(super) fn refuse(&mut self, cookie: u64, read: Option<(u64, u64)>, refusal: Refusal) {
        self.window.requests += 1;
        self.window.bytes += read.map_or(0, |(_, length)| length);
        self.push_reply(HostReply {
            connection: self.slot,
            cookie,
            read,
            outcome: Err(refusal),
        });
    }

    fn push_reply(&mut self, reply: HostReply) {
        self.queued.requests += 1;
        self.queued.bytes += reply.read.map_or(0, |(_, length)| length);
        let delivers = matches!(self.phase, Phase::Open | Phase::Draining { deliver: true });
        if !delivers {
            return;
        }
        let cookie = reply.cookie;
        match reply.outcome {
            Ok(data) => self.push_success(cookie, reply.read, data),
            Err(refusal) if self.negotiated.replies.has_chunks() => {
                let error = ReplyTo::structured(cookie).error(refusal.error, refusal.message, None);
                self.outbox.push(Segment::Bytes(error));
            }
            Err(refusal) => self.outbox.push_header(&simple_reply(cookie, Some(refusal.error))),
        }
    }

    /// A READ is answered in one piece whether DF asks for it or not, once all of it is known to be good.
    fn push_success(&mut self, cookie: u64, read: Option<(u64, u64)>, data: Option<Buffer>) {
        match read {
            Some((offset, length)) if self.negotiated.replies.has_chunks() => {
                let header = ReplyTo::structured(cookie).offset_data(ReplyFlags::DONE, offset, length as u32);
                self.outbox.push_header(&header);
            }
            _ => self.outbox.push_header(&simple_reply(cookie, None)),
        }
        if let Some(buffer) = data {
            self.outbox.push(Segment::Buffer(buffer));
        }
    }
}
