//! From received bytes to requests.

use std::io;

use mirror_core::stream::codec::PayloadHasher;
use nbd_proto::{Command, Request, check_payload_bound, has_filter, validate};

use super::{Connection, HangUp, Phase};
use crate::data::arriving::{Arriving, NOW_BYTES};
use crate::data::staging::STAGING_BYTES;
use crate::data::stream::CHECKSUM;
use crate::data::token::Kind;
use crate::data::turn::Turn;
use crate::data::volume::{Body, Origin, Volume};
use crate::ring::Op;

/// Payloads up to this many bytes are copied out of the staging buffer; longer ones are received in place.
const STAGED_BYTES: u32 = 16 << 10;
/// Bytes of READs taken before what they have brought is sent: the client works on the first while the next are read,
/// and they are sent while they are in the cache.
const READ_BURST_BYTES: u64 = 256 << 10;

const _: () = assert!(
    STAGED_BYTES as usize + Request::EXTENDED_LENGTH <= STAGING_BYTES,
    "a staged request fits the buffer"
);

/// What the next bytes are.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one per connection, and a box would be memory asked for per payload"
)]
pub(super) enum Incoming {
    /// The header of a request.
    Header,
    /// The payload of a small WRITE, waited for in the staging buffer.
    Staged(Write),
    /// The rest of the payload of a large WRITE, received in place.
    Direct(Write, Arriving),
    /// Nothing: this WRITE is complete, and held back until the hang-up behind it is explained.
    Held(Write, Body),
    /// The payload of a BLOCK_STATUS that names contexts, waited for in the staging buffer.
    Filter(Request),
    /// The payload of a request that was refused.
    Discard(u64),
}

/// A WRITE whose payload is on its way. Its bytes are reserved in the volume's budget.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    cookie: u64,
    offset: u64,
    pub(super) length: u32,
    fua: bool,
}

/// What one step through the received bytes has led to.
pub(super) enum Step {
    Again,
    /// More bytes are needed.
    Starved,
    /// Room is needed, in the budget or in the window; whoever frees it calls `proceed`.
    Stalled,
    /// The connection is no longer open.
    Ended,
}

impl Connection {
    /// A receive came back.
    pub(crate) fn on_received(&mut self, volume: &mut Volume, turn: &mut Turn, result: io::Result<usize>, op: Op) {
        let Op::Receive { buffer, .. } = op else { return };
        self.receiving = false;
        self.last_active = turn.now;
        if self.phase != Phase::Open {
            return;
        }
        let Some(count) = self.heard(volume, turn, result) else {
            return;
        };
        match &mut self.incoming {
            Incoming::Direct(_, arriving) => arriving.restore(buffer, count),
            _ => self.staging.restore(buffer, count),
        }
        self.take_requests(volume, turn);
    }

    /// Take everything the received bytes hold, then receive more.
    pub(super) fn take_requests(&mut self, volume: &mut Volume, turn: &mut Turn) {
        self.burst = 0;
        let mut budget = NOW_BYTES;
        while self.judge_hang_up(volume, turn) {
            let last = loop {
                match self.step(volume, turn) {
                    Step::Again => {}
                    Step::Starved => break self.receive_now(volume, turn, &mut budget),
                    last @ (Step::Stalled | Step::Ended) => break last,
                }
            };
            match last {
                Step::Again => {}
                Step::Starved => return self.receive(turn),
                Step::Stalled | Step::Ended => return,
            }
        }
    }

    /// How many bytes a receive has brought. `None`: the connection is lost.
    fn heard(&mut self, volume: &mut Volume, turn: &Turn, result: io::Result<usize>) -> Option<usize> {
        match result {
            Ok(0) => self.lose(volume, turn, "closed by the client without DISC"),
            Ok(count) => return Some(count),
            Err(error) if crate::data::outbox::is_transient(&error) => return Some(0),
            Err(error) => self.lose(volume, turn, &format!("cannot receive: {error}")),
        }
        None
    }

