//! Doing what the resources say.

use std::collections::BTreeMap;

use mirror_core::config::AckMode;
use mirror_core::event::{Input as MirrorInput, LinkKind, Order, OrderRefusal, PeerIndex, Ticket};
use mirror_core::resource::event::{Event as ResourceEvent, HostAccess, Input, Output};
use mirror_core::state::Fatal;

use crate::faults::Action;
use crate::net::{Packet, id_of};
use crate::node::{Word, node_of};
use crate::outcome::Broken;
use crate::world::{Check, Event, World};

/// Microseconds after which a volume that has failed gets its daemon restarted by somebody.
const FAILED_US: u64 = 20_000;

impl World {
    /// Do what a resource says.
    pub fn decree(&mut self, node: usize, output: Output) -> Check {
        match output {
            Output::Dial(peer) => {
                let peer = usize::from(peer.0);
                let link = &self.nodes[node].links[peer];
                if link.next.is_none() && link.conn.is_none() {
                    self.want_connection(node, peer);
                }
            }
            Output::CancelDial(peer) => self.nodes[node].links[usize::from(peer.0)].dialling = false,
            Output::Send {
                peer,
                connection,
                control,
            } => {
                let conn = self.nodes[node].links[usize::from(peer.0)].conn;
                if let Some(conn) = conn.filter(|&conn| id_of(conn) == connection) {
                    self.send(node, conn, Packet::Control(control));
                }
            }
            Output::Close {
                peer,
                connection,
                reason,
            } => {
                let peer = usize::from(peer.0);
                if self.nodes[node].links[peer].conn.map(id_of) == Some(connection) {
                    self.hang_up(node, peer, &reason, true)?;
                }
            }
            Output::Order { volume, ticket, order } => {
                self.note_order(node, volume, ticket, &order);
                self.feed_mirror(node, volume, MirrorInput::Order { ticket, order })?;
            }
            Output::PeerUp {
                volume,
                peer,
                connection,
                plan,
            } => {
                let input = MirrorInput::PeerUp {
                    peer,
                    connection,
                    link: LinkKind::Stream,
                    plan,
                };
                self.feed_mirror(node, volume, input)?;
            }
            Output::OpenBranch { volume, .. } => {
                let it = &mut self.nodes[node].volumes[volume];
                it.branch.get_or_insert_with(BTreeMap::new);
                if self.plan.policy != 0 && it.word == Word::Keep {
                    it.word = Word::Discard;
                }
            }
            Output::Hosts(access) => self.hosts_may(node, access)?,
            Output::Grow { volume, .. } => {
                let delay = self.rng.between(50, 4_000);
                self.after(delay, Event::Grown(node, volume, self.nodes[node].life));
            }
            Output::Answer { id, answer } => self.command_answered(node, id, answer)?,
            Output::Event(event) => self.resource_event(node, &event),
        }
        Ok(())
    }

    /// What an order means to the checker.
    fn note_order(&mut self, node: usize, volume: usize, ticket: Ticket, order: &Order) {
        match *order {
            Order::BeginTarget { source } => {
                let from = node_of(node, usize::from(source.0));
                self.becomes_partial(node, volume, Some(from));
            }
            Order::Resize { size, .. } => self.nodes[node].volumes[volume].resizing = Some((ticket, size)),
            _ => {}
        }
    }

    /// A mirror has carried an order out, or not.
    pub fn order_done(
        &mut self,
        node: usize,
        volume: usize,
        ticket: Ticket,
        outcome: Result<(), OrderRefusal>,
    ) -> Check {
        let it = &mut self.nodes[node].volumes[volume];
        if let Some((_, size)) = it.resizing.take_if(|(asked, _)| *asked == ticket)
            && outcome.is_ok()
        {
            it.offered = size;
        }
        let input = Input::OrderDone {
            volume,
            ticket,
            outcome,
        };
        self.feed_resource(node, input)
    }

