//! Requests.

use alloc::vec::Vec;

use super::wire::{Malformed, Reader, Sink};
use super::{DIGESTS_MAX, Header, NAME_BYTES_MAX};
use crate::config::PEERS_MAX;
use crate::event::VolumeMessage;
use crate::identity::{EARLIER_MAX, HISTORY_MAX};
use crate::range::{BLOCK_BYTES, ByteRange};
use crate::state::LocalDisk;
use crate::stream::frame::Request;

pub(super) const FIRST: u8 = WRITE;
pub(super) const LAST: u8 = MESSAGE;

const WRITE: u8 = 1;
const ZERO: u8 = 2;
const TRIM: u8 = 3;
const FLUSH: u8 = 4;
const BARRIER: u8 = 5;
const COMPARE: u8 = 6;
const FETCH: u8 = 7;
const COPY_WRITE: u8 = 8;
const COPY_ZERO: u8 = 9;
const READ: u8 = 10;
const MESSAGE: u8 = 11;

const FUA: u8 = 1;
const NO_HOLE: u8 = 2;

/// Kinds of a MESSAGE.
mod message {
    pub(super) const GENERATION: u8 = 1;
    pub(super) const GENERATION_DONE: u8 = 2;
    pub(super) const SYNC_BEGIN: u8 = 3;
    pub(super) const SYNC_BEGIN_DONE: u8 = 4;
    pub(super) const SYNC_END: u8 = 5;
    pub(super) const SYNC_END_DONE: u8 = 6;
    pub(super) const IN_STEP: u8 = 7;
    pub(super) const LEG: u8 = 8;
    pub(super) const ALSO_IN_STEP: u8 = 9;
}

pub(super) fn encode(request: &Request, header: &mut Header, sink: &mut impl Sink) {
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    (header.kind, header.flags) = match request {
        Request::Write { fua, .. } => (WRITE, flag(*fua, FUA)),
        Request::Zero { no_hole, fua, .. } => (ZERO, flag(*fua, FUA) | flag(*no_hole, NO_HOLE)),
        Request::Trim { fua, .. } => (TRIM, flag(*fua, FUA)),
        Request::Flush => (FLUSH, 0),
        Request::Barrier => (BARRIER, 0),
        Request::Compare { .. } => (COMPARE, 0),
        Request::Fetch { .. } => (FETCH, 0),
        Request::CopyWrite { .. } => (COPY_WRITE, 0),
        Request::CopyZero { .. } => (COPY_ZERO, 0),
        Request::Read { .. } => (READ, 0),
        Request::Message(_) => (MESSAGE, 0),
    };
    match request {
        Request::Write { range, .. }
        | Request::Zero { range, .. }
        | Request::Trim { range, .. }
        | Request::CopyWrite { range }
        | Request::CopyZero { range }
        | Request::Read { range } => sink.range(*range),
        Request::Compare { range, digests } | Request::Fetch { range, digests } => {
            sink.range(*range);
            sink.numbers(digests, DIGESTS_MAX);
        }
        Request::Flush | Request::Barrier => {}
        Request::Message(message) => encode_message(message, sink),
    }
}

pub(super) fn decode(header: &Header, body: &mut Reader<'_>) -> Result<Request, Malformed> {
    let known = match header.kind {
        WRITE | TRIM => FUA,
        ZERO => FUA | NO_HOLE,
        _ => 0,
    };
    if header.flags & !known != 0 {
        return Err(Malformed("it has flags that its type has not"));
    }
    let fua = header.flags & FUA != 0;
    let no_hole = header.flags & NO_HOLE != 0;
    Ok(match header.kind {
        WRITE => Request::Write {
            range: body.range()?,
            fua,
        },
        ZERO => Request::Zero {
            range: body.range()?,
            no_hole,
            fua,
        },
        TRIM => Request::Trim {
            range: body.range()?,
            fua,
        },
        FLUSH => Request::Flush,
        BARRIER => Request::Barrier,
        COMPARE => {
            let (range, digests) = compared(body)?;
            Request::Compare { range, digests }
        }
        FETCH => {
            let (range, digests) = compared(body)?;
            Request::Fetch { range, digests }
        }
        COPY_WRITE => Request::CopyWrite { range: body.range()? },
        COPY_ZERO => Request::CopyZero { range: body.range()? },
        READ => Request::Read { range: body.range()? },
        MESSAGE => Request::Message(decode_message(body)?),
        _ => return Err(Malformed("its type is unknown in this version")),
    })
}

