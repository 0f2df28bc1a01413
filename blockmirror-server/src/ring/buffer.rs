//! Aligned buffers that are used again: [`BufferPool`] hands out a [`Buffer`] (one owner, writable), which becomes a
//! [`Payload`] (many owners, read only), whose last owner gives the memory back to the pool.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Bound, RangeBounds};
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::memory::Memory;

/// Alignment in bytes of every buffer: a page, which satisfies direct I/O on every block size up to 4 KiB.
pub const ALIGNMENT: usize = 4096;

/// Size classes are powers of two from one page ...
const CLASS_MIN_BITS: u32 = ALIGNMENT.trailing_zeros();
/// ... to 32 MiB, the largest request payload. Anything larger is allocated to measure and not kept.
const CLASS_MAX_BITS: u32 = 25;
const CLASS_COUNT: usize = (CLASS_MAX_BITS - CLASS_MIN_BITS + 1) as usize;

/// Unused memory a pool keeps, in bytes, all classes together. What is given back beyond it takes the place of other
/// classes, or is freed.
const CACHED_BYTES_MAX: usize = 32 << 20;

/// A source of aligned, reusable buffers. Clones share one cache, which is bounded by 32 MiB.
#[derive(Clone)]
pub struct BufferPool {
    shared: Arc<Shared>,
}

struct Shared {
    classes: [Mutex<Vec<Arc<Storage>>>; CLASS_COUNT],
    cached_bytes: AtomicUsize,
}

/// One allocation. Owned by one `Buffer`, by any number of `Payload`s, or by the cache: written only through a `Buffer`,
/// which is the only owner, and read only through `Payload`s, which give out shared slices.
struct Storage {
    memory: Memory,
    /// Weak, for the cache owns storages.
    home: Weak<Shared>,
}

/// Memory with one owner: aligned, writable, `len` bytes visible.
///
/// The contents of a new buffer are unspecified (a former use's bytes, or zeroes): whoever sends from a buffer sends
/// only what it has filled.
pub struct Buffer {
    storage: ManuallyDrop<Arc<Storage>>,
    len: usize,
}

/// A read-only view of a buffer's bytes. Clones and slices share the memory and cost one reference count.
pub struct Payload {
    storage: ManuallyDrop<Arc<Storage>>,
    start: usize,
    len: usize,
}

impl BufferPool {
    /// A pool with an empty cache.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                classes: std::array::from_fn(|_| Mutex::new(Vec::new())),
                cached_bytes: AtomicUsize::new(0),
            }),
        }
    }

    /// A buffer of `len` visible bytes, aligned to [`ALIGNMENT`], with unspecified contents.
    pub fn take(&self, len: usize) -> Buffer {
        let capacity = capacity_for(len);
        let cached = class_of(capacity).and_then(|class| {
            let storage = lock(&self.shared.classes[class]).pop()?;
            self.shared.cached_bytes.fetch_sub(capacity, Ordering::Relaxed);
            Some(storage)
        });
        let storage = cached.unwrap_or_else(|| {
            Arc::new(Storage {
                memory: Memory::allocate(capacity),
                home: Arc::downgrade(&self.shared),
            })
        });
        Buffer {
            storage: ManuallyDrop::new(storage),
            len,
        }
    }

    /// A buffer of `len` zeroes.
    pub fn take_zeroed(&self, len: usize) -> Buffer {
        let mut buffer = self.take(len);
        buffer.as_mut_slice().fill(0);
        buffer
    }

    /// A copy of `bytes` in a buffer of its own.
    pub fn payload_of(&self, bytes: &[u8]) -> Payload {
        let mut buffer = self.take(bytes.len());
        buffer.as_mut_slice().copy_from_slice(bytes);
        buffer.into_payload()
    }

    /// Bytes of unused memory kept for the next `take`.
    pub fn cached_bytes(&self) -> usize {
        self.shared.cached_bytes.load(Ordering::Relaxed)
    }
}

impl Default for BufferPool {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("cached_bytes", &self.cached_bytes())
            .finish()
    }
}