    /// Hosts may come, or must go.
    fn hosts_may(&mut self, node: usize, access: HostAccess) -> Check {
        let before = std::mem::replace(&mut self.nodes[node].access, access);
        if access == HostAccess::ReadWrite && before != HostAccess::ReadWrite {
            self.nodes[node].draining = false;
            // A demotion that did not come about: the reign goes on, also when hosts were gone already.
            if let Some(reign) = self.nodes[node].leaves.take() {
                self.trace(|| format!("reign {reign} of {node} goes on"));
                self.reigns[reign].ended = 0;
                self.nodes[node].reign = Some(reign);
            }
            return if self.nodes[node].reign.is_some() {
                Ok(())
            } else {
                self.reign_begins(node)
            };
        }
        if before == HostAccess::ReadWrite || access == HostAccess::Shut {
            self.nodes[node].draining = access == HostAccess::Shut;
            return self.drained(node);
        }
        Ok(())
    }

    /// No request of a host is in flight any more?
    pub fn drained(&mut self, node: usize) -> Check {
        let idle = self.hosts.unanswered[node] == 0 && !self.hosts.is_reading(node);
        if self.nodes[node].draining && (idle || self.options.broken == Some(Broken::Shut)) {
            self.nodes[node].draining = false;
            self.nodes[node].leaves = self.nodes[node].reign;
            self.reign_ends(node);
            self.feed_resource(node, Input::HostsDrained)?;
        }
        Ok(())
    }

    /// The image of a volume has been made larger.
    pub fn image_grown(&mut self, node: usize, volume: usize, life: u32) -> Check {
        if self.nodes[node].life != life {
            return Ok(());
        }
        let (grown, slots) = (self.plan.layouts[volume].grown, self.plan.layouts[volume].grown_slots);
        let it = &mut self.nodes[node].volumes[volume];
        if it.size < grown {
            it.disk.grow(slots, 0);
            it.size = grown;
            self.judge.grew(volume);
            self.reigns
                .iter_mut()
                .for_each(|reign| reign.volumes[volume].grow(slots, 0));
            self.tally.resized += 1;
        }
        let outcome = Ok(grown);
        self.feed_resource(node, Input::Grown { volume, outcome })?;
        self.settle(node)
    }

    fn resource_event(&mut self, node: usize, event: &ResourceEvent) {
        match event {
            ResourceEvent::SplitBrain { .. } => self.tally.split_brains += 1,
            ResourceEvent::Role(role) => {
                self.nodes[node].leaves = None;
                self.trace(|| format!("{node} is {role:?}"));
            }
            ResourceEvent::Decided { .. } | ResourceEvent::StandAlone { .. } | ResourceEvent::Lost { .. } => {}
        }
    }

    /// A connected peer by its index, for commands.
    pub fn index_of(&self, node: usize, other: usize) -> PeerIndex {
        PeerIndex(crate::node::peer_of(node, other) as u8)
    }

    /// A mirror has given up: never but for a fault of its image or of its metadata; or because the image has been detached,
    /// and the last `async` peer that served is gone.
    pub fn volume_failed(&mut self, node: usize, volume: usize, why: Fatal) -> Check {
        let without = self.plan.mode == AckMode::Async && self.lacks_image(node, volume);
        let lost = why == Fatal::Unconfirmed && without;
        let it = &mut self.nodes[node].volumes[volume];
        it.failed = true;
        if !it.struck && !lost {
            let text = format!("{node}.{volume} has failed, and nothing was wrong with its image or its metadata");
            return Err(self.violation("failed", text));
        }
        self.restart_later(node, FAILED_US);
        Ok(())
    }

    /// The operator restarts a daemon whose volume has failed.
    pub fn restart_later(&mut self, node: usize, after_us: u64) {
        let _ = node;
        self.operator
            .restarts
            .push((self.now + after_us, Action::Restart(node)));
    }
}
