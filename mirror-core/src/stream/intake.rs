//! The receiving half of a stream: order, epochs, credits, and the fence between connections.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::credit::Credit;
use super::frame::{Need, Sequence};
use crate::event::ConnectionId;
use crate::sabotage::{Kept, Sabotage};

/// Volumes of one resource at most.
pub const VOLUMES_MAX: usize = 64;

/// Requests from one peer, over all its connections. `R` is what the shell keeps of a request until it is started.
///
/// ```text
///  arrive ──► waiting ── poll: Start, in sequence order ──► in progress ── finished ──► to be answered
///                │                                                                       take_done, take_credit
///                └── a barrier at the front: nothing behind it starts until nothing is in progress and
///                    poll: Flush of every volume written to since its last one has been `flushed`
///
///  disconnect: what waits is dropped; what is in progress is waited for. `is_quiet` only then.
/// ```
/// - **I11** A request of an older connection, or of an older Primary, never lands after a newer one: the shell tells a
///   resource of a new connection only when every intake of the resource is quiet.
/// - The barrier keeps the order of epochs: what is behind it is not applied before everything in front is durable; never
///   on this connection, if something in front has failed (its sender gives the connection up when it hears of it).
#[derive(Debug)]
pub struct Intake<R> {
    connection: Option<ConnectionId>,
    window: Credit,
    next: Sequence,
    waiting: VecDeque<Waiting<R>>,
    /// What was started on this connection, by sequence from `first` on; `None`: finished, or a barrier.
    started: VecDeque<Option<Need>>,
    first: Sequence,
    in_progress: usize,
    /// Started on an older connection, and not finished.
    old_in_progress: usize,
    /// Cost of everything that has arrived and is not finished.
    cost: u64,
    /// Requests that have arrived and are not finished.
    requests: u32,
    touched: Vec<Touched>,
    /// A barrier is at the front and flushes are under way.
    flushing: bool,
    /// A change has failed: no barrier behind it is passed on this connection.
    failed: bool,
    done: Vec<Sequence>,
    grant: Credit,
    kept: Kept,
}

#[derive(Debug)]
struct Waiting<R> {
    volume: u16,
    need: Need,
    item: Option<R>,
}

/// A volume since its last flush for a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Touched {
    Clean,
    Written,
    Flushing,
}

/// Names a started request until it is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Started {
    /// The connection it came on.
    pub connection: ConnectionId,
    /// Its number.
    pub sequence: Sequence,
}

/// What the shell has to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<R> {
    /// Start the request; tell `finished`.
    Start {
        /// Its name.
        started: Started,
        /// The volume.
        volume: u16,
        /// The shell's.
        item: R,
    },
    /// Make all that is applied to the volume durable; tell `flushed`.
    Flush {
        /// The connection whose barrier needs it.
        connection: ConnectionId,
        /// The volume.
        volume: u16,
    },
}

/// What the peer did against the rules of the stream; the connection must be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    /// A gap, or a number used twice.
    #[error("request {got} came where {expected} was due: requests are lost, the connection is given up")]
    Sequence {
        /// The number that was due.
        expected: Sequence,
        /// The number that came.
        got: Sequence,
    },
    /// A volume that the HELLO did not name.
    #[error("request {sequence} is for volume number {volume}, but there are {volumes}")]
    Volume {
        /// Its number.
        sequence: Sequence,
        /// As it says.
        volume: u16,
        /// As there are.
        volumes: usize,
    },
    /// More than was granted.
    #[error("request {sequence} exceeds the credits that were granted: the peer counts differently")]
    Overrun {
        /// Its number.
        sequence: Sequence,
    },
    /// No connection is open.
    #[error("request {sequence} came on no open connection")]
    NotConnected {
        /// Its number.
        sequence: Sequence,
    },
}

