//! What the server has told, kept within bounds and checked as a whole at the end.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Handshake, Negotiated};
use crate::constants::{MAX_CONTEXTS, MAX_INFO_REPLIES, MAX_LISTED_BYTES, MAX_LISTED_CONTEXTS, MAX_LISTED_EXPORTS};
use crate::context::Context;
use crate::export::BlockSizes;
use crate::flags::TransmissionFlags;
use crate::info::{Info, strict_text};
use crate::misbehaved::PeerMisbehaved;
use crate::option::OptionCode;
use crate::reader::Reader;
use crate::reply::ReplyStyle;

/// What the server has told so far.
#[derive(Debug, Default)]
pub(super) struct Found {
    export: Option<(u64, TransmissionFlags)>,
    block_sizes: Option<BlockSizes>,
    name: Option<String>,
    description: Option<String>,
    info_replies: u32,
    contexts: Vec<Context>,
    listed: Vec<(String, String)>,
    listed_bytes: usize,
}

impl Handshake {
    /// The result, checked against the rules that concern it as a whole.
    pub(super) fn negotiated(&mut self, option: OptionCode) -> Result<Negotiated, PeerMisbehaved> {
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
        if !self.replies.has_chunks() {
            flags.remove(TransmissionFlags::SEND_DF);
        }
        if self.replies != ReplyStyle::Extended {
            flags.remove(TransmissionFlags::BLOCK_STATUS_PAYLOAD);
        }
        if !flags.contains(TransmissionFlags::SEND_WRITE_ZEROES) {
            flags.remove(TransmissionFlags::SEND_FAST_ZERO);
        }
        Ok(Negotiated {
            size,
            flags,
            block_sizes: found.block_sizes,
            replies: self.replies,
            contexts: core::mem::take(&mut self.contexts),
            name: found.name,
            description: found.description,
        })
    }
}

impl Found {
    /// One listed export: length of the name, name, description.
    pub(super) fn list(&mut self, data: &[u8]) -> Result<(), PeerMisbehaved> {
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

    pub(super) fn info(&mut self, option: OptionCode, data: &[u8]) -> Result<(), PeerMisbehaved> {
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

    /// One metadata context. Only those that were `wanted` can be selected.
    pub(super) fn context(&mut self, option: OptionCode, data: &[u8], wanted: &[String]) -> Result<(), PeerMisbehaved> {
        let context = Context::decode(data)?;
        let selects = option == OptionCode::SetMetaContext;
        if selects && !wanted.contains(&context.name) {
            return Err(PeerMisbehaved::ContextUnasked(context.name));
        }
        // In a list the numbers mean nothing.
        if selects && self.contexts.iter().any(|other| other.id == context.id) {
            return Err(PeerMisbehaved::ContextTwice(context.id));
        }
        let limit = if selects { MAX_CONTEXTS } else { MAX_LISTED_CONTEXTS };
        if self.contexts.len() >= limit {
            return Err(PeerMisbehaved::TooManyReplies(option));
        }
        self.contexts.push(context);
        Ok(())
    }

    pub(super) fn take_contexts(&mut self) -> Vec<Context> {
        core::mem::take(&mut self.contexts)
    }

    pub(super) fn named_by_export_name(&mut self, size: u64, flags: TransmissionFlags) {
        self.export = Some((size, flags));
    }

    pub(super) fn take_listed(&mut self) -> Vec<(String, String)> {
        core::mem::take(&mut self.listed)
    }
}
