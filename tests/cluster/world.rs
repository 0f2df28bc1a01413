//! The whole simulated cluster of one seed, and its clock.
//!
//! Everything that happens is an [`Event`] in one queue ordered by simulated time; nothing else moves. What the cores put
//! out is obeyed in `obey.rs` (mirrors) and `decree.rs` (resources); connections live in `net.rs`, what goes over them in
//! `ask.rs` and `serve.rs`; nodes die and start in `life.rs`; `judge.rs` holds every moment against the checker.

pub use blockmirror_tests::campaign::Phase;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::faults::{Action, Fault};
use crate::host::Hosts;
use crate::net::Conn;
use crate::node::Node;
use crate::outcome::{Digest, Options, Tally, Violation};
use crate::plan::{INITIAL, Plan, SAFETY_US};
use crate::reign::Reign;
use crate::rng::Rng;
use crate::truth::{NODES_MAX, Truth};

/// Steps after which a run that has not converged is stuck.
pub const STEPS_MAX: u64 = 60_000;
/// Simulated microseconds after which it is.
pub const TIME_MAX_US: u64 = 400_000_000;

/// What a check returns.
pub type Check = Result<(), Violation>;

/// Something that is going to happen. The first field is the node it happens on; in `Deliver` the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// The hosts' next request is due.
    HostRequest,
    /// An operation on an image of this life of the node ends.
    Operation(usize, u32, u32),
    /// The metadata transaction of a volume ends, in this life of the node.
    Persisted(usize, usize, u32),
    /// A mirror's timeout, if it is still the one it asked for.
    MirrorTimeout(usize, usize, u64),
    /// A resource's.
    ResourceTimeout(usize, u64),
    /// Something arrives on a connection, at this end.
    Deliver(usize, usize),
    /// A node tries to reach a peer; stale unless the number is the latest.
    Dial(usize, usize, u32),
    /// A node gives a connection up.
    Notice(usize, usize),
    /// A node is started.
    Start(usize, u32),
    /// A turn of a node's loop ends, in this life.
    Turn(usize, u32),
    /// No space has to be made for a larger image any more.
    Grown(usize, usize, u32),
    /// A stalled lane of a connection moves again.
    Moves(usize, usize),
    /// A fault of the plan strikes, by its place.
    Strike(usize),
    /// A node's disks are fast again.
    Fast(usize),
    /// Something goes wrong at a bad moment on this node, in some way.
    Aftershock(usize, u64),
    /// A sector rots, or a write goes astray, from this node on in this volume.
    Rot(usize, usize),
    /// The end of the safety phase.
    Heal,
    /// The operator looks at the cluster.
    Look,
}

impl Event {
    /// The node whose process it needs.
    fn node(self) -> Option<usize> {
        match self {
            Self::Operation(node, ..)
            | Self::Persisted(node, ..)
            | Self::MirrorTimeout(node, ..)
            | Self::ResourceTimeout(node, _)
            | Self::Dial(node, ..)
            | Self::Notice(node, _)
            | Self::Turn(node, _)
            | Self::Grown(node, ..) => Some(node),
            _ => None,
        }
    }
}

/// One run.
#[derive(Debug)]
pub struct World {
    /// Chance.
    pub rng: Rng,
    /// The plan.
    pub plan: Plan,
    /// What the caller wants of the run.
    pub options: Options,
    /// Simulated microseconds.
    pub now: u64,
    /// Events so far.
    pub steps: u64,
    /// Things obeyed because of the present event.
    pub obeyed: u64,
    /// How far.
    pub phase: Phase,
    /// When the faults stopped.
    pub healed_at: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    serial: u64,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Every connection there ever was.
    pub conns: Vec<Conn>,
    /// No connection between two nodes succeeds before this time.
    pub broken_until: [[u64; NODES_MAX]; NODES_MAX],
    /// Every write.
    pub truth: Truth,
    /// Every reign.
    pub reigns: Vec<Reign>,
    /// The hosts.
    pub hosts: Hosts,
    /// What the operator does.
    pub operator: crate::operator::Operator,
    /// What the run was.
    pub digest: Digest,
    /// What happened how often.
    pub tally: Tally,
    /// What the checker remembers.
    pub judge: crate::judge::Memory,
}

impl World {
    /// The world of a seed before its first event.
    pub fn new(seed: u64, options: Options) -> Self {
        let mut rng = Rng::new(seed);
        let mut plan = Plan::new(&mut rng, options.nodes);
        if let Some(most) = options.requests_max {
            plan.host.requests = plan.host.requests.min(most);
        }
        let mut world = Self::of_plan(rng, plan, options);
        for (place, (at, _)) in world.plan.faults.clone().into_iter().enumerate() {
            if !world.options.without.contains(&place) {
                world.at(at, Event::Strike(place));
            }
        }
        world.at(1_000, Event::HostRequest);
        world.at(500, Event::Look);
        world.at(SAFETY_US, Event::Heal);
        world
    }

