//! The way of mutations and resync requests to a peer: a queue, a window, and what happens when the queue is full.

use super::peer::Entry;
use super::request::bit;
use super::{COPY_ID, Mirror};
use crate::config::PEER_WINDOW;
use crate::event::{
    ConnectionId, CopyId, DisconnectReason, Event, Failure, LinkKind, Mutation, Output, PeerIndex, RequestId,
};
use crate::identity::Role;
use crate::range::ByteRange;
use crate::sabotage::Sabotage;
use crate::state::PeerState;

impl Mirror {
    /// A started mutation for a peer that is connected.
    pub(super) fn enqueue_mutation(&mut self, peer: usize, id: RequestId, mutation: &Mutation) {
        let range = mutation.range;
        if !self.peers[peer].is_sync() && self.peers[peer].is_full(mutation.payload_bytes()) {
            self.event(Event::FellBehind {
                peer: PeerIndex(peer as u8),
            });
            self.fall_behind(peer);
            self.degrade(peer, id);
            return self.caught_up(peer);
        }
        if self.peers[peer].link == LinkKind::Stream {
            return self.stream_mutation(peer, id, mutation);
        }
        if let Some(request) = self.request(id) {
            request.queued |= bit(peer);
        }
        let link = &mut self.peers[peer];
        link.queue_bytes += mutation.payload_bytes();
        link.queue.push_back(Entry::Mutation(id, range));
        if mutation.fua && !link.is_sync() {
            // It is durable here when it is answered: what comes after its answer must not be on the peer without it.
            link.queue.push_back(Entry::Fence);
        }
        self.pump(peer);
    }

    /// To a partner everything is sent at once: the stream has its own order and bounds, and the other end keeps
    /// overlaps in order.
    fn stream_mutation(&mut self, peer: usize, id: RequestId, mutation: &Mutation) {
        let link = &mut self.peers[peer];
        link.queue_bytes += mutation.payload_bytes();
        link.window += 1;
        self.send_mutation(peer, id);
        if mutation.fua && !self.peers[peer].is_sync() {
            // It is durable here when it is answered: what comes after its answer must not be on the peer without it.
            self.stream_barrier(peer);
        }
    }

    fn stream_barrier(&mut self, peer: usize) {
        let Some(connection) = self.peers[peer].connection else {
            return;
        };
        if self.keeps(Sabotage::Barrier) {
            self.emit(Output::PeerBarrier {
                peer: PeerIndex(peer as u8),
                connection,
            });
        }
    }

    /// A resync request whose range is closed to the host.
    pub(super) fn enqueue_copy(&mut self, peer: usize, copy: CopyId, range: ByteRange) {
        if self.peers[peer].link == LinkKind::Stream {
            self.peers[peer].window += 1;
            return self.send_copy(peer, copy);
        }
        self.peers[peer].queue.push_back(Entry::Copy(copy, range));
        self.pump(peer);
    }

    /// Everything queued so far is to be durable on the peer before anything queued later is sent.
    pub(super) fn enqueue_barrier(&mut self, peer: usize) {
        if self.peers[peer].link == LinkKind::Stream {
            return self.stream_barrier(peer);
        }
        let link = &mut self.peers[peer];
        let settled = link.unstable.is_empty() && link.flushing.is_empty();
        let idle = link.queue.is_empty() && link.window == 0 && settled;
        if !idle && link.queue.back() != Some(&Entry::Barrier) {
            link.queue.push_back(Entry::Barrier);
            self.pump(peer);
        }
    }

    /// Send what the window, the barriers and the order of overlapping ranges allow.
    pub(super) fn pump(&mut self, peer: usize) {
        while let Some(&entry) = self.peers[peer].queue.front() {
            match entry {
                Entry::Barrier => {
                    if !self.pass_barrier(peer) {
                        return;
                    }
                }
                Entry::Fence => {
                    if self.peers[peer].window > 0 {
                        return;
                    }
                    self.peers[peer].queue.pop_front();
                    continue;
                }
                Entry::Mutation(id, range) => {
                    if self.enter_window(peer, id.0, range) {
                        self.send_mutation(peer, id);
                    }
                }
                Entry::Copy(copy, range) => {
                    if self.enter_window(peer, COPY_ID | copy.0 as u32, range) {
                        self.send_copy(peer, copy);
                    }
                }
            }
            if self.peers[peer].queue.front() == Some(&entry) && self.peers[peer].window >= PEER_WINDOW {
                return;
            }
        }
    }

    /// True when the barrier at the head of the queue has been passed and is gone.
    fn pass_barrier(&mut self, peer: usize) -> bool {
        let link = &mut self.peers[peer];
        if link.window > 0 {
            return false;
        }
        let flush = *link.barrier.get_or_insert_with(|| link.flush.request());
        if !link.flush.reached(flush) {
            self.issue_flushes();
            return false;
        }
        link.barrier = None;
        link.queue.pop_front();
        true
    }

