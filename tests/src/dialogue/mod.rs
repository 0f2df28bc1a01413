//! An NBD connection in any of the three styles of reply, byte by byte: what is asked, and the whole answer to it.
//!
//! Every reply is held against the rules that hold for all of them (`referee`), whatever the test is about. Like
//! [`crate::raw`] it shares nothing with the project's own codec.

mod referee;
pub mod wire;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use self::wire::{Header, Style};
use crate::raw::{OptionReply, Raw, command, info_request, option};

/// Reply types of options that only meta contexts have, and the options themselves.
pub mod meta {
    #![allow(missing_docs)]
    pub const LIST: u32 = 9;
    pub const SET: u32 = 10;
    pub const CONTEXT: u32 = 4;
}

/// The option that asks for extended headers.
pub const EXTENDED_HEADERS: u32 = 11;

/// A connection with its requests in flight.
pub struct Dialogue {
    /// The connection below.
    pub raw: Raw,
    style: Style,
    next_cookie: u64,
    /// Identifier and name of the meta contexts that were selected.
    pub contexts: Vec<(u32, String)>,
    in_flight: BTreeMap<u64, (Ask, Answer)>,
}

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// Command flags. On a WRITE with extended headers PAYLOAD_LEN is added.
    pub flags: u16,
    /// The command.
    pub command: u16,
    /// Where it begins.
    pub offset: u64,
    /// How much of the export it is about.
    pub length: u64,
    /// What follows the header.
    pub payload: Vec<u8>,
}

/// What a request came to.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The first error, 0 for none.
    pub error: u32,
    /// Its text.
    pub text: String,
    /// Where it happened, if that was said.
    pub error_at: Option<u64>,
    /// What a READ has brought, holes filled with zeroes.
    pub data: Vec<u8>,
    /// Type and payload length of every chunk, in order. Empty after a simple reply.
    pub chunks: Vec<(u16, u64)>,
    /// Ranges of the content chunks, and whether each is a hole.
    pub content: Vec<(u64, u64, bool)>,
    /// Extents by meta context: length and status of each.
    pub extents: BTreeMap<u32, Vec<(u64, u64)>>,
}

impl Ask {
    /// A request without payload.
    pub fn new(command: u16, offset: u64, length: u64) -> Self {
        Self {
            command,
            offset,
            length,
            ..Self::default()
        }
    }

    /// A WRITE.
    pub fn write(offset: u64, data: &[u8]) -> Self {
        Self {
            payload: data.to_vec(),
            ..Self::new(command::WRITE, offset, data.len() as u64)
        }
    }

    /// With these flags.
    #[must_use]
    pub fn with(mut self, flags: u16) -> Self {
        self.flags |= flags;
        self
    }
}

impl Dialogue {
    /// Opens `export` over a Unix socket.
    pub fn open(socket: &Path, export: &str, style: Style) -> Result<Self> {
        Self::begin(Raw::connect(socket)?, export, style, &[])
    }

    /// The same with meta contexts selected.
    pub fn open_with(socket: &Path, export: &str, style: Style, queries: &[&str]) -> Result<Self> {
        Self::begin(Raw::connect(socket)?, export, style, queries)
    }

    /// Negotiates `style` and `queries` over a fresh connection.
    pub fn begin(mut raw: Raw, export: &str, style: Style, queries: &[&str]) -> Result<Self> {
        raw.greet(3)?;
        let asked = match style {
            Style::Simple => None,
            Style::Structured => Some(option::STRUCTURED_REPLY),
            Style::Extended => Some(EXTENDED_HEADERS),
        };
        if let Some(asked) = asked {
            let replies = raw.option(asked, &[])?;
            ensure!(replies[0].kind == option::ACK, "{style:?} was refused: {replies:x?}");
        }
        let contexts = match queries {
            [] => Vec::new(),
            queries => selected(&raw.option(meta::SET, &meta_request(export, queries))?)?,
        };
        raw.go(export)?;
        Ok(Self {
            raw,
            style,
            next_cookie: 0x0123_4567_89ab_cdef,
            contexts,
            in_flight: BTreeMap::new(),
        })
    }

    /// The style that was agreed.
    pub fn style(&self) -> Style {
        self.style
    }

    /// The identifier of a selected context.
    pub fn context(&self, name: &str) -> Result<u32> {
        let found = self.contexts.iter().find(|(_, selected)| selected == name);
        Ok(found
            .with_context(|| format!("{name} is not among {:?}", self.contexts))?
            .0)
    }

