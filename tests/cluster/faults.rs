//! Which faults a seed brings, and when. They are budgeted: so many that every corner is met over the seeds, so few that
//! a run gets somewhere between them and that at least one whole copy of everything promised is left.

use mirror_core::event::Failure;

use crate::plan::{Plan, SAFETY_US};
use crate::rng::Rng;

/// How a link is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing passes; what was on its way is lost.
    Both,
    /// Nothing passes from the first to the second node.
    OneWay,
    /// Nothing passes, nothing is lost: if it ends before anybody gives the connection up, all of it arrives late.
    Stall,
}

/// One thing that goes wrong, or an operator's command.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The link between two nodes breaks.
    Cut {
        /// The nodes.
        nodes: (usize, usize),
        /// How.
        how: Cut,
        /// Until each side gives the connection up.
        notice_us: (u64, u64),
        /// Until a new connection succeeds.
        for_us: u64,
    },
    /// A process is killed.
    Kill {
        /// Where.
        node: usize,
        /// Until it is started again.
        down_us: u64,
    },
    /// A node loses its power.
    Power {
        /// Which; `None`: all of them.
        node: Option<usize>,
        /// Until it is started again.
        down_us: u64,
    },
    /// A process is stopped and goes on later.
    Pause {
        /// Where.
        node: usize,
        /// How long.
        for_us: u64,
    },
    /// The next operation of this kind on an image fails.
    DiskFails {
        /// Where.
        node: usize,
        /// Of which volume.
        volume: usize,
        /// What.
        what: DiskFault,
    },
    /// A node's disks are slow for a while.
    Slow {
        /// Which.
        node: usize,
        /// So many times.
        times: u64,
        /// How long.
        for_us: u64,
    },
    /// A sector of a node that is not Primary goes bad without a word, or a write to it lands elsewhere.
    Rot {
        /// Where.
        node: usize,
        /// Of which volume.
        volume: usize,
    },
    /// A node's clock jumps ahead.
    ClockJumps {
        /// Which.
        node: usize,
        /// How far.
        by_us: u64,
    },
    /// A host connection dies.
    HostGone {
        /// On which node.
        node: usize,
        /// Which.
        connection: usize,
    },
    /// An operator's command.
    Operator(Action),
}

/// What a disk can do wrong and say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// A write fails.
    Write(Failure),
    /// A read fails.
    Read,
    /// A sector cannot be read from now on, until it is written. (A number, to be taken by the sectors there are.)
    BadSector(u64),
    /// A flush fails.
    Flush,
    /// A metadata write fails.
    Metadata,
}

/// What an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `promote`; with `force` he quotes back whatever he is told would be lost.
    Promote {
        /// Where.
        node: usize,
        /// `--force --accept`.
        force: bool,
    },
    /// `demote`.
    Demote(usize),
    /// `connect`.
    Connect {
        /// Where.
        node: usize,
        /// To whom.
        to: usize,
        /// `--discard-my-data`.
        discard: bool,
    },
    /// `disconnect`.
    Disconnect {
        /// Where.
        node: usize,
        /// From whom.
        from: usize,
    },
    /// Take a peer out of the configuration.
    Remove {
        /// Where.
        node: usize,
        /// Whom.
        peer: usize,
    },
    /// `invalidate`.
    Invalidate {
        /// Where.
        node: usize,
        /// Whose data it takes.
        from: usize,
    },
    /// `detach`.
    Detach {
        /// Where.
        node: usize,
        /// Of which volume.
        volume: usize,
    },
    /// `attach`.
    Attach {
        /// Where.
        node: usize,
        /// Of which volume.
        volume: usize,
        /// A new disk.
        replaced: bool,
    },
    /// `resize`.
    Resize {
        /// Where.
        node: usize,
        /// Of which volume.
        volume: usize,
    },
    /// `verify`.
    Verify {
        /// Where.
        node: usize,
        /// Of which volume.
        volume: usize,
        /// With whom.
        with: usize,
        /// `--repair`.
        repair: bool,
    },
    /// Stop the daemon in order, and start it again.
    Restart(usize),
}

