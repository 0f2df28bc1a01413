//! The NBD wire protocol, both ends, as bytes and state machines.
//!
//! No I/O, no clock, no threads (`no_std` is the proof), no `unsafe`. Bytes come in as slices in whatever pieces the
//! network delivered, bytes to send are appended to the caller's buffer.
//!
//! * [`server::Handshake`] and [`client::Handshake`]: the two ends of the fixed-newstyle negotiation.
//! * [`Request`], [`Command`] and [`validate()`]: the transmission phase as the server sees it. Every rule that can
//!   refuse a request is in [`validate()`] and nowhere else.
//! * [`reply`]: simple replies, structured and extended chunks, encoded into fixed messages and decoded with every length checked.
//! * [`Reader`]: the checked cursor. No other module slices bytes.
//!
//! Whatever a peer does against the protocol is one variant of [`PeerMisbehaved`]. No input makes this crate panic, or
//! allocate what a length field merely claims: memory grows with the bytes that arrived, up to a limit in [`constants`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod client;
pub mod constants;
mod context;
mod error;
mod export;
mod flags;
mod gather;
mod info;
mod misbehaved;
mod option;
mod reader;
pub mod reply;
mod request;
pub mod server;
mod status;
mod validate;
mod writer;

pub use context::{Context, ContextQuery};
pub use error::NbdError;
pub use export::{BlockSizes, ExportInfo};
pub use flags::{ClientFlags, CommandFlags, HandshakeFlags, ReplyFlags, TransmissionFlags};
pub use misbehaved::PeerMisbehaved;
pub use option::{OptionCode, OptionError};
pub use reader::{Reader, Truncated};
pub use reply::{ChunkKind, ErrorChunk, ReplyHeader, ReplyStyle, ReplyTo};
pub use request::{Command, Request};
pub use status::{Extent, StatusFilter, extent_flags};
pub use validate::{Filtered, Refusal, check_payload_bound, has_filter, validate, validate_filtered};
