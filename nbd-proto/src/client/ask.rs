//! What the client says, and in which order.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Advance, Goal, Handshake, HandshakeError, State, Step};
use crate::constants::{GREETING_MAGIC, MAX_CONTEXTS, MAX_STRING, OLDSTYLE_MAGIC, OPTION_MAGIC, info};
use crate::context::{ContextQuery, has_namespace};
use crate::flags::{ClientFlags, HandshakeFlags};
use crate::misbehaved::PeerMisbehaved;
use crate::option::{OptionCode, length_of, put_option};
use crate::reader::Fields;
use crate::reply::ReplyStyle;

impl Handshake {
    pub(super) fn on_greeting(&mut self, bytes: &[u8], output: &mut Vec<u8>) -> Result<Advance, HandshakeError> {
        self.check_names()?;
        let mut fields = Fields::new(bytes);
        let (first, second, flags) = (fields.u64(), fields.u64(), fields.u16());
        match (first, second) {
            (GREETING_MAGIC, OPTION_MAGIC) => {}
            (GREETING_MAGIC, OLDSTYLE_MAGIC) => return Err(PeerMisbehaved::OldstyleServer.into()),
            (GREETING_MAGIC, other) => return Err(PeerMisbehaved::BadNewstyleMagic(other).into()),
            (other, _) => return Err(PeerMisbehaved::BadGreetingMagic(other).into()),
        }
        // What the server offers beyond these is ignored, as the protocol wants it.
        let offered = HandshakeFlags::from_bits_truncate(flags);
        let fixed = offered.contains(HandshakeFlags::FIXED_NEWSTYLE);
        self.no_zeroes = offered.contains(HandshakeFlags::NO_ZEROES);
        let mut accepted = ClientFlags::empty();
        accepted.set(ClientFlags::FIXED_NEWSTYLE, fixed);
        accepted.set(ClientFlags::NO_ZEROES, self.no_zeroes);
        let first = if self.tls_wanted {
            OptionCode::StartTls
        } else {
            self.goal_option()
        };
        if !fixed && first != OptionCode::Go {
            return Err(PeerMisbehaved::NotFixedNewstyle(first).into());
        }
        output.extend_from_slice(&accepted.bits().to_be_bytes());
        if self.tls_wanted {
            self.ask(OptionCode::StartTls, &[], output);
        } else if fixed {
            self.ask_first(output);
        } else {
            self.ask_export_name(output);
        }
        Ok(Advance::On)
    }

    /// What cannot be asked for is the caller's fault.
    fn check_names(&self) -> Result<(), HandshakeError> {
        let unsayable = |text: &str| text.len() > MAX_STRING || text.contains('\0');
        if unsayable(&self.export) {
            return Err(HandshakeError::BadExportName {
                length: self.export.len(),
            });
        }
        let bad = |name: &&String| unsayable(name) || !has_namespace(name);
        if let Some(name) = self.contexts_wanted.iter().find(bad) {
            return Err(HandshakeError::BadContextName(name.clone()));
        }
        if self.contexts_wanted.len() > MAX_CONTEXTS {
            return Err(HandshakeError::TooManyContexts(self.contexts_wanted.len()));
        }
        match self.contexts_wanted.first() {
            Some(name) if self.contexts_demanded && !self.style_wanted.has_chunks() => {
                Err(HandshakeError::NoContext { name: name.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Sends the first option that is about the export.
    pub(super) fn ask_first(&mut self, output: &mut Vec<u8>) {
        match (self.goal, self.style_wanted) {
            (Goal::Go | Goal::Info, ReplyStyle::Extended) => self.ask(OptionCode::ExtendedHeaders, &[], output),
            // Contexts need them, and nothing more.
            (Goal::Go | Goal::Info, ReplyStyle::Structured) | (Goal::Contexts, _) => {
                self.ask(OptionCode::StructuredReply, &[], output);
            }
            (Goal::Go | Goal::Info, ReplyStyle::Simple) | (Goal::List | Goal::Upgrade, _) => self.ask_goal(output),
        }
    }

    /// The style is agreed on: what metadata contexts there are to be comes before the goal.
    pub(super) fn ask_contexts(&mut self, output: &mut Vec<u8>) -> Result<Advance, HandshakeError> {
        let has_chunks = self.replies.has_chunks();
        if self.goal == Goal::Contexts && !has_chunks {
            put_option(output, OptionCode::Abort, &[]);
            return Ok(Advance::Over(Step::Contexts(Vec::new())));
        }
        if self.goal != Goal::Go || self.contexts_wanted.is_empty() {
            self.ask_goal(output);
        } else if has_chunks {
            let data = self.context_query(self.contexts_wanted.clone());
            self.ask(OptionCode::SetMetaContext, &data, output);
        } else {
            self.check_contexts(output)?;
            self.ask_goal(output);
        }
        Ok(Advance::On)
    }

    /// Whether what was demanded is there, once SET_META_CONTEXT has been answered.
    pub(super) fn check_contexts(&self, output: &mut Vec<u8>) -> Result<(), HandshakeError> {
        let selected = |name: &&String| self.contexts.iter().any(|context| context.name == **name);
        let missing = self.contexts_wanted.iter().find(|name| !selected(name));
        match missing {
            Some(name) if self.contexts_demanded => {
                put_option(output, OptionCode::Abort, &[]);
                Err(HandshakeError::NoContext { name: name.clone() })
            }
            _ => Ok(()),
        }
    }

    fn context_query(&self, queries: Vec<String>) -> Vec<u8> {
        let export = self.export.clone();
        ContextQuery { export, queries }.encode()
    }

    fn goal_option(&self) -> OptionCode {
        match self.goal {
            Goal::Go => OptionCode::Go,
            Goal::Info => OptionCode::Info,
            Goal::List => OptionCode::List,
            Goal::Contexts => OptionCode::ListMetaContext,
            Goal::Upgrade => OptionCode::Upgrade,
        }
    }

    /// Sends the option the handshake is for.
    pub(super) fn ask_goal(&mut self, output: &mut Vec<u8>) {
        let option = self.goal_option();
        let mut data = core::mem::take(&mut self.hello);
        if matches!(option, OptionCode::Go | OptionCode::Info) {
            let wanted = [info::NAME, info::DESCRIPTION, info::BLOCK_SIZE];
            data.extend_from_slice(&length_of(self.export.as_bytes()).to_be_bytes());
            data.extend_from_slice(self.export.as_bytes());
            data.extend_from_slice(&(wanted.len() as u16).to_be_bytes());
            wanted
                .iter()
                .for_each(|info| data.extend_from_slice(&info.to_be_bytes()));
        }
        if option == OptionCode::ListMetaContext {
            // No query stands for all there are.
            data = self.context_query(Vec::new());
        }
        self.ask(option, &data, output);
    }

    pub(super) fn ask(&mut self, option: OptionCode, data: &[u8], output: &mut Vec<u8>) {
        put_option(output, option, data);
        self.state = State::ReplyHeader(option);
    }

    pub(super) fn ask_export_name(&mut self, output: &mut Vec<u8>) {
        put_option(output, OptionCode::ExportName, self.export.as_bytes());
        self.state = State::ExportNameReply;
    }
}
