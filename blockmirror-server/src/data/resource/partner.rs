//! A peer of a resource that is, or may be, another blockmirror: the wish for a stream to it, and the stream.
//!
//! ```text
//!          Dial                  StreamReady                open              lost, closed
//!  Idle ---------> Dialling ------------------> Held -------------> Open ---------------------> Idle
//!   ^                | StreamFailed: next attempt   (until nothing of an older connection is in progress)
//!   +-- CancelDial --+ StreamPlain, StreamRested
//! ```

use std::time::Duration;

use mirror_core::event::{ConnectionId, PeerIndex};
use mirror_core::stream::intake::VOLUMES_MAX;

use super::numbering::Numbering;
use crate::data::message::{FromData, StreamSnapshot};
use crate::data::plan::PartnerPlan;
use crate::data::stream::{StreamLost, StreamPort, WINDOW};
use crate::data::token::{Kind, Token};
use crate::data::turn::Turn;

/// Bits of a token's value that hold the connection; the peer's index is above them.
const CONNECTION_BITS: u32 = 32;
/// A connection of our own that is on its way is waited for so long while the peer's is there.
const OWN_FIRST: Duration = Duration::from_secs(1);
/// A stream that lived this long was a success: the next attempt starts without backoff.
const STABLE: Duration = Duration::from_secs(10);

pub(super) struct Partner {
    resource: usize,
    pub(super) index: PeerIndex,
    pub(super) plan: PartnerPlan,
    pub(super) port: StreamPort,
    /// Which volumes the numbers on the present stream mean.
    pub(super) numbering: Numbering,
    /// The peer's life, of the present stream.
    pub(super) incarnation: u64,
    /// The core has been told of the present stream.
    pub(super) told: bool,
    /// The present stream is being closed by us.
    pub(super) closing: bool,
    /// The present stream is lost, once what came on it before has been taken.
    pub(super) lost: Option<StreamLost>,
    /// The core wants a stream.
    wanted: bool,
    /// The control side has been asked for one and has not answered.
    dialling: bool,
    attempt: u32,
    connections: u32,
    last_error: Option<String>,
}

impl Partner {
    pub(super) fn new(resource: usize, index: PeerIndex, plan: PartnerPlan) -> Self {
        Self {
            resource,
            index,
            plan,
            port: StreamPort::new(VOLUMES_MAX, WINDOW),
            numbering: Numbering::default(),
            incarnation: 0,
            told: false,
            closing: false,
            lost: None,
            wanted: false,
            dialling: false,
            attempt: 0,
            connections: 0,
            last_error: None,
        }
    }

    /// The core wants a stream.
    pub(super) fn want(&mut self, turn: &Turn) {
        self.wanted = true;
        self.dial(turn);
    }

    /// The core wants none, or has one.
    pub(super) fn stop_wanting(&mut self, turn: &Turn) {
        self.wanted = false;
        self.cancel(turn);
    }

    /// The peer's connection is there: ours is not needed. But that of the node with the smaller name wins over one that
    /// crosses it, on both ends: if it is on its way, it is let come.
    pub(super) fn pause_for_theirs(&mut self, turn: &Turn, our_name: &str) {
        if our_name > self.plan.name.as_str() {
            self.cancel(turn);
        } else if self.dialling {
            turn.tell(FromData::RestStream {
                resource: self.resource,
                peer: self.place(),
            });
        }
    }

    /// The peer's connection is there, and one of our own that will take its place may be on its way: a handshake would be
    /// cut off in the middle, and begin anew. A daemon that starts finds its peer's connection waiting, and dials itself.
    pub(super) fn expects_own(&self, now: Duration, our_name: &str) -> bool {
        let theirs = self.port.standing().is_some_and(|standing| !standing.dialled);
        let young = self.port.since().is_some_and(|since| now < since + OWN_FIRST);
        self.dialling && theirs && young && our_name < self.plan.name.as_str()
    }

    /// The attempt that was asked for was not begun.
    pub(super) fn rested(&mut self, turn: &Turn) {
        if self.take_answer() {
            // What made it needless may be gone again.
            self.dial(turn);
        }
    }

    /// The core has got the stream it wanted.
    pub(super) fn is_had(&mut self, turn: &Turn, our_name: &str) {
        self.wanted = false;
        self.pause_for_theirs(turn, our_name);
    }

    fn cancel(&mut self, turn: &Turn) {
        if self.dialling {
            self.dialling = false;
            turn.tell(FromData::CancelStream {
                resource: self.resource,
                peer: self.place(),
            });
        }
    }

    /// The attempt under way has been answered. False: none is, or the answer crossed its cancellation.
    pub(super) fn take_answer(&mut self) -> bool {
        std::mem::take(&mut self.dialling)
    }

    /// The volumes have changed while the connection was made: whoever dialled does so again.
    pub(super) fn dial_again(&mut self, turn: &Turn) {
        tracing::debug!(
            peer = self.plan.name,
            "a connection is not used: the volumes have changed"
        );
        self.dial(turn);
    }

    /// An attempt failed: on to the next one.
    pub(super) fn failed(&mut self, turn: &Turn, error: String) {
        if self.last_error.as_ref() != Some(&error) {
            tracing::warn!(
                peer = self.plan.name,
                error,
                "no replication stream to the peer; trying again"
            );
        }
        self.attempt = self.attempt.saturating_add(1);
        self.last_error = Some(error);
        self.dial(turn);
    }

    /// The number and the tokens of a new stream.
    pub(super) fn next_connection(&mut self) -> (ConnectionId, (Token, Token)) {
        self.connections += 1;
        let value = u64::from(self.index.0) << CONNECTION_BITS | u64::from(self.connections);
        let token = |kind| Token {
            kind,
            index: self.resource,
            value,
        };
        let connection = ConnectionId(self.connections);
        (connection, (token(Kind::StreamReceive), token(Kind::StreamSend)))
    }

    /// The stream was lost after it had been made at `since`.
    pub(super) fn ended(&mut self, turn: &Turn, since: Option<Duration>, reason: &str) {
        let lived = since.map_or(Duration::ZERO, |since| turn.now.saturating_sub(since));
        self.attempt = if lived >= STABLE {
            0
        } else {
            self.attempt.saturating_add(1)
        };
        self.last_error = Some(reason.to_owned());
        (self.told, self.closing, self.lost) = (false, false, None);
        // The core may still wait for the one it asked for.
        self.dial(turn);
    }

    pub(super) fn snapshot(&self, now: Duration) -> StreamSnapshot {
        StreamSnapshot {
            peer: self.plan.name.clone(),
            connected: self.told,
            in_flight: self.port.unanswered(),
            bytes_waiting: self.port.waiting_bytes(),
            lag: self.port.lag(now),
            round_trip: self.port.round_trip(),
            attempts: if self.told { 0 } else { self.attempt },
            damaged: self.port.damaged(),
            last_error: self.last_error.clone(),
        }
    }

    fn dial(&mut self, turn: &Turn) {
        if !self.wanted || self.dialling || self.port.connection().is_some() {
            return;
        }
        self.dialling = true;
        turn.tell(FromData::DialStream {
            resource: self.resource,
            peer: self.place(),
            attempt: self.attempt,
        });
    }

    fn place(&self) -> usize {
        usize::from(self.index.0)
    }
}

/// The peer and the connection a stream's token names.
pub(super) fn named_by(token: Token) -> (PeerIndex, ConnectionId) {
    (
        PeerIndex((token.value >> CONNECTION_BITS) as u8),
        ConnectionId(token.value as u32),
    )
}
