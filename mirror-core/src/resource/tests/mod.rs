//! Resources of two and three nodes with tiny volumes.

mod handshake;
mod loss;
mod meetings;
mod members;
mod random;
mod roles;
mod secondaries;
mod shell;
mod sizes;
mod space;
mod split;
mod takeover;
mod volume;
mod why;
mod world;
