//! Resync requests that fetch: what differs at the peer is written here.

use mirror_core::ByteRange;
use mirror_core::event::{Copied, CopyFailure, Failure};

use super::Volume;
use super::jobs::Step;
use super::request::{ImageWork, failure_of};
use crate::data::turn::Turn;
use crate::image::{ImageError, ImageRequest};
use crate::ring::Payload;

impl Volume {
    /// A blockmirror has told what it holds where it differs: `bytes` of `ranges` without `holes`, one behind the other.
    pub(super) fn contents(
        &mut self,
        turn: &mut Turn,
        id: u32,
        ranges: &[ByteRange],
        holes: &[ByteRange],
        bytes: &Payload,
    ) {
        let mut writes = Vec::new();
        let mut from = 0;
        for range in ranges.iter().filter(|range| !holes.contains(range)) {
            let to = from + range.length as usize;
            if to > bytes.len() {
                self.step_ended(turn, id, Err(CopyFailure::Link(Failure::Io)));
                return;
            }
            writes.push((*range, bytes.slice(from..to)));
            from = to;
        }
        self.write_pieces(turn, id, writes, holes);
    }

    /// Write the `ranges` of `bytes`, which are those of `whole`, and zero the `holes`.
    pub(super) fn write_local(
        &mut self,
        turn: &mut Turn,
        id: u32,
        ranges: &[ByteRange],
        holes: &[ByteRange],
        whole: ByteRange,
        bytes: &Payload,
    ) {
        let part = |range: &ByteRange| {
            let from = (range.offset - whole.offset) as usize;
            (*range, bytes.slice(from..from + range.length as usize))
        };
        let writes = ranges.iter().map(part).collect();
        self.write_pieces(turn, id, writes, holes);
    }

    /// A local write of a piece ended.
    pub(super) fn piece_written(&mut self, turn: &mut Turn, id: u32, result: &Result<(), ImageError>) {
        let outcome = match result {
            Ok(()) => Ok(Copied::default()),
            Err(error) => Err(CopyFailure::Local(failure_of(error))),
        };
        if self.step_ended(turn, id, outcome) {
            self.piece_over(turn, id);
        }
    }

    fn write_pieces(&mut self, turn: &mut Turn, id: u32, writes: Vec<(ByteRange, Payload)>, holes: &[ByteRange]) {
        let Some(jobs) = self.jobs() else { return };
        let Some(piece) = jobs.pieces.get_mut(id) else { return };
        if writes.is_empty() && holes.is_empty() {
            return self.settled(turn, id);
        }
        piece.step = Step::WriteLocal;
        piece.in_flight = (writes.len() + holes.len()) as u32;
        if let Some(job) = jobs.jobs.get_mut(piece.job) {
            job.copied.shipped += writes.iter().map(|(range, _)| range.length).sum::<u64>();
            job.copied.zeroed += holes.iter().map(|range| range.length).sum::<u64>();
        }
        for (range, payload) in writes {
            let request = ImageRequest::Write {
                payload,
                offset: range.offset,
                durable: false,
            };
            self.submit_image(turn, ImageWork::PieceWrite(id), request);
        }
        for range in holes {
            let request = ImageRequest::Trim {
                offset: range.offset,
                length: range.length,
                durable: false,
            };
            self.submit_image(turn, ImageWork::PieceWrite(id), request);
        }
    }
}
