//! Options and the types of their replies, both ways.

use alloc::vec::Vec;
use core::fmt;

use crate::constants::{MAX_STRING, OPTION_MAGIC, OPTION_REPLY_MAGIC, UPGRADE_OPTION, UPGRADE_REPLY};
use crate::reader::truncated;

/// What a client can ask for during the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionCode {
    /// Choose an export and begin; answered without a reply header, refused only by closing.
    ExportName,
    /// End the handshake.
    Abort,
    /// Name all exports.
    List,
    /// Go on inside TLS.
    StartTls,
    /// Describe an export.
    Info,
    /// Describe an export and begin.
    Go,
    /// Answer READ in chunks from now on.
    StructuredReply,
    /// Name the metadata contexts of an export.
    ListMetaContext,
    /// Choose metadata contexts for BLOCK_STATUS.
    SetMetaContext,
    /// Headers with 64-bit lengths, both ways, from the transmission phase on.
    ExtendedHeaders,
    /// Leave NBD for a replication stream between two blockmirrors; a vendor's option.
    Upgrade,
    /// Any option this crate does not speak.
    Other(u32),
}

impl OptionCode {
    /// The option a wire value means.
    pub fn from_wire(value: u32) -> Self {
        match value {
            1 => Self::ExportName,
            2 => Self::Abort,
            3 => Self::List,
            5 => Self::StartTls,
            6 => Self::Info,
            7 => Self::Go,
            8 => Self::StructuredReply,
            9 => Self::ListMetaContext,
            10 => Self::SetMetaContext,
            11 => Self::ExtendedHeaders,
            UPGRADE_OPTION => Self::Upgrade,
            other => Self::Other(other),
        }
    }

    /// The value that goes out.
    pub fn to_wire(self) -> u32 {
        match self {
            Self::ExportName => 1,
            Self::Abort => 2,
            Self::List => 3,
            Self::StartTls => 5,
            Self::Info => 6,
            Self::Go => 7,
            Self::StructuredReply => 8,
            Self::ListMetaContext => 9,
            Self::SetMetaContext => 10,
            Self::ExtendedHeaders => 11,
            Self::Upgrade => UPGRADE_OPTION,
            Self::Other(value) => value,
        }
    }
}

impl fmt::Display for OptionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExportName => f.write_str("EXPORT_NAME"),
            Self::Abort => f.write_str("ABORT"),
            Self::List => f.write_str("LIST"),
            Self::StartTls => f.write_str("STARTTLS"),
            Self::Info => f.write_str("INFO"),
            Self::Go => f.write_str("GO"),
            Self::StructuredReply => f.write_str("STRUCTURED_REPLY"),
            Self::ListMetaContext => f.write_str("LIST_META_CONTEXT"),
            Self::SetMetaContext => f.write_str("SET_META_CONTEXT"),
            Self::ExtendedHeaders => f.write_str("EXTENDED_HEADERS"),
            Self::Upgrade => f.write_str("the upgrade to a replication stream"),
            Self::Other(value) => write!(f, "option {value}"),
        }
    }
}

/// Why a server refused an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// `NBD_REP_ERR_UNSUP`.
    #[error("the server does not know this option")]
    Unsupported,
    /// `NBD_REP_ERR_POLICY`.
    #[error("the server's policy forbids it")]
    Policy,
    /// `NBD_REP_ERR_INVALID`.
    #[error("the server found the option malformed")]
    Invalid,
    /// `NBD_REP_ERR_PLATFORM`.
    #[error("the server was built without it")]
    Platform,
    /// `NBD_REP_ERR_TLS_REQD`.
    #[error("the server requires TLS")]
    TlsRequired,
    /// `NBD_REP_ERR_UNKNOWN`.
    #[error("the server has no such export")]
    UnknownExport,
    /// `NBD_REP_ERR_SHUTDOWN`.
    #[error("the server is shutting down")]
    Shutdown,
    /// `NBD_REP_ERR_BLOCK_SIZE_REQD`.
    #[error("the server requires block sizes to be negotiated")]
    BlockSizeRequired,
    /// `NBD_REP_ERR_TOO_BIG`.
    #[error("the server found the option or its answer too big")]
    TooBig,
    /// `NBD_REP_ERR_EXT_HEADER_REQD`.
    #[error("the server requires extended headers")]
    ExtendedHeadersRequired,
    /// An error this crate does not know, bit 31 included.
    #[error("the server refused with unknown error {0:#010x}")]
    Other(u32),
}

