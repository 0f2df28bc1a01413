//! What a seed stands for: the cluster, how busy the hosts are, and which faults come when.

use mirror_core::config::{AckMode, OnDisconnect, OnIoError};
use mirror_core::stream::Credit;

use crate::disk::{GARBAGE, Stamp};
use crate::faults::{Fault, plan_faults};
use crate::layout::Layout;
use crate::rng::Rng;

/// Longest safety phase, in simulated microseconds.
pub const SAFETY_US: u64 = 3_000_000;
/// Stamps of what was there before the first host came: `0..INITIAL`.
pub const INITIAL: Stamp = 6;

/// How the hosts behave.
#[derive(Clone, Debug)]
pub struct HostPlan {
    /// Connections to each node that serves.
    pub connections: usize,
    /// Requests at most between arrival and answer, per node.
    pub depth: usize,
    /// Requests in the safety phase.
    pub requests: u64,
    /// Longest pause between requests, in microseconds.
    pub pause_us: u64,
    /// Flushes among 100 requests.
    pub flush_percent: u64,
    /// Reads among 100 requests.
    pub read_percent: u64,
    /// Writes with forced unit access among 100.
    pub fua_percent: u64,
    /// Requests over many blocks among 100.
    pub large_percent: u64,
}

/// Everything a seed decides beforehand.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many nodes.
    pub nodes: usize,
    /// The volumes.
    pub layouts: Vec<Layout>,
    /// Content of each volume on node 0, and whether the others start with the same.
    pub content: Vec<Vec<Stamp>>,
    /// The other images are equal to node 0's at the start.
    pub equal: bool,
    /// Extents that may be hot.
    pub hot_extents: usize,
    /// When a write is answered.
    pub mode: AckMode,
    /// Without a peer.
    pub on_disconnect: OnDisconnect,
    /// With a bad image.
    pub on_io_error: OnIoError,
    /// `async`: bytes queued for a peer at most.
    pub queue_bytes: u64,
    /// `async`: requests queued for a peer at most.
    pub queue_requests: usize,
    /// 0: `manual`; else one of the split-brain policies.
    pub policy: u8,
    /// Longest turn of the shell, in microseconds: inputs of one turn are all handled before their outputs are obeyed.
    pub turn_us: u64,
    /// Longest delay of a link, in microseconds.
    pub delay_us: u64,
    /// Bytes and requests a sender may have in flight.
    pub credit: (u64, u32),
    /// One frame in so many goes through the codec; 0: none.
    pub encode_every: u64,
    /// The hosts.
    pub host: HostPlan,
    /// Faults and the simulated microsecond they come at, in order.
    pub faults: Vec<(u64, Fault)>,
    /// So many faults follow at once upon a resync or a promotion.
    pub aftershocks: u64,
    /// Sectors rot in this run: then the rotten node is never made the one to copy from.
    pub rot: bool,
    /// A named scenario: whatever its script does may happen.
    pub scripted: bool,
}