/// Faults of one run in order of time.
pub fn plan_faults(rng: &mut Rng, plan: &Plan) -> Vec<(u64, Fault)> {
    let count = rng.pick(&[0, 2, 4, 7, 12]);
    let allowed = rng.next();
    let span = rng.pick(&[30_000, 120_000, SAFETY_US / 4]);
    let mut faults: Vec<(u64, Fault)> = Vec::new();
    let mut tries = 0;
    while faults.len() < count && tries < 400 {
        tries += 1;
        let kind = rng.below(KINDS);
        // Each seed leaves out half of the kinds, so that no fault hides behind another for ever.
        if kind < 3 || allowed >> kind & 1 == 1 {
            let fault = if plan.rot {
                rotten_fault(rng, kind, plan)
            } else {
                one_fault(rng, kind, plan)
            };
            faults.push((2_000 + rng.below(span), fault));
        }
    }
    if plan.rot {
        let (node, volume) = (rng.index(plan.nodes), rng.index(plan.layouts.len()));
        faults.push((2_000 + rng.below(span), Fault::Rot { node, volume }));
    } else {
        // Drawn apart: what else a seed brings does not depend on it.
        let mut apart = Rng::new(allowed);
        if apart.chance(12) {
            faults.extend((0..=apart.below(3)).map(|_| (2_000 + apart.below(span), bad_sector(&mut apart, plan))));
        }
    }
    faults.sort_by_key(|&(at, _)| at);
    faults
}

const KINDS: u64 = 20;

/// Faults that never make a rotten image the one to copy from.
fn rotten_fault(rng: &mut Rng, kind: u64, plan: &Plan) -> Fault {
    match kind {
        0..=9 => cut(rng, plan),
        10..=12 => Fault::ClockJumps {
            node: rng.index(plan.nodes),
            by_us: 5_000_000,
        },
        _ => Fault::Slow {
            node: rng.index(plan.nodes),
            times: 20,
            for_us: 30_000,
        },
    }
}

fn bad_sector(rng: &mut Rng, plan: &Plan) -> Fault {
    Fault::DiskFails {
        node: rng.index(plan.nodes),
        volume: rng.index(plan.layouts.len()),
        what: DiskFault::BadSector(rng.next()),
    }
}

fn cut(rng: &mut Rng, plan: &Plan) -> Fault {
    let one = rng.index(plan.nodes);
    let other = (one + 1 + rng.index(plan.nodes - 1)) % plan.nodes;
    let notice = [0, 200, 3_000, 40_000, 200_000];
    Fault::Cut {
        nodes: (one, other),
        how: rng.pick(&[Cut::Both, Cut::Both, Cut::OneWay, Cut::Stall]),
        notice_us: (rng.pick(&notice), rng.pick(&notice)),
        for_us: rng.pick(&[100, 5_000, 60_000, 500_000]),
    }
}

fn one_fault(rng: &mut Rng, kind: u64, plan: &Plan) -> Fault {
    let node = rng.index(plan.nodes);
    let other = (node + 1 + rng.index(plan.nodes - 1)) % plan.nodes;
    let volume = rng.index(plan.layouts.len());
    let down_us = rng.pick(&[200, 5_000, 60_000, 300_000]);
    match kind {
        0..=2 => cut(rng, plan),
        3 => Fault::Kill { node, down_us },
        4 => Fault::Power {
            node: Some(node),
            down_us,
        },
        5 => Fault::Power { node: None, down_us },
        6 => Fault::Pause { node, for_us: down_us },
        7 => Fault::DiskFails {
            node,
            volume,
            what: rng.pick(&[
                DiskFault::Write(Failure::Io),
                DiskFault::Write(Failure::NoSpace),
                DiskFault::Read,
                DiskFault::Flush,
                DiskFault::Metadata,
            ]),
        },
        8 => Fault::Slow {
            node,
            times: rng.pick(&[10, 50]),
            for_us: down_us,
        },
        9 => Fault::ClockJumps {
            node,
            by_us: rng.pick(&[100_000, 10_000_000]),
        },
        10 => Fault::HostGone {
            node,
            connection: rng.index(3),
        },
        _ => Fault::Operator(one_action(rng, kind, node, other, volume)),
    }
}

fn one_action(rng: &mut Rng, kind: u64, node: usize, other: usize, volume: usize) -> Action {
    match kind {
        11 | 12 => Action::Promote {
            node,
            force: rng.chance(40),
        },
        13 => Action::Demote(node),
        14 => Action::Disconnect { node, from: other },
        15 => Action::Connect {
            node,
            to: other,
            discard: rng.chance(20),
        },
        16 => Action::Invalidate { node, from: other },
        17 => {
            if rng.chance(50) {
                Action::Detach { node, volume }
            } else {
                Action::Attach {
                    node,
                    volume,
                    replaced: rng.chance(30),
                }
            }
        }
        18 => {
            if rng.chance(40) {
                Action::Resize { node, volume }
            } else {
                Action::Restart(node)
            }
        }
        _ => Action::Verify {
            node,
            volume,
            with: other,
            repair: rng.chance(70),
        },
    }
}
