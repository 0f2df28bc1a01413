//! Bytes and operations reserved before a payload is read.

use std::collections::VecDeque;

/// The floor of a connection: one request up to this many bytes gets room while payloads that do not arrive take it all.
pub(crate) const FLOOR_BYTES: u64 = 64 << 10;

/// What a volume's host requests may hold at once (the quota), and who waits for room.
///
/// Room is given in order of arrival: while a connection waits, no other one gets any, so a large request is never
/// starved by small ones. But room that is held for payloads on their way is in the hands of those who send them: while
/// that is more than half of it, a connection that holds nothing may go beyond the limit by [`FLOOR_BYTES`].
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_limit: u64,
    requests_limit: u32,
    bytes: u64,
    requests: u32,
    /// The part of `bytes` whose payloads are on their way.
    arriving: u64,
    waiting: VecDeque<u32>,
}

impl Budget {
    pub(crate) fn new(bytes_limit: u64, requests_limit: u32) -> Self {
        Self {
            bytes_limit,
            requests_limit: requests_limit.max(1),
            bytes: 0,
            requests: 0,
            arriving: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Take room for one request of `bytes`, or join the queue. A request larger than the whole budget is let in alone.
    /// `is_idle`: the connection holds no room.
    pub(crate) fn reserve(&mut self, connection: u32, bytes: u64, is_idle: bool) -> bool {
        let first = self.waiting.front().is_none_or(|&front| front == connection);
        let held_up = self.arriving > self.bytes_limit / 2;
        if (first && self.fits(bytes)) || (held_up && is_idle && bytes <= FLOOR_BYTES) {
            if !self.waiting.is_empty() {
                self.forget(connection);
            }
            self.bytes += bytes;
            self.requests += 1;
            self.arriving += bytes;
            return true;
        }
        self.wait(connection);
        false
    }

    /// The payload of a request is there, or it needs none.
    pub(crate) fn arrived(&mut self, bytes: u64) {
        debug_assert!(self.arriving >= bytes, "only what is on its way arrives");
        self.arriving = self.arriving.saturating_sub(bytes);
    }

    /// Somebody waits for room.
    pub(crate) fn is_short(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Join the queue.
    pub(crate) fn wait(&mut self, connection: u32) {
        if !self.waiting.contains(&connection) {
            self.waiting.push_back(connection);
        }
    }

    /// One request is over.
    pub(crate) fn release(&mut self, bytes: u64) {
        debug_assert!(
            self.requests > 0 && self.bytes >= bytes,
            "only what was reserved is released"
        );
        self.bytes = self.bytes.saturating_sub(bytes);
        self.requests = self.requests.saturating_sub(1);
    }

    /// The connection that may try again now, if any.
    pub(crate) fn next_waiting(&self) -> Option<u32> {
        let front = self.waiting.front()?;
        (self.requests < self.requests_limit && self.bytes < self.bytes_limit).then_some(*front)
    }

    /// The connection no longer wants room.
    pub(crate) fn forget(&mut self, connection: u32) {
        self.waiting.retain(|&waiting| waiting != connection);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn requests(&self) -> u32 {
        self.requests
    }

    fn fits(&self, bytes: u64) -> bool {
        self.requests == 0 || (self.requests < self.requests_limit && self.bytes + bytes <= self.bytes_limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_requests_do_not_starve_a_large_one() {
        let mut budget = Budget::new(100, 10);
        assert!(budget.reserve(1, 60, false));
        assert!(!budget.reserve(2, 50, false), "does not fit");
        assert!(!budget.reserve(3, 10, false), "would fit, but 2 came first");
        budget.release(60);
        assert_eq!(budget.next_waiting(), Some(2));
        assert!(!budget.reserve(3, 10, false));
        assert!(budget.reserve(2, 50, false));
        assert_eq!(budget.next_waiting(), Some(3));
        assert!(budget.reserve(3, 10, false));
        assert_eq!(budget.next_waiting(), None);
        assert_eq!((budget.bytes(), budget.requests()), (60, 2));
    }

    #[test]
    fn a_request_larger_than_everything_is_let_in_alone() {
        let mut budget = Budget::new(100, 10);
        assert!(budget.reserve(1, 500, false));
        assert!(!budget.reserve(1, 1, false));
        budget.release(500);
        assert!(budget.reserve(1, 1, false));
    }

    #[test]
    fn a_connection_that_is_gone_lets_the_next_one_in() {
        let mut budget = Budget::new(100, 1);
        assert!(budget.reserve(1, 1, false));
        assert!(!budget.reserve(2, 1, false));
        assert!(!budget.reserve(3, 1, false));
        budget.forget(2);
        budget.release(1);
        assert_eq!(budget.next_waiting(), Some(3));
        assert!(budget.reserve(3, 1, false));
    }

    #[test]
    fn who_sends_no_payload_does_not_keep_small_requests_out() {
        let mut budget = Budget::new(64 << 20, 10);
        assert!(budget.reserve(1, 40 << 20, true));
        assert!(!budget.reserve(2, 40 << 20, true), "the quota");
        assert!(
            budget.reserve(3, FLOOR_BYTES, true),
            "the floor, past the one that waits"
        );
        assert!(!budget.reserve(3, FLOOR_BYTES, false), "once");
        assert!(!budget.reserve(4, FLOOR_BYTES + 1, true));
        budget.arrived(40 << 20);
        assert!(
            !budget.reserve(5, 1, true),
            "what has arrived comes to its end: in order again"
        );
        budget.release(40 << 20);
        assert_eq!(budget.next_waiting(), Some(2));
        assert!(budget.reserve(2, 40 << 20, true));
        assert!(budget.is_short());
    }
}
