//! A volume that knows identifiers and bits only, and carries orders out at once.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use crate::event::{ConnectionId, Order, OrderRefusal, PeerIndex, SyncPlan};
use crate::identity::{HISTORY_MAX, Meeting, VolumeIdentity};
use crate::range::BLOCK_BYTES;
use crate::state::LocalDisk;

pub const BLOCKS: u64 = 64;

#[derive(Clone, Debug)]
pub struct Volume {
    pub size: u64,
    pub fresh: bool,
    pub current: u64,
    pub history: Vec<u64>,
    pub disk: LocalDisk,
    pub primary: bool,
    pub crashed: bool,
    pub acks_wait: bool,
    pub answers_lost: bool,
    pub records: Vec<u64>,
    pub dirty: Vec<BTreeSet<u64>>,
    pub met: Vec<(Meeting, Meeting)>,
    pub up: Vec<Option<(ConnectionId, SyncPlan)>>,
    pub branches: Vec<u64>,
    pub primary_since: u64,
    /// By peer: what the operator has given up for its data.
    pub given_up: Vec<u64>,
    /// Its state before it was detached.
    pub detached: LocalDisk,
    /// Orders are never done.
    pub mute: bool,
    /// Orders that it refuses.
    pub refuses: Option<OrderRefusal>,
    /// It fails while it gets a name.
    pub fails_naming: bool,
    /// No word can be taken back.
    pub keeps_words: bool,
}

impl Volume {
    pub fn fresh(current: u64, peers: usize) -> Self {
        Self {
            size: BLOCKS * BLOCK_BYTES,
            fresh: true,
            current,
            history: Vec::new(),
            disk: LocalDisk::UpToDate,
            primary: false,
            crashed: false,
            acks_wait: true,
            answers_lost: false,
            records: vec![0; peers],
            dirty: vec![BTreeSet::new(); peers],
            met: vec![(Meeting::NEVER, Meeting::NEVER); peers],
            up: vec![None; peers],
            branches: Vec::new(),
            primary_since: 0,
            given_up: vec![0; peers],
            detached: LocalDisk::UpToDate,
            mute: false,
            refuses: None,
            fails_naming: false,
            keeps_words: false,
        }
    }

    pub fn identity(&self, peer: usize) -> VolumeIdentity {
        let others = self.records.iter().enumerate();
        VolumeIdentity {
            name: String::new(),
            size: self.size,
            fresh: self.fresh,
            current: self.current,
            for_peer: self.records.get(peer).copied().unwrap_or(0),
            for_others: others
                .filter(|(at, g)| *at != peer && **g != 0)
                .map(|(_, g)| *g)
                .collect(),
            history: self.history.clone(),
            withdrawn: Vec::new(),
            disk: self.disk,
            crashed_primary: self.crashed,
            dirty_bytes: self.dirty.get(peer).map_or(0, |bits| bits.len() as u64 * BLOCK_BYTES),
            acks_wait: self.acks_wait,
            sync: 0,
            met: self.met.get(peer).map_or(Meeting::NEVER, |met| met.0),
            met_before: self.met.get(peer).map_or(Meeting::NEVER, |met| met.1),
        }
    }

    pub fn dirty_runs(&self, peer: usize, from: u64, max: usize) -> Vec<Range<u64>> {
        self.dirty[peer]
            .range(from..)
            .take(max)
            .map(|block| *block..block + 1)
            .collect()
    }

    pub fn new_generation(&mut self, generation: u64) {
        self.history.insert(0, self.current);
        self.history.truncate(HISTORY_MAX);
        self.current = generation;
        self.fresh = false;
    }

    pub fn fill(&mut self, peer: usize) {
        self.dirty[peer] = (0..self.size / BLOCK_BYTES).collect();
    }

    /// All but a promotion, which concerns other nodes as well.
    pub fn carry_out(&mut self, order: &Order) -> Result<(), OrderRefusal> {
        if let Some(refusal) = self.refuses {
            return Err(refusal);
        }
        match order {
            Order::Promote { .. } if self.fails_naming => return Err(OrderRefusal::Closed),
            Order::Agree | Order::Promote { .. } | Order::SetKind { .. } => {}
            Order::Demote => self.primary = false,
            Order::GiveUp { given_up: false, .. } if self.keeps_words => return Err(OrderRefusal::Closed),
            Order::GiveUp { peer, given_up } => {
                self.given_up[usize::from(peer.0)] = if *given_up { self.current } else { 0 };
            }
            Order::BeginTarget { .. } if self.disk == LocalDisk::Diskless => return Err(OrderRefusal::WrongState),
            Order::BeginTarget { .. } => {
                self.disk = LocalDisk::Inconsistent;
                self.crashed = false;
            }
            Order::Merge { peer, blocks } => {
                let bits = &mut self.dirty[usize::from(peer.0)];
                blocks.iter().for_each(|run| bits.extend(run.clone()));
            }
            Order::Fill { peer } => self.fill(usize::from(peer.0)),
            Order::Met {
                peer,
                met,
                before,
                answers_lost,
            } => {
                self.met[usize::from(peer.0)] = (*met, *before);
                self.answers_lost = *answers_lost;
            }
            Order::Detach if self.disk == LocalDisk::Diskless => return Err(OrderRefusal::WrongState),
            Order::Detach => self.detached = core::mem::replace(&mut self.disk, LocalDisk::Diskless),
            Order::Attach { .. } if self.disk != LocalDisk::Diskless => return Err(OrderRefusal::WrongState),
            Order::Attach { .. } => self.disk = self.detached,
            Order::Resize { size, .. } => self.size = *size,
            Order::AddPeer(_) => {
                self.records.push(0);
                self.given_up.push(0);
                self.dirty.push(BTreeSet::new());
                self.met.push((Meeting::NEVER, Meeting::NEVER));
                self.up.push(None);
            }
            Order::RemovePeer(PeerIndex(at)) => self.up[usize::from(*at)] = None,
            Order::Adopt { .. } | Order::Verify { .. } | Order::VerifyStop { .. } | Order::Part { .. } => {}
        }
        Ok(())
    }
}
