//! Orders of the resource: each a durable change, answered once, when it is durable (I10).

use alloc::vec::Vec;
use core::ops::Range;

use super::Mirror;
use super::peer::Peer;
use crate::activity_log::ActivityLog;
use crate::bitmap::Bitmap;
use crate::config::{PEERS_MAX, PeerConfig, PeerKind};
use crate::event::{ConnectionId, LinkKind, Order, OrderRefusal, Output, PeerIndex, Ticket, VolumeMessage};
use crate::identity::{Generation, HISTORY_MAX, Meeting, Role};
use crate::metadata::{PEER_NAME_MAX, PeerRecord, RestoredPeer, make_all_dirty};
use crate::range::{BLOCK_BYTES, ByteRange};
use crate::sabotage::Sabotage;
use crate::state::{LocalDisk, PeerState};

/// What follows once the superblock is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// An order is done.
    Done(Ticket),
    /// The peer's mirror is told.
    Say(PeerIndex, ConnectionId, VolumeMessage),
    /// The name that a promotion gave is durable here.
    Named,
    /// This leg is Inconsistent: what its source sends may be applied.
    Begun(PeerIndex, ConnectionId),
    /// An image that was attached is known to lack what it lacks: it may be fetched to.
    Taken(Ticket),
    /// A resize takes its next step.
    Resize,
}

impl Mirror {
    pub(super) fn order(&mut self, ticket: Ticket, order: Order) {
        if self.has_failed() || (self.stopping.is_asked() && order != Order::Demote) {
            return self.order_done(ticket, Err(OrderRefusal::Closed));
        }
        if let Some(peer) = peer_of(&order)
            && !self.knows(peer)
        {
            return self.order_done(ticket, Err(OrderRefusal::WrongState));
        }
        match order {
            Order::Agree => self.agree(ticket),
            Order::Promote {
                generation,
                doubtful,
                since,
            } => self.promote(ticket, generation, doubtful, since),
            Order::Demote => self.demote(ticket),
            Order::BeginTarget { source } => self.order_begin_target(ticket, source),
            Order::Merge { peer, blocks } => self.order_merge(ticket, peer, &blocks),
            Order::Fill { peer } => self.order_fill(ticket, peer),
            Order::Adopt { peer, current, history } => self.order_adopt(ticket, peer, current, history),
            Order::GiveUp { peer, given_up } => self.order_give_up(ticket, peer, given_up),
            Order::SetKind { peer, kind } => self.order_set_kind(ticket, peer, kind),
            Order::Met {
                peer,
                met,
                before,
                answers_lost,
            } => {
                self.superblock.answers_lost = answers_lost && self.keeps(Sabotage::LossDurable);
                self.order_met(ticket, peer, [met, before]);
            }
            Order::Detach => self.order_detach(ticket),
            Order::Attach { replaced } => self.order_attach(ticket, replaced),
            Order::Resize { size, assume_clean } => self.order_resize(ticket, size, assume_clean),
            Order::Verify { peer, repair, resume } => self.order_verify(ticket, peer, repair, resume),
            Order::VerifyStop { peer } => self.order_verify_stop(ticket, peer),
            Order::AddPeer(peer) => self.order_add_peer(ticket, peer),
            Order::Part { peer, parted } => self.order_part(ticket, peer, parted),
            Order::RemovePeer(peer) => self.order_remove_peer(ticket, peer),
        }
    }

    pub(super) fn order_done(&mut self, ticket: Ticket, outcome: Result<(), OrderRefusal>) {
        self.emit(Output::OrderDone { ticket, outcome });
    }

    /// The order is done once the superblock, as it is from now on, is durable.
    pub(super) fn order_when_durable(&mut self, ticket: Ticket) {
        self.when_durable(Then::Done(ticket));
    }

    /// Once the superblock, as it is from now on, is durable (I10).
    pub(super) fn when_durable(&mut self, then: Then) {
        self.persisting.superblock_wanted = true;
        if self.keeps(Sabotage::I10) {
            self.persisting.unsaved.push(then);
        } else {
            self.after_durable(then);
        }
    }

