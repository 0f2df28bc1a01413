//! Hosts with a list of nodes: they write, trim, read and flush on whichever node lets them, and die at times.

use std::collections::BTreeMap;

use mirror_core::ByteRange;
use mirror_core::event::{Failure, HostOp, Input, Mutation, MutationKind, ReadFrom, RequestId};
use mirror_core::resource::event::HostAccess;
use mirror_core::stream::Request as StreamRequest;

use crate::ask::{Payload, What};
use crate::net::id_of;
use crate::operation::{Purpose, Work};
use crate::requests::{Asked, Content, Origin, Request, Sectors};
use crate::truth::{Moment, NODES_MAX};
use crate::world::{Check, Event, Phase, World};

/// A read under way.
#[derive(Clone, Debug)]
pub struct Reading {
    node: usize,
    volume: usize,
    range: ByteRange,
    since: Moment,
    reign: usize,
    tries: u32,
}

/// All hosts together.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    /// Requests submitted so far.
    pub submitted: u64,
    /// By node: requests that wait for their answer.
    pub unanswered: [u32; NODES_MAX],
    reads: BTreeMap<u32, Reading>,
    read_serial: u32,
}

impl Hosts {
    /// A read is under way on this node.
    pub fn is_reading(&self, node: usize) -> bool {
        self.reads.values().any(|read| read.node == node)
    }

    /// Nothing is under way anywhere.
    pub fn is_idle(&self) -> bool {
        self.reads.is_empty() && self.unanswered.iter().all(|&count| count == 0)
    }
}

impl World {
    /// The next request of any host is due.
    pub fn host_request(&mut self) -> Check {
        if self.phase != Phase::Safety {
            return Ok(());
        }
        let pause_us = self.plan.host.pause_us;
        let mut pause = self.rng.between(1, pause_us);
        let serving: Vec<usize> = (0..self.nodes.len()).filter(|&node| self.serves_hosts(node)).collect();
        if serving.is_empty() {
            pause += 2_000;
        } else {
            let node = self.rng.pick(&serving);
            if (self.hosts.unanswered[node] as usize) < self.plan.host.depth {
                self.random_request(node)?;
            } else {
                pause += 1_500;
            }
        }
        if self.hosts.submitted < self.plan.host.requests {
            self.after(pause, Event::HostRequest);
        }
        Ok(())
    }

    /// Hosts may write on this node, and it reads what they send.
    pub fn serves_hosts(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        node.access == HostAccess::ReadWrite && node.is_up() && node.paused_until <= self.now && !node.stopping
    }

    fn random_request(&mut self, node: usize) -> Check {
        let volume = self.rng.index(self.plan.layouts.len());
        let size = self.nodes[node].volumes[volume].mirror_size();
        let plan = &self.plan.host;
        let (flush, read, fua) = (plan.flush_percent, plan.read_percent, plan.fua_percent);
        let (large, connections) = (plan.large_percent, plan.connections);
        let connection = self.rng.index(connections);
        if self.rng.chance(flush) {
            return self.submit(node, volume, connection, HostOp::Flush);
        }
        let is_large = self.rng.chance(large);
        let layout = &self.plan.layouts[volume];
        let range = if is_large {
            layout.large_range(&mut self.rng, size)
        } else {
            layout.small_range(&mut self.rng, size)
        };
        if self.rng.chance(read) {
            return self.submit_read(node, volume, range);
        }
        let kind = match self.rng.below(12) {
            0 => MutationKind::Trim,
            1 => MutationKind::Zero {
                no_hole: self.rng.chance(50),
            },
            _ if is_large => MutationKind::Zero { no_hole: false },
            _ => MutationKind::Write,
        };
        let fua = self.rng.chance(fua);
        self.submit(node, volume, connection, HostOp::Mutate(Mutation { range, kind, fua }))
    }

    /// One request of a host.
    pub fn submit(&mut self, node: usize, volume: usize, connection: usize, op: HostOp) -> Check {
        let Some(reign) = self.nodes[node].reign else {
            return Err(self.violation("hosts", format!("hosts may write on {node}, which nobody promoted")));
        };
        let (asked, content, range) = match op {
            HostOp::Flush => (Asked::Flush(self.truth.tick()), Content::Nothing, None),
            HostOp::Mutate(mutation) => {
                let runs: Vec<_> = self.plan.layouts[volume].runs(mutation.range).collect();
                let stamp = self.truth.submit(reign, runs.clone());
                self.reigns[reign].volumes[volume].submit(stamp, runs.into_iter().flatten());
                let asked = Asked::Write {
                    stamp,
                    fua: mutation.fua,
                };
                (asked, Content::Stamp(stamp), Some(mutation.range))
            }
        };
        self.hosts.submitted += 1;
        self.hosts.unanswered[node] += 1;
        let origin = Origin::Host {
            connection,
            asked,
            replied: false,
            abandoned: false,
        };
        let request = Request { origin, content, range };
        let id = self.nodes[node].volumes[volume].requests.insert(request);
        self.feed_mirror(node, volume, Input::Host { id, op })?;
        self.settle(node)
    }

