//! The metadata file of one volume on one node: bytes on a disk with a volatile cache, torn in sectors of 512 B.
//!
//! A transaction takes effect as a whole when it ends; a node that dies in the middle of one draws how far it had come.

use std::collections::BTreeMap;

use mirror_core::event::{MetadataWrite, Transaction};

use crate::rng::Rng;

const SECTOR: usize = 512;

/// Bytes of the metadata file, what is durable of them and what is only cached.
#[derive(Clone, Debug)]
pub struct Store {
    durable: Vec<u8>,
    /// By sector: every value written since the last barrier, the newest last.
    cached: BTreeMap<usize, Vec<[u8; SECTOR]>>,
    /// Counts the changes of what is durable.
    pub version: u64,
}

impl Store {
    /// A file of this many bytes, all zero.
    pub fn new(length: u64) -> Self {
        Self {
            durable: vec![0; length as usize],
            cached: BTreeMap::new(),
            version: 0,
        }
    }

    /// The whole transaction is durable.
    pub fn carry_out(&mut self, transaction: &Transaction) {
        self.barrier();
        for write in transaction.first.iter().chain(&transaction.then) {
            self.put(write);
        }
    }

    /// The power fails, or the process dies, somewhere in the middle of a transaction. True: a part of it was written.
    pub fn carry_out_partly(&mut self, transaction: &Transaction, rng: &mut Rng) -> bool {
        let (mut done, all) = (0, transaction.first.len() + transaction.then.len());
        let first_done = rng.chance(40);
        let parts = [(&transaction.first, first_done), (&transaction.then, false)];
        for (part, whole) in parts {
            let kept = rng.pick(&[0, 30, 70, 100]);
            for write in part {
                if whole || rng.chance(kept) {
                    self.write(write);
                    done += 1;
                }
            }
            if !whole {
                break;
            }
            self.barrier();
        }
        done > 0 && done < all
    }

    /// Write into the cache.
    pub fn write(&mut self, write: &MetadataWrite) {
        self.reserve(write);
        let first = write.offset as usize / SECTOR;
        for (at, sector) in write.bytes.as_chunks::<SECTOR>().0.iter().enumerate() {
            self.cached.entry(first + at).or_default().push(*sector);
        }
    }

    /// Everything written so far is durable.
    pub fn barrier(&mut self) {
        self.version += 1;
        self.settle(|values| values.last().copied());
    }

    /// The power fails: each cached sector keeps one of its values. True: some were written and some not.
    pub fn power_loss(&mut self, rng: &mut Rng) -> bool {
        self.version += 1;
        let kept_percent = rng.pick(&[0, 30, 50, 80, 100]);
        let (mut kept, all) = (0, self.cached.len());
        self.settle(|values| {
            let keeps = rng.chance(kept_percent);
            kept += usize::from(keeps);
            keeps.then(|| values[rng.index(values.len())])
        });
        kept > 0 && kept < all
    }

    /// What no power loss can take away.
    pub fn durable(&self) -> &[u8] {
        &self.durable
    }

    /// The file is gone; another one takes its place.
    pub fn wipe(&mut self) {
        self.version += 1;
        self.durable.fill(0);
        self.cached.clear();
    }

    fn put(&mut self, write: &MetadataWrite) {
        self.reserve(write);
        self.durable[write.offset as usize..][..write.bytes.len()].copy_from_slice(&write.bytes);
    }

    fn reserve(&mut self, write: &MetadataWrite) {
        let end = write.offset as usize + write.bytes.len();
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
    }

    fn settle(&mut self, mut choose: impl FnMut(&[[u8; SECTOR]]) -> Option<[u8; SECTOR]>) {
        for (sector, values) in std::mem::take(&mut self.cached) {
            if let Some(value) = choose(&values) {
                self.durable[sector * SECTOR..][..SECTOR].copy_from_slice(&value);
            }
        }
    }
}