impl Buffer {
    /// The visible bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len <= capacity`, all of it was zeroes at first, and this buffer is the only owner.
        unsafe { slice::from_raw_parts(self.storage.memory.pointer(), self.len) }
    }

    /// The visible bytes, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`; `&mut self` makes this the only access.
        unsafe { slice::from_raw_parts_mut(self.storage.memory.pointer(), self.len) }
    }

    /// Visible bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no byte is visible.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes there is room for, at least `len`.
    pub fn capacity(&self) -> usize {
        self.storage.memory.capacity()
    }

    /// Changes the visible length, at most to the capacity. Bytes that become visible are unspecified.
    pub fn set_len(&mut self, len: usize) {
        assert!(
            len <= self.storage.memory.capacity(),
            "{len} bytes in a buffer of {}",
            self.storage.memory.capacity()
        );
        self.len = len;
    }

    /// The visible bytes as a shareable view.
    pub fn into_payload(self) -> Payload {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped, so the storage is taken exactly once.
        let storage = unsafe { ManuallyDrop::take(&mut this.storage) };
        Payload {
            storage: ManuallyDrop::new(storage),
            start: 0,
            len: this.len,
        }
    }

    /// Address of byte `at` for the kernel to write to. The caller keeps the buffer alive and untouched meanwhile.
    pub(super) fn pointer_at(&mut self, at: usize) -> *mut u8 {
        debug_assert!(at <= self.len);
        // SAFETY: `at` is within the allocation.
        unsafe { self.storage.memory.pointer().add(at) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: `drop` runs once, and `into_payload`, the other taker, prevents it.
        give_back(unsafe { ManuallyDrop::take(&mut self.storage) });
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Payload {
    /// The bytes of this view.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `start + len` is within the buffer this view came from, its bytes are initialised, and no `Buffer`
        // can write to them while a view exists.
        unsafe { slice::from_raw_parts(self.storage.memory.pointer().add(self.start), self.len) }
    }

    /// Bytes in this view.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the view is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A view of a part of this one. Panics when `range` reaches beyond it, as slicing does.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Payload {
        let from = match range.start_bound() {
            Bound::Included(&from) => from,
            Bound::Excluded(&before) => before + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(&last) => last + 1,
            Bound::Excluded(&to) => to,
            Bound::Unbounded => self.len,
        };
        assert!(
            from <= to && to <= self.len,
            "{from}..{to} of a payload of {} bytes",
            self.len
        );
        Payload {
            storage: ManuallyDrop::new(Arc::clone(&self.storage)),
            start: self.start + from,
            len: to - from,
        }
    }

    /// The buffer itself, when no other view of it is left: its visible bytes start at the buffer's first byte.
    pub fn into_buffer(self) -> Result<Buffer, Payload> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped, so the storage is taken exactly once.
        let mut storage = unsafe { ManuallyDrop::take(&mut this.storage) };
        let (start, len) = (this.start, this.len);
        if start == 0 && Arc::get_mut(&mut storage).is_some() {
            return Ok(Buffer {
                storage: ManuallyDrop::new(storage),
                len,
            });
        }
        Err(Payload {
            storage: ManuallyDrop::new(storage),
            start,
            len,
        })
    }

    /// Whether the first byte lies at a multiple of `alignment` (a power of two), as direct I/O asks of memory.
    pub fn is_aligned(&self, alignment: usize) -> bool {
        self.as_slice().as_ptr().addr().is_multiple_of(alignment)
    }
}

impl Clone for Payload {
    fn clone(&self) -> Self {
        Payload {
            storage: ManuallyDrop::new(Arc::clone(&self.storage)),
            start: self.start,
            len: self.len,
        }
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        // SAFETY: `drop` runs once, and `into_buffer`, the other taker, prevents it.
        give_back(unsafe { ManuallyDrop::take(&mut self.storage) });
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// Back to the cache when this was the last owner. (Two threads letting go of the last two views at one moment may
/// both see the other's: then the memory is freed instead of kept.)
fn give_back(mut storage: Arc<Storage>) {
    if Arc::get_mut(&mut storage).is_none() {
        return;
    }
    let Some(shared) = storage.home.upgrade() else { return };
    let capacity = storage.memory.capacity();
    let Some(class) = class_of(capacity) else { return };
    if shared.makes_room(class, capacity) {
        lock(&shared.classes[class]).push(storage);
    }
}

impl Shared {
    /// Counts `capacity` bytes of `class` as cached. What lies there of other classes makes way, for what is given back is in
    /// use now: after a resync the cache would be full of its buffers for ever.
    fn makes_room(&self, class: usize, capacity: usize) -> bool {
        while self.cached_bytes.fetch_add(capacity, Ordering::Relaxed) + capacity > CACHED_BYTES_MAX {
            self.cached_bytes.fetch_sub(capacity, Ordering::Relaxed);
            if !self.frees_one_beside(class) {
                return false;
            }
        }
        true
    }

    fn frees_one_beside(&self, class: usize) -> bool {
        let mut others = (0..CLASS_COUNT).rev().filter(|other| *other != class);
        let found = others.find_map(|other| lock(&self.classes[other]).pop());
        if let Some(unused) = &found {
            self.cached_bytes.fetch_sub(unused.memory.capacity(), Ordering::Relaxed);
        }
        found.is_some()
    }
}

fn lock(class: &Mutex<Vec<Arc<Storage>>>) -> std::sync::MutexGuard<'_, Vec<Arc<Storage>>> {
    // A poisoned cache is still a list of unused buffers.
    class.lock().unwrap_or_else(PoisonError::into_inner)
}

fn capacity_for(len: usize) -> usize {
    if len <= 1 << CLASS_MAX_BITS {
        len.next_power_of_two().max(ALIGNMENT)
    } else {
        len.next_multiple_of(ALIGNMENT)
    }
}

/// The size class of a capacity made by `capacity_for`; `None` when it is not kept.
fn class_of(capacity: usize) -> Option<usize> {
    (capacity <= 1 << CLASS_MAX_BITS).then(|| (capacity.trailing_zeros() - CLASS_MIN_BITS) as usize)
}
