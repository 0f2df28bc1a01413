//! One bit per block of a volume, in pages that cost no memory while they are all clear or all set.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::ops::Range;

/// 64-bit words of one page, as it stands on disk behind a 64-byte header.
pub const PAGE_WORDS: usize = 504;
/// Blocks one page covers: 126 MiB of the volume.
pub const PAGE_BLOCKS: u64 = PAGE_WORDS as u64 * 64;

/// The words of a page; bit `n % 64` of word `n / 64` is block `n` of the page.
pub type PageWords = [u64; PAGE_WORDS];

#[derive(Clone, Debug)]
enum Page {
    Clear,
    Full,
    Mixed(Box<PageWords>, u32),
}

/// A set of blocks. Remembers which pages changed since they were last taken for writing.
#[derive(Clone, Debug)]
pub struct Bitmap {
    blocks: u64,
    pages: Vec<Page>,
    count: u64,
    changed: BTreeSet<u32>,
}

impl Bitmap {
    /// No block of `blocks` set.
    pub fn new(blocks: u64) -> Self {
        let pages = blocks.div_ceil(PAGE_BLOCKS) as usize;
        let mut all = Vec::new();
        all.resize(pages, Page::Clear);
        Self {
            blocks,
            pages: all,
            count: 0,
            changed: BTreeSet::new(),
        }
    }

    /// Blocks set.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// True when no block is set.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Number of pages.
    pub fn pages(&self) -> u32 {
        self.pages.len() as u32
    }

    /// Pages changed since they were last written, in order.
    pub fn changed(&self) -> &BTreeSet<u32> {
        &self.changed
    }

    /// The page is being written as it is now.
    pub fn written(&mut self, page: u32) {
        self.changed.remove(&page);
    }

    /// Set every block. The pages do not count as changed: the caller records it otherwise.
    pub fn fill(&mut self) {
        self.pages.fill(Page::Full);
        self.count = self.blocks;
        self.changed.clear();
    }

    /// Clear every block, likewise.
    pub fn reset(&mut self) {
        if self.count > 0 {
            self.pages.fill(Page::Clear);
        }
        self.count = 0;
        self.changed.clear();
    }

    /// More blocks, none of the new ones set.
    pub fn grow(&mut self, blocks: u64) {
        debug_assert!(blocks >= self.blocks, "a bitmap only grows");
        let last = self.pages.len().saturating_sub(1);
        if matches!(self.pages.get(last), Some(Page::Full)) && self.page_blocks(last) < PAGE_BLOCKS {
            let count = self.page_blocks(last) as u32;
            self.pages[last] = Page::Mixed(Box::new(self.words(last as u32)), count);
        }
        self.blocks = blocks;
        self.pages.resize(blocks.div_ceil(PAGE_BLOCKS) as usize, Page::Clear);
    }

    /// Every page that is not all set (`base` true) or all clear (false) counts as changed.
    pub fn touch(&mut self, base: bool) {
        let plain = |page: &Page| matches!((page, base), (Page::Full, true) | (Page::Clear, false));
        let pages = self.pages.iter().enumerate();
        self.changed = pages
            .filter(|(_, page)| !plain(page))
            .map(|(at, _)| at as u32)
            .collect();
    }

    /// Is the block set?
    pub fn contains(&self, block: u64) -> bool {
        let (page, bit) = split(block);
        match &self.pages[page] {
            Page::Clear => false,
            Page::Full => true,
            Page::Mixed(words, _) => words[bit / 64] >> (bit % 64) & 1 == 1,
        }
    }

    /// Set the blocks of a range.
    pub fn set(&mut self, range: Range<u64>) {
        self.assign(range, true);
    }

    /// Clear the blocks of a range.
    pub fn clear(&mut self, range: Range<u64>) {
        self.assign(range, false);
    }

    /// Set every block that is set in `other`.
    pub fn merge(&mut self, other: &Self) {
        let mut from = 0;
        while let Some(run) = other.next_run(from, u64::MAX) {
            from = run.end;
            self.set(run);
        }
    }

