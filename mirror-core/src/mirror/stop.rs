//! Stopping in order: finish, make everything durable, leave clean metadata.

use super::Mirror;
use super::request::Phase;
use crate::event::{DisconnectReason, Event, Output, PeerIndex, Refusal, RequestId};
use crate::state::PeerState;

/// How far a stop has come.
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
            Stopping::Draining if self.failed => self.stopped(),
            Stopping::Draining if self.is_drained() => {
                let local = self.local.request();
                for peer in &mut self.peers {
                    peer.flush.request();
                }
                self.issue_flushes();
                self.stopping = Stopping::Flushing { local };
            }
            Stopping::Flushing { .. } if self.failed => self.stopped(),
            Stopping::Flushing { local } if self.is_durable(local) => {
                if self.peers.iter().any(|peer| !peer.dirty.changed().is_empty()) {
                    self.persisting.progress_wanted = true;
                    self.persist();
                } else if self.persisting.is_idle() {
                    self.stopping = Stopping::Persisting;
                    self.persist_clean();
                }
            }
            Stopping::Persisting if self.failed || self.persisting.is_idle() => self.stopped(),
            _ => {}
        }
    }

    /// Answer what waits for a peer to come back; on a failed volume also everything no leg has seen.
    pub(super) fn refuse_waiting(&mut self, refusal: Refusal) {
        self.suspended.clear();
        if self.failed
            && let Some(log) = &mut self.log
        {
            log.queue.clear();
        }
        for at in 0..self.requests.len() {
            let id = RequestId(at as u32);
            let failed = self.failed;
            let Some(request) = self.request(id) else { continue };
            if request.phase == Phase::Started {
                let held = request.held != 0;
                request.degraded |= core::mem::take(&mut request.held);
                let answered = request.replied || request.local.is_none();
                if (held || failed) && !answered {
                    self.answer(id, Err(refusal));
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
            if flush.held == 0 && !self.failed {
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

    /// Every leg that is there has flushed what it had.
    fn is_durable(&self, local: u64) -> bool {
        self.local.reached(local)
            && self
                .peers
                .iter()
                .all(|peer| peer.connection.is_none() || !peer.flush.is_busy())
    }

    fn stopped(&mut self) {
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
        self.event(Event::Stopped { clean: !self.failed });
    }
}
