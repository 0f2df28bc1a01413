//! Reading what a `[[resource]]` says of its role, its resync and its disagreements.

use std::path::PathBuf;
use std::time::Duration;

use super::section::{Located, Section};
use super::value;
use super::{BranchKeep, OnIoError, RoleAfterRestart, SplitBrain, VerifySchedule};

/// Keys of a resource.
pub(super) const KEYS: [&str; 15] = [
    "name",
    "mirror",
    "hot_extents",
    "role_after_restart",
    "read_only_secondary",
    "split_brain",
    "on_io_error",
    "resync_min",
    "resync_max",
    "verify",
    "verify_repair",
    "branch_dir",
    "branch_keep",
    "volume",
    "peer",
];

/// Keys that have a meaning when nothing is mirrored, too; all others speak of peers or of what is tracked.
const PLAIN_KEYS: [&str; 3] = ["name", "mirror", "volume"];

const DEFAULT_RESYNC_MIN: u64 = 4 << 20;
/// Slower than this no resync of a volume worth mirroring would end.
const RATE_RANGE: std::ops::RangeInclusive<u64> = 64 << 10..=1 << 40;
/// A comparison of everything more often than this would never be over.
const VERIFY_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(366 * DAY);
const KEEP_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(3660 * DAY);
const DAY: u64 = 86_400;

/// What is read here.
pub(super) struct ReadRoles {
    pub(super) role_after_restart: RoleAfterRestart,
    pub(super) read_only_secondary: bool,
    pub(super) split_brain: SplitBrain,
    pub(super) on_io_error: OnIoError,
    pub(super) resync_min: u64,
    pub(super) resync_max: Option<u64>,
    pub(super) verify: VerifySchedule,
    pub(super) verify_repair: bool,
    pub(super) branch_dir: Option<Located<PathBuf>>,
    pub(super) branch_keep: BranchKeep,
}

/// Read them; what is wrong is noted.
pub(super) fn read(section: &Section<'_>, mirror: bool) -> ReadRoles {
    if !mirror {
        for key in KEYS.into_iter().filter(|key| !PLAIN_KEYS.contains(key)) {
            section.forbid(
                key,
                &format!("`{key}` has no meaning with mirror = false"),
                "remove it, or set mirror = true",
            );
        }
    }
    let (resync_min, resync_max) = read_rates(section);
    let verify = read_verify(section);
    if verify == VerifySchedule::Never {
        section.forbid(
            "verify_repair",
            "`verify_repair` has no meaning without a `verify` schedule",
            "remove it, or add: verify = \"weekly\"",
        );
    }
    ReadRoles {
        role_after_restart: section
            .choice(
                "role_after_restart",
                &[
                    ("resume", RoleAfterRestart::Resume),
                    ("secondary", RoleAfterRestart::Secondary),
                ],
            )
            .map_or(RoleAfterRestart::Resume, |role| role.value),
        read_only_secondary: section.boolean("read_only_secondary").unwrap_or(false),
        split_brain: read_split_brain(section),
        on_io_error: section
            .choice(
                "on_io_error",
                &[("detach", OnIoError::Detach), ("pass", OnIoError::Pass)],
            )
            .map_or(OnIoError::Detach, |choice| choice.value),
        resync_min,
        resync_max,
        verify,
        verify_repair: section.boolean("verify_repair").unwrap_or(false),
        branch_dir: section.path("branch_dir"),
        branch_keep: read_branch_keep(section),
    }
}

fn read_split_brain(section: &Section<'_>) -> SplitBrain {
    let choices = [
        ("manual", SplitBrain::Manual),
        ("discard-younger", SplitBrain::DiscardYounger),
        ("discard-least-changes", SplitBrain::DiscardLeastChanges),
        ("discard-zero-changes", SplitBrain::DiscardZeroChanges),
    ];
    section
        .choice("split_brain", &choices)
        .map_or(SplitBrain::Manual, |choice| choice.value)
}

/// The floor and the cap, in bytes per second.
fn read_rates(section: &Section<'_>) -> (u64, Option<u64>) {
    let floor = section.size("resync_min", RATE_RANGE);
    let cap = section.size("resync_max", RATE_RANGE);
    let floor_rate = floor.as_ref().map_or(DEFAULT_RESYNC_MIN, |floor| floor.value);
    if let Some(cap) = &cap
        && cap.value < floor_rate
    {
        section.problems().add(
            cap.span.clone(),
            format!(
                "`resync_max` is {} per second, less than `resync_min` ({})",
                value::show_size(cap.value),
                value::show_size(floor_rate)
            ),
            "make it larger, or resync_min smaller",
        );
    }
    (floor_rate, cap.map(|cap| cap.value))
}

fn read_verify(section: &Section<'_>) -> VerifySchedule {
    let Some(text) = section.text("verify") else {
        return VerifySchedule::Never;
    };
    match text.value.as_str() {
        "never" => VerifySchedule::Never,
        "daily" => VerifySchedule::Every(Duration::from_secs(DAY)),
        "weekly" => VerifySchedule::Every(Duration::from_secs(7 * DAY)),
        "monthly" => VerifySchedule::Every(Duration::from_secs(30 * DAY)),
        _ => within(section, "verify", &text, VERIFY_RANGE, "\"weekly\", \"never\"")
            .map_or(VerifySchedule::Never, VerifySchedule::Every),
    }
}

fn read_branch_keep(section: &Section<'_>) -> BranchKeep {
    let Some(text) = section.text("branch_keep") else {
        return BranchKeep::Forever;
    };
    match text.value.as_str() {
        "forever" => BranchKeep::Forever,
        _ => within(section, "branch_keep", &text, KEEP_RANGE, "\"forever\"")
            .map_or(BranchKeep::Forever, BranchKeep::For),
    }
}

/// The duration in `text`; `words` are what could stand there too.
fn within(
    section: &Section<'_>,
    key: &str,
    text: &Located<String>,
    range: std::ops::RangeInclusive<Duration>,
    words: &str,
) -> Option<Duration> {
    let parsed = value::parse_duration(&text.value).and_then(|duration| {
        if range.contains(&duration) {
            return Ok(duration);
        }
        let days = range.end().as_secs() / DAY;
        Err(format!("\"{}\" is not from 1 minute to {days} days", text.value))
    });
    match parsed {
        Ok(duration) => Some(duration),
        Err(why) => {
            let known: Vec<&str> = words.split(", ").map(|word| word.trim_matches('"')).collect();
            let remedy = match value::nearest(&text.value, &known) {
                Some(near) => format!("did you mean \"{near}\"? It can be {words}, or a duration such as \"7d\""),
                None => format!("it can be {words}, or a duration such as \"7d\""),
            };
            section
                .problems()
                .add(text.span.clone(), format!("`{key}`: {why}"), remedy);
            None
        }
    }
}
