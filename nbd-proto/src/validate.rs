//! The one place where a request is judged.

use crate::constants::{DEFAULT_MAXIMUM_PAYLOAD, MAX_READ, command};
use crate::error::NbdError;
use crate::flags::{CommandFlags, TransmissionFlags};
use crate::misbehaved::PeerMisbehaved;
use crate::reply::ReplyStyle;
use crate::request::{Command, Request};
use crate::server::Negotiated;
use crate::status::StatusFilter;

/// Why a request is not carried out: the error of its reply and the text beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The error on the wire.
    pub error: NbdError,
    /// What to tell the client, where the reply has room for text.
    pub message: &'static str,
}

/// A BLOCK_STATUS that asks for some contexts, judged together with its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filtered {
    /// One extent for each context, no longer than the range.
    pub one: bool,
    /// Bytes of the range.
    pub length: u64,
    /// The contexts that are wanted: bit `i` stands for the `i`th of [`Negotiated::contexts`].
    pub contexts: u64,
}

/// Judges a request against the export as it was negotiated.
///
/// What comes back as a [`Command`] is safe to carry out: the range is not empty, lies inside the export, is aligned to
/// the minimum block size, is no longer than the maximum payload for READ and WRITE, changes nothing on a read-only
/// export, and uses nothing that was not advertised. `Flush` and `Disconnect` have no range. The length of TRIM,
/// WRITE_ZEROES, CACHE and BLOCK_STATUS may be anything up to the end of the export.
///
/// FUA is accepted on every command once it was advertised, and means nothing where nothing is written. DISC is never
/// refused, whatever else its header says: it has no reply that could carry the refusal.
///
/// A BLOCK_STATUS with a payload ([`has_filter`]) is judged by [`validate_filtered`] when that is there.
///
/// # Errors
/// The reply to send. The payload ([`Request::payload_length`]) must be consumed all the same.
pub fn validate(request: &Request, export: &Negotiated) -> Result<Command, Refusal> {
    let command = command_of(request)?;
    if command == Command::Disconnect {
        return Ok(command);
    }
    let flags = export.export.flags;
    if command.mutates() && flags.contains(TransmissionFlags::READ_ONLY) {
        return refuse(NbdError::Perm, "the export is read-only");
    }
    check_advertised(command, export)?;
    let given = check_payload_flag(command, request.flags, export.replies)?;
    check_flags(command, given, flags)?;
    if command == Command::Flush {
        return check_flush(request);
    }
    check_range(command, request, export)?;
    Ok(command)
}

/// Whether a request is a BLOCK_STATUS whose payload, of at most [`StatusFilter::MAX_LENGTH`] bytes, is worth reading.
/// A longer one cannot be right, and is refused by [`validate`] like any payload that does not belong.
pub fn has_filter(request: &Request, export: &Negotiated) -> bool {
    export.replies == ReplyStyle::Extended
        && request.command == command::BLOCK_STATUS
        && request.flags.contains(CommandFlags::PAYLOAD_LEN)
        && export.export.flags.contains(TransmissionFlags::BLOCK_STATUS_PAYLOAD)
        && request.length <= StatusFilter::MAX_LENGTH as u64
}

/// Judges a BLOCK_STATUS for which [`has_filter`] is true, with its whole payload.
///
/// # Errors
/// The reply to send.
pub fn validate_filtered(request: &Request, payload: &[u8], export: &Negotiated) -> Result<Filtered, Refusal> {
    let Ok(filter) = StatusFilter::decode(payload) else {
        return refuse(
            NbdError::Invalid,
            "the payload of BLOCK_STATUS is a length and whole numbers of contexts",
        );
    };
    let mut contexts = 0_u64;
    for id in &filter.contexts {
        let known = export.contexts.iter().position(|context| context.id == *id);
        let bit = known.and_then(|index| 1_u64.checked_shl(u32::try_from(index).ok()?));
        match bit {
            Some(bit) if contexts & bit == 0 => contexts |= bit,
            _ => return refuse(NbdError::Invalid, "a metadata context is unknown, or asked for twice"),
        }
    }
    if contexts == 0 {
        return refuse(NbdError::Invalid, "BLOCK_STATUS asks for no metadata context");
    }
    let plain = Request {
        flags: request.flags.difference(CommandFlags::PAYLOAD_LEN),
        length: filter.length,
        ..*request
    };
    match validate(&plain, export)? {
        Command::BlockStatus { one } => Ok(Filtered {
            one,
            length: filter.length,
            contexts,
        }),
        _ => refuse(NbdError::Invalid, "only BLOCK_STATUS has a payload of this kind"),
    }
}

/// With extended headers a payload longer than the server takes ends the connection: so much is not worth reading. What
/// the limit says to a client that never asked for it, the default allows.
///
/// # Errors
/// [`PeerMisbehaved::PayloadTooLong`].
pub fn check_payload_bound(request: &Request, export: &Negotiated) -> Result<(), PeerMisbehaved> {
    let limit = u64::from(export.export.block_sizes.maximum_payload.max(DEFAULT_MAXIMUM_PAYLOAD));
    let length = request.payload_length(export.replies);
    match export.replies == ReplyStyle::Extended && length > limit {
        true => Err(PeerMisbehaved::PayloadTooLong { length, limit }),
        false => Ok(()),
    }
}

