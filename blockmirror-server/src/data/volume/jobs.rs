//! Resync and verify requests of the mirror, cut into pieces: the tables.
//!
//! ```text
//!  push   data:   ReadLocal -> (a stream: ComparePeer ->) WritePeer, only what differs
//!         hole:   ZeroPeer; on a plain peer without WRITE_ZEROES: ReadPeer -> ZeroPeer (only where it is not zero)
//!  fetch          ReadLocal -> FetchPeer (a plain peer: ReadPeer) -> WriteLocal, only what differs
//!  compare        ReadLocal -> ComparePeer (a plain peer: ReadPeer)
//! ```

use mirror_core::ByteRange;
use mirror_core::event::{ConnectionId, Copied, CopyFailure, CopyId, Failure, Input, PeerIndex};

use super::blocks::{PIECE_BYTES, in_blocks, longest_read};
use super::request::ImageWork;
use super::{Machinery, Volume};
use crate::data::peer::Action;
use crate::data::slab::Slab;
use crate::data::turn::Turn;
use crate::image::{Extent, ExtentKind, ImageRequest};
use crate::ring::Payload;

/// Pieces of one request under way at a time.
const PIECES_IN_FLIGHT: u32 = 4;

/// The requests under way.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    pub(super) jobs: Slab<Job>,
    pub(super) pieces: Slab<Piece>,
}

/// What the mirror asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobKind {
    /// `Output::Copy`.
    Push,
    /// `Output::Fetch`.
    Fetch,
    /// `Output::Compare`.
    Compare,
}

/// A request.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) kind: JobKind,
    pub(super) peer: PeerIndex,
    pub(super) connection: ConnectionId,
    pub(super) copy: CopyId,
    /// The peer is a blockmirror.
    pub(super) stream: bool,
    cursor: u64,
    end: u64,
    in_flight: u32,
    pub(super) copied: Copied,
    /// `Compare`: what differs, piece by piece.
    pub(super) differing: Vec<ByteRange>,
    failure: Option<CopyFailure>,
    /// The connection is gone: nothing more is done or reported.
    cancelled: bool,
}

/// A part of it.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) job: u32,
    pub(super) range: ByteRange,
    pub(super) step: Step,
    /// Operations of this step that have not ended.
    pub(super) in_flight: u32,
    pub(super) failure: Option<CopyFailure>,
    /// What the image holds here.
    pub(super) data: Option<Payload>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    ReadLocal,
    ComparePeer,
    FetchPeer,
    ReadPeer,
    WritePeer,
    ZeroPeer,
    WriteLocal,
}

impl Step {
    /// The image is at work, not the peer.
    const fn is_local(self) -> bool {
        matches!(self, Self::ReadLocal | Self::WriteLocal)
    }
}

impl Jobs {
    /// The connection is gone. What the image is doing comes to its end unheard.
    pub(super) fn cancel(&mut self, peer: PeerIndex, connection: ConnectionId) {
        let jobs = self.jobs.iter_mut();
        let cancelled: Vec<u32> = jobs
            .filter(|(_, job)| job.peer == peer && job.connection == connection)
            .map(|(id, job)| {
                job.cancelled = true;
                id
            })
            .collect();
        for id in cancelled {
            let of_job = self.pieces.iter();
            let gone: Vec<u32> = of_job
                .filter(|(_, piece)| piece.job == id && !piece.step.is_local())
                .map(|(piece, _)| piece)
                .collect();
            for piece in gone {
                self.pieces.remove(piece);
                if let Some(job) = self.jobs.get_mut(id) {
                    job.in_flight -= 1;
                }
            }
            if self.jobs.get(id).is_some_and(|job| job.in_flight == 0) {
                self.jobs.remove(id);
            }
        }
    }

    /// Something fetched is being written here, for a connection that is gone: a newer write must not be overtaken.
    pub(super) fn has_orphaned_writes(&self) -> bool {
        let cancelled = |piece: &Piece| self.jobs.get(piece.job).is_some_and(|job| job.cancelled);
        self.pieces
            .iter()
            .any(|(_, piece)| piece.step == Step::WriteLocal && cancelled(piece))
    }
}

impl Volume {
    pub(super) fn job_start(
        &mut self,
        turn: &mut Turn,
        kind: JobKind,
        (peer, connection): (PeerIndex, ConnectionId),
        copy: CopyId,
        range: ByteRange,
    ) {
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        let stream = mirror.has_stream(peer, connection);
        let job = mirror.jobs.jobs.insert(Job {
            kind,
            peer,
            connection,
            copy,
            stream,
            cursor: range.offset,
            end: range.end(),
            in_flight: 0,
            copied: Copied::default(),
            differing: Vec::new(),
            failure: None,
            cancelled: false,
        });
        self.job_advance(turn, job);
    }

    /// Start pieces while there is room.
    fn job_advance(&mut self, turn: &mut Turn, id: u32) {
        while let Some((range, step)) = self.next_piece(id) {
            let Some(jobs) = self.jobs() else { return };
            let piece = jobs.pieces.insert(Piece {
                job: id,
                range,
                step,
                in_flight: 1,
                failure: None,
                data: None,
            });
            if let Some(job) = jobs.jobs.get_mut(id) {
                job.cursor = range.end();
                job.in_flight += 1;
            }
            match step {
                Step::ReadLocal => {
                    let buffer = turn.driver.pool().take(range.length as usize);
                    let offset = range.offset;
                    self.submit_image(turn, ImageWork::PieceRead(piece), ImageRequest::Read { buffer, offset });
                }
                Step::ReadPeer => self.ask_plain(turn, piece, Action::Read, range),
                _ => self.zero_peer(turn, piece, range),
            }
        }
    }

