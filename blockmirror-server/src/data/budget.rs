//! Bytes and operations reserved before a payload is read.

use std::collections::VecDeque;

/// What a volume's host requests may hold at once, and who waits for room.
///
/// Room is given in order of arrival: while a connection waits, no other one gets any, so a large request is never
/// starved by small ones.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_limit: u64,
    requests_limit: u32,
    bytes: u64,
    requests: u32,
    waiting: VecDeque<u32>,
}

impl Budget {
    pub(crate) fn new(bytes_limit: u64, requests_limit: u32) -> Self {
        Self {
            bytes_limit,
            requests_limit: requests_limit.max(1),
            bytes: 0,
            requests: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Take room for one request of `bytes`, or join the queue. A request larger than the whole budget is let in alone.
    pub(crate) fn reserve(&mut self, connection: u32, bytes: u64) -> bool {
        let first = self.waiting.front().is_none_or(|&front| front == connection);
        if first && self.fits(bytes) {
            if !self.waiting.is_empty() {
                self.waiting.pop_front();
            }
            self.bytes += bytes;
            self.requests += 1;
            return true;
        }
        self.wait(connection);
        false
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
        assert!(budget.reserve(1, 60));
        assert!(!budget.reserve(2, 50), "does not fit");
        assert!(!budget.reserve(3, 10), "would fit, but 2 came first");
        budget.release(60);
        assert_eq!(budget.next_waiting(), Some(2));
        assert!(!budget.reserve(3, 10));
        assert!(budget.reserve(2, 50));
        assert_eq!(budget.next_waiting(), Some(3));
        assert!(budget.reserve(3, 10));
        assert_eq!(budget.next_waiting(), None);
        assert_eq!((budget.bytes(), budget.requests()), (60, 2));
    }

    #[test]
    fn a_request_larger_than_everything_is_let_in_alone() {
        let mut budget = Budget::new(100, 10);
        assert!(budget.reserve(1, 500));
        assert!(!budget.reserve(1, 1));
        budget.release(500);
        assert!(budget.reserve(1, 1));
    }

    #[test]
    fn a_connection_that_is_gone_lets_the_next_one_in() {
        let mut budget = Budget::new(100, 1);
        assert!(budget.reserve(1, 1));
        assert!(!budget.reserve(2, 1));
        assert!(!budget.reserve(3, 1));
        budget.forget(2);
        budget.release(1);
        assert_eq!(budget.next_waiting(), Some(3));
        assert!(budget.reserve(3, 1));
    }
}
