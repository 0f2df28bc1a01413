//! The server's end of the handshake.
//!
//! ```text
//!             client flags          header            whole option
//!  greeting ───────────────► Option ────────► Collect ────────────► Option | Finished (GO, EXPORT_NAME, upgrade)
//!                              │    ────────► Skip ───────────────► Option | Finished (ABORT)
//!                              │    STARTTLS, answered with ACK ──► Securing ── secured() ──► Option
//!                              └ magic wrong, too many options ───► Finished
//! ```
//! An option with data that is not wanted, or too much of it, is skipped byte by byte as it arrives, never kept, and
//! answered when it is through: the next option is always found.

mod answer;
mod contexts;
mod intake;
mod mask;

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use crate::constants::{
    CLIENT_FLAGS_LENGTH, GREETING_LENGTH, GREETING_MAGIC, MAX_OPTIONS, OPTION_HEADER_LENGTH, OPTION_MAGIC,
    REPLY_BYTES_PER_CALL,
};
use crate::context::Context;
use crate::export::ExportInfo;
use crate::flags::{ClientFlags, HandshakeFlags};
use crate::gather::Gather;
use crate::misbehaved::PeerMisbehaved;
use crate::option::{OptionCode, OptionError, ReplyType, put_refusal, put_reply};
use crate::reader::{Fields, Reader};
use crate::reply::ReplyStyle;
use crate::writer::Writer;

pub use self::mask::Mask;

const UNKNOWN_OPTION: &str = "this server does not know this option";

/// What a server has to offer.
pub trait Exports {
    /// The export of this name; the empty name stands for the default one. The answer's own name is the canonical one.
    fn find(&self, name: &str) -> Option<ExportInfo>;

    /// Name and description of every export that may be shown. Those that need TLS are left out until it is there.
    fn list(&self) -> Vec<(String, String)>;

    /// Whether this export is for clients inside TLS only. Asked before [`find`](Self::find), also for names that do not
    /// exist: where it is true for those, too, nobody learns outside TLS which do.
    fn requires_tls(&self, _name: &str) -> bool {
        false
    }

    /// The names of the metadata contexts of an export (its canonical name), each once. In LIST_META_CONTEXT a query
    /// that ends in `:` or `/` stands for all that start with it.
    fn contexts(&self, _export: &str) -> Vec<String> {
        Vec::new()
    }

    /// Whether a client may open this export now, asked when it is about to begin; if not, the text says why and what to
    /// do, and goes out with `NBD_REP_ERR_POLICY`.
    fn admit(&self, _export: &ExportInfo) -> Result<(), String> {
        Ok(())
    }

    /// Another blockmirror asks for a replication stream, with these words: the words of the answer, or why not. Most
    /// servers know nothing of it.
    fn upgrade(&self, _hello: &[u8]) -> Result<Vec<u8>, (OptionError, String)> {
        Err((OptionError::Unsupported, UNKNOWN_OPTION.to_owned()))
    }

    /// Whether the server is going down: every option but ABORT is refused then.
    fn is_shutting_down(&self) -> bool {
        false
    }
}

/// What TLS is to a connection (section "TLS support" of the protocol). One mode for all of its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// NOTLS: STARTTLS is refused.
    #[default]
    Off,
    /// SELECTIVETLS: STARTTLS is welcome, and needed for the exports that require it.
    Allow,
    /// FORCEDTLS: nothing but STARTTLS and ABORT before it.
    Require,
}

/// The server's end of one handshake, over bytes.
///
/// Send [`Handshake::greeting`], then give everything received to [`Handshake::handle`] and send everything it appends,
/// until it says that the handshake is over.
///
/// At [`Step::StartTls`] the caller does the TLS handshake on the connection, then goes on with the same `Handshake` over
/// TLS, after [`Handshake::secured`].
#[derive(Debug)]
pub struct Handshake {
    state: State,
    gather: Gather,
    tls: TlsMode,
    mask: Mask,
    is_secured: bool,
    replies: ReplyStyle,
    selected: Option<Selected>,
    is_fixed: bool,
    no_zeroes: bool,
    options: u32,
}

