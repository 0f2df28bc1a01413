//! The data thread: one loop that owns volumes, host connections and links to peers.

use std::io;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::connection::{Connection, Fate};
use super::message::{FromData, ToData};
use super::plan::DataPlan;
use super::resource::ResourceSide;
use super::slab::Slab;
use super::stop::Stopping;
use super::stream::StreamEvent;
use super::token::{Kind, Token};
use super::turn::Turn;
use super::volume::{Ended, Note, Outward, Volume};
use crate::ring::Completion;

/// Rounds of completions that finished at once in one turn; the rest wait for the next one.
const ROUNDS_PER_TURN: usize = 32;
/// How often timeouts of requests, fences and idle connections are looked at.
const TICK: Duration = Duration::from_millis(250);

/// Everything a data thread owns.
pub(super) struct DataThread {
    pub(super) turn: Turn,
    started: Instant,
    pub(super) messages: Receiver<ToData>,
    pub(super) resources: Vec<ResourceSide>,
    /// Of all resources.
    pub(super) volumes: Vec<Volume>,
    /// By volume: its resource, and its place there.
    pub(super) homes: Vec<(usize, usize)>,
    /// Of no resource: branches that are served, and volumes that are served no longer and come to their end.
    pub(super) leaving: Vec<usize>,
    pub(super) connections: Slab<Connection>,
    /// Connections whose send queue or end has to be looked at.
    pub(super) touched: Vec<u32>,
    completions: Vec<Completion>,
    /// Scratch for what is resumed.
    resuming: Vec<u32>,
    ended: Vec<Ended>,
    /// Scratch for what streams bring.
    pub(super) stream_events: Vec<StreamEvent>,
    /// Scratch for what volumes ask of streams.
    pub(super) outward: Vec<Outward>,
    /// Scratch for what volumes tell their resources.
    pub(super) notes: Vec<Note>,
    /// When a core or a stream wants to be looked at: as of the end of the last turn.
    next_core: Duration,
    next_tick: Duration,
    pub(super) stopping: Option<Stopping>,
}

/// What a turn says about the next one.
pub(super) enum After {
    GoOn,
    Stopped { clean: bool },
}

impl DataThread {
    pub(super) fn new(plan: DataPlan, turn: Turn, messages: Receiver<ToData>) -> io::Result<Self> {
        let mut thread = Self {
            turn,
            started: Instant::now(),
            messages,
            resources: Vec::new(),
            volumes: Vec::new(),
            homes: Vec::new(),
            leaving: Vec::new(),
            connections: Slab::new(),
            touched: Vec::new(),
            completions: Vec::new(),
            resuming: Vec::new(),
            ended: Vec::new(),
            stream_events: Vec::new(),
            outward: Vec::new(),
            notes: Vec::new(),
            next_core: Duration::ZERO,
            next_tick: Duration::ZERO,
            stopping: None,
        };
        for (at, plan) in plan.resources.into_iter().enumerate() {
            let (resource, volumes) = ResourceSide::new(at, thread.volumes.len(), plan);
            thread.resources.push(resource);
            for (place, plan) in volumes.into_iter().enumerate() {
                let volume = Volume::new(thread.volumes.len(), plan, &thread.turn.limits)?;
                thread.volumes.push(volume);
                thread.homes.push((at, place));
            }
        }
        Ok(thread)
    }

    /// Run until stopped.
    pub(super) fn run(mut self) {
        let last = loop {
            match self.turn() {
                Ok(After::GoOn) => {}
                Ok(After::Stopped { clean }) => break FromData::Stopped { clean },
                Err(error) => break FromData::Fatal(format!("the I/O engine failed: {error}")),
            }
        };
        self.turn.tell(last);
    }

