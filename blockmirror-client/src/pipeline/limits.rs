//! What a server permits, as negotiated.

use nbd_proto::client::Negotiated;
use nbd_proto::{Command, ReplyStyle, TransmissionFlags};

use super::StartError;

/// Largest payload of one READ or WRITE in bytes, whatever the server permits: what every server should serve, and a
/// bound for our own memory.
pub const MAX_PAYLOAD: u32 = 32 << 20;
/// Longest range of a request that moves no data where headers are compact, in bytes: servers before 2020 fail above 2 GiB.
const MAX_COMPACT_EFFECT: u64 = 1 << 30;
/// The protocol's preferred block size when the server names none.
const DEFAULT_PREFERRED: u32 = 4096;

/// What a server permits: sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of the export.
    pub size: u64,
    /// Transmission flags as received.
    pub flags: TransmissionFlags,
    /// Offsets and lengths must be multiples of this. 1 when the server names none, as the protocol has it.
    pub minimum_block: u32,
    /// Offsets and lengths had better be multiples of this.
    pub preferred_block: u32,
    /// Longest READ or WRITE; at most [`MAX_PAYLOAD`].
    pub maximum_payload: u32,
    /// The server named its block sizes.
    pub block_sizes_known: bool,
    /// How requests go and replies come.
    pub replies: ReplyStyle,
    /// How many metadata contexts are selected.
    pub contexts: usize,
}

impl Limits {
    /// The limits of a negotiated connection.
    pub fn new(negotiated: &Negotiated) -> Self {
        let sizes = negotiated.block_sizes.as_ref();
        let minimum_block = sizes.map_or(1, |sizes| sizes.minimum.max(1));
        Self {
            size: negotiated.size,
            flags: negotiated.flags,
            minimum_block,
            preferred_block: sizes.map_or(DEFAULT_PREFERRED, |sizes| sizes.preferred.max(minimum_block)),
            maximum_payload: sizes.map_or(MAX_PAYLOAD, |sizes| {
                sizes.maximum_payload.clamp(minimum_block, MAX_PAYLOAD)
            }),
            block_sizes_known: sizes.is_some(),
            replies: negotiated.replies,
            contexts: negotiated.contexts.len(),
        }
    }

    /// The server refuses every change.
    pub fn read_only(&self) -> bool {
        self.flags.contains(TransmissionFlags::READ_ONLY)
    }

    /// FLUSH is understood. Without it nothing can be made durable on this server.
    pub fn can_flush(&self) -> bool {
        self.flags.contains(TransmissionFlags::SEND_FLUSH)
    }

    /// FUA is understood on every command.
    pub fn can_fua(&self) -> bool {
        self.flags.contains(TransmissionFlags::SEND_FUA)
    }

    /// TRIM is understood.
    pub fn can_trim(&self) -> bool {
        self.flags.contains(TransmissionFlags::SEND_TRIM)
    }

    /// WRITE_ZEROES, with NO_HOLE, is understood.
    pub fn can_zero(&self) -> bool {
        self.flags.contains(TransmissionFlags::SEND_WRITE_ZEROES)
    }

    /// WRITE_ZEROES may ask to fail at once unless it is faster than writing.
    pub fn can_zero_fast(&self) -> bool {
        self.can_zero() && self.flags.contains(TransmissionFlags::SEND_FAST_ZERO)
    }

    /// BLOCK_STATUS is understood.
    pub fn can_status(&self) -> bool {
        self.replies.has_chunks() && self.contexts > 0
    }

    /// BLOCK_STATUS may ask for some of the selected contexts only.
    pub fn can_filter_status(&self) -> bool {
        self.can_status() && self.flags.contains(TransmissionFlags::BLOCK_STATUS_PAYLOAD)
    }

    /// The range, in bytes, that a request which moves no data, such as TRIM, should have at most, in whole blocks.
    pub fn longest_effect(&self) -> u64 {
        let longest = match self.replies {
            ReplyStyle::Simple | ReplyStyle::Structured => MAX_COMPACT_EFFECT,
            ReplyStyle::Extended => u64::MAX,
        };
        longest - longest % u64::from(self.minimum_block)
    }

    /// The longest range a header can say.
    fn header_room(&self) -> u64 {
        match self.replies {
            ReplyStyle::Simple | ReplyStyle::Structured => u64::from(u32::MAX),
            ReplyStyle::Extended => u64::MAX,
        }
    }

    /// CACHE is understood.
    pub fn can_cache(&self) -> bool {
        self.flags.contains(TransmissionFlags::SEND_CACHE)
    }

    /// READ may ask for an answer in one piece.
    pub fn can_df(&self) -> bool {
        self.flags.contains(TransmissionFlags::SEND_DF)
    }

    /// A FLUSH on one connection covers all.
    pub fn can_multi_conn(&self) -> bool {
        self.flags.contains(TransmissionFlags::CAN_MULTI_CONN)
    }

    /// Whether the server can be asked this; the range of a FLUSH is ignored.
    pub fn check(&self, command: Command, offset: u64, length: u64) -> Result<(), StartError> {
        self.check_command(command)?;
        if matches!(command, Command::Flush) {
            return Ok(());
        }
        if length == 0 {
            return Err(StartError::Empty);
        }
        if offset.checked_add(length).is_none_or(|end| end > self.size) {
            return Err(StartError::OutOfRange {
                offset,
                length,
                size: self.size,
            });
        }
        let block = self.minimum_block;
        if !offset.is_multiple_of(u64::from(block)) || !length.is_multiple_of(u64::from(block)) {
            return Err(StartError::Misaligned { offset, length, block });
        }
        let carries_payload = matches!(command, Command::Read { .. } | Command::Write { .. });
        let maximum = match carries_payload {
            true => u64::from(self.maximum_payload),
            false => self.header_room(),
        };
        match length <= maximum {
            true => Ok(()),
            false => Err(StartError::TooLong { length, maximum }),
        }
    }

    fn check_command(&self, command: Command) -> Result<(), StartError> {
        let (name, able, fua) = match command {
            Command::Read { df } => ("READ with DF", !df || self.can_df(), false),
            Command::Write { fua } => ("WRITE", true, fua),
            Command::Disconnect => return Err(StartError::Disconnect),
            Command::Flush => ("FLUSH", self.can_flush(), false),
            Command::Trim { fua } => ("TRIM", self.can_trim(), fua),
            Command::WriteZeroes { fua, fast: true, .. } => ("FAST_ZERO", self.can_zero_fast(), fua),
            Command::WriteZeroes { fua, .. } => ("WRITE_ZEROES", self.can_zero(), fua),
            Command::Cache => ("CACHE", self.can_cache(), false),
            Command::BlockStatus { .. } => ("BLOCK_STATUS", self.can_status(), false),
        };
        let changes = matches!(
            command,
            Command::Write { .. } | Command::Trim { .. } | Command::WriteZeroes { .. }
        );
        if changes && self.read_only() {
            return Err(StartError::ReadOnly);
        }
        if !able {
            return Err(StartError::NotOffered(name));
        }
        if fua && !self.can_fua() {
            return Err(StartError::NotOffered("FUA"));
        }
        Ok(())
    }
}
