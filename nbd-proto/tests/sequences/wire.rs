//! Options as bytes, and their replies.

use arbitrary::{Arbitrary, Result, Unstructured};
use nbd_proto::constants::{OPTION_MAGIC, OPTION_REPLY_MAGIC};
use nbd_proto::{Context, OptionCode};

/// An option, as a client may say it.
#[derive(Clone, Debug)]
pub enum Say {
    List,
    StructuredReply,
    ExtendedHeaders,
    StartTls,
    Abort,
    Info(Asked),
    Go(Asked),
    ExportName(Name),
    ListContexts(Name, Vec<Query>),
    SetContexts(Name, Vec<Query>),
    Unknown(u32, u16),
    /// An option with a byte of its data changed.
    Mangled(Box<Say>, u16, u8),
    /// An option with more data than it has.
    Longer(Box<Say>, u8),
    /// An option with less.
    Shorter(Box<Say>, u8),
    /// An option whose magic is wrong.
    Torn(u8),
}

/// The data of INFO and GO.
#[derive(Clone, Debug)]
pub struct Asked {
    name: Name,
    infos: Vec<u8>,
}

/// A name of an export.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Name(u8);

/// A query for meta contexts.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Query(pub u8);

/// A reply to an option.
#[derive(Debug)]
pub struct Reply {
    kind: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

const ACK: u32 = 1;
const META_CONTEXT: u32 = 4;
const ERROR: u32 = 1 << 31;
const TLS_REQUIRED: u32 = ERROR | 5;

/// Two or three bytes for most of them, so that a few bytes make a conversation.
impl<'a> Arbitrary<'a> for Say {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u.arbitrary::<u8>()? % 32 {
            28 => Self::Mangled(Box::new(Self::good(u)?), u.arbitrary()?, u.arbitrary()?),
            29 => Self::Longer(Box::new(Self::good(u)?), u.arbitrary()?),
            30 => Self::Shorter(Box::new(Self::good(u)?), u.arbitrary()?),
            31 => Self::Torn(u.arbitrary()?),
            _ => Self::good(u)?,
        })
    }
}

impl Say {
    fn good(u: &mut Unstructured<'_>) -> Result<Self> {
        Ok(match u.arbitrary::<u8>()? % 24 {
            0 => Self::List,
            1..3 => Self::StructuredReply,
            3..5 => Self::ExtendedHeaders,
            5..7 => Self::StartTls,
            7 => Self::Abort,
            8..12 => Self::Info(u.arbitrary()?),
            12..14 => Self::Go(u.arbitrary()?),
            14 => Self::ExportName(u.arbitrary()?),
            15..18 => Self::ListContexts(u.arbitrary()?, few(u)?),
            18..23 => Self::SetContexts(u.arbitrary()?, few(u)?),
            _ => Self::Unknown(u.arbitrary()?, u.arbitrary::<u16>()? % 20_000),
        })
    }
}

/// Up to seven.
pub fn few<'a, T: Arbitrary<'a>>(u: &mut Unstructured<'a>) -> Result<Vec<T>> {
    (0..u.arbitrary::<u8>()? % 8).map(|_| u.arbitrary()).collect()
}

impl<'a> Arbitrary<'a> for Asked {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self {
            name: u.arbitrary()?,
            infos: few(u)?,
        })
    }
}

impl Name {
    /// As it goes over the wire.
    pub fn text(self) -> &'static str {
        ["", "db", "log", "secret", "nothing"][usize::from(self.0) % 5]
    }
}

impl Say {
    /// Which option it is.
    pub fn code(&self) -> OptionCode {
        match self {
            Self::List | Self::Torn(_) => OptionCode::List,
            Self::StructuredReply => OptionCode::StructuredReply,
            Self::ExtendedHeaders => OptionCode::ExtendedHeaders,
            Self::StartTls => OptionCode::StartTls,
            Self::Abort => OptionCode::Abort,
            Self::Info(_) => OptionCode::Info,
            Self::Go(_) => OptionCode::Go,
            Self::ExportName(_) => OptionCode::ExportName,
            Self::ListContexts(..) => OptionCode::ListMetaContext,
            Self::SetContexts(..) => OptionCode::SetMetaContext,
            Self::Unknown(code, _) => match OptionCode::from_wire(*code) {
                OptionCode::Other(code) => OptionCode::Other(code),
                _ => OptionCode::Other(4),
            },
            Self::Mangled(say, ..) | Self::Longer(say, _) | Self::Shorter(say, _) => say.code(),
        }
    }