    fn turn(&mut self) -> io::Result<After> {
        let mut completions = std::mem::take(&mut self.completions);
        self.take_messages();
        // What was told since the last turn, and messages, are still to be settled.
        let mut stirred = true;
        for _ in 0..ROUNDS_PER_TURN {
            for completion in completions.drain(..) {
                stirred |= self.dispatch(completion);
            }
            stirred |= !self.turn.resume.is_empty();
            self.resume();
            if std::mem::take(&mut stirred) {
                self.settle();
            } else {
                self.flush_streams();
            }
            std::mem::swap(&mut completions, &mut self.turn.inline);
            if (completions.is_empty() && self.turn.resume.is_empty()) || self.turn.has_read_enough() {
                break;
            }
        }
        self.turn.read_bytes = 0;
        if let Some(after) = self.check_stop() {
            return Ok(after);
        }
        self.next_core = self.core_timeout();
        let timeout = if completions.is_empty() && self.turn.resume.is_empty() {
            self.timeout()
        } else {
            Some(Duration::ZERO)
        };
        let waited = self.turn.driver.wait(timeout, &mut completions);
        self.completions = completions;
        self.turn.now = self.started.elapsed();
        waited?;
        if self.turn.now >= self.next_core {
            self.wake_cores();
        }
        if self.turn.now >= self.next_tick {
            self.next_tick = self.turn.now + TICK;
            self.tick();
        }
        Ok(After::GoOn)
    }

    /// Tell the cores that the time they named has come.
    fn wake_cores(&mut self) {
        for volume in &mut self.volumes {
            volume.wake_core(&self.turn);
        }
        self.wake_resources();
        self.check_streams();
    }

    /// False: nothing has come of it that has to be settled.
    fn dispatch(&mut self, completion: Completion) -> bool {
        let Some(token) = Token::decode(completion.token) else {
            debug_assert!(false, "a completion of nobody: {completion:?}");
            return false;
        };
        match token.kind {
            Kind::Receive | Kind::Send => self.dispatch_connection(token, completion),
            Kind::Image => {
                if let Some(volume) = self.volumes.get_mut(token.index) {
                    volume.on_image(&mut self.turn, completion);
                }
            }
            Kind::Branch => {
                if let Some(volume) = self.volumes.get_mut(token.index) {
                    volume.on_branch(&mut self.turn, token, completion.result, completion.op);
                }
            }
            Kind::Metadata => {
                if let Some(volume) = self.volumes.get_mut(token.index) {
                    volume.on_metadata(&mut self.turn, completion.result, completion.op);
                }
            }
            // Dispatched by resource.
            Kind::StreamReceive | Kind::StreamSend => {
                return self.on_stream(token, completion.result, completion.op);
            }
            Kind::LinkReceive | Kind::LinkSend => {
                if let Some(volume) = self.volumes.get_mut(token.index) {
                    volume.on_link(&mut self.turn, token, completion.result, completion.op);
                }
            }
        }
        true
    }

    fn dispatch_connection(&mut self, token: Token, completion: Completion) {
        let slot = token.index as u32;
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let Some(volume) = self.volumes.get_mut(connection.volume()) else {
            return;
        };
        let Completion { result, op, .. } = completion;
        match token.kind {
            Kind::Receive => connection.on_received(volume, &mut self.turn, result, op),
            _ => connection.on_sent(volume, &mut self.turn, result, op),
        }
        self.touched.push(slot);
    }

    /// Let connections go on that have more to take, until enough was read. What comes to be resumed meanwhile waits for
    /// the next round, and behind those that were not reached.
    fn resume(&mut self) {
        let mut resume = std::mem::take(&mut self.resuming);
        std::mem::swap(&mut resume, &mut self.turn.resume);
        let mut reached = 0;
        while let Some(&slot) = resume.get(reached) {
            if self.turn.has_read_enough() {
                break;
            }
            reached += 1;
            let Some(connection) = self.connections.get_mut(slot) else {
                continue;
            };
            if let Some(volume) = self.volumes.get_mut(connection.volume()) {
                connection.proceed(volume, &mut self.turn);
                self.touched.push(slot);
            }
        }
        resume.drain(..reached);
        if !resume.is_empty() {
            resume.append(&mut self.turn.resume);
            std::mem::swap(&mut resume, &mut self.turn.resume);
        }
        self.resuming = resume;
    }

    /// Drain the cores, deliver replies, let those in who wait for room, send everything that is queued.
    fn settle(&mut self) {
        for at in 0..self.resources.len() {
            self.settle_resource(at);
        }
        for at in 0..self.leaving.len() {
            self.drain_volume(self.leaving[at]);
            if let Some(volume) = self.volumes.get_mut(self.leaving[at]) {
                volume.let_files_go();
            }
        }
        let mut touched = std::mem::take(&mut self.touched);
        for slot in touched.drain(..) {
            self.flush_connection(slot);
        }
        self.touched = touched;
        for volume in &mut self.volumes {
            volume.flush_links(&mut self.turn);
        }
        self.flush_streams();
    }

