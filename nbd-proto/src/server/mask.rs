//! What a server keeps to itself, so that clients can be tried against servers that can do less.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bitflags::bitflags;

use crate::flags::TransmissionFlags;
use crate::option::OptionCode;

bitflags! {
    /// Features a server does not offer although it has them. Its clients see a server that has never heard of them.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Mask: u32 {
        /// The handshake flag NO_ZEROES.
        const NO_ZEROES = 1 << 0;
        /// The option LIST.
        const LIST = 1 << 1;
        /// The options INFO and GO: clients have to choose by EXPORT_NAME.
        const GO = 1 << 2;
        /// The option STRUCTURED_REPLY.
        const STRUCTURED_REPLIES = 1 << 3;
        /// The option EXTENDED_HEADERS.
        const EXTENDED_HEADERS = 1 << 4;
        /// The options LIST_META_CONTEXT and SET_META_CONTEXT.
        const META_CONTEXTS = 1 << 5;
        /// The block sizes of an export.
        const BLOCK_SIZE = 1 << 6;
        /// The command FLUSH.
        const FLUSH = 1 << 7;
        /// The command flag FUA.
        const FUA = 1 << 8;
        /// The command TRIM.
        const TRIM = 1 << 9;
        /// The command WRITE_ZEROES.
        const WRITE_ZEROES = 1 << 10;
        /// The command flag FAST_ZERO.
        const FAST_ZERO = 1 << 11;
        /// The command CACHE.
        const CACHE = 1 << 12;
        /// The command flag DF.
        const DF = 1 << 13;
        /// That a flush covers all connections.
        const MULTI_CONN = 1 << 14;
    }
}

/// The names of all of them, as people write them.
const NAMES: [(&str, Mask); 15] = [
    ("no-zeroes", Mask::NO_ZEROES),
    ("list", Mask::LIST),
    ("go", Mask::GO),
    ("structured-replies", Mask::STRUCTURED_REPLIES),
    ("extended-headers", Mask::EXTENDED_HEADERS),
    ("meta-contexts", Mask::META_CONTEXTS),
    ("block-size", Mask::BLOCK_SIZE),
    ("flush", Mask::FLUSH),
    ("fua", Mask::FUA),
    ("trim", Mask::TRIM),
    ("write-zeroes", Mask::WRITE_ZEROES),
    ("fast-zero", Mask::FAST_ZERO),
    ("cache", Mask::CACHE),
    ("df", Mask::DF),
    ("multi-conn", Mask::MULTI_CONN),
];

/// The transmission flag of a feature that has one.
const FLAGS: [(Mask, TransmissionFlags); 8] = [
    (Mask::FLUSH, TransmissionFlags::SEND_FLUSH),
    (Mask::FUA, TransmissionFlags::SEND_FUA),
    (Mask::TRIM, TransmissionFlags::SEND_TRIM),
    (Mask::WRITE_ZEROES, TransmissionFlags::SEND_WRITE_ZEROES),
    (Mask::FAST_ZERO, TransmissionFlags::SEND_FAST_ZERO),
    (Mask::CACHE, TransmissionFlags::SEND_CACHE),
    (Mask::DF, TransmissionFlags::SEND_DF),
    (Mask::MULTI_CONN, TransmissionFlags::CAN_MULTI_CONN),
];

impl Mask {
    /// A mask from names with commas between them; no name is no mask.
    ///
    /// # Errors
    /// The name that does not exist, and all that do.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut mask = Self::empty();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let Some((_, feature)) = NAMES.iter().find(|(known, _)| *known == name) else {
                let known: Vec<&str> = NAMES.iter().map(|(known, _)| *known).collect();
                return Err(format!(
                    "there is no feature \"{name}\"; there are: {}",
                    known.join(", ")
                ));
            };
            mask |= *feature;
        }
        Ok(mask)
    }

    /// Whether an option is answered as one that is not known.
    pub(super) fn hides(self, option: OptionCode) -> bool {
        self.contains(match option {
            OptionCode::List => Self::LIST,
            OptionCode::Info | OptionCode::Go => Self::GO,
            OptionCode::StructuredReply => Self::STRUCTURED_REPLIES,
            OptionCode::ExtendedHeaders => Self::EXTENDED_HEADERS,
            OptionCode::ListMetaContext | OptionCode::SetMetaContext => Self::META_CONTEXTS,
            OptionCode::ExportName
            | OptionCode::Abort
            | OptionCode::StartTls
            | OptionCode::Upgrade
            | OptionCode::Other(_) => return false,
        })
    }

    /// The flags an export does not show.
    pub(super) fn flags(self) -> TransmissionFlags {
        let hidden = FLAGS.iter().filter(|(feature, _)| self.contains(*feature));
        hidden.fold(TransmissionFlags::empty(), |flags, (_, flag)| flags | *flag)
    }
}

#[cfg(test)]
pub(super) fn count_of_names() -> usize {
    NAMES.len()
}