/// The metadata contexts the last SET_META_CONTEXT has chosen.
#[derive(Debug)]
struct Selected {
    /// Canonical name of the export it was for.
    export: String,
    contexts: Vec<Context>,
}

/// How far a handshake has come. After every step but `NeedMore` and `StartTls` it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Not over. Send the replies; call again with input that is left over, or else with more.
    NeedMore,
    /// Send the replies, then do the TLS handshake and call [`Handshake::secured`]. Everything negotiated before is
    /// forgotten. If any byte was received that has not been consumed, close: it was sent in the clear, by the client
    /// against the rules or by somebody else.
    StartTls,
    /// The transmission phase begins with the first byte that was not consumed.
    Ready(Negotiated),
    /// NBD ends here: a replication stream begins with the first byte that was not consumed. Send the replies before.
    Upgraded {
        /// What the client said with its option.
        hello: Vec<u8>,
    },
    /// The client ended the handshake properly. Send the replies, then close.
    Aborted,
    /// The client broke a rule, or asked in a way that only closing can answer. Send the replies, then close.
    Failed(PeerMisbehaved),
}

/// What a handshake came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The export, its flags exactly as they were sent.
    pub export: ExportInfo,
    /// How requests come and replies go.
    pub replies: ReplyStyle,
    /// The metadata contexts BLOCK_STATUS answers for, at most [`MAX_CONTEXTS`](crate::constants::MAX_CONTEXTS).
    pub contexts: Vec<Context>,
    /// The client asked for the block sizes and so must obey them.
    pub block_sizes_known: bool,
}

#[derive(Debug)]
enum State {
    ClientFlags,
    Option,
    Collect {
        option: OptionCode,
        length: usize,
    },
    Skip {
        option: OptionCode,
        remaining: u32,
        then: AfterSkip,
    },
    /// STARTTLS was granted: nothing is taken before [`Handshake::secured`].
    Securing,
    Finished,
}

/// What to say when an option's data has been skipped.
#[derive(Clone, Copy, Debug)]
enum AfterSkip {
    Abort,
    Refuse(OptionError, &'static str),
}

impl Default for Handshake {
    fn default() -> Self {
        Self::new(TlsMode::Off)
    }
}

impl Handshake {
    /// Before the first byte.
    pub fn new(tls: TlsMode) -> Self {
        Self {
            state: State::ClientFlags,
            gather: Gather::default(),
            tls,
            mask: Mask::empty(),
            is_secured: false,
            replies: ReplyStyle::Simple,
            selected: None,
            is_fixed: false,
            no_zeroes: false,
            options: 0,
        }
    }

    /// The same, without these features.
    #[must_use]
    pub fn masked(mut self, mask: Mask) -> Self {
        self.mask = mask;
        self
    }

    /// The first bytes the server sends.
    pub fn greeting(&self) -> [u8; GREETING_LENGTH] {
        let mut bytes = [0; GREETING_LENGTH];
        let mut offered = HandshakeFlags::FIXED_NEWSTYLE;
        offered.set(HandshakeFlags::NO_ZEROES, !self.mask.contains(Mask::NO_ZEROES));
        Writer::new(&mut bytes)
            .u64(GREETING_MAGIC)
            .u64(OPTION_MAGIC)
            .u16(offered.bits())
            .finish();
        bytes
    }

    /// Takes received bytes in any pieces; appends replies to `output`. Returns the bytes consumed and the step.
    ///
    /// With [`Step::NeedMore`] all of `input` is consumed, unless the replies have grown past
    /// [`REPLY_BYTES_PER_CALL`]: send them and call again with the rest. Some byte is consumed in every call with
    /// input, and none after the handshake is over or between [`Step::StartTls`] and [`Handshake::secured`].
    pub fn handle(&mut self, input: &[u8], exports: &dyn Exports, output: &mut Vec<u8>) -> (usize, Step) {
        let mut reader = Reader::new(input);
        let replies_start = output.len();
        let step = loop {
            if output.len() - replies_start >= REPLY_BYTES_PER_CALL {
                break Step::NeedMore;
            }
            match self.advance(&mut reader, exports, output) {
                Advance::Blocked => break Step::NeedMore,
                Advance::On => {}
                Advance::Over(step) => {
                    self.state = match step {
                        Step::StartTls => State::Securing,
                        _ => State::Finished,
                    };
                    break step;
                }
            }
        };
        (input.len() - reader.remaining(), step)
    }

