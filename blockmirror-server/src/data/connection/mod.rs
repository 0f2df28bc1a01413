//! A host connection in its transmission phase: requests in, replies out.
//!
//! ```text
//!  Open --DISC--> Draining(replies are delivered) -----+--> Closed (when nothing of it is in flight)
//!    |                                                 |
//!    +--EOF, error, misbehaviour--> Draining(silent) --+
//! ```
//!
//! The socket is not closed before the last request that was started has ended: for whoever is on the other side, end
//! of stream means that nothing it sent can land any more.

mod hang_up;
mod receive;
mod reply;
mod status;

use std::time::Duration;

use nbd_proto::server::Negotiated;

use self::receive::Incoming;
pub(crate) use self::reply::HostReply;
use super::message::ClientHandover;
use super::outbox::Outbox;
use super::socket::stream_socket;
use super::staging::Staging;
use super::token::{Kind, Token};
use super::turn::Turn;
use super::volume::{ContextKind, Volume};
use crate::ring::Socket;

/// Requests of one connection that may be unanswered or wait in its send queue.
const CONNECTION_REQUESTS: u32 = 1024;
/// Bytes of READ replies that one connection may hold, asked for or waiting in its send queue: what a reader that does
/// not read costs. One request of the largest size always fits.
const CONNECTION_BYTES: u64 = 40 << 20;

/// Bytes read and not sent beyond which no READ is taken: more of them would only grow cold.
const READY_BYTES: u64 = 2 << 20;
/// How long a client may stop in the middle of a payload, leave its replies unread while others wait for their memory,
/// or leave its last replies unread.
const PATIENCE: Duration = Duration::from_secs(60);

/// A host connection.
pub(crate) struct Connection {
    slot: u32,
    volume: usize,
    socket: Socket,
    negotiated: Negotiated,
    /// What the negotiated contexts are, in their order.
    contexts: Vec<ContextKind>,
    address: String,
    /// Given back when the connection is dropped.
    _permit: Box<dyn Send>,
    staging: Staging,
    incoming: Incoming,
    receiving: bool,
    phase: Phase,
    hang_up: HangUp,
    outbox: Outbox,
    /// Requests handed to the volume and not answered.
    in_flight: u32,
    /// Bytes of READs taken since the loop was last heard of.
    burst: u64,
    /// Not yet sent, asked for included.
    window: Held,
    /// The part of `window` that the send in flight will free.
    sending: Held,
    /// The part of `window` whose replies wait in the send queue.
    queued: Held,
    last_active: Duration,
    /// When the payload that is on its way, if any, began.
    payload_since: Duration,
}

/// What a connection holds.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    requests: u32,
    /// In memory.
    bytes: u64,
    /// In files, to be sent from there.
    file_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// No more requests are taken; what was started ends.
    Draining {
        /// Its replies are still sent.
        deliver: bool,
    },
    /// The socket is shut; the operations in flight come back.
    Shut,
}

/// Whether the client has closed its sending side, and whether it said good-bye before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HangUp {
    /// Not seen.
    No,
    /// Closed, and no DISC found so far: nothing received is carried out until one is.
    Unexplained,
    /// Closed behind a DISC: everything before it counts.
    Farewell,
}

/// What the loop has to do about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Keep it.
    Lives,
    /// Nothing of it is in flight: drop it.
    Gone,
}

impl Connection {
    /// Take over a negotiated connection.
    pub(crate) fn new(slot: u32, handover: ClientHandover, volume: &Volume, turn: &Turn) -> std::io::Result<Self> {
        let contexts = handover.negotiated.contexts.iter();
        Ok(Self {
            slot,
            volume: handover.volume,
            socket: stream_socket(handover.socket)?,
            staging: Staging::new(turn.driver.pool(), &handover.unread),
            contexts: contexts.map(|context| volume.context_kind(&context.name)).collect(),
            negotiated: handover.negotiated,
            address: handover.address,
            _permit: handover.permit,
            incoming: Incoming::Header,
            receiving: false,
            phase: Phase::Open,
            hang_up: HangUp::No,
            outbox: Outbox::default(),
            in_flight: 0,
            burst: 0,
            window: Held::default(),
            sending: Held::default(),
            queued: Held::default(),
            last_active: turn.now,
            payload_since: turn.now,
        })
    }

    /// Index of its volume.
    pub(crate) fn volume(&self) -> usize {
        self.volume
    }

    /// What its export promised it.
    pub(crate) fn flags(&self) -> nbd_proto::TransmissionFlags {
        self.negotiated.export.flags
    }

