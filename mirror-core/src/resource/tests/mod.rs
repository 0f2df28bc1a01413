//! Resources of two and three nodes with tiny volumes.

mod handshake;
mod members;
mod random;
mod roles;
mod shell;
mod split;
mod takeover;
mod volume;
mod world;
