//! How far a resync to this node is, as the node sees it that is copied to. The source keeps the bits, and alone knows
//! exactly; here is counted what has come of what the handshake said.

use std::time::Duration;

use crate::data::message::ResyncSnapshot;

/// The resync to here from one peer.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    running: Option<Running>,
    last: Option<ResyncSnapshot>,
}

#[derive(Debug)]
struct Running {
    since: Duration,
    counted: ResyncSnapshot,
}

impl Incoming {
    /// A connection begins on which the peer copies this many bytes to here, the equal ones included.
    pub(super) fn begin(&mut self, now: Duration, total: u64) {
        let counted = ResyncSnapshot {
            dirty_at_start_bytes: total,
            ..ResyncSnapshot::default()
        };
        self.running = Some(Running { since: now, counted });
    }

    /// These bytes came as payload.
    pub(super) fn copied(&mut self, bytes: u64) {
        self.count(bytes, |counted| &mut counted.copied_bytes);
    }

    /// These were zeroed.
    pub(super) fn zeroed(&mut self, bytes: u64) {
        self.count(bytes, |counted| &mut counted.zeroed_bytes);
    }

    /// These were compared, and are equal.
    pub(super) fn equal(&mut self, bytes: u64) {
        self.count(bytes, |counted| &mut counted.equal_bytes);
    }

    fn count(&mut self, bytes: u64, part: impl Fn(&mut ResyncSnapshot) -> &mut u64) {
        if let Some(Running { counted, .. }) = &mut self.running {
            counted.done_bytes += bytes;
            *part(counted) += bytes;
        }
    }

    /// It has ended: everything is here.
    pub(super) fn end(&mut self, now: Duration) {
        if let Some(Running { since, counted }) = self.running.take() {
            let ended = ResyncSnapshot {
                dirty_at_start_bytes: counted.done_bytes,
                elapsed: now.saturating_sub(since),
                ..counted
            };
            self.last = Some(ended);
        }
    }

    /// The connection is gone. The next one counts anew what is still to come.
    pub(super) fn lose(&mut self) {
        self.running = None;
    }

    /// The one under way, of a volume with this size.
    pub(super) fn running(&self, now: Duration, size: u64) -> Option<ResyncSnapshot> {
        let Running { since, counted } = self.running.as_ref()?;
        // The source had more to compare than both have said: everything.
        let total = if counted.done_bytes > counted.dirty_at_start_bytes {
            size.max(counted.done_bytes)
        } else {
            counted.dirty_at_start_bytes
        };
        Some(ResyncSnapshot {
            dirty_at_start_bytes: total,
            remaining_bytes: total - counted.done_bytes,
            elapsed: now.saturating_sub(*since),
            ..*counted
        })
    }

    /// The last one that ended.
    pub(super) fn last(&self) -> Option<ResyncSnapshot> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_has_come_is_counted_until_the_end() {
        let mut incoming = Incoming::default();
        incoming.copied(1);
        assert_eq!(incoming.running(SECOND, 1 << 20), None, "a copy outside of a resync");
        incoming.begin(SECOND, 1000);
        incoming.copied(300);
        incoming.zeroed(100);
        incoming.equal(200);
        let running = incoming.running(3 * SECOND, 1 << 20).unwrap_or_default();
        assert_eq!((running.done_bytes, running.remaining_bytes), (600, 400));
        assert_eq!(
            (running.copied_bytes, running.zeroed_bytes, running.equal_bytes),
            (300, 100, 200)
        );
        assert_eq!(running.elapsed, 2 * SECOND);
        incoming.equal(500);
        let running = incoming.running(3 * SECOND, 1 << 20).unwrap_or_default();
        assert_eq!((running.dirty_at_start_bytes, running.done_bytes), (1 << 20, 1100));
        incoming.end(4 * SECOND);
        assert_eq!(incoming.running(4 * SECOND, 1 << 20), None);
        let last = incoming.last().unwrap_or_default();
        assert_eq!(
            (last.dirty_at_start_bytes, last.remaining_bytes, last.elapsed),
            (1100, 0, 3 * SECOND)
        );
        incoming.begin(5 * SECOND, 10);
        incoming.lose();
        incoming.end(6 * SECOND);
        assert_eq!(incoming.last(), Some(last), "one that was cut off has not ended");
    }
}
