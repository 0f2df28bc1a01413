//! Connections to peers: coming, going, and what an operator asks of them.

use alloc::vec::Vec;

use super::Mirror;
use super::peer::{Begun, Told};
use super::request::{PeerMask, Phase, Request, bit};
use super::stop::Ending;
use crate::config::OnDisconnect;
use crate::event::{ConnectionId, DisconnectReason, LinkKind, Output, PeerIndex, RequestId, SyncPlan, Ticket};
use crate::identity::Role;
use crate::order::RangeOrder;
use crate::sabotage::Sabotage;
use crate::state::{Fatal, PeerState};

impl Mirror {
    pub(super) fn peer_up(&mut self, peer: PeerIndex, connection: ConnectionId, link: LinkKind, plan: SyncPlan) {
        let at = usize::from(peer.0);
        let heard_of = |link: &super::Peer| link.connection.is_none() && link.latest >= Some(connection);
        if self.peers.get(at).is_some_and(heard_of) {
            // It was lost before this was said.
            return;
        }
        if !self.takes(peer, link) {
            let reason = DisconnectReason::Operator;
            return self.emit(Output::Disconnect {
                peer,
                connection: Some(connection),
                reason,
            });
        }
        if self.peers[at].connection.is_some_and(|present| present != connection) {
            self.lose_peer(at, PeerState::Connecting);
        }
        let link_is_new = self.peers[at].connection.is_none();
        if link_is_new {
            self.set_peer_state(at, PeerState::Connecting);
        }
        let peer = &mut self.peers[at];
        (peer.connection, peer.latest, peer.link) = (Some(connection), Some(connection), link);
        peer.parted = false;
        debug_assert!(
            !link_is_new || (peer.unstable.is_empty() && peer.flushing.is_empty()),
            "what an old connection left is dirty"
        );
        if link_is_new || self.is_plan_news(at, plan) {
            self.follow_plan(at, link, plan);
        }
        self.refresh_modes();
        if link_is_new {
            self.resend_held(at);
            self.resume_flushes(at);
            self.resume_suspended();
        }
    }

    /// A new connection to the peer is of use now.
    fn takes(&self, peer: PeerIndex, link: LinkKind) -> bool {
        let stopping = self.stopping.is_asked() && self.ending == Ending::Life;
        if !self.knows(peer) || stopping || self.has_failed() {
            return false;
        }
        let wanted = self.peers[usize::from(peer.0)].state == PeerState::Connecting;
        link == LinkKind::Stream || (wanted && self.role == Role::Primary)
    }

    /// A handshake that was held again on a connection in use says something that is not under way already.
    fn is_plan_news(&self, peer: usize, plan: SyncPlan) -> bool {
        let link = &self.peers[peer];
        match link.state {
            // A target is one until the source says that it has everything.
            PeerState::Behind | PeerState::SyncTarget => false,
            PeerState::SyncSource => link.passive || !matches!(plan, SyncPlan::Source | SyncPlan::InStep),
            _ => true,
        }
    }

    /// What the handshake has concluded.
    fn follow_plan(&mut self, peer: usize, link: LinkKind, plan: SyncPlan) {
        if !self.keeps(Sabotage::I9) && self.peers[peer].record.generation == 0 {
            self.peers[peer].dirty.reset();
        }
        let dirty = !self.peers[peer].dirty.is_empty();
        self.peers[peer].passive = plan == SyncPlan::Fetched;
        match (plan, link) {
            (SyncPlan::Target, _) => {
                self.set_peer_state(peer, PeerState::SyncTarget);
                if self.role == Role::Primary {
                    self.refresh_modes();
                    self.partner_is_back(peer);
                    self.start_fetch(peer);
                }
            }
            (SyncPlan::Fetched, _) => self.set_peer_state(peer, PeerState::SyncSource),
            // A Secondary's bits are the business of who sees to the resync.
            (SyncPlan::InStep, _) if !dirty || self.role == Role::Secondary => self.in_step_from_here(peer),
            (SyncPlan::Source, LinkKind::Nbd) if !dirty => self.in_step_from_here(peer),
            (SyncPlan::InStep | SyncPlan::Source, _) => {
                self.target_is_back(peer);
                self.start_resync(peer);
            }
        }
    }

    fn in_step_from_here(&mut self, peer: usize) {
        self.set_peer_state(peer, PeerState::Established);
        if self.peers[peer].dirty.is_empty() {
            self.peer_in_step(peer);
        }
        self.partner_is_back(peer);
        self.verify(peer);
    }

