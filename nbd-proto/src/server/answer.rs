//! Answers to the options whose data was kept.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Advance, Exports, Handshake, Mask, Negotiated, Step, TlsMode};
use crate::constants::{EXPORT_NAME_PADDING, MAX_STRING, info};
use crate::export::ExportInfo;
use crate::flags::TransmissionFlags;
use crate::info::{Info, strict_text};
use crate::misbehaved::PeerMisbehaved;
use crate::option::{OptionCode, OptionError, ReplyType, length_of, put_refusal, put_reply};
use crate::reader::{Reader, Truncated, truncated};
use crate::reply::ReplyStyle;

/// What an export may advertise: the flags whose commands this crate can validate.
const SERVED: TransmissionFlags = TransmissionFlags::all().difference(TransmissionFlags::SEND_RESIZE);

/// The data of INFO and GO.
struct InfoRequest {
    name: String,
    asked_name: bool,
    asked_description: bool,
    asked_block_size: bool,
}

impl Handshake {
    pub(super) fn answer(
        &mut self,
        option: OptionCode,
        data: &[u8],
        exports: &dyn Exports,
        output: &mut Vec<u8>,
    ) -> Advance {
        match option {
            OptionCode::ExportName => self.answer_export_name(data, exports, output),
            OptionCode::Info | OptionCode::Go => self.answer_info(option, data, exports, output),
            OptionCode::List => {
                self.answer_list(exports, output);
                Advance::On
            }
            OptionCode::StructuredReply => self.agree(option, ReplyStyle::Structured, output),
            OptionCode::ExtendedHeaders => self.agree(option, ReplyStyle::Extended, output),
            OptionCode::ListMetaContext | OptionCode::SetMetaContext => {
                self.answer_contexts(option, data, exports, output)
            }
            OptionCode::StartTls => {
                self.forget();
                put_reply(output, option, ReplyType::Ack, &[]);
                Advance::Over(Step::StartTls)
            }
            OptionCode::Upgrade => answer_upgrade(data, exports, output),
            // Never kept: `intake` skips them.
            OptionCode::Abort | OptionCode::Other(_) => Advance::On,
        }
    }

    fn agree(&mut self, option: OptionCode, replies: ReplyStyle, output: &mut Vec<u8>) -> Advance {
        self.replies = replies;
        put_reply(output, option, ReplyType::Ack, &[]);
        Advance::On
    }

    /// Nothing agreed on outside TLS counts inside.
    fn forget(&mut self) {
        self.replies = ReplyStyle::Simple;
        self.selected = None;
    }

    fn answer_export_name(&self, data: &[u8], exports: &dyn Exports, output: &mut Vec<u8>) -> Advance {
        let name = match strict_text("export name", data) {
            Ok(name) => name,
            Err(fault) => return Advance::Over(Step::Failed(fault)),
        };
        if self.replies == ReplyStyle::Extended {
            return Advance::Over(Step::Failed(PeerMisbehaved::ExportNameWithExtendedHeaders));
        }
        if self.hides(exports, &name) {
            return Advance::Over(Step::Failed(PeerMisbehaved::ExportNameOutsideTls));
        }
        let Some(export) = self.find(exports, &name) else {
            return Advance::Over(Step::Failed(PeerMisbehaved::NoSuchExport(name)));
        };
        if let Err(text) = exports.admit(&export) {
            return Advance::Over(Step::Failed(PeerMisbehaved::NotAdmitted(text)));
        }
        output.extend_from_slice(&export.size.to_be_bytes());
        output.extend_from_slice(&export.flags.bits().to_be_bytes());
        if !self.no_zeroes {
            output.extend_from_slice(&[0; EXPORT_NAME_PADDING]);
        }
        Advance::Over(Step::Ready(self.negotiated(export, false)))
    }

    fn answer_info(&self, option: OptionCode, data: &[u8], exports: &dyn Exports, output: &mut Vec<u8>) -> Advance {
        let mut request = match InfoRequest::decode(data) {
            Ok(request) => request,
            Err((error, text)) => {
                put_refusal(output, option, error, &text);
                return Advance::On;
            }
        };
        request.asked_block_size &= !self.mask.contains(Mask::BLOCK_SIZE);
        let hidden = self.hides(exports, &request.name);
        if hidden && self.offers_tls() {
            put_refusal(output, option, OptionError::TlsRequired, &needs_tls(&request.name));
            return Advance::On;
        }
        let Some(export) = self.find(exports, &request.name).filter(|_| !hidden) else {
            put_unknown_export(output, option, &request.name);
            return Advance::On;
        };
        if let (OptionCode::Go, Err(text)) = (option, exports.admit(&export)) {
            put_refusal(output, option, OptionError::Policy, &text);
            return Advance::On;
        }
        for info in request.replies(&export) {
            put_reply(output, option, ReplyType::Info, &info.encode());
        }
        put_reply(output, option, ReplyType::Ack, &[]);
        match option {
            OptionCode::Go => Advance::Over(Step::Ready(self.negotiated(export, request.asked_block_size))),
            _ => Advance::On,
        }
    }

