//! Host flushes, and the flushes of the legs that cover them (I5).

use super::request::{FlushRequest, bit};
use super::{Admission, Mirror};
use crate::config::{OnDisconnect, PEERS_MAX};
use crate::event::{
    ConnectionId, DisconnectReason, Event, Failure, LinkKind, OrderRefusal, Output, PeerIndex, Refusal, RequestId,
};
use crate::identity::Role;
use crate::sabotage::Sabotage;
use crate::state::{Fatal, LocalDisk};

impl Mirror {
    pub(super) fn host_flush(&mut self, id: RequestId) {
        if let Some(refusal) = self.closed() {
            return self.refuse(id, refusal);
        }
        if let Admission::Refused(refusal) = self.admission() {
            return self.refuse(id, refusal);
        }
        let mut flush = FlushRequest {
            id,
            local: if self.keeps(Sabotage::I5) {
                self.local.request()
            } else {
                self.local.join()
            },
            targets: [0; PEERS_MAX],
            waiting: 0,
            partial: 0,
            held: 0,
            degraded: 0,
            failed_by: None,
        };
        for peer in 0..self.peers.len() {
            if self.role == Role::Primary && !self.peers[peer].removed {
                self.cover(peer, &mut flush);
            }
        }
        self.flushes.push(flush);
        self.issue_flushes();
        self.advance_flushes();
    }

    /// Add what this peer's mode asks of the flush.
    fn cover(&mut self, peer: usize, flush: &mut FlushRequest) {
        if self.holds_for_data(peer) {
            flush.held |= bit(peer);
            return;
        }
        let link = &mut self.peers[peer];
        if link.state.replicates() {
            if link.is_sync() {
                flush.targets[peer] = link.flush.request();
                flush.waiting |= bit(peer);
            } else {
                self.enqueue_barrier(peer);
            }
        } else if link.state.is_connected() {
            flush.degraded |= bit(peer);
            if link.link == LinkKind::Stream {
                // What was sent before it fell Behind is part of what this flush promises to the other volumes.
                self.enqueue_barrier(peer);
            }
        } else if link.is_sync() && link.policy() == OnDisconnect::Suspend {
            flush.held |= bit(peer);
        } else {
            flush.degraded |= bit(peer);
        }
    }

    /// Issue every flush that is wanted and not in flight.
    pub(super) fn issue_flushes(&mut self) {
        if !self.has_failed() && self.local.issue() {
            self.start_local_flush();
            self.emit(Output::LocalFlush);
        }
        for peer in 0..self.peers.len() {
            let link = &mut self.peers[peer];
            let Some(connection) = link.connection else { continue };
            if link.flush.issue() {
                link.start_flush();
                self.emit(Output::PeerFlush {
                    peer: PeerIndex(peer as u8),
                    connection,
                });
            }
        }
    }

    pub(super) fn local_flush_done(&mut self, outcome: Result<(), Failure>) {
        if self.is_flush_of_old_image() || self.has_failed() {
            return;
        }
        if outcome.is_err() {
            self.local.failed();
            if self.role == Role::Secondary {
                return self.lose_image();
            }
            self.leg.flush_failed = true;
            if self.local_leg_failed() || self.superblock.disk == LocalDisk::Diskless {
                return;
            }
            // What the page cache held may be gone for good: never tried again, never ignored.
            return self.fail_volume(Fatal::Flush);
        }
        self.local.completed();
        self.finish_local_flush();
        self.issue_flushes();
        self.advance_flushes();
        for peer in 0..self.peers.len() {
            self.fetch(peer);
        }
    }

    pub(super) fn peer_flush_done(&mut self, peer: PeerIndex, connection: ConnectionId, outcome: Result<(), Failure>) {
        let at = usize::from(peer.0);
        if self.peers[at].connection != Some(connection) {
            return;
        }
        if let Err(failure) = outcome {
            return self.peer_failed(at, DisconnectReason::PeerFailed(failure));
        }
        self.peers[at].finish_flush();
        self.issue_flushes();
        self.advance_flushes();
        self.pump(at);
        self.resync(at);
    }

    /// Answer every flush that has all it waits for.
    pub(super) fn advance_flushes(&mut self) {
        let gates = self.reply_gates();
        let mut at = 0;
        while at < self.flushes.len() {
            let gone = self.flushes[at].failed_by.map(|peer| self.refusal_without(peer));
            let flush = &mut self.flushes[at];
            for peer in 0..self.peers.len() {
                if flush.waiting & bit(peer) != 0 && self.peers[peer].flush.reached(flush.targets[peer]) {
                    flush.waiting &= !bit(peer);
                    flush.partial |= if self.peers[peer].misses_blocks() { bit(peer) } else { 0 };
                }
            }
            let outcome = if let Some(refusal) = gone {
                Err(refusal)
            } else if self.fatal.is_some() {
                Err(Refusal::VolumeFailed)
            } else {
                Ok(())
            };
            let legs = self.local.reached(flush.local) && flush.waiting | flush.held == 0;
            if outcome.is_ok() && (!legs || gates.hold(flush.degraded)) {
                at += 1;
                continue;
            }
            let id = self.flushes.remove(at).id;
            self.emit(Output::Reply { id, outcome });
            self.emit(Output::Release(id));
        }
    }

    /// The peer was lost with flushes on their way.
    pub(super) fn lose_flushes(&mut self, peer: usize) {
        let policy = if self.holds_for_data(peer) {
            OnDisconnect::Suspend
        } else {
            self.policy_for_lost(peer)
        };
        for flush in &mut self.flushes {
            if (flush.waiting | flush.partial) & bit(peer) == 0 {
                continue;
            }
            flush.waiting &= !bit(peer);
            flush.partial &= !bit(peer);
            flush.lose(peer, policy);
        }
    }

    /// The peer is back: flushes that waited for it are asked of it now.
    pub(super) fn resume_flushes(&mut self, peer: usize) {
        for flush in &mut self.flushes {
            if flush.held & bit(peer) != 0 {
                flush.held &= !bit(peer);
                flush.waiting |= bit(peer);
                flush.targets[peer] = self.peers[peer].flush.request();
            }
        }
        self.issue_flushes();
    }

    /// Nothing can be promised any more: every change is refused until the operator has looked.
    pub(super) fn fail_volume(&mut self, why: Fatal) {
        if self.has_failed() {
            return;
        }
        self.fatal = Some(why);
        self.local.reset();
        self.event(Event::VolumeFailed(why));
        self.fail_orders(OrderRefusal::Failed(Failure::Io));
        for peer in 0..self.peers.len() {
            // What the local leg reads now may be older than what the peer has.
            self.drop_unsent_copies(peer);
        }
        self.advance_flushes();
        self.refuse_waiting(Refusal::VolumeFailed);
    }
}
