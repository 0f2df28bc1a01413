//! The whole simulated world of one seed, and its clock.
//!
//! Everything that happens is an [`Event`] in one queue ordered by simulated time; nothing else moves. The parts live in
//! files of their own: what the mirror puts out is obeyed in `shell.rs`, legs carry it out in `legs.rs`, links come and go
//! in `links.rs`, the primary dies and starts in `primary.rs`, faults strike in `strikes.rs`, and `watch.rs` holds every
//! moment against the checker.

pub use blockmirror_tests::campaign::Phase;
use std::collections::BTreeMap;
use std::time::Duration;

use mirror_core::Mirror;
use mirror_core::event::{Input, PeerIndex};

use crate::checker::Checker;
use crate::disk::{Disk, OperationId};
use crate::faults::Fault;
use crate::host::Host;
use crate::legs::Operation;
use crate::links::Peer;
use crate::outcome::{Digest, Options, Tally, Violation};
use crate::primary::Primary;
use crate::rng::Rng;
use crate::scenario::Scenario;

/// Steps after which a run that has not converged is stuck.
pub const STEPS_MAX: u64 = 60_000;
/// Simulated microseconds after which it is.
pub const TIME_MAX_US: u64 = 120_000_000;

/// What a check returns.
pub type Check = Result<(), Violation>;

/// Something that is going to happen.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// The host's next request is due.
    HostRequest,
    /// An operation reads its source (resync only).
    Read(OperationId),
    /// An operation takes effect.
    Apply(OperationId),
    /// An operation's end is reported.
    Report(OperationId),
    /// The metadata disk does the next step of the transaction of this life of the primary.
    PersistStep(u32),
    /// The mirror's own timeout, if it is still the one it asked for.
    Timeout(u64),
    /// A connection attempt to a peer; stale unless the number is the latest.
    Attempt(usize, u32),
    /// This side notices that a connection is gone.
    Notice(usize, u32),
    /// A peer is back.
    PeerStarts(usize),
    /// The primary is back.
    PrimaryStarts(u32),
    /// An answer of a connection that is gone reaches the mirror, in this life of the primary.
    Stale(u32),
    /// A turn of the shell's loop ends, in this life of the primary.
    Turn(u32),
    /// A fault of the plan strikes.
    Strike(Fault),
    /// Whatever was slow is fast again.
    Fast,
    /// The end of the safety phase.
    Heal,
}

/// One run.
#[derive(Debug)]
pub struct World {
    /// Chance.
    pub rng: Rng,
    /// The plan.
    pub scenario: Scenario,
    /// What the caller wants of the run.
    pub options: Options,
    /// Simulated microseconds.
    pub now: u64,
    /// Events so far.
    pub steps: u64,
    /// How far.
    pub phase: Phase,
    /// What is to come.
    queue: BTreeMap<(u64, u64), Event>,
    serial: u64,
    /// The history of requests.
    pub checker: Checker,
    /// The host.
    pub host: Host,
    /// The node that runs the mirror.
    pub primary: Primary,
    /// Its leg.
    pub local: Disk,
    /// The peers with their legs.
    pub peers: Vec<Peer>,
    /// What legs are doing.
    pub operations: BTreeMap<OperationId, Operation>,
    /// Operations ever started.
    pub operation_serial: OperationId,
    /// What the run was.
    pub digest: Digest,
    /// What happened how often.
    pub tally: Tally,
}

impl World {
    /// The world before its first event.
    pub fn new(seed: u64, options: Options) -> Self {
        let mut rng = Rng::new(seed);
        let scenario = Scenario::new(&mut rng);
        let local = Disk::new(&scenario.content);
        let peers = scenario
            .peers
            .iter()
            .map(|plan| Peer::new(&mut rng, plan, &scenario.content))
            .collect();
        let primary = Primary::new(&scenario, rng.next());
        let mut world = Self {
            now: 0,
            steps: 0,
            phase: Phase::Safety,
            queue: BTreeMap::new(),
            serial: 0,
            checker: Checker::new(&scenario.content),
            host: Host::default(),
            primary,
            local,
            peers,
            operations: BTreeMap::new(),
            operation_serial: 0,
            digest: Digest::new(),
            tally: Tally::default(),
            rng,
            scenario,
            options,
        };
        world.at(0, Event::PrimaryStarts(0));
        world.at(1, Event::HostRequest);
        for (at, fault) in world.scenario.faults.clone() {
            world.at(at, Event::Strike(fault));
        }
        world.at(crate::scenario::SAFETY_US, Event::Heal);
        world
    }

    /// Run to the end.
    pub fn run(&mut self) -> Check {
        while self.phase != Phase::Over {
            let Some(((at, _), event)) = self.queue.pop_first() else {
                return self.stuck("nothing is left to happen");
            };
            self.now = at;
            self.steps += 1;
            if self.steps > STEPS_MAX || self.now > TIME_MAX_US {
                return self.stuck("it takes too long");
            }
            self.digest.mix(at);
            self.happen(event)?;
            self.watch_moment()?;
            self.progress()?;
        }
        self.digest_legs();
        Ok(())
    }

