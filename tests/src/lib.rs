//! The harness of blockmirror's tests: real daemons, foreign peers and a link that can be broken.
//!
//! - [`node`]: a `blockmirror-server` process with its own folder; started, killed, restarted. [`config`] writes its file.
//! - [`pair`]: a primary, a link and a remote leg.
//! - [`foreign`]: other people's NBD servers, as remote legs.
//! - [`relay`]: a link between two sockets that can be cut, stalled, delayed and throttled.
//! - [`raw`]: NBD spoken by hand, byte by byte, independent of the project's own codec. [`dialogue`]: in every style of
//!   reply, each of which is judged by the rules of the protocol.
//! - [`partners`]: two daemons that are partners, by Unix sockets or in network namespaces ([`namespaces`]).
//! - [`crash`]: rounds of kill -9 under that load. [`chaos`]: of every trouble, with takeovers, between partners.
//!   [`power`]: of power cuts of both partners.
//! - [`hostile`]: clients that mean harm or are broken, beside one that behaves.
//! - [`failover`]: how long hosts are without their volume when the role moves.
//! - [`load`]: a verifying load of versioned blocks.
//! - [`pace`]: a load at a fixed rate, and its latencies.
//! - [`interop`]: other people's clients and servers, tried one by one.
//! - [`rounds`]: what programs that run rounds are told.
//! - [`campaign`]: what both simulators share, many seeds on several threads above all.
//! - [`process`], [`tool`], [`wait`], [`scratch`], [`compare`]: what these stand on.
//!
//! Every wait is bounded, and every process dies with the test that started it, however the test ends.

pub mod campaign;
pub mod chaos;
pub mod compare;
pub mod config;
pub mod crash;
pub mod dialogue;
pub mod failover;
pub mod foreign;
pub mod hostile;
pub mod interop;
pub mod load;
pub mod namespaces;
pub mod node;
pub mod pace;
pub mod pair;
pub mod partners;
pub mod pki;
pub mod power;
pub mod process;
pub mod raw;
pub mod recorder;
pub mod relay;
pub mod rounds;
pub mod scratch;
pub mod tool;
pub mod wait;
