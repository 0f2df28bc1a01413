//! One node of a cluster of mirrors.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use super::super::*;
use super::answers::blocks_of;
use crate::config::{AckMode, OnIoError, PeerConfig, PeerKind, ResyncRate};
use crate::event::{Copied, CopyId, Failure, LinkKind, Mutation, OrderRefusal, Ticket, Transaction, VolumeMessage};
use crate::metadata::{ImageIdentity, PeerSlotConfig};
use crate::range::ByteRange;

/// Blocks of the volume.
const BLOCKS: u64 = 2048;
const SIZE: u64 = BLOCKS * BLOCK_BYTES;
const NAMES: [&str; 3] = ["alpha", "bravo", "charlie"];

/// What travels on a stream.
#[derive(Clone, Debug)]
pub(super) enum Packet {
    Mutation(RequestId, Mutation, u32),
    Flush,
    Barrier,
    Copy(CopyId, ByteRange, Vec<u32>),
    Message(VolumeMessage),
    /// A FETCH (true) or a COMPARE, and what it brings.
    Ask(bool, CopyId, ByteRange),
    Contents(bool, CopyId, ByteRange, Vec<u32>),
    /// It could not be read there.
    Unread(bool, CopyId),
    Done(RequestId),
    FlushDone,
    CopyDone(CopyId, Copied),
}

/// Why a request is with a Secondary's mirror.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    Host,
    Mutation(usize, RequestId),
    Flush(usize),
    Copy(usize, CopyId, Copied),
}

pub(super) struct Node {
    pub(super) mirror: Mirror,
    /// A stamp per block.
    pub(super) image: Vec<u32>,
    /// What its requests write, from their first block on.
    pub(super) stamps: BTreeMap<u32, Vec<u32>>,
    pub(super) origins: BTreeMap<u32, Origin>,
    /// Its transactions wait for `save`.
    pub(super) holds_metadata: bool,
    /// Its image fails writes and flushes so.
    pub(super) broken: Option<Failure>,
    /// Its image cannot read these blocks until they are written.
    pub(super) unreadable: BTreeSet<usize>,
    pub(super) transactions: VecDeque<Transaction>,
    pub(super) replies: Vec<(RequestId, Result<(), Refusal>)>,
    pub(super) done: Vec<(Ticket, Result<(), OrderRefusal>)>,
    pub(super) barriers: usize,
    pub(super) disconnects: Vec<PeerIndex>,
    pub(super) connects: Vec<PeerIndex>,
    next_id: u32,
}

impl Node {
    pub(super) fn new(at: usize, nodes: usize, mode: AckMode) -> Self {
        let names: Vec<&str> = (0..nodes)
            .filter(|&other| other != at)
            .map(|other| NAMES[other])
            .collect();
        let slot = |name: &&str| PeerSlotConfig {
            name: name.to_string(),
            skip_initial_sync: true,
            kind: Some(LinkKind::Stream),
        };
        let slots: Vec<_> = names.iter().map(slot).collect();
        let image = ImageIdentity {
            size: SIZE,
            device: 1,
            inode: at as u64,
            born_ns: 0,
        };
        let (restored, _) = Restored::create(image, &slots, 70 + at as u64).unwrap();
        let config = MirrorConfig {
            size: SIZE,
            hot_extents: 8,
            peers: names.iter().map(|name| peer_config(name, mode)).collect(),
            entropy: 90 + at as u64,
            role: restored.start_role(),
            on_io_error: OnIoError::Pass,
            resync: ResyncRate { floor: 1 << 40, cap: 0 },
        };
        Self {
            mirror: Mirror::new(config, restored),
            image: vec![0; BLOCKS as usize],
            stamps: BTreeMap::new(),
            origins: BTreeMap::new(),
            holds_metadata: false,
            broken: None,
            unreadable: BTreeSet::new(),
            transactions: VecDeque::new(),
            replies: vec![],
            done: vec![],
            barriers: 0,
            disconnects: vec![],
            connects: vec![],
            next_id: 0,
        }
    }

    pub(super) fn request(&mut self, origin: Origin, stamps: Vec<u32>) -> RequestId {
        self.next_id += 1;
        self.stamps.insert(self.next_id, stamps);
        self.origins.insert(self.next_id, origin);
        RequestId(self.next_id)
    }

    /// What its image holds there, if it can be read.
    pub(super) fn read(&self, range: ByteRange) -> Option<Vec<u32>> {
        let blocks = blocks_of(range);
        let bad = self.unreadable.range(blocks.clone()).next().is_some();
        (!bad).then(|| self.image[blocks].to_vec())
    }

    /// Write to its image from a block on.
    pub(super) fn put(&mut self, from: usize, stamps: &[u32]) {
        let blocks = from..from + stamps.len();
        self.image[blocks.clone()].copy_from_slice(stamps);
        self.unreadable.retain(|block| !blocks.contains(block));
    }

    pub(super) fn outcome(&self, ticket: Ticket) -> Option<Result<(), OrderRefusal>> {
        let mut found = self.done.iter().filter(|(done, _)| *done == ticket);
        let outcome = found.next().map(|&(_, outcome)| outcome);
        assert!(found.next().is_none(), "an order ends once");
        outcome
    }
}

/// A partner.
pub(super) fn peer_config(name: &str, mode: AckMode) -> PeerConfig {
    PeerConfig {
        name: name.to_string(),
        mode,
        on_disconnect: OnDisconnect::Continue,
        queue_bytes: 3 * 4096,
        queue_requests: 64,
        kind: PeerKind::Partner,
    }
}
