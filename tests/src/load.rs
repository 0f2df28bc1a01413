//! A verifying load: every block says which block it is, at which version, and whether it is whole.
//!
//! The load knows for every block the newest version that was acknowledged and then covered by a completed flush, and
//! all versions it has asked for since. After a crash a block must hold one of these, whole. Overlapping writes are
//! never in flight together, so "newer" has one meaning.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::raw::{Raw, command};

/// Unit of the load, equal to the dirty bitmap's block.
pub const BLOCK: u64 = 4096;
/// Longest write, in blocks.
const LONGEST: u64 = 16;
static ZEROES: [u8; BLOCK as usize] = [0; BLOCK as usize];
const MAGIC: u64 = 0x626c_6f63_6b6d_6972;

/// A deterministic stream of numbers: one seed, one run (xorshift64*).
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed; 0 is as good as any.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
    }
}

#[derive(Clone, Default)]
struct Block {
    /// Newest version answered and covered by a flush.
    flushed: u64,
    /// Newest version answered.
    answered: u64,
    /// Newest version asked for.
    asked: u64,
}

impl Block {
    /// Whether this version may be there.
    fn permits(&self, index: usize, version: u64) -> Result<()> {
        ensure!(
            version >= self.flushed,
            "block {index}: version {version} is there, version {} was acknowledged and flushed",
            self.flushed
        );
        ensure!(
            version <= self.asked,
            "block {index}: version {version} is there, only {} was ever written to it",
            self.asked
        );
        Ok(())
    }
}

/// The load and its memory of what was promised.
#[derive(Clone)]
pub struct Load {
    random: Random,
    blocks: Vec<Block>,
    next_version: u64,
    busy: BTreeSet<u64>,
    in_flight: HashMap<u64, Asked>,
    depth: usize,
    /// Writes answered.
    pub writes: u64,
    /// Flushes answered.
    pub flushes: u64,
    /// Blocks asked to change since [`Load::forget_touched`].
    touched: BTreeSet<u64>,
}

#[derive(Clone)]
enum Asked {
    Write {
        first: u64,
        count: u64,
        version: u64,
        durable: bool,
    },
    /// With the newest answered version of every block at the time it was sent.
    Flush { covers: Vec<u64> },
}

impl Load {
    /// For a device of `blocks` zeroed blocks, with at most `depth` requests in flight.
    pub fn new(blocks: u64, depth: usize, seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            blocks: vec![Block::default(); usize::try_from(blocks).unwrap_or(usize::MAX)],
            next_version: 1,
            busy: BTreeSet::new(),
            in_flight: HashMap::new(),
            depth,
            writes: 0,
            flushes: 0,
            touched: BTreeSet::new(),
        }
    }

    /// Keep requests in flight until `stop` says so, then wait for all answers. An error when the connection dies.
    pub fn run(&mut self, raw: &mut Raw, mut stop: impl FnMut(&Self) -> bool) -> Result<()> {
        self.busy.clear();
        self.in_flight.clear();
        while !stop(self) {
            while self.in_flight.len() < self.depth {
                self.ask(raw)?;
            }
            self.take_answer(raw)?;
        }
        while !self.in_flight.is_empty() {
            self.take_answer(raw)?;
        }
        Ok(())
    }

    /// Flush, and remember that everything answered is safe.
    pub fn flush(&mut self, raw: &mut Raw) -> Result<()> {
        raw.flush()?;
        self.flushes += 1;
        for block in &mut self.blocks {
            block.flushed = block.answered;
        }
        Ok(())
    }

    /// Read everything and compare with what was promised. Afterwards what was read is what is known.
    /// Returns how many blocks hold less than was answered (permitted only without a flush).
    pub fn verify(&mut self, raw: &mut Raw) -> Result<u64> {
        let step = 256;
        let mut behind = 0;
        for first in (0..self.blocks.len()).step_by(step) {
            let count = step.min(self.blocks.len() - first);
            let data = raw.read(first as u64 * BLOCK, u32::try_from(count as u64 * BLOCK)?)?;
            for (index, bytes) in data.chunks(BLOCK as usize).enumerate() {
                behind += u64::from(self.verify_block(first + index, bytes)?);
            }
        }
        Ok(behind)
    }

    /// The same of an image that nobody has open. Nothing changes in what is known.
    pub fn inspect(&self, image: &Path) -> Result<()> {
        let file = File::open(image).with_context(|| image.display().to_string())?;
        let mut bytes = vec![0; BLOCK as usize];
        for (index, known) in self.blocks.iter().enumerate() {
            file.read_exact_at(&mut bytes, index as u64 * BLOCK)?;
            known.permits(index, decode(index as u64, &bytes)?)?;
        }
        Ok(())
    }

    /// What `other`, an earlier or parallel history of this volume, has asked for may be there as well.
    pub fn may_hold(&mut self, other: &Self) {
        for (block, other) in self.blocks.iter_mut().zip(&other.blocks) {
            block.asked = block.asked.max(other.asked);
        }
    }

    /// Versions from here on are this much larger.
    pub fn skip_versions(&mut self, count: u64) {
        self.next_version += count;
    }

    /// Bytes of the distinct blocks asked to change since [`Load::forget_touched`].
    pub fn touched_bytes(&self) -> u64 {
        self.touched.len() as u64 * BLOCK
    }

    /// Start counting touched blocks anew.
    pub fn forget_touched(&mut self) {
        self.touched.clear();
    }

    fn verify_block(&mut self, index: usize, bytes: &[u8]) -> Result<bool> {
        let known = &mut self.blocks[index];
        let version = decode(index as u64, bytes)?;
        known.permits(index, version)?;
        let behind = version < known.answered;
        *known = Block {
            flushed: version,
            answered: version,
            asked: version,
        };
        Ok(behind)
    }

    fn ask(&mut self, raw: &mut Raw) -> Result<()> {
        if self.random.below(24) == 0 {
            let covers = self.blocks.iter().map(|block| block.answered).collect();
            let cookie = raw.request(0, command::FLUSH, 0, 0)?;
            self.in_flight.insert(cookie, Asked::Flush { covers });
            return Ok(());
        }
        let (first, count) = self.pick();
        let version = self.next_version;
        self.next_version += 1;
        let durable = self.random.below(16) == 0;
        let mut data = Vec::with_capacity((count * BLOCK) as usize);
        for block in first..first + count {
            data.extend(encode(block, version));
            self.blocks[block as usize].asked = version;
            self.busy.insert(block);
            self.touched.insert(block);
        }
        let cookie = raw.send_write(if durable { command::FUA } else { 0 }, first * BLOCK, &data)?;
        self.in_flight.insert(
            cookie,
            Asked::Write {
                first,
                count,
                version,
                durable,
            },
        );
        Ok(())
    }

    /// A run of blocks none of which is in flight.
    fn pick(&mut self) -> (u64, u64) {
        let total = self.blocks.len() as u64;
        loop {
            let longest = if self.random.below(4) == 0 { LONGEST } else { 1 };
            let count = 1 + self.random.below(longest);
            // Half of the writes go to an eighth of the device, so that blocks are overwritten while hot.
            let span = if self.random.below(2) == 0 { total / 8 } else { total };
            let first = self.random.below(span - count + 1);
            if self.busy.range(first..first + count).next().is_none() {
                return (first, count);
            }
        }
    }

    fn take_answer(&mut self, raw: &mut Raw) -> Result<()> {
        let (cookie, error) = raw.reply()?;
        let Some(asked) = self.in_flight.remove(&cookie) else {
            bail!("a reply to {cookie}, which was never asked")
        };
        ensure!(error == 0, "request {cookie} was answered with error {error}");
        match asked {
            Asked::Write {
                first,
                count,
                version,
                durable,
            } => {
                self.writes += 1;
                for index in first..first + count {
                    self.busy.remove(&index);
                    let block = &mut self.blocks[index as usize];
                    block.answered = version;
                    if durable {
                        block.flushed = version;
                    }
                }
            }
            Asked::Flush { covers } => {
                self.flushes += 1;
                for (block, covered) in self.blocks.iter_mut().zip(covers) {
                    block.flushed = block.flushed.max(covered);
                }
            }
        }
        Ok(())
    }
}

