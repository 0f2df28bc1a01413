//! One READ being answered: its bytes come in pieces, in any order, and must cover the range exactly once.

/// The bytes of one READ, as far as they have come.
pub(super) struct Reading {
    data: Vec<u8>,
    /// Bytes covered in order from the start.
    front: u32,
    /// Bytes covered in all.
    covered: u32,
    /// One bit per byte, for servers that answer out of order: exact, and never more than an eighth of the data,
    /// however the pieces are cut.
    scattered: Option<Vec<u64>>,
    /// Pieces announced.
    pieces: u32,
}

/// Why a piece does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// It covers bytes that were covered before.
    Overlap,
    /// It is not within the request.
    OutOfRange,
}

impl Reading {
    /// Nothing has come. Takes `length` bytes of memory: what we asked for, never what a reply claims.
    pub fn new(length: u32) -> Self {
        Self {
            data: vec![0; length as usize],
            front: 0,
            covered: 0,
            scattered: None,
            pieces: 0,
        }
    }

    /// Announces a piece: `start` within the data. Holes need no more than this, the data starts as zeroes.
    pub fn cover(&mut self, start: u64, length: u32) -> Result<u32, Misfit> {
        let end = start
            .checked_add(u64::from(length))
            .filter(|end| *end <= self.data.len() as u64);
        let (Some(_), Ok(start)) = (end, u32::try_from(start)) else {
            return Err(Misfit::OutOfRange);
        };
        if start < self.front {
            return Err(Misfit::Overlap);
        }
        if start == self.front && self.scattered.is_none() {
            self.front += length;
        } else {
            let words = self.data.len().div_ceil(64);
            let bits = self.scattered.get_or_insert_with(|| vec![0; words]);
            mark(bits, start as usize, length as usize)?;
        }
        self.covered += length;
        self.pieces = self.pieces.saturating_add(1);
        Ok(start)
    }

    /// Stores bytes of a piece that was announced.
    pub fn fill(&mut self, start: u32, bytes: &[u8]) {
        let start = start as usize;
        if let Some(target) = self.data.get_mut(start..start + bytes.len()) {
            target.copy_from_slice(bytes);
        }
    }

    /// Bytes that have not come.
    pub fn missing(&self) -> u32 {
        self.data.len() as u32 - self.covered
    }

    /// Pieces that came.
    pub fn pieces(&self) -> u32 {
        self.pieces
    }

    /// The bytes.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }
}

/// Sets `length` bits from `start` on, none of which may be set before.
fn mark(bits: &mut [u64], start: usize, length: usize) -> Result<(), Misfit> {
    let end = start + length;
    let words = bits.iter_mut().enumerate().take(end.div_ceil(64)).skip(start / 64);
    for (index, word) in words {
        let first = start.max(index * 64) - index * 64;
        let last = end.min(index * 64 + 64) - index * 64;
        let mask = (u64::MAX >> (64 - (last - first))) << first;
        if *word & mask != 0 {
            return Err(Misfit::Overlap);
        }
        *word |= mask;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn edges() {
        let mut reading = Reading::new(10);
        assert_eq!(reading.missing(), 10);
        assert_eq!(reading.cover(4, 7), Err(Misfit::OutOfRange));
        assert_eq!(reading.cover(u64::MAX, 7), Err(Misfit::OutOfRange));
        assert_eq!(reading.cover(4, 2), Ok(4));
        for (start, length) in [(4, 2), (3, 2), (5, 2), (0, 10), (5, 1)] {
            assert_eq!(reading.cover(start, length), Err(Misfit::Overlap));
        }
        assert_eq!(reading.cover(6, 4), Ok(6));
        assert_eq!(reading.cover(0, 4), Ok(0));
        assert_eq!(reading.missing(), 0);
        assert_eq!(reading.pieces(), 3);
    }

    proptest! {
        /// Against an oracle of one boolean per byte.
        #[test]
        fn coverage_is_exact(pieces in proptest::collection::vec((0u64..220, 1u32..90), 0..30)) {
            let mut reading = Reading::new(200);
            let mut oracle = [false; 200];
            for (start, length) in pieces {
                let range = start as usize..start as usize + length as usize;
                let verdict = match oracle.get(range.clone()) {
                    None => Err(Misfit::OutOfRange),
                    Some(bytes) if bytes.contains(&true) => Err(Misfit::Overlap),
                    Some(_) => Ok(start as u32),
                };
                prop_assert_eq!(reading.cover(start, length), verdict);
                // A misfit ends the connection; what the coverage is after it does not matter.
                if verdict == Err(Misfit::Overlap) {
                    return Ok(());
                }
                if verdict.is_ok() {
                    oracle[range.clone()].fill(true);
                    reading.fill(start as u32, &vec![start as u8; length as usize]);
                }
                prop_assert_eq!(reading.missing() as usize, oracle.iter().filter(|covered| !**covered).count());
            }
        }
    }
}
