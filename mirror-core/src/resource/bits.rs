//! Dirty bits are exchanged while a volume's part of a connection is prepared.

use alloc::vec::Vec;
use core::ops::Range;

use super::config::{BITMAP_FRAMES_MAX, BITMAP_RUNS};
use super::event::{Output, Volumes};
use super::orders::Purpose;
use super::peer::{Joined, Lane, LaneStage, Link};
use super::{Resource, index};
use crate::event::Order;
use crate::range::BLOCK_BYTES;
use crate::sabotage::Sabotage;
use crate::stream::Control;

/// Orders for one volume that a peer may cause to be under way at a time.
const LANE_ORDERS_MAX: usize = BITMAP_FRAMES_MAX + 8;

impl Resource {
    /// The lane, while it is being prepared and its orders are done.
    pub(super) fn prepared(&self, peer: usize, at: usize) -> Option<(&Joined, &Lane)> {
        let joined = self.peers[peer].joined()?;
        let lane = joined.lanes.get(at)?;
        let begun = lane.orders == 0 || !self.keeps(Sabotage::BeginBeforeBits);
        (lane.stage == LaneStage::Preparing && begun).then_some((joined, lane))
    }

    /// This node's dirty blocks, once it is durably what it was decided to be.
    pub(super) fn tell_bits(&mut self, peer: usize, at: usize, world: &dyn Volumes) {
        let Some((joined, lane)) = self.prepared(peer, at) else {
            return;
        };
        if !lane.tells_bits {
            return;
        }
        let (connection, volume, place) = (joined.connection, lane.ruling.volume, lane.ruling.mine);
        let blocks = joined.mine.volumes[place].size.div_ceil(BLOCK_BYTES);
        for blocks in bitmap_frames(blocks, |from| world.dirty_runs(volume, index(peer), from, BITMAP_RUNS)) {
            let last = blocks.is_empty();
            self.emit(Output::Send {
                peer: index(peer),
                connection,
                control: Control::Bitmap {
                    volume: place as u16,
                    blocks,
                    last,
                },
            });
        }
        if let Link::Joined(joined) = &mut self.peers[peer].link {
            joined.lanes[at].tells_bits = false;
        }
    }

    /// The other's dirty blocks.
    pub(super) fn heard_bitmap(&mut self, peer: usize, place: usize, blocks: Vec<Range<u64>>, last: bool) {
        let Link::Joined(joined) = &mut self.peers[peer].link else {
            return;
        };
        let connection = joined.connection;
        let Some(lane) = joined
            .lanes
            .iter_mut()
            .find(|lane| lane.ruling.theirs == place && lane.wants_bits && lane.orders < LANE_ORDERS_MAX)
        else {
            self.close(peer, "the other node sent blocks of a volume that nobody asked for");
            return;
        };
        let end = joined.mine.volumes[lane.ruling.mine].size.div_ceil(BLOCK_BYTES);
        if blocks.iter().any(|run| run.start >= run.end || run.end > end) {
            self.close(peer, "the other node sent blocks beyond the end of the volume");
            return;
        }
        lane.wants_bits = !last;
        let volume = lane.ruling.volume;
        if !blocks.is_empty() {
            lane.orders += 1;
            let order = Order::Merge {
                peer: index(peer),
                blocks,
            };
            self.order(volume, order, Purpose::Lane { peer, connection });
        }
    }
}

/// The frames that tell the dirty blocks of a volume of `end` blocks; the last one is empty. When there are too many
/// runs, all of the rest is one: more is compared, nothing is missed.
fn bitmap_frames(end: u64, runs: impl Fn(u64) -> Vec<Range<u64>>) -> Vec<Vec<Range<u64>>> {
    let mut frames = Vec::new();
    let mut from = 0;
    while frames.len() < BITMAP_FRAMES_MAX {
        let next = runs(from);
        let Some(last) = next.last() else {
            break;
        };
        from = last.end;
        frames.push(next);
    }
    if frames.len() == BITMAP_FRAMES_MAX && from < end {
        let rest = from..end;
        frames.push(Vec::from([rest]));
    }
    frames.push(Vec::new());
    frames
}
