//! The client's end of the handshake: against our own server, and against one that says whatever it likes.

use arbitrary::{Arbitrary, Result, Unstructured};
use nbd_proto::client::{Goal, Handshake, HandshakeError, Step};
use nbd_proto::constants::{GREETING_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC};
use nbd_proto::server::TlsMode;
use nbd_proto::{OptionCode, OptionError, ReplyStyle, TransmissionFlags, server};

use super::server::{Mode, Shelf};
use super::wire::{Name, Query, few};

/// What a client wants.
#[derive(Debug)]
pub struct Wishes {
    goal: Goal,
    name: Name,
    style: ReplyStyle,
    contexts: Vec<Query>,
    demanded: bool,
    inside_tls: bool,
    /// Lengths of the pieces the bytes come in.
    cuts: [u8; 4],
}

impl<'a> Arbitrary<'a> for Wishes {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let shape: u8 = u.arbitrary()?;
        let goals = [Goal::Go, Goal::Go, Goal::Go, Goal::Info, Goal::List, Goal::Contexts];
        let styles = [ReplyStyle::Simple, ReplyStyle::Structured, ReplyStyle::Extended];
        Ok(Self {
            goal: goals[usize::from(shape % 6)],
            name: u.arbitrary()?,
            style: styles[usize::from(u.arbitrary::<u8>()? % 3)],
            contexts: few(u)?,
            demanded: shape & 0x40 != 0,
            inside_tls: shape & 0x80 != 0,
            cuts: u.arbitrary()?,
        })
    }
}

impl Wishes {
    fn begin(&self) -> Handshake {
        let contexts: Vec<&str> = self.contexts.iter().map(|query| query.text()).collect();
        let handshake = Handshake::new(self.goal, self.name.text(), self.style).selecting(&contexts, self.demanded);
        match self.inside_tls {
            true => handshake.inside_tls(),
            false => handshake,
        }
    }
}

/// Bytes of flags and STARTTLS: all that may be said in the clear by who wants TLS.
const IN_THE_CLEAR: usize = 4 + 16;

type Ends = (server::Step, std::result::Result<Step, HandshakeError>);

/// Our client and our server, over a wire that cuts at will.
pub fn meet(wishes: &Wishes, mode: Mode) {
    let (served, asked) = converse(wishes, mode);
    let tls_is_there = !matches!(mode, Mode::Off);
    match (served, asked) {
        (server::Step::Ready(served), Ok(Step::Ready(asked))) => {
            assert_eq!(wishes.goal, Goal::Go);
            assert_eq!((served.export.size, served.replies), (asked.size, asked.replies));
            assert!(
                served.export.flags.contains(asked.flags),
                "{:?} {:?}",
                served.export.flags,
                asked.flags
            );
            assert_eq!(asked.replies, wishes.style, "our server grants every style");
            assert_eq!(served.contexts, asked.contexts);
            assert!(!wishes.demanded || asked.contexts.len() <= wishes.contexts.len());
            assert!(tls_is_there || !wishes.inside_tls, "without the TLS that was wanted");
            assert!(wishes.inside_tls || !matches!(mode, Mode::Require), "outside TLS");
        }
        (server::Step::Aborted, Ok(Step::Ready(_))) => assert_eq!(wishes.goal, Goal::Info),
        (server::Step::Aborted, Ok(Step::Listed(names))) => assert_eq!(names.len(), 2),
        (server::Step::Aborted, Ok(Step::Contexts(_))) => assert_eq!(wishes.goal, Goal::Contexts),
        (server::Step::Aborted, Err(HandshakeError::Refused { error, .. })) => {
            let for_tls = error == OptionError::TlsRequired;
            assert!(!for_tls || (tls_is_there && !wishes.inside_tls), "{wishes:?} {mode:?}");
        }
        (server::Step::Aborted, Err(HandshakeError::NoContext { .. })) => assert!(wishes.demanded),
        // What cannot be asked for is the caller's fault: the client says nothing at all.
        (server::Step::NeedMore, Err(HandshakeError::NoContext { .. } | HandshakeError::BadContextName(_))) => {
            assert!(!wishes.contexts.is_empty());
        }
        ends => panic!("{wishes:?} {mode:?} came to {ends:?}"),
    }
}

fn converse(wishes: &Wishes, mode: Mode) -> Ends {
    let mut server = server::Handshake::new(TlsMode::from(mode));
    let mut client = wishes.begin();
    let exports = Shelf::default();
    let (mut to_client, mut to_server) = (server.greeting().to_vec(), Vec::new());
    let (mut served, mut asked) = (server::Step::NeedMore, Ok(Step::NeedMore));
    let (mut cuts, mut said_in_the_clear) = (wishes.cuts.into_iter().cycle(), 0);
    while !to_client.is_empty() || !to_server.is_empty() {
        let piece = (usize::from(cuts.next().unwrap_or(0)) + 1).min(to_client.len());
        if asked == Ok(Step::NeedMore) && piece > 0 {
            let before = to_server.len();
            asked = client.handle(&to_client[..piece], &mut to_server).map(|(taken, step)| {
                assert_eq!(taken, piece, "the server says nothing that is not taken");
                step
            });
            said_in_the_clear += to_server.len() - before;
            if asked == Ok(Step::StartTls) {
                assert_eq!(
                    said_in_the_clear, IN_THE_CLEAR,
                    "more than STARTTLS was said in the clear"
                );
                client.secured(&mut to_server);
                asked = Ok(Step::NeedMore);
            }
        }
        to_client.drain(..piece);
        let piece = (usize::from(cuts.next().unwrap_or(0)) + 1).min(to_server.len());
        if served == server::Step::NeedMore && piece > 0 {
            let (taken, step) = server.handle(&to_server[..piece], &exports, &mut to_client);
            assert_eq!(taken, piece);
            served = step;
            if served == server::Step::StartTls {
                server.secured();
                served = server::Step::NeedMore;
            }
        }
        to_server.drain(..piece);
    }
    (served, asked)
}

