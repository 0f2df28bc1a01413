//! Resync requests that push: a locked range is read here and written to the peer, holes as holes; to a blockmirror only
//! what its digests show to be different.

use mirror_core::ByteRange;
use mirror_core::event::{Copied, CopyFailure, CopyId, Failure};
use mirror_core::stream::Request;
use mirror_core::stream::digest::digest_blocks;
use nbd_proto::NbdError;

use super::blocks::not_zero;
use super::compare::differing_bytes;
use super::jobs::{JobKind, Step, Way};
use super::outward::Outward;
use super::request::failure_of;
use super::{Machinery, Volume};
use crate::data::peer::{Action, LinkWork, PeerError};
use crate::data::stream::{Checked, StreamOutcome, StreamWork};
use crate::data::turn::Turn;
use crate::image::ImageError;
use crate::ring::Buffer;

impl Volume {
    /// The local read of a piece ended.
    pub(super) fn piece_read(
        &mut self,
        turn: &mut Turn,
        id: u32,
        result: Result<(), ImageError>,
        buffer: Option<Buffer>,
    ) {
        let Some(way) = self.way_of(id) else {
            return self.step_lost(turn, id);
        };
        let data = match (result, buffer) {
            (Ok(()), Some(buffer)) => Some(buffer.into_payload()),
            // A range that cannot be read here is what is fetched.
            _ if way.kind == JobKind::Fetch => None,
            (Err(error), _) => {
                self.step_ended(turn, id, Err(CopyFailure::Local(failure_of(&error))));
                return;
            }
            (Ok(()), None) => {
                self.step_ended(turn, id, Err(CopyFailure::Local(Failure::Io)));
                return;
            }
        };
        let Some(piece) = self.jobs().and_then(|jobs| jobs.pieces.get_mut(id)) else {
            return;
        };
        let range = piece.range;
        piece.data = data.clone();
        match (way.kind, way.stream, data) {
            (JobKind::Push, false, Some(payload)) => {
                piece.step = Step::WritePeer;
                self.ask_plain(turn, id, Action::Write { payload, fua: false }, range);
            }
            (JobKind::Push | JobKind::Compare, true, Some(data)) => {
                piece.step = Step::ComparePeer;
                let digests = digest_blocks(self.seed_of(way.peer), data.as_slice());
                self.ask_stream(way, id, Request::Compare { range, digests }, None);
            }
            (JobKind::Fetch, true, Some(data)) => {
                piece.step = Step::FetchPeer;
                let digests = digest_blocks(self.seed_of(way.peer), data.as_slice());
                self.ask_stream(way, id, Request::Fetch { range, digests }, None);
            }
            (_, true, _) => {
                piece.step = Step::FetchPeer;
                self.ask_stream(way, id, Request::Read { range }, None);
            }
            (_, false, _) => {
                piece.step = Step::ReadPeer;
                self.ask_plain(turn, id, Action::Read, range);
            }
        }
    }

    /// A plain peer has answered for a piece.
    pub(super) fn plain_answered(
        &mut self,
        turn: &mut Turn,
        id: u32,
        copy: CopyId,
        outcome: Result<Option<Vec<u8>>, PeerError>,
    ) {
        let Some((piece, job)) = self.piece_of(id, copy) else {
            return;
        };
        let (range, step, kind) = (piece.range, piece.step, job.kind);
        let data = match outcome {
            Ok(data) => data,
            Err(error) => {
                self.step_ended(turn, id, Err(CopyFailure::Peer(peer_failure(&error))));
                return;
            }
        };
        if step != Step::ReadPeer {
            return self.written_at_peer(turn, id, step, range.length);
        }
        let Some(data) = data.filter(|data| data.len() as u64 == range.length) else {
            // Not what was asked for: nothing is known about the rest.
            self.step_ended(turn, id, Err(CopyFailure::Link(Failure::Io)));
            return;
        };
        match kind {
            JobKind::Push => self.erase_peer(turn, id, range, &data),
            JobKind::Fetch => {
                let ours = piece.data.take();
                let ranges = differing_bytes(range, ours.as_ref().map(crate::ring::Payload::as_slice), &data);
                let payload = turn.driver.pool().payload_of(&data);
                self.write_local(turn, id, &ranges, &[], range, &payload);
            }
            JobKind::Compare => {
                let ours = piece.data.take();
                let ranges = differing_bytes(range, ours.as_ref().map(crate::ring::Payload::as_slice), &data);
                self.compared(turn, id, ranges);
            }
        }
    }

