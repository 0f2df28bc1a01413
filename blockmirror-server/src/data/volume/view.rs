//! A branch that is served: what it has saved, over the image as it is. Nothing changes it; its volume has no image of
//! its own.

use std::collections::VecDeque;
use std::io;

use super::request::ImageWork;
use super::{Machinery, Volume};
use crate::branch::{Index, Piece, Source};
use crate::data::outbox::is_transient;
use crate::data::plan::{Limits, ViewPlan, VolumePlan};
use crate::data::slab::Slab;
use crate::data::thread::DataThread;
use crate::data::token::{INDEX_MAX, Kind, Token};
use crate::data::turn::Turn;
use crate::image::{Image, ImageDone, ImageError, ImageRequest};
use crate::ring::{Buffer, FileHandle, Op};

/// Times one READ is given back undone and tried again.
const RETRIES_MAX: u32 = 64;

/// What a served branch reads from.
#[derive(Debug)]
pub(super) struct View {
    index: Index,
    /// The branch file, and the image; `None` once it is served no longer.
    files: Option<(FileHandle, FileHandle)>,
    reads: Slab<Read>,
}

/// A READ, piece after piece.
#[derive(Debug)]
struct Read {
    work: ImageWork,
    /// Of the volume: where the buffer begins.
    offset: u64,
    length: usize,
    /// `None`: the driver has it.
    buffer: Option<Buffer>,
    filled: usize,
    pieces: VecDeque<Piece>,
    retries: u32,
}

impl Volume {
    /// Serve a branch under the number `index`.
    pub(crate) fn of_branch(index: usize, plan: ViewPlan, limits: &Limits) -> io::Result<Self> {
        let view = View {
            index: plan.index,
            files: Some((FileHandle::new(plan.branch)?, FileHandle::new(plan.image)?)),
            reads: Slab::new(),
        };
        let plan = VolumePlan {
            export: plan.export,
            image: Image::placeholder(plan.size).map_err(io::Error::other)?,
            minimum_block: plan.minimum_block,
            mirror: None,
            branches: None,
        };
        let mut volume = Self::new(index, plan, limits)?;
        volume.view = Some(view);
        Ok(volume)
    }

    /// It is a branch that is served.
    pub(crate) fn is_view(&self) -> bool {
        self.view.is_some()
    }

    /// Close the files of a branch that is served no longer: its file may be removed, and its room is wanted then.
    pub(super) fn close_view(&mut self) {
        let stopped = match &self.machinery {
            Machinery::Plain(plain) => plain.stopped().is_some(),
            Machinery::Mirror(_) => false,
        };
        if let Some(view) = self.view.as_mut().filter(|view| stopped && view.reads.is_empty()) {
            view.files = None;
        }
    }

    pub(super) fn submit_view(&mut self, turn: &mut Turn, work: ImageWork, request: ImageRequest) {
        let (offset, length) = request.range();
        let result = if request.is_change() {
            Err(ImageError::ReadOnly)
        } else {
            Ok(())
        };
        let (ImageRequest::Read { buffer, .. }, Some(view)) = (request, &mut self.view) else {
            let id = work.encode();
            let done = ImageDone {
                id,
                result,
                buffer: None,
            };
            return self.image_done(turn, done);
        };
        let id = view.reads.insert(Read {
            work,
            offset,
            length: buffer.len(),
            buffer: Some(buffer),
            filled: 0,
            pieces: view.index.look(offset..offset + length).into(),
            retries: RETRIES_MAX,
        });
        self.step_view(turn, id);
    }

    pub(super) fn on_view(&mut self, turn: &mut Turn, token: Token, result: io::Result<usize>, op: Op) {
        let id = token.value as u32;
        let Op::Read { buffer, filled, .. } = op else { return };
        let Some(read) = self.view.as_mut().and_then(|view| view.reads.get_mut(id)) else {
            return;
        };
        read.buffer = Some(buffer);
        match result {
            Ok(0) => return self.view_read(turn, id, Err("the file has been truncated".to_owned())),
            Ok(count) => {
                read.filled = filled + count;
                let at = read.offset + read.filled as u64;
                if read.pieces.front().is_some_and(|piece| piece.range.end <= at) {
                    read.pieces.pop_front();
                }
            }
            Err(error) if is_transient(&error) && read.retries > 0 => read.retries -= 1,
            Err(error) => return self.view_read(turn, id, Err(error.to_string())),
        }
        self.step_view(turn, id);
    }

    /// Read the next piece, or end.
    fn step_view(&mut self, turn: &mut Turn, id: u32) {
        let token = Token {
            value: u64::from(id),
            ..Token::new(Kind::Branch, self.index)
        };
        let Some(view) = &mut self.view else { return };
        let Some(read) = view.reads.get_mut(id) else { return };
        while let Some(piece) = read.pieces.front().cloned() {
            let at = read.offset + read.filled as u64;
            let to = (piece.range.end - read.offset) as usize;
            let files = view.files.as_ref();
            let from = match piece.source {
                Source::Zero => None,
                Source::File(from) => files.map(|(branch, _)| (branch, from + (at - piece.range.start))),
                Source::Image => files.map(|(_, image)| (image, at)),
                Source::Lost => {
                    let text = "it could not be read when it was to be saved".to_owned();
                    return self.view_read(turn, id, Err(text));
                }
            };
            let Some(mut buffer) = read.buffer.take() else { return };
            let Some((file, offset)) = from else {
                buffer.set_len(to);
                buffer.as_mut_slice()[read.filled..].fill(0);
                read.buffer = Some(buffer);
                read.filled = to;
                read.pieces.pop_front();
                continue;
            };
            buffer.set_len(to);
            let op = Op::Read {
                file: file.clone(),
                buffer,
                filled: read.filled,
                offset,
            };
            return turn.submit(token, op);
        }
        self.view_read(turn, id, Ok(()));
    }

    fn view_read(&mut self, turn: &mut Turn, id: u32, result: Result<(), String>) {
        let Some(mut read) = self.view.as_mut().and_then(|view| view.reads.remove(id)) else {
            return;
        };
        if let Some(buffer) = &mut read.buffer {
            buffer.set_len(read.length);
        }
        let failed = |error| ImageError::Io {
            operation: "read",
            offset: read.offset + read.filled as u64,
            error,
        };
        let done = ImageDone {
            id: read.work.encode(),
            result: result.map_err(failed),
            buffer: read.buffer,
        };
        self.image_done(turn, done);
    }
}

impl DataThread {
    /// Serve a branch: the number of the volume it is now.
    pub(in crate::data) fn serve_branch(&mut self, resource: usize, plan: ViewPlan) -> Result<usize, String> {
        let place = self.volumes.len();
        if self.stopping.is_some() || place >= INDEX_MAX || resource >= self.resources.len() {
            return Err("the daemon is stopping, or the data thread has as many volumes as it can number".to_owned());
        }
        let volume = Volume::of_branch(place, plan, &self.turn.limits);
        self.volumes
            .push(volume.map_err(|error| format!("the branch cannot be served: {error}"))?);
        self.homes.push((resource, usize::MAX));
        self.leaving.push(place);
        Ok(place)
    }

    /// Serve it no longer.
    pub(in crate::data) fn drop_branch(&mut self, place: usize) {
        let Some(volume) = self.volumes.get_mut(place).filter(|volume| volume.is_view()) else {
            return;
        };
        for (slot, connection) in self.connections.iter_mut() {
            if connection.volume() == place {
                connection.finish(volume, &self.turn);
                self.touched.push(slot);
            }
        }
        volume.stop(&self.turn);
    }
}
