//! A peer of a volume: its connection, the one before it, and the wish for the next one.
//!
//! ```text
//!          wanted                     PeerReady                 lost, given up
//!  Idle ------------> Dialling ------------------> Linked ------------------------+
//!   ^                    |  PeerFailed: next attempt                              |
//!   |                    v                                                        v
//!   +------------- not wanted any more      Dialling <-- closed by the peer -- Fencing
//! ```

mod link;
mod op;
mod retired;

use std::io;
use std::time::Duration;

use mirror_core::event::{ConnectionId, PeerIndex};

pub(crate) use self::link::{Link, Lost};
pub(crate) use self::op::{Action, LinkDone, LinkWork, PeerError};
use self::retired::Retired;
use super::message::{FromData, PeerHandover};
use super::plan::PeerPlan;
use super::token::{Kind, Token};
use super::turn::Turn;
use crate::ring::Op;

/// A connection that lived this long was a success: the next attempt starts without backoff.
const STABLE: Duration = Duration::from_secs(10);
/// Between the end of a connection with requests unanswered and the next connection (the zombie-write rule). The end may
/// have been made up on the way, by a router that forgot the connection, or by the kernel after a daemon that was
/// killed: what has reached the peer by then it carries out within this time. Not for Unix sockets, whose ends know.
pub(crate) const SETTLE: Duration = Duration::from_secs(1);
/// Bits of a token's value that hold the connection; the peer's index is above them.
const CONNECTION_BITS: u32 = 32;

/// A peer of one volume.
pub(crate) struct Peer {
    volume: usize,
    index: PeerIndex,
    plan: PeerPlan,
    link: Option<Link>,
    retired: Option<Retired>,
    /// The mirror wants a connection.
    wanted: bool,
    /// The control side has been asked for one and has not answered.
    dialling: bool,
    attempt: u32,
    connections: u32,
    last_error: Option<String>,
    /// No connection is asked for before.
    not_before: Duration,
}

/// What a link or a fence needs to know about its volume to judge whether a peer fits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fit {
    /// Bytes.
    pub(crate) size: u64,
    /// Minimum block size of the export, bytes.
    pub(crate) minimum_block: u32,
}

impl Peer {
    /// A range of zeroes goes to it as a range: it is no plain server now, or one that takes WRITE_ZEROES.
    pub(crate) fn takes_zeroes(&self) -> bool {
        self.link.as_ref().is_none_or(|link| link.limits().can_zero())
    }

    /// `settle`: the daemon before this one did not stop in good order, so what it sent may still be on its way.
    pub(crate) fn new(volume: usize, index: PeerIndex, plan: PeerPlan, settle: bool) -> Self {
        Self {
            volume,
            index,
            plan,
            link: None,
            retired: None,
            wanted: false,
            dialling: false,
            attempt: 0,
            connections: 0,
            last_error: None,
            not_before: if settle { SETTLE } else { Duration::ZERO },
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.plan.name
    }

    pub(crate) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Attempts to connect since the last success.
    pub(crate) fn attempts(&self) -> u32 {
        if self.link.is_some() { 0 } else { self.attempt }
    }

    pub(crate) fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }

    pub(crate) fn link_mut(&mut self) -> Option<&mut Link> {
        self.link.as_mut()
    }

    /// The present link, if it is the connection that is meant.
    pub(crate) fn link_of(&mut self, connection: ConnectionId) -> Option<&mut Link> {
        self.link.as_mut().filter(|link| link.connection() == connection)
    }

    /// Remember what went wrong.
    pub(crate) fn note_error(&mut self, error: String) {
        self.last_error = Some(error);
    }

    /// The mirror wants a connection.
    pub(crate) fn want(&mut self, turn: &Turn) {
        self.wanted = true;
        self.dial(turn);
    }

    /// The mirror wants none.
    pub(crate) fn stop_wanting(&mut self, turn: &Turn) {
        self.wanted = false;
        self.attempt = 0;
        if self.dialling {
            self.dialling = false;
            turn.tell(FromData::CancelConnect {
                volume: self.volume,
                peer: self.place(),
            });
        }
    }

    /// An attempt failed: on to the next one.
    pub(crate) fn dial_failed(&mut self, turn: &Turn, error: String) {
        if !self.dialling {
            return;
        }
        if self.last_error.as_ref() != Some(&error) {
            tracing::warn!(peer = self.plan.name, error, "cannot connect to the peer; trying again");
        }
        self.dialling = false;
        self.attempt = self.attempt.saturating_add(1);
        self.last_error = Some(error);
        self.dial(turn);
    }

    /// A connection was made: take it if it is still wanted and the peer fits. `Some`: the mirror is to be told.
    pub(crate) fn dialled(&mut self, turn: &Turn, handover: PeerHandover, fit: Fit) -> Option<ConnectionId> {
        if !self.dialling || !self.wanted || self.link.is_some() {
            return None;
        }
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let tokens = (
            self.token(Kind::LinkReceive, connection),
            self.token(Kind::LinkSend, connection),
        );
        let verdict = Link::new(turn, connection, handover, tokens)
            .map_err(|error| format!("cannot use the connection: {error}"))
            .and_then(|link| check_fit(&link, fit).map(|()| link));
        match verdict {
            Ok(link) => {
                self.dialling = false;
                if !link.limits().can_flush() {
                    tracing::warn!(
                        peer = self.plan.name,
                        "the peer does not offer FLUSH: nothing is known about what is durable there"
                    );
                }
                self.link = Some(link);
                Some(connection)
            }
            Err(error) => {
                self.dial_failed(turn, error);
                None
            }
        }
    }