    /// A world with nobody in it but the nodes.
    pub fn of_plan(mut rng: Rng, plan: Plan, options: Options) -> Self {
        let nodes = (0..plan.nodes).map(|at| Node::new(&mut rng, &plan, at)).collect();
        let mut world = Self {
            now: 0,
            steps: 0,
            obeyed: 0,
            phase: Phase::Safety,
            healed_at: 0,
            queue: BinaryHeap::with_capacity(256),
            serial: 0,
            nodes,
            conns: Vec::new(),
            broken_until: [[0; NODES_MAX]; NODES_MAX],
            truth: Truth::new(INITIAL),
            reigns: Vec::new(),
            hosts: Hosts::default(),
            operator: crate::operator::Operator::default(),
            digest: Digest::default(),
            tally: Tally::default(),
            judge: crate::judge::Memory::default(),
            rng,
            plan,
            options,
        };
        for node in 0..world.nodes.len() {
            world.at(node as u64, Event::Start(node, 0));
        }
        world
    }

    /// Run to the end.
    pub fn run(&mut self) -> Check {
        while self.phase != Phase::Over {
            self.step()?;
        }
        self.digest_images();
        Ok(())
    }

    /// One event.
    pub fn step(&mut self) -> Check {
        let Some(Reverse((at, _, event))) = self.queue.pop() else {
            return self.stuck("nothing is left to happen");
        };
        self.now = at;
        if let Some(until) = self.paused_until(event) {
            self.at(until, event);
            return Ok(());
        }
        self.steps += 1;
        self.obeyed = 0;
        if self.steps > STEPS_MAX || self.now > TIME_MAX_US {
            return self.stuck("it takes too long");
        }
        self.digest.mix(at);
        self.trace(|| format!("-- {event:?}"));
        self.happen(event)?;
        self.watch_moment()?;
        self.progress()
    }

    /// Plan an event in so many microseconds.
    pub fn after(&mut self, delay_us: u64, event: Event) {
        self.at(self.now + delay_us, event);
    }

    /// Plan an event.
    pub fn at(&mut self, at: u64, event: Event) {
        self.serial += 1;
        self.queue.push(Reverse((at, self.serial, event)));
    }

    /// When the next event comes.
    pub fn next_at(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse((at, ..))| *at)
    }

    /// Events planned so far.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// A node's own clock.
    pub fn clock(&self, node: usize) -> Duration {
        Duration::from_micros(self.now + self.nodes[node].ahead_us)
    }

    /// A line of the trace, built only when somebody reads it.
    #[inline]
    pub fn trace(&self, line: impl FnOnce() -> String) {
        if self.options.trace {
            println!("{:>9} {}", self.now, line());
        }
    }

    /// A violation, here and now.
    pub fn violation(&self, rule: &'static str, text: impl Into<String>) -> Violation {
        Violation {
            rule,
            text: text.into(),
            at_us: self.now,
            step: self.steps,
        }
    }

    /// A fault of the plan.
    fn strike_planned(&mut self, place: usize) -> Check {
        let fault = self.plan.faults[place].1;
        if self.phase == Phase::Safety {
            self.strike(fault)
        } else {
            Ok(())
        }
    }

    /// An operator's command, now.
    pub fn act(&mut self, action: Action) -> Check {
        self.strike(Fault::Operator(action))
    }

    fn paused_until(&self, event: Event) -> Option<u64> {
        let until = match event {
            Event::Deliver(conn, end) => self.nodes[self.conns[conn].ends[end]].paused_until,
            _ => self.nodes[event.node()?].paused_until,
        };
        (until > self.now).then_some(until)
    }

    fn happen(&mut self, event: Event) -> Check {
        match event {
            Event::HostRequest => self.host_request(),
            Event::Operation(node, life, operation) => self.operation_ends(node, life, operation),
            Event::Persisted(node, volume, life) => self.persisted(node, volume, life),
            Event::MirrorTimeout(node, volume, at) => self.mirror_timeout(node, volume, at),
            Event::ResourceTimeout(node, at) => self.resource_timeout(node, at),
            Event::Deliver(conn, end) => self.deliver(conn, end),
            Event::Dial(node, peer, attempt) => self.dial(node, peer, attempt),
            Event::Notice(node, conn) => self.notice(node, conn),
            Event::Start(node, life) => self.start_node(node, life),
            Event::Turn(node, life) => self.turn(node, life),
            Event::Grown(node, volume, life) => self.image_grown(node, volume, life),
            Event::Moves(conn, end) => self.lane_moves(conn, end),
            Event::Strike(place) => self.strike_planned(place),
            Event::Fast(node) => {
                self.nodes[node].slow = 1;
                Ok(())
            }
            Event::Aftershock(node, how) => self.aftershock(node, how),
            Event::Rot(node, volume) => {
                self.rot(node, volume);
                Ok(())
            }
            Event::Heal => self.heal(),
            Event::Look => self.look(),
        }
    }

    fn digest_images(&mut self) {
        for node in &self.nodes {
            for volume in &node.volumes {
                for slot in 0..volume.disk.slots() {
                    self.digest.mix(u64::from(volume.disk.read(slot)));
                }
            }
        }
    }
}
