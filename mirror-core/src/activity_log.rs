//! The bounded set of hot extents (I1): which may have writes under way, and which may go cold.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::config::PEERS_MAX;
use crate::event::RequestId;
use crate::range::{ByteRange, EXTENT_BYTES};

/// Legs of a volume: the local one is 0, peer `p` is `p + 1`.
pub(crate) const LEGS_MAX: usize = PEERS_MAX + 1;
/// One number per leg.
pub(crate) type LegStamps = [u64; LEGS_MAX];

const NO_SLOT: u32 = u32::MAX;
const NO_EXTENT: u32 = u32::MAX;

/// Life of a slot: free, then activating (its transaction is in flight), hot, and free or another extent again.
#[derive(Clone, Copy, Debug)]
struct Slot {
    extent: u32,
    /// In the durable set.
    hot: bool,
    /// Requests under way in the extent.
    pins: u32,
    /// When it was last pinned, on the log's own clock.
    used: u64,
    /// Per leg, the stamp of the latest mutation that ended in the extent.
    stamps: LegStamps,
}

/// The activity log in memory. Its durable form is a list of extents, written whole in every transaction.
#[derive(Clone, Debug)]
pub(crate) struct ActivityLog {
    slots: Vec<Slot>,
    /// Extent to slot.
    index: Vec<u32>,
    clock: u64,
    /// Requests that need a cold extent, in order; they hold no pins.
    pub(crate) queue: VecDeque<RequestId>,
    /// The head of the queue found no slot: nothing passes it until it has.
    pub(crate) starving: bool,
}

impl ActivityLog {
    /// All cold.
    pub(crate) fn new(size: u64, slots: usize) -> Self {
        let free = Slot {
            extent: NO_EXTENT,
            hot: false,
            pins: 0,
            used: 0,
            stamps: [0; LEGS_MAX],
        };
        Self {
            slots: vec![free; slots],
            index: vec![NO_SLOT; size.div_ceil(EXTENT_BYTES) as usize],
            clock: 0,
            queue: VecDeque::new(),
            starving: false,
        }
    }

    /// Every extent of the range is durably in the log.
    pub(crate) fn is_hot(&self, range: ByteRange) -> bool {
        range
            .extents()
            .all(|extent| self.slot(extent).is_some_and(|slot| self.slots[slot].hot))
    }

    /// A request starts in the range: its extents stay in the log until `unpin`.
    pub(crate) fn pin(&mut self, range: ByteRange) {
        self.clock += 1;
        for extent in range.extents() {
            let at = self.index[extent as usize] as usize;
            self.slots[at].pins += 1;
            self.slots[at].used = self.clock;
        }
    }

    /// A request that pinned the range has ended on every leg; `stamps` are the legs' flush numbers now.
    pub(crate) fn unpin(&mut self, range: ByteRange, stamps: &LegStamps) {
        for extent in range.extents() {
            let at = self.index[extent as usize] as usize;
            let slot = &mut self.slots[at];
            assert!(
                slot.pins > 0 && slot.hot,
                "I1: an extent with a request under way is hot"
            );
            slot.pins -= 1;
            slot.stamps = *stamps;
        }
    }

    /// Slots that may be given to another extent, the longest unused last: free, or without requests under way and
    /// `durable` on every leg.
    pub(crate) fn available(&self, durable: impl Fn(&LegStamps) -> bool) -> Vec<u32> {
        let usable = |slot: &Slot| slot.extent == NO_EXTENT || slot.pins == 0 && durable(&slot.stamps);
        let mut found: Vec<u32> = (0..self.slots.len() as u32)
            .filter(|&at| usable(&self.slots[at as usize]))
            .collect();
        found.sort_by_key(|&at| {
            let slot = &self.slots[at as usize];
            core::cmp::Reverse((slot.extent != NO_EXTENT, slot.used, at))
        });
        found
    }

    /// Give every cold extent of the range a slot from `available` and pin all of them. False, and nothing changed,
    /// when there are too few. Extents that go cold for it are appended to `evicted`.
    pub(crate) fn reserve(&mut self, range: ByteRange, available: &mut Vec<u32>, evicted: &mut Vec<u32>) -> bool {
        let cold = range.extents().filter(|&extent| self.slot(extent).is_none()).count();
        let mine = |slot: &Slot| range.extents().contains(&u64::from(slot.extent));
        let usable = |slot: &Slot| slot.pins == 0 && !(slot.extent != NO_EXTENT && mine(slot));
        let enough = available.iter().filter(|&&at| usable(&self.slots[at as usize])).count() >= cold;
        if !enough {
            return false;
        }
        for extent in range.extents() {
            if self.slot(extent).is_some() {
                continue;
            }
            let Some(at) = available.iter().rposition(|&at| usable(&self.slots[at as usize])) else {
                return false;
            };
            let at = available.remove(at);
            let slot = &mut self.slots[at as usize];
            if slot.extent != NO_EXTENT {
                evicted.push(slot.extent);
                self.index[slot.extent as usize] = NO_SLOT;
            }
            *slot = Slot {
                extent: extent as u32,
                hot: false,
                pins: 0,
                used: 0,
                stamps: [0; LEGS_MAX],
            };
            self.index[extent as usize] = at;
        }
        self.pin(range);
        true
    }

