//! The in-flight table: a slab with a free list, and a list in the order of starting for "which is the oldest?". All
//! memory is taken when it is made; nothing is allocated per request.

use super::in_flight::InFlight;

/// Bits of a cookie that name the slot; the window is at most `1 << SLOT_BITS`.
const SLOT_BITS: u32 = 16;
/// Bits above them that count the slot's uses, so that a cookie of an answered request is not known any more.
const GENERATION_BITS: u32 = 24;
/// The end of a list.
const NONE: u32 = u32::MAX;

/// Largest window.
pub const MAX_WINDOW: usize = 1 << SLOT_BITS;

struct Slot<T> {
    generation: u32,
    request: Option<InFlight<T>>,
    /// Started before this one, still in flight.
    older: u32,
    /// Started after this one; for a free slot the next free one.
    newer: u32,
}

/// All requests in flight.
pub(super) struct Slots<T> {
    slots: Vec<Slot<T>>,
    /// Upper bits of every cookie: the connection's number.
    salt: u64,
    free: u32,
    oldest: u32,
    newest: u32,
    count: usize,
}

impl<T> Slots<T> {
    /// Room for `window` requests, at least 1 and at most [`MAX_WINDOW`].
    pub fn new(window: usize, connection: u32) -> Self {
        let window = window.clamp(1, MAX_WINDOW) as u32;
        let link = |index: u32| if index + 1 < window { index + 1 } else { NONE };
        let slots = (0..window).map(|index| Slot {
            generation: 0,
            request: None,
            older: NONE,
            newer: link(index),
        });
        Self {
            slots: slots.collect(),
            salt: u64::from(connection) << (SLOT_BITS + GENERATION_BITS),
            free: 0,
            oldest: NONE,
            newest: NONE,
            count: 0,
        }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn window(&self) -> usize {
        self.slots.len()
    }

    /// Takes a slot; its cookie, or `None` when the window is full.
    pub fn insert(&mut self, request: InFlight<T>) -> Option<u64> {
        let index = self.free;
        let newest = self.newest;
        let slot = self.slots.get_mut(index as usize)?;
        self.free = slot.newer;
        slot.request = Some(request);
        slot.older = newest;
        slot.newer = NONE;
        let cookie = cookie(self.salt, slot.generation, index);
        match self.slots.get_mut(newest as usize) {
            Some(before) => before.newer = index,
            None => self.oldest = index,
        }
        self.newest = index;
        self.count += 1;
        Some(cookie)
    }

    /// The slot of the request in flight with this cookie.
    pub fn find(&self, wanted: u64) -> Option<u32> {
        let index = (wanted & ((1 << SLOT_BITS) - 1)) as u32;
        let slot = self.slots.get(index as usize)?;
        (slot.request.is_some() && cookie(self.salt, slot.generation, index) == wanted).then_some(index)
    }

    pub fn get_mut(&mut self, index: u32) -> Option<&mut InFlight<T>> {
        self.slots.get_mut(index as usize)?.request.as_mut()
    }

    /// Frees a slot; its cookie is not known any more.
    pub fn remove(&mut self, index: u32) -> Option<InFlight<T>> {
        let slot = self.slots.get_mut(index as usize)?;
        let request = slot.request.take()?;
        let (older, newer) = (slot.older, slot.newer);
        slot.generation = (slot.generation + 1) & ((1 << GENERATION_BITS) - 1);
        slot.newer = self.free;
        self.free = index;
        match self.slots.get_mut(older as usize) {
            Some(before) => before.newer = newer,
            None => self.oldest = newer,
        }
        match self.slots.get_mut(newer as usize) {
            Some(after) => after.older = older,
            None => self.newest = older,
        }
        self.count -= 1;
        Some(request)
    }

    /// The request that was started first.
    pub fn oldest(&self) -> Option<(u32, &InFlight<T>)> {
        let request = self.slots.get(self.oldest as usize)?.request.as_ref()?;
        Some((self.oldest, request))
    }
}

fn cookie(salt: u64, generation: u32, index: u32) -> u64 {
    salt | u64::from(generation) << SLOT_BITS | u64::from(index)
}
