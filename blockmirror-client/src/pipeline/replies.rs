//! The server's bytes: simple replies and structured chunks, cut anywhere.

use nbd_proto::reply::{decode_hole, decode_offset, decode_status};
use nbd_proto::{ChunkKind, Command, ErrorChunk, NbdError, PeerMisbehaved, ReplyFlags, ReplyHeader, ReplyStyle};

use super::in_flight::InFlight;
use super::partial::{PARTIAL_CAPACITY, take, take_array, take_header};
use super::reading::{Misfit, Reading};
use super::reporting::{Asked, Status};
use super::{Event, Pipeline};

/// Where in the stream of replies we are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// At the beginning of a reply.
    Header,
    /// In the offset of a data chunk of `length` bytes of data.
    DataOffset { slot: u32, length: u32, done: bool },
    /// In data: `at` is where the next byte goes, within the READ.
    Data { slot: u32, at: u32, left: u32, done: bool },
    /// In a hole chunk.
    Hole { slot: u32, done: bool },
    /// In a block status chunk of `length` bytes.
    Status {
        slot: u32,
        kind: ChunkKind,
        length: u32,
        done: bool,
    },
    /// In an error chunk of `length` bytes.
    Error {
        slot: u32,
        kind: ChunkKind,
        length: u32,
        done: bool,
    },
}

impl<T> Pipeline<T> {
    /// Takes bytes from the server, appends what they mean to `events` (at most one event per request in flight).
    /// Everything is consumed, in whatever pieces it comes; the result is `input.len()`.
    ///
    /// # Errors
    /// The server broke the protocol; every later call fails in the same way. Events of replies before the fault are
    /// appended.
    pub fn receive(&mut self, input: &[u8], events: &mut Vec<Event<T>>) -> Result<usize, PeerMisbehaved> {
        if let Some(misbehaved) = &self.misbehaved {
            return Err(misbehaved.clone());
        }
        let mut rest = input;
        while !rest.is_empty() {
            // Each step consumes at least one byte.
            if let Err(misbehaved) = self.step(&mut rest, events) {
                self.misbehaved = Some(misbehaved.clone());
                return Err(misbehaved);
            }
        }
        Ok(input.len())
    }

    fn step(&mut self, input: &mut &[u8], events: &mut Vec<Event<T>>) -> Result<(), PeerMisbehaved> {
        match self.stage {
            Stage::Header => match take_header(&mut self.partial, input)? {
                None => Ok(()),
                Some(ReplyHeader::Simple { cookie, error }) => self.simple(cookie, error, events),
                Some(ReplyHeader::Chunk {
                    flags,
                    kind,
                    cookie,
                    length,
                    offset,
                }) => {
                    self.check_style(cookie, offset)?;
                    self.chunk(flags, kind, cookie, length, events)
                }
            },
            Stage::DataOffset { slot, length, done } => match take_array(&mut self.partial, input) {
                None => Ok(()),
                Some(offset) => {
                    let at = self.cover(slot, decode_offset(&offset), length)?;
                    self.stage = Stage::Data {
                        slot,
                        at,
                        left: length,
                        done,
                    };
                    Ok(())
                }
            },
            Stage::Data { slot, at, left, done } => self.data(slot, at, left, done, input, events),
            Stage::Hole { slot, done } => match take_array(&mut self.partial, input) {
                None => Ok(()),
                Some(hole) => {
                    let (offset, length) = decode_hole(&hole)?;
                    self.cover(slot, offset, length)?;
                    self.end_of_chunk(slot, done, events)
                }
            },
            Stage::Status {
                slot,
                kind,
                length,
                done,
            } => self.status(slot, kind, length, done, input, events),
            Stage::Error {
                slot,
                kind,
                length,
                done,
            } => {
                // The header's check bounds `length` by MAX_ERROR_CHUNK.
                match take(&mut self.partial, input, length as usize, |bytes| {
                    ErrorChunk::decode(kind, bytes)
                }) {
                    None => Ok(()),
                    Some(chunk) => {
                        self.error_chunk(slot, chunk?)?;
                        self.end_of_chunk(slot, done, events)
                    }
                }
            }
        }
    }