impl Plan {
    /// Derive everything from the seed's stream; the number of nodes may be given.
    pub fn new(rng: &mut Rng, nodes: Option<usize>) -> Self {
        let drawn = rng.pick(&[2, 2, 2, 2, 2, 2, 3, 3, 3, 4]);
        let nodes = nodes.unwrap_or(drawn);
        let volumes = rng.pick(&[1, 1, 1, 2, 2, 3]);
        let layouts: Vec<Layout> = (0..volumes)
            .map(|_| {
                let extents = rng.between(1, 3);
                Layout::new(rng, extents)
            })
            .collect();
        let written_percent = rng.pick(&[0, 40, 90]);
        let content = layouts
            .iter()
            .map(|layout| initial(rng, layout.slots, written_percent))
            .collect();
        let rot = rng.chance(6);
        let mut plan = Self {
            nodes,
            layouts,
            content,
            equal: rng.chance(60),
            hot_extents: rng.between(4, 8) as usize,
            mode: rng.pick(&[AckMode::Sync, AckMode::Sync, AckMode::Async]),
            on_disconnect: rng.pick(&[
                OnDisconnect::Continue,
                OnDisconnect::Continue,
                OnDisconnect::Continue,
                OnDisconnect::Continue,
                OnDisconnect::Suspend,
                OnDisconnect::Fail,
            ]),
            on_io_error: rng.pick(&[OnIoError::Detach, OnIoError::Detach, OnIoError::Pass]),
            queue_bytes: rng.pick(&[16 << 10, 256 << 10, 64 << 20]),
            queue_requests: rng.pick(&[4, 64, 600]),
            policy: rng.pick(&[0, 0, 0, 1, 2, 3]),
            turn_us: rng.pick(&[0, 0, 0, 60, 400]),
            delay_us: rng.pick(&[60, 400, 400, 3_000]),
            credit: (rng.pick(&[96 << 10, 1 << 20, 64 << 20]), rng.pick(&[4, 64, 4096])),
            encode_every: rng.pick(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 7]),
            host: plan_host(rng),
            faults: Vec::new(),
            aftershocks: if rot { 0 } else { rng.pick(&[0, 0, 1, 3]) },
            rot,
            scripted: false,
        };
        plan.faults = plan_faults(rng, &plan);
        plan
    }

    /// Some disk fails in this run.
    pub fn has_disk_faults(&self) -> bool {
        self.scripted
            || self
                .faults
                .iter()
                .any(|(_, fault)| matches!(fault, Fault::DiskFails { .. }))
    }

    /// What a receiver grants.
    pub fn credit(&self) -> Credit {
        Credit {
            bytes: self.credit.0,
            requests: self.credit.1,
        }
    }

    /// A quiet cluster for a named scenario.
    pub fn quiet(rng: &mut Rng, nodes: usize, volumes: usize) -> Self {
        let layouts: Vec<Layout> = (0..volumes).map(|_| Layout::new(rng, 2)).collect();
        let content = layouts.iter().map(|layout| initial(rng, layout.slots, 60)).collect();
        Self {
            nodes,
            layouts,
            content,
            equal: true,
            hot_extents: 8,
            mode: AckMode::Sync,
            on_disconnect: OnDisconnect::Continue,
            on_io_error: OnIoError::Detach,
            queue_bytes: 64 << 20,
            queue_requests: 600,
            policy: 0,
            turn_us: 0,
            delay_us: 300,
            credit: (64 << 20, 4096),
            encode_every: 0,
            host: HostPlan {
                connections: 2,
                depth: 16,
                requests: 0,
                pause_us: 200,
                flush_percent: 10,
                read_percent: 10,
                fua_percent: 5,
                large_percent: 0,
            },
            faults: Vec::new(),
            aftershocks: 0,
            rot: false,
            scripted: true,
        }
    }
}

/// What an image of another life holds.
pub fn garbage(rng: &mut Rng, slots: usize) -> Vec<Stamp> {
    (0..slots).map(|_| GARBAGE + rng.below(3) as Stamp).collect()
}

fn initial(rng: &mut Rng, slots: usize, written_percent: u64) -> Vec<Stamp> {
    let stamp = |rng: &mut Rng, slot: usize| {
        if rng.chance(written_percent) {
            1 + slot as Stamp % (INITIAL - 1)
        } else {
            0
        }
    };
    (0..slots).map(|slot| stamp(rng, slot)).collect()
}

fn plan_host(rng: &mut Rng) -> HostPlan {
    HostPlan {
        connections: rng.between(1, 3) as usize,
        depth: rng.pick(&[1, 4, 12, 24]),
        requests: rng.between(40, 200),
        pause_us: rng.pick(&[100, 1_000, 1_000, 8_000]),
        flush_percent: rng.pick(&[0, 5, 15, 30]),
        read_percent: rng.pick(&[0, 10, 30]),
        fua_percent: rng.pick(&[0, 5, 30]),
        large_percent: rng.pick(&[0, 3, 8]),
    }
}
