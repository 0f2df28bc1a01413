//! The memory under a buffer: aligned, of zeroes at first, freed with its owner.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::ALIGNMENT;

/// From so many bytes on the memory is mapped: its pages come when they are first touched. From the allocator they would
/// all be written at once, because of the alignment, and for a client that only promises 32 MiB that keeps every other
/// client of the thread waiting for milliseconds.
const MAPPED_BYTES: usize = 128 << 10;

/// So many bytes, with one owner.
pub(super) struct Memory {
    pointer: NonNull<u8>,
    capacity: usize,
}

// SAFETY: plain bytes with one owner; whoever has the memory decides who reads and writes them.
unsafe impl Send for Memory {}
// SAFETY: as above; there is nothing to be changed through a shared reference but what `pointer` leads to.
unsafe impl Sync for Memory {}

impl Memory {
    /// `capacity` bytes: at least one, a multiple of [`ALIGNMENT`].
    pub(super) fn allocate(capacity: usize) -> Self {
        let layout = layout_of(capacity);
        let memory = if capacity >= MAPPED_BYTES {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a new mapping, wherever there is room.
            let mapped = unsafe { mmap_anonymous(ptr::null_mut(), capacity, access, MapFlags::PRIVATE) };
            mapped.map_or(ptr::null_mut(), |memory| memory.cast::<u8>())
        } else {
            // SAFETY: the layout has a non-zero size.
            unsafe { alloc_zeroed(layout) }
        };
        let Some(pointer) = NonNull::new(memory) else {
            handle_alloc_error(layout)
        };
        Self { pointer, capacity }
    }

    /// The first byte.
    pub(super) fn pointer(&self) -> *mut u8 {
        self.pointer.as_ptr()
    }

    /// Bytes there are.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let memory = self.pointer.as_ptr();
        if self.capacity >= MAPPED_BYTES {
            // SAFETY: mapped in `allocate` with this length, and unmapped only here, without any reference left.
            // It can only fail by the number of mappings; then the memory stays.
            let _ = unsafe { munmap(memory.cast(), self.capacity) };
        } else {
            // SAFETY: allocated in `allocate` with this layout, and freed only here.
            unsafe { dealloc(memory, layout_of(self.capacity)) };
        }
    }
}

fn layout_of(capacity: usize) -> Layout {
    // Cannot fail below `isize::MAX`; the fallback layout would abort in the allocator like any failed allocation.
    Layout::from_size_align(capacity, ALIGNMENT).unwrap_or(Layout::new::<u8>())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::slice;

    use super::*;

    /// Kilobytes of this process in memory.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    #[test]
    fn all_sizes_are_aligned_zeroes_to_be_written() {
        for capacity in [ALIGNMENT, MAPPED_BYTES - ALIGNMENT, MAPPED_BYTES, 1 << 20] {
            let memory = Memory::allocate(capacity);
            assert!(memory.pointer().addr().is_multiple_of(ALIGNMENT));
            // SAFETY: so many bytes, and nobody else has them.
            let bytes = unsafe { slice::from_raw_parts_mut(memory.pointer(), memory.capacity()) };
            assert_eq!(bytes.len(), capacity);
            assert!(bytes.iter().all(|byte| *byte == 0));
            bytes.fill(7);
            assert!(bytes.iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn what_is_only_promised_takes_no_memory() {
        let before = resident();
        let promised: Vec<Memory> = (0..64).map(|_| Memory::allocate(32 << 20)).collect();
        // Two gibibytes; other tests of the process may take some meanwhile.
        assert!(resident() < before + (1 << 20), "{before} KiB, now {} KiB", resident());
        drop(promised);
    }
}
