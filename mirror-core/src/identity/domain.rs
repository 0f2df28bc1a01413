//! Every state of one side over small domains: what the decision is held against, in tests and in the mutation run.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::decide::Side;
use super::{Generation, Meeting, Role, VolumeIdentity};
use crate::state::LocalDisk;

/// A side that owns what it says.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) volume: VolumeIdentity,
    pub(super) role: Role,
    pub(super) discard: bool,
    pub(super) primary_since: u64,
}

impl Node {
    /// With data of this generation, complete, nothing dirty.
    pub(super) fn new(name: &'static str, current: Generation) -> Self {
        Self {
            name,
            volume: VolumeIdentity {
                name: "v".to_string(),
                size: 1 << 20,
                fresh: false,
                current,
                for_peer: 0,
                for_others: Vec::new(),
                history: Vec::new(),
                withdrawn: Vec::new(),
                disk: LocalDisk::UpToDate,
                crashed_primary: false,
                dirty_bytes: 0,
                acks_wait: false,
                sync: 0,
                met: Meeting::NEVER,
                met_before: Meeting::NEVER,
            },
            role: Role::Secondary,
            discard: false,
            primary_since: 0,
        }
    }

    pub(super) fn fresh(name: &'static str) -> Self {
        let mut node = Self::new(name, 0);
        node.volume.fresh = true;
        node
    }

    pub(super) fn for_peer(mut self, generation: Generation) -> Self {
        self.volume.for_peer = generation;
        self
    }

    pub(super) fn for_other(mut self, generation: Generation) -> Self {
        self.volume.for_others.push(generation);
        self
    }

    pub(super) fn history(mut self, history: &[Generation]) -> Self {
        self.volume.history = history.to_vec();
        self
    }

    pub(super) fn withdrew(mut self, generation: Generation) -> Self {
        self.volume.withdrawn.push(generation);
        self
    }

    pub(super) fn disk(mut self, disk: LocalDisk) -> Self {
        self.volume.disk = disk;
        self
    }

    pub(super) fn dirty(mut self, bytes: u64) -> Self {
        self.volume.dirty_bytes = bytes;
        self
    }

    pub(super) fn sync(mut self, token: u64) -> Self {
        self.volume.sync = token;
        self
    }

    pub(super) fn met(mut self, met: Meeting, before: Meeting) -> Self {
        self.volume.met = met;
        self.volume.met_before = before;
        self
    }

    pub(super) fn side(&self) -> Side<'_> {
        Side {
            volume: &self.volume,
            node: self.name,
            incarnation: self.name.len() as u64,
            role: self.role,
            discard_my_data: self.discard,
            primary_since: self.primary_since,
        }
    }
}

const MEETINGS: [(Meeting, Meeting); 3] = [
    (Meeting::NEVER, Meeting::NEVER),
    (Meeting { count: 1, token: 10 }, Meeting::NEVER),
    (Meeting { count: 3, token: 30 }, Meeting { count: 2, token: 20 }),
];

/// All identifiers over three generations; images complete.
pub(super) fn generations(name: &'static str) -> Vec<Node> {
    let histories: [&[Generation]; 8] = [&[], &[1], &[2], &[3], &[1, 2], &[1, 3], &[2, 3], &[1, 2, 3]];
    let mut all = alloc::vec![Node::fresh(name)];
    for current in 1..=3 {
        for for_peer in 0..=3 {
            for for_other in 0..=3 {
                for history in histories {
                    for (met, before) in [MEETINGS[0], MEETINGS[2]] {
                        for dirty in [0, 4096] {
                            let mut node = Node::new(name, current).for_peer(for_peer).history(history);
                            if for_other != 0 {
                                node = node.for_other(for_other);
                            }
                            all.push(node.met(met, before).dirty(dirty));
                        }
                    }
                }
            }
        }
    }
    all
}

/// All states and flags, over two generations.
pub(super) fn flags(name: &'static str) -> Vec<Node> {
    let mut all = Vec::new();
    for base in bases(name) {
        for disk in [
            LocalDisk::Diskless,
            LocalDisk::Inconsistent,
            LocalDisk::Outdated,
            LocalDisk::UpToDate,
        ] {
            for bits in 0..16_u32 {
                let flag = |bit: u32| bits & (1 << bit) != 0;
                for acks_wait in [false, true] {
                    let mut node = base.clone().disk(disk).dirty(if flag(0) { 4096 } else { 0 });
                    node.role = if flag(1) { Role::Primary } else { Role::Secondary };
                    node.discard = flag(2);
                    node.volume.crashed_primary = flag(3);
                    node.volume.acks_wait = acks_wait;
                    if node.volume.crashed_primary && flag(0) || !acks_wait {
                        if !node.discard && matches!(disk, LocalDisk::Inconsistent | LocalDisk::UpToDate) {
                            all.push(node.clone().sync(7));
                        }
                        if node.role == Role::Primary && !node.discard && !acks_wait {
                            let other = 3 - node.volume.current;
                            all.push(node.clone().withdrew(other));
                        }
                        all.push(node);
                    }
                }
            }
        }
    }
    all
}

fn bases(name: &'static str) -> Vec<Node> {
    let mut bases = alloc::vec![Node::fresh(name)];
    bases[0].volume.current = 1;
    for current in 1..=2 {
        for for_peer in 0..=2 {
            for history in [&[][..], &[1]] {
                for (met, before) in MEETINGS {
                    bases.push(
                        Node::new(name, current)
                            .for_peer(for_peer)
                            .history(history)
                            .met(met, before),
                    );
                }
            }
        }
    }
    let mut larger = Node::new(name, 1);
    larger.volume.size *= 2;
    bases.push(larger);
    bases
}
