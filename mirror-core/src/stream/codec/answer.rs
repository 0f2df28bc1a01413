//! Answers.

use alloc::vec::Vec;

use super::wire::{Malformed, Reader, Sink};
use super::{DONE_MAX, Header, RANGES_MAX};
use crate::event::Failure;
use crate::range::ByteRange;
use crate::stream::frame::{Answer, Sequence};

pub(super) const FIRST: u8 = DONE;
pub(super) const LAST: u8 = CONTENTS;

const DONE: u8 = 32;
const FAILED: u8 = 33;
const DIFFERS: u8 = 34;
const CONTENTS: u8 = 35;

const IO: u8 = 1;
const NO_SPACE: u8 = 2;

pub(super) fn encode_done(done: &[Sequence], header: &mut Header, sink: &mut impl Sink) {
    header.kind = DONE;
    sink.numbers(done, DONE_MAX);
}

pub(super) fn encode(answer: &Answer, header: &mut Header, sink: &mut impl Sink) {
    match answer {
        Answer::Done(done) => encode_done(done, header, sink),
        Answer::Failed { sequence, failure } => {
            (header.kind, header.sequence) = (FAILED, *sequence);
            sink.u8(match failure {
                Failure::Io => IO,
                Failure::NoSpace => NO_SPACE,
            });
        }
        Answer::Differs { sequence, ranges } => {
            (header.kind, header.sequence) = (DIFFERS, *sequence);
            sink.ranges(ranges, RANGES_MAX);
        }
        Answer::Contents {
            sequence,
            ranges,
            holes,
        } => {
            (header.kind, header.sequence) = (CONTENTS, *sequence);
            sink.ranges(ranges, RANGES_MAX);
            sink.ranges(holes, RANGES_MAX);
        }
    }
}

pub(super) fn decode(header: &Header, body: &mut Reader<'_>) -> Result<Answer, Malformed> {
    if header.flags != 0 || header.volume != 0 || (header.kind == DONE && header.sequence != 0) {
        return Err(Malformed("it has fields that its type has not"));
    }
    let sequence = header.sequence;
    Ok(match header.kind {
        DONE => Answer::Done(body.numbers(DONE_MAX)?),
        FAILED => Answer::Failed {
            sequence,
            failure: match body.u8()? {
                IO => Failure::Io,
                NO_SPACE => Failure::NoSpace,
                _ => return Err(Malformed("a failure is unknown in this version")),
            },
        },
        DIFFERS => Answer::Differs {
            sequence,
            ranges: body.ranges(RANGES_MAX)?,
        },
        CONTENTS => {
            let (ranges, holes) = (body.ranges(RANGES_MAX)?, body.ranges(RANGES_MAX)?);
            if !all_within(&holes, &ranges) {
                return Err(Malformed("its holes are not within its ranges"));
            }
            if ranges.iter().map(|range| range.length).sum::<u64>() > super::RANGE_BYTES_MAX {
                return Err(Malformed("its ranges are more than one request can ask for"));
            }
            Answer::Contents {
                sequence,
                ranges,
                holes,
            }
        }
        _ => return Err(Malformed("its type is unknown in this version")),
    })
}

/// Each of `parts` lies within one of `ranges`; both are in order.
fn all_within(parts: &[ByteRange], ranges: &[ByteRange]) -> bool {
    let mut ranges = ranges.iter().copied().peekable();
    parts.iter().all(|part| {
        while ranges.peek().is_some_and(|range| range.end() <= part.offset) {
            ranges.next();
        }
        ranges
            .peek()
            .is_some_and(|range| range.offset <= part.offset && part.end() <= range.end())
    })
}

impl Answer {
    /// Bytes of payload that follow it.
    pub fn payload_bytes(&self) -> u64 {
        let sum = |ranges: &Vec<ByteRange>| ranges.iter().map(|range| range.length).sum::<u64>();
        match self {
            Self::Contents { ranges, holes, .. } => sum(ranges).saturating_sub(sum(holes)),
            _ => 0,
        }
    }
}