    /// The superblock is durable.
    pub(super) fn after_durable(&mut self, then: Then) {
        match then {
            Then::Done(ticket) => self.order_done(ticket, Ok(())),
            Then::Say(peer, connection, message) => self.say(peer, connection, message),
            Then::Named => self.named(),
            Then::Begun(peer, connection) => self.target_begun(peer, connection),
            Then::Taken(ticket) => self.image_taken(ticket),
            Then::Resize => self.resize_step(),
        }
    }

    /// Nothing will become durable any more.
    pub(super) fn fail_orders(&mut self, refusal: OrderRefusal) {
        for (_, ticket) in core::mem::take(&mut self.meetings) {
            self.order_done(ticket, Err(refusal));
        }
        for then in self.persisting.take_waiting() {
            if let Then::Done(ticket) | Then::Taken(ticket) = then {
                self.order_done(ticket, Err(refusal));
            }
        }
    }

    /// The peer is in the configuration.
    pub(super) fn knows(&self, peer: PeerIndex) -> bool {
        self.peers.get(usize::from(peer.0)).is_some_and(|link| !link.removed)
    }

    fn order_begin_target(&mut self, ticket: Ticket, source: PeerIndex) {
        self.begin_target(usize::from(source.0));
        self.order_when_durable(ticket);
    }

    /// This leg is about to be overwritten: part of it will be newer than the rest.
    pub(super) fn begin_target(&mut self, source: usize) {
        if self.superblock.disk != LocalDisk::Diskless && self.keeps(Sabotage::BeginTarget) {
            self.set_disk(LocalDisk::Inconsistent);
        }
        self.forget_primary();
        for (at, link) in self.peers.iter_mut().enumerate() {
            // What another one has copied so far is no start for this one.
            link.record.sync = if at == source { link.record.met[0].token } else { 0 };
        }
        if self.role == Role::Secondary {
            self.stop_pushing(source);
        }
        // Where this leg will differ from the others' once it has been overwritten, nobody here knows.
        for at in (0..self.peers.len()).filter(|&at| at != source) {
            if self.role == Role::Secondary && !self.peers[at].removed {
                self.doubt(at);
            }
        }
        self.persisting.superblock_wanted = true;
    }

    /// Every block of the peer's that is set there is dirty here too. Durable at the peer until it is in step, so that
    /// a crash here loses nothing: pages are written, but nobody waits for all of them.
    fn order_merge(&mut self, ticket: Ticket, peer: PeerIndex, blocks: &[Range<u64>]) {
        let size = self.config.size;
        let most = size.div_ceil(BLOCK_BYTES);
        for run in blocks {
            let (start, end) = (run.start.min(most), run.end.min(most));
            if start < end {
                let offset = start * BLOCK_BYTES;
                let range = ByteRange::new(offset, (end * BLOCK_BYTES).min(size) - offset);
                self.peers[usize::from(peer.0)].mark_dirty(range);
            }
        }
        self.note_sync(usize::from(peer.0));
        self.persisting.progress_wanted = true;
        self.order_when_durable(ticket);
    }

    /// A resync with the peer begins: until it has ended both sides know by this that they may go on with it.
    pub(super) fn note_sync(&mut self, peer: usize) {
        let record = &mut self.peers[peer].record;
        if record.sync != record.met[0].token {
            record.sync = record.met[0].token;
            self.persisting.superblock_wanted = true;
        }
    }

    fn order_fill(&mut self, ticket: Ticket, peer: PeerIndex) {
        let at = usize::from(peer.0);
        self.doubt(at);
        self.note_sync(at);
        self.need_generation(at);
        self.order_when_durable(ticket);
    }

