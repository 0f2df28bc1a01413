//! The streams to the peers of a volume, seen from the volume: what its resource tells it of them, and what they answer.

use std::mem;
use std::ops::Range;

use mirror_core::AckMode;
use mirror_core::config::PeerKind;
use mirror_core::event::{
    ConnectionId, DisconnectReason, Failure, Input, LinkKind, Order, OrderRefusal, PeerIndex, SyncPlan, Ticket,
};
use mirror_core::identity::{Role, VolumeIdentity};
use mirror_core::state::LocalDisk;

use super::change::Offer;
use super::incoming::Incoming;
use super::mirrored::MirrorSide;
use super::outward::Note;
use super::{Machinery, Volume};
use crate::data::stream::{StreamOutcome, StreamWork};
use crate::data::turn::Turn;

impl MirrorSide {
    /// The mirror knows this connection, and it is a stream.
    pub(super) fn has_stream(&self, peer: PeerIndex, connection: ConnectionId) -> bool {
        self.streams.get(usize::from(peer.0)) == Some(&Some(connection))
    }

    /// Tell the core what the resource or a stream says, behind everything that was told before.
    pub(super) fn tell_in_order(&mut self, turn: &Turn, input: Input) {
        if self.deferred.is_empty() && !self.jobs.has_orphaned_writes() {
            self.tell(turn.now, input);
        } else {
            self.deferred.push(input);
        }
    }
}

impl Volume {
    /// What the peer is to be told of it; `None` without a mirror.
    pub(crate) fn identity(&self, peer: PeerIndex) -> Option<VolumeIdentity> {
        let Machinery::Mirror(mirror) = &self.machinery else {
            return None;
        };
        let name = self.export.clone();
        Some(VolumeIdentity {
            name,
            ..mirror.core.identity(peer)
        })
    }

    /// Runs of blocks that are dirty for the peer, at and after `from`.
    pub(crate) fn dirty_runs(&self, peer: PeerIndex, from: u64, max: usize) -> Vec<Range<u64>> {
        match &self.machinery {
            Machinery::Mirror(mirror) => mirror.core.dirty_runs(peer, from, max),
            Machinery::Plain(_) => Vec::new(),
        }
    }

    /// The operator has given the data up for the peer's.
    pub(crate) fn gives_up(&self, peer: PeerIndex) -> bool {
        match &self.machinery {
            Machinery::Mirror(mirror) => mirror.core.gives_up(peer),
            Machinery::Plain(_) => false,
        }
    }

    /// He has not, or its data has come from a third node since.
    pub(crate) fn keeps_data_from(&self, peer: PeerIndex) -> bool {
        match &self.machinery {
            Machinery::Mirror(mirror) => mirror.core.keeps_data_from(peer),
            Machinery::Plain(_) => false,
        }
    }

    /// There is an image to be read.
    pub(crate) fn has_image(&self) -> bool {
        match &self.machinery {
            Machinery::Mirror(mirror) => mirror.core.disk() != LocalDisk::Diskless,
            Machinery::Plain(_) => true,
        }
    }

    /// The peer may lack what was answered: so may this node what it answered, for the mode is the resource's.
    pub(crate) fn is_async(&self, peer: PeerIndex) -> bool {
        match &self.machinery {
            Machinery::Mirror(mirror) => mirror.modes.get(usize::from(peer.0)) == Some(&AckMode::Async),
            Machinery::Plain(_) => false,
        }
    }

    /// A stream will need the CRC of what hosts write: best computed while the bytes are in the cache.
    pub(crate) fn wants_checks(&self) -> bool {
        match &self.machinery {
            Machinery::Mirror(mirror) => mirror.streams.iter().any(Option::is_some),
            Machinery::Plain(_) => false,
        }
    }

    /// The peer is, or may be, another blockmirror: the resource connects to it.
    pub(crate) fn is_partner(&self, peer: PeerIndex) -> bool {
        match &self.machinery {
            Machinery::Mirror(mirror) => mirror.kinds.get(usize::from(peer.0)) == Some(&PeerKind::Partner),
            Machinery::Plain(_) => false,
        }
    }

    /// A stream to the peer begins: its digests are seeded by this.
    pub(crate) fn set_seed(&mut self, peer: PeerIndex, seed: u64) {
        if let Machinery::Mirror(mirror) = &mut self.machinery
            && let Some(place) = mirror.seeds.get_mut(usize::from(peer.0))
        {
            *place = seed;
        }
    }

    /// What the peer has copied to here.
    pub(super) fn incoming(&mut self, peer: PeerIndex) -> Option<&mut Incoming> {
        match &mut self.machinery {
            Machinery::Mirror(mirror) => mirror.incoming.get_mut(usize::from(peer.0)),
            Machinery::Plain(_) => None,
        }
    }

    pub(super) fn seed_of(&self, peer: PeerIndex) -> u64 {
        match &self.machinery {
            Machinery::Mirror(mirror) => mirror.seeds.get(usize::from(peer.0)).copied().unwrap_or_default(),
            Machinery::Plain(_) => 0,
        }
    }