    /// Its data.
    pub fn data(&self) -> Vec<u8> {
        match self {
            Self::Info(asked) | Self::Go(asked) => {
                let mut data = text(asked.name.text());
                data.extend((asked.infos.len() as u16).to_be_bytes());
                data.extend(asked.infos.iter().flat_map(|info| u16::from(info % 6).to_be_bytes()));
                data
            }
            Self::ExportName(name) => name.text().into(),
            Self::ListContexts(name, queries) | Self::SetContexts(name, queries) => {
                let mut data = text(name.text());
                data.extend((queries.len() as u32).to_be_bytes());
                data.extend(queries.iter().flat_map(|query| text(query.text())));
                data
            }
            Self::Unknown(_, length) => vec![0xa5; usize::from(*length)],
            Self::Mangled(say, at, byte) => {
                let mut data = say.data();
                let length = data.len().max(1);
                if let Some(changed) = data.get_mut(usize::from(*at) % length) {
                    *changed = *byte;
                }
                data
            }
            Self::Longer(say, more) => [say.data(), vec![1; usize::from(*more)]].concat(),
            Self::Shorter(say, less) => {
                let mut data = say.data();
                data.truncate(data.len().saturating_sub(usize::from(*less)));
                data
            }
            _ => Vec::new(),
        }
    }

    /// All of it.
    pub fn bytes(&self) -> Vec<u8> {
        let magic = match self {
            Self::Torn(bit) => OPTION_MAGIC ^ 1 << (bit % 64),
            _ => OPTION_MAGIC,
        };
        let data = self.data();
        [
            &magic.to_be_bytes()[..],
            &self.code().to_wire().to_be_bytes(),
            &(data.len() as u32).to_be_bytes(),
            &data,
        ]
        .concat()
    }

    /// Whether its framing is wrong, so that there is no going on.
    pub fn is_torn(&self) -> bool {
        matches!(self, Self::Torn(_))
    }

    /// The export and the queries of an option about meta contexts that was not tampered with.
    pub fn queries(&self) -> Option<(Name, &[Query])> {
        match self {
            Self::ListContexts(name, queries) | Self::SetContexts(name, queries) => Some((*name, queries)),
            _ => None,
        }
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()
}

/// The replies to one option; nothing may be before, between or behind them.
pub fn read_replies(mut bytes: &[u8], option: OptionCode) -> Vec<Reply> {
    let mut replies = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<20>() {
        let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        assert_eq!(header[..8], OPTION_REPLY_MAGIC.to_be_bytes());
        assert_eq!(word(8), option.to_wire(), "a reply to another option");
        let (payload, rest) = rest.split_at(word(16) as usize);
        bytes = rest;
        let reply = Reply {
            kind: word(12),
            payload: payload.to_vec(),
        };
        assert!(!reply.is_ack() || payload.is_empty(), "an acknowledgement with data");
        assert!(
            reply.kind & ERROR == 0 || std::str::from_utf8(payload).is_ok(),
            "an error text that is none"
        );
        replies.push(reply);
    }
    assert!(bytes.is_empty(), "half a reply");
    replies
}

impl Reply {
    /// Whether it acknowledges the option.
    pub fn is_ack(&self) -> bool {
        self.kind == ACK
    }

    /// Whether no other reply follows.
    pub fn is_final(&self) -> bool {
        self.is_ack() || self.kind & ERROR != 0
    }

    /// Whether it refuses for want of TLS.
    pub fn is_tls_required(&self) -> bool {
        self.kind == TLS_REQUIRED
    }

    /// The meta context it names.
    pub fn context(&self) -> Context {
        assert_eq!(self.kind, META_CONTEXT);
        Context::decode(&self.payload).expect("the server names a context")
    }
}
