//! A request header of the transmission phase, and the command it stands for.

use crate::constants::{REQUEST_LENGTH, REQUEST_MAGIC, command};
use crate::flags::CommandFlags;
use crate::misbehaved::PeerMisbehaved;
use crate::reader::Fields;
use crate::writer::Writer;

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
    /// Bytes of the range; of the payload too, for WRITE.
    pub length: u32,
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
    },
    /// Prefetch the range.
    Cache,
}

impl Request {
    /// Bytes on the wire.
    pub const LENGTH: usize = REQUEST_LENGTH;

    /// The request that asks for `command` on `length` bytes at `offset`. Both are zero for FLUSH and DISC.
    pub fn new(command: Command, cookie: u64, offset: u64, length: u32) -> Self {
        Self {
            flags: command.flags(),
            command: command.code(),
            cookie,
            offset,
            length,
        }
    }

    /// Reads a header.
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
            length: fields.u32(),
        })
    }

    /// The header as it goes out.
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        Writer::new(&mut bytes)
            .u32(REQUEST_MAGIC)
            .u16(self.flags.bits())
            .u16(self.command)
            .u64(self.cookie)
            .u64(self.offset)
            .u32(self.length)
            .finish();
        bytes
    }

    /// Bytes of payload that follow the header, to be consumed even when the request is refused.
    ///
    /// Only WRITE has one: an unknown command cannot be known to have any.
    pub fn payload_length(&self) -> u32 {
        match self.command {
            command::WRITE => self.length,
            _ => 0,
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
        }
    }

    /// Its flags on the wire.
    pub fn flags(self) -> CommandFlags {
        let mut flags = CommandFlags::empty();
        match self {
            Self::Read { df } => flags.set(CommandFlags::DF, df),
            Self::Write { fua } | Self::Trim { fua } => flags.set(CommandFlags::FUA, fua),
            Self::WriteZeroes { fua, no_hole } => {
                flags.set(CommandFlags::FUA, fua);
                flags.set(CommandFlags::NO_HOLE, no_hole);
            }
            Self::Disconnect | Self::Flush | Self::Cache => {}
        }
        flags
    }

    /// Whether it changes the export.
    pub fn mutates(self) -> bool {
        matches!(self, Self::Write { .. } | Self::Trim { .. } | Self::WriteZeroes { .. })
    }
}