    fn order_adopt(&mut self, ticket: Ticket, peer: PeerIndex, current: Generation, history: Vec<Generation>) {
        if self.role == Role::Primary || current == 0 {
            return self.order_done(ticket, Err(OrderRefusal::WrongState));
        }
        let at = usize::from(peer.0);
        self.follow(at, &[]);
        self.take_names(current, history);
        self.forget_other_lines();
        if self.superblock.disk == LocalDisk::Outdated {
            self.set_disk(LocalDisk::UpToDate);
        }
        if self.peers[at].dirty.is_empty() {
            self.peer_in_step(at);
        }
        self.order_when_durable(ticket);
    }

    /// The data here is the data that another node calls so.
    pub(super) fn take_names(&mut self, current: Generation, mut history: Vec<Generation>) {
        self.cover_data();
        history.truncate(HISTORY_MAX);
        self.superblock.generation = current;
        self.superblock.history = history;
        self.superblock.fresh = false;
        self.forget_primary();
        self.persisting.superblock_wanted = true;
    }

    /// This leg has changed over to another line of generations: what the others hold of the one it was on is nothing
    /// that the present data descend from.
    pub(super) fn forget_other_lines(&mut self) {
        let superblock = &self.superblock;
        for link in &mut self.peers {
            let held = link.record.generation;
            if held != superblock.generation
                && !superblock.history.contains(&held)
                && self.kept.keeps(Sabotage::OtherLine)
            {
                link.record.generation = 0;
            }
        }
    }

    /// The word is bound to the name of the data: it says nothing of what this node may hold later.
    fn order_give_up(&mut self, ticket: Ticket, peer: PeerIndex, given_up: bool) {
        if given_up && self.role == Role::Primary {
            return self.order_done(ticket, Err(OrderRefusal::WrongState));
        }
        let word = if given_up { self.superblock.generation } else { 0 };
        self.peers[usize::from(peer.0)].record.given_up = word;
        self.order_when_durable(ticket);
    }

    fn order_set_kind(&mut self, ticket: Ticket, peer: PeerIndex, kind: LinkKind) {
        let at = usize::from(peer.0);
        let link = &mut self.peers[at];
        if link.connection.is_some() && link.link != kind {
            return self.order_done(ticket, Err(OrderRefusal::WrongState));
        }
        link.record.kind = Some(kind);
        link.link = kind;
        link.config.kind = match kind {
            LinkKind::Nbd => PeerKind::Plain,
            LinkKind::Stream => PeerKind::Partner,
        };
        let idle = link.connection.is_none() && !link.parted;
        if kind == LinkKind::Nbd && idle {
            if self.role == Role::Primary {
                self.set_peer_state(at, PeerState::Connecting);
                self.emit(Output::Connect(peer));
            } else {
                // A Secondary has no plain peers; it connects when it is promoted.
                self.set_peer_state(at, PeerState::StandAlone);
            }
        }
        self.order_when_durable(ticket);
    }

    /// What this leg was given on earlier connections is durable before it counts as met: whoever kept track of it may
    /// have lost that. (A Primary keeps track itself.)
    fn order_met(&mut self, ticket: Ticket, peer: PeerIndex, met: [Meeting; 2]) {
        self.peers[usize::from(peer.0)].record.met = met;
        if self.role == Role::Primary || !self.keeps(Sabotage::MetDurable) {
            return self.order_when_durable(ticket);
        }
        self.order_after_flush(ticket);
    }

    /// The order is done once everything applied so far is durable, and then the superblock.
    pub(super) fn order_after_flush(&mut self, ticket: Ticket) {
        let flush = self.local.request();
        self.meetings.push((flush, ticket));
        self.issue_flushes();
        self.advance_meetings();
    }

    /// Go on with the orders whose flush has completed.
    pub(super) fn advance_meetings(&mut self) {
        let mut at = 0;
        while let Some(&(flush, ticket)) = self.meetings.get(at) {
            if self.local.reached(flush) {
                self.meetings.remove(at);
                self.order_when_durable(ticket);
            } else {
                at += 1;
            }
        }
    }

