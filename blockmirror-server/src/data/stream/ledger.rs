//! What was asked of the peer: answers that do not fit are found before anything is done with them, and before memory
//! is taken for their payload.

use std::time::Duration;

use mirror_core::ByteRange;
use mirror_core::stream::frame::Sequence;
use mirror_core::stream::{Answer, Outflow, Request};

use super::life::Passed;
use super::work::{Checked, StreamLost, StreamWork};

/// Something asked of the peer.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) volume: u16,
    pub(super) work: StreamWork,
    pub(super) expects: Expects,
    /// Until it is sent.
    pub(super) unsent: Option<(Request, Option<Checked>)>,
}

/// The answer that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expects {
    Done,
    /// Within this range.
    Differs(ByteRange),
    /// Within this range.
    Contents(ByteRange),
    /// All of this range.
    Whole(ByteRange),
}

impl Expects {
    pub(super) fn of(request: &Request) -> Self {
        match request {
            Request::Compare { range, .. } => Self::Differs(*range),
            Request::Fetch { range, .. } => Self::Contents(*range),
            Request::Read { range } => Self::Whole(*range),
            Request::Write { .. }
            | Request::Zero { .. }
            | Request::Trim { .. }
            | Request::Flush
            | Request::Barrier
            | Request::CopyWrite { .. }
            | Request::CopyZero { .. }
            | Request::Message(_) => Self::Done,
        }
    }
}

/// Has a request been left unanswered for too long? On a slow link the way there alone may take longer than that, so
/// time counts from when an answer shows that the request has arrived: one to a request that was sent later, or the
/// last one at all.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    /// The oldest request in flight, or one before it.
    oldest: Sequence,
    /// When something sent behind it was answered.
    overtaken: Option<Duration>,
    /// When something was answered, or sent with nothing in flight.
    moved: Duration,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            oldest: 1,
            overtaken: None,
            moved: Duration::ZERO,
        }
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Something is sent and nothing else is in flight.
    pub(super) fn begin(&mut self, now: Duration) {
        self.moved = now;
    }

    /// A request was answered, and is out of `asked`.
    pub(super) fn answered(&mut self, now: Duration, sequence: Sequence, asked: &Outflow<Asked>) {
        self.moved = now;
        while self.oldest <= asked.last_sent() && asked.get(self.oldest).is_none() {
            self.oldest += 1;
            self.overtaken = None;
        }
        if sequence > self.oldest {
            self.overtaken.get_or_insert(now);
        }
    }

    /// While something is in flight.
    pub(super) fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.overtaken.unwrap_or(self.moved)) >= self.limit
    }
}

impl Passed {
    /// One more request.
    pub(super) fn count(&mut self, request: &Request) {
        match request {
            Request::Write { range, .. } => self.bytes += range.length,
            Request::Flush | Request::Barrier => self.flushes += 1,
            _ => {}
        }
    }
}

/// Does the answer fit what was asked? Of `Done` and `Failed` that is seen when they are taken.
pub(super) fn judge_answer(answer: &Answer, asked: &Outflow<Asked>) -> Result<(), StreamLost> {
    let (sequence, ranges) = match answer {
        Answer::Done(_) | Answer::Failed { .. } => return Ok(()),
        Answer::Differs { sequence, ranges } | Answer::Contents { sequence, ranges, .. } => (*sequence, ranges),
    };
    let Some(asked) = asked.get(sequence) else {
        return Err(unasked(sequence));
    };
    let fits = match (asked.expects, answer) {
        (Expects::Differs(range), Answer::Differs { .. }) => in_order_within(ranges, range),
        (Expects::Contents(range), Answer::Contents { .. }) => in_order_within(ranges, range),
        (Expects::Whole(range), Answer::Contents { .. }) => {
            in_order_within(ranges, range) && ranges.iter().map(|part| part.length).sum::<u64>() == range.length
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(unfit(sequence)) }
}

/// Every range lies within `whole` and behind the one before.
fn in_order_within(ranges: &[ByteRange], whole: ByteRange) -> bool {
    let mut at = whole.offset;
    ranges.iter().all(|range| {
        let fits = range.offset >= at && range.end() <= whole.end();
        at = range.end();
        fits
    })
}

fn unasked(sequence: Sequence) -> StreamLost {
    protocol(format!("an answer to request {sequence}, which is not in flight"))
}

pub(super) fn unfit(sequence: Sequence) -> StreamLost {
    protocol(format!("the answer to request {sequence} does not fit what was asked"))
}

pub(super) fn protocol(what: impl Into<String>) -> StreamLost {
    let what = what.into();
    StreamLost::Protocol(format!("the peer broke the protocol of the stream: {what}"))
}
