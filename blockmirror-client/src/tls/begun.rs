//! What was received and cannot be opened yet: [`Begun`].

/// Bytes in front of a record: its type, a version, its length.
const HEADER_BYTES: usize = 5;
/// Bytes that are kept, at most. A record is shorter; a message of a handshake may come in any number of them.
const KEPT_MAX: usize = 64 << 10;

/// Received bytes that rustls is not done with: a record whose end has not come, behind those that begin the same message.
#[derive(Default)]
pub(super) struct Begun {
    bytes: Vec<u8>,
    /// Where the record begins that has not come whole.
    record: usize,
}

impl Begun {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Keep the beginning of what was received. `is_whole`: of records that have come whole.
    pub(super) fn keep(&mut self, bytes: &[u8], is_whole: bool) {
        self.bytes.extend_from_slice(bytes);
        self.record = if is_whole { bytes.len() } else { 0 };
    }

    /// More has come: as much of it as the record, or its header, lacks. How many bytes; `None`: this is too long.
    pub(super) fn take(&mut self, fresh: &[u8]) -> Option<usize> {
        let begin = &self.bytes[self.record..];
        let lack = length(begin).unwrap_or(HEADER_BYTES).saturating_sub(begin.len());
        let is_end = length(begin).is_some() && fresh.len() >= lack;
        let count = lack.min(fresh.len());
        if self.bytes.len() + count > KEPT_MAX {
            return None;
        }
        self.bytes.reserve_exact(lack);
        self.bytes.extend_from_slice(&fresh[..count]);
        if is_end {
            self.record = self.bytes.len();
        }
        Some(count)
    }

    /// Bytes that rustls is done with go from the beginning.
    pub(super) fn forget(&mut self, count: usize) {
        self.bytes.drain(..count);
        self.record = self.record.saturating_sub(count);
    }
}

/// Bytes of the record at the beginning, its header with them; `None`: the header is not there.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [_, _, _, high, low, ..] => Some(HEADER_BYTES + usize::from(u16::from_be_bytes([*high, *low]))),
        _ => None,
    }
}
