//! A volume: its image, the requests of its hosts, and what orders and replicates them.

mod blocks;
mod copy;
mod mirrored;
mod peers;
mod plain;
mod replies;
mod request;

use mirror_core::config::REQUESTS_MAX;
use nbd_proto::{Command, Refusal};

use self::mirrored::MirrorSide;
use self::plain::Plain;
pub(crate) use self::request::Origin;
use self::request::{HostRequest, ImageWork, image_refusal};
use super::budget::Budget;
use super::connection::HostReply;
use super::message::{Limits, VolumePlan, VolumeSnapshot};
use super::slab::Slab;
use super::token::{Kind, Token};
use super::turn::Turn;
use crate::image::{Image, ImageDone, ImageError, ImageRequest};
use crate::ring::{Buffer, Completion, Payload};

/// Failed image requests between two log lines grow by this factor.
const FAILURES_LOG_FACTOR: u64 = 10;

/// A volume of this data thread.
pub(crate) struct Volume {
    export: String,
    /// Minimum block size of the export, bytes.
    minimum_block: u32,
    image: Image,
    budget: Budget,
    requests: Slab<HostRequest>,
    /// Requests with reserved room that have not arrived whole.
    arriving: usize,
    /// Requests that have ended since the loop last looked.
    ended: Vec<Ended>,
    /// Scratch for answers of the image.
    image_done: Vec<ImageDone>,
    machinery: Machinery,
    connections: usize,
    /// Bytes of READ replies that its connections hold, asked for or not yet sent.
    reply_bytes: u64,
    /// A READ had to wait for room among them, since the loop last looked.
    replies_full: bool,
    image_failures: u64,
    image_failures_logged: u64,
}

/// What stands between the hosts and the legs.
enum Machinery {
    /// One leg: only the order of overlapping mutations is kept.
    Plain(Plain),
    Mirror(Box<MirrorSide>),
}

/// The end of a host request, for its connection.
pub(crate) enum Ended {
    /// With a reply.
    Replied(HostReply),
    /// Without one: its connection died before it was started.
    Dropped {
        /// The slot of its connection.
        connection: u32,
    },
}

impl Ended {
    /// The slot of the connection the request came on.
    pub(crate) fn connection(&self) -> u32 {
        match self {
            Self::Replied(reply) => reply.connection,
            Self::Dropped { connection } => *connection,
        }
    }
}

impl Volume {
    /// Take over a planned volume.
    pub(crate) fn new(index: usize, plan: VolumePlan, limits: &Limits) -> std::io::Result<Self> {
        let mut image = plan.image;
        image.set_token_base(Token::new(Kind::Image, index).encode());
        let machinery = match plan.mirror {
            Some(mirror) => Machinery::Mirror(Box::new(MirrorSide::new(index, mirror)?)),
            None => Machinery::Plain(Plain::default()),
        };
        Ok(Self {
            export: plan.export,
            minimum_block: plan.minimum_block,
            image,
            budget: Budget::new(limits.budget_bytes, limits.budget_requests),
            requests: Slab::new(),
            arriving: 0,
            ended: Vec::new(),
            image_done: Vec::new(),
            machinery,
            connections: 0,
            reply_bytes: 0,
            replies_full: false,
            image_failures: 0,
            image_failures_logged: 0,
        })
    }

    pub(crate) fn export(&self) -> &str {
        &self.export
    }

    /// Take room for a request of `bytes`; false: the connection is queued, `next_waiting` will name it.
    pub(crate) fn reserve(&mut self, connection: u32, bytes: u64) -> bool {
        if self.requests.len() + self.arriving >= REQUESTS_MAX {
            // Answered ones are kept while a peer's queue needs them.
            self.budget.wait(connection);
            return false;
        }
        let reserved = self.budget.reserve(connection, bytes);
        self.arriving += usize::from(reserved);
        reserved
    }

    /// Give back room that was never used.
    pub(crate) fn unreserve(&mut self, bytes: u64) {
        self.arriving -= 1;
        self.budget.release(bytes);
    }

    /// The connection that may go on because there is room again.
    pub(crate) fn next_waiting(&self) -> Option<u32> {
        self.budget.next_waiting()
    }

