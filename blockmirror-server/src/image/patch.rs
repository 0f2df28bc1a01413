//! Writing to parts of blocks: [`Patching`].

use std::io;

use super::ImageError;
use super::edges::Edges;
use super::leg::Leg;
use super::work::{Flow, Step, Writing, failure, lost, whole_blocks};
use crate::ring::{Buffer, BufferPool, Op, Payload};

/// Writing to blocks in part, or from memory direct I/O cannot read: a copy in a buffer of its own, around which
/// the blocks' other bytes are read first.
#[derive(Debug)]
pub(super) struct Patching {
    source: Payload,
    offset: u64,
    durable: bool,
    edges: Edges,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The edge blocks are not ours yet.
    Locking,
    /// Reading the block at this place in the bounce buffer, then going on.
    Edge { bounce: Option<Buffer>, at: usize },
    /// Writing the bounce buffer.
    Write(Writing),
}

impl Patching {
    pub(super) fn new(leg: &Leg, source: Payload, offset: u64, durable: bool) -> Self {
        let edges = Edges::of(offset, source.len() as u64, leg.alignment.transfer);
        Self {
            source,
            offset,
            durable,
            edges,
            stage: Stage::Locking,
        }
    }

    pub(super) fn step(&mut self, leg: &mut Leg, pool: &BufferPool) -> Step {
        let (start, total) = whole_blocks(self.offset, self.source.len(), leg.alignment.transfer);
        if matches!(self.stage, Stage::Locking) {
            if !leg.locks.take(&self.edges) {
                return Step::Wait(self.edges);
            }
            self.stage = self.stage_from(leg, 0, pool.take(total));
        }
        match &mut self.stage {
            Stage::Edge { bounce, at } => {
                let Some(mut buffer) = bounce.take() else {
                    return lost("write", self.offset);
                };
                buffer.set_len(*at + leg.alignment.transfer as usize);
                let offset = start + *at as u64;
                Step::Op(Op::Read {
                    file: leg.file.clone(),
                    buffer,
                    filled: *at,
                    offset,
                })
            }
            Stage::Write(writing) => writing.step(leg),
            Stage::Locking => Step::Wait(self.edges),
        }
    }

    pub(super) fn absorb(&mut self, leg: &mut Leg, result: io::Result<usize>, op: Op) -> Flow {
        let at = match &mut self.stage {
            Stage::Write(writing) => return writing.absorb(leg, result, op),
            Stage::Edge { at, .. } => *at,
            Stage::Locking => return Flow::Continue,
        };
        let Op::Read { buffer, offset, .. } = op else {
            return Flow::Continue;
        };
        let block = leg.alignment.transfer as usize;
        match result {
            Ok(count) if count == block => {
                self.stage = self.stage_from(leg, at + block, buffer);
                Flow::Continue
            }
            Ok(0) => Flow::Failed(ImageError::Truncated { offset }),
            Ok(_) => {
                self.stage = Stage::Edge {
                    bounce: Some(buffer),
                    at,
                };
                Flow::Again(io::ErrorKind::UnexpectedEof.into())
            }
            Err(error) => {
                self.stage = Stage::Edge {
                    bounce: Some(buffer),
                    at,
                };
                failure("read", offset, error)
            }
        }
    }

    /// The next stage when everything before `from` in the bounce buffer is there.
    fn stage_from(&self, leg: &Leg, from: usize, mut bounce: Buffer) -> Stage {
        let block = leg.alignment.transfer as usize;
        let (start, total) = whole_blocks(self.offset, self.source.len(), leg.alignment.transfer);
        let skip = (self.offset - start) as usize;
        let end = skip + self.source.len();
        let last = total - block;
        let head_needed = from == 0 && skip > 0;
        let tail_needed = from <= last && end < total;
        if head_needed || tail_needed {
            return Stage::Edge {
                bounce: Some(bounce),
                at: if head_needed { 0 } else { last },
            };
        }
        bounce.set_len(total);
        bounce.as_mut_slice()[skip..end].copy_from_slice(self.source.as_slice());
        Stage::Write(Writing::new(bounce.into_payload(), start, self.durable))
    }

    /// First byte to be written.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Gives the blocks back; whether there were any.
    pub(super) fn release(self, leg: &mut Leg) -> bool {
        if matches!(self.stage, Stage::Locking) || self.edges == Edges::default() {
            return false;
        }
        leg.locks.give_back(&self.edges);
        true
    }
}
