//! The data thread over real sockets: hosts and peers are the other ends of socket pairs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod hangup;
mod host;
mod mirror;
mod model;
mod order;
mod pair;
mod peer;
mod pressure;
mod rig;
mod shutdown;
mod tcp;
mod transmission;
