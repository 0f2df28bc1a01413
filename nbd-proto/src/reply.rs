//! Replies of the transmission phase: simple replies and structured chunks, both ways.
//!
//! Encoding gives fixed arrays that are sent in front of data the caller holds elsewhere. Decoding goes in two steps, as
//! the bytes arrive: [`ReplyHeader::decode`] from the front of the stream, then, for the chunks that have a fixed
//! payload, [`decode_hole`], [`decode_offset`] and [`ErrorChunk::decode`].

use alloc::string::String;
use alloc::vec::Vec;

use crate::constants::{
    CHUNK_HEADER_LENGTH, CHUNK_MAGIC, MAX_ERROR_CHUNK, MAX_STRING, SIMPLE_REPLY_LENGTH, SIMPLE_REPLY_MAGIC, chunk,
};
use crate::error::NbdError;
use crate::flags::ReplyFlags;
use crate::misbehaved::PeerMisbehaved;
use crate::reader::{Fields, Reader, Truncated, truncated};
use crate::writer::Writer;

/// Bytes of an [`offset_data_header`], the data not included.
pub const OFFSET_DATA_HEADER_LENGTH: usize = CHUNK_HEADER_LENGTH + OFFSET_LENGTH as usize;
/// Bytes of a [`hole_chunk`].
pub const HOLE_CHUNK_LENGTH: usize = CHUNK_HEADER_LENGTH + HOLE_PAYLOAD as usize;

/// Bytes of the offset that starts the payload of a data chunk.
const OFFSET_LENGTH: u32 = 8;
/// Bytes of a hole's payload: offset and length.
const HOLE_PAYLOAD: u32 = 12;
/// Bytes of an error chunk's payload without its text: error and text length.
const ERROR_FIELDS: u32 = 6;

/// The start of a reply, as a client reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyHeader {
    /// A simple reply. The data of a READ that succeeded follows.
    Simple {
        /// The request's cookie.
        cookie: u64,
        /// `None`: it succeeded.
        error: Option<NbdError>,
    },
    /// A structured chunk; `length` bytes of payload follow.
    Chunk {
        /// Whether it is the last of its reply.
        flags: ReplyFlags,
        /// What the payload is.
        kind: ChunkKind,
        /// The request's cookie.
        cookie: u64,
        /// Bytes of payload. Already checked against what `kind` can have.
        length: u32,
    },
}

/// What a chunk carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkKind {
    /// Nothing; the reply is complete.
    None,
    /// An offset (8 bytes) and at least one byte of data.
    OffsetData,
    /// An offset and a length that reads as zeroes (12 bytes).
    OffsetHole,
    /// An error and its text.
    Error,
    /// An error, its text, and the offset where it happened.
    ErrorOffset,
    /// A kind of error that is not known: the request failed, the connection goes on. The wire value is kept.
    UnknownError(u16),
}

/// The payload of an error chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorChunk {
    /// What failed.
    pub error: NbdError,
    /// The server's text, may be empty. Bytes that are not UTF-8 are replaced.
    pub message: String,
    /// Where, if told.
    pub offset: Option<u64>,
}

/// A simple reply. For a READ that succeeded its data goes directly behind.
pub fn simple_reply(cookie: u64, error: Option<NbdError>) -> [u8; SIMPLE_REPLY_LENGTH] {
    let mut bytes = [0; SIMPLE_REPLY_LENGTH];
    Writer::new(&mut bytes)
        .u32(SIMPLE_REPLY_MAGIC)
        .u32(error.map_or(0, NbdError::to_wire))
        .u64(cookie)
        .finish();
    bytes
}

/// A chunk header; `length` bytes of payload go directly behind.
pub fn chunk_header(flags: ReplyFlags, kind: ChunkKind, cookie: u64, length: u32) -> [u8; CHUNK_HEADER_LENGTH] {
    let mut bytes = [0; CHUNK_HEADER_LENGTH];
    put_chunk_header(&mut bytes, flags, kind, cookie, length).finish();
    bytes
}

/// Everything of a data chunk but the data: `length` bytes of it, at least one, go directly behind.
///
/// `offset` counts from the start of the export. `length` must leave room for the offset in the chunk's own length,
/// which every length up to a sane maximum payload does.
pub fn offset_data_header(cookie: u64, flags: ReplyFlags, offset: u64, length: u32) -> [u8; OFFSET_DATA_HEADER_LENGTH] {
    let mut bytes = [0; OFFSET_DATA_HEADER_LENGTH];
    let payload = length.saturating_add(OFFSET_LENGTH);
    put_chunk_header(&mut bytes, flags, ChunkKind::OffsetData, cookie, payload)
        .u64(offset)
        .finish();
    bytes
}

