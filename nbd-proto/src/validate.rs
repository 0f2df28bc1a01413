//! The one place where a request is judged.

use crate::constants::{MAX_READ, command};
use crate::error::NbdError;
use crate::flags::{CommandFlags, TransmissionFlags};
use crate::request::{Command, Request};
use crate::server::Negotiated;

/// Why a request is not carried out: the error of its reply and the text beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The error on the wire.
    pub error: NbdError,
    /// What to tell the client, where the reply has room for text.
    pub message: &'static str,
}

/// Judges a request against the export as it was negotiated.
///
/// What comes back as a [`Command`] is safe to carry out: the range is not empty, lies inside the export, is aligned to
/// the minimum block size, is no longer than the maximum payload for READ and WRITE, changes nothing on a read-only
/// export, and uses nothing that was not advertised. `Flush` and `Disconnect` have no range. The length of TRIM,
/// WRITE_ZEROES and CACHE may be anything up to 4 GiB - 1.
///
/// FUA is accepted on every command once it was advertised, and means nothing where nothing is written. DISC is never
/// refused, whatever else its header says: it has no reply that could carry the refusal.
///
/// # Errors
/// The reply to send. The payload of a WRITE ([`Request::payload_length`]) must be consumed all the same.
pub fn validate(request: &Request, export: &Negotiated) -> Result<Command, Refusal> {
    let command = command_of(request)?;
    if command == Command::Disconnect {
        return Ok(command);
    }
    let flags = export.export.flags;
    if command.mutates() && flags.contains(TransmissionFlags::READ_ONLY) {
        return refuse(NbdError::Perm, "the export is read-only");
    }
    check_advertised(command, flags)?;
    check_flags(command, request.flags, flags)?;
    if command == Command::Flush {
        return check_flush(request);
    }
    check_range(command, request, export)?;
    Ok(command)
}

/// The command with the flags that mean something to it.
fn command_of(request: &Request) -> Result<Command, Refusal> {
    let fua = request.flags.contains(CommandFlags::FUA);
    let no_hole = request.flags.contains(CommandFlags::NO_HOLE);
    Ok(match request.command {
        command::READ => Command::Read {
            df: request.flags.contains(CommandFlags::DF),
        },
        command::WRITE => Command::Write { fua },
        command::DISCONNECT => Command::Disconnect,
        command::FLUSH => Command::Flush,
        command::TRIM => Command::Trim { fua },
        command::CACHE => Command::Cache,
        command::WRITE_ZEROES => Command::WriteZeroes { fua, no_hole },
        _ => return refuse(NbdError::Invalid, "unknown command"),
    })
}

fn check_advertised(command: Command, flags: TransmissionFlags) -> Result<(), Refusal> {
    let (needed, message) = match command {
        Command::Flush => (TransmissionFlags::SEND_FLUSH, "FLUSH was not advertised"),
        Command::Trim { .. } => (TransmissionFlags::SEND_TRIM, "TRIM was not advertised"),
        Command::WriteZeroes { .. } => (TransmissionFlags::SEND_WRITE_ZEROES, "WRITE_ZEROES was not advertised"),
        Command::Cache => (TransmissionFlags::SEND_CACHE, "CACHE was not advertised"),
        Command::Read { .. } | Command::Write { .. } | Command::Disconnect => return Ok(()),
    };
    match flags.contains(needed) {
        true => Ok(()),
        false => refuse(NbdError::Invalid, message),
    }
}

/// Every flag must belong to its command and have been advertised.
fn check_flags(command: Command, given: CommandFlags, advertised: TransmissionFlags) -> Result<(), Refusal> {
    if given.contains(CommandFlags::FUA) && !advertised.contains(TransmissionFlags::SEND_FUA) {
        return refuse(NbdError::Invalid, "FUA was not advertised");
    }
    if given.contains(CommandFlags::DF) && !advertised.contains(TransmissionFlags::SEND_DF) {
        return refuse(NbdError::Invalid, "DF was not advertised: it needs structured replies");
    }
    let allowed = match command {
        Command::Read { .. } => CommandFlags::FUA | CommandFlags::DF,
        Command::WriteZeroes { .. } => CommandFlags::FUA | CommandFlags::NO_HOLE,
        _ => CommandFlags::FUA,
    };
    match allowed.contains(given) {
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
    let end = request.offset.checked_add(u64::from(request.length));
    if end.is_none_or(|end| end > export.export.size) {
        return refuse(past_the_end(command), "the range ends past the end of the export");
    }
    let minimum = sizes.minimum.max(1);
    if !request.offset.is_multiple_of(u64::from(minimum)) || !request.length.is_multiple_of(minimum) {
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
fn check_payload(command: Command, length: u32, maximum: u32) -> Result<(), Refusal> {
    match command {
        Command::Read { .. } if length > maximum.min(MAX_READ) => {
            refuse(NbdError::Overflow, "READ is longer than the maximum payload; split it")
        }
        Command::Write { .. } if length > maximum => {
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