    fn order_add_peer(&mut self, ticket: Ticket, config: PeerConfig) {
        let free = self.free_slot();
        let known = self
            .peers
            .iter()
            .any(|link| !link.removed && link.config.name == config.name);
        if known || config.name.len() > PEER_NAME_MAX || self.promotion_is_under_way() {
            return self.order_done(ticket, Err(OrderRefusal::WrongState));
        }
        let (Some(slot), true) = (free, self.peers.len() < PEERS_MAX) else {
            return self.order_done(ticket, Err(OrderRefusal::NoRoom));
        };
        let blocks = self.config.size.div_ceil(BLOCK_BYTES);
        let mut dirty = Bitmap::new(blocks);
        dirty.fill();
        let mut record = PeerRecord::new(config.name.clone(), !self.superblock.fresh, self.superblock.generation);
        make_all_dirty(&mut record, self.rng.identifier() as u32);
        if config.kind == PeerKind::Plain {
            record.kind = Some(LinkKind::Nbd);
        }
        let restored = RestoredPeer {
            slot,
            sequences: alloc::vec![0; dirty.pages() as usize],
            dirty,
        };
        self.config.peers.push(config.clone());
        self.peers.push(Peer::new(config, record, restored, blocks));
        if self.log.is_none() {
            self.log = Some(ActivityLog::new(self.config.size, self.config.hot_extents));
        }
        self.refresh_modes();
        self.start_link(self.peers.len() - 1);
        self.order_when_durable(ticket);
    }

    /// A place in the superblock that no peer has.
    fn free_slot(&self) -> Option<u32> {
        let taken = |slot: u32| self.peers.iter().any(|link| !link.removed && link.slot == slot);
        (0..PEERS_MAX as u32).find(|&slot| !taken(slot))
    }

    /// The first step of a link: a plain server is connected to by a Primary, a partner by the resource.
    pub(super) fn start_link(&mut self, peer: usize) {
        match (self.peers[peer].link, self.role) {
            (LinkKind::Nbd, Role::Secondary) => {}
            (LinkKind::Nbd, Role::Primary) => {
                self.peers[peer].state = PeerState::Connecting;
                self.emit(Output::Connect(PeerIndex(peer as u8)));
            }
            (LinkKind::Stream, _) => self.peers[peer].state = PeerState::Connecting,
        }
    }

    fn order_remove_peer(&mut self, ticket: Ticket, peer: PeerIndex) {
        let at = usize::from(peer.0);
        if self.peers[at].connection.is_some() || self.promotion_is_under_way() {
            return self.order_done(ticket, Err(OrderRefusal::WrongState));
        }
        if self.peers[at].link == LinkKind::Nbd {
            self.leave_plain(at);
        }
        // As if it had been lost: should it be added again, its generation must not look like the present one.
        self.need_generation(at);
        let link = &mut self.peers[at];
        link.removed = true;
        link.dirty.reset();
        if link.state != PeerState::StandAlone {
            self.set_peer_state(at, PeerState::StandAlone);
        }
        let slot = self.peers[at].slot as usize;
        self.superblock.peers[slot] = None;
        self.end_waiting_for(at);
        self.order_when_durable(ticket);
    }

    fn promotion_is_under_way(&self) -> bool {
        self.promotion != super::roles::Promotion::No
    }
}

/// The peer that an order is about and that has to be there.
fn peer_of(order: &Order) -> Option<PeerIndex> {
    match *order {
        Order::BeginTarget { source: peer }
        | Order::Merge { peer, .. }
        | Order::Fill { peer }
        | Order::Adopt { peer, .. }
        | Order::GiveUp { peer, .. }
        | Order::SetKind { peer, .. }
        | Order::Met { peer, .. }
        | Order::Verify { peer, .. }
        | Order::VerifyStop { peer }
        | Order::Part { peer, .. }
        | Order::RemovePeer(peer) => Some(peer),
        Order::Agree
        | Order::Promote { .. }
        | Order::Demote
        | Order::Detach
        | Order::Attach { .. }
        | Order::Resize { .. }
        | Order::AddPeer(_) => None,
    }
}