    /// A blockmirror has answered for a piece.
    pub(super) fn stream_answered(&mut self, turn: &mut Turn, id: u32, copy: CopyId, outcome: StreamOutcome) {
        let Some((piece, job)) = self.piece_of(id, copy) else {
            return;
        };
        let (range, step, kind) = (piece.range, piece.step, job.kind);
        match outcome {
            // What cannot be read there is written: that heals it.
            StreamOutcome::Failed(Failure::Io) if kind == JobKind::Push && step == Step::ComparePeer => {
                self.push_differing(turn, id, &[range]);
            }
            StreamOutcome::Failed(failure) => {
                self.step_ended(turn, id, Err(CopyFailure::Peer(failure)));
            }
            StreamOutcome::Differs(ranges) if kind == JobKind::Compare => self.compared(turn, id, ranges),
            StreamOutcome::Differs(ranges) => self.push_differing(turn, id, &ranges),
            StreamOutcome::Contents { ranges, holes, payload } => {
                let whole = payload.unwrap_or_else(|| turn.driver.pool().payload_of(&[]));
                self.contents(turn, id, &ranges, &holes, &whole);
            }
            StreamOutcome::Done => {
                // What is written was counted when it was asked for.
                if step == Step::WritePeer {
                    self.settled(turn, id);
                } else {
                    self.written_at_peer(turn, id, step, range.length);
                }
            }
        }
    }

    /// Zeroes at the peer, for a hole here.
    pub(super) fn zero_peer(&mut self, turn: &mut Turn, id: u32, range: ByteRange) {
        match self.way_of(id) {
            Some(way) if way.stream => self.ask_stream(way, id, Request::CopyZero { range }, None),
            _ => {
                let action = Action::Zero {
                    no_hole: false,
                    fua: false,
                };
                self.ask_plain(turn, id, action, range);
            }
        }
    }

    pub(super) fn ask_plain(&mut self, turn: &mut Turn, id: u32, action: Action, range: ByteRange) {
        let way = self.way_of(id);
        let link = way.and_then(|way| Some((way.copy, self.peer_link(way.peer, way.connection)?)));
        match link {
            Some((copy, link)) => {
                let work = LinkWork::Copy { piece: id, copy };
                link.ask(turn, work, action, range.offset..range.end());
            }
            // The connection went away while the piece was read here.
            None => self.step_lost(turn, id),
        }
    }

    pub(super) fn ask_stream(&mut self, way: Way, id: u32, request: Request, payload: Option<Checked>) {
        self.outward.push(Outward {
            peer: way.peer,
            connection: way.connection,
            request,
            payload,
            work: StreamWork::Copy {
                piece: id,
                copy: way.copy,
            },
        });
    }

    /// One operation has ended that was counted before.
    pub(super) fn settled(&mut self, turn: &mut Turn, id: u32) {
        if self.step_ended(turn, id, Ok(Copied::default())) {
            self.piece_over(turn, id);
        }
    }

    /// Send what differs at the peer.
    fn push_differing(&mut self, turn: &mut Turn, id: u32, ranges: &[ByteRange]) {
        let (Some(way), Some(jobs)) = (self.way_of(id), self.jobs()) else {
            return;
        };
        let Some(piece) = jobs.pieces.get_mut(id) else { return };
        let Some(data) = piece.data.take().filter(|_| !ranges.is_empty()) else {
            return self.settled(turn, id);
        };
        let whole = piece.range;
        piece.step = Step::WritePeer;
        piece.in_flight = ranges.len() as u32;
        let shipped = ranges.iter().map(|range| range.length).sum::<u64>();
        if let Some((_, job)) = self.piece_of(id, way.copy) {
            job.copied.shipped += shipped;
        }
        for &range in ranges {
            let from = (range.offset - whole.offset) as usize;
            let part = data.slice(from..from + range.length as usize);
            self.ask_stream(way, id, Request::CopyWrite { range }, Some(Checked::new(part)));
        }
    }

    /// Zero what is not zero on a peer that has no WRITE_ZEROES.
    fn erase_peer(&mut self, turn: &mut Turn, id: u32, range: ByteRange, data: &[u8]) {
        let Some((from, to)) = not_zero(data) else {
            return self.written_at_peer(turn, id, Step::ZeroPeer, range.length);
        };
        if let Some(piece) = self.jobs().and_then(|jobs| jobs.pieces.get_mut(id)) {
            piece.step = Step::ZeroPeer;
        }
        let used = ByteRange::new(range.offset + from as u64, (to - from) as u64);
        self.zero_peer(turn, id, used);
    }

    /// The whole piece has been written, or zeroed, at the peer.
    fn written_at_peer(&mut self, turn: &mut Turn, id: u32, step: Step, bytes: u64) {
        let mut copied = Copied::default();
        match step {
            Step::ZeroPeer => copied.zeroed = bytes,
            _ => copied.shipped = bytes,
        }
        if self.step_ended(turn, id, Ok(copied)) {
            self.piece_over(turn, id);
        }
    }

    /// A piece has been compared: that is all that was wanted.
    fn compared(&mut self, turn: &mut Turn, id: u32, ranges: Vec<ByteRange>) {
        if let Machinery::Mirror(mirror) = &mut self.machinery
            && let Some(piece) = mirror.jobs.pieces.get(id)
            && let Some(job) = mirror.jobs.jobs.get_mut(piece.job)
        {
            job.differing.extend(ranges);
        }
        self.settled(turn, id);
    }
}

/// What a peer's error means to the mirror.
pub(super) fn peer_failure(error: &PeerError) -> Failure {
    if error.error == NbdError::NoSpace {
        Failure::NoSpace
    } else {
        Failure::Io
    }
}
