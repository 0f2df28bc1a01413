//! A volume with the mirror: what the core says is done to the legs, what the legs say is told to the core.

use std::io;
use std::time::Duration;

use mirror_core::config::PeerKind;
use mirror_core::event::{
    Command, ConnectionId, DisconnectReason, Failure, HostOp, Input, Mutation, Output, PeerIndex,
    Refusal as MirrorRefusal, RequestId, Ticket,
};
use mirror_core::identity::Role;
use mirror_core::stream::Request;
use mirror_core::{AckMode, Mirror};

use super::incoming::Incoming;
use super::jobs::{JobKind, Jobs};
use super::plain::image_request;
use super::remote::RemoteReads;
use super::request::{HostRequest, ImageWork, failure_of, mirror_refusal};
use super::{Machinery, Volume};
use crate::data::message::{PeerSnapshot, VolumeSnapshot};
use crate::data::metadata::{MetadataFile, PersistDone};
use crate::data::peer::{Action, LinkDone, LinkWork, Peer};
use crate::data::plan::MirrorPlan;
use crate::data::snapshot::peer_snapshot;
use crate::data::stream::StreamWork;
use crate::data::turn::Turn;
use crate::image::{ImageError, ImageRequest};

/// The mirror of one volume: the core, and what carries out what it says.
pub(super) struct MirrorSide {
    pub(super) core: Mirror,
    pub(super) peers: Vec<Peer>,
    /// The stream to each peer that the mirror knows of.
    pub(super) streams: Vec<Option<ConnectionId>>,
    /// What each peer is, as far as is known.
    pub(super) kinds: Vec<PeerKind>,
    /// When a write is answered, by peer.
    pub(super) modes: Vec<AckMode>,
    /// The size that the mirror is about to take.
    pub(super) resizing: Option<(Ticket, u64)>,
    /// The seed of the digests on the stream to each peer.
    pub(super) seeds: Vec<u64>,
    /// What each peer has copied to here.
    pub(super) incoming: Vec<Incoming>,
    /// What the mirror is to be told once nothing fetched is being written any more for a connection that is gone.
    pub(super) deferred: Vec<Input>,
    pub(super) jobs: Jobs,
    pub(super) remote: RemoteReads,
    pub(super) metadata: MetadataFile,
    /// Scratch for answers of links.
    pub(super) done: Vec<LinkDone>,
    /// Mutations to be applied here, once the peers have been sent theirs.
    locals: Vec<(RequestId, Mutation)>,
    /// The core has stopped; whether with clean metadata.
    pub(super) stopped: Option<bool>,
}

impl MirrorSide {
    pub(super) fn new(volume: usize, plan: MirrorPlan) -> io::Result<Self> {
        let settle = !plan.restored.was_clean();
        let peers_count = plan.peers.len();
        let kinds = plan.config.peers.iter().map(|peer| peer.kind).collect();
        let modes = plan.config.peers.iter().map(|peer| peer.mode).collect();
        let peers = plan.peers.into_iter().enumerate();
        Ok(Self {
            core: Mirror::new(plan.config, plan.restored),
            peers: peers
                .map(|(index, plan)| Peer::new(volume, PeerIndex(index as u8), plan, settle))
                .collect(),
            streams: vec![None; peers_count],
            kinds,
            modes,
            resizing: None,
            seeds: vec![0; peers_count],
            incoming: (0..peers_count).map(|_| Incoming::default()).collect(),
            deferred: Vec::new(),
            jobs: Jobs::default(),
            remote: RemoteReads::default(),
            metadata: MetadataFile::new(volume, plan.metadata)?,
            done: Vec::new(),
            locals: Vec::new(),
            stopped: None,
        })
    }

    pub(super) fn tell(&mut self, now: Duration, input: Input) {
        self.core.handle(now, input);
    }

    pub(super) fn mutate(&mut self, now: Duration, id: u32, mutation: Mutation) {
        self.tell(
            now,
            Input::Host {
                id: RequestId(id),
                op: HostOp::Mutate(mutation),
            },
        );
    }

    pub(super) fn flush(&mut self, now: Duration, id: u32) {
        self.tell(
            now,
            Input::Host {
                id: RequestId(id),
                op: HostOp::Flush,
            },
        );
    }

    pub(super) fn abandon(&mut self, now: Duration, id: u32) {
        self.tell(now, Input::Abandon(RequestId(id)));
    }

    pub(super) fn local_done(&mut self, now: Duration, id: u32, result: &Result<(), ImageError>) {
        self.tell(
            now,
            Input::LocalDone {
                id: RequestId(id),
                outcome: outcome_of(result),
            },
        );
    }

