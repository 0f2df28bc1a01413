//! Requests of a replication stream: what a Primary writes, and what the source of a resync pushes, goes the way of a
//! host's requests; what a peer asks about the image is looked up.

use mirror_core::ByteRange;
use mirror_core::event::{ConnectionId, Failure, Input, PeerIndex};
use mirror_core::identity::Role;
use mirror_core::stream::Request;
use nbd_proto::{Command, Refusal};

use super::lookup::Question;
use super::request::{Origin, StreamOrigin, failure_in};
use super::{Ended, Machinery, Volume};
use crate::data::stream::StreamReply;
use crate::data::turn::Turn;
use crate::ring::Payload;

/// The end of a request of a stream.
#[derive(Debug)]
pub(crate) struct Streamed {
    /// Which.
    pub(crate) origin: StreamOrigin,
    /// What is answered.
    pub(crate) reply: StreamReply,
}

impl Streamed {
    /// The end of a mutation or flush.
    pub(super) fn mutation(origin: StreamOrigin, refusal: Option<Refusal>) -> Self {
        let reply = match refusal {
            None => StreamReply::Done,
            Some(refusal) => StreamReply::Failed(failure_in(&refusal)),
        };
        Self { origin, reply }
    }
}

impl Volume {
    /// Start a request of a stream. Exactly one [`Streamed`] will come of it.
    pub(crate) fn start_streamed(
        &mut self,
        turn: &mut Turn,
        origin: StreamOrigin,
        request: Request,
        payload: Option<Payload>,
    ) {
        let copied = match request {
            Request::CopyWrite { range } | Request::CopyZero { range } => Some(range.length),
            _ => None,
        };
        let (command, range) = match request {
            Request::Write { range, fua } => (Command::Write { fua }, range),
            Request::CopyWrite { range } => (Command::Write { fua: false }, range),
            Request::Zero { range, no_hole, fua } => (
                Command::WriteZeroes {
                    fua,
                    no_hole,
                    fast: false,
                },
                range,
            ),
            Request::CopyZero { range } => (Command::Trim { fua: false }, range),
            Request::Trim { range, fua } => (Command::Trim { fua }, range),
            Request::Flush => return self.start(turn, Origin::Stream(origin), Command::Flush, (0, 0), None),
            Request::Compare { range, digests } => {
                return self.look_up(turn, origin, range, Question::Compare(digests));
            }
            Request::Fetch { range, digests } => return self.look_up(turn, origin, range, Question::Fetch(digests)),
            Request::Read { range } => return self.look_up(turn, origin, range, Question::Read),
            Request::Message(message) => {
                if let Machinery::Mirror(mirror) = &mut self.machinery {
                    let input = Input::FromPeer {
                        peer: origin.peer,
                        connection: origin.started.connection,
                        message,
                    };
                    mirror.tell_in_order(turn, input);
                }
                return self.streamed(origin, StreamReply::Done);
            }
            // The intake keeps barriers to itself.
            Request::Barrier => return self.streamed(origin, StreamReply::Done),
        };
        let within = range.end() <= self.size;
        // I7: a Primary takes writes from hosts only.
        if !within || !self.takes_streamed_writes() {
            return self.streamed(origin, StreamReply::Failed(Failure::Io));
        }
        if let (Some(bytes), Some(incoming)) = (copied, self.incoming(origin.peer)) {
            match command {
                Command::Trim { .. } => incoming.zeroed(bytes),
                _ => incoming.copied(bytes),
            }
        }
        let place = (range.offset, range.length);
        self.start(turn, Origin::Stream(origin), command, place, payload.map(Into::into));
    }

    /// An epoch ends: make durable what has been applied. An [`Ended::Epoch`] will come of it.
    pub(crate) fn end_epoch(&mut self, turn: &mut Turn, peer: PeerIndex, connection: ConnectionId) {
        self.start(turn, Origin::Epoch { peer, connection }, Command::Flush, (0, 0), None);
    }

    /// The connection is gone: what has not been started never is.
    pub(crate) fn abandon_streamed(&mut self, turn: &Turn, peer: PeerIndex, connection: ConnectionId) {
        let mut orphans = Vec::new();
        for (id, request) in self.requests.iter_mut() {
            let from_there = matches!(request.origin, Origin::Stream(origin) if origin.is_of(peer, connection));
            if from_there && !request.answered {
                request.abandoned = true;
                if request.mutation().is_some() {
                    orphans.push(id);
                }
            }
        }
        self.abandon_all(turn, orphans);
        self.drop_held_lookups(peer, connection);
    }

    /// The end of a request of a stream.
    pub(super) fn streamed(&mut self, origin: StreamOrigin, reply: StreamReply) {
        self.ended.push(Ended::Streamed(Streamed { origin, reply }));
    }

    /// A mutation of this stream that came before `origin` overlaps the range and has not ended.
    pub(super) fn is_behind_a_mutation(&self, origin: StreamOrigin, range: ByteRange) -> bool {
        self.requests.iter().any(|(_, request)| {
            let Origin::Stream(earlier) = request.origin else {
                return false;
            };
            let same = earlier.is_of(origin.peer, origin.started.connection);
            let overlaps = request
                .mutation()
                .is_some_and(|mutation| mutation.range.overlaps(range));
            same && earlier.started.sequence < origin.started.sequence && !request.answered && overlaps
        })
    }

    fn takes_streamed_writes(&self) -> bool {
        match &self.machinery {
            Machinery::Mirror(mirror) => mirror.role() == Role::Secondary,
            Machinery::Plain(_) => false,
        }
    }
}