    /// The export with its flags as they go out.
    fn find(&self, exports: &dyn Exports, name: &str) -> Option<ExportInfo> {
        let mut export = exports.find(name)?;
        export.flags = (export.flags & SERVED) | TransmissionFlags::HAS_FLAGS;
        export.flags.set(TransmissionFlags::SEND_DF, self.replies.has_chunks());
        let filters = self.replies == ReplyStyle::Extended && !self.contexts_of(&export.name).is_empty();
        export.flags.set(TransmissionFlags::BLOCK_STATUS_PAYLOAD, filters);
        export.flags.remove(self.mask.flags());
        if !export.flags.contains(TransmissionFlags::SEND_WRITE_ZEROES) {
            export.flags.remove(TransmissionFlags::SEND_FAST_ZERO);
        }
        Some(export)
    }

    /// The client is outside TLS, and the export is for those inside.
    pub(super) fn hides(&self, exports: &dyn Exports, name: &str) -> bool {
        !self.is_secured && exports.requires_tls(name)
    }

    /// A server without TLS does not tell anybody to come back with it.
    fn offers_tls(&self) -> bool {
        self.tls != TlsMode::Off && self.is_fixed
    }

    fn negotiated(&self, export: ExportInfo, block_sizes_known: bool) -> Negotiated {
        Negotiated {
            contexts: self.contexts_of(&export.name).to_vec(),
            export,
            replies: self.replies,
            block_sizes_known,
        }
    }

    fn answer_list(&self, exports: &dyn Exports, output: &mut Vec<u8>) {
        for (name, description) in exports.list() {
            if self.hides(exports, &name) {
                continue;
            }
            let name = truncated(&name, MAX_STRING).as_bytes();
            let mut data = Vec::new();
            data.extend_from_slice(&length_of(name).to_be_bytes());
            data.extend_from_slice(name);
            data.extend_from_slice(truncated(&description, MAX_STRING).as_bytes());
            put_reply(output, OptionCode::List, ReplyType::Server, &data);
        }
        put_reply(output, OptionCode::List, ReplyType::Ack, &[]);
    }
}

impl InfoRequest {
    fn decode(data: &[u8]) -> Result<Self, (OptionError, String)> {
        let mut reader = Reader::new(data);
        let (name, asked) = Self::fields(&mut reader).map_err(|Truncated| {
            (
                OptionError::Invalid,
                "the lengths inside the option do not add up to its own".to_owned(),
            )
        })?;
        if name.len() > MAX_STRING {
            return Err((
                OptionError::TooBig,
                format!("an export name has at most {MAX_STRING} bytes"),
            ));
        }
        let name = strict_text("the export name", name).map_err(|_| {
            (
                OptionError::Invalid,
                "the export name is not UTF-8 text, or has a NUL".to_owned(),
            )
        })?;
        let has = |wanted: u16| asked.contains(&wanted);
        Ok(Self {
            name,
            asked_name: has(info::NAME),
            asked_description: has(info::DESCRIPTION),
            asked_block_size: has(info::BLOCK_SIZE),
        })
    }

    /// Name and requests, which must fill the option exactly.
    fn fields<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], Vec<u16>), Truncated> {
        let name_length = usize::try_from(reader.u32()?).map_err(|_| Truncated)?;
        let name = reader.take(name_length)?;
        let count = usize::from(reader.u16()?);
        if reader.remaining() != count * size_of::<u16>() {
            return Err(Truncated);
        }
        let mut asked = Vec::with_capacity(count);
        while !reader.is_empty() {
            asked.push(reader.u16()?);
        }
        Ok((name, asked))
    }

    /// EXPORT always, the rest when asked. What is not known is ignored.
    fn replies(&self, export: &ExportInfo) -> Vec<Info> {
        let mut replies = Vec::from([Info::Export {
            size: export.size,
            flags: export.flags,
        }]);
        if self.asked_name {
            replies.push(Info::Name(export.name.clone()));
        }
        if self.asked_description && !export.description.is_empty() {
            replies.push(Info::Description(export.description.clone()));
        }
        if self.asked_block_size {
            replies.push(Info::BlockSize(export.block_sizes));
        }
        replies
    }
}

fn answer_upgrade(hello: &[u8], exports: &dyn Exports, output: &mut Vec<u8>) -> Advance {
    match exports.upgrade(hello) {
        Ok(reply) => {
            put_reply(output, OptionCode::Upgrade, ReplyType::Upgrade, &reply);
            Advance::Over(Step::Upgraded { hello: hello.to_vec() })
        }
        Err((error, text)) => {
            put_refusal(output, OptionCode::Upgrade, error, &text);
            Advance::On
        }
    }
}

fn needs_tls(name: &str) -> String {
    format!("export {name:?} is served inside TLS only: STARTTLS comes first")
}

pub(super) fn put_unknown_export(output: &mut Vec<u8>, option: OptionCode, name: &str) {
    put_refusal(output, option, OptionError::UnknownExport, &no_such_export(name));
}

fn no_such_export(name: &str) -> String {
    match name {
        "" => "there is no default export; name one (LIST tells the names)".to_owned(),
        name => format!("there is no export {name:?} (LIST tells the names)"),
    }
}
