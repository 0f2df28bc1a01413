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
mod limits;
mod reading;
mod replies;
mod slots;

use std::time::Duration;

use nbd_proto::client::Negotiated;
use nbd_proto::{Command, NbdError, PeerMisbehaved, Request};

pub use error::StartError;
pub use limits::{Limits, MAX_PAYLOAD};
pub use slots::MAX_WINDOW;

use replies::Stage;
use slots::{InFlight, Slots};

/// The transmission phase of one connection; `T` is the caller's tag, given back with the answer.
///
/// - [`start`](Self::start) gives the 28 bytes to send; the payload of a WRITE must follow them directly. Requests
///   must be sent in the order they were started in.
/// - [`receive`](Self::receive) takes whatever came from the socket, in any pieces.
/// - After [`PeerMisbehaved`] nothing more is taken: close the socket and [`drain`](Self::drain).
///
/// No payload passes through it but what READs bring. Starting and finishing anything else than a READ allocates
/// nothing. The caller must not have overlapping changes in flight (servers may apply them in any order), and must
/// start a FLUSH only after the answers it is meant to cover have come.
pub struct Pipeline<T> {
    limits: Limits,
    structured: bool,
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
            structured: negotiated.replies.has_chunks(),
            slots: Slots::new(window, connection),
            stage: Stage::Header,
            partial: Vec::with_capacity(replies::PARTIAL_CAPACITY),
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
    pub fn check(&self, command: Command, offset: u64, length: u32) -> Result<(), StartError> {
        if self.closing || self.misbehaved.is_some() {
            return Err(StartError::Closing);
        }
        if !self.has_room() {
            return Err(StartError::WindowFull { window: self.window() });
        }
        self.limits.check(command, offset, length)
    }

    /// Puts a request in flight; the header to send. `offset` and `length` are bytes, and ignored for a FLUSH. `now`
    /// is what [`oldest`](Self::oldest) reports. On an error the tag is dropped; [`check`](Self::check) first to keep it.
    pub fn start(
        &mut self,
        now: Duration,
        command: Command,
        offset: u64,
        length: u32,
        tag: T,
    ) -> Result<[u8; Request::LENGTH], StartError> {
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
            failure: None,
        };
        let cookie = self.slots.insert(request).ok_or(StartError::WindowFull {
            window: self.slots.window(),
        })?;
        Ok(Request::new(command, cookie, offset, u64::from(length)).encode())
    }

    /// The DISC request, which has no answer: send it, wait for the server to close. Nothing can be started after it.
    pub fn disconnect(&mut self) -> [u8; Request::LENGTH] {
        self.closing = true;
        Request::new(Command::Disconnect, 0, 0, 0).encode()
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
