//! Resync requests: a locked range is read here and written to the peer, holes as holes.

use mirror_core::ByteRange;
use mirror_core::event::{ConnectionId, Copied, CopyFailure, CopyId, Failure, Input, PeerIndex};
use nbd_proto::NbdError;

use super::blocks::{PIECE_BYTES, in_blocks, longest_read, not_zero};
use super::request::{ImageWork, failure_of};
use super::{Machinery, Volume};
use crate::data::peer::{Action, LinkWork, PeerError};
use crate::data::slab::Slab;
use crate::data::turn::Turn;
use crate::image::{ExtentKind, ImageError, ImageRequest};
use crate::ring::Buffer;

/// Pieces of one resync request under way at a time.
const PIECES_IN_FLIGHT: u32 = 4;

/// The resync requests under way.
#[derive(Debug)]
pub(super) struct Copies {
    jobs: Slab<Job>,
    pieces: Slab<Piece>,
}

/// A resync request.
#[derive(Debug)]
struct Job {
    peer: PeerIndex,
    connection: ConnectionId,
    copy: CopyId,
    cursor: u64,
    end: u64,
    in_flight: u32,
    copied: Copied,
    failure: Option<CopyFailure>,
    /// The connection is gone: nothing more is done or reported.
    cancelled: bool,
}

/// A part of it.
#[derive(Clone, Copy, Debug)]
struct Piece {
    job: u32,
    offset: u64,
    length: u64,
    step: Step,
}

/// ```text
///  data:                      ReadLocal -> WritePeer
///  hole:                      ZeroPeer
///  hole, and the peer has no WRITE_ZEROES:  ReadPeer -> ZeroPeer (only where it is not zero)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    ReadLocal,
    WritePeer,
    ReadPeer,
    ZeroPeer,
}

impl Copies {
    pub(super) const fn new() -> Self {
        Self {
            jobs: Slab::new(),
            pieces: Slab::new(),
        }
    }

