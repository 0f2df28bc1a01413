//! A set of numbers, kept as ranges.

use std::collections::BTreeMap;

/// First and end of every range; they neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    pub fn add(&mut self, mut first: u64, mut end: u64) {
        while let Some((start, stop)) = self.touching(first, end) {
            self.0.remove(&start);
            (first, end) = (first.min(start), end.max(stop));
        }
        if first < end {
            self.0.insert(first, end);
        }
    }

    pub fn remove(&mut self, first: u64, end: u64) {
        if first >= end {
            return;
        }
        while let Some((start, stop)) = self.touching(first + 1, end - 1) {
            self.0.remove(&start);
            if start < first {
                self.0.insert(start, first);
            }
            if end < stop {
                self.0.insert(end, stop);
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(first, end)| (*first, *end))
    }

    /// One of its numbers, by any number at all.
    pub fn nth(&self, choice: u64) -> Option<u64> {
        let count: u64 = self.iter().map(|(first, end)| end - first).sum();
        let mut left = choice.checked_rem(count)?;
        for (first, end) in self.iter() {
            if left < end - first {
                return Some(first + left);
            }
            left -= end - first;
        }
        None
    }

    /// A range that has a number in `first..=end`, or ends at `first`.
    fn touching(&self, first: u64, end: u64) -> Option<(u64, u64)> {
        let (start, stop) = self.0.range(..=end).next_back()?;
        (*stop >= first).then_some((*start, *stop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockmirror_tests::load::Random;
    use std::collections::BTreeSet;

    #[test]
    fn it_is_a_set() {
        let mut random = Random::new(5);
        let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
        for _ in 0..5_000 {
            let first = random.below(100);
            let end = first + random.below(8);
            if random.below(2) == 0 {
                ranges.add(first, end);
                set.extend(first..end);
            } else {
                ranges.remove(first, end);
                set.retain(|number| !(first..end).contains(number));
            }
            let all: Vec<u64> = ranges.iter().flat_map(|(first, end)| first..end).collect();
            assert_eq!(all, set.iter().copied().collect::<Vec<_>>());
            let chosen = ranges.nth(random.below(1_000));
            assert_eq!(chosen.is_none(), set.is_empty());
            assert!(chosen.is_none_or(|number| set.contains(&number)));
        }
    }
}
