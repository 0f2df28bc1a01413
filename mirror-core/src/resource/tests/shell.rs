//! What the nodes' shells do in a [`World`].

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::volume::Volume;
use super::world::{Frame, Node, World, node_of, peer_of};
use crate::event::{ConnectionId, Order, OrderRefusal, PeerIndex, SyncPlan};
use crate::identity::VolumeIdentity;
use crate::resource::event::{HostAccess, Input, Loss, Output, Volumes};
use crate::resource::{Resource, ResourceConfig, Why};
use crate::state::LocalDisk;
use crate::stream::Control;

/// Connections that may be made anew between two nodes in one go: more would be a loop.
const ATTEMPTS_MAX: usize = 8;

struct Answers<'a>(&'a [Volume]);

impl Volumes for Answers<'_> {
    fn identity(&self, volume: usize, peer: PeerIndex) -> VolumeIdentity {
        self.0[volume].identity(usize::from(peer.0))
    }

    fn dirty_runs(&self, volume: usize, peer: PeerIndex, from: u64, max: usize) -> Vec<Range<u64>> {
        self.0[volume].dirty_runs(usize::from(peer.0), from, max)
    }

    fn gives_up(&self, volume: usize, peer: PeerIndex) -> bool {
        let volume = &self.0[volume];
        volume.given_up.get(usize::from(peer.0)) == Some(&volume.current)
    }

    fn keeps_data_from(&self, volume: usize, peer: PeerIndex) -> bool {
        let volume = &self.0[volume];
        let word = volume.given_up.get(usize::from(peer.0)).copied().unwrap_or(0);
        word == 0 && !volume.fresh && volume.disk == LocalDisk::UpToDate
    }
}

impl Node {
    pub fn why(&self) -> Why {
        self.resource.why(&Answers(&self.volumes))
    }
}

impl World {
    pub fn step_nodes(&mut self) -> bool {
        let mut moved = false;
        for at in 0..self.nodes.len() {
            while let Some(input) = self.nodes[at].inbox.pop_front() {
                moved = true;
                if !self.nodes[at].alive {
                    continue;
                }
                let node = &mut self.nodes[at];
                node.resource.handle(self.now, input, &Answers(&node.volumes));
                while let Some(output) = self.nodes[at].resource.poll_output() {
                    if let Some(log) = &self.nodes[at].log {
                        log.borrow_mut().push(output.clone());
                    }
                    self.carry_out(at, output);
                }
            }
        }
        moved
    }

    fn carry_out(&mut self, at: usize, output: Output) {
        match output {
            Output::Dial(peer) => self.nodes[at].dials[usize::from(peer.0)] = true,
            Output::CancelDial(peer) => self.nodes[at].dials[usize::from(peer.0)] = false,
            Output::Send {
                peer,
                connection,
                control,
            } => self.put(at, usize::from(peer.0), connection, Frame::Control(control)),
            Output::Close { peer, connection, .. } => {
                let peer = usize::from(peer.0);
                self.put(at, peer, connection, Frame::Closed);
                self.nodes[at].down(peer, connection);
            }
            Output::Order { volume, .. } if self.nodes[at].volumes[volume].mute => {}
            Output::Order { volume, ticket, order } => {
                let outcome = self.order(at, volume, &order);
                let input = Input::OrderDone {
                    volume,
                    ticket,
                    outcome,
                };
                self.nodes[at].inbox.push_back(input);
            }
            Output::PeerUp {
                volume,
                peer,
                connection,
                plan,
            } => {
                let peer = usize::from(peer.0);
                assert_eq!(self.nodes[at].connections[peer], Some(connection));
                let volume = &mut self.nodes[at].volumes[volume];
                assert_eq!(volume.up[peer], None, "up twice");
                volume.up[peer] = Some((connection, plan));
                if plan == SyncPlan::InStep {
                    volume.records[peer] = 0;
                }
            }
            Output::OpenBranch { volume, generation } => {
                let volume = &mut self.nodes[at].volumes[volume];
                // Of a copy that was interrupted the branch is there already.
                if !volume.branches.contains(&generation) {
                    volume.branches.push(generation);
                }
            }
            Output::Hosts(access) => {
                let node = &mut self.nodes[at];
                node.hosts = access;
                if access == HostAccess::Shut && !node.stuck {
                    node.inbox.push_back(Input::HostsDrained);
                }
                if access == HostAccess::ReadWrite {
                    let early = node.volumes.iter().any(|volume| !volume.primary);
                    assert!(!early, "hosts before the mirrors");
                }
            }
            Output::Grow { volume, size } => {
                let outcome = self.nodes[at].grow.clone().map(|()| size);
                if !self.nodes[at].silent {
                    self.nodes[at].inbox.push_back(Input::Grown { volume, outcome });
                }
            }
            Output::Answer { id, answer } => {
                let again = self.nodes[at].answers.insert(id.0, answer);
                assert_eq!(again, None, "answered twice");
            }
            Output::Event(event) => self.nodes[at].events.push(event),
        }
    }

