//! How fast resync, fetch and verify go: as fast as link and disks let them while the application does not feel it.
//!
//! Bytes are asked for out of a bucket that fills at the rate *allowed*. Every tick the rate is looked at again:
//!
//! ```text
//!  nobody writes          x2      the link or a disk ends it: then it stays near what was delivered
//!  somebody begins to             what was delivered, with no more in flight than that takes, until it is known
//!  the application: fine  x5/4 up to near where it last hurt, x33/32 beyond, so that the place is found again gently
//!  the application: hurt  x1/2 of what was delivered, and no growth for a while
//! ```
//! Never below the floor, never above the cap. Where nobody writes when it begins, it begins with as much as comes back:
//! there is nobody to be careful for. All integers, time only as an argument: the same story every time.

pub(crate) mod eta;
pub(crate) mod latency;

#[cfg(test)]
mod tests;

use core::time::Duration;

use crate::config::{
    COPY_BYTES_MIN, COPY_BYTES_SLOW, RESYNC_FLIGHT_BYTES, RESYNC_WINDOW, RESYNC_WINDOW_SLOW, ResyncRate,
};
use latency::{Latency, Pressure};

/// The rate is looked at this often.
const TICK: Duration = Duration::from_millis(100);
/// Bytes that may be asked for at once at the start: a short resync is over before there is anything to tune.
const BURST: u64 = 4 << 20;
/// What is asked for per second at first while nobody writes: what is in flight is the bound then, and the first look at
/// what was delivered.
const EAGER: u64 = 2 << 30;
/// Ticks without growth after the application was hurt.
const HOLD_TICKS: u32 = 5;
/// After so many ticks it is forgotten where it hurt: the application may be another by then.
const MEMORY_TICKS: u32 = 300;
/// The rate allowed never exceeds this.
const RATE_MAX: u64 = 64 << 30;
/// No wait for the bucket is shorter.
const NAP_MIN: Duration = Duration::from_millis(1);

/// What keeps resync from being faster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Limit {
    /// It is still finding out.
    #[default]
    Probing,
    /// The link, or a disk: everything allowed is asked for, and it comes as it can.
    Transport,
    /// The application's latency.
    Application,
    /// The configured cap.
    Cap,
}

/// The controller of one peer's background traffic.
#[derive(Clone, Debug)]
pub(crate) struct Rate {
    limits: ResyncRate,
    /// Bytes per second.
    allowed: u64,
    /// Bytes that may be asked for; below zero after a large request.
    tokens: i64,
    filled_at: Duration,
    ticked_at: Duration,
    /// Bytes that ended since the last tick.
    ended: u64,
    /// The bucket was empty, or the window of a busy application full, since the last tick: the rate is the limit.
    held_back: bool,
    /// Bytes per second that ended lately.
    delivered: u64,
    /// Shortest time a request took lately.
    round_trip: Option<Duration>,
    /// Where it hurt last, and how many ticks ago.
    ceiling: Option<(u64, u32)>,
    hold: u32,
    /// The last judgement of the application's latency that was taken into account.
    judged: u64,
    pressure: Pressure,
    limit: Limit,
}

impl Rate {
    pub(crate) fn new(limits: ResyncRate) -> Self {
        Self {
            limits,
            allowed: limits.floor.max(1),
            tokens: 0,
            filled_at: Duration::ZERO,
            ticked_at: Duration::ZERO,
            ended: 0,
            held_back: false,
            delivered: 0,
            round_trip: None,
            ceiling: None,
            hold: 0,
            judged: 0,
            pressure: Pressure::Idle,
            limit: Limit::Probing,
        }
    }

    /// A pass begins. What was learned in an earlier one does not count: link and application may be others.
    pub(crate) fn start(&mut self, now: Duration, latency: &Latency) {
        let burst = BURST.max(self.limits.floor / 10);
        let slow = Self::new(self.limits);
        *self = Self {
            allowed: if latency.is_idle(now) {
                slow.allowed.max(EAGER)
            } else {
                slow.allowed
            },
            tokens: if self.limits.cap > 0 {
                burst.min(self.limits.cap)
            } else {
                burst
            } as i64,
            filled_at: now,
            ticked_at: now,
            judged: latency.judgement().0,
            ..slow
        };
        self.clamp();
    }

    /// May a request be asked for, while `in_flight` bytes are? True: `length` bytes are taken out of the bucket.
    pub(crate) fn take(&mut self, now: Duration, in_flight: u64, length: u64) -> bool {
        self.fill(now);
        if self.tokens <= 0 {
            self.held_back = true;
            return false;
        }
        if in_flight > 0 && in_flight + length > self.window() {
            self.held_back |= self.pressure != Pressure::Idle;
            return false;
        }
        self.tokens -= length as i64;
        true
    }

    /// A request ended after `took`; `moved` of its `length` bytes cost the link or a disk something, the rest were
    /// holes.
    pub(crate) fn ended(&mut self, length: u64, moved: u64, took: Duration) {
        let free = length.saturating_sub(moved);
        self.tokens = self.tokens.saturating_add(free as i64);
        self.ended += moved;
        if free == 0 {
            // Slowly up, so that a link that has become longer is noticed; but not by what waits behind our own.
            let slack = if self.pressure == Pressure::Idle { 0 } else { 64 };
            let known = self
                .round_trip
                .map_or(took, |known| known + known.checked_div(slack).unwrap_or_default());
            self.round_trip = Some(known.min(took).max(Duration::from_micros(1)));
        }
    }

