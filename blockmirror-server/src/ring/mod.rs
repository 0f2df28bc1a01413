//! Completion-based I/O for a data thread: io_uring where the kernel offers it, `epoll` with a small worker pool where
//! it does not, behind one [`Driver`].
//!
//! **Ownership.** Every operation is a value ([`Op`]) that owns its buffers and a share of its file or socket. It is
//! given to [`Driver::submit`] and comes back in exactly one [`Completion`], whatever the outcome, so a request can
//! never be lost and the kernel never looks at memory somebody else may free. A driver that is dropped cancels what is
//! in flight and waits for it; what will not end in time is leaked, never freed.
//!
//! **Short counts.** A completion reports the raw count. The owner of the operation (the image, the connection)
//! submits the rest.
//!
//! **Inline.** An operation that can be finished at once without blocking (a write into the page cache, a read of
//! cached data, a send that fits the socket buffer) is finished within `submit`, which then returns its completion:
//! at 4 KiB the hand-over to a kernel worker costs more than the copy. See `docs/MEASUREMENTS.md`.
//!
//! This module and the ones below it are the only place in the project where `unsafe` is allowed.
#![allow(unsafe_code)]

mod buffer;
mod cached;
mod driver;
mod guard;
mod handle;
mod inline;
mod kernel_tls;
mod memory;
mod op;
mod secure;
pub(crate) mod slab;
mod socket_tls;
mod threads;
mod uring;

pub use buffer::{ALIGNMENT, Buffer, BufferPool, Payload};
pub use driver::{Driver, EngineChoice, EngineReport, InlinePolicy, Waker, open_driver, open_driver_with};
pub use handle::{FileHandle, Socket};
pub use inline::receive_now;
pub use kernel_tls::kernel_tls;
pub use op::{AllocateMode, Completion, FileRange, InlineBytes, Op, OpKind, Segment};
pub(crate) use secure::Next;

#[cfg(test)]
mod tests;