    /// The set to write: every extent that is hot or is to become so.
    pub(crate) fn extents(&self) -> Vec<u32> {
        let mut all: Vec<u32> = self
            .slots
            .iter()
            .map(|slot| slot.extent)
            .filter(|&extent| extent != NO_EXTENT)
            .collect();
        all.sort_unstable();
        all
    }

    /// The set as it is now became durable. Called with no reservation made since it was written.
    pub(crate) fn became_durable(&mut self) {
        for slot in &mut self.slots {
            slot.hot = slot.extent != NO_EXTENT;
        }
    }

    /// I1 removed: reserved extents count as durable at once.
    pub(crate) fn pretend_durable(&mut self) {
        self.became_durable();
    }

    /// Forget everything: the mirror stops and every leg is durable.
    pub(crate) fn clear(&mut self) {
        for slot in &mut self.slots {
            assert_eq!(slot.pins, 0, "I1: no request is under way when the log is cleared");
            if slot.extent != NO_EXTENT {
                self.index[slot.extent as usize] = NO_SLOT;
                slot.extent = NO_EXTENT;
                slot.hot = false;
            }
        }
    }

    /// Some extent without requests under way only waits for a leg to flush.
    pub(crate) fn is_unsettled(&self, durable: impl Fn(&LegStamps) -> bool) -> bool {
        self.slots
            .iter()
            .any(|slot| slot.extent != NO_EXTENT && slot.pins == 0 && !durable(&slot.stamps))
    }

    /// Extents with requests under way, or with mutations that are not `durable`.
    pub(crate) fn unsettled(&self, durable: impl Fn(&LegStamps) -> bool) -> Vec<u32> {
        let unsettled = |slot: &&Slot| slot.extent != NO_EXTENT && (slot.pins > 0 || !durable(&slot.stamps));
        self.slots.iter().filter(unsettled).map(|slot| slot.extent).collect()
    }

    /// The volume has another size. What is beyond it is not in the log.
    pub(crate) fn resize(&mut self, size: u64) {
        self.index.resize(size.div_ceil(EXTENT_BYTES) as usize, NO_SLOT);
    }

    /// Is the extent in the log, durably or on its way?
    pub(crate) fn contains(&self, extent: u64) -> bool {
        self.slot(extent).is_some()
    }

    /// Extents in the log.
    pub(crate) fn len(&self) -> usize {
        self.slots.iter().filter(|slot| slot.extent != NO_EXTENT).count()
    }

    fn slot(&self, extent: u64) -> Option<usize> {
        let at = self.index[extent as usize];
        (at != NO_SLOT).then_some(at as usize)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;

    fn extent(number: u64) -> ByteRange {
        ByteRange::new(number * EXTENT_BYTES, 512)
    }

    fn reserve(log: &mut ActivityLog, range: ByteRange) -> Option<Vec<u32>> {
        let (mut available, mut evicted) = (log.available(|_| true), vec![]);
        log.reserve(range, &mut available, &mut evicted).then_some(evicted)
    }

    #[test]
    fn the_longest_unused_durable_extent_goes_cold_first() {
        let mut log = ActivityLog::new(100 * EXTENT_BYTES, 2);
        assert_eq!(reserve(&mut log, extent(7)), Some(vec![]));
        assert!(!log.is_hot(extent(7)), "hot only once durable");
        assert_eq!(reserve(&mut log, extent(8)), Some(vec![]));
        log.became_durable();
        assert!(log.is_hot(extent(7)) && log.is_hot(extent(8)));
        assert_eq!(reserve(&mut log, extent(9)), None, "both are pinned");
        log.unpin(extent(8), &[1; LEGS_MAX]);
        log.unpin(extent(7), &[2; LEGS_MAX]);
        assert!(
            log.available(|stamps| stamps[0] < 1).is_empty(),
            "not durable: stays hot"
        );
        assert_eq!(reserve(&mut log, extent(9)), Some(vec![7]), "7 was pinned before 8");
        assert_eq!(log.extents(), [8, 9]);
    }

    #[test]
    fn a_range_over_two_extents_gets_both_or_none() {
        let mut log = ActivityLog::new(100 * EXTENT_BYTES, 2);
        let both = ByteRange::new(EXTENT_BYTES - 512, 1024);
        assert!(reserve(&mut log, both).is_some());
        log.became_durable();
        log.unpin(both, &[0; LEGS_MAX]);
        assert!(reserve(&mut log, extent(0)).is_some());
        assert_eq!(reserve(&mut log, ByteRange::new(5 * EXTENT_BYTES - 512, 1024)), None);
        assert_eq!(log.len(), 2);
    }
}
