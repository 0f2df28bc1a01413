//! One connection to a peer: pipelined requests, gathered sends.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::time::Duration;

use blockmirror_client::pipeline::{Event, Limits, Pipeline};
use mirror_core::event::ConnectionId;
use nbd_proto::NbdError;

use super::op::{Action, LinkDone, LinkOp, LinkWork, PeerError, Piece, PiecePayload, ZERO_PAYLOAD_BYTES};
use super::retired::Retired;
use crate::data::message::PeerHandover;
use crate::data::outbox::{Outbox, Sent, is_transient};
use crate::data::slab::Slab;
use crate::data::socket::{is_unix, stream_socket};
use crate::data::staging::Staging;
use crate::data::token::Token;
use crate::data::turn::Turn;
use crate::ring::{Op, Payload, Segment, Socket};

/// Requests in flight to a peer, at most. What is beyond waits here, bounded by the mirror's own windows.
const LINK_WINDOW: usize = 256;
/// Events made room for: what one receive may bring.
const EVENTS_CAPACITY: usize = 256;

/// A connection to a peer in its transmission phase.
pub(crate) struct Link {
    connection: ConnectionId,
    since: Duration,
    /// What was sent may be on its way when the connection has ended.
    crosses_network: bool,
    socket: Socket,
    receive_token: Token,
    send_token: Token,
    pipeline: Pipeline<u32>,
    ops: Slab<LinkOp>,
    /// Ops whose requests have not all been sent, in order.
    waiting: VecDeque<u32>,
    outbox: Outbox,
    staging: Staging,
    receiving: bool,
    events: Vec<Event<u32>>,
    /// Answers the volume has not looked at.
    done: Vec<LinkDone>,
    zeroes: Option<Payload>,
}

/// Why a link is given up.
#[derive(Debug)]
pub(crate) struct Lost {
    /// For the operator.
    pub(crate) reason: String,
    /// The peer has closed the connection: nothing sent on it can land any more.
    pub(crate) closed: bool,
}

impl Lost {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            closed: false,
        }
    }
}

impl Link {
    /// Take over a negotiated connection.
    pub(crate) fn new(
        turn: &Turn,
        connection: ConnectionId,
        handover: PeerHandover,
        (receive_token, send_token): (Token, Token),
    ) -> io::Result<Self> {
        let crosses_network = !is_unix(&handover.socket.socket)?;
        let socket = stream_socket(handover.socket)?;
        // What the peer has not been sent when the connection ends, in whatever way, must never be sent.
        socket.reset_on_close(true)?;
        Ok(Self {
            connection,
            since: turn.now,
            crosses_network,
            socket,
            receive_token,
            send_token,
            pipeline: Pipeline::numbered(&handover.negotiated, LINK_WINDOW, connection.0),
            ops: Slab::new(),
            waiting: VecDeque::new(),
            outbox: Outbox::default(),
            staging: Staging::new(turn.driver.pool(), &handover.unread),
            receiving: false,
            events: Vec::with_capacity(EVENTS_CAPACITY),
            done: Vec::new(),
            zeroes: None,
        })
    }

    pub(crate) fn connection(&self) -> ConnectionId {
        self.connection
    }

    pub(crate) fn limits(&self) -> &Limits {
        self.pipeline.limits()
    }

    /// When it was made.
    pub(crate) fn since(&self) -> Duration {
        self.since
    }

    /// Things asked and not answered.
    pub(crate) fn in_flight(&self) -> usize {
        self.ops.len()
    }

