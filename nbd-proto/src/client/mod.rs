//! The client's end of the handshake.
//!
//! ```text
//!  Greeting ──► EXTENDED_HEADERS ──► STRUCTURED_REPLY ──► SET_META_CONTEXT ──► GO ──► Ready
//!     │          (granted: the next one is left out;     (if wanted, and       │ unsupported, and no
//!     │           refused: the next one, or simple)       replies have chunks) ▼ extended headers
//!     │ not fixed newstyle                                                  EXPORT_NAME ──► Ready
//!     └──────────────────────────────────────────────────────────────────────┘
//!  LIST ──► Listed     LIST_META_CONTEXT ──► Contexts     INFO ──► Ready     with ABORT behind
//!  upgrade ──► Upgraded
//!
//!  Inside TLS: Greeting ──► STARTTLS ──► StartTls, the caller secures the connection ── secured() ──► as above
//! ```

mod ask;
mod error;
mod found;
mod reply;

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

pub use error::HandshakeError;

use crate::constants::{EXPORT_NAME_PADDING, EXPORT_NAME_REPLY_LENGTH, GREETING_LENGTH, OPTION_REPLY_HEADER_LENGTH};
use crate::context::Context;
use crate::export::BlockSizes;
use crate::flags::TransmissionFlags;
use crate::gather::Gather;
use crate::misbehaved::PeerMisbehaved;
use crate::option::{OptionCode, ReplyType};
use crate::reader::Reader;
use crate::reply::ReplyStyle;
use found::Found;

/// What the handshake is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Open the export and begin.
    Go,
    /// Learn about the export, then end.
    Info,
    /// Learn the names of all exports, then end.
    List,
    /// Learn the names of the export's metadata contexts, then end. There are none without structured replies.
    Contexts,
    /// Leave NBD for a replication stream with another blockmirror: [`Handshake::upgrade`].
    Upgrade,
}

/// The client's end of one handshake, over bytes.
///
/// Give everything received to [`Handshake::handle`] and send everything it appends, also when it ends or fails: the
/// last bytes say goodbye properly.
#[derive(Debug)]
pub struct Handshake {
    goal: Goal,
    export: String,
    /// What is said with the option of [`Goal::Upgrade`].
    hello: Vec<u8>,
    /// The best style that is asked for.
    style_wanted: ReplyStyle,
    contexts_wanted: Vec<String>,
    contexts_demanded: bool,
    tls_wanted: bool,
    state: State,
    gather: Gather,
    no_zeroes: bool,
    /// The style that was agreed on.
    replies: ReplyStyle,
    contexts: Vec<Context>,
    found: Found,
}

/// How far a handshake has come. After every step but `NeedMore` and `StartTls` it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Not over. Send what was appended and receive more.
    NeedMore,
    /// Not over: do the TLS handshake on this connection, then call [`Handshake::secured`]. Nothing has come in the clear
    /// that was not consumed; should anything come before the TLS handshake, it is the TLS library's to refuse. When that
    /// handshake fails, close: there is no way back.
    StartTls,
    /// For [`Goal::Go`] the transmission phase begins; for [`Goal::Info`] send what was appended, then close.
    Ready(Negotiated),
    /// Name and description of every export the server shows. Send what was appended, then close.
    Listed(Vec<(String, String)>),
    /// Names of the export's metadata contexts. Send what was appended, then close.
    Contexts(Vec<String>),
    /// NBD ends here: a replication stream begins with the first byte that was not consumed. What the server said.
    Upgraded(Vec<u8>),
}

/// What a handshake came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Size of the export in bytes.
    pub size: u64,
    /// What the export can do. Cleared, whatever was sent: [`TransmissionFlags::SEND_DF`] where replies have no chunks,
    /// [`TransmissionFlags::BLOCK_STATUS_PAYLOAD`] without extended headers, and [`TransmissionFlags::SEND_FAST_ZERO`]
    /// without [`TransmissionFlags::SEND_WRITE_ZEROES`].
    pub flags: TransmissionFlags,
    /// Block sizes to obey, if the server told them. They keep the protocol's rules.
    pub block_sizes: Option<BlockSizes>,
    /// How requests go and replies come.
    pub replies: ReplyStyle,
    /// The metadata contexts BLOCK_STATUS answers for, at most [`MAX_CONTEXTS`](crate::constants::MAX_CONTEXTS), with
    /// numbers that are distinct: of those that were wanted the ones the server has. Empty without BLOCK_STATUS.
    pub contexts: Vec<Context>,
    /// The export's canonical name, if told.
    pub name: Option<String>,
    /// The export's description, if told.
    pub description: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Greeting,
    /// The header of a reply to this option is awaited.
    ReplyHeader(OptionCode),
    /// The data of a reply is awaited.
    ReplyData {
        option: OptionCode,
        reply: ReplyType,
        length: usize,
    },
    ExportNameReply,
    /// STARTTLS was granted: nothing is taken before [`Handshake::secured`].
    Securing,
    Finished,
}

/// What one turn of the state machine came to.
enum Advance {
    /// More input is needed.
    Blocked,
    /// There may be more to do with the input at hand.
    On,
    /// The handshake is over.
    Over(Step),
}

