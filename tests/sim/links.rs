//! Links to the peers: connections come up, break, are half-open for a while, and leave requests behind that land late.

use std::collections::BTreeSet;

use mirror_core::event::{ConnectionId, Failure, Input, LinkKind, PeerIndex, SyncPlan};

use crate::checker::Moment;
use crate::disk::{Disk, OperationId, Stamp};
use crate::legs::Leg;
use crate::rng::Rng;
use crate::scenario::PeerPlan;
use crate::world::{Check, Event, World};

/// Garbage on a peer that was never in step: stamps that no write has.
const GARBAGE: Stamp = 3_000_000_000;

/// The connection to a peer, seen from the primary.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// The present connection, until the primary knows that it is gone.
    pub connection: Option<u32>,
    /// Broken, though the primary does not know: answers do not arrive.
    pub blocked: bool,
    /// While blocked, requests still arrive at the peer.
    passes: bool,
    /// No connection succeeds before this time.
    broken_until: u64,
    /// The mirror wants a connection.
    wanted: bool,
    /// The latest attempt; older ones are stale.
    attempt: u32,
    /// Connections so far.
    serial: u32,
}

/// One peer: its disk, whether it is there, and the link to it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// From the scenario.
    pub plan: PeerPlan,
    /// Its leg.
    pub disk: Disk,
    /// It is there.
    pub up: bool,
    /// How to it.
    pub link: Link,
    /// So many times slower than usual.
    pub slow: u64,
    /// Its next requests fail with these.
    pub failing: Vec<Failure>,
    /// Writes it has answered.
    pub answered: BTreeSet<Stamp>,
    /// Of these, the ones from before a power loss: they may be gone if nothing flushed them.
    pub forgotten: BTreeSet<Stamp>,
    /// `async`: writes that are durable here, and when that was answered.
    pub flushed: Vec<(Stamp, Moment)>,
    /// `async`: when the latest write that was sent to it had been submitted.
    pub latest_sent: Option<Moment>,
    /// The generation in the file when the file last said that it is in step.
    pub generation: Option<u64>,
    /// Blocks that were dirty when its resync began: the file may say so until it is written after the end.
    pub recorded: Option<Vec<bool>>,
    /// The step of the world at which it became Established.
    pub in_step_since: Option<u64>,
    /// Invalidated, or a local write failed, since it was last in step: what was being copied then is copied again.
    pub invalidated: bool,
    /// Bytes copied since its resync began, and how many there were to copy.
    pub resync: Option<(u64, u64)>,
}

impl Peer {
    /// Equal content, or garbage.
    pub fn new(rng: &mut Rng, plan: &PeerPlan, content: &[Stamp]) -> Self {
        let garbage: Vec<Stamp> = (0..content.len()).map(|_| GARBAGE + rng.below(2) as Stamp).collect();
        Self {
            plan: plan.clone(),
            disk: Disk::new(if plan.equal { content } else { &garbage }),
            up: true,
            link: Link::default(),
            slow: 1,
            failing: Vec::new(),
            answered: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            flushed: Vec::new(),
            latest_sent: None,
            generation: None,
            recorded: None,
            in_step_since: None,
            invalidated: false,
            resync: None,
        }
    }

    /// Out of the configuration: when it is back, nothing is known of it.
    pub fn forget(&mut self) {
        self.plan.equal = false;
        (self.recorded, self.generation, self.latest_sent, self.resync) = (None, None, None, None);
        self.flushed.clear();
    }

    /// A request sent now arrives.
    pub fn passes_requests(&self) -> bool {
        self.up && (!self.link.blocked || self.link.passes)
    }
}

impl World {
    /// The mirror wants a connection.
    pub fn connect(&mut self, peer: usize) {
        self.peers[peer].link.wanted = true;
        self.plan_attempt(peer, 200, 4_000);
    }

    /// The mirror does not want one any more.
    pub fn stop_connecting(&mut self, peer: usize) {
        self.peers[peer].link.wanted = false;
    }

