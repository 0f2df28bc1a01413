//! The rules that hold for every reply.

use anyhow::{Result, bail, ensure};

use super::wire::{self, Header, Style, number};
use super::{Answer, Ask};
use crate::raw::{Raw, command, errno};

/// No payload is longer: what is announced beyond is not even received.
const PAYLOAD_MAX: u64 = (32 << 20) + 4096;
const TEXT_MAX: u64 = 4096;
/// Most extents of one context in one reply.
const EXTENTS_MAX: usize = 1 << 20;
const DONE: u16 = 1;

/// Chunk types.
pub mod kind {
    #![allow(missing_docs)]
    pub const NONE: u16 = 0;
    pub const DATA: u16 = 1;
    pub const HOLE: u16 = 2;
    pub const BLOCK_STATUS: u16 = 5;
    pub const BLOCK_STATUS_EXT: u16 = 6;
    pub const ERROR: u16 = 0x8001;
    pub const ERROR_OFFSET: u16 = 0x8002;
}

/// Receives what follows `header`; whether it ends the reply.
pub(super) fn take(style: Style, header: &Header, ask: &Ask, answer: &mut Answer, raw: &mut Raw) -> Result<bool> {
    match *header {
        Header::Simple { error, .. } => {
            ensure!(style != Style::Extended, "a simple reply beside extended headers");
            let is_read = ask.command == command::READ;
            ensure!(!(is_read && style == Style::Structured), "a simple reply to READ");
            ensure!(answer.chunks.is_empty(), "chunks and a simple reply");
            fail(answer, error)?;
            if is_read && error == 0 {
                answer.data = raw.receive(ask.length as usize)?;
            }
            Ok(true)
        }
        Header::Chunk {
            extended,
            flags,
            kind,
            offset,
            length,
            ..
        } => {
            ensure!(style != Style::Simple, "a chunk, though none were agreed");
            ensure!(extended == (style == Style::Extended), "a chunk of the other style");
            ensure!(!extended || offset == ask.offset, "the offset is not the request's");
            ensure!(flags & !DONE == 0, "unknown reply flags");
            ensure!(length <= PAYLOAD_MAX, "{length} bytes in a chunk");
            ensure!(kind != kind::NONE || flags == DONE, "a chunk NONE that is not the last");
            answer.chunks.push((kind, length));
            chunk(style, kind, length, ask, answer, raw)?;
            Ok(flags == DONE)
        }
    }
}

fn chunk(style: Style, kind: u16, length: u64, ask: &Ask, answer: &mut Answer, raw: &mut Raw) -> Result<()> {
    match kind {
        kind::NONE => ensure!(length == 0, "a chunk NONE of {length} bytes"),
        kind::DATA => {
            ensure!(length >= 9, "a data chunk of {length} bytes");
            let at = number(raw, 8)?;
            let data = raw.receive(length as usize - 8)?;
            content(ask, answer, at, &data, false)?;
        }
        kind::HOLE => {
            ensure!(length == 12, "a hole of {length} bytes");
            let (at, size) = (number(raw, 8)?, number(raw, 4)?);
            content(ask, answer, at, &vec![0; size as usize], true)?;
        }
        kind::BLOCK_STATUS | kind::BLOCK_STATUS_EXT => {
            let wide = kind == kind::BLOCK_STATUS_EXT;
            ensure!(
                wide == (style == Style::Extended),
                "the status chunk of the other style"
            );
            status(wide, length, ask, answer, raw)?;
        }
        kind::ERROR | kind::ERROR_OFFSET => {
            let error = number(raw, 4)? as u32;
            ensure!(error != 0, "an error chunk with error 0");
            let text = number(raw, 2)?;
            let rest = if kind == kind::ERROR_OFFSET { 8 } else { 0 };
            ensure!(
                text <= TEXT_MAX && length == 6 + text + rest,
                "a text of {text} in {length} bytes"
            );
            answer.text = String::from_utf8(raw.receive(text as usize)?)?;
            ensure!(!answer.text.contains('\0'), "a text with a NUL");
            if kind == kind::ERROR_OFFSET {
                let at = number(raw, 8)?;
                let inside = at.checked_sub(ask.offset).is_some_and(|at| at < ask.length);
                ensure!(inside, "an error at {at}");
                answer.error_at = Some(at);
            }
            fail(answer, error)?;
        }
        other => bail!("chunk type {other:#x}"),
    }
    Ok(())
}

