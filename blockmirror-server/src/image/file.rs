//! [`Image`]: requests in, operations to the driver, answers out.

use std::collections::VecDeque;
use std::mem;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::leg::Leg;
use super::open::{self, ImageOptions, IoMode};
use super::work::{Flow, Step, Work};
use super::zero::Zeroing;
use super::{ImageError, ImagePlace, ImageRequest, OpenError};
use crate::ring::slab::{SLAB_MAX, Slab};
use crate::ring::{Buffer, Completion, Driver, FileHandle};

/// Bytes of one CACHE request that are read ahead, from its first on: asking for a whole image must not drive
/// everything else out of the page cache.
const CACHE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of data that [`Image::look`] tells at once of a file in memory.
const LOOK_STEP: u64 = 64 << 10;
/// Times an operation is tried again after an interruption or a transfer of nothing, with no progress in between.
const RETRIES_MAX: u32 = 64;

/// An open image. It belongs to one data thread, as does the driver it is used with: always the same one.
#[derive(Debug)]
pub struct Image {
    pub(super) leg: Leg,
    place: ImagePlace,
    pub(super) size: u64,
    read_only: bool,
    created: bool,
    token_base: u64,
    active: Slab<Active>,
    /// Requests waiting for edge blocks, oldest first.
    waiting: VecDeque<Active>,
    /// The first failed flush; every later one is answered with it.
    failed: Option<ImageError>,
    /// Blocks were given back: some of the waiting may go on.
    released: bool,
}

#[derive(Debug)]
struct Active {
    id: u64,
    work: Work,
    retries: u32,
}

/// The answer to a request.
#[derive(Debug)]
pub struct ImageDone {
    /// The request's.
    pub id: u64,
    /// How it ended.
    pub result: Result<(), ImageError>,
    /// The buffer of a read, filled when it succeeded.
    pub buffer: Option<Buffer>,
}

/// What a part of an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentKind {
    /// Allocated: may hold anything.
    Data,
    /// Not allocated: reads as zeroes.
    Hole,
}

/// A part of an image of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// What it is.
    pub kind: ExtentKind,
    /// The byte after its last.
    pub end: u64,
}

/// An image in words and numbers, for logs and status reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReport {
    /// The path, or `memory:`.
    pub place: String,
    /// Bytes.
    pub size: u64,
    /// `buffered`, `direct` or `memory`.
    pub io: &'static str,
    /// Bytes per block of direct I/O; 1 otherwise.
    pub block: u64,
    /// Whether changes are refused.
    pub read_only: bool,
    /// Whether opening has made the file.
    pub created: bool,
}

impl Image {
    /// Opens the image, making the file when it does not exist and a size is given, and locks it for this process.
    pub fn open(options: &ImageOptions) -> Result<Image, OpenError> {
        let opened = open::open(options)?;
        let file = FileHandle::new(opened.fd).map_err(|error| OpenError::System {
            path: options.place.to_string().into(),
            what: "open",
            error,
        })?;
        let mut leg = Leg::new(file, opened.alignment, options.preallocate);
        leg.makes_holes = open::makes_holes(&leg.file, opened.size);
        Ok(Image {
            leg,
            place: options.place.clone(),
            size: opened.size,
            read_only: options.read_only,
            created: opened.created,
            token_base: 0,
            active: Slab::new(),
            waiting: VecDeque::new(),
            failed: None,
            released: false,
        })
    }

    /// The high 32 bits of this image's tokens; the low ones are its own. To be set before the first request.
    pub fn set_token_base(&mut self, base: u64) {
        self.token_base = base & !u64::from(u32::MAX);
    }

    /// Takes a request. `Some`: it has already ended. `None`: its answer will come out of [`Image::complete`].
    ///
    /// The caller keeps overlapping changes apart (I2); requests on different ranges may end in any order.
    pub fn submit(&mut self, driver: &mut dyn Driver, id: u64, request: ImageRequest) -> Option<ImageDone> {
        if let Some(done) = self.refuse(id, &request) {
            let buffer = match request {
                ImageRequest::Read { buffer, .. } => Some(buffer),
                _ => None,
            };
            return Some(ImageDone { buffer, ..done });
        }
        let work = self.work(driver, request);
        self.run(driver, Active { id, work, retries: 0 })
    }

