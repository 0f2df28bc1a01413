//! Blocks under read-modify-write: [`EdgeLocks`].
//!
//! With direct I/O a write that begins or ends within a block reads the block, changes its part and writes all of it.
//! Two such writes to different parts of one block must not run together: the second would write back what it read
//! before the first was done, and the first would be lost. Nothing above orders them, for their ranges do not overlap.
//! (A write of the whole block needs no lock: it overlaps every other write to the block, and overlapping changes are
//! never in flight together, I2.)

use std::collections::HashSet;

/// The first and last block of a write, as far as they are written in part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Edges {
    blocks: [Option<u64>; 2],
}

/// The blocks being rewritten at present, and those somebody waits for.
#[derive(Debug, Default)]
pub(super) struct EdgeLocks {
    held: HashSet<u64>,
    wanted: Vec<Edges>,
}

impl Edges {
    /// The blocks written in part by `length` (above 0) bytes at `offset`, with blocks of `block` bytes.
    pub(super) fn of(offset: u64, length: u64, block: u64) -> Self {
        let end = offset + length;
        let head = (!offset.is_multiple_of(block)).then_some(offset / block);
        let tail = (!end.is_multiple_of(block)).then_some(end / block);
        let tail = tail.filter(|&tail| head != Some(tail));
        Self { blocks: [head, tail] }
    }

    fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.blocks.iter().flatten().copied()
    }

    /// Whether both write into one block.
    fn meet(&self, other: &Edges) -> bool {
        self.iter().any(|block| other.iter().any(|theirs| theirs == block))
    }
}

impl EdgeLocks {
    /// Takes all or none; none when somebody holds one of them, or waits for one.
    pub(super) fn take(&mut self, edges: &Edges) -> bool {
        let held = edges.iter().any(|block| self.held.contains(&block));
        if held || self.wanted.iter().any(|wanted| wanted.meet(edges)) {
            return false;
        }
        self.held.extend(edges.iter());
        true
    }

    /// Notes that somebody waits for these: later comers do not overtake.
    pub(super) fn want(&mut self, edges: Edges) {
        self.wanted.push(edges);
    }

    /// Forgets who waits: they are about to try again, in their order.
    pub(super) fn forget_wanted(&mut self) {
        self.wanted.clear();
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&mut self, edges: &Edges) {
        for block in edges.iter() {
            self.held.remove(&block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(head: Option<u64>, tail: Option<u64>) -> Edges {
        Edges { blocks: [head, tail] }
    }

    #[test]
    fn only_blocks_written_in_part_are_edges() {
        assert_eq!(Edges::of(0, 4096, 512), edges(None, None));
        assert_eq!(Edges::of(1, 10, 512), edges(Some(0), None));
        assert_eq!(Edges::of(512, 10, 512), edges(None, Some(1)));
        assert_eq!(Edges::of(100, 412, 512), edges(Some(0), None));
        assert_eq!(Edges::of(100, 1000, 512), edges(Some(0), Some(2)));
    }

    #[test]
    fn a_held_block_is_taken_by_nobody_else_and_nothing_is_taken_by_halves() {
        let mut locks = EdgeLocks::default();
        let first = Edges::of(100, 1000, 512);
        let both = Edges::of(600, 500, 512);
        assert!(locks.take(&first));
        assert!(!locks.take(&both), "block 2 is held");
        assert!(first.meet(&both));
        let other = Edges::of(600, 10, 512);
        assert!(locks.take(&other), "block 1 was not taken by the one that failed");
        locks.give_back(&first);
        assert!(!locks.take(&both), "block 1 is held");
        locks.give_back(&other);
        assert!(locks.take(&both));
    }

    #[test]
    fn nobody_overtakes_who_waits() {
        let mut locks = EdgeLocks::default();
        let (first, both, late) = (Edges::of(1, 2, 512), Edges::of(1, 600, 512), Edges::of(600, 5, 512));
        assert!(locks.take(&first));
        assert!(!locks.take(&both));
        locks.want(both);
        assert!(!locks.take(&late), "block 1 is free, but waited for");
        locks.give_back(&first);
        locks.forget_wanted();
        assert!(locks.take(&both));
        assert!(!locks.take(&late));
    }
}