    /// When the oldest unanswered request was sent.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        self.pipeline.oldest()
    }

    /// Ask for something; a `LinkDone` will come of it unless the link is lost first.
    pub(crate) fn ask(&mut self, turn: &Turn, work: LinkWork, action: Action, range: Range<u64>) {
        if matches!(action, Action::Flush) && !self.limits().can_flush() {
            // Said aloud when the link was made: the peer offers nothing to make anything durable with.
            return self.done.push(LinkDone {
                work,
                outcome: Ok(None),
            });
        }
        let op = self
            .ops
            .insert(LinkOp::new(work, action, range, self.pipeline.limits()));
        self.waiting.push_back(op);
        self.pump(turn);
    }

    /// Answers since the last call; the vector given is used for the next ones.
    pub(crate) fn take_done(&mut self, empty: &mut Vec<LinkDone>) {
        debug_assert!(empty.is_empty());
        std::mem::swap(&mut self.done, empty);
    }

    /// Send what is queued, and see to it that a receive is in flight.
    pub(crate) fn flush(&mut self, turn: &mut Turn) {
        self.outbox.flush(turn, self.send_token, &self.socket);
        if self.receiving {
            return;
        }
        if let Some((buffer, filled)) = self.staging.lend() {
            self.receiving = true;
            turn.submit(
                self.receive_token,
                Op::Receive {
                    socket: self.socket.clone(),
                    buffer,
                    filled,
                },
            );
        }
    }

    /// A send came back. An error: why the link is lost.
    pub(crate) fn on_sent(&mut self, turn: &mut Turn, result: io::Result<usize>, op: Op) -> Result<(), Lost> {
        match self.outbox.sent(turn, self.send_token, result, op) {
            Sent::Partly | Sent::Whole => Ok(()),
            Sent::Failed(error) => Err(Lost::new(format!("cannot send to the peer: {error}"))),
        }
    }

    /// A receive came back. An error: why the link is lost.
    pub(crate) fn on_received(&mut self, turn: &Turn, result: io::Result<usize>, op: Op) -> Result<(), Lost> {
        self.receiving = false;
        let Op::Receive { buffer, .. } = op else { return Ok(()) };
        let count = match result {
            Ok(0) => {
                return Err(Lost {
                    reason: "the peer closed the connection".to_owned(),
                    closed: true,
                });
            }
            Ok(count) => count,
            Err(error) if is_transient(&error) => 0,
            Err(error) => {
                let closed = error.kind() == io::ErrorKind::ConnectionReset;
                return Err(Lost {
                    reason: format!("cannot receive from the peer: {error}"),
                    closed,
                });
            }
        };
        self.staging.restore(buffer, count);
        self.take_answers()?;
        self.pump(turn);
        Ok(())
    }

    /// Requests are unanswered that may land after the connection has ended: its end may have been made up on the way
    /// here, with some of them still on the way there.
    pub(super) fn may_land(&self) -> bool {
        self.crosses_network && (self.pipeline.in_flight() > 0 || !self.outbox.is_idle())
    }

    /// The peer has closed the connection: end it here, a send in flight included.
    pub(super) fn close(self) {
        // It fails when the connection is broken already.
        let _ = self.socket.shutdown_both();
    }

    /// Give the connection up. What was asked is forgotten; the socket is kept until the peer has closed it.
    pub(crate) fn retire(mut self, turn: &mut Turn) -> Retired {
        let may_land = self.may_land();
        if self.pipeline.in_flight() == 0 && self.outbox.is_idle() {
            // The good-bye is all that is left to send, and is to arrive. When this fails it may not: no harm is done.
            let _ = self.socket.reset_on_close(false);
            self.outbox.push_header(&self.pipeline.disconnect());
            self.outbox.flush(turn, self.send_token, &self.socket);
        } else {
            // Ends the stream behind what the socket holds already. It fails when the peer was first.
            let _ = self.socket.shutdown_write();
        }
        Retired::new(
            turn,
            self.connection,
            self.socket,
            self.receive_token,
            self.staging,
            (self.receiving, may_land),
        )
    }

    fn take_answers(&mut self) -> Result<(), Lost> {
        let mut events = std::mem::take(&mut self.events);
        let received = self.pipeline.receive(self.staging.bytes(), &mut events);
        let mut outcome = match received {
            Ok(consumed) => {
                self.staging.consume(consumed);
                Ok(())
            }
            Err(problem) => Err(Lost::new(format!("the peer broke the protocol: {problem}"))),
        };
        for Event::Done {
            tag,
            outcome: answer,
            message,
            data,
            ..
        } in events.drain(..)
        {
            if answer == Err(NbdError::Shutdown) {
                outcome = Err(Lost::new("the peer is shutting down"));
                break;
            }
            self.answered(tag, answer.map(|()| data).map_err(|error| PeerError { error, message }));
        }
        self.events = events;
        outcome
    }

    fn answered(&mut self, id: u32, outcome: Result<Option<Vec<u8>>, PeerError>) {
        if let Some(op) = self.ops.get_mut(id) {
            op.answered(outcome);
            self.settle(id);
        }
    }

    /// Report an op when it is over.
    fn settle(&mut self, id: u32) {
        let can_flush = self.limits().can_flush();
        let Some(op) = self.ops.get_mut(id).filter(|op| op.is_over()) else {
            return;
        };
        if op.turn_to_slow() || (can_flush && op.turn_to_flush()) {
            // It may have been cut short with requests still to be sent.
            self.waiting.retain(|&waiting| waiting != id);
            return self.waiting.push_front(id);
        }
        let Some(op) = self.ops.remove(id) else { return };
        let outcome = match op.failed {
            Some(error) => {
                // It may have been given up with requests still to be sent.
                self.waiting.retain(|&waiting| waiting != id);
                Err(error)
            }
            None => Ok(op.data),
        };
        self.done.push(LinkDone { work: op.work, outcome });
    }

    /// Send requests while the window has room.
    fn pump(&mut self, turn: &Turn) {
        let limits = *self.pipeline.limits();
        while self.pipeline.has_room() {
            let Some(&id) = self.waiting.front() else { return };
            let Some(op) = self.ops.get_mut(id).filter(|op| !op.is_sent()) else {
                self.waiting.pop_front();
                continue;
            };
            let piece = op.next_piece(&limits);
            if op.is_sent() {
                self.waiting.pop_front();
            }
            match self
                .pipeline
                .start(turn.now, piece.command, piece.offset, piece.length, id)
            {
                Ok(header) => self.push(turn, &header, piece),
                Err(problem) => {
                    let error = PeerError {
                        error: NbdError::Invalid,
                        message: Some(problem.to_string()),
                    };
                    self.answered(id, Err(error));
                }
            }
        }
    }

    fn push(&mut self, turn: &Turn, header: &[u8], piece: Piece) {
        self.outbox.push_header(header);
        match piece.payload {
            Some(PiecePayload::Data(payload)) => self.outbox.push(Segment::Payload(payload)),
            Some(PiecePayload::Zeroes) => {
                let pool = turn.driver.pool();
                let zeroes = self
                    .zeroes
                    .get_or_insert_with(|| pool.take_zeroed(ZERO_PAYLOAD_BYTES).into_payload());
                self.outbox
                    .push(Segment::Payload(zeroes.slice(..piece.length as usize)));
            }
            None => {}
        }
    }
}
