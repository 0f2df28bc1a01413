//! A node that takes requests and answers none: its disk hangs, or what it mirrors to. New connections do not help there: the
//! kernel would send the same requests again and again, and those who wait would wait for ever.

use std::time::{Duration, Instant};

use crate::nbd::sysfs::Progress;

/// What the connections that were brought last have done.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    /// When they were brought, and what had finished by then. `None`: they have answered since, or had nothing to answer.
    brought: Option<(Instant, u64)>,
    /// Since then requests were seen to wait.
    was_seen: bool,
}

impl Unanswered {
    /// New connections were brought, with requests as they are `then`.
    pub(super) fn brought(&mut self, now: Instant, then: Option<Progress>) {
        self.brought = then.map(|then| (now, then.finished));
        self.was_seen = false;
    }

    /// A look every now and then, while there are connections: the kernel counts no request as under way once it is to be sent
    /// again.
    pub(super) fn look(&mut self, progress: Option<Progress>) {
        self.was_seen = true;
        let waits = |(_, finished): &(Instant, u64)| {
            progress.is_some_and(|progress| progress.under_way > 0 && progress.finished == *finished)
        };
        self.brought = self.brought.filter(waits);
    }

    /// Connections are lost: whether those that were brought last have had as long as an answer may take, and nothing has
    /// finished by them. (What is lost sooner was closed there: a daemon that is started again, and again.)
    pub(super) fn is_in_vain(&self, now: Instant, progress: Option<Progress>, answer: Option<Duration>) -> bool {
        let (Some((since, finished)), Some(progress), Some(answer)) = (self.brought, progress, answer) else {
            return false;
        };
        self.was_seen && progress.finished == finished && now.duration_since(since) >= answer
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
}
