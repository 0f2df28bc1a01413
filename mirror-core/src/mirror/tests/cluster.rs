//! Mirrors of one volume on several nodes, joined by streams that deliver in order. Legs answer at once; metadata of a
//! node can be held back.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

use super::super::*;
use super::answers::unread;
use super::node::{Node, Origin, Packet};
use crate::config::AckMode;
use crate::event::{ConnectionId, Copied, LinkKind, Mutation, MutationKind, Order, SyncPlan, Ticket, VolumeMessage};
use crate::range::ByteRange;

pub(super) struct Cluster {
    pub(super) nodes: Vec<Node>,
    /// From, to.
    pub(super) wires: BTreeMap<(usize, usize), VecDeque<Packet>>,
    /// These links deliver nothing for the time being.
    pub(super) stalled: Vec<(usize, usize)>,
    pub(super) connection: u32,
    tickets: u32,
    pub(super) now: Duration,
}

impl Cluster {
    /// Nodes without data that know of each other; images are equal.
    pub(super) fn new(nodes: usize, mode: AckMode) -> Self {
        let nodes = (0..nodes).map(|at| Node::new(at, nodes, mode)).collect();
        let mut cluster = Self {
            nodes,
            wires: BTreeMap::new(),
            stalled: vec![],
            connection: 0,
            tickets: 0,
            now: Duration::ZERO,
        };
        cluster.settle();
        cluster
    }

    /// The same, with another policy for a partner that is lost.
    pub(super) fn with_policy(mut self, policy: OnDisconnect) -> Self {
        for node in &mut self.nodes {
            for peer in &mut node.mirror.peers {
                peer.config.on_disconnect = policy;
            }
        }
        self
    }

    /// The node at `from` calls the node at `to` so.
    pub(super) fn index(from: usize, to: usize) -> PeerIndex {
        PeerIndex(if to < from { to } else { to - 1 } as u8)
    }

    fn node_of(from: usize, peer: PeerIndex) -> usize {
        let at = usize::from(peer.0);
        if at < from { at } else { at + 1 }
    }

    pub(super) fn connect(&mut self, one: usize, plan: SyncPlan, other: usize, other_plan: SyncPlan) {
        self.connection += 1;
        for (from, to, plan) in [(one, other, plan), (other, one, other_plan)] {
            self.wires.insert((from, to), VecDeque::new());
            let input = Input::PeerUp {
                peer: Self::index(from, to),
                connection: ConnectionId(self.connection),
                link: LinkKind::Stream,
                plan,
            };
            self.feed(from, input);
        }
        self.settle();
    }

