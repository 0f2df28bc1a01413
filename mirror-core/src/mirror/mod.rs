//! The mirror: every replication decision of one volume.

mod background;
mod copies;
mod detach;
mod fetch;
mod flushes;
mod generation;
mod identity;
mod links;
mod local;
mod messages;
mod orders;
mod peer;
mod persist;
mod queue;
mod rate;
mod request;
mod resize;
mod resync;
mod roles;
pub mod status;
mod stop;
#[cfg(test)]
mod tests;
mod verify;
mod withdrawn;
mod writes;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use crate::activity_log::{ActivityLog, LEGS_MAX, LegStamps};
use crate::config::{MirrorConfig, OnDisconnect, PEERS_MAX, REQUESTS_MAX};
use crate::event::{Command, Event, HostOp, Input, Output, PeerIndex, Refusal, RequestId, Ticket};
use crate::flush_line::FlushLine;
use crate::identity::Role;
use crate::metadata::{Geometry, Restored, Superblock};
use crate::order::RangeOrder;
use crate::range::BLOCK_BYTES;
use crate::rng::Rng;
use crate::sabotage::{Kept, Sabotage};
use crate::state::{Fatal, LocalDisk, PeerState};

use local::Leg;
use peer::{Gate, Peer, Volume};
use persist::Persisting;
use rate::latency::Latency;
use request::{FlushRequest, PeerMask, Request};
use resize::Resizing;
use roles::Promotion;
use stop::{Ending, Stopping};

/// Ids of resync requests in the range order have this bit set; host request ids do not.
const COPY_ID: u32 = 1 << 31;

const _: () = assert!(REQUESTS_MAX <= COPY_ID as usize);

/// The replication state machine of one volume: ranges and decisions, no payloads, no I/O, no clock.
///
/// There are four kinds of calls, in the manner of quinn-proto's `Connection`:
///
/// - [`handle`](Self::handle) tells it what happened. Time is a `Duration` since any fixed moment and never goes back.
/// - [`poll_output`](Self::poll_output) says what to do; after one or more inputs call it until it returns `None`, and
///   do what it says in that order.
/// - [`next_timeout`](Self::next_timeout) is when `Input::Timeout` is wanted, unless something else comes first.
/// - queries: [`status`](Self::status), [`is_dirty`](Self::is_dirty), [`is_hot`](Self::is_hot).
///
/// The shell keeps the payload of a request from `Input::Host` to `Output::Release`. Reads do not come here: the local
/// leg answers them. Every operation put out is answered by exactly one input, except those of a connection that went
/// down. The invariants I1 to I9 are listed in the crate's documentation and cited where they are kept.
#[derive(Clone, Debug)]
pub struct Mirror {
    config: MirrorConfig,
    kept: Kept,
    now: Duration,
    role: Role,
    promotion: Promotion,
    /// What ends, when something does.
    ending: Ending,
    /// Replies wait for a generation that no peer stays behind for.
    leg_gate: Gate,
    /// Times this leg is about to be overwritten and that is not durable yet: what comes in the stream waits.
    beginning: u32,
    outputs: VecDeque<Output>,
    /// Mutations by id.
    requests: Vec<Option<Request>>,
    /// Mutations in the table.
    mutations: usize,
    /// Mutations that the legs were given so far.
    started: u64,
    flushes: Vec<FlushRequest>,
    /// Meetings that wait for a local flush.
    meetings: Vec<(u64, Ticket)>,
    order: RangeOrder,
    /// Ids whose range has become active.
    ready: Vec<u32>,
    /// Mutations that wait for a peer with `on_disconnect = "suspend"`, in order.
    suspended: VecDeque<RequestId>,
    /// None: no peers, nothing to keep track of.
    log: Option<ActivityLog>,
    local: FlushLine,
    peers: Vec<Peer>,
    sync_mask: PeerMask,
    volume: Volume,
    superblock: Superblock,
    persisting: Persisting,
    rng: Rng,
    /// Names of resync requests.
    copies: u64,
    leg: Leg,
    /// Of the application's writes.
    latency: Latency,
    resizing: Option<Resizing>,
    fatal: Option<Fatal>,
    stopping: Stopping,
}