    /// Plan an event in so many microseconds.
    pub fn after(&mut self, delay_us: u64, event: Event) {
        self.at(self.now + delay_us, event);
    }

    /// Tell the mirror, if there is one, and do what it says.
    pub fn feed(&mut self, input: Input) -> Check {
        let now = Duration::from_micros(self.now);
        self.trace(|| format!("-> {input:?}"));
        let Some(mirror) = &mut self.primary.mirror else {
            return Ok(());
        };
        mirror.handle(now, input);
        self.drain()
    }

    /// Take what the mirror says, and do it now or at the end of the shell's turn.
    pub fn drain(&mut self) -> Check {
        self.note_states()?;
        let was_quiet = self.primary.said.is_empty();
        while let Some(output) = self.primary.mirror.as_mut().and_then(Mirror::poll_output) {
            self.primary
                .said
                .push_back((output, self.primary.states.clone(), self.steps));
        }
        self.plan_timeout();
        if self.scenario.turn_us == 0 {
            return self.turn(self.primary.life);
        }
        if was_quiet && !self.primary.said.is_empty() {
            let rest = self.rng.below(self.scenario.turn_us);
            self.after(rest, Event::Turn(self.primary.life));
        }
        Ok(())
    }

    /// The shell ends a turn: it does everything the mirror has said meanwhile, in order.
    fn turn(&mut self, life: u32) -> Check {
        while life == self.primary.life
            && let Some((output, states, at)) = self.primary.said.pop_front()
        {
            self.trace(|| format!("<- {output:?}"));
            (self.primary.said_in, self.primary.said_at) = (states, at);
            self.obey(output)?;
        }
        Ok(())
    }

    /// A line of the trace, built only when somebody reads it.
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

    fn at(&mut self, at: u64, event: Event) {
        self.serial += 1;
        self.queue.insert((at, self.serial), event);
    }

    fn happen(&mut self, event: Event) -> Check {
        match event {
            Event::HostRequest => self.host_request(),
            Event::Read(operation) => self.read(operation),
            Event::Apply(operation) => self.apply(operation),
            Event::Report(operation) => self.report(operation),
            Event::PersistStep(life) => self.persist_step(life),
            Event::Timeout(at) => self.timeout(at),
            Event::Attempt(peer, attempt) => self.attempt(peer, attempt),
            Event::Notice(peer, connection) => self.notice(peer, connection),
            Event::PeerStarts(peer) => self.peer_starts(peer),
            Event::PrimaryStarts(life) => self.primary_starts(life),
            Event::Turn(life) => self.turn(life),
            Event::Stale(life) => match self.primary.stale.pop_front().filter(|_| life == self.primary.life) {
                Some(input) => self.feed(input),
                None => Ok(()),
            },
            Event::Strike(fault) => self.strike(fault),
            Event::Fast => {
                self.primary.slow_store = 1;
                self.primary.slow_local = 1;
                self.peers.iter_mut().for_each(|peer| peer.slow = 1);
                Ok(())
            }
            Event::Heal => self.heal(),
        }
    }

    fn timeout(&mut self, at: u64) -> Check {
        if self.primary.timeout != Some(at) {
            return Ok(());
        }
        self.primary.timeout = None;
        self.feed(Input::Timeout)
    }

    fn plan_timeout(&mut self) {
        let wanted = self.primary.mirror.as_ref().and_then(Mirror::next_timeout);
        let wanted = wanted.map(|at| (at.as_micros() as u64 + 1).max(self.now));
        if wanted != self.primary.timeout {
            self.primary.timeout = wanted;
            if let Some(at) = wanted {
                self.at(at, Event::Timeout(at));
            }
        }
    }

    fn digest_legs(&mut self) {
        for slot in self.checker.everything() {
            self.digest.mix(u64::from(self.local.read(slot)));
            for peer in &self.peers {
                self.digest.mix(u64::from(peer.disk.read(slot)));
            }
        }
    }

    fn stuck(&self, how: &str) -> Check {
        self.trace(|| format!("{:?}", self.primary.mirror));
        let mut text = format!("{how}; {} requests are not released", self.host.requests.len());
        for (id, request) in self.host.requests.iter().take(8) {
            text.push_str(&format!("\n  request {id}: {request:?}"));
        }
        for (at, peer) in self.peers.iter().enumerate() {
            let dirty = self.dirty_blocks(PeerIndex(at as u8));
            text.push_str(&format!(
                "\n  peer {at}: {:?}, {dirty} dirty, {:?}",
                self.primary.states.get(at),
                peer.link
            ));
        }
        let operations: Vec<_> = self.operations.values().take(8).collect();
        text.push_str(&format!("\n  operations: {operations:?}"));
        Err(self.violation("liveness", text))
    }
}