    /// Receive what is there of a large payload, or of the header behind one, at most `budget` bytes and a piece.
    /// `Again`: that was the rest of it.
    fn receive_now(&mut self, volume: &mut Volume, turn: &Turn, budget: &mut usize) -> Step {
        while *budget > 0 {
            let received = match &mut self.incoming {
                Incoming::Direct(_, arriving) => arriving.receive_now(&self.socket),
                Incoming::Header => self.staging.receive_now(&self.socket),
                _ => return Step::Starved,
            };
            let Some(result) = received else {
                break;
            };
            let Some(count) = self.heard(volume, turn, result) else {
                return Step::Ended;
            };
            *budget = budget.saturating_sub(count.max(1));
        }
        match &self.incoming {
            Incoming::Direct(_, arriving) if arriving.is_whole() => Step::Again,
            Incoming::Header if self.staging.has_reached_limit() => Step::Again,
            _ => Step::Starved,
        }
    }

    /// Forget what is half received, and give back what was reserved for it.
    pub(super) fn drop_incoming(&mut self, volume: &mut Volume) {
        match std::mem::replace(&mut self.incoming, Incoming::Header) {
            Incoming::Staged(write) | Incoming::Direct(write, _) | Incoming::Held(write, _) => {
                volume.unreserve(u64::from(write.length));
            }
            Incoming::Header | Incoming::Filter(_) | Incoming::Discard(_) => {}
        }
    }

    fn step(&mut self, volume: &mut Volume, turn: &mut Turn) -> Step {
        match &mut self.incoming {
            Incoming::Header => self.step_header(volume, turn),
            Incoming::Staged(write) => {
                let (write, length) = (*write, write.length as usize);
                let Some(bytes) = self.staging.bytes().get(..length) else {
                    return Step::Starved;
                };
                let payload = turn.driver.pool().payload_of(bytes);
                self.staging.consume(length);
                self.start_write(volume, turn, write, payload.into())
            }
            Incoming::Direct(write, arriving) => {
                let Some((payload, check)) = arriving.finish() else {
                    return Step::Starved;
                };
                let write = *write;
                let body = Body { payload, check };
                if self.hang_up == HangUp::Unexplained {
                    self.incoming = Incoming::Held(write, body);
                    return if self.judge_hang_up(volume, turn) {
                        Step::Again
                    } else {
                        Step::Ended
                    };
                }
                self.start_write(volume, turn, write, body)
            }
            Incoming::Held(write, body) => {
                let (write, body) = (*write, body.clone());
                self.start_write(volume, turn, write, body)
            }
            Incoming::Filter(request) => {
                let request = *request;
                self.step_filter(volume, turn, &request)
            }
            Incoming::Discard(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(self.staging.len());
                *left -= count as u64;
                let over = *left == 0;
                self.staging.consume(count);
                if !over {
                    return Step::Starved;
                }
                self.incoming = Incoming::Header;
                Step::Again
            }
        }
    }

    fn step_header(&mut self, volume: &mut Volume, turn: &mut Turn) -> Step {
        let style = self.negotiated.replies;
        let request = match Request::read(style, self.staging.bytes()) {
            Ok(Some(request)) => request,
            Ok(None) => return Step::Starved,
            Err(problem) => {
                self.lose(volume, turn, &problem.to_string());
                return Step::Ended;
            }
        };
        self.staging.limit(None);
        self.follow_growth(volume);
        if let Err(excess) = check_payload_bound(&request, &self.negotiated) {
            self.lose(volume, turn, &excess.to_string());
            return Step::Ended;
        }
        if has_filter(&request, &self.negotiated) {
            self.staging.consume(style.request_length());
            self.incoming = Incoming::Filter(request);
            return Step::Again;
        }
        let verdict = validate(&request, &self.negotiated);
        let read_bytes = match verdict {
            Ok(Command::Read { .. }) => request.length,
            _ => 0,
        };
        let status_bytes = match verdict {
            Ok(Command::BlockStatus { .. }) => self.status_bytes(),
            _ => 0,
        };
        if !self.may_reply(volume, turn, read_bytes + status_bytes) {
            return Step::Stalled;
        }
        let command = match verdict {
            Ok(Command::Disconnect) => {
                self.finish(volume, turn);
                return Step::Ended;
            }
            Ok(Command::BlockStatus { one }) => {
                self.staging.consume(style.request_length());
                self.answer_status(volume, &request, request.length, one, u64::MAX);
                return Step::Again;
            }
            Ok(command) => command,
            Err(refusal) => {
                self.staging.consume(style.request_length());
                self.refuse(&request, refusal);
                self.incoming = Incoming::Discard(request.payload_length(style));
                return Step::Again;
            }
        };
        let bytes = read_bytes + request.payload_length(style);
        if !volume.reserve(self.slot, bytes, self.in_flight == 0) {
            return Step::Stalled;
        }
        self.staging.consume(style.request_length());
        match command {
            Command::Write { fua } => self.expect_payload(turn, &request, fua, volume.wants_checks()),
            _ => self.start(
                volume,
                turn,
                request.cookie,
                command,
                (request.offset, request.length),
                None,
            ),
        }
        Step::Again
    }