/// The command with the flags that mean something to it.
fn command_of(request: &Request) -> Result<Command, Refusal> {
    let given = |flag| request.flags.contains(flag);
    let fua = given(CommandFlags::FUA);
    Ok(match request.command {
        command::READ => Command::Read {
            df: given(CommandFlags::DF),
        },
        command::WRITE => Command::Write { fua },
        command::DISCONNECT => Command::Disconnect,
        command::FLUSH => Command::Flush,
        command::TRIM => Command::Trim { fua },
        command::CACHE => Command::Cache,
        command::WRITE_ZEROES => Command::WriteZeroes {
            fua,
            no_hole: given(CommandFlags::NO_HOLE),
            fast: given(CommandFlags::FAST_ZERO),
        },
        command::BLOCK_STATUS => Command::BlockStatus {
            one: given(CommandFlags::REQ_ONE),
        },
        _ => return refuse(NbdError::Invalid, "unknown command"),
    })
}

fn check_advertised(command: Command, export: &Negotiated) -> Result<(), Refusal> {
    let (needed, message) = match command {
        Command::Flush => (TransmissionFlags::SEND_FLUSH, "FLUSH was not advertised"),
        Command::Trim { .. } => (TransmissionFlags::SEND_TRIM, "TRIM was not advertised"),
        Command::WriteZeroes { .. } => (TransmissionFlags::SEND_WRITE_ZEROES, "WRITE_ZEROES was not advertised"),
        Command::Cache => (TransmissionFlags::SEND_CACHE, "CACHE was not advertised"),
        Command::BlockStatus { .. } if export.contexts.is_empty() => {
            return refuse(
                NbdError::Invalid,
                "no metadata context was selected: SET_META_CONTEXT comes before GO, for the same export",
            );
        }
        Command::BlockStatus { .. } | Command::Read { .. } | Command::Write { .. } | Command::Disconnect => {
            return Ok(());
        }
    };
    match export.export.flags.contains(needed) {
        true => Ok(()),
        false => refuse(NbdError::Invalid, message),
    }
}

/// With extended headers WRITE, and nothing else, says that its length is that of a payload. It must, but is taken when it
/// does not: see [`Request::payload_length`]. What is left of the flags.
fn check_payload_flag(command: Command, given: CommandFlags, style: ReplyStyle) -> Result<CommandFlags, Refusal> {
    // Without extended headers it is a flag like any that is not known.
    if style != ReplyStyle::Extended || !given.contains(CommandFlags::PAYLOAD_LEN) {
        return Ok(given);
    }
    match command {
        Command::Write { .. } => Ok(given.difference(CommandFlags::PAYLOAD_LEN)),
        _ => refuse(NbdError::Invalid, "this command takes no payload, or not one so long"),
    }
}

/// Every flag must belong to its command and have been advertised.
fn check_flags(command: Command, given: CommandFlags, advertised: TransmissionFlags) -> Result<(), Refusal> {
    let rules = [
        (CommandFlags::FUA, TransmissionFlags::SEND_FUA, "FUA was not advertised"),
        (
            CommandFlags::DF,
            TransmissionFlags::SEND_DF,
            "DF was not advertised: it needs structured replies",
        ),
        (
            CommandFlags::FAST_ZERO,
            TransmissionFlags::SEND_FAST_ZERO,
            "FAST_ZERO was not advertised",
        ),
    ];
    for (flag, needed, message) in rules {
        if given.contains(flag) && !advertised.contains(needed) {
            return refuse(NbdError::Invalid, message);
        }
    }
    let own = match command {
        Command::Read { .. } => CommandFlags::DF,
        Command::WriteZeroes { .. } => CommandFlags::NO_HOLE | CommandFlags::FAST_ZERO,
        Command::BlockStatus { .. } => CommandFlags::REQ_ONE,
        _ => CommandFlags::empty(),
    };
    match (CommandFlags::FUA | own).contains(given) {
        true => Ok(()),
        false => refuse(
            NbdError::Invalid,
            "a command flag is unknown, or does not belong to this command",
        ),
    }
}

fn check_flush(request: &Request) -> Result<Command, Refusal> {
    match request.offset == 0 && request.length == 0 {
        true => Ok(Command::Flush),
        false => refuse(NbdError::Invalid, "FLUSH takes no range: offset and length must be 0"),
    }
}

fn check_range(command: Command, request: &Request, export: &Negotiated) -> Result<(), Refusal> {
    let sizes = export.export.block_sizes;
    if request.length == 0 {
        return refuse(NbdError::Invalid, "the length must not be 0");
    }
    check_payload(command, request.length, sizes.maximum_payload)?;
    let end = request.offset.checked_add(request.length);
    if end.is_none_or(|end| end > export.export.size) {
        return refuse(past_the_end(command), "the range ends past the end of the export");
    }
    let minimum = u64::from(sizes.minimum.max(1));
    if !request.offset.is_multiple_of(minimum) || !request.length.is_multiple_of(minimum) {
        return refuse(
            NbdError::Invalid,
            "offset and length must be multiples of the minimum block size",
        );
    }
    Ok(())
}

/// Only READ and WRITE carry a payload; the length of other commands has no limit of its own.
///
/// An unlimited payload is the largest number there is, so comparing needs no special case.
fn check_payload(command: Command, length: u64, maximum: u32) -> Result<(), Refusal> {
    match command {
        Command::Read { .. } if length > u64::from(maximum.min(MAX_READ)) => {
            refuse(NbdError::Overflow, "READ is longer than the maximum payload; split it")
        }
        Command::Write { .. } if length > u64::from(maximum) => {
            refuse(NbdError::Invalid, "WRITE is longer than the maximum payload; split it")
        }
        _ => Ok(()),
    }
}

/// What needs space that is not there gets ENOSPC; what merely names it gets EINVAL.
fn past_the_end(command: Command) -> NbdError {
    match command {
        Command::Write { .. } | Command::WriteZeroes { .. } => NbdError::NoSpace,
        _ => NbdError::Invalid,
    }
}

fn refuse<T>(error: NbdError, message: &'static str) -> Result<T, Refusal> {
    Err(Refusal { error, message })
}

#[cfg(test)]
mod tests;
