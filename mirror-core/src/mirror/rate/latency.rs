//! The application's write latency, with and without background traffic, as cheap histograms.

use core::time::Duration;

/// Buckets per doubling of the latency.
const PER_DOUBLING: u32 = 4;
/// Buckets, from a microsecond to beyond an hour.
const BUCKETS: usize = 32 * PER_DOUBLING as usize;
/// Samples of a judgement; fewer when they take longer to come than `PATIENCE`.
const SAMPLES: u32 = 64;
/// Samples that are worth judging at all.
const SAMPLES_MIN: u32 = 8;
/// A judgement is made after this time if there is anything to judge.
const PATIENCE: Duration = Duration::from_millis(500);
/// No sample for so long: nobody writes.
const IDLE: Duration = Duration::from_millis(100);
/// Samples kept of quiet times: then all counts are halved, and older ones fade.
const QUIET_MAX: u32 = 8192;
/// Added to what is tolerated: less than this is noise of any machine.
const NOISE_BUCKETS: usize = 1;
/// Below this many microseconds a difference does not matter.
const FAST: u64 = 64;

/// How the application fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// It does not write.
    Idle,
    /// It has begun to write, and nothing can be told yet.
    Stirring,
    /// It writes, and what it is used to is not known yet.
    Unknown,
    /// As without background traffic, nearly.
    Fine,
    /// Markedly slower.
    Hurt,
}

/// Both histograms, and what they say.
#[derive(Clone, Debug)]
pub(crate) struct Latency {
    quiet: Histogram,
    busy: Histogram,
    /// Background traffic goes on.
    background: bool,
    /// When the present window of `busy` began.
    since: Duration,
    /// When it wrote last.
    wrote_at: Option<Duration>,
    /// Background traffic was faster than its floor somewhere in the present window.
    tainted: bool,
    judgements: u64,
    pressure: Pressure,
}

impl Latency {
    pub(crate) fn new() -> Self {
        Self {
            quiet: Histogram::new(),
            busy: Histogram::new(),
            background: false,
            since: Duration::ZERO,
            wrote_at: None,
            tainted: false,
            judgements: 0,
            pressure: Pressure::Idle,
        }
    }

    /// Background traffic begins or ends.
    pub(crate) fn set_background(&mut self, now: Duration, background: bool) {
        if self.background != background {
            self.background = background;
            self.busy.clear();
            self.since = now;
            self.tainted = false;
            self.pressure = Pressure::Idle;
        }
    }

    /// A host write has come.
    pub(crate) fn stir(&mut self, now: Duration) {
        self.wrote_at = Some(now);
    }

    /// Nothing has been written lately.
    pub(crate) fn is_idle(&self, now: Duration) -> bool {
        self.wrote_at.is_none_or(|at| now.saturating_sub(at) >= IDLE)
    }

    /// A host write was answered after `took`.
    pub(crate) fn note(&mut self, took: Duration) {
        if self.background {
            self.busy.add(took);
        } else {
            self.quiet.add(took);
        }
    }

    /// Judge the present window if it is full. `at_floor`: background traffic is as slow as it may be, so what there is
    /// now is what the application has of its own.
    pub(crate) fn look(&mut self, now: Duration, at_floor: bool) {
        self.tainted |= !at_floor;
        let (elapsed, samples) = (now.saturating_sub(self.since), self.busy.total);
        let full = samples >= SAMPLES || (elapsed >= PATIENCE && samples >= SAMPLES_MIN);
        let silent = samples == 0 && self.wrote_at.is_none_or(|at| at < self.since);
        // One that has not been answered waits, behind the background traffic perhaps: that is no idleness.
        let few = 1..SAMPLES_MIN;
        let idle = elapsed >= IDLE && silent || elapsed >= 2 * PATIENCE && few.contains(&samples);
        if !full && !idle {
            return;
        }
        self.pressure = if idle {
            Pressure::Idle
        } else if self.quiet.total < SAMPLES_MIN {
            Pressure::Unknown
        } else if self.is_hurt() {
            Pressure::Hurt
        } else {
            Pressure::Fine
        };
        if full && !self.tainted {
            self.quiet.merge(&self.busy);
        }
        self.judgements += 1;
        self.busy.clear();
        self.since = now;
        self.tainted = !at_floor;
    }

    /// The number of the last judgement, and what it says. The first write after a pause counts at once: what is in
    /// flight when the others come is what they wait for.
    pub(crate) fn judgement(&self) -> (u64, Pressure) {
        let stirs = self.background && self.wrote_at.is_some_and(|at| at >= self.since);
        let pressure = match self.pressure {
            Pressure::Idle if stirs => Pressure::Stirring,
            judged => judged,
        };
        (self.judgements, pressure)
    }