    /// A host reads.
    pub fn submit_read(&mut self, node: usize, volume: usize, range: ByteRange) -> Check {
        let Some(reign) = self.nodes[node].reign else {
            return Ok(());
        };
        self.hosts.submitted += 1;
        self.hosts.read_serial += 1;
        let read = self.hosts.read_serial;
        let reading = Reading {
            node,
            volume,
            range,
            since: self.truth.tick(),
            reign,
            tries: 0,
        };
        self.hosts.reads.insert(read, reading);
        self.try_read(read)
    }

    /// Read from wherever the mirror says.
    fn try_read(&mut self, read: u32) -> Check {
        let Some(Reading {
            node, volume, range, ..
        }) = self.hosts.reads.get(&read).cloned()
        else {
            return Ok(());
        };
        let mirror = self.nodes[node].volumes[volume].mirror.as_ref();
        match mirror.map(|mirror| mirror.read_from(range)) {
            Some(ReadFrom::Local) => {
                let purpose = Purpose::Host(read);
                self.start_operation(node, volume, Work::Read { range, purpose });
                Ok(())
            }
            Some(ReadFrom::Peer(peer, connection)) => {
                let peer = usize::from(peer.0);
                if self.nodes[node].links[peer].conn.map(id_of) != Some(connection) {
                    return self.host_read_ends(node, read, Err(Failure::Io), true);
                }
                self.tally.remote_reads += 1;
                let request = StreamRequest::Read { range };
                self.ask_simple(node, volume, peer, request, Payload::Nothing, What::Read(read));
                Ok(())
            }
            Some(ReadFrom::Nowhere) | None => self.host_read_over(read, None),
        }
    }

    /// A read of an image has ended.
    pub fn read_ends(
        &mut self,
        node: usize,
        volume: usize,
        range: ByteRange,
        purpose: Purpose,
        fate: Result<(), Failure>,
    ) -> Check {
        let outcome = fate.map(|()| self.content(node, volume, range));
        match purpose {
            Purpose::Serve(serving) => self.served(node, volume, range, serving, outcome),
            Purpose::Host(read) => {
                if let Err(failure) = outcome {
                    let input = Input::LocalReadFailed { range, failure };
                    self.feed_mirror(node, volume, input)?;
                }
                self.host_read_ends(node, read, outcome, false)
            }
            moving => self.moving_read(node, volume, moving, outcome),
        }
    }

    /// A host's read was answered, by the image here or by a peer.
    pub fn host_read_ends(
        &mut self,
        _node: usize,
        read: u32,
        outcome: Result<Sectors, Failure>,
        remote: bool,
    ) -> Check {
        match outcome {
            Ok(sectors) => self.host_read_over(read, Some(sectors)),
            Err(_) => {
                // The shell asks the mirror again: another leg may have it.
                let again = self.hosts.reads.get_mut(&read).is_some_and(|reading| {
                    reading.tries += 1;
                    reading.tries < 3
                });
                if again && !remote {
                    self.try_read(read)
                } else {
                    self.host_read_over(read, None)
                }
            }
        }
    }

    fn host_read_over(&mut self, read: u32, sectors: Option<Sectors>) -> Check {
        let Some(reading) = self.hosts.reads.remove(&read) else {
            return Ok(());
        };
        if let Some(sectors) = sectors {
            self.tally.reads += 1;
            self.judge_read(reading.node, reading.volume, reading.reign, reading.since, &sectors)?;
        }
        self.drained(reading.node)
    }

    /// The hosts of a node lose their connections with everything on them: its process is gone.
    pub fn hosts_die(&mut self, node: usize) {
        for volume in 0..self.nodes[node].volumes.len() {
            let requests = self.nodes[node].volumes[volume].requests.iter();
            let open: Vec<_> = requests.filter_map(|(_, request)| stamp_of(request)).collect();
            self.truth.close_all(open.into_iter());
        }
        self.hosts.unanswered[node] = 0;
        self.hosts.reads.retain(|_, read| read.node != node);
    }

    /// One host connection dies with everything on it.
    pub fn host_gone(&mut self, node: usize, connection: usize) -> Check {
        for volume in 0..self.nodes[node].volumes.len() {
            let mine =
                |request: &Request| matches!(request.origin, Origin::Host { connection: its, .. } if its == connection);
            let requests = self.nodes[node].volumes[volume].requests.iter();
            let ids: Vec<RequestId> = requests
                .filter(|(_, request)| mine(request))
                .map(|(id, _)| id)
                .collect();
            for id in ids {
                let Some(request) = self.nodes[node].volumes[volume].requests.get_mut(id) else {
                    continue;
                };
                let waits = request.waits();
                if let Origin::Host { abandoned, .. } = &mut request.origin {
                    *abandoned = true;
                }
                let stamp = stamp_of(request);
                if waits {
                    self.hosts.unanswered[node] -= 1;
                    self.truth.close_all(stamp.into_iter());
                }
                self.feed_mirror(node, volume, Input::Abandon(id))?;
            }
        }
        self.settle(node)
    }
}

fn stamp_of(request: &Request) -> Option<crate::disk::Stamp> {
    match request.origin {
        Origin::Host {
            asked: Asked::Write { stamp, .. },
            ..
        } => Some(stamp),
        _ => None,
    }
}
