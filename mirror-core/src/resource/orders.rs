//! Orders that have been given to mirrors, and what for.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Resource;
use super::event::{CommandId, Output};
use crate::event::{ConnectionId, Order, OrderRefusal, Ticket};

/// What an order was given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To bring a volume up with a peer.
    Lane { peer: usize, connection: ConnectionId },
    /// A regular meeting with a peer.
    Meeting { peer: usize, connection: ConnectionId },
    /// The role changes.
    Role,
    /// What kind of server a peer is.
    Kind,
    /// The operator's word to give the data here up for a peer's does not count any more.
    Word { peer: usize },
    /// The volume gets another size.
    Resize { size: u64 },
    /// An operator's command.
    Command(CommandId),
    /// Nobody waits for it.
    Nothing,
}

/// Orders under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Orders {
    last: u32,
    open: BTreeMap<Ticket, (usize, Purpose)>,
}

impl Orders {
    /// Is one under way for this?
    pub fn any(&self, purpose: Purpose) -> bool {
        self.open.values().any(|(_, other)| *other == purpose)
    }
}

impl Resource {
    /// Give an order to a volume's mirror.
    pub(super) fn order(&mut self, volume: usize, order: Order, purpose: Purpose) {
        self.orders.last = self.orders.last.wrapping_add(1);
        let ticket = Ticket(self.orders.last);
        self.orders.open.insert(ticket, (volume, purpose));
        self.emit(Output::Order { volume, ticket, order });
    }

    /// Give it to all; the number of mirrors.
    pub(super) fn order_all(&mut self, order: &Order, purpose: Purpose) -> usize {
        let volumes: Vec<usize> = self.live_volumes().collect();
        for volume in &volumes {
            self.order(*volume, order.clone(), purpose);
        }
        volumes.len()
    }

    /// The volume's mirror is let go: what it was told and has not done, nobody hears of.
    pub(super) fn end_orders(&mut self, volume: usize) {
        let open = self.orders.open.iter();
        let left: Vec<Ticket> = open
            .filter(|(_, (at, _))| *at == volume)
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in left {
            self.order_done(volume, ticket, Err(OrderRefusal::Closed));
        }
    }

    /// A mirror has carried one out, or not.
    pub(super) fn order_done(&mut self, volume: usize, ticket: Ticket, outcome: Result<(), OrderRefusal>) {
        let Some((_, purpose)) = self.orders.open.remove(&ticket) else {
            return;
        };
        match purpose {
            Purpose::Lane { peer, connection } => self.lane_order_done(peer, connection, volume, outcome),
            Purpose::Meeting { peer, connection } => self.meeting_order_done(peer, connection, outcome),
            Purpose::Role => self.role_order_done(volume, outcome),
            Purpose::Resize { size } => self.resize_order_done(volume, size, outcome),
            Purpose::Command(id) => self.command_order_done(id, volume, outcome),
            // A kind that could not be written down is found out again; a volume that has failed says so itself.
            // (Of a word that could not be taken back nothing follows while the nodes agree; it is tried on the next connection.)
            Purpose::Kind | Purpose::Word { .. } | Purpose::Nothing => {}
        }
    }
}