/// A whole block: magic, number, version, a filler that depends on both, and a checksum over all of it.
fn encode(block: u64, version: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BLOCK as usize);
    for number in [MAGIC, block, version] {
        bytes.extend(number.to_be_bytes());
    }
    let mut filler = Random::new(block ^ version.rotate_left(32));
    while bytes.len() < BLOCK as usize - 8 {
        bytes.extend(filler.below(1 << 47).to_be_bytes());
    }
    let checksum = u64::from(crc32fast::hash(&bytes));
    bytes.extend(checksum.to_be_bytes());
    bytes
}

/// The version a block holds; 0 for a block never written.
fn decode(block: u64, bytes: &[u8]) -> Result<u64> {
    // As one comparison of memory: most blocks of a sparse image are zero.
    if *bytes == ZEROES[..bytes.len()] {
        return Ok(0);
    }
    let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    let (body, stored) = (&bytes[..bytes.len() - 8], number(bytes.len() - 8));
    ensure!(number(0) == MAGIC, "block {block}: not a block of this load");
    ensure!(stored == u64::from(crc32fast::hash(body)), "block {block}: torn");
    ensure!(number(8) == block, "block {block}: holds block {}", number(8));
    Ok(number(16))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_block_says_what_it_is() {
        assert_eq!(decode(7, &encode(7, 9)).unwrap(), 9);
        assert_eq!(decode(7, &vec![0; 4096]).unwrap(), 0);
        assert!(decode(8, &encode(7, 9)).is_err());
        let mut torn = encode(7, 9);
        torn[2000] ^= 1;
        assert!(decode(7, &torn).is_err());
    }

    #[test]
    fn a_lost_flushed_version_is_seen() {
        let mut load = Load::new(64, 1, 1);
        load.blocks[3] = Block {
            flushed: 5,
            answered: 6,
            asked: 8,
        };
        assert!(load.verify_block(3, &encode(3, 4)).is_err());
        assert!(load.verify_block(3, &encode(3, 9)).is_err());
        let mut at = |version| {
            load.blocks[3] = Block {
                flushed: 5,
                answered: 6,
                asked: 8,
            };
            load.verify_block(3, &encode(3, version)).unwrap()
        };
        assert_eq!((at(5), at(6), at(8)), (true, false, false));
    }
}
