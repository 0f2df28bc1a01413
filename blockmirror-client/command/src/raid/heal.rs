//! `blockmirror raid heal`, and what `add` and `create` have of it.

use std::time::{Duration, Instant};

use raid1_glue::md::heal::{Copying, Step};
use raid1_glue::md::record::Held;
use raid1_glue::md::{Healing, Record, Standing};
use serde_json::json;

use super::Care;
use super::leg::Leg;
use crate::args::raid::HealArgs;
use crate::failure::{Failure, print};
use crate::human::{bytes, duration};
use crate::progress::Progress;

/// Longer than anybody waits.
pub const FOR_EVER: Duration = Duration::from_secs(365 * 86_400);
/// Between looks at a copy, or at a device that may come back.
const LOOK: Duration = Duration::from_millis(250);

/// What bringing a leg back has come to.
struct Healed {
    steps: Vec<Step>,
    /// What the bitmap called changed before; `None`: it was not asked, or everything was copied.
    dirty: Option<u64>,
    /// What was written to the device meanwhile.
    copied: u64,
    took: Duration,
}

/// Does what is needed until the leg is in sync.
pub fn run(care: &Care, args: &HealArgs) -> Result<(), Failure> {
    let (held, mut record) = care.take(&args.name)?;
    if record.is_removed {
        record.is_removed = false;
        care.records.replace(&args.name, &record)?;
    }
    let wait = Some(Duration::from_secs(args.timeout));
    let copying = if args.full { Copying::Whole } else { Copying::Changed };
    bring_back(care, held, &args.name, &record, copying, wait)
}

/// Brings the leg back, and waits for its copy, if at all, for so long.
pub fn bring_back(
    care: &Care,
    held: Held,
    name: &str,
    record: &Record,
    copying: Copying,
    wait: Option<Duration>,
) -> Result<(), Failure> {
    let begin = Instant::now();
    let leg = Leg::of(record)?;
    let mut healing = Healing::of(&care.machine, record, &leg, copying);
    let (mut steps, mut dirty) = (Vec::new(), None);
    let mut written = None;
    loop {
        let failed = |error| Failure::Failed(format!("{name}: {error}"));
        let next = healing.next_step().map_err(failed)?;
        if matches!(next, Step::ReAdd | Step::Add) {
            let bitmap = care.machine.mdadm.bitmap(&record.local).ok().flatten();
            dirty = bitmap
                .filter(|_| next == Step::ReAdd)
                .map(|bitmap| bitmap.dirty_bytes());
            written = care.machine.blocks.written(&record.device);
        }
        say(care, name, next, dirty)?;
        healing.perform(next).map_err(failed)?;
        match next {
            Step::Nothing => break,
            Step::AskBeforeCopyingWhole => {
                return Err(Failure::Failed(format!("{name}: {}", Step::AskBeforeCopyingWhole)));
            }
            Step::Wait => {
                if begin.elapsed() > wait.unwrap_or_default() {
                    return Err(Failure::Failed(format!(
                        "{name}: no node serves {} now; {} is attached, and comes back with it",
                        record.uris, record.device
                    )));
                }
                std::thread::sleep(LOOK);
            }
            step => {
                if step == Step::Add {
                    // What it had before is gone: the data here are the right ones.
                    care.note_behind(name, &mut record.clone(), false)?;
                }
                steps.push(step);
            }
        }
    }
    // A watch may look at it again.
    drop(held);
    if let Some(wait) = wait {
        until_in_sync(care, name, record, wait.saturating_sub(begin.elapsed()))?;
    }
    let now = care.machine.blocks.written(&record.device);
    let healed = Healed {
        steps,
        dirty,
        copied: now.zip(written).map_or(0, |(now, before)| now.saturating_sub(before)),
        took: begin.elapsed(),
    };
    tell(care, name, &healed, wait.is_some())
}

fn say(care: &Care, name: &str, step: Step, dirty: Option<u64>) -> Result<(), Failure> {
    let text = match (step, dirty) {
        _ if care.json => return Ok(()),
        (Step::Nothing | Step::Wait | Step::AskBeforeCopyingWhole, _) => return Ok(()),
        (Step::ReAdd, Some(dirty)) => format!("{step}: {} at most", bytes(dirty)),
        (step, _) => step.to_string(),
    };
    print(&format!("{name}: {text}\n"))
}

fn tell(care: &Care, name: &str, healed: &Healed, has_waited: bool) -> Result<(), Failure> {
    if care.json {
        let steps: Vec<String> = healed.steps.iter().map(Step::to_string).collect();
        let told = json!({
            "done": true,
            "in_sync": has_waited,
            "steps": steps,
            "dirty_bytes": healed.dirty,
            "copied_bytes": healed.copied,
            "seconds": healed.took.as_secs_f64(),
        });
        return print(&format!("{told}\n"));
    }
    print(&match (healed.steps.is_empty(), has_waited) {
        (true, true) => format!("{name} is in sync\n"),
        (_, false) => format!("{name}: the leg is in the array; `blockmirror raid status {name}` shows its copy\n"),
        (false, true) => format!(
            "{name} is in sync, after {}: {} written to the leg\n",
            duration(healed.took.as_secs_f64()),
            bytes(healed.copied)
        ),
    })
}

/// Waits for a copy, showing how far it is.
pub fn until_in_sync(care: &Care, name: &str, record: &Record, wait: Duration) -> Result<(), Failure> {
    let begin = Instant::now();
    let mut progress = Progress::new(name);
    loop {
        let array = care.machine.ours(record);
        let array = array.map_err(|error| Failure::Failed(format!("{name}: {error}")))?;
        let standing = array.standing_of_leg(&record.device);
        let is_copying = matches!(array.action.as_str(), "recover" | "resync");
        match standing {
            Some(Standing::InSync) if !is_copying => {
                progress.end(false);
                return Ok(());
            }
            Some(Standing::InSync | Standing::Syncing) if begin.elapsed() < wait => {
                let (done, total) = array.progress.unwrap_or_default();
                progress.moved("copied", done * 512, total * 512, begin.elapsed());
                std::thread::sleep(LOOK);
            }
            Some(Standing::InSync | Standing::Syncing) => {
                progress.end(true);
                return Err(Failure::Failed(format!(
                    "{name} is not in sync after {}: the copy goes on",
                    duration(wait.as_secs_f64())
                )));
            }
            Some(Standing::Faulty) | None => {
                progress.end(true);
                return Err(Failure::Failed(format!(
                    "{name}: the leg has failed again: `blockmirror raid heal {name}`"
                )));
            }
        }
    }
}
