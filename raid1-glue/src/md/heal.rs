//! What has to be done about a leg, decided from what is seen of it: one step at a time, until there is none.

use std::fmt;

use serde::Serialize;

use super::sysfs::Standing;

/// What is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What the leg is to the array; `None`: no part of it.
    pub leg: Option<Standing>,
    /// Whether its nbd device is attached and answers.
    pub device: DeviceState,
    /// md has refused to take it back by the bitmap.
    pub was_refused: bool,
    /// What may be copied to it.
    pub copying: Copying,
}

/// What may be copied to a leg that comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copying {
    /// What has changed, by the bitmap; nothing else without an operator's word.
    Changed,
    /// Everything, should md refuse that: the export is empty, and nothing can be lost.
    WholeIfRefused,
    /// Everything: the operator has said so, and does not believe the bitmap.
    Whole,
}

/// A device under a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    /// Attached, and it answers.
    Alive,
    /// Attached, and it fails what it is asked; the process that keeps it looks for connections.
    Waiting,
    /// Attached, and it fails what it is asked; nobody looks for connections.
    Dead,
    /// Not attached.
    Absent,
    /// Attached to something else: it is not touched.
    Foreign,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it is in sync, or on the way.
    Nothing,
    /// Look again: its device may come back by itself.
    Wait,
    /// Take the failed leg out of the array, so that its device can be let go.
    Remove,
    /// Let go of a device that only fails.
    Detach,
    /// Attach the export.
    Attach,
    /// Give the leg back: what has changed is copied.
    ReAdd,
    /// Give it back as a new one: everything is copied.
    Add,
    /// An operator's word is needed first.
    AskBeforeCopyingWhole,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing to do",
            Self::Wait => "wait for the device: no node serves it now",
            Self::Remove => "take the failed leg out of the array",
            Self::Detach => "let go of the device that fails",
            Self::Attach => "attach the export",
            Self::ReAdd => "give the leg back; what has changed is copied",
            Self::Add => "give the leg back as a new one; everything is copied",
            Self::AskBeforeCopyingWhole => "md cannot take the leg back by its bitmap: --full copies everything",
        })
    }
}

/// The next step.
pub fn next(seen: Seen) -> Step {
    match (seen.leg, seen.device) {
        (Some(Standing::InSync | Standing::Syncing), _) => Step::Nothing,
        (Some(Standing::Faulty), _) => Step::Remove,
        (None, DeviceState::Waiting | DeviceState::Foreign) => Step::Wait,
        (None, DeviceState::Dead) => Step::Detach,
        (None, DeviceState::Absent) => Step::Attach,
        (None, DeviceState::Alive) => match (seen.copying, seen.was_refused) {
            (Copying::Whole, _) | (Copying::WholeIfRefused, true) => Step::Add,
            (Copying::Changed | Copying::WholeIfRefused, false) => Step::ReAdd,
            (Copying::Changed, true) => Step::AskBeforeCopyingWhole,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a step leads to, when it works.
    fn after(seen: Seen, step: Step) -> Seen {
        match step {
            Step::Remove => Seen { leg: None, ..seen },
            Step::Detach => Seen {
                device: DeviceState::Absent,
                ..seen
            },
            Step::Attach | Step::Wait => Seen {
                device: DeviceState::Alive,
                ..seen
            },
            Step::ReAdd | Step::Add => Seen {
                leg: Some(Standing::Syncing),
                ..seen
            },
            Step::Nothing | Step::AskBeforeCopyingWhole => seen,
        }
    }

    #[test]
    fn every_leg_comes_back_and_only_a_word_copies_it_whole() {
        let legs = [
            None,
            Some(Standing::Faulty),
            Some(Standing::InSync),
            Some(Standing::Syncing),
        ];
        let devices = [
            DeviceState::Alive,
            DeviceState::Waiting,
            DeviceState::Dead,
            DeviceState::Absent,
            DeviceState::Foreign,
        ];
        for leg in legs {
            for device in devices {
                for (was_refused, copying) in [
                    (false, Copying::Changed),
                    (false, Copying::WholeIfRefused),
                    (false, Copying::Whole),
                    (true, Copying::Changed),
                    (true, Copying::WholeIfRefused),
                    (true, Copying::Whole),
                ] {
                    let begin = Seen {
                        leg,
                        device,
                        was_refused,
                        copying,
                    };
                    let (mut seen, mut steps) = (begin, Vec::new());
                    loop {
                        let step = next(seen);
                        if matches!(step, Step::Nothing | Step::AskBeforeCopyingWhole) {
                            break;
                        }
                        steps.push(step);
                        assert!(steps.len() <= 4, "{begin:?}: {steps:?}");
                        seen = after(seen, step);
                    }
                    let asks = next(seen) == Step::AskBeforeCopyingWhole;
                    let was_out = !matches!(begin.leg, Some(Standing::InSync | Standing::Syncing));
                    let only_changed = copying == Copying::Changed;
                    assert_eq!(asks, was_out && was_refused && only_changed, "{begin:?}: {steps:?}");
                    let is_whole = copying == Copying::Whole || (was_refused && !only_changed);
                    assert_eq!(steps.contains(&Step::Add), was_out && is_whole, "{begin:?}: {steps:?}");
                    assert!(!steps.contains(&Step::ReAdd) || !is_whole, "{begin:?}: {steps:?}");
                }
            }
        }
    }
}
