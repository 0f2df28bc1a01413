//! One connection that is a replication stream.

use std::io;
use std::time::Duration;

use blockmirror_client::stream::Wire;
use mirror_core::event::ConnectionId;
use mirror_core::resource::event::Loss;
use mirror_core::stream::codec::Checksum;
use mirror_core::stream::frame::Sequence;
use mirror_core::stream::outflow::Sent as Allowed;
use mirror_core::stream::{Control, Credit, Outflow, Request};

use super::crossing::Standing;
use super::ledger::{Asked, Expects, Patience};
use super::life::{Life, Passed, Pulse, micros};
use super::receive::Inbound;
use super::send::Outbound;
use super::work::{Checked, StreamEvent, StreamLost, StreamReply, StreamWork};
use crate::data::outbox::Sent;
use crate::data::socket::{give_up_after, stream_socket};
use crate::data::token::Token;
use crate::data::turn::Turn;
use crate::ring::{Op, Socket};

/// What a link is made of.
pub(crate) struct StreamSetup {
    /// Its number.
    pub(crate) connection: ConnectionId,
    /// The connected stream socket.
    pub(crate) socket: Wire,
    /// Bytes that came behind the handshake.
    pub(crate) unread: Vec<u8>,
    /// This node dialled.
    pub(crate) dialled: bool,
    /// The peer's random number of its life.
    pub(crate) incarnation: u64,
    /// How payloads are checked.
    pub(crate) checksum: Checksum,
    /// What the peer's HELLO grants us.
    pub(crate) credit: Credit,
    /// A heartbeat this often.
    pub(crate) heartbeat: Duration,
    /// Silence for this long means lost.
    pub(crate) dead_after: Duration,
    /// A request left unanswered for this long means lost.
    pub(crate) request_timeout: Duration,
}

/// A connection that is a replication stream; [`StreamPort`](super::StreamPort) is its face.
///
/// An `Err` of any of its functions says that it is lost.
pub(super) struct StreamLink {
    pub(super) connection: ConnectionId,
    standing: Standing,
    since: Duration,
    dead_after: Duration,
    pub(super) socket: Socket,
    receive_token: Token,
    send_token: Token,
    pub(super) receiving: bool,
    pub(super) inbound: Inbound,
    outbound: Outbound,
    pub(super) outflow: Outflow<Asked>,
    /// Requests that are in flight.
    pub(super) in_flight: usize,
    pub(super) patience: Patience,
    pub(super) life: Life,
    /// Host writes that were asked of the peer.
    asked: Passed,
    /// Host writes of the peer that came.
    pub(super) received: Passed,
    /// The peer has sent barriers: it acknowledges writes before they are here.
    pub(super) runs_ahead: bool,
    /// Payload bytes asked that wait to be sent.
    waiting_bytes: u64,
    pub(super) events: Vec<StreamEvent>,
    pub(super) closing: Option<Closing>,
}

/// The connection is being closed by this node.
pub(super) struct Closing {
    pub(super) reason: String,
    since: Duration,
    /// Everything is out, and the peer has been told so.
    shut: bool,
}

impl StreamLink {
    /// Take over a negotiated connection. `tokens`: of its receives and of its sends.
    pub(super) fn new(turn: &Turn, setup: StreamSetup, tokens: (Token, Token)) -> io::Result<Self> {
        let socket = stream_socket(setup.socket)?;
        // What the peer has not been sent when the connection ends, in whatever way, must never be sent.
        socket.reset_on_close(true)?;
        give_up_after(&socket, setup.dead_after)?;
        Ok(Self {
            connection: setup.connection,
            standing: Standing {
                dialled: setup.dialled,
                incarnation: setup.incarnation,
                heard: turn.now,
            },
            since: turn.now,
            dead_after: setup.dead_after,
            socket,
            receive_token: tokens.0,
            send_token: tokens.1,
            receiving: false,
            inbound: Inbound::new(turn.driver.pool(), setup.checksum, &setup.unread),
            outbound: Outbound::new(setup.checksum),
            outflow: Outflow::new(setup.credit),
            in_flight: 0,
            patience: Patience::new(setup.request_timeout),
            life: Life::new(turn.now, setup.heartbeat, setup.dead_after),
            asked: Passed::default(),
            received: Passed::default(),
            runs_ahead: false,
            waiting_bytes: 0,
            events: Vec::new(),
            closing: None,
        })
    }

    /// When it was made.
    pub(super) fn since(&self) -> Duration {
        self.since
    }

    pub(super) fn standing(&self) -> Standing {
        Standing {
            heard: self.life.heard(),
            ..self.standing
        }
    }

    pub(super) fn ask(
        &mut self,
        turn: &Turn,
        volume: u16,
        request: Request,
        payload: Option<Checked>,
        work: StreamWork,
    ) {
        let length = request.payload_bytes();
        assert_eq!(
            payload.as_ref().map_or(0, |checked| checked.payload.len() as u64),
            length,
            "a payload has the length of its range"
        );
        self.asked.count(&request);
        self.waiting_bytes += length;
        let need = request.need();
        let asked = Asked {
            volume,
            work,
            expects: Expects::of(&request),
            unsent: Some((request, payload)),
        };
        self.outflow.offer(turn.now, need, asked);
        self.pump(turn);
    }

    /// `Done` of several requests.
    pub(super) fn done(&mut self, sequences: &[Sequence]) {
        self.outbound.done(sequences);
    }

    pub(super) fn answer(&mut self, sequence: Sequence, reply: StreamReply) {
        self.outbound.answer(sequence, reply);
    }

