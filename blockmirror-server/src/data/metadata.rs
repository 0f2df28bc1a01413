//! The metadata file of a volume: transactions made durable, one at a time.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use mirror_core::event::{Failure, MetadataWrite, Transaction, TransactionId};

use super::outbox::is_transient;
use super::token::{Kind, Token};
use super::turn::Turn;
use crate::metadata_file::space;
use crate::ring::{FileHandle, Op};

/// Operations of one transaction that are given back undone and tried again, at most. Each try is a turn of the loop.
const RETRIES_MAX: u32 = 1000;

/// The metadata file and the transaction in flight.
pub(crate) struct MetadataFile {
    file: FileHandle,
    token: Token,
    running: Option<Running>,
}

/// A transaction under way.
///
/// ```text
///  writes of `first` -> sync -> writes of `then` -> sync -> over
/// ```
/// A stage of one write is made durable by the write itself; an empty stage is skipped.
struct Running {
    id: TransactionId,
    stages: VecDeque<Vec<MetadataWrite>>,
    in_flight: usize,
    /// The writes of this stage are not durable by themselves.
    needs_sync: bool,
    /// Operations that may still be tried again.
    retries: u32,
    failed: Option<io::Error>,
}

/// The end of a transaction.
pub(crate) struct PersistDone {
    pub(crate) id: TransactionId,
    pub(crate) outcome: Result<(), Failure>,
}

impl MetadataFile {
    pub(crate) fn new(volume: usize, file: std::fs::File) -> io::Result<Self> {
        let token = Token::new(Kind::Metadata, volume);
        Ok(Self {
            file: FileHandle::new(file)?,
            token,
            running: None,
        })
    }

    /// Set space of the file aside, where the file system can.
    pub(crate) fn set_aside(&self, space: &[Range<u64>]) -> Result<(), String> {
        let why = |error| {
            let needed = space::bytes(space);
            format!("the metadata file needs {needed} bytes of its own, and they cannot be set aside: {error}")
        };
        space::set_aside(&self.file, space).map(drop).map_err(why)
    }

    /// Start a transaction. Completions that come at once are in the turn like all others.
    pub(crate) fn start(&mut self, turn: &mut Turn, transaction: Transaction) -> Option<PersistDone> {
        debug_assert!(self.running.is_none(), "one transaction at a time");
        let Transaction { id, first, then } = transaction;
        let stages = VecDeque::from([first, then]);
        self.running = Some(Running {
            id,
            stages,
            in_flight: 0,
            needs_sync: false,
            retries: RETRIES_MAX,
            failed: None,
        });
        self.advance(turn)
    }

    /// An operation came back.
    pub(crate) fn on_done(&mut self, turn: &mut Turn, result: io::Result<usize>, op: Op) -> Option<PersistDone> {
        let running = self.running.as_mut()?;
        running.in_flight -= 1;
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
                if written == 0 {
                    running.failed = Some(io::ErrorKind::WriteZero.into());
                } else {
                    let rest = payload.slice(written..);
                    running.in_flight += 1;
                    turn.submit(
                        self.token,
                        Op::Write {
                            file,
                            payload: rest,
                            offset: offset + written as u64,
                            durable,
                        },
                    );
                }
            }
            (Ok(_), _) => {}
            // Interrupted, or the engine or the file system was too busy: nothing was done, and nothing has failed.
            (Err(error), op) if is_transient(&error) && running.retries > 0 => {
                running.retries -= 1;
                running.in_flight += 1;
                turn.submit(self.token, op);
            }
            // A sync that failed is never tried again: the kernel may have dropped what it could not write.
            (Err(error), _) => running.failed = Some(error),
        }
        self.advance(turn)
    }

    fn advance(&mut self, turn: &mut Turn) -> Option<PersistDone> {
        let running = self.running.as_mut()?;
        if running.in_flight > 0 {
            return None;
        }
        if let Some(error) = running.failed.take() {
            tracing::error!(error = %error, "metadata file: a transaction failed; the volume takes no more changes");
            let id = running.id;
            self.running = None;
            return Some(PersistDone {
                id,
                outcome: Err(failure_of(&error)),
            });
        }
        if running.needs_sync {
            running.needs_sync = false;
            running.in_flight = 1;
            turn.submit(
                self.token,
                Op::Sync {
                    file: self.file.clone(),
                },
            );
            return None;
        }
        while let Some(writes) = running.stages.pop_front() {
            if writes.is_empty() {
                continue;
            }
            running.needs_sync = writes.len() > 1;
            running.in_flight = writes.len();
            for write in &writes {
                let payload = turn.driver.pool().payload_of(&write.bytes);
                let file = self.file.clone();
                let durable = writes.len() == 1;
                turn.submit(
                    self.token,
                    Op::Write {
                        file,
                        payload,
                        offset: write.offset,
                        durable,
                    },
                );
            }
            return None;
        }
        let id = running.id;
        self.running = None;
        Some(PersistDone { id, outcome: Ok(()) })
    }
}

