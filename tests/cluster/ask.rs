//! The asking half of a stream: what mirrors put out goes to a peer in order, and its answers come back.

use mirror_core::ByteRange;
use mirror_core::event::{Copied, CopyFailure, Failure, Mutation, MutationKind, RequestId, VolumeMessage};
use mirror_core::range::BLOCK_BYTES;
use mirror_core::stream::outflow::Sent;
use mirror_core::stream::{Credit, Request};

use crate::disk::Stamp;
use crate::net::{Packet, id_of};
use crate::operation::{Moving, Purpose};
use crate::requests::{Content, Sectors};
use crate::world::{Check, World};

/// What a frame carries beside what it says.
#[derive(Clone, Debug, Default)]
pub enum Payload {
    /// Nothing.
    #[default]
    Nothing,
    /// A host's write.
    Stamp(Stamp),
    /// Contents of sectors; in place of digests, too.
    Sectors(Sectors),
}

/// What was asked of a peer.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Of which volume.
    pub volume: usize,
    /// What; gone once it is sent.
    pub request: Option<Request>,
    /// Beside it.
    pub payload: Payload,
    /// What for.
    pub what: What,
}

/// What an answer is for.
#[derive(Clone, Debug)]
pub enum What {
    /// A mutation of the mirror.
    Mutation(RequestId),
    /// A flush of the mirror.
    Flush,
    /// A word between mirrors, or a barrier.
    Word,
    /// First half of a copy: which blocks differ?
    Differences(Moving, Sectors),
    /// Second half of a copy: a part of what differs.
    Part(Moving),
    /// To have what differs.
    Fetch(Moving),
    /// To know what differs.
    Compare(Moving),
    /// A host's read.
    Read(u32),
}

/// A copy whose parts are on their way.
#[derive(Clone, Debug)]
pub struct Copying {
    /// Of which volume.
    pub volume: usize,
    /// What the mirror asked.
    pub moving: Moving,
    /// Parts that are not answered.
    pub left: usize,
    /// What the mirror is told in the end.
    pub copied: Copied,
    /// How a part failed.
    pub failed: Option<Failure>,
}

impl World {
    /// Ask a peer for something, if the connection is still the one that is meant.
    pub fn ask(&mut self, node: usize, peer: usize, ask: Ask) {
        let now = self.clock(node);
        let link = &mut self.nodes[node].links[peer];
        if link.conn.is_none() {
            return;
        }
        let need = ask.request.as_ref().map(Request::need);
        if let Some(need) = need {
            link.outflow.offer(now, need, ask);
        }
        self.pump(node, peer);
    }

    /// Send what the credits allow.
    pub fn pump(&mut self, node: usize, peer: usize) {
        while let Some(conn) = self.nodes[node].links[peer].conn {
            let link = &mut self.nodes[node].links[peer];
            let (sequence, volume, request, payload) = match link.outflow.poll() {
                None => return,
                Some(Sent::Request { sequence, item }) => (
                    sequence,
                    item.volume,
                    item.request.take(),
                    std::mem::take(&mut item.payload),
                ),
                Some(Sent::Barrier { sequence, item }) => (sequence, item.volume, item.request, item.payload),
            };
            let Some(request) = request else { return };
            self.digest.mix(sequence);
            let packet = Packet::Request {
                sequence,
                volume: volume as u16,
                request,
                payload,
            };
            self.send(node, conn, packet);
        }
    }

    /// The receiver grants more.
    pub fn granted(&mut self, node: usize, peer: usize, more: Credit) {
        self.nodes[node].links[peer].outflow.credit(more);
        self.pump(node, peer);
    }

