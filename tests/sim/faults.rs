//! Which faults a seed brings, and when. They are budgeted: so many that every corner is met over the seeds, so few
//! that a run gets somewhere between them.

use mirror_core::event::{Command, Failure, PeerIndex};

use crate::rng::Rng;
use crate::scenario::SAFETY_US;

/// One thing that goes wrong, or an operator's command.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The link to a peer breaks; `notice_us` later this side knows; it stays broken for `broken_us`.
    Cut {
        /// Which peer.
        peer: usize,
        /// Until this side notices: a half-open connection in between.
        notice_us: u64,
        /// Until a new connection succeeds.
        broken_us: u64,
    },
    /// A peer goes down for `down_us`; with `power` it loses its volatile cache.
    PeerDown {
        /// Which peer.
        peer: usize,
        /// Loses its cache.
        power: bool,
        /// Until it is back.
        down_us: u64,
    },
    /// The next `count` requests to a peer fail.
    PeerFails {
        /// Which peer.
        peer: usize,
        /// How many requests.
        count: u32,
        /// With which error.
        failure: Failure,
    },
    /// A leg or the metadata disk is slow for a while: so many times.
    Slow {
        /// What.
        what: SlowPart,
        /// How much slower.
        times: u64,
        /// How long.
        for_us: u64,
    },
    /// The next local mutation or read fails.
    LocalFails(Failure),
    /// The next local flush fails.
    LocalFlushFails,
    /// The next metadata transaction fails.
    PersistFails,
    /// The primary's process is killed and started again.
    PrimaryKilled {
        /// Until it is started again.
        down_us: u64,
    },
    /// The primary loses its power; `all`: every peer as well.
    PrimaryPower {
        /// Until it is started again.
        down_us: u64,
        /// Peers too.
        all: bool,
    },
    /// A host connection dies.
    HostGone {
        /// Which connection.
        connection: usize,
    },
    /// An operator's command.
    Operator(Command),
}

/// What can be slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowPart {
    /// The local leg.
    Local,
    /// The metadata disk.
    Store,
    /// A peer and the link to it.
    Peer(usize),
}

/// Faults of one run in order of time.
pub fn plan_faults(rng: &mut Rng, peers: usize) -> Vec<(u64, Fault)> {
    let count = rng.pick(&[0, 2, 4, 8, 16]);
    let allowed = rng.next() | 1;
    let span = rng.pick(&[20_000, 60_000, SAFETY_US / 2]);
    let mut faults: Vec<(u64, Fault)> = Vec::new();
    while faults.len() < count {
        let kind = rng.below(KINDS);
        // Each seed leaves out half of the kinds, so that no fault hides behind another for ever.
        if kind == 0 || allowed >> kind & 1 == 1 {
            faults.push((rng.below(span), one_fault(rng, kind, peers)));
        }
    }
    faults.sort_by_key(|&(at, _)| at);
    faults
}

const KINDS: u64 = 16;

fn one_fault(rng: &mut Rng, kind: u64, peers: usize) -> Fault {
    let peer = rng.index(peers);
    let down_us = rng.pick(&[100, 3_000, 30_000]);
    let failure = rng.pick(&[Failure::Io, Failure::NoSpace]);
    match kind {
        0..=2 => Fault::Cut {
            peer,
            notice_us: rng.pick(&[0, 100, 2_000, 20_000]),
            broken_us: down_us,
        },
        3 => Fault::PeerDown {
            peer,
            power: true,
            down_us,
        },
        4 => Fault::PeerDown {
            peer,
            power: false,
            down_us,
        },
        5 => Fault::PeerFails {
            peer,
            count: rng.pick(&[1, 1, 3, 10]),
            failure,
        },
        6 => Fault::Slow {
            what: rng.pick(&[
                SlowPart::Local,
                SlowPart::Store,
                SlowPart::Peer(peer),
                SlowPart::Peer(peer),
            ]),
            times: rng.pick(&[10, 50]),
            for_us: down_us,
        },
        7 => Fault::LocalFails(failure),
        8 => rng.pick(&[Fault::LocalFlushFails, Fault::PersistFails]),
        9 => Fault::PrimaryKilled { down_us },
        10 => Fault::PrimaryPower { down_us, all: false },
        11 => Fault::PrimaryPower { down_us, all: true },
        12 => Fault::HostGone {
            connection: rng.index(4),
        },
        13 => Fault::Operator(rng.pick(&[
            Command::Disconnect(PeerIndex(peer as u8)),
            Command::Connect(PeerIndex(peer as u8)),
        ])),
        14 => Fault::Operator(Command::Invalidate(PeerIndex(peer as u8))),
        _ => Fault::Operator(Command::Stop),
    }
}
