//! The initiator side of blockmirror: everything that talks *to* a server.
//!
//! - [`uri`]: how a peer or an export is named (`nbd://host:port/export`).
//! - [`connect`]: dialling and negotiating, under one deadline; hands out a socket ready for commands.
//! - [`pipeline`]: the transmission phase as a sans-io state machine: cookies, bounded window, reply assembly. The
//!   daemon's data threads drive it with io_uring, [`client`] drives it with tokio.
//! - [`client`]: an asynchronous client for tools and tests, and one that follows the Primary of a resource.
//! - [`stream`]: connected sockets, with TLS on them or not.
//! - [`tls`]: TLS for clients and servers.
//! - [`size`]: sizes as people write them.
//! - [`admin`]: the admin API: its types, shared with the daemon, and a client for it.
//!
//! The `blockmirror` command is built from the same parts (`src/bin/blockmirror`).
#![forbid(unsafe_code)]

pub mod admin;
pub mod client;
pub mod connect;
pub mod pipeline;
pub mod size;
pub mod stream;
pub mod tls;
pub mod uri;
