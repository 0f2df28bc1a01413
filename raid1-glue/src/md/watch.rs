//! What a watch tells of two looks at an array, and when it tries again what did not work.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::heal::Step;
use super::report::Report;
use super::sysfs::Standing;

/// Between attempts: at first,
const AGAIN_FIRST: Duration = Duration::from_secs(1);
/// and at last, after doubling.
const AGAIN_LONGEST: Duration = Duration::from_secs(30);
/// A leg that has lived so long again has not been brought back in vain.
const STEADY: Duration = Duration::from_secs(60);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The array serves.
    Running,
    /// It does not, any more or yet.
    NotRunning {
        /// Why it is thought so.
        why: String,
    },
    /// md has given the leg up.
    LegFailed {
        /// Its device.
        device: String,
    },
    /// The leg is no part of the array.
    LegAbsent {
        /// Its device.
        device: String,
    },
    /// The local leg is not in sync: data is read over the network.
    LocalFailed {
        /// Its device.
        device: String,
    },
    /// The leg is copied to.
    Recovering {
        /// What is to be copied, at most, as far as the bitmap knows.
        dirty_bytes: u64,
    },
    /// Both legs have everything.
    InSync,
    /// The leg has been brought back, and has everything.
    Healed {
        /// What was written to it meanwhile.
        copied_bytes: u64,
        /// How long it took.
        milliseconds: u64,
    },
    /// Nobody brings the leg's device new connections.
    AgentGone {
        /// Its device.
        device: String,
    },
    /// Something was done about the leg.
    Did {
        /// What.
        step: String,
    },
    /// Something could not be done, and is tried again.
    Trouble {
        /// What, and why.
        error: String,
    },
    /// An operator is needed.
    Asks {
        /// For what.
        what: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("the array runs"),
            Self::NotRunning { why } => f.write_str(why),
            Self::LegFailed { device } => write!(f, "the leg {device} has failed; the array goes on without it"),
            Self::LegAbsent { device } => write!(f, "the array goes on without its leg {device}"),
            Self::LocalFailed { device } => write!(
                f,
                "the local leg {device} is not in sync: data come over the network; replace it, and add it with mdadm"
            ),
            Self::Recovering { dirty_bytes } => {
                write!(f, "the leg is copied to: {dirty_bytes} bytes have changed at most")
            }
            Self::InSync => f.write_str("both legs have everything"),
            Self::Healed {
                copied_bytes,
                milliseconds,
            } => write!(
                f,
                "the leg is back and has everything: {copied_bytes} bytes written to it, in {milliseconds} ms"
            ),
            Self::AgentGone { device } => write!(f, "nobody keeps {device} attached: it will not survive its next cut"),
            Self::Did { step } => f.write_str(step),
            Self::Trouble { error } => write!(f, "tried again: {error}"),
            Self::Asks { what } => f.write_str(what),
        }
    }
}

/// What is new since the look before; of a first look, all that is not as it should be.
pub fn changes(before: Option<&Report>, now: &Report) -> Vec<Event> {
    let mut events = Vec::new();
    if before.map(|before| before.is_running) != Some(now.is_running) {
        events.push(match &now.problem {
            Some(why) => Event::NotRunning { why: why.clone() },
            None => Event::Running,
        });
    }
    if !now.is_running {
        return events;
    }
    let before = before.filter(|before| before.is_running);
    let local = |report: &Report| report.local.standing == Some(Standing::InSync);
    if !local(now) && before.is_none_or(local) {
        let device = now.local.device.clone();
        events.push(Event::LocalFailed { device });
    }
    if before.map(|before| before.leg.standing) != Some(now.leg.standing) {
        events.push(of_leg(now));
    }
    let kept = |report: &Report| report.agent.is_some() || report.leg.standing.is_none();
    if !kept(now) && before.is_none_or(kept) {
        let device = now.leg.device.clone();
        events.push(Event::AgentGone { device });
    }
    events
}

fn of_leg(now: &Report) -> Event {
    let device = now.leg.device.clone();
    match now.leg.standing {
        Some(Standing::Faulty) => Event::LegFailed { device },
        None => Event::LegAbsent { device },
        Some(Standing::Syncing) => Event::Recovering {
            dirty_bytes: now.bitmap.as_ref().map_or(0, |bitmap| bitmap.dirty_bytes),
        },
        Some(Standing::InSync) => Event::InSync,
    }
}

/// What is said of a step; `None`: nothing, or it has been said.
pub fn told_of(step: Step) -> Option<Event> {
    match step {
        Step::Nothing | Step::Wait => None,
        Step::AskBeforeCopyingWhole => Some(Event::Asks { what: step.to_string() }),
        step => Some(Event::Did { step: step.to_string() }),
    }
}

/// When to try again.
#[derive(Debug)]
pub struct Backoff {
    pause: Duration,
    at: Option<Instant>,
    healed: Option<Instant>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            pause: AGAIN_FIRST,
            at: None,
            healed: None,
        }
    }
}

