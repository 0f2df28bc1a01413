//! The life of one request, as operations one after the other: [`Work`].
//!
//! `step` says what is to be done next, `absorb` takes how it ended. Between the two the operation owns the buffers.

use std::io;

use nix::libc;

use super::ImageError;
use super::edges::Edges;
use super::leg::Leg;
use super::patch::Patching;
use super::zero::Zeroing;
use crate::ring::{Buffer, BufferPool, Op, Payload};

/// What is to be done next.
pub(super) enum Step {
    /// Execute this.
    Op(Op),
    /// Wait until these blocks are free.
    Wait(Edges),
    /// Nothing: the request has ended.
    Done(Result<(), ImageError>),
}

/// What an operation's end means.
pub(super) enum Flow {
    /// Step again.
    Continue,
    /// Step again, but not for ever: nothing was achieved because of this.
    Again(io::Error),
    /// The request has failed.
    Failed(ImageError),
}

/// One request under way.
#[derive(Debug)]
pub(super) enum Work {
    Read(Reading),
    BounceRead(BounceReading),
    Write(Writing),
    Patch(Patching),
    Zero(Zeroing),
    Flush { done: bool },
    Cache { offset: u64, length: u64, done: bool },
}

impl Work {
    pub(super) fn read(leg: &Leg, pool: &BufferPool, buffer: Buffer, offset: u64) -> Self {
        if leg.is_aligned(offset, buffer.len()) {
            return Work::Read(Reading {
                buffer: Some(buffer),
                filled: 0,
                offset,
            });
        }
        let (start, length) = whole_blocks(offset, buffer.len(), leg.alignment.transfer);
        Work::BounceRead(BounceReading {
            target: buffer,
            skip: (offset - start) as usize,
            inner: Reading {
                buffer: Some(pool.take(length)),
                filled: 0,
                offset: start,
            },
        })
    }

    pub(super) fn write(leg: &Leg, payload: Payload, offset: u64, durable: bool) -> Self {
        if leg.is_aligned(offset, payload.len()) && payload.is_aligned(leg.alignment.memory) {
            return Work::Write(Writing::new(payload, offset, durable));
        }
        Work::Patch(Patching::new(leg, payload, offset, durable))
    }

    pub(super) fn step(&mut self, leg: &mut Leg, pool: &BufferPool) -> Step {
        match self {
            Work::Read(reading) => reading.step(leg),
            Work::BounceRead(reading) => reading.step(leg),
            Work::Write(writing) => writing.step(leg),
            Work::Patch(patching) => patching.step(leg, pool),
            Work::Zero(zeroing) => zeroing.step(leg, pool),
            Work::Flush { done: true } | Work::Cache { done: true, .. } => Step::Done(Ok(())),
            Work::Flush { done: false } => Step::Op(Op::Sync { file: leg.file.clone() }),
            Work::Cache {
                offset,
                length,
                done: false,
            } => Step::Op(Op::Prefetch {
                file: leg.file.clone(),
                offset: *offset,
                length: *length,
            }),
        }
    }

    pub(super) fn absorb(&mut self, leg: &mut Leg, result: io::Result<usize>, op: Op) -> Flow {
        match self {
            Work::Read(reading) => reading.absorb(leg, result, op),
            Work::BounceRead(reading) => reading.inner.absorb(leg, result, op),
            Work::Write(writing) => writing.absorb(leg, result, op),
            Work::Patch(patching) => patching.absorb(leg, result, op),
            Work::Zero(zeroing) => zeroing.absorb(leg, result, op),
            Work::Flush { done } => absorb_sync(result, done),
            Work::Cache { done, .. } => {
                // It is advice: a file that cannot take it is read when it is read.
                *done = true;
                Flow::Continue
            }
        }
    }

    /// The error of a request whose operation has come to nothing too often.
    pub(super) fn gives_up(&self, error: &io::Error) -> ImageError {
        match self {
            Work::Read(Reading { offset, .. }) => image_error("read", *offset, error),
            Work::BounceRead(reading) => image_error("read", reading.inner.offset, error),
            Work::Write(Writing { offset, .. }) => image_error("write", *offset, error),
            Work::Patch(patching) => image_error("write", patching.offset(), error),
            Work::Zero(zeroing) => image_error("zero", zeroing.at(), error),
            Work::Flush { .. } => flush_failed(error),
            Work::Cache { offset, .. } => image_error("prefetch", *offset, error),
        }
    }

    /// Ends the work: the buffer of a read, and whether blocks were given back.
    pub(super) fn finish(self, leg: &mut Leg) -> (Option<Buffer>, bool) {
        match self {
            Work::Read(reading) => (reading.buffer, false),
            Work::BounceRead(reading) => (Some(reading.target), false),
            Work::Patch(patching) => (None, patching.release(leg)),
            Work::Zero(zeroing) => (None, zeroing.release(leg)),
            Work::Write(_) | Work::Flush { .. } | Work::Cache { .. } => (None, false),
        }
    }
}

/// Reading into a buffer until it is full.
#[derive(Debug)]
pub(super) struct Reading {
    buffer: Option<Buffer>,
    filled: usize,
    offset: u64,
}

impl Reading {
    fn step(&mut self, leg: &Leg) -> Step {
        let Some(buffer) = self.buffer.take() else {
            return lost("read", self.offset);
        };
        if self.filled == buffer.len() {
            self.buffer = Some(buffer);
            return Step::Done(Ok(()));
        }
        let (filled, offset) = (self.filled, self.offset + self.filled as u64);
        Step::Op(Op::Read {
            file: leg.file.clone(),
            buffer,
            filled,
            offset,
        })
    }

