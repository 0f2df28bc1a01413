//! A volume: its image, the requests of its hosts, and what orders and replicates them.

mod blocks;
mod branch;
mod change;
mod compare;
mod copy;
mod ends;
mod events;
mod fetch;
mod incoming;
mod jobs;
mod lookup;
mod mirrored;
mod outward;
mod partner;
mod peers;
mod plain;
mod remote;
mod replies;
mod request;
mod saving;
mod skip;
mod status;
mod streamed;
mod view;

use mirror_core::config::REQUESTS_MAX;
use mirror_core::event::{ConnectionId, Failure, PeerIndex};
use nbd_proto::Command;

use self::branch::Branch;
pub(crate) use self::change::ATTACHING;
use self::change::Offer;
pub(crate) use self::compare::is_zero;
use self::lookup::Lookups;
use self::mirrored::MirrorSide;
pub(crate) use self::outward::{Note, Outward};
use self::plain::Plain;
pub(crate) use self::request::{Body, Origin, StreamOrigin};
use self::request::{HostRequest, ImageWork, image_refusal};
pub(crate) use self::status::{ALLOCATION, ContextKind, DIRTY_PREFIXES, EXTENTS_MAX};
pub(crate) use self::streamed::Streamed;
use self::view::View;
use super::budget::Budget;
use super::connection::HostReply;
use super::message::VolumeSnapshot;
use super::peer::Peer;
use super::plan::{Limits, VolumePlan};
use super::slab::Slab;
use super::token::{Kind, Token};
use super::turn::Turn;
use crate::image::{Image, ImageDone, ImageRequest};
use crate::ring::Completion;

