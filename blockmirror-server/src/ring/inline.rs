//! Operations finished within `submit`, because they do not block: [`InlineTurn`].

use std::io::{self, IoSlice, IoSliceMut};
use std::time::Instant;

use rustix::io::{Errno, ReadWriteFlags};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use super::op::left;
use super::{AllocateMode, FileHandle, FileRange, InlinePolicy, Op, Segment, Socket};

/// File bytes moved inline between two waits. What comes on top is handed to a worker, so that one large request
/// is copied while the data thread serves others.
const TURN_BYTES_MAX: usize = 1 << 20;

/// A range of a file in memory is deallocated or zeroed inline up to this length.
const MEMORY_ALLOCATE_MAX: u64 = 1 << 20;

/// Pieces gathered into one send.
const SEGMENTS_MAX: usize = 128;

/// What an attempt came to.
pub(super) enum Attempt {
    /// The operation has ended.
    Done(io::Result<usize>),
    /// Nothing was done, or only this many bytes of a send were: the engine has to do the rest.
    Blocked(usize),
}

const BLOCKED: Attempt = Attempt::Blocked(0);

/// Inline attempts since the last wait, with their budget.
pub(super) struct InlineTurn {
    policy: InlinePolicy,
    bytes: usize,
}

impl InlineTurn {
    pub(super) const fn new(policy: InlinePolicy) -> Self {
        Self { policy, bytes: 0 }
    }

    /// Whether ranges of files are sent: only here, never by the engine.
    pub(super) fn sends_files(&self) -> bool {
        self.policy == InlinePolicy::Adaptive
    }

    /// A new turn begins: the budget is whole again.
    pub(super) fn reset(&mut self) {
        self.bytes = 0;
    }

    /// Tries an operation. Receives are left to the engine: they mostly have to wait.
    pub(super) fn attempt(&mut self, op: &mut Op) -> Attempt {
        if self.policy == InlinePolicy::Never {
            return BLOCKED;
        }
        match op {
            Op::Receive { .. } => BLOCKED,
            Op::Send { socket, segments, skip } => send(socket, segments, *skip),
            Op::Read {
                file,
                buffer,
                filled,
                offset,
            } => self.read(file, &mut buffer.as_mut_slice()[*filled..], *offset),
            Op::Write {
                file,
                payload,
                offset,
                durable,
            } => self.write(file, payload.as_slice(), *offset, *durable),
            Op::Sync { file } if file.is_memory_backed() => {
                Attempt::Done(rustix::fs::fdatasync(&*file).map(|()| 0).map_err(Into::into))
            }
            Op::Allocate {
                file,
                mode,
                offset,
                length,
            } if file.is_memory_backed() && *length <= MEMORY_ALLOCATE_MAX => {
                Attempt::Done(allocate(file, *mode, *offset, *length))
            }
            Op::Sync { .. } | Op::Allocate { .. } | Op::Prefetch { .. } => BLOCKED,
        }
    }

    fn read(&mut self, file: &FileHandle, into: &mut [u8], offset: u64) -> Attempt {
        let flags = if file.is_memory_backed() {
            ReadWriteFlags::empty()
        } else if !file.is_direct() && file.tries_nowait_reads() {
            ReadWriteFlags::NOWAIT
        } else {
            return BLOCKED;
        };
        if !self.takes(into.len()) {
            return BLOCKED;
        }
        match rustix::io::preadv2(file, &mut [IoSliceMut::new(into)], offset, flags) {
            Ok(count) => Attempt::Done(Ok(count)),
            Err(Errno::AGAIN) => BLOCKED,
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                file.stop_nowait_reads();
                BLOCKED
            }
            Err(error) => Attempt::Done(Err(error.into())),
        }
    }

    fn write(&mut self, file: &FileHandle, from: &[u8], offset: u64, durable: bool) -> Attempt {
        if file.is_direct() || (durable && !file.is_memory_backed()) || !self.takes(from.len()) {
            return BLOCKED;
        }
        if file.is_memory_backed() {
            return Attempt::Done(rustix::io::pwrite(file, from, offset).map_err(Into::into));
        }
        if !file.allows_inline_write() {
            return BLOCKED;
        }
        let start = Instant::now();
        let result = rustix::io::pwrite(file, from, offset);
        file.note_inline_write(start.elapsed());
        Attempt::Done(result.map_err(Into::into))
    }

    /// Whether the budget has room, counting it.
    fn takes(&mut self, bytes: usize) -> bool {
        let total = self.bytes.saturating_add(bytes);
        if total > TURN_BYTES_MAX {
            return false;
        }
        self.bytes = total;
        true
    }
}

/// Receives what is there.
pub(super) fn receive(socket: &Socket, into: &mut [u8]) -> Attempt {
    match rustix::net::recv(socket, into, RecvFlags::DONTWAIT) {
        Ok((count, _)) => Attempt::Done(Ok(count)),
        Err(Errno::AGAIN) => BLOCKED,
        Err(error) => Attempt::Done(Err(error.into())),
    }
}