    /// The first run of set blocks at or after `from`, at most `most` blocks of it.
    pub fn next_run(&self, from: u64, most: u64) -> Option<Range<u64>> {
        let start = self.find(from, true)?;
        let limit = self.blocks.min(start.saturating_add(most));
        let end = self.find(start, false).map_or(limit, |end| end.min(limit));
        Some(start..end)
    }

    /// The words of a page.
    pub fn words(&self, page: u32) -> PageWords {
        match &self.pages[page as usize] {
            Page::Clear => [0; PAGE_WORDS],
            Page::Mixed(words, _) => **words,
            Page::Full => {
                let mut words = [0; PAGE_WORDS];
                for bit in 0..self.page_blocks(page as usize) as usize {
                    words[bit / 64] |= 1 << (bit % 64);
                }
                words
            }
        }
    }

    /// Take a page from disk. Bits beyond the volume are ignored. The page counts as unchanged.
    pub fn load(&mut self, page: u32, words: &PageWords) {
        let blocks = self.page_blocks(page as usize);
        let mut words = Box::new(*words);
        for (at, word) in words.iter_mut().enumerate() {
            let valid = blocks.saturating_sub(at as u64 * 64).min(64);
            *word &= u64::MAX.checked_shr(64 - valid as u32).unwrap_or(0);
        }
        let count: u64 = words.iter().map(|word| u64::from(word.count_ones())).sum();
        self.count = self.count - self.page_count(page as usize) + count;
        self.pages[page as usize] = match count {
            0 => Page::Clear,
            all if all == blocks => Page::Full,
            some => Page::Mixed(words, some as u32),
        };
        self.changed.remove(&page);
    }

    fn assign(&mut self, range: Range<u64>, value: bool) {
        debug_assert!(range.end <= self.blocks, "a block lies inside the volume");
        let mut block = range.start;
        while block < range.end {
            let (page, bit) = split(block);
            let page_end = (page as u64 + 1) * PAGE_BLOCKS;
            let stop = range.end.min(page_end);
            let bits = bit..bit + (stop - block) as usize;
            self.assign_in_page(page, bits, value);
            block = stop;
        }
    }

    fn assign_in_page(&mut self, page: usize, bits: Range<usize>, value: bool) {
        let blocks = self.page_blocks(page);
        let before = self.page_count(page);
        if before == if value { blocks } else { 0 } {
            return;
        }
        if bits.len() as u64 == blocks {
            self.pages[page] = if value { Page::Full } else { Page::Clear };
        } else {
            let mut words = match core::mem::replace(&mut self.pages[page], Page::Clear) {
                Page::Mixed(words, _) => words,
                Page::Clear => Box::new([0; PAGE_WORDS]),
                Page::Full => {
                    self.pages[page] = Page::Full;
                    Box::new(self.words(page as u32))
                }
            };
            let flipped = assign_words(&mut words, bits, value);
            let count = if value { before + flipped } else { before - flipped };
            self.pages[page] = match count {
                0 => Page::Clear,
                all if all == blocks => Page::Full,
                some => Page::Mixed(words, some as u32),
            };
        }
        let after = self.page_count(page);
        if after != before {
            self.count = self.count - before + after;
            self.changed.insert(page as u32);
        }
    }

    /// The first block at or after `from` whose bit is `value`.
    fn find(&self, from: u64, value: bool) -> Option<u64> {
        let mut block = from;
        while block < self.blocks {
            let (page, bit) = split(block);
            let uniform = match &self.pages[page] {
                Page::Clear => Some(false),
                Page::Full => Some(true),
                Page::Mixed(words, _) => match find_in_words(words, bit, value) {
                    Some(found) => {
                        let found = page as u64 * PAGE_BLOCKS + found as u64;
                        return (found < self.blocks).then_some(found);
                    }
                    None => None,
                },
            };
            if uniform == Some(value) {
                return Some(block);
            }
            block = (page as u64 + 1) * PAGE_BLOCKS;
        }
        None
    }