    pub(super) fn drain_volume(&mut self, at: usize) {
        loop {
            let Some(volume) = self.volumes.get_mut(at) else { return };
            volume.drain(&mut self.turn);
            let mut ended = std::mem::take(&mut self.ended);
            volume.take_ended(&mut ended);
            for end in ended.drain(..) {
                self.deliver(at, end);
            }
            self.ended = ended;
            let asked = self.volumes.get(at).is_some_and(Volume::has_outward);
            if asked {
                self.pump(at);
            }
            if !self.admit_waiting(at) && !asked {
                return;
            }
        }
    }

    fn deliver(&mut self, at: usize, end: Ended) {
        let (slot, reply) = match end {
            Ended::Replied(reply) => (reply.connection, Some(reply)),
            Ended::Dropped { connection } => (connection, None),
            Ended::Streamed(_) | Ended::Epoch { .. } => return self.deliver_to_stream(at, end),
        };
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.on_reply(reply, &self.turn);
            if self.touched.last() != Some(&slot) {
                self.touched.push(slot);
            }
        }
    }

    /// Let the connection go on that has waited longest for room. False: nobody can.
    fn admit_waiting(&mut self, at: usize) -> bool {
        let Some(volume) = self.volumes.get_mut(at) else {
            return false;
        };
        let Some(slot) = volume.next_waiting() else {
            return false;
        };
        let reserved = volume.requests_in_flight();
        match self.connections.get_mut(slot) {
            Some(connection) => connection.proceed(volume, &mut self.turn),
            None => volume.forget(slot),
        }
        self.touched.push(slot);
        volume.next_waiting() != Some(slot) || volume.requests_in_flight() != reserved
    }

    fn flush_connection(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let Some(volume) = self.volumes.get_mut(connection.volume()) else {
            return;
        };
        if connection.flush(volume, &mut self.turn) == Fate::Gone {
            tracing::debug!(
                client = connection.address(),
                export = volume.export(),
                "connection closed"
            );
            volume.disconnected(connection.reply_bytes());
            self.connections.remove(slot);
        }
    }

    fn tick(&mut self) {
        for volume in &mut self.volumes {
            volume.check_time(&mut self.turn);
        }
        let idle_before = self
            .turn
            .limits
            .idle_timeout
            .and_then(|limit| self.turn.now.checked_sub(limit));
        for (slot, connection) in self.connections.iter_mut() {
            let Some(volume) = self.volumes.get_mut(connection.volume()) else {
                continue;
            };
            if connection.check_patience(volume, &self.turn) {
                self.touched.push(slot);
            } else if connection.is_stalled() {
                // It may have hung up while it waits.
                connection.proceed(volume, &mut self.turn);
                self.touched.push(slot);
            } else if idle_before.is_some_and(|before| connection.idle_since(before)) {
                tracing::info!(
                    client = connection.address(),
                    export = volume.export(),
                    "idle for too long; closed"
                );
                connection.finish(volume, &self.turn);
                self.touched.push(slot);
            }
        }
    }

    /// When a core or a stream wants to be looked at; `MAX`: never.
    fn core_timeout(&self) -> Duration {
        let volumes = self.volumes.iter().filter_map(Volume::next_timeout);
        let resources = self.resources.iter().filter_map(ResourceSide::next_timeout);
        volumes.chain(resources).min().unwrap_or(Duration::MAX)
    }

    /// How long to sleep when nothing happens.
    fn timeout(&self) -> Option<Duration> {
        let core = Some(self.next_core).filter(|&at| at < Duration::MAX);
        let ticks =
            self.stopping.is_some() || !self.connections.is_empty() || self.volumes.iter().any(Volume::needs_time);
        let tick = ticks.then_some(self.next_tick);
        let deadline = self.stopping.as_ref().map(|stopping| stopping.deadline);
        let next = [core, tick, deadline].into_iter().flatten().min()?;
        Some(next.saturating_sub(self.started.elapsed()))
    }
}