    fn order(&mut self, at: usize, volume: usize, order: &Order) -> Result<(), OrderRefusal> {
        let before = self.nodes[at].volumes[volume].disk;
        let outcome = self.nodes[at].volumes[volume].carry_out(order);
        let promoted = (order, outcome);
        if let (
            Order::Promote {
                generation,
                doubtful,
                since,
            },
            Ok(()),
        ) = promoted
        {
            self.nodes[at].volumes[volume].primary_since = *since;
            self.promote_volume(at, volume, *generation, doubtful);
        }
        let disk = self.nodes[at].volumes[volume].disk;
        if disk != before {
            self.nodes[at].inbox.push_back(Input::Disk { volume, disk });
        }
        outcome
    }

    fn promote_volume(&mut self, at: usize, place: usize, generation: u64, doubtful: &[PeerIndex]) {
        let previous = self.nodes[at].volumes[place].current;
        let volume = &mut self.nodes[at].volumes[place];
        volume.new_generation(generation);
        volume.given_up.fill(0);
        volume.primary = true;
        volume.disk = LocalDisk::UpToDate;
        let history = volume.history.clone();
        for peer in 0..volume.up.len() {
            let doubted = doubtful.contains(&PeerIndex(peer as u8));
            let volume = &mut self.nodes[at].volumes[place];
            if volume.up[peer].is_some() && !doubted {
                let other = &mut self.nodes[node_of(at, peer)].volumes[place];
                other.current = generation;
                other.history.clone_from(&history);
                other.crashed = false;
                continue;
            }
            if volume.records[peer] == 0 {
                volume.records[peer] = previous;
            }
            if doubted {
                volume.fill(peer);
            }
            // The mirrors see to it by themselves on the connection they have.
            if let Some((connection, _)) = volume.up[peer] {
                volume.up[peer] = Some((connection, SyncPlan::Source));
                let (to, back) = (node_of(at, peer), peer_of(node_of(at, peer), at));
                let other = &mut self.nodes[to].volumes[place];
                other.up[back] = Some((connection, SyncPlan::Target));
                other.disk = LocalDisk::Inconsistent;
                let disk = other.disk;
                self.nodes[to].inbox.push_back(Input::Disk { volume: place, disk });
            }
        }
    }

    fn put(&mut self, at: usize, peer: usize, connection: ConnectionId, frame: Frame) {
        let to = node_of(at, peer);
        if self.nodes[at].connections[peer] == Some(connection) {
            self.wires.entry((at, to)).or_default().push_back((connection, frame));
        }
    }

    pub fn deliver(&mut self) -> bool {
        let mut moved = false;
        for ((from, to), wire) in &mut self.wires {
            let peer = peer_of(*to, *from);
            let node = &mut self.nodes[*to];
            while let Some((connection, frame)) = wire.pop_front() {
                if node.connections.get(peer) != Some(&Some(connection)) || !node.alive {
                    continue;
                }
                let held = |control: &Control| self.holds.as_ref().is_some_and(|holds| holds(*from, control));
                moved = true;
                match frame {
                    Frame::Control(control) if held(&control) => {}
                    Frame::Control(control) => node.inbox.push_back(Input::Control {
                        peer: PeerIndex(peer as u8),
                        connection,
                        control,
                    }),
                    Frame::Closed => node.lost(peer, connection, true, self.missed),
                }
            }
        }
        moved
    }

