//! Ending in order, as a daemon or as a Primary: finish, make everything durable, leave clean metadata.

use super::Mirror;
use super::request::Phase;
use crate::event::{DisconnectReason, Event, LinkKind, OrderRefusal, Output, PeerIndex, Refusal, RequestId, Ticket};
use crate::identity::Role;
use crate::sabotage::Sabotage;
use crate::state::PeerState;

/// What ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The mirror.
    Life,
    /// Its time as Primary.
    Primary(Ticket),
}

/// How far an end has come.
///
/// ```text
///  No --stop--> Draining --nothing in flight--> Flushing --every leg durable--> Persisting --durable--> Done
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopping {
    No,
    Draining,
    Flushing { local: u64 },
    Persisting,
    Done,
}

impl Stopping {
    pub(super) fn is_asked(self) -> bool {
        self != Self::No
    }
}

impl Mirror {
    pub(super) fn stop(&mut self) {
        if let Ending::Primary(ticket) = core::mem::replace(&mut self.ending, Ending::Life) {
            self.order_done(ticket, Err(OrderRefusal::Closed));
        }
        self.cancel_promotion();
        self.begin_end();
    }

    /// Become Secondary.
    pub(super) fn demote(&mut self, ticket: Ticket) {
        if self.role != Role::Primary || self.is_changing_role() {
            return self.order_done(ticket, Err(OrderRefusal::WrongState));
        }
        self.ending = Ending::Primary(ticket);
        self.begin_end();
    }

    fn begin_end(&mut self) {
        if self.stopping.is_asked() {
            return;
        }
        self.stopping = Stopping::Draining;
        self.refuse_waiting(Refusal::Stopping);
        for peer in 0..self.peers.len() {
            self.drop_unsent_copies(peer);
        }
    }

    /// One step further, if what the present one waits for is there.
    pub(super) fn stop_step(&mut self) {
        match self.stopping {
            Stopping::Draining if self.has_failed() => self.stopped(),
            Stopping::Draining if self.is_drained() => {
                let local = self.local.request();
                let role = self.role;
                for peer in self.peers.iter_mut().filter(|peer| peer.connection.is_some()) {
                    // What a partner holds of a Secondary's copies has been flushed, or is dirty.
                    if role == Role::Primary || peer.flush.is_busy() {
                        peer.flush.request();
                    }
                }
                self.issue_flushes();
                self.stopping = Stopping::Flushing { local };
                // Nothing to wait for, perhaps: no image, no connection.
                self.stop_step();
            }
            Stopping::Flushing { .. } if self.has_failed() => self.stopped(),
            Stopping::Flushing { local } if self.is_durable(local) || self.skips_flush() => {
                if self.peers.iter().any(|peer| !peer.dirty.changed().is_empty()) {
                    self.persisting.progress_wanted = true;
                    self.persist();
                } else if self.persisting.is_idle() {
                    self.stopping = Stopping::Persisting;
                    self.persist_end();
                } else {
                    return;
                }
                if self.persisting.is_idle() {
                    // Metadata that cannot be written any more are not waited for.
                    self.stop_step();
                }
            }
            Stopping::Persisting if self.has_failed() || self.persisting.is_idle() => self.stopped(),
            _ => {}
        }
    }

    /// Nothing is in flight and every leg is durable: the metadata may say so.
    fn persist_end(&mut self) {
        // What is in an image that is not here has not been made durable anywhere else: that is no end in order.
        let withheld = self.superblock.is_withheld();
        if self.role == Role::Primary && !withheld && self.every_partner_has_everything() {
            self.superblock.acks_wait = true;
        }
        match self.ending {
            Ending::Life => {
                self.superblock.clean = true;
                // A crash of an earlier life stays to be told until a handshake has dealt with it.
                self.superblock.primary &= self.role == Role::Secondary || withheld;
            }
            Ending::Primary(_) => (self.superblock.primary, self.superblock.resume) = (withheld, false),
        }
        self.persist_clean();
    }

    /// Whatever happens to the image here from now on, nothing that was answered is lost with it.
    fn every_partner_has_everything(&self) -> bool {
        let partners = self
            .peers
            .iter()
            .filter(|link| link.link == LinkKind::Stream && !link.removed);
        let mut partners = partners.map(|link| (link.state, link.record.generation, link.dirty.is_empty()));
        partners.all(|has| has == (PeerState::Established, 0, true))
    }

