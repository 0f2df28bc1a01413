//! The data thread over real sockets: hosts and peers are the other ends of socket pairs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod attach;
mod bad_disk;
mod branches;
mod cached;
mod cluster;
mod failover;
mod hangup;
mod host;
mod mirror;
mod model;
mod nodes;
mod order;
mod pair;
mod peer;
mod pressure;
mod replica;
mod rig;
mod shutdown;
mod status;
mod streams;
mod tcp;
mod transmission;
mod volumes;
mod wires;