    /// What one side pushes or the other fetches is there.
    pub fn finish_copies(&mut self) -> bool {
        let mut moved = false;
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                if to == from || !self.copies {
                    continue;
                }
                for volume in 0..self.nodes[from].volumes.len() {
                    moved |= self.finish_copy(from, to, volume);
                }
            }
        }
        moved
    }

    fn finish_copy(&mut self, from: usize, to: usize, at: usize) -> bool {
        let (there, here) = (peer_of(from, to), peer_of(to, from));
        if there >= self.nodes[from].volumes[at].up.len() || self.nodes[to].volumes.len() <= at {
            return false;
        }
        let target = self.nodes[to].volumes[at].up[here];
        let Some((connection, SyncPlan::Target)) = target else {
            return false;
        };
        let Some((other, SyncPlan::Source | SyncPlan::Fetched)) = self.nodes[from].volumes[at].up[there] else {
            return false;
        };
        if connection != other {
            return false;
        }
        if self.nodes[to].volumes[at].disk == LocalDisk::Diskless
            || self.nodes[from].volumes[at].disk == LocalDisk::Diskless
        {
            return false;
        }
        let source = &mut self.nodes[from].volumes[at];
        assert_eq!(source.disk, LocalDisk::UpToDate);
        source.records[there] = 0;
        source.dirty[there].clear();
        source.up[there] = Some((connection, SyncPlan::InStep));
        let (current, history, records) = (source.current, source.history.clone(), source.records.clone());
        let volume = &mut self.nodes[to].volumes[at];
        assert_eq!(
            volume.disk,
            LocalDisk::Inconsistent,
            "Inconsistent before anything is written"
        );
        volume.current = current;
        volume.history = history;
        volume.records = vec![0; records.len()];
        volume.dirty[here].clear();
        volume.fresh = false;
        volume.crashed = false;
        volume.disk = LocalDisk::UpToDate;
        volume.up[here] = Some((connection, SyncPlan::InStep));
        self.nodes[to].inbox.push_back(Input::Disk {
            volume: at,
            disk: LocalDisk::UpToDate,
        });
        true
    }

    pub fn dial(&mut self, attempts: &mut BTreeMap<(usize, usize), usize>) -> bool {
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                let (to_b, to_a) = (peer_of(a, b), peer_of(b, a));
                let known = to_b < self.nodes[a].dials.len() && to_a < self.nodes[b].dials.len();
                let wanted = known && (self.nodes[a].dials[to_b] || self.nodes[b].dials[to_a]);
                let free =
                    known && self.nodes[a].connections[to_b].is_none() && self.nodes[b].connections[to_a].is_none();
                let possible = self.nodes[a].alive && self.nodes[b].alive && !self.cut[a][b];
                let tries = attempts.entry((a, b)).or_default();
                if wanted && free && possible && *tries < ATTEMPTS_MAX {
                    *tries += 1;
                    self.connection += 1;
                    let connection = ConnectionId(self.connection);
                    self.nodes[a].up(to_b, connection, b as u64 + 1);
                    self.nodes[b].up(to_a, connection, a as u64 + 1);
                    return true;
                }
            }
        }
        false
    }
}

impl Node {
    pub fn new(config: ResourceConfig, volumes: Vec<Volume>) -> Self {
        let peers = config.peers.len();
        Self {
            resource: Resource::new(config.clone()),
            volumes,
            config,
            hosts: HostAccess::Shut,
            answers: BTreeMap::new(),
            events: Vec::new(),
            alive: true,
            grow: Ok(()),
            silent: false,
            stuck: false,
            log: None,
            dials: vec![false; peers.max(4)],
            connections: vec![None; peers.max(4)],
            inbox: VecDeque::new(),
        }
    }

    pub fn up(&mut self, peer: usize, connection: ConnectionId, incarnation: u64) {
        self.dials[peer] = false;
        self.connections[peer] = Some(connection);
        self.inbox.push_back(Input::Connected {
            peer: PeerIndex(peer as u8),
            connection,
            incarnation,
        });
    }

    pub fn down(&mut self, peer: usize, connection: ConnectionId) {
        if self.connections[peer] == Some(connection) {
            self.connections[peer] = None;
        }
        for volume in &mut self.volumes {
            if volume.up[peer].is_some_and(|(up, _)| up == connection) {
                volume.up[peer] = None;
            }
        }
    }

    pub fn lost(&mut self, peer: usize, connection: ConnectionId, closed_by_peer: bool, loss: Loss) {
        self.down(peer, connection);
        let index = PeerIndex(peer as u8);
        self.inbox.push_back(Input::Missed { peer: index, loss });
        self.inbox.push_back(Input::Disconnected {
            peer: index,
            connection,
            closed_by_peer,
            reason: "lost".into(),
        });
    }
}
