//! The client's end of the handshake.
//!
//! ```text
//!  Greeting ──► STRUCTURED_REPLY ──► GO ──► Ready                LIST ──► Listed, ABORT sent
//!     │          (refused: simple)    │ unsupported              INFO ──► Ready,  ABORT sent
//!     │ not fixed newstyle            ▼
//!     └─────────────────────────► EXPORT_NAME ──► Ready           upgrade ─► Upgraded
//!
//!  Inside TLS: Greeting ──► STARTTLS ──► StartTls, the caller secures the connection ── secured() ──► as above
//! ```

mod error;
mod reply;

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

pub use error::HandshakeError;

use crate::constants::{
    EXPORT_NAME_PADDING, EXPORT_NAME_REPLY_LENGTH, GREETING_LENGTH, GREETING_MAGIC, MAX_STRING, OLDSTYLE_MAGIC,
    OPTION_MAGIC, OPTION_REPLY_HEADER_LENGTH, info,
};
use crate::export::BlockSizes;
use crate::flags::{ClientFlags, HandshakeFlags, TransmissionFlags};
use crate::gather::Gather;
use crate::misbehaved::PeerMisbehaved;
use crate::option::{OptionCode, ReplyType, length_of, put_option};
use crate::reader::{Fields, Reader};
use reply::Found;

/// What the handshake is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Open the export and begin.
    Go,
    /// Learn about the export, then end.
    Info,
    /// Learn the names of all exports, then end.
    List,
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
    structured_replies_wanted: bool,
    tls_wanted: bool,
    state: State,
    gather: Gather,
    no_zeroes: bool,
    structured_replies: bool,
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
    /// NBD ends here: a replication stream begins with the first byte that was not consumed. What the server said.
    Upgraded(Vec<u8>),
}

/// What a handshake came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Size of the export in bytes.
    pub size: u64,
    /// What the export can do. [`TransmissionFlags::SEND_DF`] is cleared without structured replies, and
    /// [`TransmissionFlags::SEND_FAST_ZERO`] without [`TransmissionFlags::SEND_WRITE_ZEROES`], whatever was sent.
    pub flags: TransmissionFlags,
    /// Block sizes to obey, if the server told them. They keep the protocol's rules.
    pub block_sizes: Option<BlockSizes>,
    /// READ is answered in chunks, and other commands may be.
    pub structured_replies: bool,
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
    /// [`Goal::List`]. With `structured_replies` they are asked for, and done without when refused.
    pub fn new(goal: Goal, export: &str, structured_replies: bool) -> Self {
        Self {
            goal,
            export: export.to_owned(),
            hello: Vec::new(),
            structured_replies_wanted: structured_replies,
            tls_wanted: false,
            state: State::Greeting,
            gather: Gather::default(),
            no_zeroes: false,
            structured_replies: false,
            found: Found::default(),
        }
    }

    /// Before the first byte, to ask for a replication stream with these words.
    pub fn upgrade(hello: Vec<u8>) -> Self {
        Self {
            hello,
            ..Self::new(Goal::Upgrade, "", false)
        }
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

    fn on_greeting(&mut self, bytes: &[u8], output: &mut Vec<u8>) -> Result<Advance, HandshakeError> {
        if self.export.len() > MAX_STRING || self.export.contains('\0') {
            return Err(HandshakeError::BadExportName {
                length: self.export.len(),
            });
        }
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

    /// Sends the first option that is about the export.
    fn ask_first(&mut self, output: &mut Vec<u8>) {
        if self.structured_replies_wanted && matches!(self.goal, Goal::Go | Goal::Info) {
            self.ask(OptionCode::StructuredReply, &[], output);
        } else {
            self.ask_goal(output);
        }
    }

    fn goal_option(&self) -> OptionCode {
        match self.goal {
            Goal::Go => OptionCode::Go,
            Goal::Info => OptionCode::Info,
            Goal::List => OptionCode::List,
            Goal::Upgrade => OptionCode::Upgrade,
        }
    }

    /// Sends the option the handshake is for.
    fn ask_goal(&mut self, output: &mut Vec<u8>) {
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
        self.ask(option, &data, output);
    }

    fn ask(&mut self, option: OptionCode, data: &[u8], output: &mut Vec<u8>) {
        put_option(output, option, data);
        self.state = State::ReplyHeader(option);
    }

    fn ask_export_name(&mut self, output: &mut Vec<u8>) {
        put_option(output, OptionCode::ExportName, self.export.as_bytes());
        self.state = State::ExportNameReply;
    }
}

#[cfg(test)]
mod tests;