/// A volume of this data thread.
pub(crate) struct Volume {
    /// Its number in the thread.
    index: usize,
    export: String,
    /// Minimum block size of the export, bytes.
    minimum_block: u32,
    image: Image,
    /// Bytes that may be asked for.
    size: u64,
    /// The mirror has given the image up; it is still open.
    image_gone: bool,
    /// The mirror has been offered the image, and has not taken it yet.
    offer: Option<Offer>,
    budget: Budget,
    requests: Slab<HostRequest>,
    /// Requests with reserved room that have not arrived whole.
    arriving: usize,
    /// Requests that have ended since the loop last looked.
    ended: Vec<Ended>,
    /// Scratch for answers of the image.
    image_done: Vec<ImageDone>,
    /// What its resource has not yet handed to the streams.
    outward: Vec<Outward>,
    /// What its resource has not yet been told.
    notes: Vec<Note>,
    /// Questions of peers that are being looked up in the image.
    lookups: Lookups,
    branch: Branch,
    /// It is no volume of its own, but a branch that is served.
    view: Option<View>,
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
    /// A request of a stream.
    Streamed(Streamed),
    /// The flush at the end of an epoch of a stream.
    Epoch {
        peer: PeerIndex,
        connection: ConnectionId,
        outcome: Result<(), Failure>,
    },
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
        let mut branch = Branch::new(plan.branches, Self::is_target(&machinery));
        if Self::is_diskless(&machinery) {
            branch.set_image_gone(true);
        }
        Ok(Self {
            index,
            export: plan.export,
            minimum_block: plan.minimum_block,
            size: image.size(),
            image,
            image_gone: false,
            offer: None,
            budget: Budget::new(limits.budget_bytes, limits.budget_requests),
            requests: Slab::new(),
            arriving: 0,
            ended: Vec::new(),
            image_done: Vec::new(),
            outward: Vec::new(),
            notes: Vec::new(),
            lookups: Lookups::default(),
            branch,
            view: None,
            machinery,
            connections: 0,
            reply_bytes: 0,
            replies_full: false,
            image_failures: 0,
            image_failures_logged: 0,
        })
    }

    /// Its bytes: the image may have more while the volume grows.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn export(&self) -> &str {
        &self.export
    }

    /// Take room for a request of `bytes`; false: the connection is queued, `next_waiting` will name it. `is_idle`: it holds
    /// no room.
    pub(crate) fn reserve(&mut self, connection: u32, bytes: u64, is_idle: bool) -> bool {
        if self.requests.len() + self.arriving >= REQUESTS_MAX {
            // Answered ones are kept while a peer's queue needs them.
            self.budget.wait(connection);
            return false;
        }
        let reserved = self.budget.reserve(connection, bytes, is_idle);
        self.arriving += usize::from(reserved);
        reserved
    }

    /// Give back room that was never used.
    pub(crate) fn unreserve(&mut self, bytes: u64) {
        self.arriving -= 1;
        self.budget.arrived(bytes);
        self.budget.release(bytes);
    }

    /// Somebody waits for room.
    pub(crate) fn is_short_of_room(&self) -> bool {
        self.budget.is_short()
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
        (offset, length): (u64, u64),
        body: Option<Body>,
    ) {
        let (payload, check) = body.map_or((None, None), |body| (Some(body.payload), body.check));
        let request = HostRequest {
            origin,
            command,
            offset,
            length,
            payload,
            check,
            answered: false,
            abandoned: false,
            taken: 0,
            failed_at: None,
        };
        if let Origin::Host { .. } = origin {
            self.arriving -= 1;
            self.budget.arrived(request.reserved());
        }
        let id = self.requests.insert(request);
        match command {
            Command::Read { .. } => self.read(turn, id),
            Command::Cache => {
                self.submit_image(turn, ImageWork::Host(id), ImageRequest::Cache { offset, length });
            }
            Command::Flush => match &mut self.machinery {
                Machinery::Plain(plain) => plain.flush(id),
                Machinery::Mirror(mirror) => mirror.flush(turn.now, id),
            },
            Command::WriteZeroes {
                fast: true, no_hole, ..
            } if no_hole || !self.zeroes_fast() => {
                self.end(id, Err(request::NOT_FAST));
            }
            Command::Write { .. } | Command::Trim { .. } | Command::WriteZeroes { .. } => self.mutate(turn, id),
            // The connection keeps DISC to itself, and offers no metadata contexts.
            Command::Disconnect | Command::BlockStatus { .. } => self.end(id, Ok(None)),
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
        self.let_image_go();
    }

    /// Do everything that has become due, until there is nothing more to do.
    pub(crate) fn drain(&mut self, turn: &mut Turn) {
        match &self.machinery {
            Machinery::Plain(_) => self.drain_plain(turn),
            Machinery::Mirror(_) => self.drain_mirror(turn),
        }
        self.release_lookups(turn);
        if self.branch.is_ending() {
            self.advance_branch(turn);
        }
        self.close_view();
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
            size_bytes: self.size,
            image_engine: format!("{}, {}", self.image.describe().io, turn.driver.describe()),
            connections: self.connections,
            requests_in_flight: self.budget.requests() as usize,
            bytes_in_flight: self.budget.bytes(),
            hot_extents: 0,
            disk: None,
            attaching: self.is_attaching(),
            generation: None,
            failed: None,
            requests_held: 0,
            no_data: None,
            branch: self.branch.snapshot(),
            peers: Vec::new(),
        };
        match &self.machinery {
            Machinery::Plain(plain) => snapshot.failed = plain.failed().map(str::to_owned),
            Machinery::Mirror(mirror) => mirror.add_to_snapshot(turn.now, &mut snapshot),
        }
        snapshot
    }

    /// Whether zeroing a range, and giving its space back, costs less than writing it wherever it has to be done: the
    /// image makes holes and has nothing to save before, and no payload of zeroes goes to a peer.
    fn zeroes_fast(&self) -> bool {
        let peers = match &self.machinery {
            Machinery::Mirror(mirror) => mirror.peers.iter().all(Peer::takes_zeroes),
            Machinery::Plain(_) => true,
        };
        peers && self.image.makes_holes() && !self.branch.is_open()
    }

    fn mutate(&mut self, turn: &Turn, id: u32) {
        self.skip_hole(id);
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
}
