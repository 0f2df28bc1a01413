//! The data thread: one loop that owns volumes, host connections and links to peers.

use std::io;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use super::connection::{Connection, Fate};
use super::message::{DataPlan, FromData, ToData};
use super::slab::Slab;
use super::stop::Stopping;
use super::token::{INDEX_MAX, Kind, Token};
use super::turn::Turn;
use super::volume::{Ended, Volume};
use crate::ring::Completion;

/// Messages taken in one turn; the rest wait for the next one, so that I/O is never starved.
const MESSAGES_PER_TURN: usize = 64;
/// Rounds of completions that finished at once in one turn; the rest wait for the next one.
const ROUNDS_PER_TURN: usize = 32;
/// How often timeouts of requests, fences and idle connections are looked at.
const TICK: Duration = Duration::from_millis(250);

/// Everything a data thread owns.
pub(super) struct DataThread {
    pub(super) turn: Turn,
    started: Instant,
    messages: Receiver<ToData>,
    pub(super) volumes: Vec<Volume>,
    pub(super) connections: Slab<Connection>,
    /// Connections whose send queue or end has to be looked at.
    pub(super) touched: Vec<u32>,
    completions: Vec<Completion>,
    ended: Vec<Ended>,
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
        let volumes = plan.volumes.into_iter().enumerate();
        let volumes: io::Result<Vec<_>> = volumes.map(|(at, plan)| Volume::new(at, plan, &turn.limits)).collect();
        Ok(Self {
            turn,
            started: Instant::now(),
            messages,
            volumes: volumes?,
            connections: Slab::new(),
            touched: Vec::new(),
            completions: Vec::new(),
            ended: Vec::new(),
            next_tick: Duration::ZERO,
            stopping: None,
        })
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
        for _ in 0..ROUNDS_PER_TURN {
            for completion in completions.drain(..) {
                self.dispatch(completion);
            }
            self.resume();
            self.settle();
            std::mem::swap(&mut completions, &mut self.turn.inline);
            if completions.is_empty() && self.turn.resume.is_empty() {
                break;
            }
        }
        if let Some(after) = self.check_stop() {
            return Ok(after);
        }
        let timeout = if completions.is_empty() && self.turn.resume.is_empty() {
            self.timeout()
        } else {
            Some(Duration::ZERO)
        };
        let waited = self.turn.driver.wait(timeout, &mut completions);
        self.completions = completions;
        self.turn.now = self.started.elapsed();
        waited?;
        for volume in &mut self.volumes {
            volume.wake_core(&self.turn);
        }
        if self.turn.now >= self.next_tick {
            self.next_tick = self.turn.now + TICK;
            self.tick();
        }
        Ok(After::GoOn)
    }

    fn dispatch(&mut self, completion: Completion) {
        let Some(token) = Token::decode(completion.token) else {
            debug_assert!(false, "a completion of nobody: {completion:?}");
            return;
        };
        match token.kind {
            Kind::Receive | Kind::Send => self.dispatch_connection(token, completion),
            Kind::Image => {
                if let Some(volume) = self.volumes.get_mut(token.index) {
                    volume.on_image(&mut self.turn, completion);
                }
            }
            Kind::Metadata => {
                if let Some(volume) = self.volumes.get_mut(token.index) {
                    volume.on_metadata(&mut self.turn, completion.result, completion.op);
                }
            }
            Kind::LinkReceive | Kind::LinkSend => {
                if let Some(volume) = self.volumes.get_mut(token.index) {
                    volume.on_link(&mut self.turn, token, completion.result, completion.op);
                }
            }
        }
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

    /// Let connections go on that have more to take.
    fn resume(&mut self) {
        let mut resume = std::mem::take(&mut self.turn.resume);
        for slot in resume.drain(..) {
            let Some(connection) = self.connections.get_mut(slot) else {
                continue;
            };
            if let Some(volume) = self.volumes.get_mut(connection.volume()) {
                connection.proceed(volume, &mut self.turn);
                self.touched.push(slot);
            }
        }
        // What has come to be resumed meanwhile waits for the next round.
        resume.append(&mut self.turn.resume);
        self.turn.resume = resume;
    }

    /// Drain the cores, deliver replies, let those in who wait for room, send everything that is queued.
    fn settle(&mut self) {
        for at in 0..self.volumes.len() {
            self.drain_volume(at);
        }
        let mut touched = std::mem::take(&mut self.touched);
        for slot in touched.drain(..) {
            self.flush_connection(slot);
        }
        self.touched = touched;
        for volume in &mut self.volumes {
            volume.flush_links(&mut self.turn);
        }
    }

    fn drain_volume(&mut self, at: usize) {
        loop {
            let Some(volume) = self.volumes.get_mut(at) else { return };
            volume.drain(&mut self.turn);
            let mut ended = std::mem::take(&mut self.ended);
            volume.take_ended(&mut ended);
            for end in ended.drain(..) {
                self.deliver(end);
            }
            self.ended = ended;
            if !self.admit_waiting(at) {
                return;
            }
        }
    }

    fn deliver(&mut self, end: Ended) {
        let slot = end.connection();
        if let Some(connection) = self.connections.get_mut(slot) {
            let reply = match end {
                Ended::Replied(reply) => Some(reply),
                Ended::Dropped { .. } => None,
            };
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

    fn take_messages(&mut self) {
        for _ in 0..MESSAGES_PER_TURN {
            match self.messages.try_recv() {
                Ok(message) => self.on_message(message),
                Err(TryRecvError::Empty) => return,
                // The control side is gone: nobody will ever ask again.
                Err(TryRecvError::Disconnected) => return self.stop(Duration::ZERO),
            }
        }
        // There may be more: come back without sleeping.
        self.turn.driver.waker().wake();
    }

    fn on_message(&mut self, message: ToData) {
        match message {
            ToData::Client(handover) => self.accept(handover),
            ToData::PeerReady(handover) => {
                if let Some(volume) = self.volumes.get_mut(handover.volume) {
                    volume.peer_ready(&self.turn, handover);
                }
            }
            ToData::PeerFailed { volume, peer, error } => {
                if let Some(volume) = self.volumes.get_mut(volume) {
                    volume.peer_failed(&self.turn, peer, error);
                }
            }
            ToData::Status(answer) => {
                let snapshots = self.volumes.iter().map(|volume| volume.snapshot(&self.turn)).collect();
                // Whoever asked may have given up.
                let _ = answer.send(snapshots);
            }
            ToData::Command {
                volume,
                peer,
                command,
                answer,
            } => {
                let _ = answer.send(self.command(volume, peer, command));
            }
            ToData::Stop { deadline } => self.stop(deadline),
        }
    }

    fn accept(&mut self, handover: super::message::ClientHandover) {
        let Some(volume) = self.volumes.get_mut(handover.volume) else {
            return;
        };
        if self.stopping.is_some() || self.connections.len() > INDEX_MAX {
            tracing::warn!(
                client = handover.address,
                "connection refused: stopping, or too many connections"
            );
            return;
        }
        let address = handover.address.clone();
        // The slot is known before the connection is made: it is the one freed last, or a new one.
        let slot = self.connections.next_index();
        match Connection::new(slot, handover, &self.turn) {
            Ok(connection) => {
                volume.connected();
                let inserted = self.connections.insert(connection);
                debug_assert_eq!(inserted, slot);
                if let Some(connection) = self.connections.get_mut(slot) {
                    connection.proceed(volume, &mut self.turn);
                }
                self.touched.push(slot);
            }
            Err(error) => tracing::warn!(client = address, error = %error, "cannot use the connection"),
        }
    }

    fn command(
        &mut self,
        volume: usize,
        peer: usize,
        command: blockmirror_client::admin::PeerCommand,
    ) -> Result<(), String> {
        use blockmirror_client::admin::PeerCommand;
        use mirror_core::event::{Command, PeerIndex};
        if self.stopping.is_some() {
            return Err("the daemon is stopping".to_owned());
        }
        let Some(volume) = self.volumes.get_mut(volume) else {
            return Err("no such volume".to_owned());
        };
        if peer >= volume.peer_count() {
            return Err(format!("volume {} has no such peer", volume.export()));
        }
        let index = PeerIndex(peer as u8);
        volume.command(
            &self.turn,
            match command {
                PeerCommand::Connect | PeerCommand::Resync { full: false } => Command::Connect(index),
                PeerCommand::Disconnect => Command::Disconnect(index),
                PeerCommand::Resync { full: true } => Command::Invalidate(index),
            },
        );
        Ok(())
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

    /// How long to sleep when nothing happens.
    fn timeout(&self) -> Option<Duration> {
        let core = self.volumes.iter().filter_map(Volume::next_timeout).min();
        let ticks =
            self.stopping.is_some() || !self.connections.is_empty() || self.volumes.iter().any(Volume::needs_time);
        let tick = ticks.then_some(self.next_tick);
        let deadline = self.stopping.as_ref().map(|stopping| stopping.deadline);
        let next = [core, tick, deadline].into_iter().flatten().min()?;
        Some(next.saturating_sub(self.started.elapsed()))
    }
}
