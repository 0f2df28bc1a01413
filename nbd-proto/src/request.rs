//! A request header of the transmission phase, and the command it stands for.

use crate::constants::{EXTENDED_REQUEST_LENGTH, EXTENDED_REQUEST_MAGIC, REQUEST_LENGTH, REQUEST_MAGIC, command};
use crate::flags::CommandFlags;
use crate::misbehaved::PeerMisbehaved;
use crate::reader::Fields;
use crate::reply::{Encoded, ReplyStyle};
use crate::status::StatusFilter;
use crate::writer::Writer;
use alloc::vec::Vec;

/// A request as it is on the wire: decoded, not yet validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Modifiers, unknown bits kept.
    pub flags: CommandFlags,
    /// Raw command number.
    pub command: u16,
    /// The client's own handle, echoed in the reply.
    pub cookie: u64,
    /// First byte of the range.
    pub offset: u64,
    /// Bytes of the range; of the payload too, for WRITE. Below 4 GiB without extended headers. With them and
    /// [`CommandFlags::PAYLOAD_LEN`] bytes of the payload, whatever the command.
    pub length: u64,
}

/// A request that makes sense: what [`crate::validate()`] returns, and what a client starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Read the range.
    Read {
        /// Answer with at most one content chunk.
        df: bool,
    },
    /// Write the payload to the range.
    Write {
        /// Durable before the reply.
        fua: bool,
    },
    /// End the session once everything in flight is answered. Has no reply.
    Disconnect,
    /// Make everything answered so far durable.
    Flush,
    /// The contents of the range are no longer needed.
    Trim {
        /// Durable before the reply.
        fua: bool,
    },
    /// Make the range read back as zeroes.
    WriteZeroes {
        /// Durable before the reply.
        fua: bool,
        /// Leave the range provisioned.
        no_hole: bool,
        /// Fail at once, and change nothing, unless it is faster than writing.
        fast: bool,
    },
    /// Prefetch the range.
    Cache,
    /// Describe the range in the selected metadata contexts.
    BlockStatus {
        /// One extent for each context, no longer than the range.
        one: bool,
    },
}

impl Request {
    /// Bytes of a compact header.
    pub const LENGTH: usize = REQUEST_LENGTH;
    /// Bytes of an extended header.
    pub const EXTENDED_LENGTH: usize = EXTENDED_REQUEST_LENGTH;

    /// The request that asks for `command` on `length` bytes at `offset`. Both are zero for FLUSH and DISC.
    pub fn new(command: Command, cookie: u64, offset: u64, length: u64) -> Self {
        Self {
            flags: command.flags(),
            command: command.code(),
            cookie,
            offset,
            length,
        }
    }

    /// The same request as it is said in this style: with extended headers a WRITE tells of its payload by a flag.
    #[must_use]
    pub fn in_style(mut self, style: ReplyStyle) -> Self {
        if self.command == command::WRITE {
            self.flags.set(CommandFlags::PAYLOAD_LEN, style == ReplyStyle::Extended);
        }
        self
    }

    /// Reads the header at the front of `input`, of the length that belongs to `style`
    /// ([`ReplyStyle::request_length`]). `None`: more bytes are needed.
    ///
    /// # Errors
    /// [`PeerMisbehaved::BadRequestMagic`] and [`PeerMisbehaved::BadExtendedRequestMagic`]: the stream is out of step
    /// and must be closed.
    pub fn read(style: ReplyStyle, input: &[u8]) -> Result<Option<Self>, PeerMisbehaved> {
        match style {
            ReplyStyle::Simple | ReplyStyle::Structured => input.first_chunk().map(Self::decode),
            ReplyStyle::Extended => input.first_chunk().map(Self::decode_extended),
        }
        .transpose()
    }

    /// Reads a compact header.
    ///
    /// # Errors
    /// [`PeerMisbehaved::BadRequestMagic`]: the stream is out of step and must be closed.
    pub fn decode(bytes: &[u8; Self::LENGTH]) -> Result<Self, PeerMisbehaved> {
        let mut fields = Fields::new(bytes);
        let magic = fields.u32();
        if magic != REQUEST_MAGIC {
            return Err(PeerMisbehaved::BadRequestMagic(magic));
        }
        Ok(Self {
            flags: CommandFlags::from_bits_retain(fields.u16()),
            command: fields.u16(),
            cookie: fields.u64(),
            offset: fields.u64(),
            length: u64::from(fields.u32()),
        })
    }

