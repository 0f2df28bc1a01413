//! What a [`Driver`](super::Driver) can be asked to do, and how it answers.

use std::io;

use std::sync::Arc;

use super::socket_tls::SocketTls;
use super::{Buffer, FileHandle, Payload, Socket};

/// One operation, owner of everything the kernel looks at while it is in flight.
#[derive(Debug)]
pub enum Op {
    /// Receive into `buffer[filled..]`. The result is the number of bytes received; 0 is the end of the stream.
    Receive {
        /// Where from.
        socket: Socket,
        /// Where to; its visible length is the limit.
        buffer: Buffer,
        /// Bytes at the front that are kept.
        filled: usize,
    },
    /// Send the segments one after another, all but the first `skip` bytes. The result is the number of bytes sent,
    /// which may be short.
    Send {
        /// Where to.
        socket: Socket,
        /// What.
        segments: Vec<Segment>,
        /// Bytes sent earlier.
        skip: usize,
    },
    /// Read from byte `offset` of the file into `buffer[filled..]`. The result may be short; 0 is the end of the file.
    Read {
        /// Where from.
        file: FileHandle,
        /// Where to; its visible length is the limit.
        buffer: Buffer,
        /// Bytes at the front that are kept.
        filled: usize,
        /// Place in the file of `buffer[filled]`.
        offset: u64,
    },
    /// Write the payload at byte `offset` of the file. The result may be short.
    Write {
        /// Where to.
        file: FileHandle,
        /// What.
        payload: Payload,
        /// Place in the file.
        offset: u64,
        /// Complete only when the data, and what is needed to find it again, are durable (`RWF_DSYNC`).
        durable: bool,
    },
    /// Make all completed writes of the file durable (`fdatasync`). The result is 0.
    Sync {
        /// Which file.
        file: FileHandle,
    },
    /// Change the allocation of a range (`fallocate`). The result is 0.
    Allocate {
        /// Which file.
        file: FileHandle,
        /// How.
        mode: AllocateMode,
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Ask for a range to be read into the page cache. The result is 0, sooner than the data is there.
    Prefetch {
        /// Which file.
        file: FileHandle,
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
}

/// The name of an operation, for fault plans and reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// [`Op::Receive`].
    Receive,
    /// [`Op::Send`].
    Send,
    /// [`Op::Read`].
    Read,
    /// [`Op::Write`].
    Write,
    /// [`Op::Sync`].
    Sync,
    /// [`Op::Allocate`].
    Allocate,
    /// [`Op::Prefetch`].
    Prefetch,
}

/// How [`Op::Allocate`] changes a range. None of them changes the file's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AllocateMode {
    /// The range is deallocated and reads as zeroes.
    PunchHole,
    /// The range stays or becomes allocated and reads as zeroes.
    ZeroRange,
}

/// An operation that has ended, with all it owned.
#[derive(Debug)]
pub struct Completion {
    /// The token it was submitted with.
    pub token: u64,
    /// Bytes moved, or 0 for operations that move none.
    pub result: io::Result<usize>,
    /// The operation as it was submitted.
    pub op: Op,
}

/// One piece of what [`Op::Send`] sends.
#[derive(Debug)]
pub enum Segment {
    /// A few bytes kept in place: a reply header.
    Inline(InlineBytes),
    /// Bytes of a vector.
    Bytes(Vec<u8>),
    /// A shared payload.
    Payload(Payload),
    /// A whole buffer.
    Buffer(Buffer),
    /// Bytes of a file, sent out of its page cache without a copy. Only for a [`Driver`](super::Driver) that
    /// [sends files](super::Driver::sends_files), and not on a socket with TLS.
    File(FileRange),
}

/// Bytes of a file. They are what the file holds when the receiver takes them, not before.
#[derive(Clone, Debug)]
pub struct FileRange {
    /// The file.
    pub file: FileHandle,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: usize,
}

/// Up to [`InlineBytes::CAPACITY`] bytes without an allocation.
#[derive(Clone, Copy, Debug)]
pub struct InlineBytes {
    bytes: [u8; Self::CAPACITY],
    len: u8,
}

impl Op {
    /// Its name.
    pub fn kind(&self) -> OpKind {
        match self {
            Op::Receive { .. } => OpKind::Receive,
            Op::Send { .. } => OpKind::Send,
            Op::Read { .. } => OpKind::Read,
            Op::Write { .. } => OpKind::Write,
            Op::Sync { .. } => OpKind::Sync,
            Op::Allocate { .. } => OpKind::Allocate,
            Op::Prefetch { .. } => OpKind::Prefetch,
        }
    }
}

impl Op {
    /// The TLS connection of the socket it is on, if there is one.
    pub(crate) fn secure(&self) -> Option<Arc<SocketTls>> {
        match self {
            Op::Receive { socket, .. } | Op::Send { socket, .. } => socket.secure().cloned(),
            _ => None,
        }
    }
}

impl Segment {
    /// A copy of at most [`InlineBytes::CAPACITY`] bytes; longer input becomes [`Segment::Bytes`].
    pub fn copy_of(bytes: &[u8]) -> Self {
        match InlineBytes::new(bytes) {
            Some(inline) => Segment::Inline(inline),
            None => Segment::Bytes(bytes.to_vec()),
        }
    }

    /// The bytes to send. `None`: they are in a file.
    pub fn as_slice(&self) -> Option<&[u8]> {
        match self {
            Segment::Inline(inline) => Some(inline.as_slice()),
            Segment::Bytes(bytes) => Some(bytes),
            Segment::Payload(payload) => Some(payload.as_slice()),
            Segment::Buffer(buffer) => Some(buffer.as_slice()),
            Segment::File(_) => None,
        }
    }

    /// Bytes to send.
    pub fn len(&self) -> usize {
        match self {
            Segment::File(range) => range.length,
            _ => self.as_slice().map_or(0, <[u8]>::len),
        }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What is behind the first `skip` bytes of the segments: those that are left, each with how many of its bytes are done.
pub(super) fn left(segments: &[Segment], mut skip: usize) -> impl Iterator<Item = (&Segment, usize)> {
    segments.iter().filter_map(move |segment| {
        let done = skip.min(segment.len());
        skip -= done;
        (done < segment.len()).then_some((segment, done))
    })
}

impl InlineBytes {
    /// Room, in bytes.
    pub const CAPACITY: usize = 64;

    /// A copy of `bytes`; `None` when they do not fit.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut inline = Self {
            bytes: [0; Self::CAPACITY],
            len: u8::try_from(bytes.len()).ok()?,
        };
        inline.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(inline)
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl AllocateMode {
    pub(crate) fn flags(self) -> rustix::fs::FallocateFlags {
        use rustix::fs::FallocateFlags;
        match self {
            AllocateMode::PunchHole => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            AllocateMode::ZeroRange => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        }
    }
}
