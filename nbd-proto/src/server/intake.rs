//! What is decided from an option's header alone: whether its data is kept or skipped.

use super::{AfterSkip, Handshake, State, TlsMode, UNKNOWN_OPTION};
use crate::constants::{MAX_CONTEXT_QUERY, MAX_OPTION_DATA, MAX_STRING, MAX_UPGRADE_DATA};
use crate::misbehaved::PeerMisbehaved;
use crate::option::{OptionCode, OptionError};

impl Handshake {
    /// The state in which an option's data is taken, or the rule by which only closing can answer it.
    pub(super) fn intake(
        &mut self,
        option: OptionCode,
        length: u32,
        shutting_down: bool,
    ) -> Result<State, PeerMisbehaved> {
        if option == OptionCode::SetMetaContext {
            // It replaces what was selected before, whatever becomes of it.
            self.selected = None;
        }
        let skip = |then| State::Skip {
            option,
            remaining: length,
            then,
        };
        let refusal = match option {
            OptionCode::Abort => return Ok(skip(AfterSkip::Abort)),
            OptionCode::ExportName => {
                self.check_export_name(length, shutting_down)?;
                None
            }
            OptionCode::StartTls => self.refuses_tls(length, shutting_down),
            _ if self.tls == TlsMode::Require && !self.is_secured => {
                let text = "this server serves nothing outside TLS: STARTTLS comes first";
                Some((OptionError::TlsRequired, text))
            }
            _ if self.mask.hides(option) => Some((OptionError::Unsupported, UNKNOWN_OPTION)),
            _ if shutting_down => Some(AT_SHUTDOWN),
            _ => self.refuses(option, length),
        };
        Ok(match refusal {
            Some((error, text)) => skip(AfterSkip::Refuse(error, text)),
            None => State::Collect {
                option,
                length: usize::try_from(length).unwrap_or(usize::MAX),
            },
        })
    }

    /// EXPORT_NAME cannot be refused but by closing.
    fn check_export_name(&self, length: u32, shutting_down: bool) -> Result<(), PeerMisbehaved> {
        if self.tls == TlsMode::Require && !self.is_secured {
            return Err(PeerMisbehaved::ExportNameOutsideTls);
        }
        if shutting_down {
            return Err(PeerMisbehaved::ExportNameAtShutdown);
        }
        match usize::try_from(length) {
            Ok(kept) if kept <= MAX_STRING => Ok(()),
            _ => Err(PeerMisbehaved::ExportNameTooLong(length)),
        }
    }

    fn refuses_tls(&self, length: u32, shutting_down: bool) -> Option<Refused> {
        // A client that does not speak fixed newstyle gets no TLS, whatever the mode.
        if self.tls == TlsMode::Off || !self.is_fixed {
            return Some((
                OptionError::Policy,
                "TLS is off here: go on without it, or go elsewhere",
            ));
        }
        if self.is_secured {
            return Some((OptionError::Invalid, "this connection is inside TLS already"));
        }
        if shutting_down {
            return Some(AT_SHUTDOWN);
        }
        (length > 0).then_some((OptionError::Invalid, "STARTTLS takes no data"))
    }

    fn refuses(&self, option: OptionCode, length: u32) -> Option<Refused> {
        let extended = self.replies == crate::reply::ReplyStyle::Extended;
        let longer_than = |limit: usize| usize::try_from(length).map_or(true, |length| length > limit);
        match option {
            OptionCode::Info | OptionCode::Go => longer_than(MAX_OPTION_DATA).then_some((
                OptionError::TooBig,
                "the option is longer than any export name and its requests can be",
            )),
            OptionCode::List => (length > 0).then_some((OptionError::Invalid, "LIST takes no data")),
            OptionCode::StructuredReply | OptionCode::ExtendedHeaders if length > 0 => {
                Some((OptionError::Invalid, "this option takes no data"))
            }
            OptionCode::StructuredReply if extended => Some((
                OptionError::ExtendedHeadersRequired,
                "extended headers were negotiated, and cannot be taken back",
            )),
            OptionCode::StructuredReply | OptionCode::ExtendedHeaders => None,
            OptionCode::ListMetaContext | OptionCode::SetMetaContext if !self.replies.has_chunks() => Some((
                OptionError::Invalid,
                "metadata contexts need STRUCTURED_REPLY or EXTENDED_HEADERS first",
            )),
            OptionCode::ListMetaContext | OptionCode::SetMetaContext => {
                longer_than(MAX_CONTEXT_QUERY).then_some((OptionError::TooBig, "too many queries, or too long ones"))
            }
            OptionCode::Upgrade => longer_than(MAX_UPGRADE_DATA).then_some((
                OptionError::TooBig,
                "the option is longer than any resource's HELLO can be",
            )),
            OptionCode::Other(_) => Some((OptionError::Unsupported, UNKNOWN_OPTION)),
            // `intake` has dealt with them.
            OptionCode::Abort | OptionCode::ExportName | OptionCode::StartTls => None,
        }
    }
}

/// The error of a refusal, and its text.
type Refused = (OptionError, &'static str);

const AT_SHUTDOWN: Refused = (OptionError::Shutdown, "the server is shutting down; try again later");
