//! The metadata file of a volume: transactions made durable, one at a time.

use std::collections::VecDeque;
use std::io;

use mirror_core::event::{Failure, MetadataWrite, Transaction, TransactionId};

use super::token::{Kind, Token};
use super::turn::Turn;
use crate::ring::{FileHandle, Op};

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
            (Err(error), op @ Op::Write { .. }) if error.kind() == io::ErrorKind::Interrupted => {
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
