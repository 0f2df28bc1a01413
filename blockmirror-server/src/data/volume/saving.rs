//! The branch of a volume at work: see [`branch`](super::branch).

use std::io;

use super::blocks::in_blocks;
use super::branch::Next;
use super::request::ImageWork;
use super::{Machinery, Volume};
use crate::data::token::{Kind, Token};
use crate::data::turn::Turn;
use crate::image::{ExtentKind, ImageDone, ImageError, ImageRequest};
use crate::ring::Op;

impl Volume {
    /// A peer is about to overwrite what is here: from now on what is overwritten is saved first. Where that cannot be,
    /// the order that would begin it is refused.
    pub(crate) fn open_branch(&mut self, generation: u64) {
        self.branch.open(&self.export, generation, self.image.size());
    }

    /// Overwrite only what is saved (I12).
    pub(super) fn hold_change(&mut self, turn: &mut Turn, work: ImageWork, request: ImageRequest) {
        self.branch.hold(work, request);
        self.advance_branch(turn);
    }

    /// Go on with what can be gone on with.
    pub(super) fn advance_branch(&mut self, turn: &mut Turn) {
        loop {
            match self.branch.next() {
                Next::Nothing => return,
                Next::Release(held) => {
                    for held in held {
                        self.submit_now(turn, held.work, held.request);
                    }
                }
                Next::Read => self.read_old(turn),
                Next::Write => {
                    let token = self.branch_token();
                    self.branch.write(turn, token);
                }
            }
        }
    }

    /// An operation on the branch file came back.
    pub(crate) fn on_branch(&mut self, turn: &mut Turn, token: Token, result: io::Result<usize>, op: Op) {
        if self.view.is_some() {
            return self.on_view(turn, token, result, op);
        }
        self.branch.on_done(turn, token, result, op);
        self.advance_branch(turn);
    }

    /// A branch that could not be written is tried again after a pause.
    pub(super) fn check_branch(&mut self, turn: &mut Turn) {
        if self.branch.is_due(turn.now) {
            let token = self.branch_token();
            self.branch.write(turn, token);
        }
    }

    /// The image is gone: changes that wait for it have failed.
    pub(super) fn branch_without_image(&mut self, turn: &mut Turn) {
        for held in self.branch.set_image_gone(true) {
            self.image_done(
                turn,
                ImageDone {
                    id: held.work.encode(),
                    result: Err(ImageError::Io {
                        operation: "write",
                        offset: held.request.range().0,
                        error: "the image was given up".to_owned(),
                    }),
                    buffer: None,
                },
            );
        }
    }

    /// Read what is about to be overwritten, as much as one round takes.
    fn read_old(&mut self, turn: &mut Turn) {
        while let Some(part) = self.branch.next_part() {
            let extent = in_blocks(self.image.next_data(part.start), part.start, part.end);
            let is_hole = extent.kind == ExtentKind::Hole;
            if extent.end < part.end {
                self.branch.put_back(extent.end..part.end);
            }
            let (piece, id) = self.branch.take_part(part.start..extent.end, is_hole);
            let Some(id) = id else { continue };
            let request = ImageRequest::Read {
                buffer: turn.driver.pool().take((piece.end - piece.start) as usize),
                offset: piece.start,
            };
            let work = ImageWork::Branch(id).encode();
            if let Some(done) = self.image.submit(&mut *turn.driver, work, request) {
                self.branch.was_read(id, done.result, done.buffer);
            }
        }
    }

    fn branch_token(&self) -> Token {
        Token::new(Kind::Branch, self.index)
    }

    /// The image was gone at the start: nothing of it can be saved.
    pub(super) fn is_diskless(machinery: &Machinery) -> bool {
        match machinery {
            Machinery::Mirror(mirror) => mirror.core.disk() == mirror_core::state::LocalDisk::Diskless,
            Machinery::Plain(_) => false,
        }
    }

    /// It is in the middle of being overwritten.
    pub(super) fn is_target(machinery: &Machinery) -> bool {
        match machinery {
            Machinery::Mirror(mirror) => mirror.core.disk() == mirror_core::state::LocalDisk::Inconsistent,
            Machinery::Plain(_) => false,
        }
    }
}
