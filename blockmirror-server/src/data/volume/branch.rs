//! Saving what is about to be overwritten (I12): while a branch is open, a change of the image waits until what it
//! overwrites is durable in the branch file.
//!
//! ```text
//!  change -> are its blocks saved? yes -> image
//!                                  no  -> held; round: read old blocks -> write records -> fdatasync -> image
//!                                                          ^------ no room, an error: a pause -+
//! ```
//! One round runs at a time, for all changes that were held when it began. A round that fails is written again, at the same
//! place of the file: nothing after it is written before.

mod opening;
mod round;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::time::Duration;

use self::round::{Entry, RETRIES_MAX, Round, Stage};
use super::compare::is_zero;
use super::request::ImageWork;
use crate::branch::{BranchFile, BranchPlace, Index, PIECE_BYTES, Saved, Source};
use crate::data::token::Token;
use crate::data::turn::Turn;
use crate::image::{ImageError, ImageRequest};
use crate::ring::{Buffer, FileHandle, Op};

/// Bytes that are read, and kept in memory, in one round.
const ROUND_BYTES: u64 = 8 << 20;
/// Records of one round.
const ROUND_RECORDS: usize = 256;
/// Unit that is saved.
const BLOCK: u64 = 4096;
/// Pause before a round that failed is written again.
const PAUSE: Duration = Duration::from_secs(1);

/// The branch of a volume, if there is one.
#[derive(Debug, Default)]
pub(super) struct Branch {
    place: Option<BranchPlace>,
    writer: Option<Writer>,
    /// Changes save first what they overwrite.
    open: bool,
    /// The branch that was asked for could not be opened: nothing may begin that needs it.
    refused: bool,
    /// Everything is saved: the last record is to be written.
    ending: bool,
    /// The image is gone: there is nothing to save any more.
    image_gone: bool,
    /// Changes whose blocks are not being saved yet; as many as hosts and streams have credit for.
    held: VecDeque<Held>,
    /// Changes whose blocks are being saved.
    saving: Vec<Held>,
    /// Of these, what no round has taken yet.
    todo: VecDeque<Range<u64>>,
    round: Option<Round>,
    reads: u32,
    /// What keeps a round from being written.
    trouble: Option<String>,
    retry_at: Duration,
}

#[derive(Debug)]
struct Writer {
    file: BranchFile,
    handle: FileHandle,
}

/// A change that waits.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) work: ImageWork,
    pub(super) request: ImageRequest,
}

/// What is to be done next.
pub(super) enum Next {
    Nothing,
    /// What these overwrite is durable.
    Release(Vec<Held>),
    /// Read what is to be saved.
    Read,
    /// Write what was read.
    Write,
}

impl Branch {
    /// Nothing more is overwritten by another history.
    pub(super) fn finish(&mut self) {
        if self.open || self.writer.is_some() {
            self.open = false;
            self.ending = self.writer.is_some();
        }
    }

    /// The image is gone, or there again. What waits for it comes back.
    pub(super) fn set_image_gone(&mut self, gone: bool) -> Vec<Held> {
        self.image_gone = gone;
        self.todo.clear();
        let mut waiting = std::mem::take(&mut self.saving);
        waiting.extend(self.held.drain(..));
        waiting
    }

    /// Changes may have to wait until what they overwrite is saved.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// The request overwrites what is not saved.
    pub(super) fn must_save(&self, request: &ImageRequest) -> bool {
        if !self.open || self.image_gone || !request.is_change() {
            return false;
        }
        let (offset, length) = request.range();
        let saved = |writer: &Writer| writer.file.missing(&(offset..offset + length)).is_empty();
        length > 0 && !self.writer.as_ref().is_some_and(saved)
    }

    pub(super) fn hold(&mut self, work: ImageWork, request: ImageRequest) {
        self.held.push_back(Held { work, request });
    }

    /// There is something to do without anything having happened.
    pub(super) fn is_ending(&self) -> bool {
        self.ending && self.round.is_none()
    }

    /// It has to be looked at now and then.
    pub(super) fn needs_time(&self) -> bool {
        self.round.as_ref().is_some_and(|round| round.stage == Stage::Pausing)
    }

