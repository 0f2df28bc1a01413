//! Replies of the transmission phase: simple replies, structured and extended chunks, both ways.
//!
//! Encoding ([`ReplyTo`]) gives fixed messages that are sent in front of data the caller holds elsewhere. Decoding goes
//! in two steps, as the bytes arrive: [`ReplyHeader::decode`] from the front of the stream, then, by the kind of chunk,
//! [`decode_hole`], [`decode_offset`], [`ErrorChunk::decode`] and [`decode_status`].

mod encode;

use alloc::string::String;

pub use encode::{Encoded, ReplyTo, simple_reply};

use crate::constants::{
    CHUNK_HEADER_LENGTH, CHUNK_MAGIC, EXTENDED_CHUNK_HEADER_LENGTH, EXTENDED_CHUNK_MAGIC, EXTENDED_REQUEST_LENGTH,
    MAX_ERROR_CHUNK, MAX_STRING, REQUEST_LENGTH, SIMPLE_REPLY_LENGTH, SIMPLE_REPLY_MAGIC, chunk,
};
use crate::error::NbdError;
use crate::flags::ReplyFlags;
use crate::misbehaved::PeerMisbehaved;
use crate::reader::{Fields, Reader, Truncated};
use crate::status;
pub use crate::status::decode_status;

/// Bytes of the offset that starts the payload of a data chunk.
const OFFSET_LENGTH: u32 = 8;
/// Bytes of a hole's payload: offset and length.
const HOLE_PAYLOAD: u32 = 12;
/// Bytes of an error chunk's payload without its text: error and text length.
const ERROR_FIELDS: u32 = 6;

/// How the two sides talk in the transmission phase: what was negotiated of STRUCTURED_REPLY and EXTENDED_HEADERS, of
/// which the latter counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyStyle {
    /// Compact requests, simple replies.
    #[default]
    Simple,
    /// Compact requests; READ and BLOCK_STATUS are answered in structured chunks, other commands may be.
    Structured,
    /// Extended requests, extended chunks for everything.
    Extended,
}

impl ReplyStyle {
    /// Bytes of a request header.
    pub fn request_length(self) -> usize {
        match self {
            Self::Simple | Self::Structured => REQUEST_LENGTH,
            Self::Extended => EXTENDED_REQUEST_LENGTH,
        }
    }

    /// Bytes of a chunk header.
    pub fn chunk_header_length(self) -> usize {
        match self {
            Self::Simple | Self::Structured => CHUNK_HEADER_LENGTH,
            Self::Extended => EXTENDED_CHUNK_HEADER_LENGTH,
        }
    }

    /// Whether replies come in chunks, so that READ can have holes, errors text, and BLOCK_STATUS is possible.
    pub fn has_chunks(self) -> bool {
        self != Self::Simple
    }
}

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
    /// A structured or extended chunk; `length` bytes of payload follow.
    Chunk {
        /// Whether it is the last of its reply.
        flags: ReplyFlags,
        /// What the payload is.
        kind: ChunkKind,
        /// The request's cookie.
        cookie: u64,
        /// Bytes of payload. Already checked against what `kind` can have.
        length: u32,
        /// The request's offset, which extended headers echo. `None`: a structured chunk.
        offset: Option<u64>,
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
    /// A metadata context and its extents in 32 bits: [`decode_status`].
    BlockStatus,
    /// A metadata context and its extents in 64 bits: [`decode_status`].
    BlockStatusExt,
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
            CHUNK_MAGIC => (read_chunk(&mut reader, false), CHUNK_HEADER_LENGTH),
            EXTENDED_CHUNK_MAGIC => (read_chunk(&mut reader, true), EXTENDED_CHUNK_HEADER_LENGTH),
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
            length: payload.len() as u64,
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
            Self::BlockStatus => chunk::BLOCK_STATUS,
            Self::BlockStatusExt => chunk::BLOCK_STATUS_EXT,
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
            chunk::BLOCK_STATUS => Self::BlockStatus,
            chunk::BLOCK_STATUS_EXT => Self::BlockStatusExt,
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
            Self::BlockStatus => status::can_have(false, u64::from(length)),
            Self::BlockStatusExt => status::can_have(true, u64::from(length)),
            Self::Error | Self::UnknownError(_) => (ERROR_FIELDS..=MAX_ERROR_CHUNK).contains(&length),
            Self::ErrorOffset => (ERROR_FIELDS + OFFSET_LENGTH..=MAX_ERROR_CHUNK).contains(&length),
        }
    }
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

fn read_chunk(reader: &mut Reader<'_>, extended: bool) -> Read {
    let flags = ReplyFlags::from_bits_retain(reader.u16()?);
    let code = reader.u16()?;
    let cookie = reader.u64()?;
    let (offset, announced) = match extended {
        true => (Some(reader.u64()?), reader.u64()?),
        false => (None, u64::from(reader.u32()?)),
    };
    Ok(
        ChunkKind::from_wire(code).and_then(|kind| match u32::try_from(announced) {
            Ok(length) if kind.can_have(length) => match kind {
                ChunkKind::None if !flags.contains(ReplyFlags::DONE) => Err(PeerMisbehaved::NoneChunkNotDone),
                kind => Ok(ReplyHeader::Chunk {
                    flags,
                    kind,
                    cookie,
                    length,
                    offset,
                }),
            },
            _ => Err(PeerMisbehaved::WrongChunkLength {
                kind: code,
                length: announced,
            }),
        }),
    )
}

#[cfg(test)]
mod tests;
