//! Answers to what was asked of a peer, and what follows from them.

use mirror_core::ByteRange;
use mirror_core::event::{Copied, CopyFailure, Failure, Input, PeerIndex};
use mirror_core::stream::{Answer, Request};

use crate::ask::{Ask, Copying, Payload, What, contains};
use crate::net::id_of;
use crate::operation::{Moving, Work};
use crate::outcome::Violation;
use crate::requests::Sectors;
use crate::world::{Check, World};

impl World {
    /// An answer has come.
    pub fn answered(&mut self, node: usize, peer: usize, answer: Answer, payload: Payload) -> Check {
        match answer {
            Answer::Done(sequences) => {
                for sequence in sequences {
                    let ask = self.take_ask(node, peer, sequence)?;
                    self.answered_one(node, peer, ask, Ok(()))?;
                }
                Ok(())
            }
            Answer::Failed { sequence, failure } => {
                let ask = self.take_ask(node, peer, sequence)?;
                self.answered_one(node, peer, ask, Err(failure))
            }
            Answer::Differs { sequence, ranges } => {
                let ask = self.take_ask(node, peer, sequence)?;
                match ask.what {
                    What::Differences(moving, sectors) => {
                        self.send_differences(node, ask.volume, moving, ranges, &sectors)
                    }
                    What::Compare(moving) => self.compare_ends(node, ask.volume, moving, Ok(ranges)),
                    what => Err(self.violation("stream", format!("{what:?} is answered by differences"))),
                }
            }
            Answer::Contents { sequence, .. } => {
                let ask = self.take_ask(node, peer, sequence)?;
                let Payload::Sectors(sectors) = payload else {
                    return Ok(());
                };
                match ask.what {
                    What::Fetch(fetch) => {
                        self.start_operation(node, ask.volume, Work::Store { sectors, fetch });
                        Ok(())
                    }
                    What::Read(read) => self.host_read_ends(node, read, Ok(sectors), true),
                    what => Err(self.violation("stream", format!("{what:?} is answered by contents"))),
                }
            }
        }
    }

    fn take_ask(&mut self, node: usize, peer: usize, sequence: u64) -> Result<Ask, Violation> {
        let taken = self.nodes[node].links[peer].outflow.answered(sequence);
        taken.map_err(|error| self.violation("stream", error.to_string()))
    }

    fn answered_one(&mut self, node: usize, peer: usize, ask: Ask, outcome: Result<(), Failure>) -> Check {
        let Some(conn) = self.nodes[node].links[peer].conn else {
            return Ok(());
        };
        let (volume, connection, index) = (ask.volume, id_of(conn), PeerIndex(peer as u8));
        match (ask.what, outcome) {
            (What::Mutation(id), outcome) => {
                let input = Input::PeerDone {
                    peer: index,
                    connection,
                    id,
                    outcome,
                };
                self.feed_mirror(node, volume, input)
            }
            (What::Flush, outcome) => {
                let input = Input::PeerFlushDone {
                    peer: index,
                    connection,
                    outcome,
                };
                self.feed_mirror(node, volume, input)
            }
            (What::Word, _) => Ok(()),
            (What::Part(moving), outcome) => self.part_done(node, volume, moving, outcome),
            // What cannot be read there is written: that heals it.
            (What::Differences(moving, sectors), Err(Failure::Io)) => {
                self.send_differences(node, volume, moving, vec![moving.range], &sectors)
            }
            (What::Differences(moving, _), Err(failure)) => {
                self.copy_ends(node, volume, moving, Err(CopyFailure::Peer(failure)))
            }
            (What::Fetch(moving), Err(failure)) => {
                self.fetch_ends(node, volume, moving, Err(CopyFailure::Peer(failure)))
            }
            (What::Compare(moving), Err(failure)) => {
                self.compare_ends(node, volume, moving, Err(CopyFailure::Peer(failure)))
            }
            (What::Read(read), Err(failure)) => self.host_read_ends(node, read, Err(failure), true),
            (what, Ok(())) => Err(self.violation("stream", format!("{what:?} is answered by Done"))),
        }
    }

    /// The second half of a copy: what differs is sent.
    fn send_differences(
        &mut self,
        node: usize,
        volume: usize,
        moving: Moving,
        ranges: Vec<ByteRange>,
        sectors: &Sectors,
    ) -> Check {
        if ranges.is_empty() {
            self.tally.equal += 1;
            return self.copy_ends(node, volume, moving, Ok(Copied::default()));
        }
        let layout = &self.plan.layouts[volume];
        let mut parts = Vec::new();
        for range in ranges {
            let part: Sectors = sectors
                .iter()
                .copied()
                .filter(|&(slot, _)| contains(&range, layout.offset(slot as usize)))
                .collect();
            parts.push((range, part));
        }
        let mut copied = Copied::default();
        for (range, part) in &parts {
            if part.iter().all(|&(_, stamp)| stamp == 0) {
                copied.zeroed += range.length;
            } else {
                copied.shipped += range.length;
            }
        }
        self.nodes[node].copies.push(Copying {
            volume,
            moving,
            left: parts.len(),
            copied,
            failed: None,
        });
        for (range, part) in parts {
            let request = if part.iter().all(|&(_, stamp)| stamp == 0) {
                Request::CopyZero { range }
            } else {
                Request::CopyWrite { range }
            };
            let (payload, what) = (Payload::Sectors(part), What::Part(moving));
            self.ask_simple(node, volume, moving.peer, request, payload, what);
        }
        Ok(())
    }

    fn part_done(&mut self, node: usize, volume: usize, moving: Moving, outcome: Result<(), Failure>) -> Check {
        let copies = &mut self.nodes[node].copies;
        let mine = |copy: &Copying| copy.volume == volume && copy.moving.copy == moving.copy;
        let Some(at) = copies
            .iter()
            .position(|copy| mine(copy) && copy.moving.peer == moving.peer)
        else {
            return Ok(());
        };
        let copy = &mut copies[at];
        copy.left -= 1;
        copy.failed = copy.failed.or(outcome.err());
        if copy.left > 0 {
            return Ok(());
        }
        let done = copies.swap_remove(at);
        let outcome = done
            .failed
            .map_or(Ok(done.copied), |failure| Err(CopyFailure::Peer(failure)));
        self.copy_ends(node, volume, moving, outcome)
    }

    pub fn copy_ends(
        &mut self,
        node: usize,
        volume: usize,
        moving: Moving,
        outcome: Result<Copied, CopyFailure>,
    ) -> Check {
        self.tally.copies += 1;
        let input = Input::CopyDone {
            peer: PeerIndex(moving.peer as u8),
            connection: moving.connection,
            copy: moving.copy,
            outcome,
        };
        self.feed_mirror(node, volume, input)
    }

    pub fn compare_ends(
        &mut self,
        node: usize,
        volume: usize,
        moving: Moving,
        outcome: Result<Vec<ByteRange>, CopyFailure>,
    ) -> Check {
        let input = Input::CompareDone {
            peer: PeerIndex(moving.peer as u8),
            connection: moving.connection,
            copy: moving.copy,
            outcome,
        };
        self.feed_mirror(node, volume, input)
    }

    /// A connection is gone: hosts' reads that went over it are told.
    pub fn unanswered_reads(&mut self, node: usize, asked: Vec<Ask>) -> Check {
        for ask in asked {
            if let What::Read(read) = ask.what {
                self.host_read_ends(node, read, Err(Failure::Io), true)?;
            }
        }
        Ok(())
    }
}