    pub(super) fn cut(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            self.wires.remove(&(from, to));
            let peer = Self::index(from, to);
            let connection = self.nodes[from].mirror.peers[usize::from(peer.0)].connection;
            if let Some(connection) = connection {
                self.feed(from, Input::PeerDown { peer, connection });
            }
        }
        self.settle();
    }

    pub(super) fn order(&mut self, node: usize, order: Order) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.feed(node, Input::Order { ticket, order });
        self.settle();
        ticket
    }

    pub(super) fn ordered(&mut self, node: usize, order: Order) {
        let ticket = self.order(node, order);
        assert_eq!(self.nodes[node].outcome(ticket), Some(Ok(())));
    }

    pub(super) fn promote(&mut self, node: usize, generation: u64) {
        self.ordered(
            node,
            Order::Promote {
                generation,
                doubtful: vec![],
                since: 0,
            },
        );
    }

    /// A host write of one block; answered or not.
    pub(super) fn write(&mut self, node: usize, block: u64, stamp: u32) -> RequestId {
        let mutation = Mutation {
            range: ByteRange::new(block * BLOCK_BYTES, BLOCK_BYTES),
            kind: MutationKind::Write,
            fua: false,
        };
        let id = self.nodes[node].request(Origin::Host, vec![stamp]);
        self.feed(
            node,
            Input::Host {
                id,
                op: HostOp::Mutate(mutation),
            },
        );
        self.settle();
        id
    }

    pub(super) fn flush(&mut self, node: usize) -> RequestId {
        let id = self.nodes[node].request(Origin::Host, vec![]);
        self.feed(node, Input::Host { id, op: HostOp::Flush });
        self.settle();
        id
    }

    /// The oldest transaction that is held back becomes durable.
    pub(super) fn save(&mut self, node: usize) {
        let transaction = self.nodes[node].transactions.pop_front().unwrap();
        self.feed(
            node,
            Input::Persisted {
                id: transaction.id,
                outcome: Ok(()),
            },
        );
        self.settle();
    }

    pub(super) fn say(&mut self, from: usize, to: usize, message: VolumeMessage) {
        self.wires
            .get_mut(&(from, to))
            .unwrap()
            .push_back(Packet::Message(message));
        self.settle();
    }

    pub(super) fn feed(&mut self, node: usize, input: Input) {
        self.nodes[node].mirror.handle(self.now, input);
        while let Some(output) = self.nodes[node].mirror.poll_output() {
            self.carry_out(node, output);
        }
    }

    /// Deliver until nothing moves.
    pub(super) fn settle(&mut self) {
        loop {
            let moving = self
                .wires
                .iter()
                .find(|(wire, queue)| !queue.is_empty() && !self.stalled.contains(wire));
            let Some((&(from, to), _)) = moving else { return };
            let packet = self.wires.get_mut(&(from, to)).and_then(VecDeque::pop_front).unwrap();
            self.deliver(from, to, packet);
        }
    }

    fn deliver(&mut self, from: usize, to: usize, packet: Packet) {
        let peer = Self::index(to, from);
        let Some(connection) = self.nodes[to].mirror.peers[usize::from(peer.0)].connection else {
            return;
        };
        let outcome = Ok(());
        let input = match packet {
            Packet::Mutation(id, mutation, stamp) => Input::Host {
                id: self.nodes[to].request(Origin::Mutation(from, id), vec![stamp]),
                op: HostOp::Mutate(mutation),
            },
            Packet::Copy(copy, range, stamps) => {
                let copied = Copied {
                    shipped: range.length,
                    ..Copied::default()
                };
                let (kind, fua) = (MutationKind::Write, false);
                Input::Host {
                    id: self.nodes[to].request(Origin::Copy(from, copy, copied), stamps),
                    op: HostOp::Mutate(Mutation { range, kind, fua }),
                }
            }
            Packet::Flush => Input::Host {
                id: self.nodes[to].request(Origin::Flush(from), vec![]),
                op: HostOp::Flush,
            },
            Packet::Barrier => {
                self.nodes[to].barriers += 1;
                return;
            }
            Packet::Ask(fetch, copy, range) => {
                let read = self.nodes[to].read(range);
                let contents = |stamps| Packet::Contents(fetch, copy, range, stamps);
                return self.send(to, peer, read.map_or(Packet::Unread(fetch, copy), contents));
            }
            Packet::Unread(fetch, copy) => unread(fetch, copy, peer, connection),
            Packet::Contents(fetch, copy, range, stamps) => {
                self.compare(to, (fetch, copy, range), peer, connection, &stamps)
            }
            Packet::Message(message) => Input::FromPeer {
                peer,
                connection,
                message,
            },
            Packet::Done(id) => Input::PeerDone {
                peer,
                connection,
                id,
                outcome,
            },
            Packet::FlushDone => Input::PeerFlushDone {
                peer,
                connection,
                outcome,
            },
            Packet::CopyDone(copy, copied) => Input::CopyDone {
                peer,
                connection,
                copy,
                outcome: Ok(copied),
            },
        };
        self.feed(to, input);
    }

    pub(super) fn send(&mut self, from: usize, peer: PeerIndex, packet: Packet) {
        if let Some(wire) = self.wires.get_mut(&(from, Self::node_of(from, peer))) {
            wire.push_back(packet);
        }
    }

    fn carry_out(&mut self, node: usize, output: Output) {
        match output {
            Output::Local { id, mutation } => {
                let from = (mutation.range.offset / BLOCK_BYTES) as usize;
                if let Some(failure) = self.nodes[node].broken {
                    return self.feed(
                        node,
                        Input::LocalDone {
                            id,
                            outcome: Err(failure),
                        },
                    );
                }
                let stamps = self.nodes[node].stamps[&id.0].clone();
                self.nodes[node].put(from, &stamps);
                self.feed(node, Input::LocalDone { id, outcome: Ok(()) });
            }
            Output::LocalFlush => {
                let outcome = self.nodes[node].broken.map_or(Ok(()), Err);
                self.feed(node, Input::LocalFlushDone(outcome));
            }
            Output::Fetch { peer, copy, range, .. } => self.send(node, peer, Packet::Ask(true, copy, range)),
            Output::Compare { peer, copy, range, .. } => self.send(node, peer, Packet::Ask(false, copy, range)),
            Output::Peer { peer, id, mutation, .. } => {
                let stamp = self.nodes[node].stamps[&id.0][0];
                self.send(node, peer, Packet::Mutation(id, mutation, stamp));
            }
            Output::PeerFlush { peer, .. } => self.send(node, peer, Packet::Flush),
            Output::PeerBarrier { peer, .. } => self.send(node, peer, Packet::Barrier),
            Output::Copy { peer, copy, range, .. } => self.push(node, peer, copy, range),
            Output::ToPeer { peer, message, .. } => self.send(node, peer, Packet::Message(message)),
            Output::OrderDone { ticket, outcome } => self.nodes[node].done.push((ticket, outcome)),
            Output::Persist(transaction) if self.nodes[node].holds_metadata => {
                self.nodes[node].transactions.push_back(transaction);
            }
            Output::Persist(transaction) => {
                self.feed(
                    node,
                    Input::Persisted {
                        id: transaction.id,
                        outcome: Ok(()),
                    },
                );
            }
            Output::Reply { id, outcome } => self.reply(node, id, outcome),
            Output::Disconnect { peer, .. } => self.nodes[node].disconnects.push(peer),
            Output::Connect(peer) => self.nodes[node].connects.push(peer),
            Output::Release(id) => {
                self.nodes[node].stamps.remove(&id.0);
                self.nodes[node].origins.remove(&id.0);
            }
            _ => {}
        }
    }

    fn reply(&mut self, node: usize, id: RequestId, outcome: Result<(), Refusal>) {
        match self.nodes[node].origins[&id.0] {
            Origin::Host => self.nodes[node].replies.push((id, outcome)),
            Origin::Mutation(from, asked) => self.send(node, Self::index(node, from), Packet::Done(asked)),
            Origin::Flush(from) => self.send(node, Self::index(node, from), Packet::FlushDone),
            Origin::Copy(from, copy, copied) => {
                self.send(node, Self::index(node, from), Packet::CopyDone(copy, copied));
            }
        }
    }

    /// The state of the link to another node.
    pub(super) fn state(&self, from: usize, to: usize) -> PeerState {
        self.nodes[from].mirror.peer_state(Self::index(from, to))
    }

    /// What another node is recorded to hold.
    pub(super) fn record(&self, from: usize, to: usize) -> u64 {
        self.nodes[from].mirror.record(Self::index(from, to))
    }

    /// Blocks dirty for another node.
    pub(super) fn dirty(&self, from: usize, to: usize) -> u64 {
        self.nodes[from].mirror.identity(Self::index(from, to)).dirty_bytes / BLOCK_BYTES
    }

    pub(super) fn answered(&self, node: usize, id: RequestId) -> bool {
        self.nodes[node].replies.contains(&(id, Ok(())))
    }

    pub(super) fn generation(&self, node: usize) -> u64 {
        self.nodes[node].mirror.generation()
    }
}

/// A pair in step, the first one Primary under generation 100.
pub(super) fn pair(mode: AckMode) -> Cluster {
    let mut cluster = Cluster::new(2, mode);
    cluster.connect(0, SyncPlan::InStep, 1, SyncPlan::InStep);
    cluster.promote(0, 100);
    cluster
}