/// A chunk that says `length` bytes at `offset` read as zeroes. `length` must not be 0.
pub fn hole_chunk(cookie: u64, flags: ReplyFlags, offset: u64, length: u32) -> [u8; HOLE_CHUNK_LENGTH] {
    let mut bytes = [0; HOLE_CHUNK_LENGTH];
    put_chunk_header(&mut bytes, flags, ChunkKind::OffsetHole, cookie, HOLE_PAYLOAD)
        .u64(offset)
        .u32(length)
        .finish();
    bytes
}

/// The chunk that ends a reply without saying more: the answer to anything that succeeded and reads nothing.
pub fn none_chunk(cookie: u64) -> [u8; CHUNK_HEADER_LENGTH] {
    chunk_header(ReplyFlags::DONE, ChunkKind::None, cookie, 0)
}

/// A whole error chunk, the last of its reply. The text is cut to 4096 bytes.
pub fn error_chunk(cookie: u64, error: NbdError, message: &str, offset: Option<u64>) -> Vec<u8> {
    let text = truncated(message, MAX_STRING).as_bytes();
    let text_length = u16::try_from(text.len()).unwrap_or(0);
    let (kind, offset_length) = match offset {
        Some(_) => (ChunkKind::ErrorOffset, OFFSET_LENGTH),
        None => (ChunkKind::Error, 0),
    };
    let payload = ERROR_FIELDS + u32::from(text_length) + offset_length;
    let mut bytes = Vec::with_capacity(CHUNK_HEADER_LENGTH + payload as usize);
    bytes.extend_from_slice(&chunk_header(ReplyFlags::DONE, kind, cookie, payload));
    bytes.extend_from_slice(&error.to_wire().to_be_bytes());
    bytes.extend_from_slice(&text_length.to_be_bytes());
    bytes.extend_from_slice(text);
    if let Some(offset) = offset {
        bytes.extend_from_slice(&offset.to_be_bytes());
    }
    bytes
}

/// The offset that starts the payload of [`ChunkKind::OffsetData`].
pub fn decode_offset(payload: &[u8; OFFSET_LENGTH as usize]) -> u64 {
    u64::from_be_bytes(*payload)
}

/// Offset and length of [`ChunkKind::OffsetHole`].
///
/// # Errors
/// [`PeerMisbehaved::EmptyHole`].
pub fn decode_hole(payload: &[u8; HOLE_PAYLOAD as usize]) -> Result<(u64, u32), PeerMisbehaved> {
    let mut fields = Fields::new(payload);
    match (fields.u64(), fields.u32()) {
        (_, 0) => Err(PeerMisbehaved::EmptyHole),
        hole => Ok(hole),
    }
}

impl ReplyHeader {
    /// Reads a header from the front of `input`, with its length in bytes. `None`: more bytes are needed.
    ///
    /// # Errors
    /// The rule that was broken. A wrong magic is seen with the fourth byte.
    pub fn decode(input: &[u8]) -> Result<Option<(Self, usize)>, PeerMisbehaved> {
        let mut reader = Reader::new(input);
        let Ok(magic) = reader.u32() else { return Ok(None) };
        let (read, length) = match magic {
            SIMPLE_REPLY_MAGIC => (read_simple(&mut reader), SIMPLE_REPLY_LENGTH),
            CHUNK_MAGIC => (read_chunk(&mut reader), CHUNK_HEADER_LENGTH),
            other => return Err(PeerMisbehaved::BadReplyMagic(other)),
        };
        match read {
            Ok(header) => header.map(|header| Some((header, length))),
            Err(Truncated) => Ok(None),
        }
    }

    /// The cookie of the request this answers.
    pub fn cookie(&self) -> u64 {
        match self {
            Self::Simple { cookie, .. } | Self::Chunk { cookie, .. } => *cookie,
        }
    }
}

