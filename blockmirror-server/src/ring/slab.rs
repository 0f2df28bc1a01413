//! Operations in flight, found again by key: [`Slab`].

/// Entries a slab can hold.
pub(crate) const SLAB_MAX: usize = 1 << 16;

/// Entries under keys that carry a generation, so that a key of an entry removed earlier finds nothing.
///
/// A key is `generation << 16 | index`: it fits the low 32 bits of a token, and is decoded here and nowhere else.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u16>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u16,
    entry: Option<T>,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The key the next [`Slab::insert`] will give.
    pub(crate) fn next_key(&self) -> u32 {
        match self.free.last() {
            Some(&index) => key_of(self.slots[usize::from(index)].generation, index),
            None => key_of(0, self.slots.len() as u16),
        }
    }

    /// Keeps an entry. The caller keeps the number of entries at or below [`SLAB_MAX`].
    pub(crate) fn insert(&mut self, entry: T) -> u32 {
        assert!(self.len() < SLAB_MAX, "more than {SLAB_MAX} operations in flight");
        let next = self.next_key();
        match self.free.pop() {
            Some(index) => self.slots[usize::from(index)].entry = Some(entry),
            None => self.slots.push(Slot {
                generation: 0,
                entry: Some(entry),
            }),
        }
        next
    }

    pub(crate) fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        let slot = self.slots.get_mut(index(key))?;
        if slot.generation != generation(key) {
            return None;
        }
        slot.entry.as_mut()
    }

    /// Takes an entry out; its key is never valid again.
    pub(crate) fn remove(&mut self, key: u32) -> Option<T> {
        let slot = self.slots.get_mut(index(key))?;
        if slot.generation != generation(key) {
            return None;
        }
        let entry = slot.entry.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key as u16);
        Some(entry)
    }

    /// The keys of all entries.
    pub(crate) fn keys(&self) -> Vec<u32> {
        let occupied = self.slots.iter().enumerate().filter(|(_, slot)| slot.entry.is_some());
        occupied
            .map(|(index, slot)| key_of(slot.generation, index as u16))
            .collect()
    }

    /// Every entry, to be leaked or drained.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = T> + '_ {
        self.free.clear();
        self.slots.drain(..).filter_map(|slot| slot.entry)
    }
}

fn key_of(generation: u16, index: u16) -> u32 {
    u32::from(generation) << 16 | u32::from(index)
}

fn index(key: u32) -> usize {
    usize::from(key as u16)
}

fn generation(key: u32) -> u16 {
    (key >> 16) as u16
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_finds_its_entry_and_never_a_later_one() {
        let mut slab = Slab::new();
        let announced = slab.next_key();
        let first = slab.insert("first");
        assert_eq!(first, announced);
        let other = slab.insert("other");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_ne!(first, second);
        assert_eq!(index(first), index(second));
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get_mut(second).copied(), Some("second"));
        assert_eq!(slab.get_mut(other).copied(), Some("other"));
        assert_eq!(slab.len(), 2);
        assert_eq!(slab.remove(0xffff_ffff), None);
    }

    #[test]
    fn all_entries_come_out() {
        let mut slab = Slab::new();
        let gone = slab.insert(1);
        slab.insert(2);
        slab.insert(3);
        slab.remove(gone);
        assert_eq!(slab.take_all().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(slab.len(), 0);
    }
}
