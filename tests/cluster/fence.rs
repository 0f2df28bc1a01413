//! The fence between connections (I11): what was started for an older one ends before anybody hears of a newer one. And
//! what a shell makes of a stream that lost something.

use mirror_core::event::PeerIndex;
use mirror_core::resource::event::Input as ResourceInput;
use mirror_core::stream::Outflow;
use mirror_core::stream::intake::IntakeError;

use crate::net::id_of;
use crate::node::{node_of, peer_of};
use crate::operation::{Operation, Work};
use crate::outcome::Broken;
use crate::requests::Origin;
use crate::world::{Check, World};

impl World {
    /// Tell the resource of new connections, once nothing of any older one is being applied (I11).
    pub fn tell_connected(&mut self, node: usize) -> Check {
        let quiet = self.nodes[node].links.iter().all(|link| link.intake.is_quiet());
        let fence = self.options.broken != Some(Broken::Fence);
        for peer in 0..self.nodes[node].links.len() {
            let link = &self.nodes[node].links[peer];
            if (!quiet && fence) || !link.intake.is_quiet() || link.conn.is_some() {
                continue;
            }
            let Some(conn) = self.nodes[node].links[peer].next.take() else {
                continue;
            };
            let credit = self.plan.credit();
            let link = &mut self.nodes[node].links[peer];
            link.conn = Some(conn);
            link.outflow = Outflow::new(credit);
            link.intake.connect(id_of(conn));
            let incarnation = self.nodes[node_of(node, peer)].incarnation();
            self.nodes[node].told += 1;
            let input = ResourceInput::Connected {
                peer: PeerIndex(peer as u8),
                connection: id_of(conn),
                incarnation,
            };
            self.feed_resource(node, input)?;
            let end = self.conns[conn].end(node);
            self.plan_delivery(conn, end);
        }
        Ok(())
    }

    /// I11: a mutation that came on a connection which has been lost since lands before its node has heard of another.
    pub fn judge_late(&self, node: usize, operation: &Operation) -> Check {
        let Work::Mutate { id, .. } = operation.work else {
            return Ok(());
        };
        let request = self.nodes[node].volumes[operation.volume].requests.get(id);
        let Some(Origin::Stream { peer, started, .. }) = request.map(|request| &request.origin) else {
            return Ok(());
        };
        let link = &self.nodes[node].links[*peer];
        if link.conn.map(id_of) == Some(started.connection) || link.lost_at == self.nodes[node].told {
            return Ok(());
        }
        let text = format!(
            "{node}.{}: a write that {} sent on {:?}, which was lost, lands when {node} has heard of a newer connection",
            operation.volume,
            node_of(node, *peer),
            started.connection
        );
        Err(self.violation("I11", text))
    }

    /// A request does not fit what came before it: a shell gives the connection up. Nothing in the simulation causes it
    /// but a scenario that takes frames away.
    pub fn unfit(&mut self, node: usize, peer: usize, error: &IntakeError) -> Check {
        if self.judge.frames_taken {
            return self.lose(node, peer, false, "requests are missing");
        }
        Err(self.violation("stream", error.to_string()))
    }
    /// Requests on their way from one node to another.
    pub fn requests_under_way(&self, from: usize, to: usize) -> usize {
        let conn = self.nodes[from].links[peer_of(from, to)].conn;
        conn.map_or(0, |conn| self.conns[conn].requests(self.conns[conn].end(to)))
    }

    /// Take the first of them away. False: there is none.
    pub fn take_frame(&mut self, from: usize, to: usize) -> bool {
        self.judge.frames_taken = true;
        let conn = self.nodes[from].links[peer_of(from, to)].conn;
        conn.is_some_and(|conn| {
            let end = self.conns[conn].end(to);
            self.conns[conn].take_request(end)
        })
    }
}