/// A range and one digest per block of it.
fn compared(body: &mut Reader<'_>) -> Result<(ByteRange, Vec<u64>), Malformed> {
    let range = body.range()?;
    let digests: Vec<u64> = body.numbers(DIGESTS_MAX)?;
    let blocks = range.length.div_ceil(BLOCK_BYTES);
    if digests.len() as u64 != blocks || !range.offset.is_multiple_of(BLOCK_BYTES) {
        return Err(Malformed("its digests are not one per block of its range"));
    }
    Ok((range, digests))
}

fn encode_message(message: &VolumeMessage, sink: &mut impl Sink) {
    match message {
        VolumeMessage::Generation {
            current,
            earlier,
            in_step,
        } => {
            sink.u8(message::GENERATION);
            sink.u64(*current);
            sink.numbers(earlier, EARLIER_MAX);
            sink.count(in_step.len(), PEERS_MAX);
            in_step.iter().for_each(|node| sink.name(node));
        }
        VolumeMessage::GenerationDone { current } => {
            sink.u8(message::GENERATION_DONE);
            sink.u64(*current);
        }
        VolumeMessage::SyncBegin => sink.u8(message::SYNC_BEGIN),
        VolumeMessage::SyncBeginDone => sink.u8(message::SYNC_BEGIN_DONE),
        VolumeMessage::SyncEnd { current, history } => {
            sink.u8(message::SYNC_END);
            sink.u64(*current);
            sink.numbers(history, HISTORY_MAX);
        }
        VolumeMessage::SyncEndDone { current } => {
            sink.u8(message::SYNC_END_DONE);
            sink.u64(*current);
        }
        VolumeMessage::InStep { current } => {
            sink.u8(message::IN_STEP);
            sink.u64(*current);
        }
        VolumeMessage::AlsoInStep { node, current } => {
            sink.u8(message::ALSO_IN_STEP);
            sink.u64(*current);
            sink.name(node);
        }
        VolumeMessage::Leg { disk } => {
            sink.u8(message::LEG);
            sink.u8(disk_code(*disk));
        }
    }
}

fn decode_message(body: &mut Reader<'_>) -> Result<VolumeMessage, Malformed> {
    Ok(match body.u8()? {
        message::GENERATION => VolumeMessage::Generation {
            current: body.u64()?,
            earlier: body.numbers(EARLIER_MAX)?,
            in_step: body.list(2, PEERS_MAX, Reader::name)?,
        },
        message::GENERATION_DONE => VolumeMessage::GenerationDone { current: body.u64()? },
        message::SYNC_BEGIN => VolumeMessage::SyncBegin,
        message::SYNC_BEGIN_DONE => VolumeMessage::SyncBeginDone,
        message::SYNC_END => VolumeMessage::SyncEnd {
            current: body.u64()?,
            history: body.numbers(HISTORY_MAX)?,
        },
        message::SYNC_END_DONE => VolumeMessage::SyncEndDone { current: body.u64()? },
        message::IN_STEP => VolumeMessage::InStep { current: body.u64()? },
        message::ALSO_IN_STEP => {
            let current = body.u64()?;
            let node = body.name()?;
            VolumeMessage::AlsoInStep { node, current }
        }
        message::LEG => VolumeMessage::Leg {
            disk: disk_from(body.u8()?)?,
        },
        _ => return Err(Malformed("its message is unknown in this version")),
    })
}

pub(super) fn disk_code(disk: LocalDisk) -> u8 {
    match disk {
        LocalDisk::Diskless => 0,
        LocalDisk::Inconsistent => 1,
        LocalDisk::Outdated => 2,
        LocalDisk::UpToDate => 3,
    }
}

pub(super) fn disk_from(code: u8) -> Result<LocalDisk, Malformed> {
    Ok(match code {
        0 => LocalDisk::Diskless,
        1 => LocalDisk::Inconsistent,
        2 => LocalDisk::Outdated,
        3 => LocalDisk::UpToDate,
        _ => return Err(Malformed("a disk state is unknown in this version")),
    })
}

const _: () = assert!(NAME_BYTES_MAX <= super::TEXT_BYTES_MAX);