    /// Go on: take requests, end what has to end. Called when it is new, when the volume's budget has room again, and
    /// every now and then.
    pub(crate) fn proceed(&mut self, volume: &mut Volume, turn: &mut Turn) {
        if self.phase == Phase::Open && !self.receiving {
            self.take_requests(volume, turn);
        }
    }

    /// Send what is queued, close what is to be closed.
    pub(crate) fn flush(&mut self, volume: &mut Volume, turn: &mut Turn) -> Fate {
        // With more queued than one send takes, the window is freed when the last of it has gone out.
        if self.outbox.flush(turn, self.token(Kind::Send), &self.socket) && self.outbox.is_drained() {
            self.sending = std::mem::take(&mut self.queued);
        }
        let Phase::Draining { deliver } = self.phase else {
            return self.fate();
        };
        if self.in_flight > 0 || (deliver && !self.outbox.is_idle()) {
            return Fate::Lives;
        }
        self.shut(volume);
        self.fate()
    }

    /// Take no more requests; finish what was started, deliver its replies, close.
    pub(crate) fn finish(&mut self, volume: &mut Volume, turn: &Turn) {
        self.drain(volume, turn, true);
    }

    /// Close at once, whatever is in flight.
    pub(crate) fn cut(&mut self, volume: &mut Volume, turn: &Turn) {
        self.drain(volume, turn, false);
        self.shut(volume);
    }

    /// Open, with nothing in flight and nothing half received since `since`.
    pub(crate) fn idle_since(&self, since: Duration) -> bool {
        let quiet = self.in_flight == 0 && self.outbox.is_idle() && self.staging.len() == 0;
        self.phase == Phase::Open && quiet && self.last_active <= since
    }

    /// Close it if it keeps what others need and does nothing: half a payload, replies that it does not read. True: it
    /// has been closed.
    pub(crate) fn check_patience(&mut self, volume: &mut Volume, turn: &Turn) -> bool {
        let is_silent = turn.now >= self.last_active + PATIENCE;
        let is_slow = turn.now >= self.payload_since + PATIENCE && volume.is_short_of_room();
        if !is_silent && !is_slow {
            return false;
        }
        let halfway = matches!(
            self.incoming,
            Incoming::Staged(_) | Incoming::Direct(..) | Incoming::Filter(_)
        ) && self.receiving;
        let reason = match self.phase {
            Phase::Open if halfway && is_silent => "it stopped in the middle of a payload",
            Phase::Open if halfway => "it sends its payload slowly, and others wait for the room",
            _ if !is_silent => return false,
            Phase::Open if self.outbox.in_flight() && volume.replies_are_full() => {
                "it does not read its replies, and others wait for their memory"
            }
            Phase::Draining { deliver: true } if self.in_flight == 0 => "it does not read its last replies",
            _ => return false,
        };
        let export = volume.export();
        tracing::info!(client = self.address, export, reason, "connection cut off");
        self.cut(volume, turn);
        true
    }

    /// Bytes of READ replies it holds.
    pub(crate) fn reply_bytes(&self) -> u64 {
        self.window.bytes
    }

    /// Open, with requests that wait for room and a client that may have gone meanwhile.
    pub(crate) fn is_stalled(&self) -> bool {
        self.phase == Phase::Open && !self.receiving
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    fn token(&self, kind: Kind) -> Token {
        Token::new(kind, self.slot as usize)
    }

    /// To `Draining`: what is half received is dropped.
    fn drain(&mut self, volume: &mut Volume, turn: &Turn, deliver: bool) {
        match self.phase {
            Phase::Open => self.drop_incoming(volume),
            // A client that breaks while its last replies are delivered ends that, too.
            Phase::Draining { deliver: true } if !deliver => {}
            Phase::Draining { .. } | Phase::Shut => return,
        }
        self.phase = Phase::Draining { deliver };
        volume.forget(self.slot);
        if !deliver {
            self.outbox.clear();
            volume.abandon(turn, self.slot);
        }
    }

    /// The client is gone, or is not one: `reason` for the log.
    fn lose(&mut self, volume: &mut Volume, turn: &Turn, reason: &str) {
        if self.phase == Phase::Open {
            tracing::info!(
                client = self.address,
                export = volume.export(),
                reason,
                "connection lost"
            );
        }
        self.drain(volume, turn, false);
    }

    fn shut(&mut self, volume: &mut Volume) {
        if self.phase != Phase::Shut {
            self.phase = Phase::Shut;
            volume.forget(self.slot);
            // It fails when the other side was first, which is as good.
            let _ = self.socket.shutdown_both();
        }
    }

    fn fate(&self) -> Fate {
        let over = self.phase == Phase::Shut && self.in_flight == 0;
        if over && !self.receiving && !self.outbox.in_flight() {
            Fate::Gone
        } else {
            Fate::Lives
        }
    }
}
