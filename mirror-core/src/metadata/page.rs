//! One side of a bitmap page.

use alloc::vec;
use alloc::vec::Vec;

use super::SECTOR_BYTES;
use super::field::{put_u32, put_u64, u32_at, u64_at};
use crate::bitmap::{PAGE_WORDS, PageWords};

const MAGIC: &[u8; 4] = b"BMBP";
const WORDS_AT: usize = 64;

const _: () = assert!(WORDS_AT + PAGE_WORDS * 8 == SECTOR_BYTES, "a page fills its sector");

/// Which page a side is of, and how new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageKey {
    pub(crate) volume: u64,
    pub(crate) slot: u32,
    pub(crate) instance: u32,
    pub(crate) page: u32,
    pub(crate) sequence: u64,
}

pub(crate) fn encode(key: PageKey, words: &PageWords) -> Vec<u8> {
    let mut bytes = vec![0; SECTOR_BYTES];
    bytes[..4].copy_from_slice(MAGIC);
    put_u64(&mut bytes, 8, key.volume);
    put_u32(&mut bytes, 16, key.slot);
    put_u32(&mut bytes, 20, key.instance);
    put_u32(&mut bytes, 24, key.page);
    put_u64(&mut bytes, 32, key.sequence);
    for (at, &word) in words.iter().enumerate() {
        put_u64(&mut bytes, WORDS_AT + at * 8, word);
    }
    let crc = crc32fast::hash(&bytes[8..]);
    put_u32(&mut bytes, 4, crc);
    bytes
}

/// Nothing when the checksum does not match.
pub(crate) fn decode(bytes: &[u8; SECTOR_BYTES]) -> Option<(PageKey, PageWords)> {
    if bytes[..4] != MAGIC[..] || crc32fast::hash(&bytes[8..]) != u32_at(bytes, 4) {
        return None;
    }
    let key = PageKey {
        volume: u64_at(bytes, 8),
        slot: u32_at(bytes, 16),
        instance: u32_at(bytes, 20),
        page: u32_at(bytes, 24),
        sequence: u64_at(bytes, 32),
    };
    let mut words = [0; PAGE_WORDS];
    for (at, word) in words.iter_mut().enumerate() {
        *word = u64_at(bytes, WORDS_AT + at * 8);
    }
    Some((key, words))
}
