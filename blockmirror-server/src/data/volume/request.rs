//! A host request from its arrival to its release.

use mirror_core::ByteRange;
use mirror_core::config::MUTATION_BYTES_MAX;
use mirror_core::event::{ConnectionId, Failure, Mutation, MutationKind, PeerIndex, Refusal as MirrorRefusal};
use mirror_core::stream::codec;
use mirror_core::stream::intake::Started;
use nbd_proto::{Command, NbdError, Refusal};

use crate::data::stream::{CHECKSUM, Checked};
use crate::image::ImageError;
use crate::ring::Payload;

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A host.
    Host {
        /// The slot of its connection.
        connection: u32,
        /// The client's name for it.
        cookie: u64,
    },
    /// The replication stream of a Primary, or of the source of a resync.
    Stream(StreamOrigin),
    /// The end of an epoch of a stream: a flush that has to be done before anything behind it.
    Epoch {
        /// Whose.
        peer: PeerIndex,
        /// On which connection.
        connection: ConnectionId,
    },
}

/// The bytes of a WRITE.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    /// The bytes.
    pub(crate) payload: Payload,
    /// Their length and [`CHECKSUM`], when they were computed on arrival.
    pub(crate) check: Option<codec::Payload>,
}

impl From<Payload> for Body {
    fn from(payload: Payload) -> Self {
        Self { payload, check: None }
    }
}

/// A request of a replication stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamOrigin {
    /// Who asks.
    pub(crate) peer: PeerIndex,
    /// The name of the request until it has ended.
    pub(crate) started: Started,
}

impl StreamOrigin {
    pub(super) fn is_of(self, peer: PeerIndex, connection: ConnectionId) -> bool {
        self.peer == peer && self.started.connection == connection
    }
}

/// A request of a host, or one of a stream that changes data: to replication they are one thing.
#[derive(Debug)]
pub(super) struct HostRequest {
    pub(super) origin: Origin,
    pub(super) command: Command,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) payload: Option<Payload>,
    /// Length and [`CHECKSUM`] of the payload, once they are known.
    pub(super) check: Option<codec::Payload>,
    /// Its connection has been told, or is no longer to be told.
    pub(super) answered: bool,
    /// Its connection died: what has not been started is not to be.
    pub(super) abandoned: bool,
    /// Bytes handed to the mirror so far: a long TRIM or WRITE_ZEROES goes part by part.
    pub(super) taken: u64,
    /// Where the image failed it.
    pub(super) failed_at: Option<u64>,
}

impl HostRequest {
    /// Bytes of the volume's budget it holds, if it came from a host: what a stream brings is bounded by its credits.
    pub(super) fn reserved(&self) -> u64 {
        match self.command {
            Command::Read { .. } | Command::Write { .. } => self.length,
            _ => 0,
        }
    }

    /// The payload for a stream: its checksum is computed once for all peers.
    pub(super) fn checked(&mut self) -> Option<Checked> {
        let payload = self.payload.clone()?;
        let check = *self
            .check
            .get_or_insert_with(|| codec::Payload::of(CHECKSUM, payload.as_slice()));
        Some(Checked::known(payload, check))
    }

    /// `Some` for a READ: its bytes, which the reply needs to know.
    pub(super) fn read(&self) -> Option<u64> {
        matches!(self.command, Command::Read { .. }).then_some(self.length)
    }

    /// The image has failed it: where, if that is in its range. The whole blocks around it may have failed before it.
    pub(super) fn note_failure(&mut self, error: &ImageError) {
        if let ImageError::Io { offset, .. } | ImageError::Truncated { offset } = error {
            let range = self.offset..self.offset + self.length;
            self.failed_at = Some(*offset).filter(|offset| range.contains(offset));
        }
    }

    /// The whole of it as one mutation; `None` when it changes nothing.
    pub(super) fn mutation(&self) -> Option<Mutation> {
        let (kind, fua) = match self.command {
            Command::Write { fua } => (MutationKind::Write, fua),
            Command::Trim { fua } => (MutationKind::Trim, fua),
            Command::WriteZeroes { fua, no_hole, .. } => (MutationKind::Zero { no_hole }, fua),
            Command::Read { .. }
            | Command::Flush
            | Command::Cache
            | Command::BlockStatus { .. }
            | Command::Disconnect => return None,
        };
        (self.length > 0).then(|| Mutation {
            range: ByteRange::new(self.offset, self.length),
            kind,
            fua,
        })
    }

