//! One record of the activity log: the whole set of hot extents.

use alloc::vec;
use alloc::vec::Vec;

use super::field::{put_u32, put_u64, u32_at, u64_at};
use super::{LOG_OFFSET, LOG_SLOT_BYTES, LOG_SLOTS, SECTOR_BYTES};
use crate::config::HOT_EXTENTS_MAX;
use crate::event::MetadataWrite;

const MAGIC: &[u8; 4] = b"BMAL";
const EXTENTS_AT: usize = 32;

const _: () = assert!(
    EXTENTS_AT + HOT_EXTENTS_MAX * 4 <= LOG_SLOT_BYTES,
    "a full set fits its slot"
);

/// The write that makes `extents` the hot set. Only the sectors in use are written.
pub(crate) fn encode(volume: u64, sequence: u64, extents: &[u32]) -> MetadataWrite {
    let used = EXTENTS_AT + extents.len() * 4;
    let mut bytes = vec![0; used.next_multiple_of(SECTOR_BYTES)];
    bytes[..4].copy_from_slice(MAGIC);
    put_u32(&mut bytes, 8, extents.len() as u32);
    put_u64(&mut bytes, 16, volume);
    put_u64(&mut bytes, 24, sequence);
    for (at, &extent) in extents.iter().enumerate() {
        put_u32(&mut bytes, EXTENTS_AT + at * 4, extent);
    }
    let crc = crc32fast::hash(&bytes[8..used]);
    put_u32(&mut bytes, 4, crc);
    MetadataWrite {
        offset: LOG_OFFSET + sequence % LOG_SLOTS * LOG_SLOT_BYTES as u64,
        bytes,
    }
}

/// Read one slot: its sequence and extents, or nothing when it is empty, torn, or another volume's.
pub(crate) fn decode(slot: &[u8], volume: u64) -> Option<(u64, Vec<u32>)> {
    if slot[..4] != MAGIC[..] || u64_at(slot, 16) != volume {
        return None;
    }
    let count = u32_at(slot, 8) as usize;
    if count > HOT_EXTENTS_MAX {
        return None;
    }
    let used = EXTENTS_AT + count * 4;
    if crc32fast::hash(&slot[8..used]) != u32_at(slot, 4) {
        return None;
    }
    let extents = (0..count).map(|at| u32_at(slot, EXTENTS_AT + at * 4)).collect();
    Some((u64_at(slot, 24), extents))
}
