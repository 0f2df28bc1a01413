//! Faults strike.

use crate::disk::ROT;
use crate::faults::{Cut, DiskFault, Fault};
use crate::world::{Check, Event, Phase, World};

/// Microseconds until a node that a sector can rot on is looked for again.
const ROT_AGAIN_US: u64 = 5_000;

impl World {
    /// A fault strikes.
    pub fn strike(&mut self, fault: Fault) -> Check {
        self.trace(|| format!("** {fault:?}"));
        match fault {
            Fault::Cut {
                nodes,
                how,
                notice_us,
                for_us,
            } => {
                self.tally.one_way += u64::from(how == Cut::OneWay && self.linked(nodes.0, nodes.1));
                self.tally.stalled += u64::from(how == Cut::Stall && self.linked(nodes.0, nodes.1));
                self.cut(nodes, how, notice_us, for_us);
            }
            Fault::Kill { node, down_us } => return self.node_dies(node, false, down_us),
            Fault::Power { node, down_us } => {
                let hit = match node {
                    Some(node) => node..node + 1,
                    None => 0..self.nodes.len(),
                };
                for node in hit {
                    self.node_dies(node, true, down_us)?;
                }
            }
            Fault::Pause { node, for_us } => {
                self.tally.pauses += 1;
                self.nodes[node].paused_until = self.now + for_us;
            }
            Fault::DiskFails { node, volume, what } => self.fail_disk(node, volume, what),
            Fault::Slow { node, times, for_us } => {
                self.tally.slowed += 1;
                self.nodes[node].slow = times;
                self.after(for_us, Event::Fast(node));
            }
            Fault::Rot { node, volume } => self.rot(node, volume),
            Fault::ClockJumps { node, by_us } => {
                self.tally.clock_jumps += 1;
                self.nodes[node].ahead_us += by_us;
            }
            Fault::HostGone { node, connection } => return self.host_gone(node, connection),
            Fault::Operator(action) => return self.carry_out(action),
        }
        Ok(())
    }

    /// A resync or a promotion is under way on this node: the worst moment for one more fault.
    pub fn worst_moment(&mut self, node: usize) {
        if self.phase == Phase::Safety && self.plan.aftershocks > 0 && self.rng.chance(30) {
            self.plan.aftershocks -= 1;
            let how = self.rng.below(8);
            let delay = self.rng.below(6_000);
            self.after(delay, Event::Aftershock(node, how));
        }
    }

    /// It strikes.
    pub fn aftershock(&mut self, node: usize, how: u64) -> Check {
        if self.phase != Phase::Safety {
            return Ok(());
        }
        let down_us = self.rng.pick(&[200, 5_000, 60_000]);
        let other = (node + 1) % self.nodes.len();
        let fault = match how {
            0..=2 => Fault::Power {
                node: Some(node),
                down_us,
            },
            3 => Fault::Power { node: None, down_us },
            4 => Fault::Kill { node, down_us },
            5 => Fault::Kill { node: other, down_us },
            _ => Fault::Cut {
                nodes: (node, other),
                how: Cut::Both,
                notice_us: (0, 3_000),
                for_us: down_us,
            },
        };
        self.strike(fault)
    }

    fn fail_disk(&mut self, node: usize, volume: usize, what: DiskFault) {
        let it = &mut self.nodes[node].volumes[volume];
        let failing = &mut it.failing;
        match what {
            DiskFault::BadSector(number) => {
                it.bad.insert((number % it.disk.slots() as u64) as usize);
            }
            DiskFault::Write(failure) => failing.write = Some(failure),
            DiskFault::Read => failing.read = true,
            DiskFault::Flush => failing.flush = true,
            DiskFault::Metadata => failing.metadata = true,
        }
    }

    /// A sector of a node in step, and not Primary, goes bad, or its next write lands elsewhere: as soon as there is such
    /// a node.
    pub fn rot(&mut self, node: usize, volume: usize) {
        if self.phase != Phase::Safety {
            return;
        }
        let fit = |node: &usize| {
            let it = &self.nodes[*node].volumes[volume];
            let in_step = it.follows.is_some() && it.left_at == 0 && !it.partial;
            self.nodes[*node].reign.is_none() && in_step
        };
        let mut nodes = (node..self.nodes.len()).chain(0..node);
        let Some(node) = nodes.find(fit) else {
            return self.after(ROT_AGAIN_US, Event::Rot(node, volume));
        };
        if self.rng.chance(40) {
            self.nodes[node].volumes[volume].failing.misdirected = true;
            return;
        }
        let slot = self.rng.index(self.nodes[node].volumes[volume].disk.slots());
        let disk = &mut self.nodes[node].volumes[volume].disk;
        let stamp = disk.read(slot);
        disk.rot(slot, ROT + (stamp & 0xffff));
        self.tally.rotten += 1;
    }
}