    /// Answer what waits for a peer to come back; on a failed volume also everything no leg has seen.
    pub(super) fn refuse_waiting(&mut self, refusal: Refusal) {
        self.suspended.clear();
        if self.has_failed()
            && let Some(log) = &mut self.log
        {
            log.queue.clear();
        }
        let lost = self.nobody_has_data();
        for at in 0..self.requests.len() {
            let id = RequestId(at as u32);
            let failed = self.has_failed();
            let Some(request) = self.request(id) else { continue };
            if request.phase == Phase::Started {
                // Without any leg that has the data no gate will open either.
                let held = request.held != 0 || (lost && request.gated);
                request.degraded |= core::mem::take(&mut request.held);
                let answered = request.replied || request.local.is_none();
                if (held || failed) && !answered {
                    self.answer(id, Err(refusal));
                } else if held {
                    self.advance(id);
                }
            } else if failed || request.phase == Phase::Suspended {
                let (waits, range) = (request.phase == Phase::Ordering, request.mutation.range);
                self.emit(Output::Reply {
                    id,
                    outcome: Err(refusal),
                });
                self.retire(id);
                if waits {
                    self.leave_order(id.0, range);
                }
            }
        }
        for flush in core::mem::take(&mut self.flushes) {
            if flush.held == 0 && !self.has_failed() && !lost {
                self.flushes.push(flush);
            } else {
                self.refuse(flush.id, refusal);
            }
        }
    }

    /// Reply now, and let go of it once no peer is busy with it.
    fn answer(&mut self, id: RequestId, outcome: Result<(), Refusal>) {
        if let Some(request) = self.request(id) {
            request.replied = true;
            self.emit(Output::Reply { id, outcome });
            self.advance(id);
        }
    }

    fn is_drained(&self) -> bool {
        let quiet = self.peers.iter().all(|peer| peer.resync.copies.is_empty());
        quiet && self.mutations == 0 && self.flushes.is_empty() && self.persisting.is_idle()
    }

    /// The simulator's proof that a handover has to flush.
    fn skips_flush(&self) -> bool {
        !self.keeps(Sabotage::Handover) && self.ending != Ending::Life
    }

    /// Every leg that is there has flushed what it had.
    fn is_durable(&self, local: u64) -> bool {
        self.local.reached(local)
            && self
                .peers
                .iter()
                .all(|peer| peer.connection.is_none() || !peer.flush.is_busy())
    }

    fn stopped(&mut self) {
        if let Ending::Primary(ticket) = core::mem::replace(&mut self.ending, Ending::Life) {
            self.stopping = Stopping::No;
            return self.demoted(ticket);
        }
        self.stopping = Stopping::Done;
        for at in 0..self.peers.len() {
            let (peer, connection) = (PeerIndex(at as u8), self.peers[at].connection);
            if self.peers[at].state == PeerState::StandAlone {
                continue;
            }
            self.emit(Output::Disconnect {
                peer,
                connection,
                reason: DisconnectReason::Stopping,
            });
            if connection.is_some() {
                self.lose_peer(at, PeerState::StandAlone);
            } else {
                self.set_peer_state(at, PeerState::StandAlone);
            }
        }
        self.event(Event::Stopped {
            clean: !self.has_failed(),
        });
    }

    fn demoted(&mut self, ticket: Ticket) {
        if self.has_failed() {
            return self.order_done(ticket, Err(OrderRefusal::Closed));
        }
        self.role = Role::Secondary;
        self.forget_gates();
        if self.superblock.left_at != 0 {
            self.superblock.fall_back();
            self.forget_other_lines();
            self.persisting.superblock_wanted = true;
        }
        for at in 0..self.peers.len() {
            match self.peers[at].state {
                _ if self.peers[at].link == LinkKind::Nbd => self.leave_plain(at),
                // A target that fetched: from here on its source has to push.
                PeerState::SyncTarget => self.ask_handshake(at),
                PeerState::SyncSource => self.resync(at),
                _ => {}
            }
        }
        self.order_done(ticket, Ok(()));
    }
}