    /// The bytes of a request, which counts as in flight from now on; its cookie.
    pub fn prepare(&mut self, ask: &Ask) -> (u64, Vec<u8>) {
        let cookie = self.next_cookie;
        // Not one after the other: nothing may depend on it.
        self.next_cookie = self.next_cookie.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) | 1;
        (cookie, self.prepare_as(cookie, ask))
    }

    /// The same with a cookie of one's own.
    pub fn prepare_as(&mut self, cookie: u64, ask: &Ask) -> Vec<u8> {
        let mut ask = ask.clone();
        if self.style == Style::Extended && ask.command == command::WRITE {
            ask.flags |= wire::PAYLOAD_LEN;
        }
        let bytes = wire::request(self.style, cookie, &ask);
        if ask.command != command::DISCONNECT {
            self.in_flight.insert(cookie, (ask, Answer::default()));
        }
        bytes
    }

    /// Sends a request; its cookie.
    pub fn send(&mut self, ask: &Ask) -> Result<u64> {
        let (cookie, bytes) = self.prepare(ask);
        self.raw.send(&bytes)?;
        Ok(cookie)
    }

    /// The next reply that is complete, and whose it is.
    pub fn receive(&mut self) -> Result<(u64, Answer)> {
        loop {
            let header = wire::header(&mut self.raw)?;
            let cookie = header.cookie();
            let (ask, answer) = self
                .in_flight
                .get_mut(&cookie)
                .with_context(|| format!("a reply to {cookie:#x}, which is not in flight: {header:x?}"))?;
            let done = referee::take(self.style, &header, ask, answer, &mut self.raw)
                .with_context(|| format!("{:?}: {ask:x?} is answered {header:x?}", self.style))?;
            if done && let Some((ask, answer)) = self.in_flight.remove(&cookie) {
                referee::judge(&ask, &answer, &self.contexts, self.raw.size)
                    .with_context(|| format!("{:?}: {ask:x?} is answered {answer:x?}", self.style))?;
                return Ok((cookie, answer));
            }
        }
    }

    /// One request and its answer, nothing else being in flight.
    pub fn ask(&mut self, ask: &Ask) -> Result<Answer> {
        let cookie = self.send(ask)?;
        let (answered, answer) = self.receive()?;
        ensure!(answered == cookie, "a reply to {answered:#x} instead of {cookie:#x}");
        Ok(answer)
    }

    /// A request that must succeed.
    pub fn succeed(&mut self, ask: &Ask) -> Result<Answer> {
        let answer = self.ask(ask)?;
        ensure!(answer.error == 0, "{ask:x?}: error {} ({})", answer.error, answer.text);
        Ok(answer)
    }

    /// A request that must fail with `error`, and leave the stream in step.
    pub fn refused(&mut self, ask: &Ask, error: u32) -> Result<Answer> {
        let answer = self.ask(ask)?;
        ensure!(
            answer.error == error,
            "{ask:x?}: error {} instead of {error}",
            answer.error
        );
        if !answer.chunks.is_empty() {
            ensure!(!answer.text.is_empty(), "{ask:x?}: the error has no text");
        }
        self.succeed(&Ask::new(command::READ, 0, 512))
            .context("the stream is out of step")?;
        Ok(answer)
    }

    /// A READ that must succeed.
    pub fn read(&mut self, offset: u64, length: u64) -> Result<Vec<u8>> {
        Ok(self.succeed(&Ask::new(command::READ, offset, length))?.data)
    }

    /// Says good-bye; everything in flight has to be answered before the end of the stream.
    pub fn disconnect(mut self) -> Result<()> {
        self.send(&Ask::new(command::DISCONNECT, 0, 0))?;
        while !self.in_flight.is_empty() {
            self.receive()?;
        }
        ensure!(self.raw.ends()?, "something comes behind the last reply");
        Ok(())
    }
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
pub fn meta_request(export: &str, queries: &[&str]) -> Vec<u8> {
    // INFO's data begins alike: length and name, then a count, here of 32 bits.
    let mut bytes = info_request(export, &[]);
    bytes.truncate(4 + export.len());
    bytes.extend((queries.len() as u32).to_be_bytes());
    for query in queries {
        bytes.extend((query.len() as u32).to_be_bytes());
        bytes.extend(query.as_bytes());
    }
    bytes
}

/// The contexts that replies to LIST_META_CONTEXT or SET_META_CONTEXT name; an error when the option was refused.
pub fn selected(replies: &[OptionReply]) -> Result<Vec<(u32, String)>> {
    let (last, contexts) = replies.split_last().context("no reply")?;
    ensure!(last.kind == option::ACK, "refused: {last:x?}");
    contexts
        .iter()
        .map(|reply| {
            let Some((id, name)) = reply.payload.split_first_chunk() else {
                bail!("a context without identifier: {reply:x?}")
            };
            ensure!(reply.kind == meta::CONTEXT, "reply type {:#x}", reply.kind);
            Ok((u32::from_be_bytes(*id), String::from_utf8(name.to_vec())?))
        })
        .collect()
}

impl Header {
    fn cookie(&self) -> u64 {
        match self {
            Self::Simple { cookie, .. } | Self::Chunk { cookie, .. } => *cookie,
        }
    }
}
