//! One BLOCK_STATUS being answered: one chunk for each context that was asked for, in any order.

use nbd_proto::constants::MAX_STATUS_EXTENTS;
use nbd_proto::{Extent, PeerMisbehaved};

/// What a metadata context says of a range: extents from its first byte on, without a gap. They may end before the range
/// does, and unless one was asked for the last may go on behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The context's number.
    pub context: u32,
    /// At least one.
    pub extents: Vec<Extent>,
}

/// The range of a BLOCK_STATUS, and what may be said of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub offset: u64,
    pub length: u64,
    /// One extent for each context, no longer than the range.
    pub one: bool,
    /// Size of the export.
    pub size: u64,
}

/// The answer to one BLOCK_STATUS, as far as it has come.
pub(super) struct Reporting {
    /// Numbers of the contexts that have not been answered.
    missing: Vec<u32>,
    statuses: Vec<Status>,
    /// Extents that may still come, over all contexts: what one reply can make us hold.
    room: usize,
}

impl Reporting {
    /// Nothing has come of these contexts.
    pub fn new(contexts: Vec<u32>) -> Self {
        Self {
            missing: contexts,
            statuses: Vec::new(),
            room: MAX_STATUS_EXTENTS as usize,
        }
    }

    /// What a chunk says of a context.
    pub fn take(&mut self, asked: &Asked, status: Status) -> Result<(), PeerMisbehaved> {
        let Some(place) = self.missing.iter().position(|context| *context == status.context) else {
            return Err(PeerMisbehaved::UnexpectedContext(status.context));
        };
        self.missing.swap_remove(place);
        check(asked, &status.extents)?;
        let room = self.room.checked_sub(status.extents.len());
        self.room = room.ok_or(PeerMisbehaved::ExtentsTooMany {
            offset: asked.offset,
            length: asked.length,
        })?;
        self.statuses.push(status);
        Ok(())
    }

    /// A context that was asked for and has not been answered.
    pub fn missing(&self) -> Option<u32> {
        self.missing.first().copied()
    }

    pub fn into_statuses(self) -> Vec<Status> {
        self.statuses
    }
}

/// Every extent but the last ends within the range; none goes beyond the end of the export.
fn check(asked: &Asked, extents: &[Extent]) -> Result<(), PeerMisbehaved> {
    let Asked {
        offset,
        length,
        one,
        size,
    } = *asked;
    let mut described = 0_u64;
    for extent in extents {
        if described >= length || (one && (described > 0 || extent.length > length)) {
            return Err(PeerMisbehaved::ExtentsTooMany { offset, length });
        }
        described = described.saturating_add(extent.length);
    }
    match described <= size.saturating_sub(offset) {
        true => Ok(()),
        false => Err(PeerMisbehaved::ExtentsBeyondEnd { offset, described }),
    }
}
