//! The resource: roles, handshakes and everything else that concerns all volumes of a resource together.

mod advice;
mod bits;
mod commands;
pub mod config;
mod connect;
mod consent;
mod demote;
pub mod event;
mod handshake;
mod hang_up;
mod join;
mod loss;
mod meet;
mod members;
mod orders;
mod park;
mod peer;
mod permit;
mod promote;
mod resize;
mod roles;
mod shrink;
mod sizes;
pub mod status;
#[cfg(test)]
mod tests;
mod why;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::event::PeerIndex;
use crate::identity::Role;
use crate::rng::Rng;
use crate::sabotage::{Kept, Sabotage};
use crate::state::LocalDisk;

pub use config::{AfterRestart, ResourceConfig, ResourcePeer};
pub use event::{Answer, Command, HostAccess, Input, Loss, Output, Volumes};
pub use status::{LinkState, PeerStatus, ResourceStatus};
pub use why::{HandshakeRecord, PeerWhy, VolumeRecord, Why};

use commands::Waiting;
use event::Event;
use orders::Orders;
use peer::{Link, Peer};
use resize::{Growth, Guest};
use roles::{Change, Past};
use sizes::Led;

/// What concerns all volumes of a resource together: who is Primary, whose data counts, who copies from whom.
///
/// It is driven like a [`Mirror`](crate::Mirror): [`handle`](Self::handle) tells it what happened,
/// [`poll_output`](Self::poll_output) says what to do, in that order, and [`next_timeout`](Self::next_timeout) when to
/// come back. What it wants to know of its volumes it asks by [`Volumes`] while it handles an input, so everything the
/// mirrors have put out before has to be done before an input is given.
///
/// ```text
///   role        Secondary --promotion--> Primary --demotion--> Secondary       (promote.rs, demote.rs)
///   connection  Down -> Comparing -> Joined (volume by volume: preparing -> up or parked) -> Down
///               (connect.rs)  (handshake.rs)  (join.rs)
/// ```
///
/// A connection has one handshake. When what it concluded no longer holds (a role or an image has changed, and the
/// volumes were not in step), the connection is closed and the nodes meet again on a new one.
#[derive(Clone, Debug)]
pub struct Resource {
    config: ResourceConfig,
    kept: Kept,
    now: Duration,
    outputs: VecDeque<Output>,
    rng: Rng,
    role: Role,
    change: Option<Change>,
    past: Past,
    volumes: Vec<Volume>,
    peers: Vec<Peer>,
    orders: Orders,
    waiting: Vec<Waiting>,
    growth: Option<Growth>,
    guests: Vec<Guest>,
    led: Vec<Led>,
    /// What was said of hosts last.
    hosts: Option<HostAccess>,
    stopped: bool,
}

/// One volume.
#[derive(Clone, Debug)]
struct Volume {
    name: String,
    disk: LocalDisk,
    removed: bool,
}

impl Resource {
    /// A resource whose mirrors have been made: with role Primary if every peer is known to be a plain server (or there
    /// is none), else Secondary. Nothing is done before `Input::Start`.
    pub fn new(config: ResourceConfig) -> Self {
        let volumes = config.volumes.iter().map(|name| Volume::new(name.clone())).collect();
        let peers = config
            .peers
            .iter()
            .map(|peer| Peer::new(peer.name.clone(), peer.kind))
            .collect();
        Self {
            kept: Kept::default(),
            now: Duration::ZERO,
            outputs: VecDeque::new(),
            rng: Rng::new(config.entropy),
            role: Role::Secondary,
            change: None,
            past: Past::new(&config),
            volumes,
            peers,
            orders: Orders::default(),
            waiting: Vec::new(),
            growth: None,
            guests: Vec::new(),
            led: Vec::new(),
            hosts: None,
            stopped: false,
            config,
        }
    }

    /// Something happened.
    pub fn handle(&mut self, now: Duration, input: Input, world: &dyn Volumes) {
        debug_assert!(now >= self.now, "time never goes back");
        self.now = now;
        if self.stopped {
            return;
        }
        match input {
            Input::Start => self.start(world),
            Input::Connected { peer, connection, .. } => self.connected(place(peer), connection),
            Input::IsPlain(peer) => self.is_plain(place(peer)),
            Input::NoSpace(peer) => self.no_space(place(peer)),
            Input::Missed { peer, loss } => self.missed(place(peer), loss),
            Input::Disconnected {
                peer,
                connection,
                closed_by_peer,
                reason,
            } => self.disconnected(place(peer), connection, closed_by_peer, &reason),
            Input::Control {
                peer,
                connection,
                control,
            } => self.control(place(peer), connection, control, world),
            Input::OrderDone {
                volume,
                ticket,
                outcome,
            } => self.order_done(volume, ticket, outcome),
            Input::Disk { volume, disk } => self.disk_changed(volume, disk),
            Input::HostsDrained => self.hosts_drained(),
            Input::Grown { volume, outcome } => self.grown(volume, outcome),
            Input::Command { id, command } => self.command(id, command, world),
            Input::Stop => self.stop(),
            Input::Timeout => {}
        }
        self.settle(world);
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When `Input::Timeout` is wanted.
    pub fn next_timeout(&self) -> Option<Duration> {
        if self.stopped {
            return None;
        }
        let links = (0..self.peers.len()).filter_map(|peer| self.link_timeout(peer));
        let others = [
            self.change_timeout(),
            self.growth_timeout(),
            self.commands_timeout(),
            self.questions_timeout(),
        ];
        links.chain(others.into_iter().flatten()).min()
    }

    /// The role of this node.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Break one rule on purpose: the simulator's proof that it would notice.
    #[cfg(feature = "sabotage")]
    pub fn set_sabotage(&mut self, broken: Option<Sabotage>) {
        self.kept.broken = broken;
    }

    fn keeps(&self, rule: Sabotage) -> bool {
        self.kept.keeps(rule)
    }

    fn emit(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Everything that may have become possible, or overdue.
    fn settle(&mut self, world: &dyn Volumes) {
        if self.stopped {
            return;
        }
        self.step_growth();
        self.step_change(world);
        for peer in 0..self.peers.len() {
            self.step_link(peer, world);
            self.answer_question(peer);
        }
        // A handshake that has just ended may be what a promotion waited for.
        self.step_change(world);
        self.admit_hosts();
        self.step_commands();
    }

    /// Volumes that are there.
    fn live_volumes(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.volumes.len()).filter(|at| !self.volumes[*at].removed)
    }

    /// Peers that are, or may be, other blockmirrors.
    fn partners(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.peers.len()).filter(|at| self.peers[*at].may_be_partner())
    }

    fn connected_partners(&self) -> impl Iterator<Item = usize> + '_ {
        self.partners().filter(|at| !matches!(self.peers[*at].link, Link::Down))
    }
}

impl Volume {
    fn new(name: String) -> Self {
        Self {
            name,
            disk: LocalDisk::default(),
            removed: false,
        }
    }
}

fn place(peer: PeerIndex) -> usize {
    usize::from(peer.0)
}

fn index(peer: usize) -> PeerIndex {
    PeerIndex(peer as u8)
}
