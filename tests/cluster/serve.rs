//! The answering half of a stream: requests of a peer are admitted in order, carried out and answered.

use mirror_core::ByteRange;
use mirror_core::event::{Failure, HostOp, Input, Mutation, MutationKind, PeerIndex};
use mirror_core::resource::event::Input as ResourceInput;
use mirror_core::stream::intake::{Started, Step};
use mirror_core::stream::{Answer, Control, Credit, Request};

use crate::ask::{Payload, contains, differing};
use crate::net::{Packet, id_of};
use crate::node::node_of;
use crate::operation::{Purpose, Work};
use crate::requests::{Content, Held, Origin, Request as VolumeRequest, Sectors};
use crate::world::{Check, World};

/// Answers in one frame at most.
const DONE_MAX: usize = 64;

/// A request that has arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    request: Request,
    payload: Payload,
}

/// What a read for a peer is for.
#[derive(Clone, Debug)]
pub struct Serving {
    /// The peer.
    pub peer: usize,
    /// The request's name at the intake.
    pub started: Started,
    what: Wanted,
}

#[derive(Clone, Debug)]
enum Wanted {
    Differences(Sectors),
    Differing(Sectors),
    All,
}

impl World {
    /// A packet has arrived on the connection in use.
    pub fn arrives(&mut self, node: usize, peer: usize, packet: Packet) -> Check {
        self.trace(|| format!("{node} <~ {} {packet:?}", node_of(node, peer)));
        match packet {
            Packet::Request {
                sequence,
                volume,
                request,
                payload,
            } => {
                let need = request.need();
                let item = Arrived { request, payload };
                let arrived = self.nodes[node].links[peer].intake.arrive(sequence, volume, need, item);
                match arrived {
                    Ok(()) => self.pump_intake(node, peer),
                    Err(error) => self.unfit(node, peer, &error),
                }
            }
            Packet::Answer { answer, payload } => {
                self.answered(node, peer, answer, payload)?;
                self.pump(node, peer);
                Ok(())
            }
            Packet::Control(Control::Credit { bytes, requests }) => {
                self.granted(node, peer, Credit { bytes, requests });
                Ok(())
            }
            Packet::Control(control) => {
                let Some(conn) = self.nodes[node].links[peer].conn else {
                    return Ok(());
                };
                let input = ResourceInput::Control {
                    peer: PeerIndex(peer as u8),
                    connection: id_of(conn),
                    control,
                };
                self.feed_resource(node, input)
            }
            // (The daemon knows by its heartbeats whether the other can have found it silent.)
            Packet::Closed { gone } => self.lose(node, peer, gone, "closed by the peer"),
        }
    }

    /// Start what the intake lets through.
    pub fn pump_intake(&mut self, node: usize, peer: usize) -> Check {
        while let Some(step) = self.nodes[node].links[peer].intake.poll() {
            match step {
                Step::Start { started, volume, item } => {
                    self.start_request(node, peer, started, usize::from(volume), item)?;
                }
                Step::Flush { connection, volume } => {
                    let request = VolumeRequest {
                        origin: Origin::Barrier { peer, connection },
                        content: Content::Nothing,
                        range: None,
                    };
                    let volume = usize::from(volume);
                    let id = self.nodes[node].volumes[volume].requests.insert(request);
                    self.feed_mirror(node, volume, Input::Host { id, op: HostOp::Flush })?;
                }
            }
        }
        Ok(())
    }

    fn start_request(&mut self, node: usize, peer: usize, started: Started, volume: usize, arrived: Arrived) -> Check {
        let Arrived { request, payload } = arrived;
        let copied_from = match request {
            Request::CopyWrite { .. } | Request::CopyZero { .. } => Some(node_of(node, peer)),
            _ => None,
        };
        let mutation = match request {
            Request::Write { range, fua } => (range, MutationKind::Write, fua),
            Request::Zero { range, no_hole, fua } => (range, MutationKind::Zero { no_hole }, fua),
            Request::Trim { range, fua } => (range, MutationKind::Trim, fua),
            Request::CopyWrite { range } => (range, MutationKind::Write, false),
            Request::CopyZero { range } => (range, MutationKind::Zero { no_hole: false }, false),
            Request::Flush => {
                let op = HostOp::Flush;
                return self.start_stream_op(node, volume, (peer, started, None), op, Content::Nothing);
            }
            Request::Message(message) => {
                let input = Input::FromPeer {
                    peer: PeerIndex(peer as u8),
                    connection: started.connection,
                    message,
                };
                self.feed_mirror(node, volume, input)?;
                return self.finished(node, peer, started, None);
            }
            Request::Barrier => return Ok(()),
            Request::Compare { range, .. } => {
                return self.serve(
                    node,
                    volume,
                    range,
                    (peer, started),
                    Wanted::Differences(sectors(payload)),
                );
            }
            Request::Fetch { range, .. } => {
                return self.serve(
                    node,
                    volume,
                    range,
                    (peer, started),
                    Wanted::Differing(sectors(payload)),
                );
            }
            Request::Read { range } => return self.serve(node, volume, range, (peer, started), Wanted::All),
        };
        let (range, kind, fua) = mutation;
        if range.end() > self.nodes[node].volumes[volume].mirror_size() {
            let answer = Answer::Failed {
                sequence: started.sequence,
                failure: Failure::Io,
            };
            return self.finished(node, peer, started, Some((answer, Payload::Nothing)));
        }
        let content = match payload {
            Payload::Stamp(stamp) => Content::Stamp(stamp),
            Payload::Sectors(sectors) => Content::Sectors(sectors),
            Payload::Nothing => Content::Nothing,
        };
        self.save_to_branch(node, volume, range);
        let op = HostOp::Mutate(Mutation { range, kind, fua });
        self.start_stream_op(node, volume, (peer, started, copied_from), op, content)
    }

