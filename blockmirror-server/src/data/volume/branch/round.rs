//! One round of saving.

use std::collections::HashMap;
use std::io;
use std::ops::Range;

use crate::branch::Source;
use crate::data::outbox::is_transient;
use crate::ring::Op;

/// Operations of one round that are given back undone and tried again at once.
pub(super) const RETRIES_MAX: u32 = 1000;

/// What is saved between two fdatasyncs.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) stage: Stage,
    pub(super) reading: HashMap<u32, Range<u64>>,
    pub(super) records: Vec<Entry>,
    pub(super) bytes: u64,
    pub(super) in_flight: usize,
    pub(super) retries: u32,
    pub(super) failed: Option<io::Error>,
}

/// A record of a round.
#[derive(Debug)]
pub(super) struct Entry {
    /// Where it goes.
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
    /// What it is of; `None`: it is the last one.
    pub(super) kept: Option<(Range<u64>, Source)>,
}

/// How far a round is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Reading,
    Writing,
    Syncing,
    /// After a failure.
    Pausing,
}

impl Round {
    pub(super) fn new(stage: Stage) -> Self {
        Self {
            stage,
            reading: HashMap::new(),
            records: Vec::new(),
            bytes: 0,
            in_flight: 0,
            retries: RETRIES_MAX,
            failed: None,
        }
    }

    /// The operation that has to follow.
    pub(super) fn absorb(&mut self, result: io::Result<usize>, op: Op) -> Option<Op> {
        match (result, op) {
            (
                Ok(written),
                Op::Write {
                    file,
                    payload,
                    offset,
                    durable,
                },
            ) if written < payload.len() => {
                if written > 0 {
                    return Some(Op::Write {
                        file,
                        payload: payload.slice(written..),
                        offset: offset + written as u64,
                        durable,
                    });
                }
                self.failed = Some(io::ErrorKind::WriteZero.into());
            }
            (Ok(_), _) => {}
            (Err(error), op) if is_transient(&error) && self.retries > 0 => {
                self.retries -= 1;
                return Some(op);
            }
            // What was not made durable is written again, whole: what the kernel may have dropped is in memory here.
            (Err(error), _) => self.failed = Some(error),
        }
        None
    }
}
