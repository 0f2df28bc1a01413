//! Replies to the client's options.

use alloc::string::String;
use alloc::vec::Vec;

use super::found::Found;
use super::{Advance, Goal, Handshake, HandshakeError, State, Step};
use crate::constants::{MAX_INFO_REPLY, MAX_STRING, MAX_UPGRADE_DATA, OPTION_REPLY_MAGIC};
use crate::flags::TransmissionFlags;
use crate::misbehaved::PeerMisbehaved;
use crate::option::{OptionCode, OptionError, ReplyType, put_option};
use crate::reader::Fields;
use crate::reply::ReplyStyle;

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
            ReplyType::MetaContext => {
                self.found.context(option, data, &self.contexts_wanted)?;
                Ok(Advance::On)
            }
            // `bounded` has refused it.
            reply @ ReplyType::Unknown(_) => Err(unexpected(option, reply).into()),
        }
    }

    pub(super) fn on_export_name_reply(&mut self, bytes: &[u8]) -> Result<Advance, HandshakeError> {
        let mut fields = Fields::new(bytes);
        let (size, flags) = (fields.u64(), fields.u16());
        // The zeroes behind are not looked at: nothing depends on them.
        self.found
            .named_by_export_name(size, TransmissionFlags::from_bits_retain(flags));
        Ok(Advance::Over(Step::Ready(self.negotiated(OptionCode::ExportName)?)))
    }

    fn on_ack(&mut self, option: OptionCode, output: &mut Vec<u8>) -> Result<Advance, HandshakeError> {
        match option {
            OptionCode::StartTls => Ok(Advance::Over(Step::StartTls)),
            OptionCode::ExtendedHeaders => {
                self.replies = ReplyStyle::Extended;
                self.ask_contexts(output)
            }
            OptionCode::StructuredReply => {
                self.replies = ReplyStyle::Structured;
                self.ask_contexts(output)
            }
            OptionCode::SetMetaContext => {
                self.contexts = self.found.take_contexts();
                self.check_contexts(output)?;
                self.ask_goal(output);
                Ok(Advance::On)
            }
            OptionCode::ListMetaContext => {
                put_option(output, OptionCode::Abort, &[]);
                let names = self.found.take_contexts().into_iter().map(|context| context.name);
                Ok(Advance::Over(Step::Contexts(names.collect())))
            }
            OptionCode::List => {
                put_option(output, OptionCode::Abort, &[]);
                Ok(Advance::Over(Step::Listed(self.found.take_listed())))
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
            (OptionCode::ExtendedHeaders, _) => {
                self.ask(OptionCode::StructuredReply, &[], output);
                return Ok(Advance::On);
            }
            (OptionCode::StructuredReply, _) => return self.ask_contexts(output),
            (OptionCode::SetMetaContext, _) if !self.contexts_demanded => {
                // What was named before it was refused does not count.
                self.found.take_contexts();
                self.ask_goal(output);
                return Ok(Advance::On);
            }
            // Extended headers go with GO only.
            (OptionCode::Go, OptionError::Unsupported) if self.replies != ReplyStyle::Extended => {
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
}

/// The length of a reply that may answer this option, within what its type can have.
fn bounded(option: OptionCode, reply: ReplyType, length: u32) -> Result<usize, PeerMisbehaved> {
    let is_info = matches!(option, OptionCode::Info | OptionCode::Go);
    let is_context = matches!(option, OptionCode::ListMetaContext | OptionCode::SetMetaContext);
    let limit = match reply {
        // Only the server's own words grant it.
        ReplyType::Ack if option == OptionCode::Upgrade => return Err(unexpected(option, reply)),
        ReplyType::Ack if length != 0 => return Err(PeerMisbehaved::AckWithData { option, length }),
        ReplyType::Ack => 0,
        ReplyType::Error(_) => MAX_STRING,
        ReplyType::Server if option == OptionCode::List => size_of::<u32>() + 2 * MAX_STRING,
        ReplyType::Info if is_info => MAX_INFO_REPLY,
        ReplyType::MetaContext if is_context => size_of::<u32>() + MAX_STRING,
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