    fn start_stream_op(
        &mut self,
        node: usize,
        volume: usize,
        from: (usize, Started, Option<usize>),
        op: HostOp,
        content: Content,
    ) -> Check {
        let (peer, started, copied_from) = from;
        let range = match op {
            HostOp::Mutate(mutation) => Some(mutation.range),
            HostOp::Flush => None,
        };
        let origin = Origin::Stream {
            peer,
            started,
            copied_from,
        };
        let request = VolumeRequest { origin, content, range };
        let id = self.nodes[node].volumes[volume].requests.insert(request);
        self.feed_mirror(node, volume, Input::Host { id, op })
    }

    /// A peer wants to know what is here: after the writes to it that came before.
    fn serve(&mut self, node: usize, volume: usize, range: ByteRange, from: (usize, Started), what: Wanted) -> Check {
        let (peer, started) = from;
        let serving = Serving { peer, started, what };
        let requests = self.nodes[node].volumes[volume].requests.iter();
        let after: Vec<_> = requests
            .filter(|(_, request)| request.is_stream_write_to(range))
            .map(|(id, _)| id)
            .collect();
        if after.is_empty() {
            let purpose = Purpose::Serve(serving);
            self.start_operation(node, volume, Work::Read { range, purpose });
        } else {
            let held = Held { serving, range, after };
            self.nodes[node].volumes[volume].held.push(held);
        }
        Ok(())
    }

    /// A request of a volume is over: reads that waited for it may start.
    pub fn release_held(&mut self, node: usize, volume: usize, id: mirror_core::event::RequestId) {
        let held = &mut self.nodes[node].volumes[volume].held;
        if held.is_empty() {
            return;
        }
        held.iter_mut().for_each(|held| held.after.retain(|&other| other != id));
        let ready: Vec<Held> = held.extract_if(.., |held| held.after.is_empty()).collect();
        for Held { serving, range, .. } in ready {
            let purpose = Purpose::Serve(serving);
            self.start_operation(node, volume, Work::Read { range, purpose });
        }
    }

    /// What a peer wanted to know has been read.
    pub fn served(
        &mut self,
        node: usize,
        volume: usize,
        range: ByteRange,
        serving: Serving,
        outcome: Result<Sectors, Failure>,
    ) -> Check {
        let Serving { peer, started, what } = serving;
        let sequence = started.sequence;
        let here = match outcome {
            Ok(here) => here,
            Err(failure) => {
                let answer = Answer::Failed { sequence, failure };
                return self.finished(node, peer, started, Some((answer, Payload::Nothing)));
            }
        };
        let size = self.nodes[node].volumes[volume].mirror_size();
        let layout = &self.plan.layouts[volume];
        let (answer, payload) = match what {
            Wanted::All => (self.contents(sequence, vec![range]), Payload::Sectors(here)),
            Wanted::Differences(theirs) => {
                let ranges = differing(layout, size, &theirs, |slot, stamp| holds(&here, slot) != Some(stamp));
                (Answer::Differs { sequence, ranges }, Payload::Nothing)
            }
            Wanted::Differing(theirs) => {
                let ranges = differing(layout, size, &here, |slot, stamp| holds(&theirs, slot) != Some(stamp));
                let part = here.into_iter().filter(|&(slot, _)| {
                    let at = layout.offset(slot as usize);
                    ranges.iter().any(|range| contains(range, at))
                });
                let part: Sectors = part.collect();
                (self.contents(sequence, ranges), Payload::Sectors(part))
            }
        };
        self.finished(node, peer, started, Some((answer, payload)))
    }

    fn contents(&self, sequence: u64, ranges: Vec<ByteRange>) -> Answer {
        let holes = Vec::new();
        Answer::Contents {
            sequence,
            ranges,
            holes,
        }
    }

    /// A request of a peer is done: with an answer of its own, or in the next batch.
    pub fn finished(&mut self, node: usize, peer: usize, started: Started, answer: Option<(Answer, Payload)>) -> Check {
        let current = self.nodes[node].links[peer].intake.finished(started, answer.is_none());
        if !current {
            return self.tell_connected(node);
        }
        if let (Some((answer, payload)), Some(conn)) = (answer, self.nodes[node].links[peer].conn) {
            self.send(node, conn, Packet::Answer { answer, payload });
        }
        self.pump_intake(node, peer)
    }

    /// What is done is told, and credit is given back: at the end of a turn.
    pub fn tell_done(&mut self, node: usize) {
        for peer in 0..self.nodes[node].links.len() {
            let Some(conn) = self.nodes[node].links[peer].conn else {
                continue;
            };
            while let Some(done) = self.nodes[node].links[peer].intake.take_done(DONE_MAX) {
                let (answer, payload) = (Answer::Done(done.into()), Payload::Nothing);
                self.send(node, conn, Packet::Answer { answer, payload });
            }
            if let Some(Credit { bytes, requests }) = self.nodes[node].links[peer].intake.take_credit() {
                self.send(node, conn, Packet::Control(Control::Credit { bytes, requests }));
            }
        }
    }
}

fn sectors(payload: Payload) -> Sectors {
    match payload {
        Payload::Sectors(sectors) => sectors,
        _ => Vec::new(),
    }
}

fn holds(sectors: &Sectors, slot: usize) -> Option<u32> {
    let at = sectors.binary_search_by_key(&(slot as u32), |&(slot, _)| slot).ok()?;
    Some(sectors[at].1)
}