    /// The next piece of a request and its first step, if one may be started.
    fn next_piece(&mut self, id: u32) -> Option<(ByteRange, Step)> {
        let job = self.jobs()?.jobs.get(id)?;
        let room = job.in_flight < PIECES_IN_FLIGHT && job.cursor < job.end;
        if !room || job.failure.is_some() || job.cancelled {
            return None;
        }
        let (peer, connection, offset, end) = (job.peer, job.connection, job.cursor, job.end);
        let (kind, stream) = (job.kind, job.stream);
        let whole = Extent {
            kind: ExtentKind::Data,
            end,
        };
        let extent = match kind {
            JobKind::Push => in_blocks(self.image.next_data(offset), offset, end),
            JobKind::Fetch | JobKind::Compare => whole,
        };
        let limits = self.peer_link(peer, connection).map(|link| *link.limits());
        let readable = limits.as_ref().map_or(PIECE_BYTES, longest_read);
        let can_zero = stream || limits.is_some_and(|limits| limits.can_zero());
        let (step, longest) = match (extent.kind, kind) {
            (ExtentKind::Data, JobKind::Push) => (Step::ReadLocal, PIECE_BYTES),
            (ExtentKind::Data, _) => (Step::ReadLocal, readable),
            (ExtentKind::Hole, _) if can_zero => (Step::ZeroPeer, u64::MAX),
            (ExtentKind::Hole, _) => (Step::ReadPeer, readable),
        };
        let length = (extent.end - offset).min(longest);
        Some((ByteRange::new(offset, length), step))
    }

    /// One operation of a piece's step has ended. True: it was the last one, and all went well.
    pub(super) fn step_ended(&mut self, turn: &mut Turn, id: u32, outcome: Result<Copied, CopyFailure>) -> bool {
        let Some(jobs) = self.jobs() else { return false };
        let Some(piece) = jobs.pieces.get_mut(id) else {
            return false;
        };
        piece.in_flight -= 1;
        match outcome {
            Ok(copied) => {
                if let Some(job) = jobs.jobs.get_mut(piece.job) {
                    job.copied.shipped += copied.shipped;
                    job.copied.zeroed += copied.zeroed;
                }
            }
            Err(failure) => piece.failure = Some(piece.failure.unwrap_or(failure)),
        }
        if piece.in_flight > 0 {
            return false;
        }
        if piece.failure.is_none() {
            return true;
        }
        self.piece_over(turn, id);
        false
    }

    /// Nothing of the piece is left to do; report the request when it was the last one.
    pub(super) fn piece_over(&mut self, turn: &mut Turn, id: u32) {
        let Some(jobs) = self.jobs() else { return };
        let Some(piece) = jobs.pieces.remove(id) else { return };
        let Some(job) = jobs.jobs.get_mut(piece.job) else {
            return;
        };
        job.in_flight -= 1;
        job.failure = job.failure.or(piece.failure);
        let stopped = job.failure.is_some() || job.cancelled;
        if job.in_flight > 0 || (job.cursor < job.end && !stopped) {
            return self.job_advance(turn, piece.job);
        }
        let Some(job) = jobs.jobs.remove(piece.job) else {
            return;
        };
        if job.cancelled {
            return self.tell_deferred(turn);
        }
        let input = report(job);
        if let Machinery::Mirror(mirror) = &mut self.machinery {
            mirror.tell(turn.now, input);
        }
    }

    pub(super) fn jobs(&mut self) -> Option<&mut Jobs> {
        match &mut self.machinery {
            Machinery::Mirror(mirror) => Some(&mut mirror.jobs),
            Machinery::Plain(_) => None,
        }
    }

    /// The piece, and the request it belongs to, unless it is of another one that used the same place.
    pub(super) fn piece_of(&mut self, id: u32, copy: CopyId) -> Option<(&mut Piece, &mut Job)> {
        let jobs = self.jobs()?;
        let piece = jobs.pieces.get_mut(id)?;
        let job = jobs.jobs.get_mut(piece.job)?;
        (job.copy == copy).then_some((piece, job))
    }

    /// The connection a piece goes over, unless it is gone.
    pub(super) fn way_of(&mut self, id: u32) -> Option<Way> {
        let jobs = self.jobs()?;
        let piece = jobs.pieces.get(id)?;
        let job = jobs.jobs.get(piece.job)?;
        (!job.cancelled).then_some(Way {
            kind: job.kind,
            peer: job.peer,
            connection: job.connection,
            copy: job.copy,
            stream: job.stream,
        })
    }

    /// The connection went away while the image was at work.
    pub(super) fn step_lost(&mut self, turn: &mut Turn, id: u32) {
        self.step_ended(turn, id, Err(CopyFailure::Link(Failure::Io)));
    }
}

/// What a step has to know of its request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) kind: JobKind,
    pub(super) peer: PeerIndex,
    pub(super) connection: ConnectionId,
    pub(super) copy: CopyId,
    pub(super) stream: bool,
}

fn report(job: Job) -> Input {
    let Job {
        kind,
        peer,
        connection,
        copy,
        copied,
        mut differing,
        failure,
        ..
    } = job;
    let outcome = failure.map_or(Ok(copied), Err);
    match kind {
        JobKind::Push => Input::CopyDone {
            peer,
            connection,
            copy,
            outcome,
        },
        JobKind::Fetch => Input::FetchDone {
            peer,
            connection,
            copy,
            outcome,
        },
        JobKind::Compare => {
            differing.sort_unstable_by_key(|range| range.offset);
            Input::CompareDone {
                peer,
                connection,
                copy,
                outcome: outcome.map(|_| differing),
            }
        }
    }
}