impl ErrorChunk {
    /// Reads the whole payload of a chunk of `kind`, which is one of the errors.
    ///
    /// # Errors
    /// The rule that was broken.
    pub fn decode(kind: ChunkKind, payload: &[u8]) -> Result<Self, PeerMisbehaved> {
        let wrong_length = |_| PeerMisbehaved::WrongChunkLength {
            kind: kind.to_wire(),
            length: saturated(payload.len()),
        };
        let mut reader = Reader::new(payload);
        let error = match reader.u32().map_err(wrong_length)? {
            0 => return Err(PeerMisbehaved::ErrorChunkWithoutError),
            value => NbdError::from_wire(value),
        };
        let announced = usize::from(reader.u16().map_err(wrong_length)?);
        if announced > MAX_STRING {
            return Err(PeerMisbehaved::StringTooLong {
                what: "error text",
                length: announced,
            });
        }
        let text = reader.take(announced).map_err(|_| PeerMisbehaved::ErrorTextTruncated {
            length: payload.len(),
            announced,
        })?;
        let offset = match kind {
            ChunkKind::ErrorOffset => Some(reader.u64().map_err(wrong_length)?),
            _ => None,
        };
        // Later kinds of error may say more behind the text; the known ones may not.
        if !reader.is_empty() && !matches!(kind, ChunkKind::UnknownError(_)) {
            return Err(PeerMisbehaved::ErrorChunkTooLong(reader.remaining()));
        }
        Ok(Self {
            error,
            message: String::from_utf8_lossy(text).into_owned(),
            offset,
        })
    }
}

impl ChunkKind {
    /// Its number on the wire.
    pub fn to_wire(self) -> u16 {
        match self {
            Self::None => chunk::NONE,
            Self::OffsetData => chunk::OFFSET_DATA,
            Self::OffsetHole => chunk::OFFSET_HOLE,
            Self::Error => chunk::ERROR,
            Self::ErrorOffset => chunk::ERROR_OFFSET,
            Self::UnknownError(value) => value,
        }
    }

    /// Whether the request failed.
    pub fn is_error(self) -> bool {
        matches!(self, Self::Error | Self::ErrorOffset | Self::UnknownError(_))
    }

    fn from_wire(value: u16) -> Result<Self, PeerMisbehaved> {
        Ok(match value {
            chunk::NONE => Self::None,
            chunk::OFFSET_DATA => Self::OffsetData,
            chunk::OFFSET_HOLE => Self::OffsetHole,
            chunk::ERROR => Self::Error,
            chunk::ERROR_OFFSET => Self::ErrorOffset,
            value if value & chunk::ERROR_BIT != 0 => Self::UnknownError(value),
            other => return Err(PeerMisbehaved::UnknownChunkType(other)),
        })
    }

    fn can_have(self, length: u32) -> bool {
        match self {
            Self::None => length == 0,
            Self::OffsetData => length > OFFSET_LENGTH,
            Self::OffsetHole => length == HOLE_PAYLOAD,
            Self::Error | Self::UnknownError(_) => (ERROR_FIELDS..=MAX_ERROR_CHUNK).contains(&length),
            Self::ErrorOffset => (ERROR_FIELDS + OFFSET_LENGTH..=MAX_ERROR_CHUNK).contains(&length),
        }
    }
}

fn put_chunk_header(bytes: &mut [u8], flags: ReplyFlags, kind: ChunkKind, cookie: u64, length: u32) -> Writer<'_> {
    Writer::new(bytes)
        .u32(CHUNK_MAGIC)
        .u16(flags.bits())
        .u16(kind.to_wire())
        .u64(cookie)
        .u32(length)
}

/// A header, or the rule it breaks; `Truncated` when its bytes are not all there yet.
type Read = Result<Result<ReplyHeader, PeerMisbehaved>, Truncated>;

fn read_simple(reader: &mut Reader<'_>) -> Read {
    let error = match reader.u32()? {
        0 => None,
        value => Some(NbdError::from_wire(value)),
    };
    Ok(Ok(ReplyHeader::Simple {
        error,
        cookie: reader.u64()?,
    }))
}

fn read_chunk(reader: &mut Reader<'_>) -> Read {
    let flags = ReplyFlags::from_bits_retain(reader.u16()?);
    let code = reader.u16()?;
    let cookie = reader.u64()?;
    let length = reader.u32()?;
    Ok(ChunkKind::from_wire(code).and_then(|kind| match kind {
        kind if !kind.can_have(length) => Err(PeerMisbehaved::WrongChunkLength { kind: code, length }),
        ChunkKind::None if !flags.contains(ReplyFlags::DONE) => Err(PeerMisbehaved::NoneChunkNotDone),
        kind => Ok(ReplyHeader::Chunk {
            flags,
            kind,
            cookie,
            length,
        }),
    }))
}

fn saturated(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