    /// Mutations lost on the way to the peer go again; they hold their range, so nothing newer is there yet.
    pub(super) fn resend_held(&mut self, peer: usize) {
        let mut held = self.ids(|request| request.held & bit(peer) != 0 && !request.lent);
        held.sort_by_key(|id| self.requests[id.0 as usize].as_ref().map(|request| request.number));
        for id in held {
            if let Some(request) = self.request(id) {
                request.held &= !bit(peer);
                let mutation = request.mutation;
                self.enqueue_mutation(peer, id, &mutation);
            }
        }
    }

    /// Changes that waited for a peer start, in order, while the policies let them.
    pub(super) fn resume_suspended(&mut self) {
        for id in core::mem::take(&mut self.suspended) {
            self.start(id);
        }
    }

    pub(super) fn peer_down(&mut self, peer: PeerIndex, connection: ConnectionId) {
        let at = usize::from(peer.0);
        self.peers[at].latest = self.peers[at].latest.max(Some(connection));
        if self.peers[at].connection == Some(connection) {
            self.lose_peer(at, PeerState::Connecting);
            self.reconnect(at);
        } else if self.peers[at].connection.is_none() {
            self.peers[at].lacks = false;
        }
    }

    fn reconnect(&mut self, peer: usize) {
        if self.stopping.is_asked() && self.ending == Ending::Life {
            self.set_peer_state(peer, PeerState::StandAlone);
        } else if self.peers[peer].link == LinkKind::Nbd {
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

    /// The operator parts with the peer, or wants it back.
    pub(super) fn order_part(&mut self, ticket: Ticket, peer: PeerIndex, parted: bool) {
        match (self.peers[usize::from(peer.0)].link, parted) {
            (LinkKind::Nbd, true) => self.operator_disconnect(peer),
            (LinkKind::Nbd, false) => self.operator_connect(peer),
            // The resource sees to the connection.
            (LinkKind::Stream, true) => self.part_with(usize::from(peer.0)),
            (LinkKind::Stream, false) => {
                self.peers[usize::from(peer.0)].parted = false;
                self.copy_marked(usize::from(peer.0));
            }
        }
        self.order_done(ticket, Ok(()));
    }

    /// It is there, and known to lack something: a verify has found that, and copies nothing by itself.
    fn copy_marked(&mut self, peer: usize) {
        let link = &self.peers[peer];
        let marked = link.state == PeerState::Established && !link.dirty.is_empty();
        if marked && self.is_primary() && !self.is_changing_role() {
            self.start_resync(peer);
        }
    }

    /// Nothing waits for the peer any more until it is back: what it lacks goes without it, as with `continue`. (Not what
    /// was on its way to the last leg that had the data: nobody else has them.)
    fn part_with(&mut self, peer: usize) {
        self.peers[peer].parted = true;
        if self.peers[peer].connection.is_some() {
            // Once that is gone.
            return;
        }
        if self.leg.awaited != Some(peer) {
            self.wait_no_more(bit(peer));
        }
        self.resume_suspended();
    }

    pub(super) fn operator_disconnect(&mut self, peer: PeerIndex) {
        let at = usize::from(peer.0);
        let connection = self.peers[at].connection;
        self.part_with(at);
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
        self.peers[at].parted = false;
        let plain = self.peers[at].link == LinkKind::Nbd;
        if plain && self.role == Role::Secondary {
            return;
        }
        if self.peers[at].state == PeerState::StandAlone && !self.stopping.is_asked() {
            self.set_peer_state(at, PeerState::Connecting);
            if plain {
                self.emit(Output::Connect(peer));
            }
        }
        self.copy_marked(at);
    }

    pub(super) fn invalidate(&mut self, peer: PeerIndex) {
        let at = usize::from(peer.0);
        let instance = self.rng.identifier() as u32;
        self.peers[at].fill(instance);
        self.persisting.superblock_wanted = true;
        self.need_generation(at);
        if self.role == Role::Primary && self.peers[at].state.replicates() {
            self.start_resync(at);
        }
    }

    /// The connection is gone: everything it had in flight, and everything the peer may lose, is dirty (I3, I9).
    pub(super) fn lose_peer(&mut self, peer: usize, to: PeerState) {
        let link = &mut self.peers[peer];
        (link.connection, link.gone_since) = (None, self.now);
        (link.begun, link.ended, link.passive) = (Begun::No, None, false);
        (link.misses_leg, link.stand_in_after) = (false, None);
        link.queue.clear();
        link.queue_bytes = 0;
        link.barrier = None;
        link.window = 0;
        link.order = RangeOrder::new();
        link.distrust_unflushed();
        link.lacks = false;
        let outdated = !link.dirty.is_empty();
        self.set_peer_state(peer, to);
        self.drop_copies(peer);
        self.lose_flushes(peer);
        self.refresh_modes();
        if outdated || self.peers[peer].told != Told::Known {
            self.need_generation(peer);
        }
        let lost = self.ids(|request| (request.queued | request.in_flight) & bit(peer) != 0);
        self.lose_answered(peer, &lost);
        for &id in &lost {
            self.lose(peer, id);
        }
        for id in lost {
            self.advance(id);
        }
        if self.peers[peer].parted {
            self.part_with(peer);
        }
        self.open_gates();
    }

    /// The last leg that had everything is lost before it confirmed what was answered (`async`). Whether it has it is not
    /// known, and sent again it could land on what is newer there: the image there is of one moment, and stays so.
    fn lose_answered(&mut self, peer: usize, lost: &[RequestId]) {
        let answered = lost
            .iter()
            .any(|&id| self.request(id).is_some_and(|request| request.replied));
        if answered && self.holds_for_data(peer) && self.keeps(Sabotage::LostAnswers) {
            self.fail_volume(Fatal::Unconfirmed);
        }
    }

    /// Another peer has come than the one that was awaited.
    pub(super) fn lose_awaited(&mut self, awaited: usize, peer: usize) {
        // It is lost as any other now: it was held for whatever its policy says.
        let policy = match self.peers[awaited].is_sync() {
            true => self.policy_for_lost(awaited),
            false => OnDisconnect::Continue,
        };
        for id in self.ids(|request| request.held & bit(awaited) != 0) {
            if let Some(request) = self.request(id) {
                request.held |= bit(peer);
                let policy = if request.replied {
                    OnDisconnect::Continue
                } else {
                    policy
                };
                request.lose(awaited, policy);
            }
        }
        for flush in self.flushes.iter_mut().filter(|flush| flush.held & bit(awaited) != 0) {
            flush.lose(awaited, policy);
        }
        self.need_generation(awaited);
    }

    /// Nobody had the data, and this peer has everything that was answered. What was not it may lack, also of what one who is
    /// lost has done: it goes there, again if need be, and only then is it answered.
    pub(super) fn hold_unanswered(&mut self, peer: usize) {
        let lacks = |request: &Request| (request.queued | request.in_flight) & bit(peer) == 0;
        for id in self.ids(|request| !request.replied && request.ordered && lacks(request)) {
            if let Some(request) = self.request(id) {
                request.held |= bit(peer);
            }
        }
        for flush in self.flushes.iter_mut().filter(|flush| flush.waiting & bit(peer) == 0) {
            flush.held |= bit(peer);
        }
    }

    /// Who was lost while nobody had the data needed no name then: nothing was answered without it. What is from here on does,
    /// as without anybody who is lost. Nor does it say any more that it has a name that it was told of (1300113692).
    pub(super) fn name_without_the_lost(&mut self) {
        for peer in 0..self.peers.len() {
            let link = &self.peers[peer];
            let needs = link.told != Told::Known || !link.dirty.is_empty();
            if needs && !link.state.is_connected() {
                self.need_generation(peer);
            }
        }
    }

    /// The peer is out of the configuration: nothing waits for it to come back.
    pub(super) fn end_waiting_for(&mut self, peer: usize) {
        self.wait_no_more(bit(peer));
        self.resume_suspended();
    }

    /// Nothing waits any more for these peers to come back (their mode is `async` again): what they lack goes without them.
    pub(super) fn wait_no_more(&mut self, peers: PeerMask) {
        let held = self.ids(|request| request.held & peers != 0);
        for flush in &mut self.flushes {
            flush.degraded |= flush.held & peers;
            flush.held &= !peers;
        }
        for &id in &held {
            if let Some(request) = self.request(id) {
                request.degraded |= request.held & peers;
                request.held &= !peers;
            }
        }
        for id in held {
            self.advance(id);
        }
        if peers != 0 {
            self.advance_flushes();
        }
    }

    /// Started mutations that satisfy `test`, by id.
    pub(super) fn ids(&self, test: impl Fn(&Request) -> bool) -> Vec<RequestId> {
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