    /// Look at the rate again, if it is time to.
    pub(crate) fn tick(&mut self, now: Duration, latency: &Latency) {
        if self.pressure == Pressure::Idle && latency.judgement().1 == Pressure::Stirring {
            self.make_room();
        }
        let elapsed = now.saturating_sub(self.ticked_at);
        if elapsed < TICK {
            return;
        }
        let delivered = per_second(core::mem::take(&mut self.ended), elapsed);
        self.delivered = if self.delivered == 0 {
            delivered
        } else {
            (self.delivered * 3 + delivered) / 4
        };
        self.ticked_at = now;
        let held_back = core::mem::take(&mut self.held_back);
        let (number, pressure) = latency.judgement();
        let news = number != self.judged;
        (self.judged, self.pressure) = (number, pressure);
        if let Some((_, age)) = &mut self.ceiling {
            *age += 1;
        }
        self.ceiling = self.ceiling.filter(|&(_, age)| age < MEMORY_TICKS);
        self.hold = self.hold.saturating_sub(1);
        match pressure {
            Pressure::Hurt if news => self.back_off(),
            Pressure::Hurt | Pressure::Stirring => {}
            Pressure::Unknown => {
                // What it is used to shows at the floor.
                self.allowed = self.limits.floor;
                self.limit = Limit::Probing;
            }
            _ if !held_back => self.follow(),
            Pressure::Idle => self.grow(2, 1),
            Pressure::Fine if news && self.hold == 0 => self.creep(),
            Pressure::Fine => {}
        }
        self.clamp();
    }

    /// Bytes of one request at this rate: small ones while the application would wait behind them.
    pub(crate) fn step(&self) -> u64 {
        let busy = self.pressure != Pressure::Idle;
        if busy && self.allowed < 32 * COPY_BYTES_MIN {
            COPY_BYTES_SLOW
        } else {
            COPY_BYTES_MIN
        }
    }

    /// Requests in flight at most.
    pub(crate) fn requests(&self) -> usize {
        if self.pressure == Pressure::Idle {
            RESYNC_WINDOW
        } else {
            RESYNC_WINDOW_SLOW
        }
    }

    /// Bytes in flight at most: all that is allowed while nobody else wants the link, else what keeps it busy.
    pub(crate) fn window(&self) -> u64 {
        let needed = match (self.pressure, self.round_trip) {
            (Pressure::Idle, _) => RESYNC_FLIGHT_BYTES,
            (_, Some(time)) => (u128::from(self.allowed) * time.as_micros() * 2 / 1_000_000) as u64,
            (_, None) => 0,
        };
        needed.clamp(2 * COPY_BYTES_SLOW, RESYNC_FLIGHT_BYTES)
    }

    /// When the bucket lets the next request out; `None`: now.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        if self.tokens > 0 {
            return None;
        }
        let micros = u128::from(self.tokens.unsigned_abs() + 1) * 1_000_000 / u128::from(self.allowed);
        Some(self.filled_at + Duration::from_micros(micros as u64).max(NAP_MIN))
    }

    /// Bytes per second it asks for at most.
    pub(crate) fn allowed(&self) -> u64 {
        self.allowed
    }

    /// What keeps it from being faster.
    pub(crate) fn limit(&self) -> Limit {
        self.limit
    }

    /// As slow as it may be, with `in_flight` bytes: what the application's latency is now is not its doing.
    pub(crate) fn is_at_floor(&self, in_flight: u64) -> bool {
        self.allowed <= self.limits.floor && in_flight <= self.window()
    }

    fn fill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.filled_at);
        let earned = (u128::from(self.allowed) * elapsed.as_micros() / 1_000_000) as u64;
        if earned == 0 {
            return;
        }
        self.filled_at = now;
        let most = (self.allowed / 10).max(COPY_BYTES_MIN) as i64;
        if self.tokens < most {
            self.tokens = self.tokens.saturating_add(earned as i64).min(most);
        }
    }

    fn back_off(&mut self) {
        let at = self.allowed.min(self.delivered.max(self.limits.floor));
        self.ceiling = Some((at, 0));
        self.allowed = at / 2;
        self.hold = HOLD_TICKS;
        self.limit = Limit::Application;
    }

    /// Somebody begins to write: no more than what comes back, so that nothing piles up in front of them.
    fn make_room(&mut self) {
        self.pressure = Pressure::Stirring;
        self.allowed = self.allowed.min(self.delivered);
        self.limit = Limit::Probing;
        self.clamp();
    }

    /// Link or disks are the limit: stay in reach of what they deliver, so that backing off bites at once.
    fn follow(&mut self) {
        self.allowed = self.allowed.min((self.delivered * 2).max(BURST * 8));
        self.limit = Limit::Transport;
    }

    fn creep(&mut self) {
        match self.ceiling {
            Some((at, _)) if self.allowed + self.allowed / 4 > at - at / 8 => {
                self.grow(33, 32);
                self.limit = Limit::Application;
            }
            _ => self.grow(5, 4),
        }
    }

    fn grow(&mut self, times: u64, over: u64) {
        self.allowed = (self.allowed / over).saturating_mul(times).max(self.allowed + 1);
        self.limit = Limit::Probing;
    }

    fn clamp(&mut self) {
        let cap = if self.limits.cap > 0 { self.limits.cap } else { RATE_MAX };
        if self.allowed >= cap {
            self.limit = Limit::Cap;
        }
        self.allowed = self.allowed.clamp(self.limits.floor.clamp(1, cap), cap);
        // What was saved up at a higher rate does not count.
        self.tokens = self.tokens.min((self.allowed / 10).max(BURST) as i64);
    }
}

fn per_second(bytes: u64, elapsed: Duration) -> u64 {
    let micros = elapsed.as_micros().max(1);
    (u128::from(bytes) * 1_000_000 / micros) as u64
}
