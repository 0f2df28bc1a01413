//! Is the peer there, and what has it told us that it has asked: heartbeats.

use std::time::Duration;

use mirror_core::resource::event::Loss;
use mirror_core::stream::Control;

/// Host writes and flushes that passed on a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Payload bytes of host writes.
    pub(crate) bytes: u64,
    /// Host flushes: Flush and Barrier.
    pub(crate) flushes: u64,
}

/// The life of a connection, both ends of it.
///
/// A peer is lost when nothing at all came from it for `dead_after`, or when it lets our heartbeats go without an echo
/// for as long while nothing else shows that what we send arrives: behind a deep queue on a slow link an echo may take
/// longer than that, and is no sign of death.
#[derive(Debug)]
pub(super) struct Life {
    heartbeat: Duration,
    dead_after: Duration,
    /// When something came.
    heard: Duration,
    /// When something showed that what we send arrives.
    arrives: Duration,
    /// When the oldest heartbeat without an echo was sent.
    unechoed: Option<Duration>,
    /// The clock of the peer's last heartbeat, to be sent back.
    echo: Option<u64>,
    next_beat: Duration,
    checked: Duration,
    round_trip: Option<Duration>,
    lag: Duration,
    asked: Passed,
}

/// A peer that has shown within this time that it hears us has not given us up for silence.
const HEARD_OF_LATE: Duration = Duration::from_secs(1);

/// What `check` finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    Fine,
    /// A heartbeat is due.
    Beat,
    /// Nothing came for this long.
    Silent(Duration),
    /// Heartbeats are without an echo for this long.
    Unanswered(Duration),
}

impl Life {
    pub(super) fn new(now: Duration, heartbeat: Duration, dead_after: Duration) -> Self {
        Self {
            heartbeat,
            dead_after,
            heard: now,
            arrives: now,
            unechoed: None,
            echo: None,
            next_beat: now,
            checked: now,
            round_trip: None,
            lag: Duration::ZERO,
            asked: Passed::default(),
        }
    }

    /// Something came from the peer.
    pub(super) fn hear(&mut self, now: Duration) {
        self.heard = now;
    }

    /// Something shows that what we send arrives: an answer, a credit, room in the socket.
    pub(super) fn arrives(&mut self, now: Duration) {
        self.arrives = now;
    }

    pub(super) fn heard(&self) -> Duration {
        self.heard
    }

