//! A connection that was given up, until the peer has closed it.
//!
//! What was sent on it may still be carried out. The next connection to the peer must not be used before that has
//! ended, or a late write would land on top of a newer one (the zombie-write rule in docs/ARCHITECTURE.md). A server
//! closes its side once it has nothing of the connection left to do: that is what is waited for.

use std::io;
use std::time::Duration;

use mirror_core::event::ConnectionId;

use crate::data::outbox::is_transient;
use crate::data::staging::Staging;
use crate::data::token::Token;
use crate::data::turn::Turn;
use crate::ring::{Op, Socket};

/// A connection that was given up and is read to its end.
pub(crate) struct Retired {
    connection: ConnectionId,
    socket: Socket,
    receive_token: Token,
    since: Duration,
    may_land: bool,
}

impl Retired {
    /// `receiving`: a receive is in flight already; `may_land`: see [`Link::may_land`](super::Link).
    pub(super) fn new(
        turn: &mut Turn,
        connection: ConnectionId,
        socket: Socket,
        receive_token: Token,
        mut staging: Staging,
        (receiving, may_land): (bool, bool),
    ) -> Self {
        let retired = Self {
            connection,
            socket,
            receive_token,
            since: turn.now,
            may_land,
        };
        if !receiving {
            let length = staging.len();
            staging.consume(length);
            if let Some((buffer, _)) = staging.lend() {
                retired.receive(turn, buffer);
            }
        }
        retired
    }

    pub(super) fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// When it was given up.
    pub(super) fn since(&self) -> Duration {
        self.since
    }

    /// What was sent on it may land for a while after its end.
    pub(super) fn may_land(&self) -> bool {
        self.may_land
    }

    /// A receive came back: late answers are thrown away. True: the peer has closed the connection.
    pub(super) fn on_received(&self, turn: &mut Turn, result: io::Result<usize>, op: Op) -> bool {
        let Op::Receive { buffer, .. } = op else { return false };
        match result {
            Ok(0) => true,
            Ok(_) => {
                self.receive(turn, buffer);
                false
            }
            Err(error) if is_transient(&error) => {
                self.receive(turn, buffer);
                false
            }
            // Any other error says that our side gave up, not that the peer did: only time helps then.
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// Wait no longer.
    pub(super) fn cut(self) {
        // It fails when the connection is broken already.
        let _ = self.socket.shutdown_both();
    }

    fn receive(&self, turn: &mut Turn, buffer: crate::ring::Buffer) {
        turn.submit(
            self.receive_token,
            Op::Receive {
                socket: self.socket.clone(),
                buffer,
                filled: 0,
            },
        );
    }
}