    /// A device that is attached by this connection grows with the volume: the kernel does not connect anew.
    fn follow_growth(&mut self, volume: &Volume) {
        let size = &mut self.negotiated.export.size;
        *size = volume.size().max(*size);
    }

    fn expect_payload(&mut self, turn: &Turn, request: &Request, fua: bool, checks: bool) {
        self.payload_since = turn.now;
        let write = Write {
            cookie: request.cookie,
            offset: request.offset,
            length: request.length as u32,
            fua,
        };
        if write.length <= STAGED_BYTES {
            self.incoming = Incoming::Staged(write);
            return;
        }
        let check = checks.then(|| PayloadHasher::new(CHECKSUM));
        let length = request.length as usize;
        let arriving = Arriving::new(turn.driver.pool(), length, &mut self.staging, check);
        self.incoming = Incoming::Direct(write, arriving);
        // After a large payload only a header is received, for what may be the next payload is received in place.
        self.staging.limit(Some(self.negotiated.replies.request_length()));
    }

    fn start_write(&mut self, volume: &mut Volume, turn: &mut Turn, write: Write, body: Body) -> Step {
        self.incoming = Incoming::Header;
        let command = Command::Write { fua: write.fua };
        self.start(
            volume,
            turn,
            write.cookie,
            command,
            (write.offset, u64::from(write.length)),
            Some(body),
        );
        Step::Again
    }

    fn start(
        &mut self,
        volume: &mut Volume,
        turn: &mut Turn,
        cookie: u64,
        command: Command,
        (offset, length): (u64, u64),
        body: Option<Body>,
    ) {
        self.window.requests += 1;
        if let Command::Read { .. } = command {
            self.burst += length;
            turn.read_bytes += length;
            if let Some(range) = self.find_cached(volume, turn, offset, length) {
                volume.unreserve(length);
                return self.push_cached(self.reply_to(cookie, offset), range);
            }
            self.window.bytes += length;
            volume.hold_reply(length);
        }
        self.in_flight += 1;
        let origin = Origin::Host {
            connection: self.slot,
            cookie,
        };
        volume.start(turn, origin, command, (offset, length), body);
    }

    /// Whether a request whose reply has as many bytes may be taken now. If not, somebody else calls `proceed`.
    pub(super) fn may_reply(&mut self, volume: &mut Volume, turn: &mut Turn, bytes: u64) -> bool {
        if !self.has_window(bytes) || !volume.has_reply_room(self.window.bytes, bytes) {
            // Whoever does not read its replies must not keep others out of the budget.
            volume.forget(self.slot);
            return false;
        }
        if bytes > 0 && (self.burst >= READ_BURST_BYTES || !turn.may_read(bytes)) {
            turn.resume.push(self.slot);
            return false;
        }
        true
    }

    fn has_window(&self, bytes: u64) -> bool {
        let fits = self.window.bytes == 0 || self.window.bytes + bytes <= super::CONNECTION_BYTES;
        let ready = |held: &super::Held| held.bytes + held.file_bytes;
        let keeps_up = bytes == 0 || ready(&self.queued) + ready(&self.sending) < super::READY_BYTES;
        fits && keeps_up && self.window.requests < super::CONNECTION_REQUESTS
    }

    pub(super) fn receive(&mut self, turn: &mut Turn) {
        let lent = match &mut self.incoming {
            Incoming::Direct(_, arriving) => arriving.lend(),
            _ => {
                self.staging.adapt(turn.driver.pool());
                self.staging.lend()
            }
        };
        let Some((buffer, filled)) = lent else { return };
        self.receiving = true;
        turn.submit(
            self.token(Kind::Receive),
            Op::Receive {
                socket: self.socket.clone(),
                buffer,
                filled,
            },
        );
    }
}