    /// The connection wants no more room.
    pub(crate) fn forget(&mut self, connection: u32) {
        self.budget.forget(connection);
    }

    /// Start a validated request whose room is reserved.
    pub(crate) fn start(
        &mut self,
        turn: &mut Turn,
        origin: Origin,
        command: Command,
        (offset, length): (u64, u32),
        payload: Option<Payload>,
    ) {
        let request = HostRequest {
            origin,
            command,
            offset,
            length,
            payload,
            answered: false,
            abandoned: false,
            taken: 0,
        };
        self.arriving -= 1;
        let id = self.requests.insert(request);
        match command {
            Command::Read { .. } => {
                let buffer = turn.driver.pool().take(length as usize);
                self.submit_image(turn, ImageWork::Host(id), ImageRequest::Read { buffer, offset });
            }
            Command::Cache => {
                let request = ImageRequest::Cache {
                    offset,
                    length: u64::from(length),
                };
                self.submit_image(turn, ImageWork::Host(id), request);
            }
            Command::Flush => match &mut self.machinery {
                Machinery::Plain(plain) => plain.flush(id),
                Machinery::Mirror(mirror) => mirror.flush(turn.now, id),
            },
            Command::Write { .. } | Command::Trim { .. } | Command::WriteZeroes { .. } => self.mutate(turn, id),
            // The connection keeps DISC to itself.
            Command::Disconnect => self.end(id, Ok(None)),
        }
    }

    /// The connection died: what no leg has seen is dropped, the rest ends unheard.
    pub(crate) fn abandon(&mut self, turn: &Turn, connection: u32) {
        let mut orphans = Vec::new();
        for (id, request) in self.requests.iter_mut() {
            if request.origin.connection == connection && !request.answered {
                request.abandoned = true;
                if request.mutation().is_some() {
                    orphans.push(id);
                }
            }
        }
        for id in orphans {
            match &mut self.machinery {
                Machinery::Plain(plain) => {
                    if plain.cancel(id) {
                        self.drop_request(id);
                    }
                }
                Machinery::Mirror(mirror) => mirror.abandon(turn.now, id),
            }
        }
    }

    /// An operation of the image came back.
    pub(crate) fn on_image(&mut self, turn: &mut Turn, completion: Completion) {
        let mut done = std::mem::take(&mut self.image_done);
        self.image.complete(&mut *turn.driver, completion, &mut done);
        for done in done.drain(..) {
            self.image_done(turn, done);
        }
        self.image_done = done;
    }

    /// Do everything that has become due, until there is nothing more to do.
    pub(crate) fn drain(&mut self, turn: &mut Turn) {
        match &self.machinery {
            Machinery::Plain(_) => self.drain_plain(turn),
            Machinery::Mirror(_) => self.drain_mirror(turn),
        }
    }

    /// Requests that have ended; the vector is given back by the caller for its memory.
    pub(crate) fn take_ended(&mut self, empty: &mut Vec<Ended>) {
        debug_assert!(empty.is_empty());
        std::mem::swap(&mut self.ended, empty);
    }

    /// Host requests that hold room in the budget.
    pub(crate) fn requests_in_flight(&self) -> u32 {
        self.budget.requests()
    }

    /// A host has connected.
    pub(crate) fn connected(&mut self) {
        self.connections += 1;
    }

    /// A host connection is gone.
    pub(crate) fn disconnected(&mut self, reply_bytes: u64) {
        self.connections -= 1;
        self.release_reply(reply_bytes);
    }

    /// No request comes any more: finish, and make everything durable.
    pub(crate) fn stop(&mut self, turn: &Turn) {
        match &mut self.machinery {
            Machinery::Plain(plain) => plain.stop(),
            Machinery::Mirror(_) => self.command(turn, mirror_core::event::Command::Stop),
        }
    }

    /// `Some`: nothing of it is in flight any more; whether everything is durable and its metadata clean.
    pub(crate) fn stopped(&self) -> Option<bool> {
        let clean = match &self.machinery {
            Machinery::Plain(plain) => plain.stopped(),
            Machinery::Mirror(mirror) => mirror.stopped(),
        };
        clean.filter(|_| self.requests.is_empty())
    }

