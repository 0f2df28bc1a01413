//! The information replies of INFO and GO, both ways.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use crate::constants::{MAX_STRING, info};
use crate::export::BlockSizes;
use crate::flags::TransmissionFlags;
use crate::misbehaved::PeerMisbehaved;
use crate::reader::{Reader, truncated};

/// One information reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Info {
    Export {
        size: u64,
        flags: TransmissionFlags,
    },
    Name(String),
    Description(String),
    BlockSize(BlockSizes),
    /// A type this crate does not know: to be ignored.
    Unknown(u16),
}

impl Info {
    /// The data of the reply.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut data = Vec::new();
        data.extend_from_slice(&self.code().to_be_bytes());
        match self {
            Self::Export { size, flags } => {
                data.extend_from_slice(&size.to_be_bytes());
                data.extend_from_slice(&flags.bits().to_be_bytes());
            }
            Self::Name(text) | Self::Description(text) => {
                data.extend_from_slice(truncated(text, MAX_STRING).as_bytes());
            }
            Self::BlockSize(sizes) => {
                for size in [sizes.minimum, sizes.preferred, sizes.maximum_payload] {
                    data.extend_from_slice(&size.to_be_bytes());
                }
            }
            Self::Unknown(_) => {}
        }
        data
    }

    /// Reads the data of a reply.
    ///
    /// # Errors
    /// The rule that was broken: a wrong length, or text that is too long or not text.
    pub(crate) fn decode(data: &[u8]) -> Result<Self, PeerMisbehaved> {
        let mut reader = Reader::new(data);
        let length = data.len();
        let code = reader.u16().map_err(|_| PeerMisbehaved::InfoWithoutType { length })?;
        let wrong_length = |_| PeerMisbehaved::WrongInfoLength { info: code, length };
        let decoded = match code {
            info::EXPORT => Self::Export {
                size: reader.u64().map_err(wrong_length)?,
                flags: TransmissionFlags::from_bits_retain(reader.u16().map_err(wrong_length)?),
            },
            info::NAME => Self::Name(strict_text("export name", reader.rest())?),
            info::DESCRIPTION => Self::Description(strict_text("export description", reader.rest())?),
            info::BLOCK_SIZE => Self::BlockSize(BlockSizes {
                minimum: reader.u32().map_err(wrong_length)?,
                preferred: reader.u32().map_err(wrong_length)?,
                maximum_payload: reader.u32().map_err(wrong_length)?,
            }),
            other => {
                reader.rest();
                Self::Unknown(other)
            }
        };
        match reader.is_empty() {
            true => Ok(decoded),
            false => Err(PeerMisbehaved::WrongInfoLength { info: code, length }),
        }
    }

    fn code(&self) -> u16 {
        match self {
            Self::Export { .. } => info::EXPORT,
            Self::Name(_) => info::NAME,
            Self::Description(_) => info::DESCRIPTION,
            Self::BlockSize(_) => info::BLOCK_SIZE,
            Self::Unknown(code) => *code,
        }
    }
}

/// A string of the protocol: UTF-8, no NUL, at most 4096 bytes. `what` names it in the error.
pub(crate) fn strict_text(what: &'static str, bytes: &[u8]) -> Result<String, PeerMisbehaved> {
    if bytes.len() > MAX_STRING {
        return Err(PeerMisbehaved::StringTooLong {
            what,
            length: bytes.len(),
        });
    }
    match core::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(PeerMisbehaved::NotText { what }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn every_kind_survives_the_wire() {
        let all = [
            Info::Export {
                size: u64::MAX,
                flags: TransmissionFlags::HAS_FLAGS | TransmissionFlags::SEND_FUA,
            },
            Info::Name("bravo".to_owned()),
            Info::Description(String::new()),
            Info::BlockSize(BlockSizes::default()),
            Info::Unknown(77),
        ];
        for info in all {
            assert_eq!(Info::decode(&info.encode()), Ok(info));
        }
    }

    #[test]
    fn lengths_are_exact() {
        let export = Info::Export {
            size: 1,
            flags: TransmissionFlags::HAS_FLAGS,
        }
        .encode();
        let sizes = Info::BlockSize(BlockSizes::default()).encode();
        for (info, good) in [(info::EXPORT, export), (info::BLOCK_SIZE, sizes)] {
            let mut long = good.clone();
            long.push(0);
            let short: Vec<u8> = good.iter().copied().take(good.len() - 1).collect();
            for bad in [long, short] {
                let length = bad.len();
                assert_eq!(
                    Info::decode(&bad),
                    Err(PeerMisbehaved::WrongInfoLength { info, length })
                );
            }
        }
        assert_eq!(Info::decode(&[0]), Err(PeerMisbehaved::InfoWithoutType { length: 1 }));
    }

    #[test]
    fn text_must_be_text() {
        let what = "export name";
        assert_eq!(strict_text(what, b"a\0"), Err(PeerMisbehaved::NotText { what }));
        assert_eq!(strict_text(what, &[0xff]), Err(PeerMisbehaved::NotText { what }));
        assert_eq!(
            strict_text(what, &vec![b'a'; MAX_STRING + 1]),
            Err(PeerMisbehaved::StringTooLong {
                what,
                length: MAX_STRING + 1
            })
        );
        assert!(strict_text(what, &vec![b'a'; MAX_STRING]).is_ok());
    }
}