impl<R> Intake<R> {
    /// For a resource of `volumes` volumes; every connection begins with `window` granted (in the HELLO).
    pub fn new(volumes: usize, window: Credit) -> Self {
        assert!(
            volumes <= VOLUMES_MAX,
            "I8: a resource has at most {VOLUMES_MAX} volumes"
        );
        Self {
            connection: None,
            window: window.clamped(),
            next: 1,
            waiting: VecDeque::new(),
            started: VecDeque::new(),
            first: 1,
            in_progress: 0,
            old_in_progress: 0,
            cost: 0,
            requests: 0,
            touched: vec![Touched::Clean; volumes],
            flushing: false,
            failed: false,
            done: Vec::new(),
            grant: Credit::default(),
            kept: Kept::default(),
        }
    }

    /// Breaks one rule on purpose.
    #[cfg(feature = "sabotage")]
    pub fn set_sabotage(&mut self, broken: Option<Sabotage>) {
        self.kept.broken = broken;
    }

    /// A new connection takes over. Only when [`is_quiet`](Self::is_quiet): I11.
    pub fn connect(&mut self, connection: ConnectionId) {
        assert!(
            self.connection.is_none() && self.is_quiet(),
            "I11: a connection begins when the one before has ended in everything"
        );
        self.connection = Some(connection);
        self.next = 1;
        self.first = 1;
    }

    /// The connection is gone. Gives back what had arrived and was not started: it never will be.
    pub fn disconnect(&mut self) -> impl Iterator<Item = R> + use<R> {
        self.connection = None;
        self.old_in_progress += self.in_progress;
        self.in_progress = 0;
        self.started.clear();
        self.cost = 0;
        self.requests = 0;
        (self.flushing, self.failed) = (false, false);
        for touched in self.touched.iter_mut().filter(|touched| **touched == Touched::Flushing) {
            *touched = Touched::Written;
        }
        self.done.clear();
        self.grant = Credit::default();
        let dropped = core::mem::take(&mut self.waiting);
        dropped.into_iter().filter_map(|waiting| waiting.item)
    }

    /// Nothing of an older connection is in progress.
    pub fn is_quiet(&self) -> bool {
        self.old_in_progress == 0 || !self.kept.keeps(Sabotage::I11)
    }

    /// Requests in progress, of this connection and older ones.
    pub fn in_progress(&self) -> usize {
        self.in_progress + self.old_in_progress
    }

    /// A request has arrived whole, payload checked.
    ///
    /// # Errors
    /// The peer broke a rule; the connection must be given up.
    pub fn arrive(&mut self, sequence: Sequence, volume: u16, need: Need, item: R) -> Result<(), IntakeError> {
        self.admit(sequence, volume, need)?;
        self.next += 1;
        self.requests += 1;
        self.cost += need.cost;
        let item = (!need.barrier).then_some(item);
        self.waiting.push_back(Waiting { volume, need, item });
        Ok(())
    }

    /// Whether a request may come with these properties: to be asked before its payload is received.
    ///
    /// # Errors
    /// As of [`arrive`](Self::arrive).
    pub fn admit(&self, sequence: Sequence, volume: u16, need: Need) -> Result<(), IntakeError> {
        if self.connection.is_none() {
            return Err(IntakeError::NotConnected { sequence });
        }
        if sequence != self.next && self.kept.keeps(Sabotage::SequenceChecked) {
            let expected = self.next;
            return Err(IntakeError::Sequence {
                expected,
                got: sequence,
            });
        }
        if !need.barrier && usize::from(volume) >= self.touched.len() {
            let volumes = self.touched.len();
            return Err(IntakeError::Volume {
                sequence,
                volume,
                volumes,
            });
        }
        let fits = self.cost == 0 || need.cost == 0 || self.cost.saturating_add(need.cost) <= self.window.bytes;
        if self.requests >= self.window.requests || !fits {
            return Err(IntakeError::Overrun { sequence });
        }
        Ok(())
    }

