//! The transmission phase of an NBD initiator, sans-io: which requests are in flight and what the server's bytes mean.
//!
//! ```text
//!            start()                      receive(bytes)
//!   free ───────────────▶ in flight ─────────────────────────▶ free   (Event::Done)
//!     ▲                     │  cookie = connection, generation, slot; a reply must name a request in flight
//!     └─────────────────────┘
//!              drain()
//! ```

mod error;
mod in_flight;
mod limits;
mod partial;
mod reading;
mod replies;
mod reporting;
mod slots;

use std::time::Duration;

use nbd_proto::client::Negotiated;
use nbd_proto::reply::Encoded;
use nbd_proto::{Command, NbdError, PeerMisbehaved, ReplyStyle, Request};

pub use error::StartError;
pub use limits::{Limits, MAX_PAYLOAD};
pub use reporting::Status;
pub use slots::MAX_WINDOW;

use in_flight::InFlight;
use replies::Stage;
use reporting::Reporting;
use slots::Slots;

/// The transmission phase of one connection; `T` is the caller's tag, given back with the answer.
///
/// - [`start`](Self::start) gives the header to send; the payload of a WRITE must follow them directly. Requests
///   must be sent in the order they were started in.
/// - [`receive`](Self::receive) takes whatever came from the socket, in any pieces.
/// - After [`PeerMisbehaved`] nothing more is taken: close the socket and [`drain`](Self::drain).
///
/// No payload passes through it but what READs bring. Starting and finishing anything else than a READ or a BLOCK_STATUS
/// allocates nothing. The caller must not have overlapping changes in flight (servers may apply them in any order), and must
/// start a FLUSH only after the answers it is meant to cover have come.
pub struct Pipeline<T> {
    limits: Limits,
    style: ReplyStyle,
    /// Numbers of the metadata contexts that are selected.
    contexts: Vec<u32>,
    slots: Slots<T>,
    stage: Stage,
    /// Bytes of a header, or of an error chunk, that has not come whole.
    partial: Vec<u8>,
    closing: bool,
    misbehaved: Option<PeerMisbehaved>,
}

/// What came of the server's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<T> {
    /// A request was answered; its place in the window is free.
    Done {
        /// The caller's tag.
        tag: T,
        /// Done, or the server's error. [`NbdError::Shutdown`] asks us to disconnect.
        outcome: Result<(), NbdError>,
        /// The server's words about the error, at most 4096 bytes.
        message: Option<String>,
        /// The bytes of a READ that was done, as many as were asked for.
        data: Option<Vec<u8>>,
        /// What a BLOCK_STATUS that was done tells, for each context that was asked for; empty for anything else.
        statuses: Vec<Status>,
    },
}

impl<T> Pipeline<T> {
    /// A fresh connection with at most `window` requests in flight (clamped to 1..=[`MAX_WINDOW`]).
    pub fn new(negotiated: &Negotiated, window: usize) -> Self {
        Self::numbered(negotiated, window, 0)
    }

    /// As [`new`](Self::new), with the connection's number in every cookie: a reply that a confused server meant for
    /// an earlier connection is then not taken for one of ours. The lower 24 bits count.
    pub fn numbered(negotiated: &Negotiated, window: usize, connection: u32) -> Self {
        Self {
            limits: Limits::new(negotiated),
            style: negotiated.replies,
            contexts: negotiated.contexts.iter().map(|context| context.id).collect(),
            slots: Slots::new(window, connection),
            stage: Stage::Header,
            partial: Vec::with_capacity(partial::PARTIAL_CAPACITY),
            closing: false,
            misbehaved: None,
        }
    }

    /// What the server permits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.slots.count()
    }

    /// Most requests in flight.
    pub fn window(&self) -> usize {
        self.slots.window()
    }

    /// One more request can be started.
    pub fn has_room(&self) -> bool {
        self.slots.count() < self.slots.window()
    }

    /// When the oldest request in flight was started, for timeouts.
    pub fn oldest(&self) -> Option<Duration> {
        self.slots.oldest().map(|(_, request)| request.started)
    }

    /// Whether `start` would take this.
    pub fn check(&self, command: Command, offset: u64, length: u64) -> Result<(), StartError> {
        if self.closing || self.misbehaved.is_some() {
            return Err(StartError::Closing);
        }
        if !self.has_room() {
            return Err(StartError::WindowFull { window: self.window() });
        }
        self.limits.check(command, offset, length)
    }

    /// Puts a request in flight; the header to send. `offset` and `length` are bytes, and ignored for a FLUSH. `now`
    /// is what [`oldest`](Self::oldest) reports. A BLOCK_STATUS asks for every context that is selected. On an error the
    /// tag is dropped; [`check`](Self::check) first to keep it.
    pub fn start(
        &mut self,
        now: Duration,
        command: Command,
        offset: u64,
        length: u64,
        tag: T,
    ) -> Result<Encoded, StartError> {
        let reporting = matches!(command, Command::BlockStatus { .. }).then(|| Reporting::new(self.contexts.clone()));
        let request = self.insert(now, command, (offset, length), reporting, tag)?;
        Ok(request.encode_in(self.style))
    }

    /// Puts a BLOCK_STATUS in flight that asks for some of the contexts only, by their numbers; header and payload to
    /// send. With `one` it asks for one extent of each, no longer than the range.
    pub fn start_filtered(
        &mut self,
        now: Duration,
        one: bool,
        (offset, length): (u64, u64),
        contexts: &[u32],
        tag: T,
    ) -> Result<(Encoded, Vec<u8>), StartError> {
        if !self.limits.can_filter_status() {
            return Err(StartError::NotOffered("BLOCK_STATUS for some contexts only"));
        }
        if contexts.is_empty() {
            return Err(StartError::Empty);
        }
        if let Some(unknown) = contexts.iter().find(|context| !self.contexts.contains(context)) {
            return Err(StartError::NoSuchContext(*unknown));
        }
        let reporting = Some(Reporting::new(contexts.to_vec()));
        let request = self.insert(now, Command::BlockStatus { one }, (offset, length), reporting, tag)?;
        Ok(request.encode_filtered(contexts.to_vec()))
    }

    fn insert(
        &mut self,
        now: Duration,
        command: Command,
        (offset, length): (u64, u64),
        reporting: Option<Reporting>,
        tag: T,
    ) -> Result<Request, StartError> {
        self.check(command, offset, length)?;
        let (offset, length) = if matches!(command, Command::Flush) {
            (0, 0)
        } else {
            (offset, length)
        };
        let request = InFlight {
            tag,
            started: now,
            command,
            offset,
            length,
            reading: None,
            reporting,
            failure: None,
        };
        let cookie = self.slots.insert(request).ok_or(StartError::WindowFull {
            window: self.slots.window(),
        })?;
        Ok(Request::new(command, cookie, offset, length))
    }

    /// The DISC request, which has no answer: send it, wait for the server to close. Nothing can be started after it.
    pub fn disconnect(&mut self) -> Encoded {
        self.closing = true;
        Request::new(Command::Disconnect, 0, 0, 0).encode_in(self.style)
    }

    /// The connection is lost: all tags of requests in flight, in the order they were started in. Nothing can be
    /// started or received any more.
    pub fn drain(&mut self) -> Vec<T> {
        self.closing = true;
        let mut tags = Vec::with_capacity(self.slots.count());
        while let Some((oldest, _)) = self.slots.oldest() {
            tags.extend(self.slots.remove(oldest).map(|request| request.tag));
        }
        tags
    }
}

#[cfg(test)]
mod tests;
