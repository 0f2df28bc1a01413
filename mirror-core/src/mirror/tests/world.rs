//! A mirror with one peer, and the inputs and outputs of one step.

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use super::super::*;
use crate::config::{AckMode, OnIoError, PeerConfig, PeerKind, ResyncRate};
use crate::event::{ConnectionId, LinkKind, Mutation, MutationKind, SyncPlan, Transaction};
use crate::identity::Role;
use crate::metadata::{ImageIdentity, PeerSlotConfig};
use crate::range::ByteRange;

const SIZE: u64 = 256 << 20;
pub(super) const PEER: PeerIndex = PeerIndex(0);
const IMAGE: ImageIdentity = ImageIdentity {
    size: SIZE,
    device: 1,
    inode: 2,
    born_ns: 3,
};

pub(super) struct World {
    pub(super) mirror: Mirror,
    pub(super) out: Vec<Output>,
    pub(super) connection: u32,
}

impl World {
    pub(super) fn new(mode: AckMode, on_disconnect: OnDisconnect) -> Self {
        let slot = PeerSlotConfig {
            name: "bravo".to_string(),
            skip_initial_sync: true,
            kind: Some(LinkKind::Nbd),
        };
        let (restored, writes) = Restored::create(IMAGE, &[slot], 7).unwrap();
        assert_eq!(writes.len(), 2);
        let peer = PeerConfig {
            name: "bravo".to_string(),
            mode,
            on_disconnect,
            queue_bytes: 3 * 4096,
            queue_requests: 8,
            kind: PeerKind::Plain,
        };
        let config = MirrorConfig {
            size: SIZE,
            hot_extents: 8,
            peers: vec![peer],
            entropy: 9,
            role: Role::Primary,
            on_io_error: OnIoError::Pass,
            resync: ResyncRate::default(),
        };
        let mut world = Self {
            mirror: Mirror::new(config, restored),
            out: vec![],
            connection: 0,
        };
        world.drain();
        assert!(world.out.contains(&Output::Connect(PEER)));
        world.out.clear();
        world
    }

    pub(super) fn drain(&mut self) {
        while let Some(output) = self.mirror.poll_output() {
            self.out.push(output);
        }
    }

    pub(super) fn give(&mut self, input: Input) -> Vec<Output> {
        self.mirror.handle(Duration::ZERO, input);
        self.drain();
        core::mem::take(&mut self.out)
            .into_iter()
            .filter(|output| !matches!(output, Output::Event(_)))
            .collect()
    }

    pub(super) fn up(&mut self) -> Vec<Output> {
        self.connection += 1;
        self.give(Input::PeerUp {
            peer: PEER,
            connection: ConnectionId(self.connection),
            link: LinkKind::Nbd,
            plan: SyncPlan::Source,
        })
    }

    pub(super) fn down(&mut self) -> Vec<Output> {
        self.give(Input::PeerDown {
            peer: PEER,
            connection: ConnectionId(self.connection),
        })
    }

    pub(super) fn write(&mut self, id: u32, offset: u64) -> Vec<Output> {
        let mutation = Mutation {
            range: ByteRange::new(offset, 4096),
            kind: MutationKind::Write,
            fua: false,
        };
        self.give(Input::Host {
            id: RequestId(id),
            op: HostOp::Mutate(mutation),
        })
    }

    pub(super) fn persisted(&mut self, outputs: &[Output]) -> Vec<Output> {
        let id = transaction(outputs).id;
        self.give(Input::Persisted { id, outcome: Ok(()) })
    }

    pub(super) fn local(&mut self, id: u32) -> Vec<Output> {
        self.give(Input::LocalDone {
            id: RequestId(id),
            outcome: Ok(()),
        })
    }

    pub(super) fn peer(&mut self, id: u32) -> Vec<Output> {
        let connection = ConnectionId(self.connection);
        self.give(Input::PeerDone {
            peer: PEER,
            connection,
            id: RequestId(id),
            outcome: Ok(()),
        })
    }

    pub(super) fn peer_flushed(&mut self) -> Vec<Output> {
        self.give(Input::PeerFlushDone {
            peer: PEER,
            connection: ConnectionId(self.connection),
            outcome: Ok(()),
        })
    }

    pub(super) fn state(&self) -> PeerState {
        self.mirror.status(Duration::ZERO).peers[0].state
    }

    /// A write on a hot extent, done on the local leg and answered by the peer.
    pub(super) fn whole_write(&mut self, id: u32, offset: u64) {
        let outputs = self.write(id, offset);
        if outputs.iter().any(|output| matches!(output, Output::Persist(_))) {
            self.persisted(&outputs);
        }
        self.local(id);
        self.peer(id);
    }
}

pub(super) fn transaction(outputs: &[Output]) -> &Transaction {
    let found = outputs.iter().find_map(|output| match output {
        Output::Persist(transaction) => Some(transaction),
        _ => None,
    });
    found.expect("a transaction")
}

pub(super) fn reply(id: u32) -> Output {
    Output::Reply {
        id: RequestId(id),
        outcome: Ok(()),
    }
}
