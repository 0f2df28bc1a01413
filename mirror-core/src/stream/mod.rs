//! The replication stream between two blockmirrors: one ordered sequence of frames for all volumes of a resource.
//!
//! It begins where an NBD handshake was turned into it by the vendor option (docs/STREAM.md). Every frame has a header
//! with its length, type and CRC; requests are numbered without gaps by their sender and answered by number.

pub mod frame;

pub use frame::{Answer, Control, Frame, Request};
