//! Parts of a message that come in pieces: put aside until they are whole.

use nbd_proto::{PeerMisbehaved, ReplyHeader};

/// Longest header: that of an extended chunk.
const MAX_HEADER: usize = nbd_proto::constants::EXTENDED_CHUNK_HEADER_LENGTH;
/// Room for a header and the fixed part of a chunk, taken once.
pub(super) const PARTIAL_CAPACITY: usize = MAX_HEADER;

/// A whole header, directly from the input when it is all there; otherwise its beginning is put aside.
pub(super) fn take_header(partial: &mut Vec<u8>, input: &mut &[u8]) -> Result<Option<ReplyHeader>, PeerMisbehaved> {
    if partial.is_empty()
        && let Some((header, length)) = ReplyHeader::decode(input)?
    {
        *input = input.get(length..).unwrap_or_default();
        return Ok(Some(header));
    }
    let before = partial.len();
    let room = MAX_HEADER.saturating_sub(before);
    partial.extend_from_slice(input.get(..room).unwrap_or(input));
    let Some((header, length)) = ReplyHeader::decode(partial)? else {
        *input = &[];
        return Ok(None);
    };
    // What was put aside was no whole header, so `length` is more than that.
    *input = input.get(length.saturating_sub(before)..).unwrap_or_default();
    partial.clear();
    Ok(Some(header))
}

/// Exactly `N` bytes once they have come.
pub(super) fn take_array<const N: usize>(partial: &mut Vec<u8>, input: &mut &[u8]) -> Option<[u8; N]> {
    take(partial, input, N, |bytes| {
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        array
    })
}

/// Calls `parse` with exactly `need` bytes once they have come; until then puts them aside.
pub(super) fn take<R>(
    partial: &mut Vec<u8>,
    input: &mut &[u8],
    need: usize,
    parse: impl FnOnce(&[u8]) -> R,
) -> Option<R> {
    let missing = need.saturating_sub(partial.len());
    let (now, later) = input.split_at(input.len().min(missing));
    *input = later;
    if now.len() == need {
        return Some(parse(now));
    }
    partial.extend_from_slice(now);
    if partial.len() < need {
        return None;
    }
    let parsed = parse(partial);
    partial.clear();
    Some(parsed)
}