    /// Something has shown of late that what we send arrives: the peer cannot take us for silent.
    pub(super) fn is_heard(&self, now: Duration) -> bool {
        now.saturating_sub(self.arrives) < HEARD_OF_LATE
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// A heartbeat, an echo or a credit came. False: none of these.
    pub(super) fn on_control(&mut self, now: Duration, control: &Control) -> bool {
        match *control {
            Control::Heartbeat {
                sent_us,
                lag_us,
                bytes,
                flushes,
                ..
            } => {
                self.echo = Some(sent_us);
                self.lag = Duration::from_micros(lag_us);
                self.asked = Passed { bytes, flushes };
            }
            Control::HeartbeatAck { sent_us } => {
                let sent = Duration::from_micros(sent_us);
                // A number that is no time of ours says nothing.
                if let Some(round_trip) = now.checked_sub(sent) {
                    self.round_trip = Some(round_trip);
                    self.unechoed = self.unechoed.filter(|&unechoed| micros(unechoed) > sent_us);
                    self.arrives = now;
                }
            }
            _ => return false,
        }
        true
    }

    /// The echo that is owed.
    pub(super) fn take_echo(&mut self) -> Option<u64> {
        self.echo.take()
    }

    /// A heartbeat with this clock is sent now.
    pub(super) fn beat(&mut self, now: Duration) -> u64 {
        self.next_beat = now + self.heartbeat;
        self.unechoed.get_or_insert(now);
        micros(now)
    }

    pub(super) fn check(&mut self, now: Duration) -> Pulse {
        let since_checked = now.saturating_sub(self.checked);
        self.checked = now;
        if since_checked >= self.dead_after {
            // It was this node that did not look: what came meanwhile has not been received yet.
            self.heard = now;
            self.arrives = now;
        }
        let silence = now.saturating_sub(self.heard);
        if silence >= self.dead_after {
            return Pulse::Silent(silence);
        }
        let unanswered = now.saturating_sub(self.arrives.max(self.unechoed.unwrap_or(now)));
        if unanswered >= self.dead_after {
            return Pulse::Unanswered(unanswered);
        }
        if now >= self.next_beat {
            Pulse::Beat
        } else {
            Pulse::Fine
        }
    }

    pub(super) fn next_timeout(&self) -> Duration {
        self.next_beat.min(self.heard + self.dead_after)
    }

    /// What is missing here of what the peer is known to have asked, when its connection ends: `received` less
    /// `dropped` (received, and never started) is what arrived.
    pub(super) fn loss(&self, received: Passed, dropped: Passed) -> Loss {
        // The last heartbeat may be older than what came after it.
        let asked = Passed {
            bytes: self.asked.bytes.max(received.bytes),
            flushes: self.asked.flushes.max(received.flushes),
        };
        let bytes = asked.bytes - received.bytes.saturating_sub(dropped.bytes);
        let flushes = asked.flushes - received.flushes.saturating_sub(dropped.flushes);
        let missing = bytes > 0 || flushes > 0;
        Loss {
            age: if missing { self.lag } else { Duration::ZERO },
            bytes,
            flushes,
            ..Loss::default()
        }
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn life() -> Life {
        Life::new(at(0), at(500), at(3000))
    }

    /// Looks every 250 ms, beats when it is time; `each` lets things happen before each look.
    fn live(life: &mut Life, from: u64, to: u64, mut each: impl FnMut(&mut Life, u64)) -> Option<(u64, Pulse)> {
        for ms in (from..=to).step_by(250) {
            each(life, ms);
            match life.check(at(ms)) {
                Pulse::Fine => {}
                Pulse::Beat => drop(life.beat(at(ms))),
                lost => return Some((ms, lost)),
            }
        }
        None
    }

    #[test]
    fn a_peer_that_says_nothing_is_lost_in_time() {
        let lost = live(&mut life(), 0, 10_000, |_, _| {});
        assert_eq!(lost, Some((3000, Pulse::Silent(at(3000)))));
    }

    #[test]
    fn a_peer_that_talks_and_does_not_answer_is_lost_in_time() {
        let lost = live(&mut life(), 0, 10_000, |life, ms| life.hear(at(ms)));
        assert_eq!(lost, Some((3000, Pulse::Unanswered(at(3000)))));
    }

    #[test]
    fn echoes_keep_it_alive_and_so_does_a_long_queue_that_moves() {
        let echoed = live(&mut life(), 0, 20_000, |life, ms| {
            life.hear(at(ms));
            life.on_control(at(ms), &Control::HeartbeatAck { sent_us: ms * 1000 });
        });
        assert_eq!(echoed, None);
        let moving = live(&mut life(), 0, 20_000, |life, ms| {
            life.hear(at(ms));
            if ms % 2000 == 0 {
                life.arrives(at(ms));
            }
        });
        assert_eq!(moving, None);
    }

    #[test]
    fn an_echo_of_an_earlier_heartbeat_does_not_stand_for_the_later_one() {
        let mut life = life();
        life.beat(at(0));
        life.on_control(at(10), &Control::HeartbeatAck { sent_us: 0 });
        assert_eq!((life.unechoed, life.round_trip), (None, Some(at(10))));
        life.beat(at(500));
        life.on_control(at(600), &Control::HeartbeatAck { sent_us: 0 });
        assert_eq!(life.unechoed, Some(at(500)));
        life.on_control(at(700), &Control::HeartbeatAck { sent_us: u64::MAX });
        assert_eq!((life.unechoed, life.round_trip), (Some(at(500)), Some(at(600))));
    }

    #[test]
    fn a_node_that_was_stopped_does_not_blame_its_peer() {
        let mut life = life();
        assert_eq!(life.check(at(0)), Pulse::Beat);
        assert_eq!(life.check(at(60_000)), Pulse::Beat);
        assert!(live(&mut life, 60_250, 62_750, |_, _| {}).is_none());
        assert_eq!(life.check(at(63_000)), Pulse::Silent(at(3000)));
    }

    #[test]
    fn the_loss_is_what_was_asked_and_neither_came_nor_was_started() {
        let mut life = life();
        let passed = |bytes, flushes| Passed { bytes, flushes };
        assert_eq!(life.loss(passed(0, 0), passed(0, 0)), Loss::default());
        let heartbeat = Control::Heartbeat {
            sent_us: 1,
            lag_us: 7_000_000,
            bytes: 1000,
            flushes: 5,
            head: 12,
        };
        assert!(life.on_control(at(100), &heartbeat));
        assert_eq!(life.take_echo(), Some(1));
        let missing = life.loss(passed(600, 5), passed(0, 0));
        assert_eq!((missing.bytes, missing.flushes, missing.age), (400, 0, at(7000)));
        let unstarted = life.loss(passed(1200, 6), passed(100, 1));
        assert_eq!((unstarted.bytes, unstarted.flushes), (100, 1));
        assert_eq!(life.loss(passed(1200, 6), passed(0, 0)), Loss::default());
    }
}
