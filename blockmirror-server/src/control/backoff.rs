//! How long to wait before the next attempt to reach a peer.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Before the second attempt.
const FIRST: Duration = Duration::from_millis(100);
/// Before any attempt, jitter aside.
const LONGEST: Duration = Duration::from_secs(5);
/// The same for a partner: hosts may wait for it to be found again.
const LONGEST_FOR_PARTNER: Duration = Duration::from_secs(1);

/// The wait before attempt `attempt`: none before the first, then doubling from 100 ms to 5 s, each shortened by up to
/// a quarter (`jitter`: any number) so that peers do not come all at once.
pub(super) fn wait(attempt: u32, jitter: u64) -> Duration {
    up_to(LONGEST, attempt, jitter)
}

/// As [`wait`], up to 1 s.
pub(super) fn wait_for_partner(attempt: u32, jitter: u64) -> Duration {
    up_to(LONGEST_FOR_PARTNER, attempt, jitter)
}

fn up_to(longest: Duration, attempt: u32, jitter: u64) -> Duration {
    if attempt == 0 {
        return Duration::ZERO;
    }
    let doubled = FIRST.saturating_mul(1 << (attempt - 1).min(16));
    let full = doubled.min(longest);
    let quarter = u64::try_from(full.as_micros() / 4).unwrap_or(0);
    full - Duration::from_micros(jitter % (quarter + 1))
}

/// A number that differs from call to call.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_a_bound() {
        let waits: Vec<u128> = (0..9).map(|attempt| wait(attempt, 0).as_millis()).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(wait(u32::MAX, 0), LONGEST);
        let waits: Vec<u128> = (0..7).map(|attempt| wait_for_partner(attempt, 0).as_millis()).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn jitter_takes_a_quarter_at_most() {
        for attempt in 1..40 {
            let full = wait(attempt, 0);
            for jitter in [1, 7, 24_999, 25_000, u64::MAX] {
                let jittered = wait(attempt, jitter);
                assert!(
                    jittered <= full && jittered >= full * 3 / 4,
                    "{attempt} {jitter} {jittered:?}"
                );
            }
        }
        assert_ne!(wait(7, 1), wait(7, 2));
    }
}
