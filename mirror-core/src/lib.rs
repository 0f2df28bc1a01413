//! Every replication decision of blockmirror, as a state machine that does no I/O, reads no clock and draws no random
//! numbers: `no_std` is the proof. One [`Mirror`] keeps one volume's local leg and its peers in step; the shell around
//! it moves the data.
//!
//! Invariants, cited by number where they are kept:
//!
//! - **I1** No write reaches a leg before its extent is durably in the activity log.
//! - **I2** Overlapping mutations are never in flight together, so all legs see one order.
//! - **I3** A dirty bit is cleared only after a durable copy of that block with no newer write to it.
//! - **I4** A degraded reply comes only after the dirty mark is covered and the new generation is durable.
//! - **I5** A flush covers every write answered before it arrived, on every connection, on every leg its mode names.
//! - **I6** A leg that is not UpToDate serves no read of a dirty range: [`Mirror::read_from`] says who does.
//! - **I7** Two primaries never write under one generation: every promotion names the data anew, durably here and on
//!   every partner in step, before a host may write.
//! - **I8** Every queue, window, retry and wait has a named bound: see [`config`].
//! - **I9** A non-empty bitmap is never dropped because identifiers look equal: it is compared or copied.
//! - **I10** A change of identity (generation, role, state of the image, what is known of a peer) is durable before
//!   anything depends on it: before another node hears of it, before an order is done, before what it announces happens.
//! - **I11** A request of an older connection, or of an older Primary, never lands after a newer one.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod activity_log;
pub mod bitmap;
pub mod config;
pub mod event;
mod flush_line;
pub mod identity;
pub mod metadata;
mod mirror;
pub mod order;
pub mod range;
pub mod resource;
mod rng;
pub mod sabotage;
pub mod state;
pub mod stream;

pub use config::{AckMode, MirrorConfig, OnDisconnect, PeerConfig};
pub use mirror::{Mirror, status};
pub use range::ByteRange;