    pub(super) fn local_flushed(&mut self, now: Duration, result: &Result<(), ImageError>) {
        self.tell(now, Input::LocalFlushDone(outcome_of(result)));
    }

    pub(super) fn add_to_snapshot(&self, now: Duration, snapshot: &mut VolumeSnapshot) {
        let status = self.core.status(now);
        snapshot.hot_extents = status.hot_extents;
        snapshot.disk = Some(status.disk);
        snapshot.generation = Some(format!("{:016x}", status.generation));
        (snapshot.requests_held, snapshot.no_data) = (status.held, status.no_data);
        snapshot.failed = status.failed.map(|why| why.to_string());
        let sides = self.peers.iter().zip(&self.kinds).zip(&self.incoming);
        let told = sides.zip(&status.peers).map(|(((peer, kind), incoming), status)| {
            let told = peer_snapshot(peer, *kind, status);
            let arriving = || incoming.running(now, snapshot.size_bytes);
            PeerSnapshot {
                resync: told.resync.or_else(arriving),
                last_resync: told.last_resync.or(incoming.last()),
                ..told
            }
        });
        snapshot.peers = told.collect();
    }

    /// `Some`: stopped, and whether with clean metadata.
    pub(super) fn stopped(&self) -> Option<bool> {
        self.stopped
    }

    /// When the core wants to be woken.
    pub(super) fn next_timeout(&self) -> Option<Duration> {
        self.core.next_timeout()
    }

    /// The core is through with a connection, or with trying to make one.
    fn disconnect(
        &mut self,
        turn: &mut Turn,
        index: PeerIndex,
        connection: Option<ConnectionId>,
        reason: DisconnectReason,
    ) {
        if let Some(connection) = connection {
            self.jobs.cancel(index, connection);
        }
        let Some(peer) = self.peer(index) else { return };
        match reason {
            DisconnectReason::Operator | DisconnectReason::Stopping | DisconnectReason::Handshake => {
                peer.stop_wanting(turn);
            }
            DisconnectReason::PeerFailed(_) => tracing::warn!(
                peer = peer.name(),
                error = peer.last_error(),
                "the peer answered a request with an error: connection given up"
            ),
        }
        peer.give_up(turn, connection);
    }

    pub(super) fn role(&self) -> Role {
        self.core.role()
    }

    fn persisted(&mut self, now: Duration, done: Option<PersistDone>) {
        if let Some(PersistDone { id, outcome }) = done {
            self.tell(now, Input::Persisted { id, outcome });
        }
    }
}

impl Volume {
    /// Do what the core says, and tell it what comes of that at once, until it has nothing more to say.
    pub(super) fn drain_mirror(&mut self, turn: &mut Turn) {
        loop {
            let Machinery::Mirror(mirror) = &mut self.machinery else {
                return;
            };
            // What is for the streams is handed on first: the peers work while the local leg does.
            let has_locals = !mirror.locals.is_empty() && self.outward.is_empty();
            match mirror.core.poll_output() {
                Some(output) => self.perform(turn, output),
                None if self.take_link_answers(turn) => {}
                None if has_locals => self.apply_locals(turn),
                None => return,
            }
        }
    }

    /// The peers work while the local leg does: what is for them goes first, for a local write may be done at once.
    fn apply_locals(&mut self, turn: &mut Turn) {
        self.flush_links(turn);
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        let mut locals = std::mem::take(&mut mirror.locals);
        for (id, mutation) in locals.drain(..) {
            self.local(turn, id, &mutation);
        }
        if let Machinery::Mirror(mirror) = &mut self.machinery {
            mirror.locals = locals;
        }
    }

    /// An operation of the metadata file came back.
    pub(crate) fn on_metadata(&mut self, turn: &mut Turn, result: io::Result<usize>, op: crate::ring::Op) {
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        let done = mirror.metadata.on_done(turn, result, op);
        mirror.persisted(turn.now, done);
    }