    /// After a pause: write again what could not be written. False: not yet.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.needs_time() && now >= self.retry_at
    }

    pub(super) fn next(&mut self) -> Next {
        if let Some(round) = &self.round {
            let read = round.stage == Stage::Reading && round.reading.is_empty();
            return if read { Next::Write } else { Next::Nothing };
        }
        if self.todo.is_empty() && self.saving.is_empty() {
            self.take_held();
        }
        match (self.todo.is_empty(), self.saving.is_empty()) {
            (false, _) => {
                self.round = Some(Round::new(Stage::Reading));
                Next::Read
            }
            (true, false) => Next::Release(std::mem::take(&mut self.saving)),
            (true, true) if self.ending => self.write_end(),
            (true, true) => Next::Nothing,
        }
    }

    /// The next part of what is to be read in this round.
    pub(super) fn next_part(&mut self) -> Option<Range<u64>> {
        let round = self.round.as_ref()?;
        let taken = round.records.len() + round.reading.len();
        if round.bytes >= ROUND_BYTES || taken >= ROUND_RECORDS {
            return None;
        }
        self.todo.pop_front()
    }

    /// The rest of a part comes later.
    pub(super) fn put_back(&mut self, rest: Range<u64>) {
        self.todo.push_front(rest);
    }

    /// Take this much of a part: the rest comes later. With a number where it is to be read.
    pub(super) fn take_part(&mut self, part: Range<u64>, is_hole: bool) -> (Range<u64>, Option<u32>) {
        let piece = if is_hole {
            part.clone()
        } else {
            BranchFile::cut(&part, PIECE_BYTES)
        };
        if piece.end < part.end {
            self.todo.push_front(piece.end..part.end);
        }
        if is_hole {
            self.add(&piece, Saved::Hole);
            return (piece, None);
        }
        self.reads = self.reads.wrapping_add(1);
        let id = self.reads;
        if let Some(round) = &mut self.round {
            round.bytes += piece.end - piece.start;
            round.reading.insert(id, piece.clone());
        }
        (piece, Some(id))
    }

    /// What a part held was read, or cannot be.
    pub(super) fn was_read(&mut self, id: u32, result: Result<(), ImageError>, buffer: Option<Buffer>) {
        let Some(piece) = self.round.as_mut().and_then(|round| round.reading.remove(&id)) else {
            return;
        };
        match (result, buffer) {
            (Ok(()), Some(buffer)) if is_zero(buffer.as_slice()) => self.add(&piece, Saved::Hole),
            (Ok(()), Some(buffer)) => self.add(&piece, Saved::Data(buffer.as_slice())),
            // Nobody is going to overwrite it.
            _ if self.image_gone => {}
            _ if piece.end - piece.start > BLOCK => {
                let mut at = piece.start;
                while at < piece.end {
                    let block = BranchFile::cut(&(at..piece.end), BLOCK);
                    at = block.end;
                    self.todo.push_back(block);
                }
            }
            _ => self.add(&piece, Saved::Lost),
        }
    }

    /// Write the records of the round; what comes of it comes to [`Branch::on_done`].
    pub(super) fn write(&mut self, turn: &mut Turn, token: Token) {
        let (Some(round), Some(writer)) = (&mut self.round, &self.writer) else {
            return;
        };
        if round.records.is_empty() {
            self.round = None;
            return;
        }
        round.stage = Stage::Writing;
        round.retries = RETRIES_MAX;
        round.in_flight = round.records.len();
        for entry in &round.records {
            let op = Op::Write {
                file: writer.handle.clone(),
                payload: turn.driver.pool().payload_of(&entry.bytes),
                offset: entry.at,
                durable: false,
            };
            turn.submit(token, op);
        }
    }

    /// An operation on the branch file came back.
    pub(super) fn on_done(&mut self, turn: &mut Turn, token: Token, result: io::Result<usize>, op: Op) {
        let (Some(round), Some(writer)) = (&mut self.round, &self.writer) else {
            return;
        };
        round.in_flight -= 1;
        if let Some(op) = round.absorb(result, op) {
            round.in_flight += 1;
            turn.submit(token, op);
        }
        if round.in_flight > 0 {
            return;
        }
        if let Some(error) = round.failed.take() {
            round.stage = Stage::Pausing;
            self.retry_at = turn.now + PAUSE;
            let path = writer.file.path().display();
            let text = format!(
                "the branch {path} cannot be written: {error}; what is to overwrite this volume waits until it can be: \
                 make room on its filesystem"
            );
            if self.trouble.as_ref() != Some(&text) {
                tracing::error!("{text}");
            }
            self.trouble = Some(text);
        } else if round.stage == Stage::Writing {
            round.stage = Stage::Syncing;
            round.in_flight = 1;
            let file = writer.handle.clone();
            turn.submit(token, Op::Sync { file });
        } else {
            self.round_over();
        }
    }

    fn round_over(&mut self) {
        let Some(round) = self.round.take() else { return };
        let Some(writer) = &mut self.writer else { return };
        let mut ended = false;
        for entry in round.records {
            match entry.kept {
                Some((range, source)) => writer.file.keep(range, source),
                None => ended = true,
            }
        }
        if self.trouble.take().is_some() {
            tracing::info!(branch = %writer.file.path().display(), "the branch can be written again");
        }
        if ended {
            let (path, saved_bytes) = (writer.file.path().display(), writer.file.index().bytes());
            tracing::info!(branch = %path, saved_bytes, "the branch is complete");
            self.writer = None;
            self.ending = false;
        }
    }

    fn write_end(&mut self) -> Next {
        let Some(writer) = &mut self.writer else {
            self.ending = false;
            return Next::Nothing;
        };
        let (at, bytes) = writer.file.last_record();
        let mut round = Round::new(Stage::Reading);
        round.records.push(Entry { at, bytes, kept: None });
        self.round = Some(round);
        Next::Write
    }

    fn add(&mut self, piece: &Range<u64>, saved: Saved<'_>) {
        let (Some(round), Some(writer)) = (&mut self.round, &mut self.writer) else {
            return;
        };
        let (at, bytes, source) = writer.file.record(piece, saved);
        let kept = Some((piece.clone(), source));
        round.records.push(Entry { at, bytes, kept });
    }

    /// Begin to save what held changes overwrite.
    fn take_held(&mut self) {
        let Some(writer) = &self.writer else {
            // Nothing is to be saved any more.
            self.saving.extend(self.held.drain(..));
            return;
        };
        let mut planned = Index::default();
        while planned.bytes() < ROUND_BYTES {
            let Some(held) = self.held.pop_front() else { break };
            let (offset, length) = held.request.range();
            for gap in writer.file.missing(&(offset..offset + length)) {
                for part in planned.missing(gap.clone()) {
                    self.todo.push_back(part.clone());
                    planned.insert(part, Source::Zero);
                }
            }
            self.saving.push(held);
        }
    }
}
