//! Arrival order of overlapping ranges (I2): what overlaps goes one after the other, everything else at once.

use alloc::vec::Vec;

use crate::range::ByteRange;

/// Ranges in flight and ranges that wait for them, in order of arrival over all connections.
///
/// A range is *active* from the moment it is admitted until it is released. Active ranges never overlap, so they
/// are one sorted list (of requests in flight: short, and it keeps its memory, which a tree would ask for and give back
/// all the time); each waiting range counts the earlier ranges, active or waiting, that overlap it and becomes
/// active when the count reaches zero. Arrival order is kept: nothing overtakes an earlier range it overlaps.
#[derive(Clone, Debug, Default)]
pub struct RangeOrder {
    /// By offset, and so by end.
    active: Vec<ByteRange>,
    /// In order of arrival.
    waiting: Vec<Waiter>,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    id: u32,
    range: ByteRange,
    blockers: u32,
}

impl RangeOrder {
    /// Nothing in flight.
    pub fn new() -> Self {
        Self::default()
    }

    /// Take a range. True: it is active now. False: it waits, and `release` or `cancel` will name it when ready.
    pub fn admit(&mut self, id: u32, range: ByteRange) -> bool {
        let blockers = self.active_overlaps(range) + self.waiting_overlaps(range);
        if blockers == 0 {
            self.activate(range);
            return true;
        }
        self.waiting.push(Waiter { id, range, blockers });
        false
    }

    /// An active range is done: what waited only for it becomes active and is appended to `ready`, in order.
    pub fn release(&mut self, range: ByteRange, ready: &mut Vec<u32>) {
        let at = self.first_active_behind(range.offset);
        assert_eq!(
            self.active.get(at),
            Some(&range),
            "I2: only an active range is released"
        );
        self.active.remove(at);
        self.unblock(range, 0, ready);
    }

    /// A waiting range is no longer wanted. False: it was not waiting.
    pub fn cancel(&mut self, id: u32, ready: &mut Vec<u32>) -> bool {
        let Some(at) = self.waiting.iter().position(|waiter| waiter.id == id) else {
            return false;
        };
        let gone = self.waiting.remove(at);
        self.unblock(gone.range, at, ready);
        true
    }

    /// True when nothing is active or waiting.
    pub fn is_empty(&self) -> bool {
        self.active.is_empty() && self.waiting.is_empty()
    }

    /// Ranges that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn activate(&mut self, range: ByteRange) {
        debug_assert_eq!(self.active_overlaps(range), 0, "I2: active ranges never overlap");
        self.active.insert(self.first_active_behind(range.offset), range);
    }

    /// One blocker fewer for the waiters from index `from` that overlap `range`.
    fn unblock(&mut self, range: ByteRange, from: usize, ready: &mut Vec<u32>) {
        let mut at = from;
        while at < self.waiting.len() {
            let waiter = &mut self.waiting[at];
            if waiter.range.overlaps(range) {
                waiter.blockers -= 1;
                if waiter.blockers == 0 {
                    let waiter = self.waiting.remove(at);
                    self.activate(waiter.range);
                    ready.push(waiter.id);
                    continue;
                }
            }
            at += 1;
        }
    }

    fn active_overlaps(&self, range: ByteRange) -> u32 {
        let behind = self.active[self.first_active_behind(range.offset)..].iter();
        behind.take_while(|active| active.offset < range.end()).count() as u32
    }

    /// Index of the first active range that ends behind `offset`.
    fn first_active_behind(&self, offset: u64) -> usize {
        self.active.partition_point(|active| active.end() <= offset)
    }

    fn waiting_overlaps(&self, range: ByteRange) -> u32 {
        self.waiting
            .iter()
            .filter(|waiter| waiter.range.overlaps(range))
            .count() as u32
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    #[test]
    fn overlapping_ranges_go_in_arrival_order() {
        let mut order = RangeOrder::new();
        let mut ready = vec![];
        assert!(order.admit(1, ByteRange::new(0, 10)));
        assert!(!order.admit(2, ByteRange::new(5, 10)));
        assert!(
            !order.admit(3, ByteRange::new(12, 10)),
            "overlaps the waiting 2: no overtaking"
        );
        assert!(order.admit(4, ByteRange::new(100, 1)));
        order.release(ByteRange::new(0, 10), &mut ready);
        assert_eq!(ready, [2]);
        assert!(order.cancel(3, &mut ready));
        assert!(!order.cancel(3, &mut ready));
        order.release(ByteRange::new(5, 10), &mut ready);
        order.release(ByteRange::new(100, 1), &mut ready);
        assert!(order.is_empty());
    }

    /// The obvious model: everything in one list, active when nothing earlier overlaps.
    #[derive(Default)]
    struct Oracle(Vec<(u32, ByteRange)>);

    impl Oracle {
        fn active(&self) -> Vec<u32> {
            let free = |at: &usize| self.0[..*at].iter().all(|(_, r)| !r.overlaps(self.0[*at].1));
            (0..self.0.len()).filter(free).map(|at| self.0[at].0).collect()
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_obvious_model(steps in proptest::collection::vec((0u64..40, 1u64..12, any::<u8>()), 1..120)) {
            let (mut order, mut oracle, mut active) = (RangeOrder::new(), Oracle::default(), vec![]);
            for (id, (offset, length, pick)) in steps.into_iter().enumerate() {
                let (id, range) = (id as u32, ByteRange::new(offset, length));
                oracle.0.push((id, range));
                if order.admit(id, range) {
                    active.push(id);
                }
                if pick < 140 {
                    let at = pick as usize % oracle.0.len();
                    let (gone, range) = oracle.0.remove(at);
                    if let Some(at) = active.iter().position(|&id| id == gone) {
                        active.remove(at);
                        order.release(range, &mut active);
                    } else {
                        prop_assert!(order.cancel(gone, &mut active));
                    }
                }
                active.sort_unstable();
                prop_assert_eq!(&active, &oracle.active());
            }
        }
    }
}
