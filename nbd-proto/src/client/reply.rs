//! Replies to the client's options.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Advance, Goal, Handshake, HandshakeError, Negotiated, State, Step};
use crate::constants::{
    MAX_INFO_REPLIES, MAX_INFO_REPLY, MAX_LISTED_BYTES, MAX_LISTED_EXPORTS, MAX_STRING, MAX_UPGRADE_DATA,
    OPTION_REPLY_MAGIC,
};
use crate::export::BlockSizes;
use crate::flags::TransmissionFlags;
use crate::info::{Info, strict_text};
use crate::misbehaved::PeerMisbehaved;
use crate::option::{OptionCode, OptionError, ReplyType, put_option};
use crate::reader::{Fields, Reader};

/// What the server has told so far.
#[derive(Debug, Default)]
pub(super) struct Found {
    export: Option<(u64, TransmissionFlags)>,
    block_sizes: Option<BlockSizes>,
    name: Option<String>,
    description: Option<String>,
    info_replies: u32,
    listed: Vec<(String, String)>,
    listed_bytes: usize,
}

impl Handshake {
    pub(super) fn on_reply_header(&mut self, option: OptionCode, bytes: &[u8]) -> Result<Advance, HandshakeError> {
        let mut fields = Fields::new(bytes);
        let (magic, got, code, length) = (fields.u64(), fields.u32(), fields.u32(), fields.u32());
        if magic != OPTION_REPLY_MAGIC {
            return Err(PeerMisbehaved::BadOptionReplyMagic(magic).into());
        }
        let got = OptionCode::from_wire(got);
        if got != option {
            return Err(PeerMisbehaved::ReplyToOtherOption { expected: option, got }.into());
        }
        let reply = ReplyType::from_wire(code);
        let length = bounded(option, reply, length)?;
        self.state = State::ReplyData { option, reply, length };
        Ok(Advance::On)
    }

