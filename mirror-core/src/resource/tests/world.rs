//! A few nodes, the connections between them, and what their shells do.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;

use super::volume::{BLOCKS, Volume};
use crate::config::PeerKind;
use crate::event::{ConnectionId, PeerIndex, SyncPlan};
use crate::identity::Role;
use crate::range::BLOCK_BYTES;
use crate::resource::event::{Answer, Command, CommandId, Event, HostAccess, Input, Loss, Output};
use crate::resource::{LinkState, Resource, ResourceConfig, ResourcePeer};
use crate::state::LocalDisk;
use crate::stream::Control;

pub struct Node {
    pub resource: Resource,
    pub volumes: Vec<Volume>,
    pub config: ResourceConfig,
    pub hosts: HostAccess,
    pub answers: BTreeMap<u64, Answer>,
    pub events: Vec<Event>,
    pub alive: bool,
    pub grow: Result<(), String>,
    /// It never says whether an image fits.
    pub silent: bool,
    /// Requests of hosts that do not end.
    pub stuck: bool,
    pub log: Option<Rc<RefCell<Vec<Output>>>>,
    pub dials: Vec<bool>,
    /// By peer: the connection, as this node's shell has it.
    pub connections: Vec<Option<ConnectionId>>,
    pub inbox: VecDeque<Input>,
}

/// Says of a frame of a node that the wire keeps it.
type Hold = Box<dyn Fn(usize, &Control) -> bool>;

/// What travels on a connection.
pub enum Frame {
    Control(Control),
    Closed,
}

pub struct World {
    pub now: Duration,
    pub nodes: Vec<Node>,
    /// From, to, connection.
    pub wires: BTreeMap<(usize, usize), VecDeque<(ConnectionId, Frame)>>,
    pub cut: Vec<Vec<bool>>,
    /// Frames that are never delivered: the wire holds them.
    pub holds: Option<Hold>,
    /// What connections that are lost are said to have missed.
    pub missed: Loss,
    /// Copies end as soon as they have begun.
    pub copies: bool,
    pub connection: u32,
    command: u64,
    generation: u64,
}

pub const NAMES: [&str; 4] = ["anna", "berta", "clara", "dora"];

impl World {
    /// So many nodes with so many fresh volumes each, all partners, started.
    pub fn new(nodes: usize, volumes: usize) -> Self {
        Self::with(nodes, volumes, |_| {})
    }

    pub fn with(nodes: usize, volumes: usize, change: impl Fn(&mut ResourceConfig)) -> Self {
        let mut world = Self {
            now: Duration::ZERO,
            nodes: Vec::new(),
            wires: BTreeMap::new(),
            cut: vec![vec![false; nodes]; nodes],
            holds: None,
            missed: Loss::default(),
            copies: true,
            connection: 0,
            command: 0,
            generation: 0,
        };
        for (at, name) in NAMES.iter().enumerate().take(nodes) {
            let mut config = ResourceConfig {
                name: "db".to_string(),
                node: (*name).to_string(),
                incarnation: at as u64 + 1,
                entropy: at as u64 + 77,
                clock: 1_000_000 + at as u64,
                volumes: (0..volumes).map(|at| format!("v{at}")).collect(),
                peers: (0..nodes).filter(|peer| *peer != at).map(partner).collect(),
                ..ResourceConfig::default()
            };
            change(&mut config);
            let mut volumes: Vec<Volume> = (0..volumes)
                .map(|v| Volume::fresh(1000 * (at as u64 + 1) + v as u64, nodes - 1))
                .collect();
            let plain = config.peers.iter().all(|peer| peer.kind == Some(PeerKind::Plain));
            volumes.iter_mut().for_each(|volume| volume.primary = plain);
            world.nodes.push(Node::new(config, volumes));
        }
        for at in 0..nodes {
            world.nodes[at].inbox.push_back(Input::Start);
        }
        world.run();
        world
    }

    /// Two or three nodes with data, the first one Primary, all in step.
    pub fn working(nodes: usize, volumes: usize) -> Self {
        Self::working_with(nodes, volumes, |_| {})
    }

    pub fn working_with(nodes: usize, volumes: usize, change: impl Fn(&mut ResourceConfig)) -> Self {
        let mut world = Self::with(nodes, volumes, change);
        assert_eq!(world.promote_by_force(0), Answer::Done);
        world.settle();
        assert_eq!(world.role(0), Role::Primary);
        assert!(world.all_in_step(), "{}", world.describe());
        world
    }