    /// One connection attempt.
    pub fn attempt(&mut self, peer: usize, attempt: u32) -> Check {
        let (now, fence) = (self.now, self.options.fence);
        let link = &self.peers[peer].link;
        if !link.wanted || link.attempt != attempt || self.primary.mirror.is_none() {
            return Ok(());
        }
        let drained = !self
            .operations
            .values()
            .any(|operation| operation.is_of_peer(peer) && operation.orphan);
        if !self.peers[peer].up || now < link.broken_until || (fence && !drained) {
            self.plan_attempt(peer, 1_000, 8_000);
            return Ok(());
        }
        // Whatever the old connections left in the peer's cache is covered by a flush on any connection.
        self.peers[peer].disk.writer_died();
        let link = &mut self.peers[peer].link;
        link.serial += 1;
        (link.wanted, link.blocked, link.connection) = (false, false, Some(link.serial));
        let connection = ConnectionId(link.serial);
        self.feed(Input::PeerUp {
            peer: PeerIndex(peer as u8),
            connection,
            link: LinkKind::Nbd,
            plan: SyncPlan::Source,
        })
    }

    /// The link breaks; this side notices later.
    pub fn cut(&mut self, peer: usize, notice_us: u64, broken_us: u64) {
        let passes = self.rng.chance(50);
        let until = self.now + broken_us;
        let link = &mut self.peers[peer].link;
        link.broken_until = link.broken_until.max(until);
        if let Some(connection) = link.connection {
            (link.blocked, link.passes) = (true, passes);
            self.tally.cuts += 1;
            self.after(notice_us, Event::Notice(peer, connection));
        }
    }

    /// The primary learns that a connection is gone.
    pub fn notice(&mut self, peer: usize, connection: u32) -> Check {
        if self.peers[peer].link.connection != Some(connection) {
            return Ok(());
        }
        self.close(peer);
        self.feed(Input::PeerDown {
            peer: PeerIndex(peer as u8),
            connection: ConnectionId(connection),
        })
    }

    /// The primary's end of the connection is closed: requests on their way are lost, or land late.
    pub fn close(&mut self, peer: usize) {
        let link = &mut self.peers[peer].link;
        (link.connection, link.blocked) = (None, false);
        let lost_percent = self.rng.pick(&[0, 40, 100]);
        let open: Vec<u64> = self
            .operations
            .iter()
            .filter(|(_, operation)| operation.is_of_peer(peer) && !operation.orphan)
            .map(|(&id, _)| id)
            .collect();
        for id in open {
            self.keep_stale(id);
            let gone = self.operations.get(&id).is_none_or(|operation| operation.applied);
            let unread = self.operations.get(&id).is_some_and(|operation| operation.is_unread());
            if gone || unread || self.rng.chance(lost_percent) {
                self.operations.remove(&id);
            } else if let Some(operation) = self.operations.get_mut(&id) {
                operation.orphan = true;
                if self.rng.chance(30) {
                    let late = self.rng.between(1, 30_000);
                    operation.not_before = self.now + late;
                    self.after(late, Event::Apply(id));
                }
            }
        }
    }

    /// An answer that was already read when its connection was given up may still reach the mirror.
    fn keep_stale(&mut self, id: OperationId) {
        if self.rng.chance(15)
            && let Some(operation) = self.operations.get(&id)
        {
            let input = self.report_input(operation.clone());
            self.primary.stale.push_back(input);
            let delay = self.rng.below(300);
            self.after(delay, Event::Stale(self.primary.life));
        }
    }

    /// A peer goes down.
    pub fn peer_down(&mut self, peer: usize, power: bool, down_us: u64) -> Check {
        if !self.peers[peer].up {
            return Ok(());
        }
        self.interrupt(|leg| matches!(leg, Leg::Peer(at, _) if at == peer))?;
        self.operations
            .retain(|_, operation| !(operation.is_of_peer(peer) && operation.orphan));
        if power {
            self.tally.power_losses += 1;
            let Self { peers, rng, .. } = self;
            peers[peer].disk.power_loss(rng);
            let answered = std::mem::take(&mut peers[peer].answered);
            peers[peer].forgotten.extend(answered);
        }
        self.peers[peer].up = false;
        let notice_us = self.rng.pick(&[0, 400, 8_000]);
        self.cut(peer, notice_us, 0);
        self.peers[peer].link.passes = false;
        self.after(down_us, Event::PeerStarts(peer));
        Ok(())
    }

    /// A peer is back.
    pub fn peer_starts(&mut self, peer: usize) -> Check {
        self.peers[peer].up = true;
        Ok(())
    }

    fn plan_attempt(&mut self, peer: usize, least_us: u64, most_us: u64) {
        let delay = self.rng.between(least_us, most_us);
        let link = &mut self.peers[peer].link;
        link.attempt += 1;
        let attempt = link.attempt;
        self.after(delay, Event::Attempt(peer, attempt));
    }
}