    /// Give up the present link. Returns the connection that is gone.
    pub(crate) fn lose(&mut self, turn: &mut Turn, lost: &Lost) -> Option<ConnectionId> {
        let link = self.link.take()?;
        let connection = link.connection();
        self.count_attempt(turn.now - link.since());
        self.last_error = Some(lost.reason.clone());
        if lost.closed {
            self.settle(turn, link.may_land());
            link.close();
        } else {
            self.retired = Some(link.retire(turn));
        }
        self.dial(turn);
        Some(connection)
    }

    /// The mirror is through with this connection, or with trying to make one.
    pub(crate) fn give_up(&mut self, turn: &mut Turn, connection: Option<ConnectionId>) {
        if let Some(link) = self.link.take_if(|link| Some(link.connection()) == connection) {
            self.count_attempt(turn.now - link.since());
            self.retired = Some(link.retire(turn));
        }
    }

    /// A receive of one of its connections came back. `Err`: the present link is lost.
    pub(crate) fn on_received(
        &mut self,
        turn: &mut Turn,
        connection: ConnectionId,
        result: io::Result<usize>,
        op: Op,
    ) -> Result<(), Lost> {
        if let Some(link) = self.link.as_mut().filter(|link| link.connection() == connection) {
            return link.on_received(turn, result, op);
        }
        let ended = self
            .retired
            .take_if(|retired| retired.connection() == connection && retired.on_received(turn, result, op));
        if let Some(retired) = ended {
            self.settle(turn, retired.may_land());
            self.dial(turn);
        }
        Ok(())
    }

    /// A send of one of its connections came back. `Err`: the present link is lost.
    pub(crate) fn on_sent(
        &mut self,
        turn: &mut Turn,
        connection: ConnectionId,
        result: io::Result<usize>,
        op: Op,
    ) -> Result<(), Lost> {
        match self.link_of(connection) {
            Some(link) => link.on_sent(turn, result, op),
            None => Ok(()),
        }
    }

    /// Has time run out for something? `Err`: the present link is lost.
    pub(crate) fn check_time(&mut self, turn: &Turn) -> Result<(), Lost> {
        let fence = self.plan.fence_timeout;
        if let Some(retired) = self.retired.take_if(|retired| turn.now >= retired.since() + fence) {
            tracing::warn!(
                peer = self.plan.name,
                "the peer has not closed a lost connection for {} s; going on without waiting for it",
                fence.as_secs()
            );
            self.settle(turn, retired.may_land());
            retired.cut();
        }
        self.dial(turn);
        let late = self
            .link
            .as_ref()
            .and_then(Link::oldest)
            .is_some_and(|oldest| turn.now >= oldest + self.plan.request_timeout);
        if late {
            let timeout = self.plan.request_timeout.as_secs_f64();
            return Err(Lost::new(format!(
                "the peer has not answered a request for {timeout} s"
            )));
        }
        Ok(())
    }

    /// Something of it depends on time.
    pub(crate) fn needs_time(&self) -> bool {
        let waits = self.wanted && !self.dialling && self.link.is_none();
        waits || self.retired.is_some() || self.link.as_ref().is_some_and(|link| link.oldest().is_some())
    }

    /// A connection ended after this long: where the backoff goes on.
    fn count_attempt(&mut self, lived: Duration) {
        self.attempt = if lived >= STABLE {
            0
        } else {
            self.attempt.saturating_add(1)
        };
    }

    /// Ask for a connection, if one is wanted and the last one is out of the way.
    fn dial(&mut self, turn: &Turn) {
        let busy = self.dialling || self.link.is_some() || self.retired.is_some();
        if !self.wanted || busy || turn.now < self.not_before {
            return;
        }
        self.dialling = true;
        turn.tell(FromData::Connect {
            volume: self.volume,
            peer: self.place(),
            attempt: self.attempt,
        });
    }

    /// A connection has ended: not at once on to the next one, if something sent on it `may_land`.
    fn settle(&mut self, turn: &Turn, may_land: bool) {
        if may_land {
            self.not_before = self.not_before.max(turn.now + SETTLE);
        }
    }

    fn place(&self) -> usize {
        usize::from(self.index.0)
    }

    fn token(&self, kind: Kind, connection: ConnectionId) -> Token {
        let value = u64::from(self.index.0) << CONNECTION_BITS | u64::from(connection.0);
        Token {
            kind,
            index: self.volume,
            value,
        }
    }
}

/// The peer and the connection a link's token names.
pub(crate) fn named_by(token: Token) -> (PeerIndex, ConnectionId) {
    (
        PeerIndex((token.value >> CONNECTION_BITS) as u8),
        ConnectionId(token.value as u32),
    )
}

/// Can this peer hold a copy of the volume?
fn check_fit(link: &Link, fit: Fit) -> Result<(), String> {
    let limits = link.limits();
    if limits.read_only() {
        return Err("the peer's export is read-only: export it writable".to_owned());
    }
    if limits.size < fit.size {
        return Err(format!(
            "the peer's export has {} bytes, this volume {}: make the peer's image at least as large",
            limits.size, fit.size
        ));
    }
    let block = limits.minimum_block;
    if !fit.minimum_block.is_multiple_of(block) || !fit.size.is_multiple_of(u64::from(block)) {
        return Err(format!(
            "the peer takes only multiples of {block} bytes, this volume has blocks of {} and {} bytes in all: export \
             the peer's image with a smaller block size, or this one with a larger",
            fit.minimum_block, fit.size
        ));
    }
    Ok(())
}
