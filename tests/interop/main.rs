//! Real clients against the daemon, and real foreign servers as its remote leg.

mod clients;
mod foreign_legs;
mod initiator;
mod ways_in;
