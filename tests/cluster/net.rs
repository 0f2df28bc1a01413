//! Connections between nodes: they come up, stall, break on one side first, and leave packets behind that arrive late.

use std::collections::VecDeque;

use mirror_core::config::AckMode;
use mirror_core::event::{ConnectionId, Input as MirrorInput, PeerIndex};
use mirror_core::resource::event::{Input as ResourceInput, Loss};
use mirror_core::stream::{Answer, Control, Request};

use crate::ask::Payload;
use crate::faults::Cut;
use crate::node::{node_of, peer_of};
use crate::world::{Check, Event, World};

/// Silence after which a node gives a connection up, as the daemon's default has it.
pub const DEAD_AFTER_US: u64 = 3_000_000;

/// What travels.
#[derive(Clone, Debug)]
pub enum Packet {
    /// A numbered request.
    Request {
        /// Its number.
        sequence: u64,
        /// The volume.
        volume: u16,
        /// What.
        request: Request,
        /// Beside it.
        payload: Payload,
    },
    /// An answer.
    Answer {
        /// What.
        answer: Answer,
        /// Beside it.
        payload: Payload,
    },
    /// Between resources.
    Control(Control),
    /// The other end has closed it.
    Closed {
        /// As a process that is gone: the daemon cannot tell one that has closed it on purpose, but one that gave it up in silence.
        gone: bool,
    },
}

/// One direction.
#[derive(Clone, Debug, Default)]
pub struct Lane {
    queue: VecDeque<(u64, Packet)>,
    last: u64,
    /// Nothing moves for now.
    stalled: bool,
    /// Nothing arrives any more.
    dead: bool,
    planned: bool,
}

/// One connection, from its first packet to the last that may arrive.
#[derive(Clone, Debug)]
pub struct Conn {
    /// Its nodes; the first one dialled.
    pub ends: [usize; 2],
    /// This end still uses it.
    pub open: [bool; 2],
    /// The packets towards each end.
    pub lanes: [Lane; 2],
}

impl Conn {
    /// Which end a node is.
    pub fn end(&self, node: usize) -> usize {
        usize::from(self.ends[1] == node)
    }

    /// Nothing is under way in it.
    pub fn is_quiet(&self) -> bool {
        (0..2).all(|end| !self.open[end] || self.lanes[end].queue.is_empty())
    }

    /// Requests on their way to an end.
    pub fn requests(&self, end: usize) -> usize {
        let queue = self.lanes[end].queue.iter();
        queue
            .filter(|(_, packet)| matches!(packet, Packet::Request { .. }))
            .count()
    }

    /// The first of them is lost.
    pub fn take_request(&mut self, end: usize) -> bool {
        let queue = &mut self.lanes[end].queue;
        let first = queue
            .iter()
            .position(|(_, packet)| matches!(packet, Packet::Request { .. }));
        first.and_then(|at| queue.remove(at)).is_some()
    }

    /// It does not carry what it is given, though an end still uses it.
    pub fn is_broken(&self) -> bool {
        self.open[0] != self.open[1] || self.lanes.iter().any(|lane| lane.dead || lane.stalled)
    }
}

/// The name of a connection to the cores.
pub fn id_of(conn: usize) -> ConnectionId {
    ConnectionId(conn as u32 + 1)
}

impl World {
    /// The resource wants a connection.
    pub fn want_connection(&mut self, node: usize, peer: usize) {
        self.nodes[node].links[peer].dialling = true;
        self.plan_dial(node, peer);
    }

    fn plan_dial(&mut self, node: usize, peer: usize) {
        let delay = self.rng.between(200, 12_000);
        let link = &mut self.nodes[node].links[peer];
        link.attempt += 1;
        let attempt = link.attempt;
        self.after(delay, Event::Dial(node, peer, attempt));
    }

    /// One attempt to reach a peer.
    pub fn dial(&mut self, node: usize, peer: usize, attempt: u32) -> Check {
        let link = &self.nodes[node].links[peer];
        if !self.nodes[node].is_up() || !link.dialling || link.attempt != attempt {
            return Ok(());
        }
        let other = node_of(node, peer);
        let reachable = self.nodes[other].is_up()
            && self.nodes[other].paused_until <= self.now
            && !self.nodes[other].stopping
            && self.broken_until[node][other] <= self.now;
        if !reachable {
            self.plan_dial(node, peer);
            return Ok(());
        }
        self.connect(node, other)
    }

