//! Connections to peers: coming, going, and what an operator asks of them.

use alloc::vec::Vec;

use super::Mirror;
use super::peer::Gate;
use super::request::{PeerMask, Phase, bit};
use crate::event::{ConnectionId, DisconnectReason, Output, PeerIndex, RequestId};
use crate::metadata::make_all_dirty;
use crate::order::RangeOrder;
use crate::sabotage::Sabotage;
use crate::state::PeerState;

impl Mirror {
    pub(super) fn peer_up(&mut self, peer: PeerIndex, connection: ConnectionId) {
        let at = usize::from(peer.0);
        if self.peers[at].state != PeerState::Connecting || self.stopping.is_asked() || self.failed {
            let reason = DisconnectReason::Operator;
            return self.emit(Output::Disconnect {
                peer,
                connection: Some(connection),
                reason,
            });
        }
        let link = &mut self.peers[at];
        link.connection = Some(connection);
        debug_assert!(
            link.unstable.is_empty() && link.flushing.is_empty(),
            "what an old connection left is dirty"
        );
        if link.dirty.is_empty() {
            self.set_peer_state(at, PeerState::Established);
            self.peer_in_step(at);
        } else {
            self.start_resync(at);
        }
        self.resend_held(at);
        self.resume_flushes(at);
        self.resume_suspended();
    }

    /// Mutations lost on the way to the peer go again; they hold their range, so nothing newer is there yet.
    fn resend_held(&mut self, peer: usize) {
        for id in self.ids(|request| request.held & bit(peer) != 0) {
            if let Some(request) = self.request(id) {
                request.held &= !bit(peer);
                let mutation = request.mutation;
                self.enqueue_mutation(peer, id, &mutation);
            }
        }
    }

    /// Changes that waited for a peer start, in order, while the policies let them.
    fn resume_suspended(&mut self) {
        for id in core::mem::take(&mut self.suspended) {
            self.start(id);
        }
    }

    pub(super) fn peer_down(&mut self, peer: PeerIndex, connection: ConnectionId) {
        let at = usize::from(peer.0);
        if self.peers[at].connection == Some(connection) {
            self.lose_peer(at, PeerState::Connecting);
            self.reconnect(at);
        }
    }

    fn reconnect(&mut self, peer: usize) {
        if self.stopping.is_asked() {
            self.set_peer_state(peer, PeerState::StandAlone);
        } else {
            self.emit(Output::Connect(PeerIndex(peer as u8)));
        }
    }

    /// The peer answered with an error: what it holds is not known, the connection is given up.
    pub(super) fn peer_failed(&mut self, peer: usize, reason: DisconnectReason) {
        let index = PeerIndex(peer as u8);
        let connection = self.peers[peer].connection;
        // First: the requests of the old connection are released next.
        self.emit(Output::Disconnect {
            peer: index,
            connection,
            reason,
        });
        self.lose_peer(peer, PeerState::Connecting);
        self.reconnect(peer);
    }

    pub(super) fn operator_disconnect(&mut self, peer: PeerIndex) {
        let at = usize::from(peer.0);
        let connection = self.peers[at].connection;
        if self.peers[at].state == PeerState::StandAlone {
            return;
        }
        self.emit(Output::Disconnect {
            peer,
            connection,
            reason: DisconnectReason::Operator,
        });
        if connection.is_some() {
            self.lose_peer(at, PeerState::StandAlone);
        } else {
            self.set_peer_state(at, PeerState::StandAlone);
        }
    }

    pub(super) fn operator_connect(&mut self, peer: PeerIndex) {
        let at = usize::from(peer.0);
        if self.peers[at].state == PeerState::StandAlone && !self.stopping.is_asked() {
            self.set_peer_state(at, PeerState::Connecting);
            self.emit(Output::Connect(peer));
        }
    }

    pub(super) fn invalidate(&mut self, peer: PeerIndex) {
        let at = usize::from(peer.0);
        let instance = self.rng.identifier() as u32;
        let link = &mut self.peers[at];
        make_all_dirty(&mut link.record, instance);
        link.dirty.fill();
        link.reset_resync_pass();
        self.persisting.superblock_wanted = true;
        self.need_generation(at);
        if self.peers[at].state.replicates() {
            self.start_resync(at);
        }
    }

    /// The connection is gone: everything it had in flight, and everything the peer may lose, is dirty (I3, I9).
    pub(super) fn lose_peer(&mut self, peer: usize, to: PeerState) {
        let link = &mut self.peers[peer];
        link.connection = None;
        link.queue.clear();
        link.queue_bytes = 0;
        link.barrier = None;
        link.window = 0;
        link.order = RangeOrder::new();
        link.distrust_unflushed();
        let outdated = !link.dirty.is_empty();
        self.set_peer_state(peer, to);
        self.drop_copies(peer);
        self.lose_flushes(peer);
        if outdated {
            self.need_generation(peer);
        }
        let lost = self.ids(|request| (request.queued | request.in_flight) & bit(peer) != 0);
        for &id in &lost {
            self.lose(peer, id);
        }
        for id in lost {
            self.advance(id);
        }
        self.advance_flushes();
    }

    /// A peer that lacks something holds an earlier generation; the data here gets a new name before a reply that the
    /// peer's data does not back (I4).
    pub(super) fn need_generation(&mut self, peer: usize) {
        let link = &mut self.peers[peer];
        if link.record.generation != 0 {
            return;
        }
        link.record.generation = self.superblock.generation;
        link.gate = Gate::Wanted;
        self.superblock.generation = self.rng.identifier_after(self.superblock.generation);
        self.persisting.superblock_wanted = true;
    }

    /// The peer has everything, durably: it holds this generation.
    pub(super) fn peer_in_step(&mut self, peer: usize) {
        let link = &mut self.peers[peer];
        if link.record.generation == 0 && link.record.synced && !link.record.base_dirty {
            return;
        }
        link.record.generation = 0;
        link.record.synced = true;
        self.persisting.superblock_wanted = true;
    }

    /// Peers whose new generation is not durable yet.
    pub(super) fn closed_gates(&self) -> PeerMask {
        if self.failed || !self.keeps(Sabotage::I4) {
            return 0;
        }
        super::peer::mask(&self.peers, |peer| peer.gate != Gate::Open)
    }

    /// Started mutations that satisfy `test`, by id.
    pub(super) fn ids(&self, test: impl Fn(&super::Request) -> bool) -> Vec<RequestId> {
        let started = |at: &usize| {
            self.requests[*at]
                .as_ref()
                .is_some_and(|request| request.phase == Phase::Started && test(request))
        };
        (0..self.requests.len())
            .filter(started)
            .map(|at| RequestId(at as u32))
            .collect()
    }
}