    /// The connection is gone. Local reads under way come to their end unheard.
    pub(super) fn cancel(&mut self, peer: PeerIndex, connection: ConnectionId) {
        let jobs = self
            .jobs
            .iter_mut()
            .filter(|(_, job)| job.peer == peer && job.connection == connection);
        let cancelled: Vec<u32> = jobs
            .map(|(id, job)| {
                job.cancelled = true;
                id
            })
            .collect();
        for id in cancelled {
            let of_job = self
                .pieces
                .iter()
                .filter(|(_, piece)| piece.job == id && piece.step != Step::ReadLocal);
            let gone: Vec<u32> = of_job.map(|(piece, _)| piece).collect();
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
}

impl Volume {
    pub(super) fn copy_start(
        &mut self,
        turn: &mut Turn,
        peer: PeerIndex,
        connection: ConnectionId,
        copy: CopyId,
        range: ByteRange,
    ) {
        let Some(copies) = self.copies() else { return };
        let job = copies.jobs.insert(Job {
            peer,
            connection,
            copy,
            cursor: range.offset,
            end: range.end(),
            in_flight: 0,
            copied: Copied::default(),
            failure: None,
            cancelled: false,
        });
        self.copy_advance(turn, job);
    }

    /// The local read of a piece ended.
    pub(super) fn copy_read(
        &mut self,
        turn: &mut Turn,
        id: u32,
        result: Result<(), ImageError>,
        buffer: Option<Buffer>,
    ) {
        let Some(piece) = self.copies().and_then(|copies| copies.pieces.get(id).copied()) else {
            return;
        };
        match (result, buffer) {
            (Ok(()), Some(buffer)) => {
                let action = Action::Write {
                    payload: buffer.into_payload(),
                    fua: false,
                };
                self.copy_ask(
                    turn,
                    id,
                    Piece {
                        step: Step::WritePeer,
                        ..piece
                    },
                    action,
                );
            }
            (Ok(()), None) => self.piece_over(turn, id, Err(CopyFailure::Local(Failure::Io))),
            (Err(error), _) => self.piece_over(turn, id, Err(CopyFailure::Local(failure_of(&error)))),
        }
    }

    /// The peer has answered for a piece.
    pub(super) fn copy_answered(
        &mut self,
        turn: &mut Turn,
        id: u32,
        copy: CopyId,
        outcome: Result<Option<Vec<u8>>, PeerError>,
    ) {
        let Some(copies) = self.copies() else { return };
        let Some(piece) = copies.pieces.get(id).copied() else {
            return;
        };
        if copies.jobs.get(piece.job).is_none_or(|job| job.copy != copy) {
            return;
        }
        let data = match outcome {
            Ok(data) => data,
            Err(error) => return self.piece_over(turn, id, Err(CopyFailure::Peer(peer_failure(&error)))),
        };
        let done = match piece.step {
            Step::WritePeer => Copied {
                shipped: piece.length,
                zeroed: 0,
            },
            Step::ZeroPeer => Copied {
                shipped: 0,
                zeroed: piece.length,
            },
            Step::ReadPeer => match data
                .filter(|data| data.len() as u64 == piece.length)
                .as_deref()
                .map(not_zero)
            {
                // Not what was asked for: nothing is known about the rest.
                None => return self.piece_over(turn, id, Err(CopyFailure::Peer(Failure::Io))),
                Some(None) => Copied {
                    shipped: 0,
                    zeroed: piece.length,
                },
                Some(Some((from, to))) => {
                    let range = piece.offset + from as u64..piece.offset + to as u64;
                    return self.copy_erase(turn, id, piece, range);
                }
            },
            Step::ReadLocal => return,
        };
        self.piece_over(turn, id, Ok(done));
    }

    /// Start pieces while there is room, and report the request when it is over.
    fn copy_advance(&mut self, turn: &mut Turn, id: u32) {
        while let Some((job, offset)) = self.copy_next(id) {
            let (peer, connection) = job;
            let limits = self.peer_link(peer, connection).map(|link| *link.limits());
            let can_zero = limits.is_some_and(|limits| limits.can_zero());
            let end = self
                .copies()
                .and_then(|copies| copies.jobs.get(id))
                .map_or(offset, |job| job.end);
            let extent = in_blocks(self.image.next_data(offset), offset, end);
            let (step, longest) = match extent.kind {
                ExtentKind::Data => (Step::ReadLocal, PIECE_BYTES),
                ExtentKind::Hole if can_zero => (Step::ZeroPeer, u64::MAX),
                ExtentKind::Hole => (Step::ReadPeer, limits.as_ref().map_or(PIECE_BYTES, longest_read)),
            };
            let length = (extent.end - offset).min(longest);
            let piece = Piece {
                job: id,
                offset,
                length,
                step,
            };
            let Some(copies) = self.copies() else { return };
            let at = copies.pieces.insert(piece);
            if let Some(job) = copies.jobs.get_mut(id) {
                job.cursor += length;
                job.in_flight += 1;
            }
            match step {
                Step::ReadLocal => {
                    let buffer = turn.driver.pool().take(length as usize);
                    self.submit_image(turn, ImageWork::CopyRead(at), ImageRequest::Read { buffer, offset });
                }
                Step::ReadPeer => self.copy_ask(turn, at, piece, Action::Read),
                _ => self.copy_ask(
                    turn,
                    at,
                    piece,
                    Action::Zero {
                        no_hole: false,
                        fua: false,
                    },
                ),
            }
        }
    }

    /// Where the next piece starts, if one may be started.
    fn copy_next(&mut self, id: u32) -> Option<((PeerIndex, ConnectionId), u64)> {
        let job = self.copies()?.jobs.get(id)?;
        let room = job.in_flight < PIECES_IN_FLIGHT && job.cursor < job.end;
        (room && job.failure.is_none() && !job.cancelled).then_some(((job.peer, job.connection), job.cursor))
    }

    /// Ask the peer for a step of a piece.
    fn copy_ask(&mut self, turn: &mut Turn, id: u32, piece: Piece, action: Action) {
        let range = piece.offset..piece.offset + piece.length;
        self.copy_ask_range(turn, id, piece, action, range);
    }

    /// Zero what is not zero on a peer that has no WRITE_ZEROES.
    fn copy_erase(&mut self, turn: &mut Turn, id: u32, piece: Piece, range: std::ops::Range<u64>) {
        let action = Action::Zero {
            no_hole: false,
            fua: false,
        };
        self.copy_ask_range(
            turn,
            id,
            Piece {
                step: Step::ZeroPeer,
                ..piece
            },
            action,
            range,
        );
    }

    fn copy_ask_range(&mut self, turn: &mut Turn, id: u32, piece: Piece, action: Action, range: std::ops::Range<u64>) {
        let Some(copies) = self.copies() else { return };
        if let Some(entry) = copies.pieces.get_mut(id) {
            *entry = piece;
        }
        let Some(job) = copies.jobs.get(piece.job) else { return };
        let (peer, connection, copy, cancelled) = (job.peer, job.connection, job.copy, job.cancelled);
        match self.peer_link(peer, connection).filter(|_| !cancelled) {
            Some(link) => link.ask(turn, LinkWork::Copy { piece: id, copy }, action, range),
            // The connection went away while the piece was read here.
            None => self.piece_over(turn, id, Err(CopyFailure::Peer(Failure::Io))),
        }
    }

    fn piece_over(&mut self, turn: &mut Turn, id: u32, outcome: Result<Copied, CopyFailure>) {
        let Some(copies) = self.copies() else { return };
        let Some(piece) = copies.pieces.remove(id) else { return };
        let Some(job) = copies.jobs.get_mut(piece.job) else {
            return;
        };
        job.in_flight -= 1;
        match outcome {
            Ok(copied) => {
                job.copied.shipped += copied.shipped;
                job.copied.zeroed += copied.zeroed;
            }
            Err(failure) => job.failure = Some(job.failure.unwrap_or(failure)),
        }
        let stopped = job.failure.is_some() || job.cancelled;
        if job.in_flight > 0 || (job.cursor < job.end && !stopped) {
            return self.copy_advance(turn, piece.job);
        }
        let Some(job) = copies.jobs.remove(piece.job) else {
            return;
        };
        let outcome = job.failure.map_or(Ok(job.copied), Err);
        if let (false, Machinery::Mirror(mirror)) = (job.cancelled, &mut self.machinery) {
            let Job {
                peer, connection, copy, ..
            } = job;
            mirror.tell(
                turn.now,
                Input::CopyDone {
                    peer,
                    connection,
                    copy,
                    outcome,
                },
            );
        }
    }

    fn copies(&mut self) -> Option<&mut Copies> {
        match &mut self.machinery {
            Machinery::Mirror(mirror) => Some(&mut mirror.copies),
            Machinery::Plain(_) => None,
        }
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