    /// What to do next; call until `None` after every other call.
    pub fn poll(&mut self) -> Option<Step<R>> {
        let connection = self.connection?;
        while self.waiting.front()?.need.barrier {
            if let Some(step) = self.at_barrier(connection) {
                return Some(step);
            }
            let held = self.flushing || self.failed || self.in_progress > 0;
            if held && self.kept.keeps(Sabotage::BarrierHeld) {
                return None;
            }
            self.pass_barrier();
        }
        let waiting = self.waiting.pop_front()?;
        let item = waiting.item?;
        if waiting.need.mutates
            && let Some(touched) = self.touched.get_mut(usize::from(waiting.volume))
        {
            *touched = Touched::Written;
        }
        let sequence = self.first + self.started.len() as u64;
        self.started.push_back(Some(waiting.need));
        self.in_progress += 1;
        Some(Step::Start {
            started: Started { connection, sequence },
            volume: waiting.volume,
            item,
        })
    }

    /// A started request has ended. With `done` it is answered by the next batch of [`take_done`](Self::take_done);
    /// else the shell answers it itself: one that changes the volume has failed then. Returns false when its connection is
    /// gone: do not answer.
    pub fn finished(&mut self, started: Started, done: bool) -> bool {
        if self.connection != Some(started.connection) {
            assert!(self.old_in_progress > 0, "I11: a request ends once");
            self.old_in_progress -= 1;
            return false;
        }
        let index = started.sequence.checked_sub(self.first);
        let slot = index
            .and_then(|index| usize::try_from(index).ok())
            .and_then(|index| self.started.get_mut(index));
        let need = slot.and_then(Option::take);
        assert!(need.is_some(), "a request ends once, after it was started");
        self.in_progress -= 1;
        self.give_back(need.map_or(0, |need| need.cost));
        self.failed |= !done && need.is_some_and(|need| need.mutates);
        if done {
            self.done.push(started.sequence);
        }
        self.forget_finished();
        true
    }

    /// A volume was flushed for a barrier. A failure is for the shell to deal with: the connection must be given up.
    pub fn flushed(&mut self, connection: ConnectionId, volume: u16) {
        if self.connection != Some(connection) {
            return;
        }
        if let Some(touched) = self.touched.get_mut(usize::from(volume))
            && *touched == Touched::Flushing
        {
            *touched = Touched::Clean;
        }
        self.flushing = self.touched.contains(&Touched::Flushing);
    }

    /// Takes the numbers of what is done and not answered yet, `max` at most.
    pub fn take_done(&mut self, max: usize) -> Option<Vec<Sequence>> {
        if self.done.is_empty() {
            return None;
        }
        let rest = self.done.split_off(max.min(self.done.len()));
        Some(core::mem::replace(&mut self.done, rest))
    }

    /// Takes what is to be granted, once it is worth a frame.
    pub fn take_credit(&mut self) -> Option<Credit> {
        let worth = self.grant.bytes >= (self.window.bytes / 4).max(1)
            || self.grant.requests >= (self.window.requests / 4).max(1);
        worth.then(|| core::mem::take(&mut self.grant))
    }

    /// Flushes the barrier at the front needs; `None`: it has to wait, or all is durable.
    fn at_barrier(&mut self, connection: ConnectionId) -> Option<Step<R>> {
        if self.in_progress > 0 || !self.kept.keeps(Sabotage::BarrierFlushed) {
            return None;
        }
        let index = self.touched.iter().position(|touched| *touched == Touched::Written)?;
        let volume = u16::try_from(index).ok()?;
        if let Some(touched) = self.touched.get_mut(index) {
            *touched = Touched::Flushing;
        }
        self.flushing = true;
        Some(Step::Flush { connection, volume })
    }

    fn pass_barrier(&mut self) {
        self.waiting.pop_front();
        self.started.push_back(None);
        self.give_back(0);
        self.forget_finished();
    }

    fn give_back(&mut self, cost: u64) {
        self.cost -= cost;
        self.requests -= 1;
        self.grant.bytes += cost;
        self.grant.requests += 1;
    }

    fn forget_finished(&mut self) {
        while let Some(None) = self.started.front() {
            self.started.pop_front();
            self.first += 1;
        }
    }
}
