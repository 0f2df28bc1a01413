//! A volume without the mirror: overlapping mutations in order of arrival, flushes together.

use std::mem;

use mirror_core::ByteRange;
use mirror_core::event::MutationKind;
use mirror_core::order::RangeOrder;

use super::request::{ImageWork, VOLUME_FAILED, image_refusal};
use super::{Machinery, Volume};
use crate::data::turn::Turn;
use crate::image::{ImageError, ImageRequest};

/// The order of a plain volume's mutations, and its flushes.
#[derive(Debug, Default)]
pub(super) struct Plain {
    order: RangeOrder,
    /// Mutations that may be started.
    ready: Vec<u32>,
    /// Flushes the image's flush in flight answers.
    flushing: Vec<u32>,
    /// Flushes that came after it was started: it may not cover what was answered before them.
    next_flush: Vec<u32>,
    flush_in_flight: bool,
    failed: Option<String>,
    stop: Stop,
}

/// The last flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stop {
    #[default]
    NotAsked,
    /// To be flushed when no request is left.
    Asked,
    /// The last flush is in flight.
    Flushing,
    /// Over; `clean`: everything is durable.
    Done { clean: bool },
}

impl Plain {
    /// One that has stopped.
    pub(super) fn over(clean: bool) -> Self {
        Self {
            stop: Stop::Done { clean },
            ..Self::default()
        }
    }

    /// Why no more changes are taken.
    pub(super) fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    pub(super) fn admit(&mut self, id: u32, range: ByteRange) {
        if self.order.admit(id, range) {
            self.ready.push(id);
        }
    }

    pub(super) fn release(&mut self, range: ByteRange) {
        self.order.release(range, &mut self.ready);
    }

    /// True: it was waiting for an overlapping one, and no longer is.
    pub(super) fn cancel(&mut self, id: u32) -> bool {
        self.order.cancel(id, &mut self.ready)
    }

    /// No request comes any more: flush once the last one has ended.
    pub(super) fn stop(&mut self) {
        self.stop = Stop::Asked;
    }

    /// `Some`: stopped, and whether everything is durable.
    pub(super) fn stopped(&self) -> Option<bool> {
        match self.stop {
            Stop::Done { clean } => Some(clean),
            Stop::NotAsked | Stop::Asked | Stop::Flushing => None,
        }
    }

    pub(super) fn flush(&mut self, id: u32) {
        self.next_flush.push(id);
    }
}

impl Volume {
    pub(super) fn drain_plain(&mut self, turn: &mut Turn) {
        let mut at = 0;
        // Mutations that end at once make others ready, which join the end of the list.
        while let Some(id) = self.plain().and_then(|plain| plain.ready.get(at).copied()) {
            at += 1;
            self.start_plain(turn, id);
        }
        let quiet = self.requests.is_empty();
        let Some(plain) = self.plain() else { return };
        plain.ready.clear();
        let last = quiet && plain.stop == Stop::Asked;
        if plain.flush_in_flight || (plain.next_flush.is_empty() && !last) {
            return;
        }
        if last {
            plain.stop = Stop::Flushing;
        }
        if plain.failed.is_some() {
            if last {
                plain.stop = Stop::Done { clean: false };
            }
            let flushes = mem::take(&mut plain.next_flush);
            return flushes.into_iter().for_each(|id| self.end(id, Err(VOLUME_FAILED)));
        }
        plain.flush_in_flight = true;
        mem::swap(&mut plain.flushing, &mut plain.next_flush);
        self.submit_image(turn, ImageWork::Flush, ImageRequest::Flush);
    }

    /// The image's flush ended.
    pub(super) fn plain_flushed(&mut self, result: &Result<(), ImageError>) {
        let Some(plain) = self.plain() else { return };
        plain.flush_in_flight = false;
        if plain.stop == Stop::Flushing {
            plain.stop = Stop::Done { clean: result.is_ok() };
        }
        if let Err(error) = result {
            plain.failed = Some(error.to_string());
        }
        let mut flushed = mem::take(&mut plain.flushing);
        for id in flushed.drain(..) {
            self.end(id, result.as_ref().map(|()| None).map_err(image_refusal));
        }
        if let Some(plain) = self.plain() {
            plain.flushing = flushed;
        }
    }

    fn start_plain(&mut self, turn: &mut Turn, id: u32) {
        let Some(request) = self.requests.get(id) else { return };
        let Some(mutation) = request.mutation() else { return };
        let request = image_request(mutation.kind, mutation.range, mutation.fua, request.payload.clone());
        if let Some(request) = request {
            self.submit_image(turn, ImageWork::Host(id), request);
        }
    }

    fn plain(&mut self) -> Option<&mut Plain> {
        match &mut self.machinery {
            Machinery::Plain(plain) => Some(plain),
            Machinery::Mirror(_) => None,
        }
    }
}

/// A mutation as the image takes it; `None` for a write without a payload, which no request is.
pub(super) fn image_request(
    kind: MutationKind,
    range: ByteRange,
    durable: bool,
    payload: Option<crate::ring::Payload>,
) -> Option<ImageRequest> {
    let ByteRange { offset, length } = range;
    Some(match kind {
        MutationKind::Write => ImageRequest::Write {
            payload: payload?,
            offset,
            durable,
        },
        MutationKind::Zero { no_hole } => ImageRequest::Zero {
            offset,
            length,
            no_hole,
            durable,
        },
        MutationKind::Trim => ImageRequest::Trim {
            offset,
            length,
            durable,
        },
    })
}