    /// Takes the completion of an operation with one of this image's tokens. Appends the answer of its request, if
    /// that has ended, and of requests that waited for it.
    pub fn complete(&mut self, driver: &mut dyn Driver, completion: Completion, out: &mut Vec<ImageDone>) {
        let Some(mut active) = self.active.remove(completion.token as u32) else {
            return;
        };
        match self.absorb(&mut active, completion) {
            Some(error) => out.push(self.finish(active, Err(error))),
            None => out.extend(self.run(driver, active)),
        }
        while mem::take(&mut self.released) && !self.waiting.is_empty() {
            self.leg.locks.forget_wanted();
            for active in mem::take(&mut self.waiting) {
                out.extend(self.run(driver, active));
            }
        }
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether changes are refused.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether opening has made the file: all of it reads as zeroes.
    pub fn was_created(&self) -> bool {
        self.created
    }

    /// Requests taken and not answered.
    pub fn in_flight(&self) -> usize {
        self.active.len() + self.waiting.len()
    }

    /// Why nothing can be made durable any more, once a flush has failed.
    pub fn failure(&self) -> Option<&ImageError> {
        self.failed.as_ref()
    }

    /// Whether `offset` (below the size) is in data or in a hole, and where that ends. Where the file system cannot
    /// tell, everything is data.
    pub fn next_data(&self, offset: u64) -> Extent {
        let seek = |from| rustix::fs::seek(&self.leg.file, from).map(|at| at.min(self.size));
        let all = |kind| Extent { kind, end: self.size };
        match seek(SeekFrom::Data(offset)) {
            Ok(data) if data > offset => Extent {
                kind: ExtentKind::Hole,
                end: data,
            },
            Ok(_) => match seek(SeekFrom::Hole(offset)) {
                Ok(hole) if hole > offset => Extent {
                    kind: ExtentKind::Data,
                    end: hole,
                },
                _ => all(ExtentKind::Data),
            },
            // No data from here on.
            Err(Errno::NXIO) => all(ExtentKind::Hole),
            Err(_) => all(ExtentKind::Data),
        }
    }

    /// As [`Image::next_data`], at a cost that does not grow with what is found: a file system in memory looks at every
    /// page up to the next hole, with the file locked, so there data is told in steps of `LOOK_STEP`, of which a later
    /// part may be a hole.
    pub fn look(&self, offset: u64) -> Extent {
        if !self.leg.file.is_memory_backed() {
            return self.next_data(offset);
        }
        let end = (offset / LOOK_STEP + 1).saturating_mul(LOOK_STEP).min(self.size);
        match rustix::fs::seek(&self.leg.file, SeekFrom::Data(offset)) {
            Ok(data) if data > offset => Extent {
                kind: ExtentKind::Hole,
                end: data.min(self.size),
            },
            Err(Errno::NXIO) => Extent {
                kind: ExtentKind::Hole,
                end: self.size,
            },
            Ok(_) | Err(_) => Extent {
                kind: ExtentKind::Data,
                end,
            },
        }
    }

    /// Zeroing makes holes, which costs the same however long the range is or less than writing it. Found out when the
    /// image was opened, and as long as nothing else was seen.
    pub fn makes_holes(&self) -> bool {
        self.leg.makes_holes && self.leg.abilities.punch_hole && !self.leg.keep_allocated
    }

    /// Holes have their space all the same: the image was preallocated.
    pub fn keeps_space(&self) -> bool {
        self.leg.keep_allocated
    }

    /// What is open, for logs and status.
    pub fn describe(&self) -> ImageReport {
        let io = match (&self.place, self.leg.file.is_direct()) {
            (ImagePlace::Memory, _) => "memory",
            (ImagePlace::Path(_), true) => IoMode::Direct.name(),
            (ImagePlace::Path(_), false) => IoMode::Buffered.name(),
        };
        ImageReport {
            place: self.place.to_string(),
            size: self.size,
            io,
            block: self.leg.alignment.transfer,
            read_only: self.read_only,
            created: self.created,
        }
    }

    /// The answer to a request that needs or deserves no work.
    fn refuse(&self, id: u64, request: &ImageRequest) -> Option<ImageDone> {
        let (offset, length) = request.range();
        let answer = |result| {
            Some(ImageDone {
                id,
                result,
                buffer: None,
            })
        };
        if offset.checked_add(length).is_none_or(|end| end > self.size) {
            return answer(Err(ImageError::OutOfRange {
                offset,
                length,
                size: self.size,
            }));
        }
        if request.is_change() && self.read_only {
            return answer(Err(ImageError::ReadOnly));
        }
        if let Some(error) = self.failed.as_ref().filter(|_| request.promises_durability()) {
            return answer(Err(error.clone()));
        }
        if length == 0 && !matches!(request, ImageRequest::Flush) {
            return answer(Ok(()));
        }
        if self.in_flight() >= SLAB_MAX {
            return answer(Err(ImageError::Busy));
        }
        None
    }

    fn work(&self, driver: &dyn Driver, request: ImageRequest) -> Work {
        match request {
            ImageRequest::Read { buffer, offset } => Work::read(&self.leg, driver.pool(), buffer, offset),
            ImageRequest::Write {
                payload,
                offset,
                durable,
            } => Work::write(&self.leg, payload, offset, durable),
            ImageRequest::Zero {
                offset,
                length,
                no_hole,
                durable,
            } => Work::Zero(Zeroing::new(offset, length, no_hole, durable)),
            ImageRequest::Trim {
                offset,
                length,
                durable,
            } => Work::Zero(Zeroing::new(offset, length, false, durable)),
            ImageRequest::Flush => Work::Flush { done: false },
            ImageRequest::Cache { offset, length } => {
                let length = length.min(CACHE_BYTES_MAX);
                // Past the page cache there is nothing to read ahead into.
                Work::Cache {
                    offset,
                    length,
                    done: self.leg.file.is_direct(),
                }
            }
        }
    }

    /// Executes a request until it ends or an operation of it is in flight.
    fn run(&mut self, driver: &mut dyn Driver, mut active: Active) -> Option<ImageDone> {
        loop {
            let op = match active.work.step(&mut self.leg, driver.pool()) {
                Step::Op(op) => op,
                Step::Wait(edges) => {
                    self.leg.locks.want(edges);
                    self.waiting.push_back(active);
                    return None;
                }
                Step::Done(result) => return Some(self.finish(active, result)),
            };
            let token = self.token_base | u64::from(self.active.next_key());
            let Some(completion) = driver.submit(token, op) else {
                self.active.insert(active);
                return None;
            };
            if let Some(error) = self.absorb(&mut active, completion) {
                return Some(self.finish(active, Err(error)));
            }
        }
    }

    /// Takes the end of an operation; the error with which the request has failed by it.
    fn absorb(&mut self, active: &mut Active, completion: Completion) -> Option<ImageError> {
        match active.work.absorb(&mut self.leg, completion.result, completion.op) {
            Flow::Continue => {
                active.retries = 0;
                None
            }
            Flow::Again(_) if active.retries < RETRIES_MAX => {
                active.retries += 1;
                None
            }
            Flow::Again(error) => Some(active.work.gives_up(&error)),
            Flow::Failed(error) => Some(error),
        }
    }

    fn finish(&mut self, active: Active, result: Result<(), ImageError>) -> ImageDone {
        if let Err(error @ ImageError::FlushFailed { .. }) = &result {
            self.failed.get_or_insert_with(|| error.clone());
        }
        let (buffer, released) = active.work.finish(&mut self.leg);
        self.released |= released;
        ImageDone {
            id: active.id,
            result,
            buffer,
        }
    }
}