    /// A mirror replicates a mutation.
    pub fn ask_mutation(
        &mut self,
        node: usize,
        volume: usize,
        peer: usize,
        id: RequestId,
        mutation: Mutation,
    ) -> Check {
        let request = self.nodes[node].volumes[volume].requests.get(id);
        let Some(Content::Stamp(stamp)) = request.map(|request| &request.content) else {
            return Err(self.violation(
                "payload",
                format!("{id:?} goes to a peer, but is no host's write any more"),
            ));
        };
        let payload = Payload::Stamp(*stamp);
        let Mutation { range, kind, fua } = mutation;
        let request = match kind {
            MutationKind::Write => Request::Write { range, fua },
            MutationKind::Zero { no_hole } => Request::Zero { range, no_hole, fua },
            MutationKind::Trim => Request::Trim { range, fua },
        };
        self.ask_simple(node, volume, peer, request, payload, What::Mutation(id));
        Ok(())
    }

    /// A mirror says something to its peer's mirror.
    pub fn ask_message(&mut self, node: usize, volume: usize, peer: usize, message: VolumeMessage) {
        if matches!(message, VolumeMessage::SyncEnd { .. }) {
            self.end_of_copy_said(node, volume, peer);
        }
        self.ask_simple(
            node,
            volume,
            peer,
            Request::Message(message),
            Payload::Nothing,
            What::Word,
        );
    }

    /// Queue a request.
    pub fn ask_simple(
        &mut self,
        node: usize,
        volume: usize,
        peer: usize,
        request: Request,
        payload: Payload,
        what: What,
    ) {
        let ask = Ask {
            volume,
            request: Some(request),
            payload,
            what,
        };
        self.ask(node, peer, ask);
    }

    /// A read for a copy, a fetch or a comparison has ended.
    pub fn moving_read(
        &mut self,
        node: usize,
        volume: usize,
        purpose: Purpose,
        outcome: Result<Sectors, Failure>,
    ) -> Check {
        let (Purpose::Copy(moving) | Purpose::Fetch(moving) | Purpose::Compare(moving)) = purpose else {
            return Ok(());
        };
        if self.nodes[node].links[moving.peer].conn.map(id_of) != Some(moving.connection) {
            return Ok(());
        }
        let sectors = match outcome {
            Ok(sectors) => sectors,
            Err(failure) => return self.moving_failed(node, volume, &purpose, CopyFailure::Local(failure)),
        };
        let (range, digests) = (moving.range, Vec::new());
        let (request, what) = match purpose {
            Purpose::Copy(_) => (
                Request::Compare { range, digests },
                What::Differences(moving, sectors.clone()),
            ),
            Purpose::Fetch(_) => (Request::Fetch { range, digests }, What::Fetch(moving)),
            _ => (Request::Compare { range, digests }, What::Compare(moving)),
        };
        self.ask_simple(node, volume, moving.peer, request, Payload::Sectors(sectors), what);
        Ok(())
    }

    fn moving_failed(&mut self, node: usize, volume: usize, purpose: &Purpose, failure: CopyFailure) -> Check {
        match *purpose {
            Purpose::Copy(moving) => self.copy_ends(node, volume, moving, Err(failure)),
            Purpose::Fetch(moving) => self.fetch_ends(node, volume, moving, Err(failure)),
            Purpose::Compare(moving) => self.compare_ends(node, volume, moving, Err(failure)),
            _ => Ok(()),
        }
    }
}

/// Is this byte inside?
pub fn contains(range: &ByteRange, at: u64) -> bool {
    (range.offset..range.end()).contains(&at)
}

/// Block-aligned ranges of the sectors of which `differs` says so.
pub fn differing(
    layout: &crate::layout::Layout,
    size: u64,
    sectors: &Sectors,
    differs: impl Fn(usize, Stamp) -> bool,
) -> Vec<ByteRange> {
    let mut ranges: Vec<ByteRange> = Vec::new();
    for &(slot, stamp) in sectors {
        if !differs(slot as usize, stamp) {
            continue;
        }
        let range = layout.block_range(slot as usize, size);
        match ranges.last_mut() {
            Some(last) if last.end() > range.offset => {}
            Some(last) if last.end() == range.offset && last.length < 16 * BLOCK_BYTES => {
                last.length += range.length;
            }
            _ => ranges.push(range),
        }
    }
    ranges
}