impl Mirror {
    /// A mirror that starts from `restored`, whose writes are durable. Every peer starts Connecting.
    ///
    /// The local leg has to be durable too (one fdatasync at start): after a kill it may hold writes in volatile
    /// caches only, and extents that were hot for them are not hot any more from here on.
    pub fn new(config: MirrorConfig, restored: Restored) -> Self {
        assert_eq!(
            config.peers.len(),
            restored.peers.len(),
            "metadata was matched with this configuration"
        );
        assert_eq!(config.size, restored.superblock.image.size, "metadata is of this image");
        let blocks = config.size.div_ceil(BLOCK_BYTES);
        let mut peers = Vec::with_capacity(PEERS_MAX);
        for (peer, restored_peer) in config.peers.iter().zip(restored.peers) {
            let record = restored.superblock.peers[restored_peer.slot as usize].clone();
            let Some(record) = record else {
                unreachable!("a matched peer has a slot")
            };
            peers.push(Peer::new(peer.clone(), record, restored_peer, blocks));
        }
        let log = (!peers.is_empty()).then(|| ActivityLog::new(config.size, config.hot_extents));
        let mut persisting = Persisting::default();
        persisting.log_wanted = !restored.hot.is_empty();
        let mut mirror = Self {
            kept: Kept::default(),
            now: Duration::ZERO,
            outputs: VecDeque::new(),
            role: config.role,
            promotion: Promotion::No,
            ending: Ending::Life,
            leg_gate: Gate::Open,
            beginning: 0,
            requests: Vec::new(),
            mutations: 0,
            started: 0,
            flushes: Vec::new(),
            meetings: Vec::new(),
            order: RangeOrder::new(),
            ready: Vec::new(),
            suspended: VecDeque::new(),
            log,
            local: FlushLine::default(),
            sync_mask: 0,
            peers,
            volume: Volume {
                geometry: Geometry::new(config.size),
                log_sequence: restored.log_sequence,
            },
            superblock: restored.superblock,
            persisting,
            rng: Rng::new(config.entropy),
            copies: 0,
            leg: Leg::default(),
            latency: Latency::new(),
            resizing: None,
            fatal: None,
            stopping: Stopping::No,
            config,
        };
        mirror.local.set_absent(mirror.superblock.disk == LocalDisk::Diskless);
        mirror.refresh_modes();
        for peer in 0..mirror.peers.len() {
            mirror.start_link(peer);
        }
        mirror.persist();
        mirror
    }

    /// Something happened.
    pub fn handle(&mut self, now: Duration, input: Input) {
        debug_assert!(now >= self.now, "time never goes back");
        self.now = now;
        self.happened(input);
        loop {
            self.run_ready();
            self.promotion_step();
            self.advance_meetings();
            self.leg_watch();
            self.leaving_step();
            self.attaching_step();
            self.stand_in_step();
            self.return_lent();
            self.persist();
            self.stop_step();
            // What was started or refused there may have readied more.
            if self.ready.is_empty() {
                break;
            }
        }
    }

