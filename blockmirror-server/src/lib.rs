//! The blockmirror daemon as a library.
//!
//! ```text
//!   config ──► control (tokio: listeners, handshakes, peers, admin API, signals)
//!                 │  negotiated sockets, commands          ▲  connect, stopped
//!                 ▼                                        │
//!              data (threads: connections, mirror cores, peer links) ──► image ──► ring (the only unsafe code)
//! ```
//! [`control::run`] is the whole daemon; `main.rs` adds the command line, the log and the signals.

pub mod activation;
pub mod branch;
pub mod config;
pub mod control;
pub mod data;
pub(crate) mod file_lock;
pub mod image;
pub mod layers;
pub mod log;
pub mod metadata_file;
pub mod ring;
pub mod stdio;
mod wall_clock;
