//! The file under an image: [`Leg`].

use super::alignment::Alignment;
use super::edges::EdgeLocks;
use crate::ring::{BufferPool, FileHandle, Payload};

/// Length of the block of zeroes kept for files that can only be zeroed by writing.
pub(super) const ZEROES_LENGTH: usize = 1 << 20;

/// The file and what all requests on it share.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) file: FileHandle,
    pub(super) alignment: Alignment,
    pub(super) abilities: Abilities,
    /// Zeroing must not deallocate: the image was asked to be preallocated.
    pub(super) keep_allocated: bool,
    /// The file can be given holes.
    pub(super) makes_holes: bool,
    pub(super) locks: EdgeLocks,
    zeroes: Option<Payload>,
}

/// What the file has not refused so far.
#[derive(Debug)]
pub(super) struct Abilities {
    pub(super) punch_hole: bool,
    pub(super) zero_range: bool,
    pub(super) durable_write: bool,
}

impl Leg {
    pub(super) fn new(file: FileHandle, alignment: Alignment, keep_allocated: bool) -> Self {
        Self {
            file,
            alignment,
            abilities: Abilities {
                punch_hole: true,
                zero_range: true,
                durable_write: true,
            },
            keep_allocated,
            makes_holes: false,
            locks: EdgeLocks::default(),
            zeroes: None,
        }
    }

    /// A share of [`ZEROES_LENGTH`] zeroes.
    pub(super) fn zeroes(&mut self, pool: &BufferPool) -> Payload {
        self.zeroes
            .get_or_insert_with(|| pool.take_zeroed(ZEROES_LENGTH).into_payload())
            .clone()
    }

    /// Bytes of a short transfer that can be built on: whole blocks.
    pub(super) fn whole(&self, count: usize) -> usize {
        count - count % self.alignment.transfer as usize
    }

    pub(super) fn is_aligned(&self, offset: u64, length: usize) -> bool {
        let transfer = self.alignment.transfer;
        offset.is_multiple_of(transfer) && (length as u64).is_multiple_of(transfer)
    }
}