    fn connect(&mut self, node: usize, other: usize) -> Check {
        let conn = self.conns.len();
        self.tally.connections += 1;
        self.trace(|| format!("connection {} from {node} to {other}", conn + 1));
        self.conns.push(Conn {
            ends: [node, other],
            open: [true; 2],
            lanes: [Lane::default(), Lane::default()],
        });
        let mut sides = [(node, other), (other, node)];
        self.rng.shuffle(&mut sides);
        for (side, far) in sides {
            let peer = peer_of(side, far);
            self.supersede(side, peer)?;
            let link = &mut self.nodes[side].links[peer];
            link.next = Some(conn);
            link.dialling = false;
            self.tell_connected(side)?;
            self.settle(side)?;
        }
        Ok(())
    }

    /// A newer connection takes the place of whatever there is.
    fn supersede(&mut self, node: usize, peer: usize) -> Check {
        if let Some(next) = self.nodes[node].links[peer].next.take() {
            let end = self.conns[next].end(node);
            self.conns[next].open[end] = false;
        }
        if self.nodes[node].links[peer].conn.is_some() {
            self.lose(node, peer, false, "superseded by a newer one")?;
        }
        Ok(())
    }

    /// Give a packet to the connection a node has with a peer.
    pub fn send(&mut self, node: usize, conn: usize, packet: Packet) {
        let packet = self.through_the_codec(packet);
        let delay = 20 + self.rng.below(self.plan.delay_us) * self.nodes[node].slow.min(4);
        let at = self.now + delay;
        let far = 1 - self.conns[conn].end(node);
        let lane = &mut self.conns[conn].lanes[far];
        if lane.dead {
            return;
        }
        lane.last = lane.last.max(at);
        lane.queue.push_back((lane.last, packet));
        self.plan_delivery(conn, far);
    }

    /// What waits at this end of a connection arrives in time.
    pub fn plan_delivery(&mut self, conn: usize, end: usize) {
        let lane = &mut self.conns[conn].lanes[end];
        if lane.planned || lane.stalled {
            return;
        }
        if let Some(&(at, _)) = lane.queue.front() {
            lane.planned = true;
            self.at(at.max(self.now), Event::Deliver(conn, end));
        }
    }

    /// Packets arrive at an end of a connection.
    pub fn deliver(&mut self, conn: usize, end: usize) -> Check {
        self.conns[conn].lanes[end].planned = false;
        let node = self.conns[conn].ends[end];
        let peer = peer_of(node, self.conns[conn].ends[1 - end]);
        loop {
            let told = self.nodes[node].links[peer].conn == Some(conn);
            let late = !self.conns[conn].open[1 - end];
            let open = self.conns[conn].open[end];
            let lane = &mut self.conns[conn].lanes[end];
            if !open {
                lane.queue.clear();
                return Ok(());
            }
            let due = lane.queue.front().is_some_and(|&(at, _)| at <= self.now);
            if !told || lane.stalled || !due {
                break;
            }
            let Some((_, packet)) = lane.queue.pop_front() else {
                break;
            };
            self.tally.late += u64::from(late && matches!(packet, Packet::Request { .. }));
            self.arrives(node, peer, packet)?;
            self.settle(node)?;
        }
        if self.nodes[node].links[peer].conn == Some(conn) {
            self.plan_delivery(conn, end);
        }
        Ok(())
    }

    /// A node gives a connection up by itself.
    pub fn notice(&mut self, node: usize, conn: usize) -> Check {
        let other = self.conns[conn].ends[1 - self.conns[conn].end(node)];
        let peer = peer_of(node, other);
        let link = &mut self.nodes[node].links[peer];
        if link.next == Some(conn) {
            link.next = None;
            let end = self.conns[conn].end(node);
            self.conns[conn].open[end] = false;
            self.send(node, conn, Packet::Closed { gone: false });
            self.want_connection(node, peer);
            return Ok(());
        }
        if link.conn != Some(conn) {
            return Ok(());
        }
        self.lose(node, peer, false, "silent for too long")?;
        self.settle(node)
    }

    /// A node's end of the connection is gone: nothing asked on it is answered any more.
    pub fn lose(&mut self, node: usize, peer: usize, closed_by_peer: bool, reason: &str) -> Check {
        let Some(conn) = self.nodes[node].links[peer].conn else {
            return Ok(());
        };
        let loss = self.loss(node, conn);
        // A reset throws away what the other end has not read, now and then.
        if self.rng.chance(30) {
            let end = self.conns[conn].end(node);
            self.conns[conn].lanes[1 - end].queue.clear();
        }
        self.hang_up(node, peer, reason, false)?;
        let peer = PeerIndex(peer as u8);
        self.feed_resource(node, ResourceInput::Missed { peer, loss })?;
        let input = ResourceInput::Disconnected {
            peer,
            connection: id_of(conn),
            closed_by_peer,
            reason: reason.to_owned(),
        };
        self.feed_resource(node, input)
    }

