//! The replication stream between two blockmirrors: one ordered sequence of frames for all volumes of a resource.
//!
//! It begins where an NBD handshake was turned into it by the vendor option (docs/STREAM.md). Every frame has a header
//! with its length, type and CRC; requests are numbered without gaps by their sender and answered by number.

pub mod codec;
pub mod credit;
pub mod digest;
pub mod frame;
pub mod hello;
pub mod intake;
pub mod outflow;

pub use credit::Credit;
pub use digest::digest_blocks;
pub use frame::{Answer, Control, Frame, Request};
pub use hello::Hello;
pub use intake::Intake;
pub use outflow::Outflow;

#[cfg(test)]
mod tests;