    /// The upper quantile has grown by more than a half.
    fn is_hurt(&self) -> bool {
        let (quiet, busy) = (self.quiet.upper(), self.busy.upper());
        busy > quiet + 1 + NOISE_BUCKETS && busy > bucket(Duration::from_micros(FAST))
    }
}

#[derive(Clone, Debug)]
struct Histogram {
    counts: [u32; BUCKETS],
    total: u32,
}

impl Histogram {
    fn new() -> Self {
        Self {
            counts: [0; BUCKETS],
            total: 0,
        }
    }

    fn clear(&mut self) {
        if self.total > 0 {
            *self = Self::new();
        }
    }

    fn add(&mut self, took: Duration) {
        self.counts[bucket(took)] += 1;
        self.total += 1;
        self.fade();
    }

    fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.fade();
    }

    fn fade(&mut self) {
        if self.total > QUIET_MAX {
            self.total = 0;
            for count in &mut self.counts {
                *count /= 2;
                self.total += *count;
            }
        }
    }

    /// The bucket of the 97th percentile: of 64 samples the second slowest, so that one straggler is not a judgement.
    fn upper(&self) -> usize {
        let mut above = self.total * 3 / 100 + u32::from(self.total >= SAMPLES_MIN);
        for (at, &count) in self.counts.iter().enumerate().rev() {
            if count > above {
                return at;
            }
            above -= count;
        }
        0
    }
}

/// Four buckets per doubling.
fn bucket(took: Duration) -> usize {
    let micros = (took.as_micros() as u64).max(1);
    let doublings = micros.ilog2();
    let rest = if doublings >= 2 {
        (micros >> (doublings - 2)) & 3
    } else {
        (micros << (2 - doublings)) & 3
    };
    ((doublings * PER_DOUBLING) as usize + rest as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(latency: &mut Latency, count: u32, micros: u64) {
        for _ in 0..count {
            latency.note(Duration::from_micros(micros));
        }
    }

    #[test]
    fn buckets_grow_with_the_latency_and_are_a_fifth_apart() {
        let mut last = 0;
        for micros in 1..100_000 {
            let at = bucket(Duration::from_micros(micros));
            assert!(at >= last, "{micros}");
            last = at;
        }
        assert_eq!(
            bucket(Duration::from_micros(8000)) - bucket(Duration::from_micros(4000)),
            4
        );
        assert_eq!(bucket(Duration::from_secs(1 << 40)), BUCKETS - 1);
    }

    #[test]
    fn twice_as_slow_is_hurt_and_one_straggler_is_not() {
        let mut latency = Latency::new();
        feed(&mut latency, 1000, 500);
        latency.set_background(Duration::from_secs(1), true);
        feed(&mut latency, 63, 500);
        feed(&mut latency, 1, 90_000);
        latency.look(Duration::from_millis(1010), false);
        assert_eq!(latency.judgement(), (1, Pressure::Fine));
        feed(&mut latency, 50, 500);
        feed(&mut latency, 14, 1100);
        latency.look(Duration::from_millis(1020), false);
        assert_eq!(latency.judgement(), (2, Pressure::Hurt));
        latency.look(Duration::from_millis(1200), false);
        assert_eq!(latency.judgement(), (3, Pressure::Idle));
    }

    #[test]
    fn a_write_that_waits_for_its_answer_is_no_idleness() {
        let mut latency = Latency::new();
        latency.set_background(Duration::ZERO, true);
        latency.look(Duration::from_millis(200), false);
        assert_eq!(latency.judgement(), (1, Pressure::Idle));
        latency.stir(Duration::from_millis(300));
        for ms in [400, 1300, 5000, 30_000] {
            latency.look(Duration::from_millis(ms), false);
            assert_eq!(latency.judgement(), (1, Pressure::Stirring), "{ms} ms");
        }
        latency.note(Duration::from_secs(30));
        latency.look(Duration::from_millis(30_300), false);
        assert_eq!(latency.judgement(), (2, Pressure::Idle));
    }

    #[test]
    fn a_slower_application_at_the_floor_is_what_it_has_of_its_own() {
        let mut latency = Latency::new();
        feed(&mut latency, 100, 100);
        latency.set_background(Duration::ZERO, true);
        let mut judged = [Pressure::Idle; 200];
        for (at, pressure) in judged.iter_mut().enumerate() {
            feed(&mut latency, 64, 1000);
            latency.look(Duration::from_millis(at as u64), true);
            *pressure = latency.judgement().1;
        }
        assert_eq!((judged[0], judged[199]), (Pressure::Hurt, Pressure::Fine));
    }
}