fn failure_of(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::StorageFull {
        Failure::NoSpace
    } else {
        Failure::Io
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::time::Duration;

    use super::*;
    use crate::data::plan::Limits;
    use crate::layers::{Fault, FaultLayer, FaultPlan};
    use crate::ring::{EngineChoice, OpKind, open_driver};

    /// A transaction of one write, with these faults in its way. Returns its end, and the writes that were tried.
    fn run(kind: OpKind, faults: Vec<Fault>, writes: usize) -> (Result<(), Failure>, Vec<u8>) {
        let plan = FaultPlan::new();
        plan.add(kind, faults);
        let driver = FaultLayer::new(open_driver(EngineChoice::Auto).unwrap(), plan);
        let (control, _messages) = tokio::sync::mpsc::unbounded_channel();
        let mut turn = Turn::new(Box::new(driver), Limits::default(), control, 0);
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut metadata = MetadataFile::new(0, file.reopen().unwrap()).unwrap();
        let write = |at: usize| MetadataWrite {
            offset: at as u64 * 4096,
            bytes: vec![7; 4096],
        };
        let transaction = Transaction {
            id: TransactionId(1),
            first: (0..writes).map(write).collect(),
            then: vec![],
        };
        let mut done = metadata.start(&mut turn, transaction);
        while done.is_none() {
            let mut completions = std::mem::take(&mut turn.inline);
            if completions.is_empty() {
                let patience = Some(Duration::from_secs(20));
                turn.driver.wait(patience, &mut completions).unwrap();
                assert!(!completions.is_empty(), "nothing comes any more");
            }
            for completion in completions {
                done = done.or(metadata.on_done(&mut turn, completion.result, completion.op));
            }
        }
        (done.unwrap().outcome, std::fs::read(file.path()).unwrap())
    }

    #[test]
    fn what_was_not_done_is_tried_again() {
        for fault in [Fault::EAGAIN, Fault::EINTR, Fault::Short(100)] {
            for kind in [OpKind::Write, OpKind::Sync] {
                let (outcome, bytes) = run(kind, vec![fault; 5], 2);
                assert_eq!(outcome, Ok(()), "{kind:?} {fault:?}");
                assert!(bytes == vec![7; 8192], "{kind:?} {fault:?}");
            }
        }
    }

    #[test]
    fn trying_again_has_an_end_and_errors_are_final() {
        let endless = vec![Fault::EAGAIN; RETRIES_MAX as usize + 1];
        assert_eq!(run(OpKind::Write, endless, 1).0, Err(Failure::Io));
        assert_eq!(run(OpKind::Sync, vec![Fault::EIO], 2).0, Err(Failure::Io));
        assert_eq!(run(OpKind::Write, vec![Fault::ENOSPC], 1).0, Err(Failure::NoSpace));
    }
}
