//! The replication stream to one peer: one connection for all volumes of a resource.
//!
//! A [`StreamPort`] moves frames, over one connection at a time. What they mean is decided elsewhere: requests of the
//! peer, ordered by the core's `Intake`, go to the mirrors, control frames to the core's `Resource`. The port keeps the
//! connection honest (checksums, numbers without gaps, credits) and alive (heartbeats), and knows what is lost when it
//! ends.
//!
//! ```text
//!              ask ──▶ outflow (numbers, credits, FIFO) ──┐
//!  finished, control ──▶ answers of this turn, gathered ──┴▶ outbox ──▶ one send per turn
//!
//!  one receive ──▶ staging ──▶ frame ──▶ payload (copied out when short, else received in place) ──▶ check ┐
//!                                      events ◀── intake (epochs; nothing before the last connection's end) ┘
//! ```
//!
//! **Order.** Requests leave in the order of [`StreamPort::ask`]. Answers and control frames leave in the order they
//! were given, and at once: they overtake requests that wait, for credit or for room on the wire, and are never
//! held back themselves.

mod crossing;
mod ledger;
mod life;
mod link;
mod port;
mod receive;
mod send;
mod take;
mod work;

#[cfg(test)]
mod tests;

use mirror_core::stream::Credit;

pub(crate) use self::crossing::{Standing, supersedes};
pub(crate) use self::link::StreamSetup;
pub(crate) use self::port::StreamPort;
pub(crate) use self::work::{CHECKSUM, Checked, StreamEvent, StreamLost, StreamOutcome, StreamReply, StreamWork};

/// What our HELLO grants a peer: so much it may have sent us without an answer.
pub const WINDOW: Credit = Credit {
    bytes: 64 << 20,
    requests: 4096,
};
