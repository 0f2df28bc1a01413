//! When it will be over: what is left, by how fast it became less lately.

use alloc::collections::VecDeque;
use core::time::Duration;

/// Points of the sliding window.
const POINTS: usize = 32;
/// Their distance.
const DISTANCE: Duration = Duration::from_millis(500);

/// How much was left when. What became dirty meanwhile makes what is left grow, and so the estimate: it is not an
/// average of the past but a net speed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Eta {
    points: VecDeque<(Duration, u64)>,
}

impl Eta {
    /// A pass begins with this much left.
    pub(crate) fn start(&mut self, now: Duration, left: u64) {
        self.points.clear();
        self.points.push_back((now, left));
    }

    /// This much is left now.
    pub(crate) fn note(&mut self, now: Duration, left: u64) {
        let recent = |&(at, _): &(Duration, u64)| now.saturating_sub(at) < DISTANCE;
        if self.points.back().is_some_and(recent) {
            return;
        }
        if self.points.len() == POINTS {
            self.points.pop_front();
        }
        self.points.push_back((now, left));
    }

    /// Bytes per second by which what is left has shrunk over the window, up to now.
    pub(crate) fn speed(&self, now: Duration, left: u64) -> Option<u64> {
        let &(at, before) = self.points.front()?;
        let micros = now.saturating_sub(at).as_micros();
        if micros == 0 {
            return None;
        }
        Some((u128::from(before.saturating_sub(left)) * 1_000_000 / micros) as u64)
    }

    /// How long the rest will take at that speed; `None`: it does not become less.
    pub(crate) fn rest(&self, now: Duration, left: u64) -> Option<Duration> {
        let speed = self.speed(now, left).filter(|&speed| speed > 0)?;
        Some(Duration::from_micros(
            (u128::from(left) * 1_000_000 / u128::from(speed)).min(u128::from(u64::MAX)) as u64,
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn on_a_steady_link_it_is_right_after_a_tenth() {
        let total = 100 << 30;
        let speed = 110 << 20;
        let mut eta = Eta::default();
        eta.start(Duration::ZERO, total);
        let whole = total / speed;
        for second in 1..whole {
            let now = Duration::from_secs(second);
            // What was copied counts in lumps, when a flush has covered it.
            let left = total - speed * second / (64 << 20) * (64 << 20);
            eta.note(now, left);
            if second * 10 > whole && left > total / 50 {
                let (said, truth) = (eta.rest(now, left).unwrap().as_secs(), whole - second);
                assert!(said.abs_diff(truth) * 5 <= truth, "{second}: {said} for {truth}");
            }
        }
    }

    #[test]
    fn what_becomes_dirty_meanwhile_counts() {
        let mut eta = Eta::default();
        eta.start(Duration::ZERO, 1000);
        eta.note(Duration::from_secs(1), 1000);
        assert_eq!(eta.rest(Duration::from_secs(1), 1000), None, "it does not become less");
        assert_eq!(eta.rest(Duration::from_secs(2), 900), Some(Duration::from_secs(18)));
    }
}