/// Only the protocol's errors go over the wire.
fn fail(answer: &mut Answer, error: u32) -> Result<()> {
    const ERRORS: [u32; 8] = [
        0,
        errno::PERM,
        errno::IO,
        errno::INVALID,
        errno::NO_SPACE,
        errno::OVERFLOW,
        errno::NOT_SUPPORTED,
        errno::SHUTDOWN,
    ];
    ensure!(ERRORS.contains(&error), "error {error}");
    if answer.error == 0 {
        answer.error = error;
    }
    Ok(())
}

/// Content lies in the range that was asked, and nowhere twice.
fn content(ask: &Ask, answer: &mut Answer, at: u64, data: &[u8], hole: bool) -> Result<()> {
    ensure!(ask.command == command::READ, "content for command {}", ask.command);
    let length = data.len() as u64;
    ensure!(length > 0, "content of no length");
    let Some(start) = at.checked_sub(ask.offset).filter(|start| start + length <= ask.length) else {
        bail!("content at {at} is outside")
    };
    let overlaps = answer
        .content
        .iter()
        .any(|(other, size, _)| at < other + size && *other < at + length);
    ensure!(!overlaps, "content at {at} comes twice");
    answer.content.push((at, length, hole));
    answer.data.resize(ask.length as usize, 0);
    answer.data[start as usize..][..data.len()].copy_from_slice(data);
    Ok(())
}

fn status(wide: bool, length: u64, ask: &Ask, answer: &mut Answer, raw: &mut Raw) -> Result<()> {
    ensure!(
        ask.command == command::BLOCK_STATUS,
        "extents for command {}",
        ask.command
    );
    let (fixed, each) = if wide { (8, 16) } else { (4, 8) };
    ensure!(
        length > fixed && (length - fixed).is_multiple_of(each),
        "a status chunk of {length} bytes"
    );
    let id = number(raw, 4)? as u32;
    let count = (length - fixed) / each;
    ensure!(!wide || number(raw, 4)? == count, "the count of extents does not fit");
    let mut extents = Vec::new();
    for _ in 0..count {
        let half = each as usize / 2;
        extents.push((number(raw, half)?, number(raw, half)?));
    }
    ensure!(
        answer.extents.insert(id, extents).is_none(),
        "context {id} is answered twice"
    );
    Ok(())
}

/// A reply as a whole.
pub(super) fn judge(ask: &Ask, answer: &Answer, contexts: &[(u32, String)], size: u64) -> Result<()> {
    if ask.flags & command::DF != 0 && ask.command == command::READ {
        ensure!(answer.content.len() <= 1, "{} pieces despite DF", answer.content.len());
    }
    if answer.error != 0 {
        return Ok(());
    }
    if ask.command == command::READ {
        ensure!(answer.data.len() as u64 == ask.length, "too little data");
        let covered: u64 = answer.content.iter().map(|(_, length, _)| length).sum();
        ensure!(
            answer.chunks.is_empty() || covered == ask.length,
            "{covered} bytes are covered"
        );
    }
    if ask.command == command::BLOCK_STATUS {
        ensure!(!answer.extents.is_empty(), "success without extents");
        ensure!(
            ask.flags & wire::PAYLOAD_LEN != 0 || answer.extents.len() == contexts.len(),
            "one chunk per context"
        );
        for (id, extents) in &answer.extents {
            let context = contexts.iter().find(|(selected, _)| selected == id);
            ensure!(context.is_some(), "context {id} was not selected");
            judge_extents(
                ask,
                extents,
                context.is_some_and(|(_, name)| name.starts_with("base:")),
                size,
            )?;
        }
    }
    Ok(())
}

fn judge_extents(ask: &Ask, extents: &[(u64, u64)], is_base: bool, size: u64) -> Result<()> {
    ensure!(extents.len() <= EXTENTS_MAX, "{} extents", extents.len());
    ensure!(extents.iter().all(|(length, _)| *length > 0), "an extent of no length");
    // With a payload the length of the header is the payload's.
    let asked = match (ask.flags & wire::PAYLOAD_LEN, ask.payload.first_chunk()) {
        (0, _) | (_, None) => ask.length,
        (_, Some(length)) => u64::from_be_bytes(*length),
    };
    let total: u64 = extents.iter().map(|(length, _)| length).sum();
    let before_last = total - extents.last().map_or(0, |(length, _)| *length);
    ensure!(
        extents.len() == 1 || before_last < asked,
        "extents begin behind the range"
    );
    ensure!(ask.offset + total <= size, "extents end behind the export");
    if ask.flags & wire::REQ_ONE != 0 {
        ensure!(extents.len() == 1 && total <= asked, "more than REQ_ONE asks for");
    }
    ensure!(
        !is_base || extents.iter().all(|(_, status)| *status < 4),
        "unknown bits of base:allocation"
    );
    Ok(())
}
