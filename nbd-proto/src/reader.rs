//! The checked cursor over received bytes: the only place of this crate that slices them.

/// A cursor over received bytes. Nothing it does can panic; integers are big-endian.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// Fewer bytes were there than the field needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message ends in the middle of a field")]
pub struct Truncated;

impl<'a> Reader<'a> {
    /// Starts at the first of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether every byte has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`Truncated`] when there are fewer; nothing is consumed then. The same holds for every method below.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(Truncated)?;
        self.rest = tail;
        Ok(*head)
    }

    /// The next two bytes as an integer.
    ///
    /// # Errors
    /// [`Truncated`].
    pub fn u16(&mut self) -> Result<u16, Truncated> {
        self.array().map(u16::from_be_bytes)
    }

    /// The next four bytes as an integer.
    ///
    /// # Errors
    /// [`Truncated`].
    pub fn u32(&mut self) -> Result<u32, Truncated> {
        self.array().map(u32::from_be_bytes)
    }

    /// The next eight bytes as an integer.
    ///
    /// # Errors
    /// [`Truncated`].
    pub fn u64(&mut self) -> Result<u64, Truncated> {
        self.array().map(u64::from_be_bytes)
    }

    /// Exactly the next `length` bytes.
    ///
    /// # Errors
    /// [`Truncated`].
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Truncated> {
        let (head, tail) = self.rest.split_at_checked(length).ok_or(Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    /// The next `length` bytes, or all there are if fewer.
    pub fn take_up_to(&mut self, length: usize) -> &'a [u8] {
        match self.rest.split_at_checked(length) {
            Some((head, tail)) => {
                self.rest = tail;
                head
            }
            None => self.rest(),
        }
    }

    /// All bytes that are left.
    pub fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }
}

/// Reads the fields of a message that is all there and as long as its fields together.
///
/// That they do add up is what the golden-bytes tests show; a field too many would read as zero, never panic.
pub(crate) struct Fields<'a>(Reader<'a>);

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self(Reader::new(message))
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let field = self.0.array();
        debug_assert!(field.is_ok(), "a message is too short for its fields");
        field.unwrap_or([0; N])
    }
}

/// The longest prefix of `text` that is at most `limit` bytes and ends between two characters.
pub(crate) fn truncated(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn integers_are_big_endian_and_consumed() {
        let mut reader = Reader::new(&[1, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 9]);
        assert_eq!(reader.u16(), Ok(0x0102));
        assert_eq!(reader.u32(), Ok(3));
        assert_eq!(reader.u64(), Ok(4));
        assert_eq!(reader.rest(), &[9]);
        assert!(reader.is_empty());
    }

    #[test]
    fn a_short_field_is_an_error_and_consumes_nothing() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u32(), Err(Truncated));
        assert_eq!(reader.take(4), Err(Truncated));
        assert_eq!(reader.remaining(), 3);
        assert_eq!(reader.take(2).unwrap(), &[1, 2]);
        assert_eq!(reader.take_up_to(7), &[3]);
        assert_eq!(reader.take_up_to(7), &[] as &[u8]);
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(truncated("abc", 5), "abc");
        assert_eq!(truncated("aé", 2), "a");
        assert_eq!(truncated("é", 1), "");
    }
}
