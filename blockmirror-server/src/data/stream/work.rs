//! What goes into a stream link and what comes out.

use mirror_core::ByteRange;
use mirror_core::event::{ConnectionId, CopyId, Failure, RequestId};
use mirror_core::resource::event::Loss;
use mirror_core::stream::codec::Checksum;
use mirror_core::stream::intake::Started;
use mirror_core::stream::{Control, Request, codec};

use crate::ring::Payload;

/// Why something is asked of the peer: comes back with its answer, next to the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamWork {
    /// A host mutation.
    Mutation(RequestId),
    /// The mirror's flush.
    Flush,
    /// The end of an epoch: never answered.
    Barrier,
    /// A step of a resync request or of a comparison, whatever it asks.
    Copy {
        /// Its place in the table of pieces.
        piece: u32,
        /// The resync request; tells a piece from a later one in the same place.
        copy: CopyId,
    },
    /// A READ this node cannot serve; the value is the volume's own.
    Read(u32),
    /// A word between two mirrors.
    Message,
}

/// What a payload is checked by before it is known which peers get it.
pub(crate) const CHECKSUM: Checksum = Checksum::Xxh3;

/// A payload and its checksum, computed once: clones go to every peer.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(super) payload: Payload,
    check: codec::Payload,
}

impl Checked {
    pub(crate) fn new(payload: Payload) -> Self {
        let check = codec::Payload::of(CHECKSUM, payload.as_slice());
        Self { payload, check }
    }

    /// Its checksum, [`CHECKSUM`], is known already.
    pub(crate) fn known(payload: Payload, check: codec::Payload) -> Self {
        Self { payload, check }
    }

    /// Length and checksum on a connection. A peer of an older release has its own: that is computed for it alone.
    pub(super) fn check(&self, checksum: Checksum) -> codec::Payload {
        if checksum == CHECKSUM {
            self.check
        } else {
            codec::Payload::of(checksum, self.payload.as_slice())
        }
    }
}

/// Something that came from the peer, in the order it came.
#[derive(Debug)]
pub(crate) enum StreamEvent {
    /// The peer asks something that is to be started now. Its number follows that of the request before, it keeps to the
    /// credit granted, its payload has the length its range says, and the checksum is right. Its range may reach beyond the
    /// volume: the stream does not know how large that is. Never a barrier.
    Request {
        /// Its name until [`finished`](super::StreamPort::finished).
        started: Started,
        /// By its place in the HELLO of the node that dialled; one of the volumes there.
        volume: u16,
        /// What.
        request: Request,
        /// Of Write and CopyWrite.
        payload: Option<Payload>,
    },
    /// An epoch ends: make what is applied to this volume durable, then tell [`flushed`](super::StreamPort::flushed).
    FlushVolume {
        /// The connection whose barrier needs it.
        connection: ConnectionId,
        /// The volume.
        volume: u16,
    },
    /// The peer has answered.
    Answered {
        /// The volume given to `ask`.
        volume: u16,
        /// The work given to `ask`.
        work: StreamWork,
        /// How it ended.
        outcome: StreamOutcome,
    },
    /// Between resources. Heartbeats, their echoes and credits stay in the link.
    Control(Control),
}

/// How something asked of the peer has ended. It fits what was asked: a link whose peer answers otherwise is lost.
#[derive(Debug)]
pub(crate) enum StreamOutcome {
    /// Done: a mutation, copy, flush or message.
    Done,
    /// Failed at the peer.
    Failed(Failure),
    /// Of a Compare: what differs, in order, within what was asked.
    Differs(Vec<ByteRange>),
    /// Of a Fetch: what differs; of a Read: all of it. In order, within what was asked.
    Contents {
        /// Whose bytes `payload` holds, one behind the other, without those in `holes`.
        ranges: Vec<ByteRange>,
        /// Which of `ranges` are holes: no bytes.
        holes: Vec<ByteRange>,
        /// The bytes.
        payload: Option<Payload>,
    },
}

/// How a request of the peer is answered.
#[derive(Debug)]
pub(crate) enum StreamReply {
    /// Done: a mutation, copy, flush or message.
    Done,
    /// Failed here.
    Failed(Failure),
    /// To a Compare: what differs, in order.
    Differs(Vec<ByteRange>),
    /// To a Fetch: what differs; to a Read: all of it. In order.
    Contents {
        /// Whose bytes follow, without those in `holes`.
        ranges: Vec<ByteRange>,
        /// Which of `ranges` are holes.
        holes: Vec<ByteRange>,
        /// The bytes, in order, cut as you like.
        parts: Vec<Payload>,
    },
}

/// A request of the peer that has come and is not started.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) request: Request,
    pub(super) payload: Option<Payload>,
}

/// What is left of a link that is lost.
#[derive(Debug)]
pub(crate) struct Remains {
    /// Its number.
    pub(crate) connection: ConnectionId,
    /// What of the peer's host writes is known to be missing here: of use when it was Primary.
    pub(crate) loss: Loss,
}

/// Why a stream link is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamLost {
    /// The peer closed the connection, or it was reset.
    Closed(String),
    /// The network failed.
    Network(String),
    /// Nothing was heard, or not answered, for too long.
    Silent(String),
    /// What came is damaged: a checksum is wrong.
    Damaged(String),
    /// The peer does not keep to the protocol.
    Protocol(String),
    /// We closed it ([`close`](super::StreamPort::close)).
    Ended(String),
}

impl StreamLost {
    /// For the operator.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Closed(reason)
            | Self::Network(reason)
            | Self::Silent(reason)
            | Self::Damaged(reason)
            | Self::Protocol(reason)
            | Self::Ended(reason) => reason,
        }
    }
}