    /// The resource has agreed with the peer: the mirror may use the stream. `coming`: bytes that the peer will compare
    /// with those here, and copy where they differ.
    pub(crate) fn stream_up(
        &mut self,
        turn: &Turn,
        (peer, connection): (PeerIndex, ConnectionId),
        plan: SyncPlan,
        coming: u64,
    ) {
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        if plan == SyncPlan::Target && mirror.role() == Role::Secondary {
            mirror.incoming[usize::from(peer.0)].begin(turn.now, coming);
        }
        if let Some(stream) = mirror.streams.get_mut(usize::from(peer.0)) {
            *stream = Some(connection);
        }
        mirror.tell_in_order(
            turn,
            Input::PeerUp {
                peer,
                connection,
                link: LinkKind::Stream,
                plan,
            },
        );
    }

    /// The stream is gone.
    pub(crate) fn stream_down(&mut self, turn: &mut Turn, peer: PeerIndex, connection: ConnectionId) {
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        if mirror.has_stream(peer, connection) {
            mirror.streams[usize::from(peer.0)] = None;
            mirror.incoming[usize::from(peer.0)].lose();
            self.outward
                .retain(|outward| (outward.peer, outward.connection) != (peer, connection));
            self.leave(turn, peer, connection);
        }
        self.abandon_streamed(turn, peer, connection);
    }

    /// Give the mirror an order of the resource.
    pub(crate) fn order(&mut self, turn: &Turn, ticket: Ticket, order: Order) {
        if matches!(order, Order::BeginTarget { .. }) && self.branch.take_refused() {
            let outcome = Err(OrderRefusal::NoRoom);
            return self.notes.push(Note::OrderDone { ticket, outcome });
        }
        if let Machinery::Mirror(mirror) = &mut self.machinery {
            if let Order::SetKind { peer, kind } = order
                && let Some(known) = mirror.kinds.get_mut(usize::from(peer.0))
            {
                *known = match kind {
                    LinkKind::Nbd => PeerKind::Plain,
                    LinkKind::Stream => PeerKind::Partner,
                };
            }
            if let Order::Attach { .. } = order {
                self.offer = Some(Offer::Ordered(ticket));
            }
            if let Order::Resize { size, .. } = order {
                mirror.resizing = Some((ticket, size));
            }
            mirror.tell_in_order(turn, Input::Order { ticket, order });
        }
    }

    /// The mirror has carried an order out, or not.
    pub(super) fn order_done(&mut self, ticket: Ticket, outcome: Result<(), OrderRefusal>) {
        if let Machinery::Mirror(mirror) = &mut self.machinery
            && let Some((_, size)) = mirror.resizing.take_if(|(resizing, _)| *resizing == ticket)
            && outcome.is_ok()
        {
            self.size = size;
            if size < self.image.size()
                && let Err(error) = self.image.cut(size)
            {
                tracing::warn!(export = self.export, size, %error, "the image stays longer than the volume");
            }
        }
        self.notes.push(Note::OrderDone { ticket, outcome });
    }

    /// A stream has answered.
    pub(crate) fn on_answer(
        &mut self,
        turn: &mut Turn,
        (peer, connection): (PeerIndex, ConnectionId),
        work: StreamWork,
        outcome: StreamOutcome,
    ) {
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        let ended = match &outcome {
            StreamOutcome::Failed(failure) => Err(*failure),
            _ => Ok(()),
        };
        match work {
            StreamWork::Mutation(id) => mirror.tell(
                turn.now,
                Input::PeerDone {
                    peer,
                    connection,
                    id,
                    outcome: ended,
                },
            ),
            StreamWork::Flush => mirror.tell(
                turn.now,
                Input::PeerFlushDone {
                    peer,
                    connection,
                    outcome: ended,
                },
            ),
            StreamWork::Copy { piece, copy } => self.stream_answered(turn, piece, copy, outcome),
            StreamWork::Read(id) => self.stream_read(turn, id, outcome),
            StreamWork::Barrier | StreamWork::Message => {}
        }
    }

    /// The mirror is through with a stream.
    pub(super) fn leave_stream(
        &mut self,
        turn: &mut Turn,
        peer: PeerIndex,
        connection: ConnectionId,
        reason: DisconnectReason,
    ) {
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        mirror.streams[usize::from(peer.0)] = None;
        mirror.jobs.cancel(peer, connection);
        self.outward
            .retain(|outward| (outward.peer, outward.connection) != (peer, connection));
        self.reads_lost(turn, peer, connection);
        let why = match reason {
            DisconnectReason::PeerFailed(Failure::NoSpace) => "the peer has no space left",
            DisconnectReason::PeerFailed(Failure::Io) => "the peer answered a request with an I/O error",
            DisconnectReason::Handshake => "the roles have changed: what follows has to be decided anew",
            // The others of the resource may still need it; a mirror that stops says nothing more on it, that is all.
            DisconnectReason::Operator | DisconnectReason::Stopping => return,
        };
        self.notes.push(Note::GiveUp {
            peer,
            connection,
            why,
            no_space: reason == DisconnectReason::PeerFailed(Failure::NoSpace),
        });
    }

    /// A connection is gone, of whichever kind: tell the mirror, once nothing of it is being written here.
    pub(super) fn leave(&mut self, turn: &mut Turn, peer: PeerIndex, connection: ConnectionId) {
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        mirror.jobs.cancel(peer, connection);
        mirror.tell_in_order(turn, Input::PeerDown { peer, connection });
        self.reads_lost(turn, peer, connection);
    }

    /// Something written here for a connection that is gone has ended.
    pub(super) fn tell_deferred(&mut self, turn: &Turn) {
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        if mirror.jobs.has_orphaned_writes() {
            return;
        }
        for input in mem::take(&mut mirror.deferred) {
            mirror.tell(turn.now, input);
        }
    }
}