    /// What of the other's requests will never arrive here: as its last heartbeats would have told.
    fn loss(&self, node: usize, conn: usize) -> Loss {
        let end = self.conns[conn].end(node);
        let far = self.conns[conn].ends[1 - end];
        let peer = peer_of(far, node);
        // `async`: what the other answered its hosts since its last heartbeat nobody here can know.
        let mut loss = Loss {
            unknown: self.plan.mode == AckMode::Async,
            ..Loss::default()
        };
        for (_, packet) in &self.conns[conn].lanes[end].queue {
            if let Packet::Request { request, .. } = packet {
                loss.bytes += request.payload_bytes();
                loss.flushes += u64::from(matches!(request, Request::Flush | Request::Barrier));
            }
        }
        // What the other still has queued is known only as far as a heartbeat told; a cut one tells nothing more.
        if self.nodes[far].links[peer].conn == Some(conn) && self.nodes[far].links[peer].outflow.waiting() > 0 {
            loss.unknown = true;
        }
        loss
    }

    /// Close a node's end without a word to the resource.
    pub fn hang_up(&mut self, node: usize, peer: usize, reason: &str, on_purpose: bool) -> Check {
        let Some(conn) = self.nodes[node].links[peer].conn.take() else {
            return Ok(());
        };
        self.tally.lost += 1;
        self.tally.half_open += u64::from(self.conns[conn].open == [true; 2]);
        self.trace(|| format!("{node} gives connection {} up: {reason}", conn + 1));
        let end = self.conns[conn].end(node);
        self.conns[conn].open[end] = false;
        self.conns[conn].lanes[end].queue.clear();
        self.send(node, conn, Packet::Closed { gone: on_purpose });
        let (told, now) = (self.nodes[node].told, self.now);
        let link = &mut self.nodes[node].links[peer];
        (link.lost_at, link.given_up) = (told, now);
        let asked = link.outflow.drain().map(|(ask, _)| ask).collect::<Vec<_>>();
        let dropped = link.intake.disconnect().count();
        self.digest.mix(asked.len() as u64 ^ (dropped as u64) << 32);
        self.nodes[node].copies.retain(|copy| copy.moving.peer != peer);
        self.unanswered_reads(node, asked)?;
        let held_peer = |held: &crate::requests::Held| held.serving.peer == peer;
        for volume in 0..self.nodes[node].volumes.len() {
            let held = &mut self.nodes[node].volumes[volume].held;
            let gone: Vec<_> = held.extract_if(.., |held| held_peer(held)).collect();
            for held in gone {
                self.nodes[node].links[peer]
                    .intake
                    .finished(held.serving.started, false);
            }
            let input = MirrorInput::PeerDown {
                peer: PeerIndex(peer as u8),
                connection: id_of(conn),
            };
            self.feed_mirror(node, volume, input)?;
        }
        Ok(())
    }

    /// The link between two nodes breaks.
    pub fn cut(&mut self, nodes: (usize, usize), how: Cut, notice_us: (u64, u64), for_us: u64) {
        let (one, other) = nodes;
        let until = self.now + for_us;
        for (a, b) in [(one, other), (other, one)] {
            self.broken_until[a][b] = self.broken_until[a][b].max(until);
        }
        let used = |conn: &&mut Conn| conn.ends.contains(&one) && conn.ends.contains(&other);
        let mut planned = Vec::new();
        for (at, conn) in self.conns.iter_mut().enumerate() {
            if !used(&conn) || conn.open == [false; 2] {
                continue;
            }
            let far = conn.end(other);
            match how {
                Cut::Both => conn
                    .lanes
                    .iter_mut()
                    .for_each(|lane| (lane.dead, lane.stalled) = (true, true)),
                Cut::OneWay => (conn.lanes[far].dead, conn.lanes[far].stalled) = (true, true),
                Cut::Stall => {
                    conn.lanes.iter_mut().for_each(|lane| lane.stalled = true);
                    planned.push((for_us, Event::Moves(at, 0)));
                    planned.push((for_us, Event::Moves(at, 1)));
                }
            }
            planned.push((notice_us.0, Event::Notice(one, at)));
            planned.push((notice_us.1, Event::Notice(other, at)));
        }
        for (delay, event) in planned {
            self.after(delay, event);
        }
    }

    /// A stalled lane moves again: what was held in it arrives.
    pub fn lane_moves(&mut self, conn: usize, end: usize) -> Check {
        let lane = &mut self.conns[conn].lanes[end];
        if !lane.dead {
            lane.stalled = false;
            self.plan_delivery(conn, end);
        }
        Ok(())
    }
}