    pub(super) fn on_reply(
        &mut self,
        option: OptionCode,
        reply: ReplyType,
        data: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<Advance, HandshakeError> {
        match reply {
            ReplyType::Ack => self.on_ack(option, output),
            ReplyType::Upgrade => Ok(Advance::Over(Step::Upgraded(data.to_vec()))),
            ReplyType::Error(error) => self.on_refusal(option, error, data, output),
            ReplyType::Server => {
                self.found.list(data)?;
                Ok(Advance::On)
            }
            ReplyType::Info => {
                self.found.info(option, data)?;
                Ok(Advance::On)
            }
            // `bounded` has refused them.
            reply @ (ReplyType::MetaContext | ReplyType::Unknown(_)) => Err(unexpected(option, reply).into()),
        }
    }

    pub(super) fn on_export_name_reply(&mut self, bytes: &[u8]) -> Result<Advance, HandshakeError> {
        let mut fields = Fields::new(bytes);
        let (size, flags) = (fields.u64(), fields.u16());
        // The zeroes behind are not looked at: nothing depends on them.
        self.found.export = Some((size, TransmissionFlags::from_bits_retain(flags)));
        Ok(Advance::Over(Step::Ready(self.negotiated(OptionCode::ExportName)?)))
    }

    fn on_ack(&mut self, option: OptionCode, output: &mut Vec<u8>) -> Result<Advance, HandshakeError> {
        match option {
            OptionCode::StartTls => Ok(Advance::Over(Step::StartTls)),
            OptionCode::StructuredReply => {
                self.structured_replies = true;
                self.ask_goal(output);
                Ok(Advance::On)
            }
            OptionCode::List => {
                put_option(output, OptionCode::Abort, &[]);
                Ok(Advance::Over(Step::Listed(core::mem::take(&mut self.found.listed))))
            }
            _ => {
                let negotiated = self.negotiated(option)?;
                if self.goal == Goal::Info {
                    put_option(output, OptionCode::Abort, &[]);
                }
                Ok(Advance::Over(Step::Ready(negotiated)))
            }
        }
    }

    fn on_refusal(
        &mut self,
        option: OptionCode,
        error: OptionError,
        text: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<Advance, HandshakeError> {
        match (option, error) {
            (_, OptionError::Shutdown) => {}
            (OptionCode::StructuredReply, _) => {
                self.ask_goal(output);
                return Ok(Advance::On);
            }
            (OptionCode::Go, OptionError::Unsupported) => {
                // What GO may have told before it was refused does not count.
                self.found = Found::default();
                self.ask_export_name(output);
                return Ok(Advance::On);
            }
            _ => {}
        }
        put_option(output, OptionCode::Abort, &[]);
        Err(HandshakeError::Refused {
            option,
            error,
            message: String::from_utf8_lossy(text).into_owned(),
        })
    }

    /// The result, checked against the rules that concern it as a whole.
    fn negotiated(&mut self, option: OptionCode) -> Result<Negotiated, PeerMisbehaved> {
        let found = core::mem::take(&mut self.found);
        let (size, mut flags) = found.export.ok_or(PeerMisbehaved::NoExportInfo(option))?;
        if !flags.contains(TransmissionFlags::HAS_FLAGS) {
            return Err(PeerMisbehaved::NoHasFlags(flags.bits()));
        }
        if let Some(BlockSizes {
            minimum,
            preferred,
            maximum_payload,
        }) = found.block_sizes.filter(|sizes| !sizes.are_valid(size))
        {
            return Err(PeerMisbehaved::BadBlockSizes {
                minimum,
                preferred,
                maximum_payload,
            });
        }
        // Some servers advertise what they may not; not using it costs nothing.
        if !self.structured_replies {
            flags.remove(TransmissionFlags::SEND_DF);
        }
        if !flags.contains(TransmissionFlags::SEND_WRITE_ZEROES) {
            flags.remove(TransmissionFlags::SEND_FAST_ZERO);
        }
        Ok(Negotiated {
            size,
            flags,
            block_sizes: found.block_sizes,
            structured_replies: self.structured_replies,
            name: found.name,
            description: found.description,
        })
    }
}

impl Found {
    /// One listed export: length of the name, name, description.
    fn list(&mut self, data: &[u8]) -> Result<(), PeerMisbehaved> {
        let mut reader = Reader::new(data);
        let truncated = |_| PeerMisbehaved::ServerReplyTruncated { length: data.len() };
        let name_length = reader.u32().map_err(truncated)?;
        let name = reader
            .take(usize::try_from(name_length).unwrap_or(usize::MAX))
            .map_err(truncated)?;
        let name = strict_text("listed export name", name)?;
        let description = strict_text("listed export description", reader.rest())?;
        self.listed_bytes += data.len();
        if self.listed.len() >= MAX_LISTED_EXPORTS || self.listed_bytes > MAX_LISTED_BYTES {
            return Err(PeerMisbehaved::ListTooLong);
        }
        self.listed.push((name, description));
        Ok(())
    }

    fn info(&mut self, option: OptionCode, data: &[u8]) -> Result<(), PeerMisbehaved> {
        self.info_replies += 1;
        if self.info_replies > MAX_INFO_REPLIES {
            return Err(PeerMisbehaved::TooManyReplies(option));
        }
        match Info::decode(data)? {
            Info::Export { size, flags } => self.export = Some((size, flags)),
            Info::Name(name) => self.name = Some(name),
            Info::Description(description) => self.description = Some(description),
            Info::BlockSize(sizes) => self.block_sizes = Some(sizes),
            Info::Unknown(_) => {}
        }
        Ok(())
    }
}

/// The length of a reply that may answer this option, within what its type can have.
fn bounded(option: OptionCode, reply: ReplyType, length: u32) -> Result<usize, PeerMisbehaved> {
    let is_info = matches!(option, OptionCode::Info | OptionCode::Go);
    let limit = match reply {
        // Only the server's own words grant it.
        ReplyType::Ack if option == OptionCode::Upgrade => return Err(unexpected(option, reply)),
        ReplyType::Ack if length != 0 => return Err(PeerMisbehaved::AckWithData { option, length }),
        ReplyType::Ack => 0,
        ReplyType::Error(_) => MAX_STRING,
        ReplyType::Server if option == OptionCode::List => size_of::<u32>() + 2 * MAX_STRING,
        ReplyType::Info if is_info => MAX_INFO_REPLY,
        ReplyType::Upgrade if option == OptionCode::Upgrade => MAX_UPGRADE_DATA,
        _ => {
            return Err(unexpected(option, reply));
        }
    };
    match usize::try_from(length) {
        Ok(length) if length <= limit => Ok(length),
        _ => {
            let limit = u32::try_from(limit).unwrap_or(u32::MAX);
            Err(PeerMisbehaved::OptionReplyTooLong { option, length, limit })
        }
    }
}

fn unexpected(option: OptionCode, reply: ReplyType) -> PeerMisbehaved {
    PeerMisbehaved::UnexpectedReplyType {
        option,
        reply: reply.to_wire(),
    }
}