    /// The TLS handshake that [`Step::StartTls`] asked for has succeeded: what comes and goes from now on is inside TLS.
    pub fn secured(&mut self) {
        if matches!(self.state, State::Securing) {
            self.is_secured = true;
            self.state = State::Option;
        }
    }

    fn advance(&mut self, input: &mut Reader<'_>, exports: &dyn Exports, output: &mut Vec<u8>) -> Advance {
        match self.state {
            State::ClientFlags => self.on_client_flags(input),
            State::Option => self.on_header(input, exports),
            State::Collect { option, length } => match self.gather.take(input, length) {
                Some(data) => {
                    self.state = State::Option;
                    self.answer(option, &data, exports, output)
                }
                None => Advance::Blocked,
            },
            State::Skip {
                option,
                remaining,
                then,
            } => self.on_skip(option, remaining, then, input, output),
            State::Securing | State::Finished => Advance::Blocked,
        }
    }

    fn on_client_flags(&mut self, input: &mut Reader<'_>) -> Advance {
        let Some(bytes) = self.gather.take(input, CLIENT_FLAGS_LENGTH) else {
            return Advance::Blocked;
        };
        let bits = Fields::new(&bytes).u32();
        let mut offered = ClientFlags::all();
        offered.set(ClientFlags::NO_ZEROES, !self.mask.contains(Mask::NO_ZEROES));
        let Some(flags) = ClientFlags::from_bits(bits).filter(|flags| offered.contains(*flags)) else {
            let unknown = bits & !offered.bits();
            return Advance::Over(Step::Failed(PeerMisbehaved::UnknownClientFlags(unknown)));
        };
        self.is_fixed = flags.contains(ClientFlags::FIXED_NEWSTYLE);
        if self.tls == TlsMode::Require && !self.is_fixed {
            return Advance::Over(Step::Failed(PeerMisbehaved::TlsNeedsFixedNewstyle));
        }
        self.no_zeroes = flags.contains(ClientFlags::NO_ZEROES);
        self.state = State::Option;
        Advance::On
    }

    fn on_header(&mut self, input: &mut Reader<'_>, exports: &dyn Exports) -> Advance {
        let Some(bytes) = self.gather.take(input, OPTION_HEADER_LENGTH) else {
            return Advance::Blocked;
        };
        let mut header = Fields::new(&bytes);
        let (magic, option, length) = (header.u64(), header.u32(), header.u32());
        if magic != OPTION_MAGIC {
            return Advance::Over(Step::Failed(PeerMisbehaved::BadOptionMagic(magic)));
        }
        self.options += 1;
        if self.options > MAX_OPTIONS {
            return Advance::Over(Step::Failed(PeerMisbehaved::TooManyOptions));
        }
        match self.intake(OptionCode::from_wire(option), length, exports.is_shutting_down()) {
            Ok(state) => {
                self.state = state;
                Advance::On
            }
            Err(fault) => Advance::Over(Step::Failed(fault)),
        }
    }

    fn on_skip(
        &mut self,
        option: OptionCode,
        remaining: u32,
        then: AfterSkip,
        input: &mut Reader<'_>,
        output: &mut Vec<u8>,
    ) -> Advance {
        let skipped = input.take_up_to(usize::try_from(remaining).unwrap_or(usize::MAX)).len();
        let remaining = remaining.saturating_sub(u32::try_from(skipped).unwrap_or(u32::MAX));
        if remaining > 0 {
            self.state = State::Skip {
                option,
                remaining,
                then,
            };
            return Advance::Blocked;
        }
        match then {
            AfterSkip::Abort => {
                put_reply(output, option, ReplyType::Ack, &[]);
                Advance::Over(Step::Aborted)
            }
            AfterSkip::Refuse(error, text) => {
                put_refusal(output, option, error, text);
                self.state = State::Option;
                Advance::On
            }
        }
    }
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

#[cfg(test)]
mod tests;