    pub(super) fn control(&mut self, control: &Control) {
        self.outbound.control(control);
    }

    /// Nothing is being sent: what is gathered now goes out with the next `flush`.
    pub(super) fn is_ready(&self) -> bool {
        !self.outbound.outbox.in_flight()
    }

    /// Send what is queued, and see to it that a receive is in flight.
    pub(super) fn flush(&mut self, turn: &mut Turn) {
        if self.is_ready() {
            self.pump(turn);
            // Whatever the peer sends, one echo is owed at a time.
            if let Some(sent_us) = self.life.take_echo() {
                self.outbound.control(&Control::HeartbeatAck { sent_us });
            }
            self.outbound.flush(turn, self.send_token, &self.socket);
        }
        if let Some(closing) = self.closing.as_mut().filter(|closing| !closing.shut)
            && self.outbound.outbox.is_idle()
        {
            closing.shut = true;
            // When these fail the connection is broken already, and nothing arrives anyway.
            let _ = self.socket.reset_on_close(false);
            let _ = self.socket.shutdown_write();
        }
        if !self.receiving {
            self.receive(turn);
        }
    }

    /// A send came back.
    pub(super) fn on_sent(&mut self, turn: &mut Turn, result: io::Result<usize>, op: Op) -> Result<(), StreamLost> {
        match self.outbound.outbox.sent(turn, self.send_token, result, op) {
            Sent::Partly | Sent::Whole => {
                self.life.arrives(turn.now);
                Ok(())
            }
            Sent::Failed(error) => Err(StreamLost::Network(format!("cannot send to the peer: {error}"))),
        }
    }

    /// Heartbeats, silence, and requests left unanswered.
    pub(super) fn check_time(&mut self, turn: &Turn) -> Result<(), StreamLost> {
        if let Some(closing) = &self.closing {
            let late = turn.now >= closing.since + self.dead_after;
            return if late {
                Err(StreamLost::Ended(closing.reason.clone()))
            } else {
                Ok(())
            };
        }
        let seconds = |time: Duration| time.as_secs_f64();
        match self.life.check(turn.now) {
            Pulse::Fine => {}
            Pulse::Beat => self.beat(turn.now),
            Pulse::Silent(time) => {
                let reason = format!("nothing has come from the peer for {:.1} s", seconds(time));
                return Err(StreamLost::Silent(reason));
            }
            Pulse::Unanswered(time) => {
                let reason = format!("the peer has not answered heartbeats for {:.1} s", seconds(time));
                return Err(StreamLost::Silent(reason));
            }
        }
        if self.in_flight > 0 && self.patience.is_over(turn.now) {
            let reason = format!(
                "the peer has not answered a request for {} s",
                seconds(self.patience.limit())
            );
            return Err(StreamLost::Silent(reason));
        }
        Ok(())
    }

    /// When `check_time` wants to be called next.
    pub(super) fn next_timeout(&self) -> Duration {
        match &self.closing {
            Some(closing) => closing.since + self.dead_after,
            None => self.life.next_timeout(),
        }
    }

    pub(super) fn close(&mut self, turn: &Turn, reason: String) {
        self.closing.get_or_insert(Closing {
            reason,
            since: turn.now,
            shut: false,
        });
    }

    /// What of the peer's host writes is known to be missing here. `dropped`: of what came, what will never be
    /// carried out.
    pub(super) fn loss(&self, dropped: Passed) -> Loss {
        let known = self.life.loss(self.received, dropped);
        // What it has acknowledged since its last heartbeat nobody here has heard of.
        let unknown = self.runs_ahead;
        Loss { unknown, ..known }
    }

    /// End it here and now, operations in flight included: what the kernel has not sent never is.
    pub(super) fn end(self) {
        // They fail when the connection is broken already.
        let _ = self.socket.reset_on_close(true);
        let _ = self.socket.shutdown_both();
    }

    /// Requests asked and not answered, those that wait to be sent included.
    pub(super) fn unanswered(&self) -> usize {
        self.in_flight + self.outflow.waiting()
    }

    pub(super) fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    pub(super) fn lag(&self, now: Duration) -> Duration {
        self.outflow.age(now).unwrap_or_default()
    }

    pub(super) fn is_heard(&self, now: Duration) -> bool {
        self.life.is_heard(now)
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.life.round_trip()
    }

    /// Send requests while there is credit, and room for them.
    pub(super) fn pump(&mut self, turn: &Turn) {
        while self.closing.is_none() && self.outbound.has_room() {
            let Some(allowed) = self.outflow.poll() else { return };
            let (sequence, volume, unsent) = match allowed {
                Allowed::Request { sequence, item } => {
                    if self.in_flight == 0 {
                        self.patience.begin(turn.now);
                    }
                    self.in_flight += 1;
                    (sequence, item.volume, item.unsent.take())
                }
                Allowed::Barrier { sequence, item } => (sequence, item.volume, item.unsent),
            };
            if let Some((request, payload)) = unsent {
                self.waiting_bytes -= request.payload_bytes();
                self.outbound.request(sequence, volume, &request, payload);
            }
        }
    }

    fn receive(&mut self, turn: &mut Turn) {
        let Some((buffer, filled)) = self.inbound.lend(turn.driver.pool()) else {
            return;
        };
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

    fn beat(&mut self, now: Duration) {
        let heartbeat = Control::Heartbeat {
            sent_us: self.life.beat(now),
            lag_us: micros(self.lag(now)),
            bytes: self.asked.bytes,
            flushes: self.asked.flushes,
            head: self.outflow.head(),
        };
        self.outbound.control(&heartbeat);
    }
}