/// A reply of a server that may be anything.
#[derive(Debug)]
pub enum Reply {
    Ack,
    Error(u8),
    Info(u16, Vec<u8>),
    /// Size, flags, and the rest as it has to be.
    Export(u16),
    Listed(Name),
    Selected(u32, Query),
    /// Any type with any data.
    Odd(u32, Vec<u8>),
    /// A good acknowledgement of another option.
    Elsewhere(u8),
    Rubbish(Vec<u8>),
}

impl<'a> Arbitrary<'a> for Reply {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u.arbitrary::<u8>()? % 32 {
            0..12 => Self::Ack,
            12..16 => Self::Error(u.arbitrary::<u8>()? % 12),
            16..18 => Self::Info(u.arbitrary::<u16>()? % 5, few(u)?),
            18..22 => Self::Export(u.arbitrary::<u16>()? | 1),
            22..24 => Self::Listed(u.arbitrary()?),
            24..28 => Self::Selected(u.arbitrary::<u32>()? % 4, u.arbitrary()?),
            28 | 29 => Self::Odd(u.arbitrary()?, few(u)?),
            30 => Self::Elsewhere(u.arbitrary()?),
            _ => Self::Rubbish(few(u)?),
        })
    }
}

impl Reply {
    fn bytes(&self, option: OptionCode) -> Vec<u8> {
        let text = |text: &str| [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
        let (kind, data) = match self {
            Self::Ack | Self::Elsewhere(_) => (1, vec![]),
            Self::Error(code) => (1 << 31 | u32::from(*code), b"because".to_vec()),
            Self::Info(kind, data) => (3, [&kind.to_be_bytes()[..], data].concat()),
            Self::Export(flags) => (
                3,
                [&[0; 2][..], &(1_u64 << 30).to_be_bytes(), &flags.to_be_bytes()].concat(),
            ),
            Self::Listed(name) => (2, text(name.text())),
            Self::Selected(id, query) => (4, [&id.to_be_bytes()[..], query.text().as_bytes()].concat()),
            Self::Odd(kind, data) => (*kind, data.clone()),
            Self::Rubbish(bytes) => return bytes.clone(),
        };
        let option = match self {
            Self::Elsewhere(code) => u32::from(*code),
            _ => option.to_wire(),
        };
        let header = [option, kind, data.len() as u32].map(u32::to_be_bytes).concat();
        [&OPTION_REPLY_MAGIC.to_be_bytes()[..], &header, &data].concat()
    }

    fn is_final(&self) -> bool {
        matches!(self, Self::Ack | Self::Error(_))
    }
}

/// Our client, and a server that says these things one after the other. It may fail, never panic, never speak out of turn.
pub fn endure(wishes: &Wishes, handshake_flags: u16, replies: &[Reply]) {
    let mut client = wishes.begin();
    let greeting = [
        &GREETING_MAGIC.to_be_bytes()[..],
        &OPTION_MAGIC.to_be_bytes(),
        &handshake_flags.to_be_bytes(),
    ];
    let mut output = Vec::new();
    let Ok((_, mut step)) = client.handle(&greeting.concat(), &mut output) else {
        return;
    };
    let mut said = output.split_off(4.min(output.len()));
    let mut asked = options(&said);
    let mut may_end = false;
    for reply in replies {
        if step == Step::StartTls {
            assert_eq!(asked, [OptionCode::StartTls]);
            said.clear();
            client.secured(&mut said);
            asked = options(&said);
        } else if step != Step::NeedMore {
            break;
        }
        let Some(option) = asked.last().copied().filter(|option| *option != OptionCode::ExportName) else {
            return;
        };
        let mut now = Vec::new();
        let Ok((_, next)) = client.handle(&reply.bytes(option), &mut now) else {
            let last = options(&now);
            return assert!(last.is_empty() || last == [OptionCode::Abort], "{last:?}");
        };
        // Behind rubbish nobody knows where a reply begins; and the odd ones may be acknowledgements.
        may_end |= matches!(reply, Reply::Rubbish(_));
        let is_odd = matches!(reply, Reply::Odd(..) | Reply::Elsewhere(_));
        assert!(
            may_end || is_odd || reply.is_final() || now.is_empty(),
            "an option out of turn"
        );
        if !now.is_empty() {
            asked = options(&now);
            assert_eq!(asked.len(), 1, "one option at a time");
        }
        step = next;
    }
    if let Step::Ready(negotiated) = step {
        let has_chunks = negotiated.replies.has_chunks();
        assert!(has_chunks || negotiated.contexts.is_empty());
        assert!(has_chunks || !negotiated.flags.contains(TransmissionFlags::SEND_DF));
        assert!(
            !wishes.inside_tls || handshake_flags & 1 != 0,
            "no TLS without fixed newstyle"
        );
    }
}

/// The options that were said; they have to be whole.
fn options(mut bytes: &[u8]) -> Vec<OptionCode> {
    let mut options = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<16>() {
        let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        assert_eq!(header[..8], OPTION_MAGIC.to_be_bytes());
        bytes = &rest[word(12) as usize..];
        options.push(OptionCode::from_wire(word(8)));
    }
    assert!(bytes.is_empty(), "half an option");
    options
}
