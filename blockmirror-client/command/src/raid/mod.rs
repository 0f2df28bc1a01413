//! `blockmirror raid`: arrays of md with a local leg and a blockmirror leg.

mod adopt;
mod change;
mod create;
mod heal;
mod leg;
mod metrics;
mod survey;
mod watch;

use raid1_glue::md::record::{Held, RecordError};
use raid1_glue::md::{Machine, Record, Records};
use serde_json::json;

use crate::args::Args;
use crate::args::raid::{RaidArgs, RaidCommand};
use crate::failure::{Failure, print};
use crate::render;
use crate::terminal::Style;
use leg::Leg;

/// What every command has: where arrays are noted, and what they are changed by.
struct Care {
    records: Records,
    machine: Machine,
    json: bool,
}

/// Runs the command to its end.
pub async fn run(raid: &RaidArgs, args: &Args) -> Result<(), Failure> {
    let care = Care {
        records: Records::at(&raid.records),
        machine: Machine::default(),
        json: args.json,
    };
    match &raid.command {
        RaidCommand::Create(create) => create::run(&care, create, args).await,
        RaidCommand::Adopt(adopt) => adopt::run(&care, adopt, args).await,
        RaidCommand::Add(add) => change::add(&care, add, args).await,
        RaidCommand::Remove { name, forget } => change::remove(&care, name, *forget),
        RaidCommand::Status { name } => status(&care, name.as_deref()),
        RaidCommand::Start { name, force } => start(&care, name.as_deref(), *force),
        RaidCommand::Heal(args) => heal::run(&care, args),
        RaidCommand::Watch { name, metrics } => watch::run(care, name.clone(), *metrics).await,
    }
}

impl Care {
    /// A record, and nobody else does anything to its array meanwhile. Which legs have everything is noted.
    fn take(&self, name: &str) -> Result<(Held, Record), Failure> {
        // A name that is none must not leave a file behind.
        self.records.read(name)?;
        let held = self.records.lock(name)?;
        let mut record = self.records.read(name)?;
        let seen = self.machine.ours(&record).ok();
        if let Some(is_local_behind) = seen.and_then(|array| array.is_local_behind(&record)) {
            self.note_behind(name, &mut record, is_local_behind)?;
        }
        Ok((held, record))
    }

    /// Notes whether the local leg is behind, of an array that has been [taken](Self::take).
    fn note_behind(&self, name: &str, record: &mut Record, is_local_behind: bool) -> Result<(), Failure> {
        if record.is_local_behind != is_local_behind {
            record.is_local_behind = is_local_behind;
            self.records.replace(name, record)?;
        }
        Ok(())
    }

    /// The one that is named, or all.
    fn names(&self, name: Option<&str>) -> Vec<String> {
        name.map_or_else(|| self.records.names(), |name| vec![name.to_owned()])
    }

    fn done(&self, text: &str) -> Result<(), Failure> {
        if self.json {
            return print(&format!("{}\n", json!({ "done": true })));
        }
        print(&format!("{text}\n"))
    }
}

fn status(care: &Care, name: Option<&str>) -> Result<(), Failure> {
    let mut reports = Vec::new();
    for name in care.names(name) {
        let record = care.records.read(&name)?;
        let leg = Leg::of(&record)?;
        let report = care.machine.report(&name, &record, leg.seen(), leg.agent());
        // Who may only look notes nothing.
        let _ = care.records.note_behind(&name, &record, report.is_local_behind);
        reports.push(report);
    }
    if care.json {
        let text = serde_json::to_string_pretty(&json!({ "arrays": reports }));
        let text = text.map_err(|error| Failure::Failed(format!("cannot write the report as JSON: {error}")))?;
        return print(&format!("{text}\n"));
    }
    print(&render::raid::arrays(&reports, Style::of_stdout()))
}

/// All of them, whatever becomes of one.
fn start(care: &Care, name: Option<&str>, is_forced: bool) -> Result<(), Failure> {
    let (mut said, mut wrong) = (Vec::new(), Vec::new());
    for name in care.names(name) {
        let started = care.take(&name).and_then(|(_held, mut record)| {
            let started = care.machine.start(&record, is_forced);
            let started = started.map_err(|error| Failure::Failed(error.to_string()))?;
            if started && is_forced {
                // These data are the right ones from now on.
                care.note_behind(&name, &mut record, false)?;
            }
            Ok(started)
        });
        match started {
            Ok(true) => said.push(format!(
                "{name} is started with its local leg; `blockmirror raid heal {name}`"
            )),
            Ok(false) => said.push(format!("{name} runs")),
            Err(failure) => wrong.push(format!("{name}: {}", failure.message())),
        }
    }
    if !wrong.is_empty() {
        said.extend(wrong);
        return Err(Failure::Failed(said.join("\n")));
    }
    care.done(&said.join("\n"))
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Name(_) => Self::Usage(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}