    fn simple(
        &mut self,
        cookie: u64,
        error: Option<NbdError>,
        events: &mut Vec<Event<T>>,
    ) -> Result<(), PeerMisbehaved> {
        if self.style == ReplyStyle::Extended {
            return Err(PeerMisbehaved::CompactReply);
        }
        let structured = self.style.has_chunks();
        let (slot, request) = self.lookup(cookie)?;
        if request.reading.is_some() {
            // Chunks of this reply have come: it cannot end as a simple one.
            return Err(PeerMisbehaved::SimpleReplyToRead);
        }
        match error {
            // With structured replies a READ must not get a simple reply, not even for an error. An error is taken
            // all the same: it carries no data that could be misread, and nbd-server sends such.
            Some(error) => request.fail(error, None),
            None if request.is_read() && structured => return Err(PeerMisbehaved::SimpleReplyToRead),
            None if request.is_read() => {
                // The limits bound it by MAX_PAYLOAD.
                let (offset, left) = (request.offset, request.length as u32);
                let at = self.cover(slot, offset, left)?;
                self.stage = Stage::Data {
                    slot,
                    at,
                    left,
                    done: true,
                };
                return Ok(());
            }
            None => {}
        }
        self.end_of_chunk(slot, true, events)
    }

    /// Whether a chunk has the header that was agreed on, and repeats its request's offset where it has one.
    fn check_style(&mut self, cookie: u64, offset: Option<u64>) -> Result<(), PeerMisbehaved> {
        match (self.style, offset) {
            (ReplyStyle::Simple, None) => Err(PeerMisbehaved::StructuredNotNegotiated),
            (ReplyStyle::Simple | ReplyStyle::Structured, Some(_)) => Err(PeerMisbehaved::ExtendedNotNegotiated),
            (ReplyStyle::Structured, None) => Ok(()),
            (ReplyStyle::Extended, None) => Err(PeerMisbehaved::CompactReply),
            (ReplyStyle::Extended, Some(got)) => match self.lookup(cookie)?.1.offset {
                asked if asked == got => Ok(()),
                asked => Err(PeerMisbehaved::OtherOffset { got, asked }),
            },
        }
    }

    fn chunk(
        &mut self,
        flags: ReplyFlags,
        kind: ChunkKind,
        cookie: u64,
        length: u32,
        events: &mut Vec<Event<T>>,
    ) -> Result<(), PeerMisbehaved> {
        let wide = self.style == ReplyStyle::Extended;
        let done = flags.contains(ReplyFlags::DONE);
        let (slot, request) = self.lookup(cookie)?;
        let has_content = matches!(kind, ChunkKind::OffsetData | ChunkKind::OffsetHole);
        let misplaced = match kind {
            ChunkKind::OffsetData | ChunkKind::OffsetHole => !request.is_read(),
            ChunkKind::BlockStatus => wide || request.reporting.is_none(),
            ChunkKind::BlockStatusExt => !wide || request.reporting.is_none(),
            _ => false,
        };
        if misplaced {
            return Err(PeerMisbehaved::UnexpectedContent { kind: kind.to_wire() });
        }
        let pieces = request.reading.as_ref().map_or(0, Reading::pieces);
        if has_content && pieces > 0 && request.command == (Command::Read { df: true }) {
            return Err(PeerMisbehaved::Fragmented);
        }
        self.stage = match kind {
            ChunkKind::None => return self.end_of_chunk(slot, done, events),
            ChunkKind::BlockStatus | ChunkKind::BlockStatusExt => Stage::Status {
                slot,
                kind,
                length,
                done,
            },
            // The header's check leaves room for the offset.
            ChunkKind::OffsetData => Stage::DataOffset {
                slot,
                length: length.saturating_sub(8),
                done,
            },
            ChunkKind::OffsetHole => Stage::Hole { slot, done },
            ChunkKind::Error | ChunkKind::ErrorOffset | ChunkKind::UnknownError(_) => Stage::Error {
                slot,
                kind,
                length,
                done,
            },
        };
        Ok(())
    }

