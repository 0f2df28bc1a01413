//! What passes by itself: time, and the contents that a FETCH or a COMPARE brings.

use super::super::*;
use super::cluster::Cluster;
use super::node::{Node, Packet};
use crate::event::{ConnectionId, Copied, CopyFailure, CopyId, Failure};
use crate::range::ByteRange;

impl Cluster {
    /// Time passes.
    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = |node: &Node| node.mirror.next_timeout();
            let Some((at, when)) = (0..self.nodes.len())
                .filter_map(|at| due(&self.nodes[at]).map(|when| (at, when)))
                .min_by_key(|&(_, when)| when)
                .filter(|&(_, when)| when <= end)
            else {
                break;
            };
            self.now = self.now.max(when);
            self.feed(at, Input::Timeout);
            self.settle();
        }
        self.now = end;
    }

    /// What the other end has of the range is here: write what differs, or tell.
    pub(super) fn compare(
        &mut self,
        node: usize,
        (fetch, copy, range): (bool, CopyId, ByteRange),
        peer: PeerIndex,
        connection: ConnectionId,
        stamps: &[u32],
    ) -> Input {
        let node = &mut self.nodes[node];
        let here = &node.image[blocks_of(range)];
        if fetch {
            let outcome = match node.broken {
                Some(failure) => Err(CopyFailure::Local(failure)),
                None => {
                    let differing = here.iter().zip(stamps).filter(|(here, there)| here != there).count();
                    node.put(blocks_of(range).start, stamps);
                    let shipped = differing as u64 * BLOCK_BYTES;
                    Ok(Copied { shipped, zeroed: 0 })
                }
            };
            return Input::FetchDone {
                peer,
                connection,
                copy,
                outcome,
            };
        }
        let differs = |&at: &usize| here[at] != stamps[at];
        let block = |at: usize| ByteRange::new(range.offset + at as u64 * BLOCK_BYTES, BLOCK_BYTES);
        let outcome = Ok((0..stamps.len()).filter(differs).map(block).collect());
        Input::CompareDone {
            peer,
            connection,
            copy,
            outcome,
        }
    }

    /// Send what is here to the other end, if it can be read.
    pub(super) fn push(&mut self, node: usize, peer: PeerIndex, copy: CopyId, range: ByteRange) {
        let connection = self.nodes[node].mirror.peers[usize::from(peer.0)].connection.unwrap();
        match self.nodes[node].read(range) {
            Some(stamps) => self.send(node, peer, Packet::Copy(copy, range, stamps)),
            None => {
                let outcome = Err(CopyFailure::Local(Failure::Io));
                let input = Input::CopyDone {
                    peer,
                    connection,
                    copy,
                    outcome,
                };
                self.feed(node, input);
            }
        }
    }
}

/// The other end could not read it.
pub(super) fn unread(fetch: bool, copy: CopyId, peer: PeerIndex, connection: ConnectionId) -> Input {
    let failure = CopyFailure::Peer(Failure::Io);
    if fetch {
        let outcome = Err(failure);
        return Input::FetchDone {
            peer,
            connection,
            copy,
            outcome,
        };
    }
    let outcome = Err(failure);
    Input::CompareDone {
        peer,
        connection,
        copy,
        outcome,
    }
}

/// Their numbers, as places in an image.
pub(super) fn blocks_of(range: ByteRange) -> core::ops::Range<usize> {
    range.blocks().start as usize..range.blocks().end as usize
}
