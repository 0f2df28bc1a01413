//! The sending half of a stream: numbers requests, keeps within the receiver's credits, knows what is in flight.

use alloc::collections::VecDeque;
use core::time::Duration;

use super::credit::Credit;
use super::frame::{Need, Sequence};

/// Requests to one peer on one connection. `T` is what the shell keeps of a request until its answer.
///
/// ```text
///  offer ──► waiting (FIFO) ── poll, as credits allow ──► in flight ── answered ──► T
///                                                            (a barrier is forgotten as soon as it is sent)
/// ```
/// A request that costs more than the receiver ever grants is sent when nothing else that costs is in flight; the
/// credits are in debt then. Bounded by what the mirrors have in flight and queued (I8).
#[derive(Debug)]
pub struct Outflow<T> {
    waiting: VecDeque<Waiting<T>>,
    /// By sequence, the first one being `first`; `None`: answered, or a barrier.
    in_flight: VecDeque<Option<InFlight<T>>>,
    first: Sequence,
    /// Sum of the costs in flight.
    cost_in_flight: u64,
    /// What may still be sent; below 0 after a request that costs more than there was.
    bytes: i64,
    requests: u32,
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    need: Need,
    since: Duration,
}

#[derive(Debug)]
struct InFlight<T> {
    item: T,
    cost: u64,
    since: Duration,
}

/// What the other did against the rules of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutflowError {
    /// An answer to a request that is not in flight.
    #[error("request {0} is answered, but is not in flight: the peer counts differently, the connection is given up")]
    NotInFlight(Sequence),
}

impl<T> Outflow<T> {
    /// For a new connection whose receiver has granted `initial`.
    pub fn new(initial: Credit) -> Self {
        let mut outflow = Self {
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            first: 1,
            cost_in_flight: 0,
            bytes: 0,
            requests: 0,
        };
        outflow.credit(initial);
        outflow
    }

    /// Queues a request behind all others.
    pub fn offer(&mut self, now: Duration, need: Need, item: T) {
        self.waiting.push_back(Waiting { item, need, since: now });
    }

    /// The next request that may be sent now, with its number; it is in flight from here on. The shell may take out of
    /// it what is needed no longer. Of a barrier the item itself comes back: nothing will answer it.
    pub fn poll(&mut self) -> Option<Sent<'_, T>> {
        let need = self.waiting.front()?.need;
        let fits = i64::try_from(need.cost).is_ok_and(|cost| cost <= self.bytes);
        let alone = self.cost_in_flight == 0;
        if self.requests == 0 || !(fits || alone) {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.requests -= 1;
        self.bytes = self.bytes.saturating_sub_unsigned(need.cost);
        let sequence = self.last_sent() + 1;
        if need.barrier {
            self.in_flight.push_back(None);
            self.forget_answered();
            return Some(Sent::Barrier {
                sequence,
                item: next.item,
            });
        }
        self.cost_in_flight += need.cost;
        self.in_flight.push_back(Some(InFlight {
            item: next.item,
            cost: need.cost,
            since: next.since,
        }));
        let item = &mut self.in_flight.back_mut()?.as_mut()?.item;
        Some(Sent::Request { sequence, item })
    }

    /// The request was answered.
    ///
    /// # Errors
    /// It was not in flight: the connection must be given up.
    pub fn answered(&mut self, sequence: Sequence) -> Result<T, OutflowError> {
        let unknown = OutflowError::NotInFlight(sequence);
        let index = sequence.checked_sub(self.first).ok_or(unknown)?;
        let slot = usize::try_from(index)
            .ok()
            .and_then(|index| self.in_flight.get_mut(index))
            .ok_or(unknown)?;
        let answered = slot.take().ok_or(unknown)?;
        self.cost_in_flight -= answered.cost;
        self.forget_answered();
        Ok(answered.item)
    }

    /// The request, if it is in flight.
    pub fn get(&self, sequence: Sequence) -> Option<&T> {
        let index = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        self.in_flight.get(index)?.as_ref().map(|found| &found.item)
    }

    /// The request, if it is in flight.
    pub fn get_mut(&mut self, sequence: Sequence) -> Option<&mut T> {
        let index = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        self.in_flight.get_mut(index)?.as_mut().map(|found| &mut found.item)
    }

    /// The receiver grants more. Beyond the bounds of [`Credit`] it is not counted.
    pub fn credit(&mut self, more: Credit) {
        let bytes = i64::try_from(more.bytes).unwrap_or(i64::MAX);
        let most = i64::try_from(Credit::BYTES_MAX).unwrap_or(i64::MAX);
        self.bytes = self.bytes.saturating_add(bytes).min(most);
        self.requests = self.requests.saturating_add(more.requests).min(Credit::REQUESTS_MAX);
    }

    /// The connection is lost: everything that was not answered, in order, and whether it had been sent.
    pub fn drain(&mut self) -> impl Iterator<Item = (T, bool)> + use<T> {
        self.first += self.in_flight.len() as u64;
        self.cost_in_flight = 0;
        let sent = core::mem::take(&mut self.in_flight);
        let waiting = core::mem::take(&mut self.waiting);
        sent.into_iter()
            .flatten()
            .map(|in_flight| (in_flight.item, true))
            .chain(waiting.into_iter().map(|waiting| (waiting.item, false)))
    }

    /// The number of the last request that was sent; 0: none.
    pub fn last_sent(&self) -> Sequence {
        self.first + self.in_flight.len() as u64 - 1
    }

    /// The number that the last request in the queue has or will have.
    pub fn head(&self) -> Sequence {
        self.last_sent() + self.waiting.len() as u64
    }

    /// Age of the oldest request that is not answered.
    pub fn age(&self, now: Duration) -> Option<Duration> {
        let sent = self.in_flight.iter().flatten().next().map(|sent| sent.since);
        let oldest = sent.or_else(|| self.waiting.front().map(|waiting| waiting.since))?;
        Some(now.saturating_sub(oldest))
    }

    /// Requests that wait for credits.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests that wait or are in flight.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.in_flight.iter().flatten().count()
    }

    /// Nothing waits and nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.iter().all(Option::is_none)
    }

    fn forget_answered(&mut self) {
        while let Some(None) = self.in_flight.front() {
            self.in_flight.pop_front();
            self.first += 1;
        }
    }
}

/// What [`Outflow::poll`] lets go.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent<'a, T> {
    /// In flight until it is answered.
    Request {
        /// Its number.
        sequence: Sequence,
        /// The shell's.
        item: &'a mut T,
    },
    /// Never answered.
    Barrier {
        /// Its number.
        sequence: Sequence,
        /// The shell's.
        item: T,
    },
}