    fn absorb(&mut self, leg: &Leg, result: io::Result<usize>, op: Op) -> Flow {
        let Op::Read { buffer, .. } = op else {
            return Flow::Continue;
        };
        let wanted = buffer.len();
        self.buffer = Some(buffer);
        let offset = self.offset + self.filled as u64;
        match result {
            Ok(count) => {
                let count = if self.filled + count == wanted {
                    count
                } else {
                    leg.whole(count)
                };
                if count == 0 {
                    return Flow::Failed(ImageError::Truncated { offset });
                }
                self.filled += count;
                Flow::Continue
            }
            Err(error) => failure("read", offset, error),
        }
    }
}

/// Reading part of some blocks: whole blocks into a buffer of its own, then a copy.
#[derive(Debug)]
pub(super) struct BounceReading {
    target: Buffer,
    skip: usize,
    inner: Reading,
}

impl BounceReading {
    fn step(&mut self, leg: &Leg) -> Step {
        let step = self.inner.step(leg);
        if let (Step::Done(Ok(())), Some(bounce)) = (&step, &self.inner.buffer) {
            let length = self.target.len();
            self.target
                .as_mut_slice()
                .copy_from_slice(&bounce.as_slice()[self.skip..self.skip + length]);
        }
        step
    }
}

/// Writing a payload until nothing is left of it.
#[derive(Debug)]
pub(super) struct Writing {
    rest: Option<Payload>,
    offset: u64,
    durable: bool,
    /// The error of a durable write that is being repeated without durability, to learn which half failed.
    doubted: Option<io::Error>,
    /// All is written, but a flush still has to make it durable.
    unflushed: bool,
}

impl Writing {
    pub(super) fn new(payload: Payload, offset: u64, durable: bool) -> Self {
        Self {
            rest: Some(payload),
            offset,
            durable,
            doubted: None,
            unflushed: false,
        }
    }

    pub(super) fn step(&mut self, leg: &Leg) -> Step {
        let Some(payload) = self.rest.take() else {
            return lost("write", self.offset);
        };
        let file = leg.file.clone();
        if payload.is_empty() {
            self.rest = Some(payload);
            return match (self.doubted.take(), self.unflushed) {
                (Some(error), _) => Step::Done(Err(flush_failed(&error))),
                (None, true) => Step::Op(Op::Sync { file }),
                (None, false) => Step::Done(Ok(())),
            };
        }
        let durable = self.durable && leg.abilities.durable_write && self.doubted.is_none();
        self.unflushed |= self.durable && !durable;
        Step::Op(Op::Write {
            file,
            payload,
            offset: self.offset,
            durable,
        })
    }

    pub(super) fn absorb(&mut self, leg: &mut Leg, result: io::Result<usize>, op: Op) -> Flow {
        let (payload, durable) = match op {
            Op::Write { payload, durable, .. } => (payload, durable),
            Op::Sync { .. } => {
                let mut done = false;
                let flow = absorb_sync(result, &mut done);
                self.unflushed = !done;
                return flow;
            }
            _ => return Flow::Continue,
        };
        let error = match result {
            Ok(count) => {
                let count = if count == payload.len() {
                    count
                } else {
                    leg.whole(count)
                };
                self.rest = Some(payload.slice(count..));
                self.offset += count as u64;
                return if count > 0 {
                    Flow::Continue
                } else {
                    Flow::Again(io::ErrorKind::WriteZero.into())
                };
            }
            Err(error) => error,
        };
        self.rest = Some(payload);
        if durable && error.raw_os_error() == Some(libc::EOPNOTSUPP) {
            leg.abilities.durable_write = false;
            return Flow::Continue;
        }
        if durable && !is_interruption(&error) {
            self.doubted = Some(error);
            return Flow::Continue;
        }
        failure("write", self.offset, error)
    }
}

/// Takes the end of a flush. What it failed on is never asked again.
pub(super) fn absorb_sync(result: io::Result<usize>, done: &mut bool) -> Flow {
    match result {
        Ok(_) => {
            *done = true;
            Flow::Continue
        }
        Err(error) if is_interruption(&error) => Flow::Again(error),
        Err(error) => Flow::Failed(flush_failed(&error)),
    }
}

/// The way on after an error: again when it passes by itself.
pub(super) fn failure(operation: &'static str, offset: u64, error: io::Error) -> Flow {
    if is_interruption(&error) {
        return Flow::Again(error);
    }
    Flow::Failed(image_error(operation, offset, &error))
}

pub(super) fn image_error(operation: &'static str, offset: u64, error: &io::Error) -> ImageError {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => ImageError::NoSpace,
        _ => ImageError::Io {
            operation,
            offset,
            error: error.to_string(),
        },
    }
}

fn flush_failed(error: &io::Error) -> ImageError {
    ImageError::FlushFailed {
        error: error.to_string(),
    }
}

fn is_interruption(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

/// The whole blocks around a range: first byte and length.
pub(super) fn whole_blocks(offset: u64, length: usize, block: u64) -> (u64, usize) {
    let start = offset - offset % block;
    let end = (offset + length as u64).next_multiple_of(block);
    (start, (end - start) as usize)
}

/// An engine gave back another operation than it was given: the buffer is gone with it.
pub(super) fn lost(operation: &'static str, offset: u64) -> Step {
    let error = "the engine returned the wrong operation".to_owned();
    Step::Done(Err(ImageError::Io {
        operation,
        offset,
        error,
    }))
}
