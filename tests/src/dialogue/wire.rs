//! Requests and headers of replies as bytes.

use anyhow::{Result, bail};

use super::Ask;
use crate::raw::{self, Raw};

const SIMPLE_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_MAGIC: u32 = 0x668e_33ef;
const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
const EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

/// Command flags that [`raw::command`] does not have.
pub const REQ_ONE: u16 = 8;
/// WRITE_ZEROES: only if it is fast.
pub const FAST_ZERO: u16 = 16;
/// Extended headers: the length is that of a payload.
pub const PAYLOAD_LEN: u16 = 32;

/// How replies look, and with extended headers also requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One header, and data behind it.
    Simple,
    /// Chunks.
    Structured,
    /// Chunks with longer headers, and requests with longer headers.
    Extended,
}

/// The header of a reply.
#[derive(Clone, Copy, Debug)]
pub(super) enum Header {
    Simple {
        cookie: u64,
        error: u32,
    },
    Chunk {
        extended: bool,
        flags: u16,
        kind: u16,
        cookie: u64,
        /// Extended only; 0 otherwise.
        offset: u64,
        length: u64,
    },
}

/// The bytes of a request and its payload.
pub(super) fn request(style: Style, cookie: u64, ask: &Ask) -> Vec<u8> {
    let mut bytes = match style {
        Style::Simple | Style::Structured => {
            raw::request(ask.flags, ask.command, cookie, ask.offset, ask.length as u32).to_vec()
        }
        Style::Extended => [
            &EXTENDED_REQUEST_MAGIC.to_be_bytes()[..],
            &ask.flags.to_be_bytes(),
            &ask.command.to_be_bytes(),
            &cookie.to_be_bytes(),
            &ask.offset.to_be_bytes(),
            &ask.length.to_be_bytes(),
        ]
        .concat(),
    };
    bytes.extend(&ask.payload);
    bytes
}

/// Receives a header of any style.
pub(super) fn header(raw: &mut Raw) -> Result<Header> {
    let magic = number(raw, 4)? as u32;
    Ok(match magic {
        SIMPLE_MAGIC => Header::Simple {
            error: number(raw, 4)? as u32,
            cookie: number(raw, 8)?,
        },
        STRUCTURED_MAGIC | EXTENDED_REPLY_MAGIC => {
            let extended = magic == EXTENDED_REPLY_MAGIC;
            Header::Chunk {
                extended,
                flags: number(raw, 2)? as u16,
                kind: number(raw, 2)? as u16,
                cookie: number(raw, 8)?,
                offset: if extended { number(raw, 8)? } else { 0 },
                length: number(raw, if extended { 8 } else { 4 })?,
            }
        }
        other => bail!("a reply begins with {other:#010x}"),
    })
}

/// Receives a big-endian number of `bytes` bytes, at most 8.
pub(super) fn number(raw: &mut Raw, bytes: usize) -> Result<u64> {
    Ok(raw
        .receive(bytes)?
        .into_iter()
        .fold(0, |number, byte| number << 8 | u64::from(byte)))
}
