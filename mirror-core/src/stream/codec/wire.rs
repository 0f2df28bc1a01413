//! Fields: little-endian integers, ranges, lists and texts, every length checked.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use super::{NAME_BYTES_MAX, RANGE_BYTES_MAX, TEXT_BYTES_MAX};
use crate::range::ByteRange;

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Takes encoded fields.
pub(crate) trait Sink {
    fn put(&mut self, bytes: &[u8]);

    fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    /// The length of a list that has at most `max` entries.
    fn count(&mut self, length: usize, max: usize) {
        assert!(length <= max, "I8: a list in a frame has at most {max} entries");
        self.u32(u32::try_from(length).unwrap_or(u32::MAX));
    }

    fn range(&mut self, range: ByteRange) {
        assert!(
            range.length <= RANGE_BYTES_MAX,
            "I8: a range in a frame has at most {RANGE_BYTES_MAX} bytes"
        );
        self.u64(range.offset);
        self.u32(u32::try_from(range.length).unwrap_or(u32::MAX));
    }

    fn ranges(&mut self, ranges: &[ByteRange], max: usize) {
        self.count(ranges.len(), max);
        ranges.iter().for_each(|range| self.range(*range));
    }

    fn numbers(&mut self, numbers: &[u64], max: usize) {
        self.count(numbers.len(), max);
        numbers.iter().for_each(|number| self.u64(*number));
    }

    fn runs(&mut self, runs: &[Range<u64>], max: usize) {
        self.count(runs.len(), max);
        for run in runs {
            self.u64(run.start);
            self.u64(run.end);
        }
    }

    /// A text, cut to what fits.
    fn text(&mut self, text: &str) {
        let mut end = text.len().min(TEXT_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = text.get(..end).unwrap_or_default();
        self.u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
        self.put(text.as_bytes());
    }

    fn name(&mut self, name: &str) {
        assert!(
            name.len() <= NAME_BYTES_MAX,
            "I8: a name has at most {NAME_BYTES_MAX} bytes"
        );
        self.text(name);
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A cursor over a body.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Every field has been read.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed("it is longer than its fields"))
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self
            .rest
            .split_at_checked(length)
            .ok_or(Malformed("it ends within a field"))?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(Malformed("it ends within a field"))?;
        self.rest = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a yes or no is neither")),
        }
    }

    pub(crate) fn range(&mut self) -> Result<ByteRange, Malformed> {
        let (offset, length) = (self.u64()?, u64::from(self.u32()?));
        if length == 0 || length > RANGE_BYTES_MAX || offset.checked_add(length).is_none() {
            return Err(Malformed("a range is empty, too long or ends beyond 64 bits"));
        }
        Ok(ByteRange::new(offset, length))
    }

    /// Entries of at least `least` bytes each: no more are announced than can have arrived.
    fn count(&mut self, least: usize, max: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        if count > max || count.saturating_mul(least) > self.rest.len() {
            return Err(Malformed("a list is longer than it may be, or than the frame"));
        }
        Ok(count)
    }

    /// Ranges in order, without overlap.
    pub(crate) fn ranges(&mut self, max: usize) -> Result<Vec<ByteRange>, Malformed> {
        let count = self.count(12, max)?;
        let mut ranges: Vec<ByteRange> = Vec::with_capacity(count);
        for _ in 0..count {
            let range = self.range()?;
            if ranges.last().is_some_and(|last| last.end() > range.offset) {
                return Err(Malformed("ranges are not in order"));
            }
            ranges.push(range);
        }
        Ok(ranges)
    }

    pub(crate) fn numbers<C: FromIterator<u64>>(&mut self, max: usize) -> Result<C, Malformed> {
        let count = self.count(8, max)?;
        (0..count).map(|_| self.u64()).collect()
    }

    /// Runs of blocks in order, without overlap, none empty.
    pub(crate) fn runs(&mut self, max: usize) -> Result<Vec<Range<u64>>, Malformed> {
        let count = self.count(16, max)?;
        let mut runs: Vec<Range<u64>> = Vec::with_capacity(count);
        for _ in 0..count {
            let run = self.u64()?..self.u64()?;
            if run.is_empty() || runs.last().is_some_and(|last| last.end > run.start) {
                return Err(Malformed("runs of blocks are empty or not in order"));
            }
            runs.push(run);
        }
        Ok(runs)
    }

    /// A list of what `entry` reads, `least` bytes each.
    pub(crate) fn list<T>(
        &mut self,
        least: usize,
        max: usize,
        mut entry: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.count(least, max)?;
        (0..count).map(|_| entry(self)).collect()
    }

    pub(crate) fn text(&mut self) -> Result<String, Malformed> {
        self.text_up_to(TEXT_BYTES_MAX)
    }

    pub(crate) fn name(&mut self) -> Result<String, Malformed> {
        self.text_up_to(NAME_BYTES_MAX)
    }

    fn text_up_to(&mut self, max: usize) -> Result<String, Malformed> {
        let length = usize::from(self.u16()?);
        if length > max {
            return Err(Malformed("a text is longer than it may be"));
        }
        let bytes = self.take(length)?;
        core::str::from_utf8(bytes)
            .map(ToOwned::to_owned)
            .map_err(|_| Malformed("a text is not UTF-8"))
    }
}
