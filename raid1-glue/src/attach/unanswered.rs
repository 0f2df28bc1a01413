//! A node that takes requests and answers none: its disk hangs, or what it mirrors to. New connections do not help there: the
//! kernel would send the same requests again and again, and those who wait would wait for ever.

use std::time::{Duration, Instant};

use crate::nbd::sysfs::Progress;

/// Connections that answer nothing are lost when the first request they were sent has waited long enough, and not much later.
const SLACK: Duration = Duration::from_secs(3);
/// So often, where requests were not seen to wait: the kernel counts no flush as under way.
const TIMES: u32 = 2;

/// What the connections that were brought last have done.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    /// When they were brought, and what had finished by then. `None`: they have answered since.
    brought: Option<(Instant, u64)>,
    /// Every look since then has seen requests that wait. `None`: there was none yet.
    waits: Option<bool>,
    /// So many in a row were lost as those are that answer nothing.
    times: u32,
}

impl Unanswered {
    /// New connections were brought, with requests as they are `then`.
    pub(super) fn brought(&mut self, now: Instant, then: Option<Progress>) {
        self.brought = then.map(|then| (now, then.finished));
        self.waits = None;
    }

    /// A look every now and then, while there are connections: once they are lost the kernel counts nothing as under way.
    pub(super) fn look(&mut self, progress: Option<Progress>) {
        let under_way = progress.is_some_and(|progress| progress.under_way > 0);
        self.waits = Some(self.waits.unwrap_or(true) && under_way);
        self.brought = self.unanswered(progress);
    }

    /// The connections that were brought last, if nothing has finished by them.
    fn unanswered(&self, progress: Option<Progress>) -> Option<(Instant, u64)> {
        let now = progress?.finished;
        self.brought.filter(|(_, then)| now == *then)
    }

    /// Connections are lost: whether those that were brought last have had as long as an answer may take, and nothing has
    /// finished by them. (What is lost sooner was closed there: a daemon that is started again, and again. What had nothing to
    /// do may be lost at any time.)
    pub(super) fn is_in_vain(&mut self, now: Instant, progress: Option<Progress>, answer: Option<Duration>) -> bool {
        let lived = self.unanswered(progress).map(|(since, _)| now.duration_since(since));
        let (Some(lived), Some(answer)) = (lived, answer) else {
            self.times = 0;
            return false;
        };
        let is_typical = lived >= answer && lived <= answer + SLACK;
        self.times = if is_typical { self.times + 1 } else { 0 };
        lived >= answer && (self.waits == Some(true) || self.times >= TIMES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: Duration = Duration::from_secs(10);

    fn progress(finished: u64, under_way: u64) -> Option<Progress> {
        Some(Progress { finished, under_way })
    }

    #[test]
    fn only_who_had_time_and_has_answered_nothing_is_given_up() {
        let begin = Instant::now();
        let (soon, late) = (begin + ANSWER / 2, begin + ANSWER);
        // What is seen while they live, when they are lost, and what has finished then.
        let cases = [
            (vec![progress(7, 2), progress(7, 1)], late, 7, true),
            // Others were lost sooner, have answered, or had nothing to do.
            (vec![progress(7, 2)], soon, 7, false),
            (vec![progress(7, 2)], late, 8, false),
            (vec![progress(8, 2)], late, 8, false),
            (vec![progress(7, 2), progress(7, 0), progress(7, 2)], late, 7, false),
            (vec![None], late, 7, false),
            (vec![], late, 7, false),
        ];
        for (looks, lost, finished, is_in_vain) in cases {
            let mut unanswered = Unanswered::default();
            // The connections of the beginning may have worked for hours.
            assert!(!unanswered.is_in_vain(late, progress(7, 0), Some(ANSWER)));
            unanswered.brought(begin, progress(7, 0));
            for look in &looks {
                unanswered.look(*look);
            }
            let found = unanswered.is_in_vain(lost, progress(finished, 0), Some(ANSWER));
            assert_eq!(found, is_in_vain, "{looks:?}");
            assert!(
                !unanswered.is_in_vain(lost, progress(finished, 0), None),
                "answers take as long as they take"
            );
        }
    }

    /// The first request that hangs is mostly a flush: of the bitmap of an array, of a journal.
    #[test]
    fn a_flush_that_hangs_is_seen_by_when_its_connections_are_lost() {
        let begin = Instant::now();
        let mut unanswered = Unanswered::default();
        let mut lost = |after: Duration, finished: u64| {
            unanswered.brought(begin, progress(7, 0));
            unanswered.look(progress(7, 0));
            unanswered.is_in_vain(begin + after, progress(finished, 0), Some(ANSWER))
        };
        let (typical, hour) = (ANSWER + Duration::from_secs(1), Duration::from_secs(3600));
        assert!(!lost(typical, 7));
        assert!(lost(typical, 7));
        // A device without work whose daemon is started again every now and then.
        for after in [hour, typical, hour, typical, Duration::from_secs(1), typical] {
            assert!(!lost(after, 7), "{after:?}");
        }
        assert!(!lost(typical, 8), "something was answered");
        assert!(!lost(typical, 7));
    }
}
