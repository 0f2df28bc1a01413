//! What a disk can do for a resync: the target's writes, without a resync.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use blockmirror_tests::load::BLOCK;

/// They are made durable after so many, as a resync has it done.
const BATCH: usize = 512;

/// A file beside the images, with space at the same places, allocated in the same order.
pub struct Disk {
    file: File,
    /// In the order of a resync.
    places: Vec<u64>,
}

impl Disk {
    /// Writes to all places.
    pub fn new(path: &Path, mut places: Vec<u64>) -> Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        for place in &places {
            file.write_all_at(&[0x11; BLOCK as usize], *place)?;
        }
        file.sync_data()?;
        places.sort_unstable();
        places.dedup();
        Ok(Self { file, places })
    }

    /// Bytes per second that become durable: the blocks that a resync writes, in its order, durable in its batches, by
    /// somebody who does nothing else.
    pub fn speed(&self) -> Result<f64> {
        let block = [0x33; BLOCK as usize];
        let started = Instant::now();
        for batch in self.places.chunks(BATCH) {
            for place in batch {
                self.file.write_all_at(&block, *place)?;
            }
            self.file.sync_data()?;
        }
        let bytes = self.places.len() as u64 * BLOCK;
        Ok(bytes as f64 / started.elapsed().as_secs_f64())
    }
}