/// Receives what is there, for a caller that has no receive in flight on this socket. `None`: nothing is there.
pub fn receive_now(socket: &Socket, into: &mut [u8]) -> Option<io::Result<usize>> {
    if let Some(secure) = socket.secure() {
        return secure.receive_now(socket, into);
    }
    match receive(socket, into) {
        Attempt::Done(result) => Some(result),
        Attempt::Blocked(_) => None,
    }
}

/// Sends what the socket takes now: all of it, or `Blocked` with the number of bytes it took.
pub(super) fn send(socket: &Socket, segments: &[Segment], skip: usize) -> Attempt {
    let mut sent = 0;
    loop {
        let result = match file_at(segments, skip + sent) {
            Some((range, done)) => send_file(socket, range, done),
            None => {
                let mut slices = [IoSlice::new(&[]); SEGMENTS_MAX];
                let (count, more) = gather(segments, skip + sent, &mut slices);
                if count == 0 {
                    return Attempt::Done(Ok(sent));
                }
                let mut flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                flags.set(SendFlags::MORE, more);
                rustix::net::sendmsg(socket, &slices[..count], &mut SendAncillaryBuffer::default(), flags)
            }
        };
        match result {
            Ok(0) => return Attempt::Done(Ok(sent)),
            Ok(now) => sent += now,
            Err(Errno::AGAIN) => return Attempt::Blocked(sent),
            Err(_) if sent > 0 => return Attempt::Done(Ok(sent)),
            Err(error) => return Attempt::Done(Err(error.into())),
        }
    }
}

/// Whether what follows the first `skip` bytes of the segments is in a file.
pub(super) fn is_in_file(segments: &[Segment], skip: usize) -> bool {
    file_at(segments, skip).is_some()
}

/// The range of a file that follows the first `skip` bytes of the segments, if it is one that does, and how many of its bytes
/// are done.
fn file_at(segments: &[Segment], skip: usize) -> Option<(&FileRange, usize)> {
    match left(segments, skip).next()? {
        (Segment::File(range), done) => Some((range, done)),
        _ => None,
    }
}

/// Sends what the socket takes of a range behind its first `done` bytes. The pages themselves are what is sent.
fn send_file(socket: &Socket, range: &FileRange, done: usize) -> Result<usize, Errno> {
    let mut offset = range.offset + done as u64;
    match rustix::fs::sendfile(socket, &range.file, Some(&mut offset), range.length - done) {
        // The file ends before: what was promised cannot be sent.
        Ok(0) => Err(Errno::IO),
        result => result,
    }
}

/// Fills `slices` with what follows the first `skip` bytes of the segments, up to what is in a file: slices used, and
/// whether more follows.
fn gather<'a>(segments: &'a [Segment], skip: usize, slices: &mut [IoSlice<'a>; SEGMENTS_MAX]) -> (usize, bool) {
    let mut count = 0;
    for (segment, done) in left(segments, skip) {
        let Some(slice) = segment.as_slice().filter(|_| count < SEGMENTS_MAX) else {
            return (count, true);
        };
        slices[count] = IoSlice::new(&slice[done..]);
        count += 1;
    }
    (count, false)
}

/// Executes an operation on a file to its end, blocking as long as it takes: the worker's part.
pub(super) fn execute_file(op: &mut Op) -> io::Result<usize> {
    match op {
        Op::Read {
            file,
            buffer,
            filled,
            offset,
        } => Ok(rustix::io::pread(
            &*file,
            &mut buffer.as_mut_slice()[*filled..],
            *offset,
        )?),
        Op::Write {
            file,
            payload,
            offset,
            durable,
        } => write(file, payload.as_slice(), *offset, *durable),
        Op::Sync { file } => Ok(rustix::fs::fdatasync(&*file).map(|()| 0)?),
        Op::Allocate {
            file,
            mode,
            offset,
            length,
        } => allocate(file, *mode, *offset, *length),
        Op::Prefetch { file, offset, length } => {
            let length = std::num::NonZeroU64::new(*length);
            Ok(rustix::fs::fadvise(&*file, *offset, length, rustix::fs::Advice::WillNeed).map(|()| 0)?)
        }
        Op::Receive { .. } | Op::Send { .. } => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn write(file: &FileHandle, from: &[u8], offset: u64, durable: bool) -> io::Result<usize> {
    let flags = if durable {
        ReadWriteFlags::DSYNC
    } else {
        ReadWriteFlags::empty()
    };
    Ok(rustix::io::pwritev2(file, &[IoSlice::new(from)], offset, flags)?)
}

fn allocate(file: &FileHandle, mode: AllocateMode, offset: u64, length: u64) -> io::Result<usize> {
    Ok(rustix::fs::fallocate(file, mode.flags(), offset, length).map(|()| 0)?)
}
