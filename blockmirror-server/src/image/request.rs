//! What an image is asked for.

use crate::ring::{Buffer, Payload};

/// One request. Offsets and lengths are bytes; the whole range is within the image.
#[derive(Debug)]
pub enum ImageRequest {
    /// Fill the buffer with the bytes at `offset`; the buffer comes back in [`ImageDone`](super::ImageDone).
    Read {
        /// Its length is what is wanted.
        buffer: Buffer,
        /// First byte.
        offset: u64,
    },
    /// Store the payload.
    Write {
        /// The bytes.
        payload: Payload,
        /// Where.
        offset: u64,
        /// Done only when durable.
        durable: bool,
    },
    /// Make a range read as zeroes, the cheapest way that keeps the promise.
    Zero {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
        /// The range must stay or become allocated: a later write to it must not lack space.
        no_hole: bool,
        /// Done only when durable.
        durable: bool,
    },
    /// Deallocate a range. It reads as zeroes afterwards, on every kind of image.
    Trim {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
        /// Done only when durable.
        durable: bool,
    },
    /// Make everything done so far durable.
    Flush,
    /// Read a range into the page cache, if there is one.
    Cache {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
}

impl ImageRequest {
    /// First byte and bytes.
    pub(crate) fn range(&self) -> (u64, u64) {
        match self {
            ImageRequest::Read { buffer, offset } => (*offset, buffer.len() as u64),
            ImageRequest::Write { payload, offset, .. } => (*offset, payload.len() as u64),
            ImageRequest::Zero { offset, length, .. }
            | ImageRequest::Trim { offset, length, .. }
            | ImageRequest::Cache { offset, length } => (*offset, *length),
            ImageRequest::Flush => (0, 0),
        }
    }

    pub(crate) fn is_change(&self) -> bool {
        matches!(
            self,
            ImageRequest::Write { .. } | ImageRequest::Zero { .. } | ImageRequest::Trim { .. }
        )
    }

    pub(super) fn promises_durability(&self) -> bool {
        match self {
            ImageRequest::Write { durable, .. }
            | ImageRequest::Zero { durable, .. }
            | ImageRequest::Trim { durable, .. } => *durable,
            ImageRequest::Flush => true,
            ImageRequest::Read { .. } | ImageRequest::Cache { .. } => false,
        }
    }
}
