//! Replies as they go out, in whichever style was negotiated.

use alloc::vec::Vec;
use core::ops::Deref;

use super::{ChunkKind, ERROR_FIELDS, HOLE_PAYLOAD, OFFSET_LENGTH, ReplyStyle};
use crate::constants::{
    CHUNK_MAGIC, EXTENDED_CHUNK_HEADER_LENGTH, EXTENDED_CHUNK_MAGIC, MAX_STRING, SIMPLE_REPLY_LENGTH,
    SIMPLE_REPLY_MAGIC,
};
use crate::error::NbdError;
use crate::flags::ReplyFlags;
use crate::reader::truncated;
use crate::status::{Extent, put_extents};
use crate::writer::Writer;

/// The longest of the fixed messages: a hole behind an extended header.
const MAX_ENCODED: usize = EXTENDED_CHUNK_HEADER_LENGTH + HOLE_PAYLOAD as usize;

/// The request that is answered, and the style in which. Makes every message a server sends in its transmission phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// What was negotiated.
    pub style: ReplyStyle,
    /// The request's cookie.
    pub cookie: u64,
    /// The request's offset: extended headers echo it.
    pub offset: u64,
}

/// A message of fixed fields, at most the longest of [`ReplyTo`] or a request's header; a slice of bytes for whoever sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    bytes: [u8; MAX_ENCODED],
    length: usize,
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

impl ReplyTo {
    /// An answer in structured chunks, which do not echo the offset.
    pub fn structured(cookie: u64) -> Self {
        Self {
            style: ReplyStyle::Structured,
            cookie,
            offset: 0,
        }
    }

    /// A chunk header; `length` bytes of payload go directly behind.
    pub fn chunk_header(&self, flags: ReplyFlags, kind: ChunkKind, length: u32) -> Encoded {
        let extended = self.style == ReplyStyle::Extended;
        let magic = if extended { EXTENDED_CHUNK_MAGIC } else { CHUNK_MAGIC };
        let header = Encoded::default()
            .with(&magic.to_be_bytes())
            .with(&flags.bits().to_be_bytes())
            .with(&kind.to_wire().to_be_bytes())
            .with(&self.cookie.to_be_bytes());
        match extended {
            true => header
                .with(&self.offset.to_be_bytes())
                .with(&u64::from(length).to_be_bytes()),
            false => header.with(&length.to_be_bytes()),
        }
    }

    /// Everything of a data chunk but the data: `length` bytes of it, at least one, go directly behind.
    ///
    /// `offset` counts from the start of the export. `length` must leave room for the offset in the chunk's own length,
    /// which every length up to a sane maximum payload does.
    pub fn offset_data(&self, flags: ReplyFlags, offset: u64, length: u32) -> Encoded {
        let payload = length.saturating_add(OFFSET_LENGTH);
        self.chunk_header(flags, ChunkKind::OffsetData, payload)
            .with(&offset.to_be_bytes())
    }

    /// A chunk that says `length` bytes at `offset` read as zeroes. `length` must not be 0.
    pub fn hole(&self, flags: ReplyFlags, offset: u64, length: u32) -> Encoded {
        self.chunk_header(flags, ChunkKind::OffsetHole, HOLE_PAYLOAD)
            .with(&offset.to_be_bytes())
            .with(&length.to_be_bytes())
    }

    /// The chunk that ends a reply without saying more.
    pub fn none(&self) -> Encoded {
        self.chunk_header(ReplyFlags::DONE, ChunkKind::None, 0)
    }

    /// The whole answer to what succeeded and brings nothing back. Without extended headers that is a simple reply, the
    /// shortest the protocol allows.
    pub fn success(&self) -> Encoded {
        match self.style {
            ReplyStyle::Simple | ReplyStyle::Structured => Encoded::default().with(&simple_reply(self.cookie, None)),
            ReplyStyle::Extended => self.none(),
        }
    }

    /// A whole error chunk, the last of its reply. The text is cut to 4096 bytes.
    pub fn error(&self, error: NbdError, message: &str, offset: Option<u64>) -> Vec<u8> {
        let text = truncated(message, MAX_STRING).as_bytes();
        let text_length = u16::try_from(text.len()).unwrap_or(0);
        let (kind, offset_length) = match offset {
            Some(_) => (ChunkKind::ErrorOffset, OFFSET_LENGTH),
            None => (ChunkKind::Error, 0),
        };
        let payload = ERROR_FIELDS + u32::from(text_length) + offset_length;
        let mut bytes = Vec::with_capacity(EXTENDED_CHUNK_HEADER_LENGTH + payload as usize);
        bytes.extend_from_slice(&self.chunk_header(ReplyFlags::DONE, kind, payload));
        bytes.extend_from_slice(&error.to_wire().to_be_bytes());
        bytes.extend_from_slice(&text_length.to_be_bytes());
        bytes.extend_from_slice(text);
        if let Some(offset) = offset {
            bytes.extend_from_slice(&offset.to_be_bytes());
        }
        bytes
    }

    /// Appends a whole block status chunk, of the kind that belongs to the style: the extents of one metadata context,
    /// from the request's offset on. There must be at least one, and none of length 0; at most
    /// [`MAX_STATUS_EXTENTS`](crate::constants::MAX_STATUS_EXTENTS). In 32 bits longer extents are split.
    pub fn put_status(&self, flags: ReplyFlags, context: u32, extents: &[Extent], output: &mut Vec<u8>) {
        let wide = self.style == ReplyStyle::Extended;
        let kind = if wide {
            ChunkKind::BlockStatusExt
        } else {
            ChunkKind::BlockStatus
        };
        let start = output.len();
        output.extend_from_slice(&self.chunk_header(flags, kind, 0));
        let payload = output.len();
        put_extents(wide, context, extents, output);
        let length = u32::try_from(output.len() - payload).unwrap_or(u32::MAX);
        let header = self.chunk_header(flags, kind, length);
        if let Some(place) = output.get_mut(start..payload) {
            place.copy_from_slice(&header);
        }
    }
}

impl Default for Encoded {
    fn default() -> Self {
        Self {
            bytes: [0; MAX_ENCODED],
            length: 0,
        }
    }
}

impl Encoded {
    /// One more field. No message here is longer than there is room.
    pub(crate) fn with(mut self, field: &[u8]) -> Self {
        let end = self.length + field.len();
        let place = self.bytes.get_mut(self.length..end);
        debug_assert!(place.is_some(), "a message is too short for its fields");
        if let Some(place) = place {
            place.copy_from_slice(field);
            self.length = end;
        }
        self
    }
}

impl Deref for Encoded {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}
