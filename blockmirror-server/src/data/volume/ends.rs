//! How requests end: at the image, and for whoever asked.

use mirror_core::event::Failure;
use nbd_proto::{Command, Refusal};

use super::request::{self, ImageWork, Origin, image_refusal};
use super::streamed::Streamed;
use super::{Ended, Machinery, Volume};
use crate::data::connection::HostReply;
use crate::data::turn::Turn;
use crate::image::{ImageDone, ImageError, ImageRequest};
use crate::ring::Buffer;

/// Failed image requests between two log lines grow by this factor.
const FAILURES_LOG_FACTOR: u64 = 10;

impl Volume {
    /// The connection died: what no leg has seen is dropped, the rest ends unheard.
    pub(crate) fn abandon(&mut self, turn: &Turn, connection: u32) {
        let mut orphans = Vec::new();
        for (id, request) in self.requests.iter_mut() {
            let from_there = matches!(request.origin, Origin::Host { connection: slot, .. } if slot == connection);
            if from_there && !request.answered {
                request.abandoned = true;
                if request.mutation().is_some() {
                    orphans.push(id);
                }
            }
        }
        self.abandon_all(turn, orphans);
    }

    pub(super) fn abandon_all(&mut self, turn: &Turn, orphans: Vec<u32>) {
        for id in orphans {
            match &mut self.machinery {
                Machinery::Plain(plain) => {
                    if plain.cancel(id) {
                        self.drop_request(id);
                    }
                }
                Machinery::Mirror(mirror) => mirror.abandon(turn.now, id),
            }
        }
    }

    pub(super) fn submit_image(&mut self, turn: &mut Turn, work: ImageWork, request: ImageRequest) {
        if self.branch.must_save(&request) {
            self.hold_change(turn, work, request);
        } else if self.view.is_some() {
            self.submit_view(turn, work, request);
        } else {
            self.submit_now(turn, work, request);
        }
    }

    pub(super) fn submit_now(&mut self, turn: &mut Turn, work: ImageWork, request: ImageRequest) {
        if let Some(done) = self.image.submit(&mut *turn.driver, work.encode(), request) {
            self.image_done(turn, done);
        }
    }

    pub(super) fn image_done(&mut self, turn: &mut Turn, done: ImageDone) {
        if let Err(error) = &done.result {
            self.note_image_failure(error);
        }
        match ImageWork::decode(done.id) {
            ImageWork::Host(id) => self.host_done(turn, id, done.result, done.buffer),
            ImageWork::Flush => match &mut self.machinery {
                Machinery::Plain(_) => self.plain_flushed(&done.result),
                Machinery::Mirror(mirror) => mirror.local_flushed(turn.now, &done.result),
            },
            ImageWork::PieceRead(piece) => self.piece_read(turn, piece, done.result, done.buffer),
            ImageWork::PieceWrite(piece) => self.piece_written(turn, piece, &done.result),
            ImageWork::Lookup(lookup) => self.looked_up(lookup, done.result, done.buffer),
            ImageWork::Branch(id) => {
                self.branch.was_read(id, done.result, done.buffer);
                self.advance_branch(turn);
            }
        }
    }

    fn host_done(&mut self, turn: &mut Turn, id: u32, result: Result<(), ImageError>, buffer: Option<Buffer>) {
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        if let Err(error) = &result {
            request.note_failure(error);
        }
        let Some(mutation) = request.mutation() else {
            return match result {
                Err(error) if request.read().is_some() => self.read_failed(turn, id, &error),
                result => self.end(id, result.map(|()| buffer).map_err(|error| image_refusal(&error))),
            };
        };
        match &mut self.machinery {
            Machinery::Plain(plain) => {
                plain.release(mutation.range);
                self.end(id, result.map(|()| None).map_err(|error| image_refusal(&error)));
            }
            Machinery::Mirror(mirror) => mirror.local_done(turn.now, id, &result),
        }
    }

    /// Answer and release.
    pub(super) fn end(&mut self, id: u32, outcome: Result<Option<Buffer>, Refusal>) {
        self.answer(id, outcome);
        self.requests.remove(id);
    }

    /// Answer, once.
    pub(super) fn answer(&mut self, id: u32, outcome: Result<Option<Buffer>, Refusal>) {
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        if request.answered {
            return;
        }
        request.answered = true;
        self.ended.push(match request.origin {
            Origin::Host { connection, cookie } => {
                self.budget.release(request.reserved());
                Ended::Replied(HostReply {
                    connection,
                    cookie,
                    offset: request.offset,
                    read: request.read(),
                    df: request.command == (Command::Read { df: true }),
                    outcome,
                    failed_at: request.failed_at,
                })
            }
            Origin::Stream(origin) => Ended::Streamed(Streamed::mutation(origin, outcome.err())),
            Origin::Epoch { peer, connection } => Ended::Epoch {
                peer,
                connection,
                outcome: outcome.map(drop).map_err(|refusal| request::failure_in(&refusal)),
            },
        });
    }

    /// Release without an answer.
    pub(super) fn drop_request(&mut self, id: u32) {
        let Some(request) = self.requests.remove(id) else {
            return;
        };
        if request.answered {
            return;
        }
        self.ended.push(match request.origin {
            Origin::Host { connection, .. } => {
                self.budget.release(request.reserved());
                Ended::Dropped { connection }
            }
            // Its connection is gone: the answer goes nowhere.
            Origin::Stream(origin) => Ended::Streamed(Streamed::mutation(origin, Some(request::LOCAL_IO))),
            Origin::Epoch { peer, connection } => Ended::Epoch {
                peer,
                connection,
                outcome: Err(Failure::Io),
            },
        });
    }

    /// Log the first failure, then ever more rarely: a full disk fails every request.
    fn note_image_failure(&mut self, error: &ImageError) {
        self.image_failures += 1;
        if self.image_failures >= self.image_failures_logged {
            self.image_failures_logged = self.image_failures * FAILURES_LOG_FACTOR;
            tracing::error!(export = self.export, failures = self.image_failures, "image: {error}");
        }
    }
}
