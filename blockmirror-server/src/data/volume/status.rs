//! What BLOCK_STATUS says of a volume: where its image has data, and what differs from each peer.
//!
//! All of it is looked up at once, by the data thread itself, and so has bounds: [`EXTENTS_MAX`], [`LOOKS_MAX`] and
//! [`LOOK_TIME`]. A reply that stops short of what was asked is a good one: clients ask again from there.

use std::ops::Range;
use std::time::{Duration, Instant};

use mirror_core::ByteRange;
use mirror_core::event::{PeerIndex, ReadFrom};
use mirror_core::range::BLOCK_BYTES;
use nbd_proto::{Extent, extent_flags};

use super::blocks::in_blocks_of;
use super::{Machinery, Volume};
use crate::image::ExtentKind;

/// Extents of one context in one reply.
pub(crate) const EXTENTS_MAX: usize = 1024;
/// Times the image is asked for one reply.
const LOOKS_MAX: usize = 1024;
/// Time spent on asking it.
const LOOK_TIME: Duration = Duration::from_micros(500);
/// Looks between two looks at the clock.
const LOOKS_PER_CLOCK: usize = 16;

/// A metadata context, as a volume knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContextKind {
    /// `base:allocation`.
    Allocation,
    /// `x-blockmirror:dirty/PEER` or `qemu:dirty-bitmap:PEER`. `None`: the peer is gone.
    Dirty(Option<PeerIndex>),
}

/// Names of the contexts of a peer begin so.
pub(crate) const DIRTY_PREFIXES: [&str; 2] = ["x-blockmirror:dirty/", "qemu:dirty-bitmap:"];
/// The context of the protocol itself.
pub(crate) const ALLOCATION: &str = "base:allocation";

impl Volume {
    /// What a name means that was offered for this volume.
    pub(crate) fn context_kind(&self, name: &str) -> ContextKind {
        let peer = DIRTY_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix));
        match (peer, &self.machinery) {
            (None, _) => ContextKind::Allocation,
            (Some(_), Machinery::Plain(_)) => ContextKind::Dirty(None),
            (Some(name), Machinery::Mirror(mirror)) => {
                let peer = mirror.peers.iter().position(|peer| peer.name() == name);
                ContextKind::Dirty(peer.map(|at| PeerIndex(at as u8)))
            }
        }
    }

    /// The extents of a context from the start of a range on, at least one, none beyond the range. `one`: only the first.
    pub(crate) fn extents(&self, kind: ContextKind, range: Range<u64>, one: bool) -> Vec<Extent> {
        let limit = if one { 1 } else { EXTENTS_MAX };
        let mut found = Found {
            extents: Vec::new(),
            at: range.start,
            end: range.end,
            limit,
        };
        match kind {
            ContextKind::Allocation => self.allocation(&mut found),
            ContextKind::Dirty(peer) => self.dirty(peer, &mut found),
        }
        found.extents
    }

    /// Where the image is not what hosts read, nothing is promised, which the protocol always allows.
    fn allocation(&self, found: &mut Found) {
        let range = ByteRange::new(found.at, found.end - found.at);
        let reads_image = match &self.machinery {
            Machinery::Plain(_) => self.view.is_none(),
            Machinery::Mirror(mirror) => mirror.core.read_from(range) == ReadFrom::Local,
        };
        if !reads_image {
            found.push(range.end(), 0);
            return;
        }
        let block = u64::from(self.minimum_block).max(BLOCK_BYTES);
        let hole = match self.image.keeps_space() {
            true => extent_flags::ZERO,
            false => extent_flags::HOLE | extent_flags::ZERO,
        };
        let started = Instant::now();
        for looks in 1..=LOOKS_MAX {
            let extent = in_blocks_of(block, self.image.look(found.at), found.at, range.end());
            let flags = match extent.kind {
                ExtentKind::Data => 0,
                ExtentKind::Hole => hole,
            };
            let late = looks % LOOKS_PER_CLOCK == 0 && started.elapsed() > LOOK_TIME;
            if !found.push(extent.end, flags) || late {
                return;
            }
        }
    }

    fn dirty(&self, peer: Option<PeerIndex>, found: &mut Found) {
        let (Some(peer), Machinery::Mirror(mirror)) = (peer, &self.machinery) else {
            // Nothing is known of it any more: all of it may differ.
            found.push(found.end, extent_flags::DIRTY);
            return;
        };
        loop {
            let run = mirror.core.dirty_run(peer, found.at / BLOCK_BYTES);
            let (from, to) = run.map_or((u64::MAX, u64::MAX), |run| {
                (
                    run.start.saturating_mul(BLOCK_BYTES),
                    run.end.saturating_mul(BLOCK_BYTES),
                )
            });
            let goes_on = (from <= found.at || found.push(from, 0)) && found.push(to, extent_flags::DIRTY);
            if !goes_on {
                return;
            }
        }
    }
}

/// Extents found so far.
struct Found {
    extents: Vec<Extent>,
    /// Where the next one begins.
    at: u64,
    /// Where the range ends.
    end: u64,
    limit: usize,
}

impl Found {
    /// The next extent ends at `to`, or with the range; one that is like the last one is part of it. False: that is
    /// enough.
    fn push(&mut self, to: u64, flags: u64) -> bool {
        let to = to.min(self.end);
        let length = to.saturating_sub(self.at);
        if length == 0 {
            return false;
        }
        let full = self.extents.len() >= self.limit;
        match self.extents.last_mut() {
            Some(last) if last.flags == flags => last.length += length,
            _ if full => return false,
            _ => self.extents.push(Extent { length, flags }),
        }
        self.at = to;
        to < self.end
    }
}
