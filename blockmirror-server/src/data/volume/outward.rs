//! What a volume has for its resource: requests for streams, and news of its mirror.

use mirror_core::event::{ConnectionId, Mutation, MutationKind, OrderRefusal, PeerIndex, RequestId, Ticket};
use mirror_core::state::LocalDisk;
use mirror_core::stream::Request;

use super::Volume;
use crate::data::stream::{Checked, StreamWork};

/// A request for the stream to a peer. The order of these is the order on the stream.
#[derive(Debug)]
pub(crate) struct Outward {
    pub(crate) peer: PeerIndex,
    pub(crate) connection: ConnectionId,
    pub(crate) request: Request,
    pub(crate) payload: Option<Checked>,
    pub(crate) work: StreamWork,
}

/// Something a volume's resource has to know.
#[derive(Debug)]
pub(crate) enum Note {
    /// The mirror has carried an order out, or not.
    OrderDone {
        ticket: Ticket,
        outcome: Result<(), OrderRefusal>,
    },
    /// The state of the image is another one.
    Disk(LocalDisk),
    /// The queue of an async peer is full here: all volumes stop at the same place.
    FellBehind(PeerIndex),
    /// The mirror wants this stream to end: its peer has failed a request.
    GiveUp {
        peer: PeerIndex,
        connection: ConnectionId,
        why: &'static str,
        /// It has no space left.
        no_space: bool,
    },
}

impl Volume {
    /// Requests for streams since the last call; the vector given is used for the next ones.
    pub(crate) fn take_outward(&mut self, empty: &mut Vec<Outward>) {
        debug_assert!(empty.is_empty());
        std::mem::swap(&mut self.outward, empty);
    }

    /// Something waits to be taken.
    pub(crate) fn has_outward(&self) -> bool {
        !self.outward.is_empty()
    }

    /// News since the last call; the vector given is used for the next ones.
    pub(crate) fn take_notes(&mut self, empty: &mut Vec<Note>) {
        debug_assert!(empty.is_empty());
        std::mem::swap(&mut self.notes, empty);
    }

    /// Replicate a host mutation on a stream.
    pub(super) fn replicate(
        &mut self,
        (peer, connection): (PeerIndex, ConnectionId),
        id: RequestId,
        mutation: &Mutation,
    ) {
        let Mutation { range, kind, fua } = *mutation;
        let payload = match kind {
            MutationKind::Write => self.requests.get_mut(id.0).and_then(super::HostRequest::checked),
            MutationKind::Zero { .. } | MutationKind::Trim => None,
        };
        let request = match kind {
            MutationKind::Write => Request::Write { range, fua },
            MutationKind::Zero { no_hole } => Request::Zero { range, no_hole, fua },
            MutationKind::Trim => Request::Trim { range, fua },
        };
        self.outward.push(Outward {
            peer,
            connection,
            request,
            payload,
            work: StreamWork::Mutation(id),
        });
    }

    /// Put a request without a payload on a stream.
    pub(super) fn put_outward(
        &mut self,
        (peer, connection): (PeerIndex, ConnectionId),
        request: Request,
        work: StreamWork,
    ) {
        self.outward.push(Outward {
            peer,
            connection,
            request,
            payload: None,
            work,
        });
    }
}