    /// Its present state.
    pub(crate) fn snapshot(&self, turn: &Turn) -> VolumeSnapshot {
        let mut snapshot = VolumeSnapshot {
            export: self.export.clone(),
            size_bytes: self.image.size(),
            image_engine: format!("{}, {}", self.image.describe().io, turn.driver.describe()),
            connections: self.connections,
            requests_in_flight: self.budget.requests() as usize,
            bytes_in_flight: self.budget.bytes(),
            hot_extents: 0,
            generation: None,
            failed: None,
            peers: Vec::new(),
        };
        match &self.machinery {
            Machinery::Plain(plain) => snapshot.failed = plain.failed().map(str::to_owned),
            Machinery::Mirror(mirror) => mirror.add_to_snapshot(turn.now, &mut snapshot),
        }
        snapshot
    }

    fn mutate(&mut self, turn: &Turn, id: u32) {
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        match &mut self.machinery {
            Machinery::Plain(plain) => match (request.mutation(), plain.failed()) {
                (Some(mutation), None) => plain.admit(id, mutation.range),
                (Some(_), Some(_)) => self.end(id, Err(request::VOLUME_FAILED)),
                (None, _) => self.end(id, Ok(None)),
            },
            Machinery::Mirror(mirror) => match request.next_part() {
                Some(mutation) => mirror.mutate(turn.now, id, mutation),
                None => self.end(id, Ok(None)),
            },
        }
    }

    fn submit_image(&mut self, turn: &mut Turn, work: ImageWork, request: ImageRequest) {
        if let Some(done) = self.image.submit(&mut *turn.driver, work.encode(), request) {
            self.image_done(turn, done);
        }
    }

    fn image_done(&mut self, turn: &mut Turn, done: ImageDone) {
        if let Err(error) = &done.result {
            self.note_image_failure(error);
        }
        match ImageWork::decode(done.id) {
            ImageWork::Host(id) => self.host_done(turn, id, done.result, done.buffer),
            ImageWork::Flush => match &mut self.machinery {
                Machinery::Plain(_) => self.plain_flushed(&done.result),
                Machinery::Mirror(mirror) => mirror.local_flushed(turn.now, &done.result),
            },
            ImageWork::CopyRead(piece) => self.copy_read(turn, piece, done.result, done.buffer),
        }
    }

    fn host_done(&mut self, turn: &Turn, id: u32, result: Result<(), ImageError>, buffer: Option<Buffer>) {
        let Some(request) = self.requests.get(id) else { return };
        let Some(mutation) = request.mutation() else {
            let outcome = result.map(|()| buffer).map_err(|error| image_refusal(&error));
            return self.end(id, outcome);
        };
        match &mut self.machinery {
            Machinery::Plain(plain) => {
                plain.release(mutation.range);
                self.end(id, result.map(|()| None).map_err(|error| image_refusal(&error)));
            }
            Machinery::Mirror(mirror) => mirror.local_done(turn.now, id, &result),
        }
    }

    /// Answer and release.
    fn end(&mut self, id: u32, outcome: Result<Option<Buffer>, Refusal>) {
        self.answer(id, outcome);
        self.requests.remove(id);
    }

    /// Answer, once.
    fn answer(&mut self, id: u32, outcome: Result<Option<Buffer>, Refusal>) {
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        if request.answered {
            return;
        }
        request.answered = true;
        self.budget.release(request.reserved());
        let Origin { connection, cookie } = request.origin;
        self.ended.push(Ended::Replied(HostReply {
            connection,
            cookie,
            read: request.read(),
            outcome,
        }));
    }

    /// Release without an answer.
    fn drop_request(&mut self, id: u32) {
        let Some(request) = self.requests.remove(id) else {
            return;
        };
        if !request.answered {
            self.budget.release(request.reserved());
            self.ended.push(Ended::Dropped {
                connection: request.origin.connection,
            });
        }
    }

    /// Log the first failure, then ever more rarely: a full disk fails every request.
    fn note_image_failure(&mut self, error: &ImageError) {
        self.image_failures += 1;
        if self.image_failures >= self.image_failures_logged {
            self.image_failures_logged = self.image_failures * FAILURES_LOG_FACTOR;
            tracing::error!(export = self.export, failures = self.image_failures, "image: {error}");
        }
    }
}