impl Backoff {
    /// Whether it is time.
    pub fn is_due(&self, now: Instant) -> bool {
        self.at.is_none_or(|at| at <= now)
    }

    /// How long it is until then.
    pub fn left(&self, now: Instant) -> Duration {
        self.at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    /// It did not work.
    pub fn failed(&mut self, now: Instant) {
        self.at = Some(now + self.pause);
        self.pause = (self.pause * 2).min(AGAIN_LONGEST);
    }

    /// The leg is in sync.
    pub fn healed(&mut self, now: Instant) {
        self.at = None;
        self.healed = Some(now);
    }

    /// The leg has failed: at once, when it has lived for a while; later, when it comes and goes.
    pub fn leg_failed(&mut self, now: Instant) {
        match self.healed.take() {
            Some(healed) if now.saturating_duration_since(healed) < STEADY => self.failed(now),
            _ => *self = Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::md::heal::DeviceState;
    use crate::md::scene::{Scene, UUID};

    fn looks() -> (Scene, impl Fn(&Scene, Option<&str>, Option<u32>) -> Report) {
        let scene = Scene::new();
        scene.mdadm(&format!(
            "case $1 in --detail) echo MD_UUID={UUID};;
             *) echo 'Chunksize : 4 MB'; echo 'Bitmap : 16 bits (chunks), 3 dirty (18.8%)';; esac"
        ));
        let look = |scene: &Scene, leg: Option<&str>, agent| {
            scene.array(leg);
            scene
                .machine()
                .report("data", &scene.record(), DeviceState::Alive, agent)
        };
        (scene, look)
    }

    #[test]
    fn what_happens_is_told_once() {
        let (scene, look) = looks();
        let (good, agent) = (Some("in_sync,write_mostly\n"), Some(1));
        let device = || "/dev/nbd0".to_owned();
        let mut before = look(&scene, good, agent);
        assert_eq!(changes(None, &before), [Event::Running, Event::InSync]);
        for (leg, agent, expected) in [
            (good, agent, vec![]),
            (good, None, vec![Event::AgentGone { device: device() }]),
            (good, None, vec![]),
            (
                Some("faulty,write_mostly\n"),
                None,
                vec![Event::LegFailed { device: device() }],
            ),
            (None, None, vec![Event::LegAbsent { device: device() }]),
            (
                Some("spare,write_mostly\n"),
                agent,
                vec![Event::Recovering { dirty_bytes: 12 << 20 }],
            ),
            (good, agent, vec![Event::InSync]),
        ] {
            let now = look(&scene, leg, agent);
            assert_eq!(changes(Some(&before), &now), expected);
            before = now;
        }
        // A first copy, in which md calls both legs in sync.
        scene.array(good);
        scene.put("md0/md", &[("sync_action", "resync\n")]);
        let first = scene
            .machine()
            .report("data", &scene.record(), DeviceState::Alive, agent);
        let copied = Event::Recovering { dirty_bytes: 12 << 20 };
        assert_eq!(changes(None, &first), [Event::Running, copied]);
        scene.put("md0/md", &[("sync_action", "idle\n")]);
        scene.put("md0/md/dev-vda", &[("state", "faulty\n")]);
        let now = scene
            .machine()
            .report("data", &scene.record(), DeviceState::Alive, agent);
        let device = "/dev/vda".to_owned();
        assert_eq!(changes(Some(&before), &now), [Event::LocalFailed { device }]);
        scene.mdadm("exit 1");
        let gone = scene
            .machine()
            .report("data", &scene.record(), DeviceState::Alive, agent);
        let events = changes(Some(&now), &gone);
        assert!(matches!(events.as_slice(), [Event::NotRunning { .. }]), "{events:?}");
        assert_eq!(changes(Some(&gone), &gone), []);
    }

    #[test]
    fn steps_are_told_when_they_are_steps() {
        assert_eq!(told_of(Step::Nothing), None);
        assert_eq!(told_of(Step::Wait), None);
        assert!(matches!(told_of(Step::ReAdd), Some(Event::Did { .. })));
        assert!(matches!(told_of(Step::AskBeforeCopyingWhole), Some(Event::Asks { .. })));
    }

    #[test]
    fn attempts_become_rare_and_a_leg_that_lived_is_brought_back_at_once() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        assert!(backoff.is_due(start));
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..7 {
            backoff.failed(now);
            pauses.push(backoff.left(now).as_secs());
            assert!(!backoff.is_due(now));
            now += backoff.left(now);
            assert!(backoff.is_due(now));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        // It comes and goes: the pause stays.
        backoff.healed(now);
        backoff.leg_failed(now + Duration::from_secs(5));
        assert!(!backoff.is_due(now + Duration::from_secs(5)));
        // It lives for a while: at once.
        now += Duration::from_secs(40);
        backoff.healed(now);
        backoff.leg_failed(now + STEADY);
        assert!(backoff.is_due(now + STEADY));
    }
}
