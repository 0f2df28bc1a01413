//! Becoming Primary. (Becoming Secondary is an end in order, as a stop is: see `stop`.)

use alloc::vec::Vec;

use super::Mirror;
use super::orders::Then;
use super::peer::Told;
use crate::event::{DisconnectReason, Failure, LinkKind, OrderRefusal, Output, PeerIndex, Ticket};
use crate::identity::{Generation, Role};
use crate::sabotage::Sabotage;
use crate::state::{LocalDisk, PeerState};

/// How far a promotion has come.
///
/// ```text
///  No --order--> Draining --nothing in flight--> Flushing --durable here--> Naming --acknowledged by all in step--> No
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Promotion {
    No,
    /// What an earlier Primary sent has to end first.
    Draining {
        ticket: Ticket,
        generation: Generation,
        doubtful: Vec<PeerIndex>,
        since: u64,
    },
    /// What an earlier Primary sent becomes durable before it gets a name that others may build on: a flush that fails
    /// leaves everything as it was.
    Flushing {
        ticket: Ticket,
        generation: Generation,
        doubtful: Vec<PeerIndex>,
        since: u64,
        /// The local flush that covers it.
        local: u64,
    },
    /// The data has its new name (I7); nobody may write before it is known wherever it has to be.
    Naming {
        ticket: Ticket,
        /// It is durable here.
        durable: bool,
    },
}

impl Mirror {
    /// A change of role is under way.
    pub(super) fn is_changing_role(&self) -> bool {
        self.promotion != Promotion::No || self.stopping.is_asked()
    }

    /// The data get their new name.
    pub(super) fn is_promoting(&self) -> bool {
        self.promotion != Promotion::No
    }

    /// Nothing keeps this volume from being a Primary's. Whatever else might be found out by trying is tried.
    pub(super) fn agree(&mut self, ticket: Ticket) {
        if !self.may_promote() {
            return self.order_done(ticket, Err(OrderRefusal::WrongState));
        }
        self.order_after_flush(ticket);
    }

    fn may_promote(&self) -> bool {
        let diskless = self.superblock.disk == LocalDisk::Diskless;
        self.role == Role::Secondary && !self.is_changing_role() && !diskless
    }

    pub(super) fn promote(&mut self, ticket: Ticket, generation: Generation, doubtful: Vec<PeerIndex>, since: u64) {
        if !self.may_promote() || generation == 0 {
            return self.order_done(ticket, Err(OrderRefusal::WrongState));
        }
        self.promotion = Promotion::Draining {
            ticket,
            generation,
            doubtful,
            since,
        };
    }

    /// One step further, if what the present one waits for is there.
    pub(super) fn promotion_step(&mut self) {
        match core::mem::replace(&mut self.promotion, Promotion::No) {
            Promotion::No => {}
            promotion if self.has_failed() => {
                self.promotion = promotion;
                self.cancel_promotion();
            }
            Promotion::Draining {
                ticket,
                generation,
                doubtful,
                since,
            } if self.is_quiet() => {
                let local = self.local.request();
                self.issue_flushes();
                self.promotion = Promotion::Flushing {
                    ticket,
                    generation,
                    doubtful,
                    since,
                    local,
                };
                self.promotion_step();
            }
            Promotion::Flushing { ticket, .. } if self.superblock.disk == LocalDisk::Diskless => {
                self.order_done(ticket, Err(OrderRefusal::Failed(Failure::Io)));
            }
            Promotion::Flushing {
                ticket,
                generation,
                doubtful,
                since,
                local,
            } if self.is_quiet() && (self.local.reached(local) || !self.keeps(Sabotage::Handover)) => {
                self.promotion = Promotion::Naming { ticket, durable: false };
                self.become_primary(generation, &doubtful);
                self.superblock.primary_since = since;
                self.when_durable(Then::Named);
                self.promotion_step();
            }
            Promotion::Naming { ticket, durable: true } if self.is_named() => self.promoted(ticket),
            waits => self.promotion = waits,
        }
    }

    /// It ends without success: the mirror stops or has failed.
    pub(super) fn cancel_promotion(&mut self) {
        match core::mem::replace(&mut self.promotion, Promotion::No) {
            Promotion::No => {}
            Promotion::Draining { ticket, .. }
            | Promotion::Flushing { ticket, .. }
            | Promotion::Naming { ticket, .. } => {
                self.order_done(ticket, Err(OrderRefusal::Closed));
            }
        }
    }

    pub(super) fn named(&mut self) {
        if let Promotion::Naming { durable, .. } = &mut self.promotion {
            *durable = true;
        }
    }

