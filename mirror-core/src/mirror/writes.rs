//! The life of a mutation, from the host to its release.

use super::request::{Phase, Request, bit};
use super::roles::Promotion;
use super::{Admission, COPY_ID, Mirror};
use crate::config::{MUTATION_BYTES_MAX, OnDisconnect, REQUESTS_MAX};
use crate::event::{Failure, Mutation, Output, PeerIndex, Refusal, RequestId};
use crate::identity::Role;
use crate::range::ByteRange;
use crate::sabotage::Sabotage;

impl Mirror {
    pub(super) fn host_mutation(&mut self, id: RequestId, mutation: Mutation) {
        assert!(
            mutation.range.end() <= self.config.size,
            "a mutation lies inside the volume"
        );
        assert!(
            mutation.range.length <= MUTATION_BYTES_MAX,
            "the shell splits long mutations"
        );
        assert!((id.0 as usize) < REQUESTS_MAX, "I8: request ids are dense and bounded");
        if let Some(refusal) = self.closed() {
            self.missed_change();
            return self.refuse(id, refusal);
        }
        if self.promotion != Promotion::No {
            // I7: nothing is written while the data get their new name. (Hosts are not there; a copy may be.)
            return self.refuse(id, Refusal::Stopping);
        }
        if let Admission::Refused(refusal) = self.admission() {
            self.missed_change();
            return self.refuse(id, refusal);
        }
        let at = id.0 as usize;
        if self.requests.len() <= at {
            self.requests.resize(at + 1, None);
        }
        assert!(
            self.requests[at].is_none(),
            "an id is not used again before its release"
        );
        self.requests[at] = Some(Request::new(mutation, self.now));
        self.latency.stir(self.now);
        self.mutations += 1;
        if !self.keeps(Sabotage::I2) {
            return self.heat(id);
        }
        if self.order.admit(id.0, mutation.range) {
            self.now_ordered(id);
        }
    }

    /// The volume takes no more changes.
    pub(super) fn closed(&self) -> Option<Refusal> {
        if self.has_failed() {
            Some(Refusal::VolumeFailed)
        } else if self.stopping.is_asked() {
            Some(Refusal::Stopping)
        } else {
            None
        }
    }

    /// Nothing earlier overlaps any more (I2).
    fn now_ordered(&mut self, id: RequestId) {
        let Some(request) = self.request(id) else { return };
        request.ordered = true;
        if request.pinned {
            self.start(id);
        } else {
            self.heat(id);
        }
    }

    /// Make sure every extent is durably hot (I1).
    fn heat(&mut self, id: RequestId) {
        let Some(range) = self.request(id).map(|request| request.mutation.range) else {
            return;
        };
        let primary = self.role == Role::Primary;
        let Some(log) = self.log.as_mut().filter(|_| primary) else {
            return self.start(id);
        };
        if !log.starving && log.is_hot(range) {
            log.pin(range);
            self.now_hot(id);
        } else {
            log.queue.push_back(id);
            if let Some(request) = self.request(id) {
                request.phase = Phase::Heating;
            }
        }
    }

    /// Its extents are pinned and durable.
    pub(super) fn now_hot(&mut self, id: RequestId) {
        let Some(request) = self.request(id) else { return };
        request.pinned = true;
        if request.abandoned {
            return self.retire(id);
        }
        self.start(id);
    }

    /// Give it to the legs, if the peers' policies let it.
    pub(super) fn start(&mut self, id: RequestId) {
        if !self.takes_range_again(id) {
            return;
        }
        match self.admission() {
            Admission::Open => {}
            Admission::Suspended if self.closed().is_some() => {
                self.emit(Output::Reply {
                    id,
                    outcome: Err(Refusal::Stopping),
                });
                return self.retire(id);
            }
            Admission::Suspended => {
                if let Some(request) = self.request(id) {
                    request.phase = Phase::Suspended;
                    self.suspended.push_back(id);
                }
                return self.let_range_go(id);
            }
            Admission::Refused(refusal) => {
                self.missed_change();
                self.emit(Output::Reply {
                    id,
                    outcome: Err(refusal),
                });
                return self.retire(id);
            }
        }
        self.started += 1;
        let number = self.started;
        let Some(request) = self.request(id) else { return };
        (request.phase, request.number) = (Phase::Started, number);
        let mutation = request.mutation;
        if self.role == Role::Secondary {
            // Its Primary keeps track of what reaches this leg.
            return self.start_local(id, mutation);
        }
        debug_assert!(self.log.as_ref().is_none_or(|log| log.is_hot(mutation.range)), "I1");
        self.start_local(id, mutation);
        for peer in 0..self.peers.len() {
            if self.peers[peer].state.replicates() {
                self.enqueue_mutation(peer, id, &mutation);
            } else {
                self.degrade(peer, id);
            }
        }
    }

    /// The peer will not get it as a write: its blocks are dirty instead (I4).
    pub(super) fn degrade(&mut self, peer: usize, id: RequestId) {
        let Some(request) = self.request(id) else { return };
        request.queued &= !bit(peer);
        request.in_flight &= !bit(peer);
        request.degraded |= bit(peer);
        let range = request.mutation.range;
        self.peers[peer].mark_dirty(range);
        self.need_generation(peer);
    }

    /// The peer was lost with the mutation on its way: what its policy says.
    pub(super) fn lose(&mut self, peer: usize, id: RequestId) {
        self.degrade(peer, id);
        if self.holds_for_data(peer) {
            if let Some(request) = self.request(id) {
                request.degraded &= !bit(peer);
                request.held |= bit(peer);
            }
            return;
        }
        let (is_sync, policy) = (self.peers[peer].is_sync(), self.policy_for_lost(peer));
        let Some(request) = self.request(id) else { return };
        if request.replied || !is_sync {
            return;
        }
        request.lose(peer, policy);
    }