    fn lookup(&mut self, cookie: u64) -> Result<(u32, &mut InFlight<T>), PeerMisbehaved> {
        let unknown = PeerMisbehaved::UnknownCookie(cookie);
        let Some(slot) = self.slots.find(cookie) else {
            return Err(unknown);
        };
        let request = self.slots.get_mut(slot).ok_or(unknown)?;
        Ok((slot, request))
    }

    /// Stores data of a piece that is covered; there are `left` bytes of it, the first of which goes to `at`.
    fn data(
        &mut self,
        slot: u32,
        at: u32,
        left: u32,
        done: bool,
        input: &mut &[u8],
        events: &mut Vec<Event<T>>,
    ) -> Result<(), PeerMisbehaved> {
        let (now, later) = input.split_at(input.len().min(left as usize));
        *input = later;
        if let Some(reading) = self.slots.get_mut(slot).and_then(|request| request.reading.as_mut()) {
            reading.fill(at, now);
        }
        let taken = now.len() as u32;
        if taken == left {
            return self.end_of_chunk(slot, done, events);
        }
        self.stage = Stage::Data {
            slot,
            at: at + taken,
            left: left - taken,
            done,
        };
        Ok(())
    }

    /// Counts a piece of a READ as covered; its place within the READ.
    fn cover(&mut self, slot: u32, offset: u64, length: u32) -> Result<u32, PeerMisbehaved> {
        let outside = PeerMisbehaved::ContentOutsideRequest {
            offset,
            length: u64::from(length),
        };
        let Some(request) = self.slots.get_mut(slot) else {
            return Err(outside);
        };
        let Some(start) = offset.checked_sub(request.offset) else {
            return Err(outside);
        };
        let reading = request
            .reading
            .get_or_insert_with(|| Reading::new(request.length as u32));
        reading.cover(start, length).map_err(|misfit| match misfit {
            Misfit::OutOfRange => outside,
            Misfit::Overlap => PeerMisbehaved::ContentOverlaps {
                offset,
                length: u64::from(length),
            },
        })
    }

    /// Takes a block status chunk once it is whole.
    fn status(
        &mut self,
        slot: u32,
        kind: ChunkKind,
        length: u32,
        done: bool,
        input: &mut &[u8],
        events: &mut Vec<Event<T>>,
    ) -> Result<(), PeerMisbehaved> {
        // The header's check bounds `length` by MAX_STATUS_EXTENTS.
        let parse = |bytes: &[u8]| decode_status(kind, bytes);
        let Some(status) = take(&mut self.partial, input, length as usize, parse) else {
            return Ok(());
        };
        self.partial.shrink_to(PARTIAL_CAPACITY);
        let (context, extents) = status?;
        let size = self.limits.size;
        if let Some(request) = self.slots.get_mut(slot) {
            let asked = Asked {
                offset: request.offset,
                length: request.length,
                one: request.command == (Command::BlockStatus { one: true }),
                size,
            };
            if let Some(reporting) = &mut request.reporting {
                reporting.take(&asked, Status { context, extents })?;
            }
        }
        self.end_of_chunk(slot, done, events)
    }

    fn error_chunk(&mut self, slot: u32, chunk: ErrorChunk) -> Result<(), PeerMisbehaved> {
        let Some(request) = self.slots.get_mut(slot) else {
            return Ok(());
        };
        if let Some(offset) = chunk.offset {
            let within = offset.checked_sub(request.offset).is_some_and(|at| at < request.length);
            if !within {
                return Err(PeerMisbehaved::ContentOutsideRequest { offset, length: 0 });
            }
        }
        request.fail(chunk.error, Some(chunk.message).filter(|message| !message.is_empty()));
        Ok(())
    }

    /// A chunk, or a simple reply, has come whole; `done` when it ends the reply.
    fn end_of_chunk(&mut self, slot: u32, done: bool, events: &mut Vec<Event<T>>) -> Result<(), PeerMisbehaved> {
        self.stage = Stage::Header;
        if !done {
            return Ok(());
        }
        let Some(request) = self.slots.get_mut(slot) else {
            return Ok(());
        };
        request.check_complete()?;
        if let Some(request) = self.slots.remove(slot) {
            events.push(request.into_event());
        }
        Ok(())
    }
}
