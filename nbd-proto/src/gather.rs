//! Collects a message of known length from pieces of any size.

use alloc::vec::Vec;

use crate::reader::Reader;

/// The bytes of the message under way that have arrived so far.
///
/// Memory follows what arrived, not what was announced; the caller bounds the length it asks for.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    held: Vec<u8>,
}

impl Gather {
    /// Moves bytes from `input` until `length` are held. Returns them then, and starts anew.
    pub(crate) fn take(&mut self, input: &mut Reader<'_>, length: usize) -> Option<Vec<u8>> {
        let missing = length.saturating_sub(self.held.len());
        self.held.extend_from_slice(input.take_up_to(missing));
        (self.held.len() >= length).then(|| core::mem::take(&mut self.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_whole_only_when_its_last_byte_is_there() {
        let mut gather = Gather::default();
        assert_eq!(gather.take(&mut Reader::new(b"ab"), 4), None);
        assert_eq!(gather.take(&mut Reader::new(b""), 4), None);
        let mut input = Reader::new(b"cdef");
        assert_eq!(gather.take(&mut input, 4).as_deref(), Some(b"abcd".as_slice()));
        assert_eq!(input.rest(), b"ef");
        assert_eq!(gather.take(&mut Reader::new(b""), 0).as_deref(), Some(b"".as_slice()));
    }
}