    /// What a host hears when the loss of this peer fails its change.
    pub(super) fn refusal_without(&self, peer: PeerIndex) -> Refusal {
        match self.peers[usize::from(peer.0)].policy() {
            // It could have waited, but for the end.
            OnDisconnect::Continue if self.stopping.is_asked() => Refusal::Stopping,
            _ => Refusal::PeerGone(peer),
        }
    }

    /// What becomes of changes on their way to a peer that is lost. Once the mirror stops nothing can wait for a peer.
    pub(super) fn policy_for_lost(&self, peer: usize) -> OnDisconnect {
        match self.peers[peer].policy() {
            _ if self.closed().is_some() && self.nobody_has_data() => OnDisconnect::Fail,
            OnDisconnect::Suspend if self.closed().is_some() => OnDisconnect::Fail,
            policy => policy,
        }
    }

    pub(super) fn local_done(&mut self, id: RequestId, outcome: Result<(), Failure>) {
        let Some(request) = self.request(id) else { return };
        assert!(request.local.is_none(), "the local leg answers once");
        request.local = Some(outcome);
        let range = request.mutation.range;
        if outcome.is_err() {
            self.missed_change();
        }
        match outcome {
            Ok(()) if !self.leg.bad.is_empty() => self.wrote_here(range),
            Ok(()) => {}
            Err(Failure::Io) if self.local_leg_failed() => {}
            Err(_) if self.role == Role::Primary => self.distrust_local(range),
            Err(_) => {}
        }
        self.advance(id);
        if outcome.is_err() && self.role == Role::Primary {
            self.resync_all();
        }
    }

    /// A leg has answered: release the range, reply, release the request, whichever is due.
    pub(super) fn advance(&mut self, id: RequestId) {
        let sync_mask = self.sync_mask;
        let (gates, failed) = (self.reply_gates(), self.has_failed());
        // An error of an image that has been given up means nothing.
        let diskless = self.lives_on_peers();
        let failed_by = self.request(id).and_then(|request| request.failed_by);
        let gone = failed_by.map(|peer| self.refusal_without(peer));
        let Some(request) = self.request(id) else { return };
        let Some(local) = request.local.map(|outcome| if diskless { Ok(()) } else { outcome }) else {
            return;
        };
        if request.busy() & sync_mask == 0 {
            if !request.replied {
                // It keeps its range until it is answered: it may have to go to another peer, and nothing newer be there before.
                request.gated = gates.hold(request.degraded);
                if request.gated {
                    return;
                }
                request.replied = true;
                let outcome = match (local, gone) {
                    (Err(failure), _) => Err(Refusal::Local(failure)),
                    (Ok(()), _) if failed => Err(Refusal::VolumeFailed),
                    (Ok(()), Some(refusal)) => Err(refusal),
                    (Ok(()), None) => Ok(()),
                };
                let since = request.since;
                self.emit(Output::Reply { id, outcome });
                self.note_latency(since);
            }
            self.end_range(id);
        }
        if self
            .request(id)
            .is_some_and(|request| request.replied && request.busy() == 0)
        {
            self.retire(id);
        }
    }

    /// What waits for its range may start.
    pub(super) fn end_range(&mut self, id: RequestId) {
        if let Some(request) = self.request(id).filter(|request| request.ordered) {
            request.ordered = false;
            let range = request.mutation.range;
            self.release_range(range);
        }
    }

    /// Let go of everything it holds.
    pub(super) fn retire(&mut self, id: RequestId) {
        let Some(request) = self.requests.get_mut(id.0 as usize).and_then(Option::take) else {
            return;
        };
        self.mutations -= 1;
        if request.pinned {
            let stamps = self.stamps();
            if let Some(log) = &mut self.log {
                log.unpin(request.mutation.range, &stamps);
            }
        }
        self.emit(Output::Release(id));
        if request.ordered {
            self.release_range(request.mutation.range);
        }
    }

    /// An active range of the order ended; `run_ready` goes on with what waited for it.
    pub(super) fn release_range(&mut self, range: ByteRange) {
        self.order.release(range, &mut self.ready);
    }

    /// Something that waited in the order, and has not been told otherwise, leaves it.
    pub(super) fn leave_order(&mut self, key: u32, range: ByteRange) {
        if self.order.cancel(key, &mut self.ready) {
            return;
        }
        // It became active a moment ago and is still on the list of those to be told.
        self.ready.retain(|&ready| ready != key);
        self.release_range(range);
    }

    /// Go on with the ranges the order has made active. A loop, not a recursion: one release may ready a long chain.
    pub(super) fn run_ready(&mut self) {
        while let Some(id) = self.ready.pop() {
            if id & COPY_ID == 0 {
                self.now_ordered(RequestId(id));
            } else {
                self.copy_ordered(id & !COPY_ID);
            }
        }
    }

    /// Its connection died: forget it unless a leg has seen it.
    pub(super) fn abandon(&mut self, id: RequestId) {
        let Some(request) = self.request(id) else { return };
        match request.phase {
            Phase::Started => return,
            Phase::Ordering => {
                let range = request.mutation.range;
                self.leave_order(id.0, range);
            }
            Phase::Heating => {
                if let Some(log) = &mut self.log {
                    log.queue.retain(|&queued| queued != id);
                }
                if self.persisting.reserved.contains(&id) {
                    // Its extents are pinned for it by the transaction in flight: it ends when that does.
                    if let Some(request) = self.request(id) {
                        request.abandoned = true;
                    }
                    return;
                }
            }
            Phase::Suspended => self.suspended.retain(|&waiting| waiting != id),
        }
        self.retire(id);
    }
}