    pub fn role(&self, node: usize) -> Role {
        self.nodes[node].resource.role()
    }

    pub fn link(&self, node: usize, other: usize) -> LinkState {
        self.nodes[node].resource.link(PeerIndex(peer_of(node, other) as u8))
    }

    pub fn is_split(&self, node: usize, other: usize) -> bool {
        let peer = PeerIndex(peer_of(node, other) as u8);
        self.nodes[node].resource.split_brain(peer).is_some()
    }

    /// All have the Primary's data, and it has no bits. (What two Secondaries have marked for each other waits until there
    /// is no Primary.)
    pub fn all_in_step(&self) -> bool {
        let first = &self.nodes[0].volumes;
        self.nodes.iter().all(|node| {
            node.volumes.iter().zip(first).all(|(volume, first)| {
                let marked = volume.primary && volume.dirty.iter().any(|bits| !bits.is_empty());
                volume.current == first.current && volume.disk == LocalDisk::UpToDate && !marked
            })
        })
    }

    pub fn describe(&self) -> String {
        let nodes = self
            .nodes
            .iter()
            .map(|node| format!("{:#?}\n{:?}\n", node.why(), node.volumes));
        nodes.collect()
    }

    /// An operator's command, and its answer if it has come.
    pub fn ask(&mut self, node: usize, command: Command) -> Option<Answer> {
        let id = self.give(node, command);
        self.run();
        self.nodes[node].answers.get(&id).cloned()
    }

    /// An operator's command; nothing is delivered yet.
    pub fn give(&mut self, node: usize, command: Command) -> u64 {
        self.command += 1;
        let id = CommandId(self.command);
        self.nodes[node].inbox.push_back(Input::Command { id, command });
        self.command
    }

    pub fn give_input(&mut self, node: usize, input: Input) {
        self.nodes[node].inbox.push_back(input);
        self.run();
    }

    pub fn give_control(&mut self, node: usize, peer: u8, connection: ConnectionId, control: Control) {
        self.give_input(
            node,
            Input::Control {
                peer: PeerIndex(peer),
                connection,
                control,
            },
        );
    }

    /// Everything the node's resource puts out from here on.
    pub fn log_outputs(&mut self, node: usize) -> Rc<RefCell<Vec<Output>>> {
        let log = Rc::new(RefCell::new(Vec::new()));
        self.nodes[node].log = Some(Rc::clone(&log));
        log
    }

    pub fn promote(&mut self, node: usize) -> Answer {
        let command = Command::Promote {
            force: false,
            accept: None,
        };
        self.ask_long(node, command)
    }

    /// The answer, however long it takes.
    pub fn ask_long(&mut self, node: usize, command: Command) -> Answer {
        let id = self.give(node, command);
        self.run();
        for _ in 0..1000 {
            if let Some(answer) = self.nodes[node].answers.get(&id) {
                return answer.clone();
            }
            self.advance(Duration::from_millis(200));
        }
        panic!("a command is never answered:\n{}", self.describe())
    }

    /// Forces, and quotes the loss back when asked to.
    pub fn promote_by_force(&mut self, node: usize) -> Answer {
        let force = |accept| Command::Promote { force: true, accept };
        match self.ask_long(node, force(None)) {
            Answer::NeedsAccept { token, .. } => self.ask_long(node, force(Some(token))),
            answer => answer,
        }
    }

    /// A host writes a block; only on a Primary that lets hosts in.
    pub fn write(&mut self, node: usize, block: u64) {
        assert_eq!(self.nodes[node].hosts, HostAccess::ReadWrite);
        self.generation += 1;
        let generation = 9_000_000 + self.generation;
        for at in 0..self.nodes[node].volumes.len() {
            let volume = &mut self.nodes[node].volumes[at];
            assert!(volume.primary);
            let (behind, told): (Vec<usize>, Vec<usize>) =
                (0..volume.up.len()).partition(|peer| volume.up[*peer].is_none());
            let previous = volume.current;
            let renamed = behind.iter().any(|peer| volume.records[*peer] == 0);
            if renamed {
                volume.new_generation(generation);
            }
            for peer in behind {
                if volume.records[peer] == 0 {
                    volume.records[peer] = previous;
                }
                volume.dirty[peer].insert(block % BLOCKS);
            }
            let in_step = told
                .into_iter()
                .filter(|peer| matches!(volume.up[*peer], Some((_, SyncPlan::InStep))));
            for peer in in_step.filter(|_| renamed).collect::<Vec<_>>() {
                let history = self.nodes[node].volumes[at].history.clone();
                let other = &mut self.nodes[node_of(node, peer)].volumes[at];
                (other.current, other.history) = (generation, history);
            }
        }
    }