    /// The head of the queue enters the window. True: it is to be sent now.
    fn enter_window(&mut self, peer: usize, key: u32, range: ByteRange) -> bool {
        let link = &mut self.peers[peer];
        if link.window >= PEER_WINDOW {
            return false;
        }
        link.queue.pop_front();
        link.window += 1;
        // A synchronous peer is in the range order of the host itself: overlaps never get here together (I2).
        !link.has_order() || link.order.admit(key, range)
    }

    fn send_mutation(&mut self, peer: usize, id: RequestId) {
        let Some(connection) = self.peers[peer].connection else {
            return;
        };
        let needs_fua = self.needs_fua(peer);
        let Some(request) = self.request(id) else { return };
        request.queued &= !bit(peer);
        request.in_flight |= bit(peer);
        let mut mutation = request.mutation;
        mutation.fua |= needs_fua;
        request.durable &= !bit(peer);
        request.durable |= if mutation.fua { bit(peer) } else { 0 };
        self.emit(Output::Peer {
            peer: PeerIndex(peer as u8),
            connection,
            id,
            mutation,
        });
    }

    pub(super) fn peer_done(
        &mut self,
        peer: PeerIndex,
        connection: ConnectionId,
        id: RequestId,
        outcome: Result<(), Failure>,
    ) {
        let at = usize::from(peer.0);
        if self.peers[at].connection != Some(connection) {
            return;
        }
        if let Err(failure) = outcome {
            return self.peer_failed(at, DisconnectReason::PeerFailed(failure));
        }
        let needs_fua = self.peers[at].is_stream() && self.needs_fua(at);
        let Some(request) = self.request(id) else { return };
        assert!(request.in_flight & bit(at) != 0, "a peer answers what it was sent");
        if needs_fua && !request.replied && request.durable & bit(at) == 0 {
            // On its way when the leg here was given up: the peer may have made durable what it had before that.
            return self.send_mutation(at, id);
        }
        request.in_flight &= !bit(at);
        let mutation = request.mutation;
        self.peers[at].note_applied(&mutation);
        self.peers[at].queue_bytes -= mutation.payload_bytes();
        self.left_window(at, mutation.range);
        self.advance(id);
        self.pump(at);
        self.caught_up(at);
    }

    /// Something sent to the peer has ended: what waited for its range is sent.
    pub(super) fn left_window(&mut self, peer: usize, range: ByteRange) {
        let link = &mut self.peers[peer];
        link.window -= 1;
        if !link.has_order() {
            return;
        }
        let mut ready = alloc::vec::Vec::new();
        link.order.release(range, &mut ready);
        for key in ready {
            if key & COPY_ID == 0 {
                self.send_mutation(peer, RequestId(key));
            } else {
                let wanted = key & !COPY_ID;
                let copies = &self.peers[peer].resync.copies;
                if let Some(copy) = copies.iter().map(|copy| copy.id).find(|copy| copy.0 as u32 == wanted) {
                    self.send_copy(peer, copy);
                }
            }
        }
    }

    /// Another volume's queue was full.
    pub(super) fn fall_behind_too(&mut self, peer: PeerIndex) {
        let at = usize::from(peer.0);
        let together = self.knows(peer);
        let link = &self.peers[at];
        if together && self.role == Role::Primary && link.is_stream() && link.goes_ahead() {
            self.fall_behind(at);
            self.caught_up(at);
        }
    }

    /// The queue is full: nothing more is sent, everything not sent is dirty, resync brings it later.
    fn fall_behind(&mut self, peer: usize) {
        self.set_peer_state(peer, PeerState::Behind);
        // In its place in the stream, before anything newer than what it lacks from here on.
        self.begin_sync(peer);
        self.drop_queue(peer);
        if !self.peers[peer].resync.copied.is_empty() {
            // What was copied is not to be copied again: a storm must not undo the progress of a resync.
            self.peers[peer].flush.request();
            self.issue_flushes();
        }
    }

    /// Mutations not sent yet become dirty, resync requests not sent yet are forgotten, barriers have no meaning.
    fn drop_queue(&mut self, peer: usize) {
        let queue = core::mem::take(&mut self.peers[peer].queue);
        self.peers[peer].barrier = None;
        for entry in queue {
            match entry {
                Entry::Mutation(id, _) => {
                    let bytes = self.request(id).map_or(0, |request| request.mutation.payload_bytes());
                    self.peers[peer].queue_bytes -= bytes;
                    self.degrade(peer, id);
                    self.advance(id);
                }
                Entry::Copy(copy, _) => self.forget_copy(peer, copy),
                Entry::Barrier | Entry::Fence => {}
            }
        }
    }

    /// Behind and nothing in flight any more: resync begins.
    pub(super) fn caught_up(&mut self, peer: usize) {
        let link = &self.peers[peer];
        if link.state == PeerState::Behind && link.window == 0 && link.resync.copies.is_empty() {
            self.start_resync(peer);
        }
    }
}