    fn perform(&mut self, turn: &mut Turn, output: Output) {
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        match output {
            Output::Local { id, mutation } => mirror.locals.push((id, mutation)),
            Output::LocalFlush => self.submit_image(turn, ImageWork::Flush, ImageRequest::Flush),
            Output::Peer {
                peer,
                connection,
                id,
                mutation,
            } => self.send_mutation(turn, (peer, connection), id, &mutation),
            Output::PeerFlush { peer, connection } => self.send_flush(turn, (peer, connection)),
            Output::Copy {
                peer,
                connection,
                copy,
                range,
            } => self.job_start(turn, JobKind::Push, (peer, connection), copy, range),
            Output::Fetch {
                peer,
                connection,
                copy,
                range,
            } => self.job_start(turn, JobKind::Fetch, (peer, connection), copy, range),
            Output::Compare {
                peer,
                connection,
                copy,
                range,
            } => self.job_start(turn, JobKind::Compare, (peer, connection), copy, range),
            Output::PeerBarrier { peer, connection } => {
                self.put_outward((peer, connection), Request::Barrier, StreamWork::Barrier);
            }
            Output::ToPeer {
                peer,
                connection,
                message,
            } => self.put_outward((peer, connection), Request::Message(message), StreamWork::Message),
            Output::OrderDone { ticket, outcome } => self.order_done(ticket, outcome),
            Output::Persist(transaction) => {
                let done = mirror.metadata.start(turn, transaction);
                mirror.persisted(turn.now, done);
            }
            Output::Reply { id, outcome } => self.mirror_replies(id, outcome),
            Output::Release(RequestId(id)) => self.released(turn, id),
            Output::Connect(peer) => {
                if let Some(peer) = mirror.peer(peer) {
                    peer.want(turn);
                }
            }
            Output::Disconnect {
                peer,
                connection,
                reason,
            } => match connection.filter(|&connection| mirror.has_stream(peer, connection)) {
                Some(connection) => self.leave_stream(turn, peer, connection, reason),
                None => mirror.disconnect(turn, peer, connection, reason),
            },
            Output::Event(event) => self.note_event(turn.now, &event),
        }
    }

    fn send_mutation(
        &mut self,
        turn: &Turn,
        (peer, connection): (PeerIndex, ConnectionId),
        id: RequestId,
        mutation: &Mutation,
    ) {
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        if mirror.has_stream(peer, connection) {
            return self.replicate((peer, connection), id, mutation);
        }
        let payload = self.requests.get(id.0).and_then(|request| request.payload.clone());
        let range = mutation.range.offset..mutation.range.end();
        let link = mirror.link(peer, connection);
        if let (Some(link), Some(action)) = (link, Action::of(mutation, payload)) {
            link.ask(turn, LinkWork::Mutation(id), action, range);
        }
    }

    fn send_flush(&mut self, turn: &Turn, (peer, connection): (PeerIndex, ConnectionId)) {
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        if mirror.has_stream(peer, connection) {
            return self.put_outward((peer, connection), Request::Flush, StreamWork::Flush);
        }
        if let Some(link) = mirror.link(peer, connection) {
            link.ask(turn, LinkWork::Flush, Action::Flush, 0..0);
        }
    }

    fn mirror_replies(&mut self, RequestId(id): RequestId, outcome: Result<(), MirrorRefusal>) {
        match outcome {
            Ok(()) if self.requests.get(id).is_some_and(HostRequest::has_more) => {}
            Ok(()) => self.answer(id, Ok(None)),
            Err(refusal) => {
                self.answer(id, Err(mirror_refusal(refusal)));
                if let Some(request) = self.requests.get_mut(id) {
                    request.taken = request.length;
                }
            }
        }
    }

    fn local(&mut self, turn: &mut Turn, id: RequestId, mutation: &Mutation) {
        let payload = self.requests.get(id.0).and_then(|request| request.payload.clone());
        match image_request(mutation.kind, mutation.range, mutation.fua, payload) {
            Some(request) => self.submit_image(turn, ImageWork::Host(id.0), request),
            None => {
                if let Machinery::Mirror(mirror) = &mut self.machinery {
                    mirror.tell(
                        turn.now,
                        Input::LocalDone {
                            id,
                            outcome: Err(Failure::Io),
                        },
                    );
                }
            }
        }
    }
}

fn outcome_of(result: &Result<(), ImageError>) -> Result<(), Failure> {
    match result {
        Ok(()) => Ok(()),
        Err(error) => Err(failure_of(error)),
    }
}

/// What the operator and the end of the daemon ask for.
impl Volume {
    /// Carry out an operator's command.
    pub(crate) fn command(&mut self, turn: &Turn, command: Command) {
        if let Machinery::Mirror(mirror) = &mut self.machinery {
            mirror.tell(turn.now, Input::Command(command));
        }
    }

    /// Peers it has.
    pub(crate) fn peer_count(&self) -> usize {
        match &self.machinery {
            Machinery::Mirror(mirror) => mirror.peers.len(),
            Machinery::Plain(_) => 0,
        }
    }
}