    fn page_blocks(&self, page: usize) -> u64 {
        (self.blocks - page as u64 * PAGE_BLOCKS).min(PAGE_BLOCKS)
    }

    fn page_count(&self, page: usize) -> u64 {
        match &self.pages[page] {
            Page::Clear => 0,
            Page::Full => self.page_blocks(page),
            Page::Mixed(_, count) => u64::from(*count),
        }
    }
}

fn split(block: u64) -> (usize, usize) {
    ((block / PAGE_BLOCKS) as usize, (block % PAGE_BLOCKS) as usize)
}

/// Returns how many bits changed.
fn assign_words(words: &mut PageWords, bits: Range<usize>, value: bool) -> u64 {
    let mut flipped = 0;
    let mut bit = bits.start;
    while bit < bits.end {
        let width = (64 - bit % 64).min(bits.end - bit);
        let mask = (u64::MAX >> (64 - width)) << (bit % 64);
        let word = &mut words[bit / 64];
        let old = *word;
        *word = if value { old | mask } else { old & !mask };
        flipped += u64::from((old ^ *word).count_ones());
        bit += width;
    }
    flipped
}

fn find_in_words(words: &PageWords, from: usize, value: bool) -> Option<usize> {
    let look = |word: u64| if value { word } else { !word };
    let first = look(words[from / 64]) & (u64::MAX << (from % 64));
    if first != 0 {
        return Some(from / 64 * 64 + first.trailing_zeros() as usize);
    }
    let rest = words.iter().enumerate().skip(from / 64 + 1);
    rest.map(|(at, &word)| (at, look(word)))
        .find(|&(_, word)| word != 0)
        .map(|(at, word)| at * 64 + word.trailing_zeros() as usize)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    #[test]
    fn a_uniform_bitmap_of_a_tebibyte_has_no_pages_in_memory() {
        let mut bitmap = Bitmap::new((1 << 40) / 4096);
        bitmap.fill();
        assert_eq!(bitmap.count(), 1 << 28);
        assert!(bitmap.pages.iter().all(|page| matches!(page, Page::Full)));
        bitmap.clear(0..1 << 28);
        assert!(bitmap.is_empty() && bitmap.pages.iter().all(|page| matches!(page, Page::Clear)));
    }

    proptest! {
        #[test]
        fn agrees_with_a_vector_of_booleans(
            blocks in PAGE_BLOCKS - 70..2 * PAGE_BLOCKS + 70,
            steps in proptest::collection::vec((any::<u32>(), 1u64..5000, any::<bool>()), 1..40),
        ) {
            let mut bitmap = Bitmap::new(blocks);
            let mut model = vec![false; blocks as usize];
            for (start, length, value) in steps {
                let start = u64::from(start) % blocks;
                let end = blocks.min(start + length * 7);
                if value { bitmap.set(start..end) } else { bitmap.clear(start..end) }
                model[start as usize..end as usize].fill(value);
                prop_assert_eq!(bitmap.count(), model.iter().filter(|&&b| b).count() as u64);
                let expected = model.iter().skip(start as usize / 2).position(|&b| b).map(|at| at as u64 + start / 2);
                let run = bitmap.next_run(start / 2, 9);
                prop_assert_eq!(run.clone().map(|run| run.start), expected);
                if let Some(run) = run {
                    prop_assert!(run.clone().all(|b| model[b as usize]) && run.end - run.start <= 9);
                    prop_assert!(run.end - run.start == 9 || run.end == blocks || !model[run.end as usize]);
                }
            }
            let mut copy = Bitmap::new(blocks);
            for page in 0..bitmap.pages() {
                copy.load(page, &bitmap.words(page));
            }
            let mut merged = Bitmap::new(blocks);
            merged.merge(&bitmap);
            for block in 0..blocks {
                prop_assert_eq!(copy.contains(block), model[block as usize]);
                prop_assert_eq!(merged.contains(block), model[block as usize]);
            }
        }
    }
}
