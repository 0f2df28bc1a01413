//! Fixed-size messages, built field by field.

/// Fills an array from the front; integers go out big-endian.
///
/// Every message has one `Writer` whose fields add up to its length. That they do is what the golden-bytes tests show;
/// a field too many would be dropped, never panic.
pub(crate) struct Writer<'a> {
    rest: &'a mut [u8],
}

impl<'a> Writer<'a> {
    pub(crate) fn new(message: &'a mut [u8]) -> Self {
        Self { rest: message }
    }

    pub(crate) fn u16(self, value: u16) -> Self {
        self.array(value.to_be_bytes())
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.array(value.to_be_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.array(value.to_be_bytes())
    }

    /// Ends the message.
    pub(crate) fn finish(self) {
        debug_assert!(
            self.rest.is_empty(),
            "{} bytes of a message were left unset",
            self.rest.len()
        );
    }

    fn array<const N: usize>(self, bytes: [u8; N]) -> Self {
        match self.rest.split_first_chunk_mut::<N>() {
            Some((field, rest)) => {
                *field = bytes;
                Self { rest }
            }
            None => {
                debug_assert!(false, "a message is too short for its fields");
                Self { rest: &mut [] }
            }
        }
    }
}