impl Handshake {
    /// Before the first byte. `export` is the name to ask for, empty for the default export, and does not matter for
    /// [`Goal::List`]. `replies` is the best style: it is asked for, then each lesser one until one is granted.
    pub fn new(goal: Goal, export: &str, replies: ReplyStyle) -> Self {
        Self {
            goal,
            export: export.to_owned(),
            hello: Vec::new(),
            style_wanted: replies,
            contexts_wanted: Vec::new(),
            contexts_demanded: false,
            tls_wanted: false,
            state: State::Greeting,
            gather: Gather::default(),
            no_zeroes: false,
            replies: ReplyStyle::Simple,
            contexts: Vec::new(),
            found: Found::default(),
        }
    }

    /// Before the first byte, to ask for a replication stream with these words.
    pub fn upgrade(hello: Vec<u8>) -> Self {
        Self {
            hello,
            ..Self::new(Goal::Upgrade, "", ReplyStyle::Simple)
        }
    }

    /// With [`Goal::Go`], select these metadata contexts, each once. What the server does not have is done without, unless
    /// `demanded`.
    #[must_use]
    pub fn selecting<S: AsRef<str>>(mut self, contexts: &[S], demanded: bool) -> Self {
        for name in contexts.iter().map(AsRef::as_ref) {
            if !self.contexts_wanted.iter().any(|wanted| wanted == name) {
                self.contexts_wanted.push(name.to_owned());
            }
        }
        self.contexts_demanded = demanded;
        self
    }

    /// The same inside TLS, or not at all: nothing but the wish for it is said in the clear, and nothing that was heard in
    /// the clear counts. See [`Step::StartTls`].
    #[must_use]
    pub fn inside_tls(mut self) -> Self {
        self.tls_wanted = true;
        self
    }

    /// The TLS handshake that [`Step::StartTls`] asked for has succeeded, and the server is who it has to be: send what is
    /// appended inside TLS, and go on with [`Handshake::handle`].
    pub fn secured(&mut self, output: &mut Vec<u8>) {
        if matches!(self.state, State::Securing) {
            self.ask_first(output);
        }
    }

    /// Takes received bytes in any pieces; appends what is to be sent to `output`. Returns the bytes consumed, which is
    /// all of them with [`Step::NeedMore`], and the step. Nothing is consumed after the handshake is over, nor between
    /// [`Step::StartTls`] and [`Handshake::secured`].
    ///
    /// # Errors
    /// Who is at fault, see [`HandshakeError`]. The handshake is over; send `output`, then close.
    pub fn handle(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(usize, Step), HandshakeError> {
        let mut reader = Reader::new(input);
        let step = loop {
            match self.advance(&mut reader, output) {
                Ok(Advance::Over(Step::StartTls)) if !reader.is_empty() => {
                    self.state = State::Finished;
                    return Err(PeerMisbehaved::PlaintextBehindStartTls(reader.remaining()).into());
                }
                Ok(Advance::Blocked) => break Step::NeedMore,
                Ok(Advance::On) => {}
                Ok(Advance::Over(step)) => {
                    self.state = match step {
                        Step::StartTls => State::Securing,
                        _ => State::Finished,
                    };
                    break step;
                }
                Err(error) => {
                    self.state = State::Finished;
                    return Err(error);
                }
            }
        };
        Ok((input.len() - reader.remaining(), step))
    }

    /// The error to report when the server closes the connection before the handshake is over.
    pub fn closed(&self) -> HandshakeError {
        match self.state {
            State::Greeting => HandshakeError::ClosedAtGreeting,
            State::ExportNameReply => HandshakeError::ClosedAtExportName {
                export: self.export.clone(),
            },
            State::ReplyHeader(option) | State::ReplyData { option, .. } => HandshakeError::ClosedAtOption(option),
            State::Securing => HandshakeError::ClosedAtOption(OptionCode::StartTls),
            State::Finished => HandshakeError::ClosedAfterwards,
        }
    }

    fn advance(&mut self, input: &mut Reader<'_>, output: &mut Vec<u8>) -> Result<Advance, HandshakeError> {
        match self.state {
            State::Greeting => match self.gather.take(input, GREETING_LENGTH) {
                Some(bytes) => self.on_greeting(&bytes, output),
                None => Ok(Advance::Blocked),
            },
            State::ReplyHeader(option) => match self.gather.take(input, OPTION_REPLY_HEADER_LENGTH) {
                Some(bytes) => self.on_reply_header(option, &bytes),
                None => Ok(Advance::Blocked),
            },
            State::ReplyData { option, reply, length } => match self.gather.take(input, length) {
                Some(data) => {
                    self.state = State::ReplyHeader(option);
                    self.on_reply(option, reply, &data, output)
                }
                None => Ok(Advance::Blocked),
            },
            State::ExportNameReply => {
                let padding = if self.no_zeroes { 0 } else { EXPORT_NAME_PADDING };
                match self.gather.take(input, EXPORT_NAME_REPLY_LENGTH + padding) {
                    Some(bytes) => self.on_export_name_reply(&bytes),
                    None => Ok(Advance::Blocked),
                }
            }
            State::Securing | State::Finished => Ok(Advance::Blocked),
        }
    }
}

#[cfg(test)]
mod tests;