    /// Reads an extended header.
    ///
    /// # Errors
    /// [`PeerMisbehaved::BadExtendedRequestMagic`]: the stream is out of step and must be closed.
    pub fn decode_extended(bytes: &[u8; Self::EXTENDED_LENGTH]) -> Result<Self, PeerMisbehaved> {
        let mut fields = Fields::new(bytes);
        let magic = fields.u32();
        if magic != EXTENDED_REQUEST_MAGIC {
            return Err(PeerMisbehaved::BadExtendedRequestMagic(magic));
        }
        Ok(Self {
            flags: CommandFlags::from_bits_retain(fields.u16()),
            command: fields.u16(),
            cookie: fields.u64(),
            offset: fields.u64(),
            length: fields.u64(),
        })
    }

    /// The compact header as it goes out. The length must be below 4 GiB: there is no room for more.
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let length = u32::try_from(self.length);
        debug_assert!(length.is_ok(), "a length of {} needs extended headers", self.length);
        let mut bytes = [0; Self::LENGTH];
        Writer::new(&mut bytes)
            .u32(REQUEST_MAGIC)
            .u16(self.flags.bits())
            .u16(self.command)
            .u64(self.cookie)
            .u64(self.offset)
            .u32(length.unwrap_or(u32::MAX))
            .finish();
        bytes
    }

    /// The extended header as it goes out.
    pub fn encode_extended(&self) -> [u8; Self::EXTENDED_LENGTH] {
        let mut bytes = [0; Self::EXTENDED_LENGTH];
        Writer::new(&mut bytes)
            .u32(EXTENDED_REQUEST_MAGIC)
            .u16(self.flags.bits())
            .u16(self.command)
            .u64(self.cookie)
            .u64(self.offset)
            .u64(self.length)
            .finish();
        bytes
    }

    /// The header as it is said in this style, with [`in_style`](Self::in_style).
    pub fn encode_in(&self, style: ReplyStyle) -> Encoded {
        let request = self.in_style(style);
        match style {
            ReplyStyle::Simple | ReplyStyle::Structured => Encoded::default().with(&request.encode()),
            ReplyStyle::Extended => Encoded::default().with(&request.encode_extended()),
        }
    }

    /// A BLOCK_STATUS for some of the selected contexts: header and payload. Only with extended headers, and where
    /// [`TransmissionFlags::BLOCK_STATUS_PAYLOAD`](crate::TransmissionFlags::BLOCK_STATUS_PAYLOAD) was advertised. `length`
    /// and everything else of `self` are as without the payload.
    pub fn encode_filtered(&self, contexts: Vec<u32>) -> (Encoded, Vec<u8>) {
        let filter = StatusFilter {
            length: self.length,
            contexts,
        };
        let payload = filter.encode();
        let request = Self {
            flags: self.flags | CommandFlags::PAYLOAD_LEN,
            length: payload.len() as u64,
            ..*self
        };
        (request.encode_in(ReplyStyle::Extended), payload)
    }

    /// Bytes of payload that follow the header, to be consumed even when the request is refused.
    ///
    /// Extended headers say it for every command. Without them only WRITE has one: an unknown command cannot be known to
    /// have any. A WRITE has one whether it says so or not: the client of QEMU 10.0 does not.
    pub fn payload_length(&self, style: ReplyStyle) -> u64 {
        let says_so = style == ReplyStyle::Extended && self.flags.contains(CommandFlags::PAYLOAD_LEN);
        if says_so || self.command == command::WRITE {
            self.length
        } else {
            0
        }
    }
}

impl Command {
    /// Its number on the wire.
    pub fn code(self) -> u16 {
        match self {
            Self::Read { .. } => command::READ,
            Self::Write { .. } => command::WRITE,
            Self::Disconnect => command::DISCONNECT,
            Self::Flush => command::FLUSH,
            Self::Trim { .. } => command::TRIM,
            Self::WriteZeroes { .. } => command::WRITE_ZEROES,
            Self::Cache => command::CACHE,
            Self::BlockStatus { .. } => command::BLOCK_STATUS,
        }
    }

    /// Its flags on the wire, in compact headers.
    pub fn flags(self) -> CommandFlags {
        let mut flags = CommandFlags::empty();
        match self {
            Self::Read { df } => flags.set(CommandFlags::DF, df),
            Self::Write { fua } | Self::Trim { fua } => flags.set(CommandFlags::FUA, fua),
            Self::WriteZeroes { fua, no_hole, fast } => {
                flags.set(CommandFlags::FUA, fua);
                flags.set(CommandFlags::NO_HOLE, no_hole);
                flags.set(CommandFlags::FAST_ZERO, fast);
            }
            Self::BlockStatus { one } => flags.set(CommandFlags::REQ_ONE, one),
            Self::Disconnect | Self::Flush | Self::Cache => {}
        }
        flags
    }

    /// Whether it changes the export.
    pub fn mutates(self) -> bool {
        matches!(self, Self::Write { .. } | Self::Trim { .. } | Self::WriteZeroes { .. })
    }
}
