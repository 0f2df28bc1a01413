//! Requests a mirror knows: of hosts, and of the peer whose stream comes in.

use mirror_core::ByteRange;
use mirror_core::event::{ConnectionId, RequestId};
use mirror_core::stream::intake::Started;

use crate::disk::Stamp;
use crate::serve::Serving;
use crate::truth::Moment;

/// Sectors with what they hold.
pub type Sectors = Vec<(u32, Stamp)>;

/// Where a request came from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A host of this node.
    Host {
        /// Its connection.
        connection: usize,
        /// What it asked.
        asked: Asked,
        /// It has its answer.
        replied: bool,
        /// Its connection died first.
        abandoned: bool,
    },
    /// The stream of a peer.
    Stream {
        /// The peer.
        peer: usize,
        /// Its name at the intake.
        started: Started,
        /// A copy, not a host's write: the one who copies.
        copied_from: Option<usize>,
    },
    /// A barrier of a peer's stream: a flush of ours.
    Barrier {
        /// The peer.
        peer: usize,
        /// On which connection.
        connection: ConnectionId,
    },
}

/// What a host asked, as the checker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A write of this stamp.
    Write {
        /// Its name.
        stamp: Stamp,
        /// Forced unit access.
        fua: bool,
    },
    /// A flush submitted at this moment.
    Flush(Moment),
}

/// What a request stores.
#[derive(Clone, Debug)]
pub enum Content {
    /// A host's write.
    Stamp(Stamp),
    /// A copy.
    Sectors(Sectors),
    /// Nothing: a flush.
    Nothing,
}

/// A request from arrival to release.
#[derive(Clone, Debug)]
pub struct Request {
    /// From where.
    pub origin: Origin,
    /// What it stores.
    pub content: Content,
    /// Where; a flush: nowhere.
    pub range: Option<ByteRange>,
}

/// The requests of one volume, by the number the mirror knows them by.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    all: Vec<Option<Request>>,
    free: Vec<u32>,
    /// In use.
    pub len: usize,
}

impl Requests {
    /// A new one.
    pub fn insert(&mut self, request: Request) -> RequestId {
        self.len += 1;
        if let Some(id) = self.free.pop() {
            self.all[id as usize] = Some(request);
            return RequestId(id);
        }
        self.all.push(Some(request));
        RequestId(self.all.len() as u32 - 1)
    }

    /// One of them.
    pub fn get(&self, id: RequestId) -> Option<&Request> {
        self.all.get(id.0 as usize)?.as_ref()
    }

    /// One of them, to change it.
    pub fn get_mut(&mut self, id: RequestId) -> Option<&mut Request> {
        self.all.get_mut(id.0 as usize)?.as_mut()
    }

    /// It is released.
    pub fn remove(&mut self, id: RequestId) -> Option<Request> {
        let request = self.all.get_mut(id.0 as usize)?.take()?;
        self.len -= 1;
        self.free.push(id.0);
        Some(request)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (RequestId, &Request)> {
        let numbered = self.all.iter().enumerate();
        numbered.filter_map(|(id, request)| Some((RequestId(id as u32), request.as_ref()?)))
    }
}

impl Request {
    /// A host waits for its answer.
    pub fn waits(&self) -> bool {
        matches!(
            self.origin,
            Origin::Host {
                replied: false,
                abandoned: false,
                ..
            }
        )
    }

    /// It came by a stream and changes some of these bytes.
    pub fn is_stream_write_to(&self, range: ByteRange) -> bool {
        matches!(self.origin, Origin::Stream { .. }) && self.range.is_some_and(|mine| mine.overlaps(range))
    }
}

/// A read asked by a peer that waits for writes which came before it and are not applied yet.
#[derive(Clone, Debug)]
pub struct Held {
    /// What is to be read, and for whom.
    pub serving: Serving,
    /// Where.
    pub range: ByteRange,
    /// The writes.
    pub after: Vec<RequestId>,
}
