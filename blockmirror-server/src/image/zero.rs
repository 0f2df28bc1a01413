//! Making a range read as zeroes: [`Zeroing`].

use std::io;

use nix::libc;

use super::leg::{Leg, ZEROES_LENGTH};
use super::patch::Patching;
use super::work::{Flow, Step, Writing, absorb_sync, failure};
use crate::ring::{AllocateMode, BufferPool, Op};

/// Longest range deallocated or zeroed by one operation: a 4 GiB request must not hold the file for long at once.
const PIECE_MAX: u64 = 128 << 20;

/// Zeroing from `at` to `end`, piece by piece. Each piece takes the cheapest way the file has not refused:
/// `PUNCH_HOLE` unless the range has to stay allocated, `ZERO_RANGE`, and writing zeroes last. Parts of blocks
/// where the file takes whole ones only are written.
#[derive(Debug)]
pub(super) struct Zeroing {
    at: u64,
    end: u64,
    keep_allocated: bool,
    /// A flush has to follow.
    unflushed: bool,
    piece: Option<Piece>,
}

#[derive(Debug)]
struct Piece {
    length: u64,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Allocate(AllocateMode),
    Fill(Writing),
    Patch(Patching),
}

impl Zeroing {
    pub(super) fn new(offset: u64, length: u64, keep_allocated: bool, durable: bool) -> Self {
        Self {
            at: offset,
            end: offset + length,
            keep_allocated,
            unflushed: durable,
            piece: None,
        }
    }

    pub(super) fn step(&mut self, leg: &mut Leg, pool: &BufferPool) -> Step {
        loop {
            let Some(piece) = &mut self.piece else {
                if self.at < self.end {
                    self.piece = Some(self.next_piece(leg, pool));
                    continue;
                }
                let file = leg.file.clone();
                return if self.unflushed {
                    Step::Op(Op::Sync { file })
                } else {
                    Step::Done(Ok(()))
                };
            };
            let step = match &mut piece.way {
                Way::Allocate(mode) => {
                    let (mode, offset, length) = (*mode, self.at, piece.length);
                    return Step::Op(Op::Allocate {
                        file: leg.file.clone(),
                        mode,
                        offset,
                        length,
                    });
                }
                Way::Fill(writing) => writing.step(leg),
                Way::Patch(patching) => patching.step(leg, pool),
            };
            let Step::Done(Ok(())) = step else { return step };
            self.end_piece(leg);
        }
    }

    pub(super) fn absorb(&mut self, leg: &mut Leg, result: io::Result<usize>, op: Op) -> Flow {
        let Some(piece) = &mut self.piece else {
            let mut done = false;
            let flow = absorb_sync(result, &mut done);
            self.unflushed = !done;
            return flow;
        };
        let mode = match &mut piece.way {
            Way::Fill(writing) => return writing.absorb(leg, result, op),
            Way::Patch(patching) => return patching.absorb(leg, result, op),
            Way::Allocate(mode) => *mode,
        };
        match result {
            Ok(_) => {
                self.end_piece(leg);
                Flow::Continue
            }
            Err(error) if is_refusal(&error) => {
                match mode {
                    AllocateMode::PunchHole => leg.abilities.punch_hole = false,
                    AllocateMode::ZeroRange => leg.abilities.zero_range = false,
                }
                self.piece = None;
                Flow::Continue
            }
            Err(error) => failure("zero", self.at, error),
        }
    }

    fn next_piece(&self, leg: &mut Leg, pool: &BufferPool) -> Piece {
        let block = leg.alignment.allocation;
        let left = self.end - self.at;
        if !self.at.is_multiple_of(block) || left < block {
            let length = left.min(block - self.at % block);
            let zeroes = leg.zeroes(pool).slice(..length as usize);
            let way = if leg.alignment.transfer > 1 {
                Way::Patch(Patching::new(leg, zeroes, self.at, false))
            } else {
                Way::Fill(Writing::new(zeroes, self.at, false))
            };
            return Piece { length, way };
        }
        let length = left.min(PIECE_MAX);
        let length = length - length % block;
        if leg.abilities.punch_hole && !self.keep_allocated && !leg.keep_allocated {
            return Piece {
                length,
                way: Way::Allocate(AllocateMode::PunchHole),
            };
        }
        if leg.abilities.zero_range {
            return Piece {
                length,
                way: Way::Allocate(AllocateMode::ZeroRange),
            };
        }
        let length = length.min(ZEROES_LENGTH as u64);
        let zeroes = leg.zeroes(pool).slice(..length as usize);
        Piece {
            length,
            way: Way::Fill(Writing::new(zeroes, self.at, false)),
        }
    }

    fn end_piece(&mut self, leg: &mut Leg) {
        let Some(piece) = self.piece.take() else { return };
        self.at += piece.length;
        if let Way::Patch(patching) = piece.way {
            patching.release(leg);
        }
    }

    /// The first byte not zeroed yet.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Gives back what a failed piece holds; whether blocks may have been given back since the request began.
    pub(super) fn release(self, leg: &mut Leg) -> bool {
        if let Some(Piece {
            way: Way::Patch(patching),
            ..
        }) = self.piece
        {
            patching.release(leg);
        }
        leg.alignment.transfer > 1
    }
}

/// Whether the file cannot do this at all, now or later.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV | libc::ENOTTY | libc::EINVAL)
    )
}
