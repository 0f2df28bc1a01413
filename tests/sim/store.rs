//! The metadata file on a disk with a volatile cache: bytes this time, torn in sectors of 512 B.

use std::collections::BTreeMap;

use mirror_core::event::MetadataWrite;

use crate::rng::Rng;

const SECTOR: usize = 512;

/// Bytes of the metadata file, what is durable of them and what is only cached.
#[derive(Clone, Debug)]
pub struct Store {
    durable: Vec<u8>,
    /// By sector: every value written since the last barrier, the newest last.
    cached: BTreeMap<usize, Vec<[u8; SECTOR]>>,
}

impl Store {
    /// A file of this many bytes, all zero.
    pub fn new(length: u64) -> Self {
        Self {
            durable: vec![0; length as usize],
            cached: BTreeMap::new(),
        }
    }

    /// Write into the cache.
    pub fn write(&mut self, write: &MetadataWrite) {
        let first = write.offset as usize / SECTOR;
        for (at, bytes) in write.bytes.chunks_exact(SECTOR).enumerate() {
            let mut sector = [0; SECTOR];
            sector.copy_from_slice(bytes);
            self.cached.entry(first + at).or_default().push(sector);
        }
    }

    /// Everything written so far is durable.
    pub fn barrier(&mut self) {
        self.settle(|values| values.last().copied());
    }

    /// The power fails: each cached sector keeps one of its values.
    pub fn power_loss(&mut self, rng: &mut Rng) {
        let kept_percent = rng.pick(&[0, 30, 50, 80, 100]);
        self.settle(|values| rng.chance(kept_percent).then(|| values[rng.index(values.len())]));
    }

    /// What no power loss can take away.
    pub fn durable(&self) -> &[u8] {
        &self.durable
    }

    /// The bytes a process started now would read.
    pub fn bytes(&self) -> Vec<u8> {
        let mut seen = self.clone();
        seen.barrier();
        seen.durable
    }

    /// The bytes that would be left if the power failed now.
    pub fn after_power_loss(&self, rng: &mut Rng) -> Vec<u8> {
        let mut lost = self.clone();
        lost.power_loss(rng);
        lost.durable
    }

    fn settle(&mut self, mut choose: impl FnMut(&[[u8; SECTOR]]) -> Option<[u8; SECTOR]>) {
        for (sector, values) in std::mem::take(&mut self.cached) {
            if let Some(value) = choose(&values) {
                self.durable[sector * SECTOR..][..SECTOR].copy_from_slice(&value);
            }
        }
    }
}