    /// Nothing that an earlier Primary sent is in flight.
    fn is_quiet(&self) -> bool {
        self.mutations == 0 && self.flushes.is_empty()
    }

    /// The new generation is known wherever it has to be.
    fn is_named(&self) -> bool {
        self.peers.iter().all(|link| link.told == Told::Known) || !self.keeps(Sabotage::GenerationAlone)
    }

    fn become_primary(&mut self, generation: Generation, doubtful: &[PeerIndex]) {
        self.role = Role::Primary;
        let (previous, complete) = (self.superblock.generation, self.leg_is_complete());
        let served = self.peers.iter().any(|link| link.state == PeerState::SyncTarget);
        for at in 0..self.peers.len() {
            let serves = self.peers[at].state == PeerState::SyncTarget;
            let doubted = doubtful.contains(&PeerIndex(at as u8));
            let link = &mut self.peers[at];
            // What was given up is the data from here on.
            link.record.given_up = 0;
            let partner = link.link == LinkKind::Stream;
            // Whoever is not connected and in step holds what was current before.
            let lacks = doubted || !link.dirty.is_empty() || (partner && !link.is_in_step());
            if lacks && link.record.generation == 0 {
                link.record.generation = previous;
            }
            if !serves && !complete {
                // What its sources had copied is written over from here on.
                link.record.sync = 0;
            }
            if doubted {
                self.doubt(at);
            }
        }
        let acks_wait = self.every_partner_is_sync();
        if self.keeps(Sabotage::I7) {
            self.name_data(generation);
        }
        if !served && self.superblock.disk == LocalDisk::Inconsistent {
            self.begin_line();
        }
        let superblock = &mut self.superblock;
        (superblock.primary, superblock.resume, superblock.fresh) = (true, true, false);
        (superblock.acks_wait, superblock.answers_lost) = (acks_wait, false);
        self.persisting.superblock_wanted = true;
        if !served && self.superblock.disk != LocalDisk::Diskless {
            // Nobody is there who has more: the operator has declared what is here to be the data.
            self.set_disk(LocalDisk::UpToDate);
        }
    }

    /// What is declared to be the data is of no one time, and part of it was never anybody's: it is no later state of
    /// what any node has, even of the same name. Whoever meets it takes it for unrelated, and an operator says which
    /// of the two is given up.
    fn begin_line(&mut self) {
        if !self.keeps(Sabotage::LineOfItsOwn) {
            return;
        }
        self.superblock.history.clear();
        for link in self.peers.iter_mut().filter(|link| link.link == LinkKind::Stream) {
            // It has none of this, whatever it calls its own.
            link.record.generation = self.rng.identifier();
        }
    }

    /// Hosts may write.
    fn promoted(&mut self, ticket: Ticket) {
        self.refresh_modes();
        for at in 0..self.peers.len() {
            let link = &self.peers[at];
            match link.state {
                _ if link.removed => {}
                PeerState::StandAlone if link.link == LinkKind::Nbd && !link.parted => {
                    self.set_peer_state(at, PeerState::Connecting);
                    self.emit(Output::Connect(PeerIndex(at as u8)));
                }
                // Its source has pushed so far; a Primary fetches.
                PeerState::SyncTarget => self.ask_handshake(at),
                PeerState::Established if !link.dirty.is_empty() => self.start_resync(at),
                PeerState::SyncSource => self.push_again(at),
                _ => {}
            }
        }
        self.order_done(ticket, Ok(()));
    }

    /// A source that had stopped copying, because somebody else was Primary, goes on.
    fn push_again(&mut self, peer: usize) {
        if core::mem::take(&mut self.peers[peer].passive) {
            self.start_resync(peer);
        } else {
            self.resync(peer);
        }
    }

    /// What both nodes concluded does not hold in the new roles.
    pub(super) fn ask_handshake(&mut self, peer: usize) {
        self.peer_failed(peer, DisconnectReason::Handshake);
    }

    /// A Secondary has no plain peers: nothing it applies is sent on.
    pub(super) fn leave_plain(&mut self, peer: usize) {
        let connection = self.peers[peer].connection;
        if self.peers[peer].state == PeerState::StandAlone {
            return;
        }
        self.emit(Output::Disconnect {
            peer: PeerIndex(peer as u8),
            connection,
            reason: DisconnectReason::Stopping,
        });
        if connection.is_some() {
            self.lose_peer(peer, PeerState::StandAlone);
        } else {
            self.set_peer_state(peer, PeerState::StandAlone);
        }
    }
}