    /// Everything that happens without time passing.
    pub fn run(&mut self) {
        let mut attempts = BTreeMap::new();
        for _ in 0..100_000 {
            let before = self.connection;
            let moved = self.step_nodes() | self.deliver() | self.finish_copies() | self.dial(&mut attempts);
            if !moved && before == self.connection {
                return;
            }
        }
        panic!("never quiet:\n{}", self.describe());
    }

    /// Time passes, in small steps.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while self.now < end {
            let next = self
                .nodes
                .iter()
                .filter(|node| node.alive)
                .filter_map(|node| node.resource.next_timeout());
            let next = next
                .min()
                .unwrap_or(end)
                .max(self.now + Duration::from_millis(50))
                .min(end);
            self.now = next;
            for node in self.nodes.iter_mut().filter(|node| node.alive) {
                node.inbox.push_back(Input::Timeout);
            }
            self.run();
        }
    }

    /// Long enough for whatever is under way.
    pub fn settle(&mut self) {
        self.advance(Duration::from_secs(2));
    }

    /// The network between two nodes is gone.
    pub fn part(&mut self, a: usize, b: usize) {
        self.cut[a][b] = true;
        self.cut[b][a] = true;
        for (at, other) in [(a, b), (b, a)] {
            let peer = peer_of(at, other);
            if let Some(connection) = self.nodes[at].connections[peer] {
                self.nodes[at].lost(peer, connection, false, self.missed);
            }
        }
        self.run();
    }

    pub fn heal(&mut self, a: usize, b: usize) {
        self.cut[a][b] = false;
        self.cut[b][a] = false;
        self.run();
    }

    /// The process is killed.
    pub fn kill(&mut self, at: usize) {
        self.nodes[at].alive = false;
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            let (mine, theirs) = (peer_of(at, other), peer_of(other, at));
            self.nodes[at].connections[mine] = None;
            if let Some(connection) = self.nodes[other].connections[theirs] {
                self.nodes[other].lost(theirs, connection, true, self.missed);
            }
        }
        self.run();
    }

    pub fn start(&mut self, at: usize) {
        let mut volumes = self.nodes[at].volumes.clone();
        let mut config = self.nodes[at].config.clone();
        let mut with_data = volumes.iter().filter(|volume| !volume.fresh).peekable();
        config.was_primary = with_data.peek().is_some() && with_data.all(|volume| volume.primary);
        config.answers_lost = volumes.iter().any(|volume| volume.answers_lost);
        config.primary_since = volumes.iter().map(|volume| volume.primary_since).max().unwrap_or(0);
        config.incarnation += 100;
        config.entropy += self.now.as_nanos() as u64 + 1;
        for volume in &mut volumes {
            volume.crashed |= volume.primary;
            volume.primary = false;
            volume.up.fill(None);
        }
        self.nodes[at] = Node::new(config, volumes);
        self.nodes[at].inbox.push_back(Input::Start);
        self.run();
    }

    /// The mirrors have stopped, then the daemon.
    pub fn stop(&mut self, at: usize) {
        self.nodes[at].inbox.push_back(Input::Stop);
        self.run();
        self.kill(at);
    }
}

fn partner(node: usize) -> ResourcePeer {
    ResourcePeer {
        name: NAMES[node].to_string(),
        kind: Some(PeerKind::Partner),
    }
}

/// The index of a node among another's peers.
pub fn peer_of(at: usize, other: usize) -> usize {
    if other < at { other } else { other - 1 }
}

pub fn node_of(at: usize, peer: usize) -> usize {
    if peer < at { peer } else { peer + 1 }
}

/// Bytes of the volumes of these tests.
pub const SIZE: u64 = BLOCKS * BLOCK_BYTES;
