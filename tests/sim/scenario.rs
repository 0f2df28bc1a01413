//! What a seed stands for: the volume, the peers, how busy the host is, and which faults come when.

use mirror_core::config::{AckMode, OnDisconnect};

use crate::disk::Stamp;
use crate::faults::{Fault, plan_faults};
use crate::layout::Layout;
use crate::rng::Rng;

/// Longest safety phase, in simulated microseconds; a held host does not delay the end.
pub const SAFETY_US: u64 = 400_000;

/// One peer.
#[derive(Clone, Debug)]
pub struct PeerPlan {
    /// When writes are answered.
    pub mode: AckMode,
    /// What happens without it.
    pub on_disconnect: OnDisconnect,
    /// Queue bound in bytes.
    pub queue_bytes: u64,
    /// Queue bound in requests.
    pub queue_requests: usize,
    /// Starts with equal content and `skip_initial_sync`; otherwise with garbage.
    pub equal: bool,
}

/// How the host behaves.
#[derive(Clone, Debug)]
pub struct HostPlan {
    /// Connections.
    pub connections: usize,
    /// Requests at most between arrival and answer.
    pub depth: usize,
    /// Requests in the safety phase.
    pub requests: u64,
    /// Longest pause between requests, in microseconds.
    pub pause_us: u64,
    /// Flushes among 100 requests.
    pub flush_percent: u64,
    /// Writes with forced unit access among 100.
    pub fua_percent: u64,
    /// Requests over many extents among 100.
    pub large_percent: u64,
}

/// Everything a seed decides beforehand.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The volume.
    pub layout: Layout,
    /// Content of the local leg at the start.
    pub content: Vec<Stamp>,
    /// Extents that may be hot.
    pub hot_extents: usize,
    /// Every block counts as data in resync, not only what the windows hold: many small copies instead of few large ones.
    pub dense: bool,
    /// Longest turn of the shell, in microseconds: inputs of one turn are all handled before their outputs are obeyed.
    pub turn_us: u64,
    /// The peers.
    pub peers: Vec<PeerPlan>,
    /// The host.
    pub host: HostPlan,
    /// Faults and the simulated microsecond they come at, in order.
    pub faults: Vec<(u64, Fault)>,
}

impl Scenario {
    /// Derive everything from the seed's stream.
    pub fn new(rng: &mut Rng) -> Self {
        let extents = if rng.chance(85) {
            rng.between(3, 9)
        } else {
            rng.between(34, 70)
        };
        let layout = Layout::new(rng, extents);
        let peers: Vec<PeerPlan> = (0..rng.pick(&[1, 1, 1, 1, 2, 2, 3])).map(|_| plan_peer(rng)).collect();
        let written_percent = rng.pick(&[0, 40, 90]);
        let content: Vec<Stamp> = (0..layout.slots())
            .map(|slot| {
                if rng.chance(written_percent) {
                    1 + slot as Stamp % 5
                } else {
                    0
                }
            })
            .collect();
        let host = plan_host(rng);
        let faults = plan_faults(rng, peers.len());
        Self {
            layout,
            content,
            hot_extents: rng.between(3, 8) as usize,
            dense: rng.chance(20),
            turn_us: rng.pick(&[0, 0, 20, 400]),
            peers,
            host,
            faults,
        }
    }
}

fn plan_host(rng: &mut Rng) -> HostPlan {
    // Now and then more requests at once than the window of a peer takes.
    let flood = rng.chance(4);
    HostPlan {
        connections: rng.between(1, 4) as usize,
        depth: if flood { 400 } else { rng.pick(&[1, 4, 12, 24]) },
        requests: if flood { 900 } else { rng.between(40, 220) },
        pause_us: if flood { 4 } else { rng.pick(&[50, 300, 2000]) },
        flush_percent: rng.pick(&[0, 5, 15, 40]),
        fua_percent: rng.pick(&[0, 5, 30]),
        large_percent: rng.pick(&[0, 3, 10]),
    }
}

fn plan_peer(rng: &mut Rng) -> PeerPlan {
    PeerPlan {
        mode: rng.pick(&[AckMode::Sync, AckMode::Sync, AckMode::Async]),
        on_disconnect: rng.pick(&[
            OnDisconnect::Continue,
            OnDisconnect::Continue,
            OnDisconnect::Continue,
            OnDisconnect::Suspend,
            OnDisconnect::Fail,
        ]),
        queue_bytes: rng.pick(&[8 << 10, 64 << 10, 1 << 20, 64 << 20]),
        queue_requests: rng.pick(&[2, 8, 64, 600]),
        equal: rng.chance(70),
    }
}