    fn happened(&mut self, input: Input) {
        match input {
            Input::Host {
                id,
                op: HostOp::Mutate(mutation),
            } => self.host_mutation(id, mutation),
            Input::Host { id, op: HostOp::Flush } => self.host_flush(id),
            Input::Abandon(id) => self.abandon(id),
            Input::LocalDone { id, outcome } => self.local_done(id, outcome),
            Input::LocalFlushDone(outcome) => self.local_flush_done(outcome),
            Input::PeerDone {
                peer,
                connection,
                id,
                outcome,
            } => self.peer_done(peer, connection, id, outcome),
            Input::PeerFlushDone {
                peer,
                connection,
                outcome,
            } => self.peer_flush_done(peer, connection, outcome),
            Input::CopyDone {
                peer,
                connection,
                copy,
                outcome,
            } => self.copy_done(peer, connection, copy, outcome),
            Input::Persisted { id, outcome } => self.persisted(id, outcome),
            Input::PeerUp {
                peer,
                connection,
                link,
                plan,
            } => self.peer_up(peer, connection, link, plan),
            Input::PeerDown { peer, connection } => self.peer_down(peer, connection),
            Input::Command(Command::Connect(peer)) => self.operator_connect(peer),
            Input::Command(Command::Disconnect(peer)) => self.operator_disconnect(peer),
            Input::Command(Command::Invalidate(peer)) => self.invalidate(peer),
            Input::Command(Command::FallBehind(peer)) => self.fall_behind_too(peer),
            Input::Command(Command::Stop) => self.stop(),
            Input::Timeout => self.timeout(),
            Input::Order { ticket, order } => self.order(ticket, order),
            Input::FromPeer {
                peer,
                connection,
                message,
            } => self.hear(peer, connection, message),
            Input::FetchDone {
                peer,
                connection,
                copy,
                outcome,
            } => self.fetch_done(peer, connection, copy, outcome),
            Input::CompareDone {
                peer,
                connection,
                copy,
                outcome,
            } => self.compare_done(peer, connection, copy, outcome),
            Input::LocalReadFailed { range, failure } => self.local_read_failed(range, failure),
        }
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When `Input::Timeout` is wanted.
    pub fn next_timeout(&self) -> Option<Duration> {
        let peers = self.peers.iter().flat_map(Peer::timers);
        peers.chain(self.leg_timeout_at()).min()
    }

    fn timeout(&mut self) {
        self.resync_timeout();
        self.verify_timeout();
        self.leg_timeout();
    }

    /// Is the block dirty for the peer? A block that the peer answered but has not flushed is not dirty yet.
    pub fn is_dirty(&self, peer: PeerIndex, block: u64) -> bool {
        self.peers[usize::from(peer.0)].dirty.contains(block)
    }

    /// Is the extent in the activity log, or about to be?
    pub fn is_hot(&self, extent: u64) -> bool {
        self.log.as_ref().is_some_and(|log| log.contains(extent))
    }

    /// Break one invariant on purpose: the simulator's proof that it would notice.
    #[cfg(feature = "sabotage")]
    pub fn set_sabotage(&mut self, broken: Option<Sabotage>) {
        self.kept.broken = broken;
    }

    fn keeps(&self, invariant: Sabotage) -> bool {
        self.kept.keeps(invariant)
    }

    fn emit(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn set_peer_state(&mut self, peer: usize, to: PeerState) {
        if self.peers[peer].state == to {
            return;
        }
        self.peers[peer].state.transition(to);
        self.event(Event::PeerState {
            peer: PeerIndex(peer as u8),
            state: to,
        });
    }

    fn request(&mut self, id: RequestId) -> Option<&mut Request> {
        self.requests.get_mut(id.0 as usize)?.as_mut()
    }

    /// Answer a request that no table holds yet, or any more.
    fn refuse(&mut self, id: RequestId, refusal: Refusal) {
        self.emit(Output::Reply {
            id,
            outcome: Err(refusal),
        });
        self.emit(Output::Release(id));
    }

    /// The number of the latest flush of every leg: what a mutation that ends now is stamped with.
    fn stamps(&self) -> LegStamps {
        let mut stamps = [0; LEGS_MAX];
        stamps[0] = self.local.stamp();
        for (at, peer) in self.peers.iter().enumerate() {
            stamps[at + 1] = peer.flush.stamp();
        }
        stamps
    }

    /// Why a change can not start now.
    fn admission(&self) -> Admission {
        if self.role == Role::Secondary {
            return if self.beginning > 0 {
                Admission::Suspended
            } else {
                self.leg_admission()
            };
        }
        match self.leg_admission() {
            Admission::Open => {}
            closed => return closed,
        }
        let mut suspended = false;
        for (at, peer) in self.peers.iter().enumerate() {
            if peer.state.is_connected() || peer.removed {
                continue;
            }
            match peer.policy() {
                OnDisconnect::Continue => {}
                OnDisconnect::Suspend => suspended = true,
                OnDisconnect::Fail => return Admission::Refused(Refusal::PeerGone(PeerIndex(at as u8))),
            }
        }
        if suspended {
            Admission::Suspended
        } else {
            Admission::Open
        }
    }
}

/// May a change start?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    Open,
    Suspended,
    Refused(Refusal),
}