const ERROR_BIT: u32 = 1 << 31;

impl OptionError {
    /// The error a reply type means; `value` has bit 31 set.
    fn from_wire(value: u32) -> Self {
        match value & !ERROR_BIT {
            1 => Self::Unsupported,
            2 => Self::Policy,
            3 => Self::Invalid,
            4 => Self::Platform,
            5 => Self::TlsRequired,
            6 => Self::UnknownExport,
            7 => Self::Shutdown,
            8 => Self::BlockSizeRequired,
            9 => Self::TooBig,
            10 => Self::ExtendedHeadersRequired,
            _ => Self::Other(value),
        }
    }

    fn to_wire(self) -> u32 {
        ERROR_BIT
            | match self {
                Self::Unsupported => 1,
                Self::Policy => 2,
                Self::Invalid => 3,
                Self::Platform => 4,
                Self::TlsRequired => 5,
                Self::UnknownExport => 6,
                Self::Shutdown => 7,
                Self::BlockSizeRequired => 8,
                Self::TooBig => 9,
                Self::ExtendedHeadersRequired => 10,
                Self::Other(value) => value,
            }
    }
}

/// The type of a reply to an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyType {
    Ack,
    Server,
    Info,
    MetaContext,
    /// Grants [`OptionCode::Upgrade`]; a vendor's type.
    Upgrade,
    Error(OptionError),
    /// Not an error, and not a type this crate speaks.
    Unknown(u32),
}

impl ReplyType {
    pub(crate) fn from_wire(value: u32) -> Self {
        match value {
            1 => Self::Ack,
            2 => Self::Server,
            3 => Self::Info,
            4 => Self::MetaContext,
            UPGRADE_REPLY => Self::Upgrade,
            value if value & ERROR_BIT != 0 => Self::Error(OptionError::from_wire(value)),
            other => Self::Unknown(other),
        }
    }

    pub(crate) fn to_wire(self) -> u32 {
        match self {
            Self::Ack => 1,
            Self::Server => 2,
            Self::Info => 3,
            Self::MetaContext => 4,
            Self::Upgrade => UPGRADE_REPLY,
            Self::Error(error) => error.to_wire(),
            Self::Unknown(value) => value,
        }
    }
}

/// Appends an option as a client sends it.
pub(crate) fn put_option(output: &mut Vec<u8>, option: OptionCode, data: &[u8]) {
    output.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
    output.extend_from_slice(&option.to_wire().to_be_bytes());
    put_data(output, data);
}

/// Appends a reply to an option as a server sends it.
pub(crate) fn put_reply(output: &mut Vec<u8>, option: OptionCode, reply: ReplyType, data: &[u8]) {
    output.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
    output.extend_from_slice(&option.to_wire().to_be_bytes());
    output.extend_from_slice(&reply.to_wire().to_be_bytes());
    put_data(output, data);
}

/// Appends a refusal with its text, cut to the length the protocol allows.
pub(crate) fn put_refusal(output: &mut Vec<u8>, option: OptionCode, error: OptionError, text: &str) {
    put_reply(
        output,
        option,
        ReplyType::Error(error),
        truncated(text, MAX_STRING).as_bytes(),
    );
}

/// Appends `data` and, before it, its length. No message of ours comes near 4 GiB.
fn put_data(output: &mut Vec<u8>, data: &[u8]) {
    output.extend_from_slice(&length_of(data).to_be_bytes());
    output.extend_from_slice(data);
}

/// The length of a string or message as the wire carries it.
pub(crate) fn length_of(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_maps_back_to_itself() {
        for value in (0..64).chain([UPGRADE_OPTION, UPGRADE_REPLY, u32::MAX, ERROR_BIT, ERROR_BIT - 1]) {
            assert_eq!(OptionCode::from_wire(value).to_wire(), value);
            assert_eq!(ReplyType::from_wire(value).to_wire(), value);
            let error = value | ERROR_BIT;
            assert_eq!(
                ReplyType::from_wire(error),
                ReplyType::Error(OptionError::from_wire(error))
            );
            assert_eq!(OptionError::from_wire(error).to_wire(), error);
        }
    }
}