    /// The next part for the mirror, at most as long as it takes; `None` when there is no more.
    pub(super) fn next_part(&mut self) -> Option<Mutation> {
        let whole = self.mutation()?;
        let left = whole.range.length - self.taken;
        if left == 0 || self.abandoned {
            return None;
        }
        let range = ByteRange::new(whole.range.offset + self.taken, left.min(MUTATION_BYTES_MAX));
        self.taken += range.length;
        Some(Mutation { range, ..whole })
    }

    /// Another part is to follow the one under way.
    pub(super) fn has_more(&self) -> bool {
        !self.abandoned && self.taken < self.length
    }
}

/// What an image request is for; carried by the image as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ImageWork {
    /// A host request.
    Host(u32),
    /// The volume's flush, one at a time.
    Flush,
    /// The local read of a piece of a resync request.
    PieceRead(u32),
    /// A local write of a piece of a resync request.
    PieceWrite(u32),
    /// The read that answers a peer's question.
    Lookup(u32),
    /// The read of what is saved before it is overwritten.
    Branch(u32),
}

impl ImageWork {
    pub(super) const fn encode(self) -> u64 {
        match self {
            Self::Host(id) => id as u64,
            Self::Flush => 1 << 32,
            Self::PieceRead(piece) => 2 << 32 | piece as u64,
            Self::PieceWrite(piece) => 3 << 32 | piece as u64,
            Self::Lookup(lookup) => 4 << 32 | lookup as u64,
            Self::Branch(id) => 5 << 32 | id as u64,
        }
    }

    pub(super) const fn decode(id: u64) -> Self {
        match id >> 32 {
            0 => Self::Host(id as u32),
            1 => Self::Flush,
            2 => Self::PieceRead(id as u32),
            3 => Self::PieceWrite(id as u32),
            4 => Self::Lookup(id as u32),
            _ => Self::Branch(id as u32),
        }
    }
}

/// What an image's error means to the mirror.
pub(super) fn failure_of(error: &ImageError) -> Failure {
    match error {
        ImageError::NoSpace => Failure::NoSpace,
        _ => Failure::Io,
    }
}

/// What a refusal means to a peer.
pub(super) fn failure_in(refusal: &Refusal) -> Failure {
    match refusal.error {
        NbdError::NoSpace => Failure::NoSpace,
        _ => Failure::Io,
    }
}

/// What an image's error means to a client.
pub(super) fn image_refusal(error: &ImageError) -> Refusal {
    match error {
        ImageError::NoSpace => Refusal {
            error: NbdError::NoSpace,
            message: "no space left below the image",
        },
        ImageError::ReadOnly => Refusal {
            error: NbdError::Perm,
            message: "the image is read-only",
        },
        ImageError::FlushFailed { .. } => VOLUME_FAILED,
        ImageError::OutOfRange { .. } => Refusal {
            error: NbdError::Invalid,
            message: "the range is not in the image",
        },
        ImageError::Busy => Refusal {
            error: NbdError::NoMem,
            message: "too many requests are in flight at the image",
        },
        ImageError::Io { .. } | ImageError::Truncated { .. } => LOCAL_IO,
    }
}

/// What the mirror's refusal means to a client.
pub(super) const fn mirror_refusal(refusal: MirrorRefusal) -> Refusal {
    match refusal {
        MirrorRefusal::Local(Failure::Io) => LOCAL_IO,
        MirrorRefusal::Local(Failure::NoSpace) => Refusal {
            error: NbdError::NoSpace,
            message: "no space left below the image",
        },
        MirrorRefusal::PeerGone(_) => Refusal {
            error: NbdError::Io,
            message: "a peer with on_disconnect = \"fail\" is not connected",
        },
        MirrorRefusal::VolumeFailed => VOLUME_FAILED,
        MirrorRefusal::Stopping => Refusal {
            error: NbdError::Shutdown,
            message: "the server is shutting down",
        },
    }
}

pub(super) const NOT_FAST: Refusal = Refusal {
    error: NbdError::NotSupported,
    message: "zeroing this would not be faster than writing it",
};

pub(super) const LOCAL_IO: Refusal = Refusal {
    error: NbdError::Io,
    message: "the image reported an I/O error",
};

pub(super) const VOLUME_FAILED: Refusal = Refusal {
    error: NbdError::Io,
    message: "the volume has failed before (see its status): it takes no more changes",
};
