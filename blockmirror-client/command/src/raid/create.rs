//! `blockmirror raid create`.

use std::io::Write;
use std::path::Path;

use blockmirror_client::client::Access;
use blockmirror_client::uri::UriList;
use raid1_glue::md::check::{self, Candidate};
use raid1_glue::md::record::RecordError;
use raid1_glue::md::{Certificates, LegDevice, Options, Record};
use raid1_glue::nbd::sysfs::{Standing, System};
use serde_json::json;

use super::leg::Leg;
use super::{Care, heal, survey};
use crate::args::raid::{CreateArgs, LegArgs};
use crate::args::{Args, TlsArgs};
use crate::commands;
use crate::failure::{Failure, print};
use crate::human::bytes;
use crate::side::Side;

/// What is going to be done.
struct Plan {
    record: Record,
    local: Candidate,
    leg: Candidate,
    options: Options,
    words: Vec<String>,
    is_clean: bool,
}

/// Makes an array, or says how it would be made.
pub async fn run(care: &Care, create: &CreateArgs, args: &Args) -> Result<(), Failure> {
    // Before there is an array, whatever could keep it from being noted.
    let held = if create.dry_run {
        care.records.is_free(&create.name)?;
        None
    } else {
        Some(care.records.claim(&create.name)?)
    };
    let uris = create
        .leg
        .tls
        .applied_to(&commands::export(&create.leg.export, args).await?);
    let plan = plan(care, create, &uris).await?;
    if !care.json {
        print(&plan.text())?;
    }
    if create.dry_run {
        return if care.json { print(&plan.json()) } else { Ok(()) };
    }
    let record = make(care, plan)?;
    let noted = care.records.add(&create.name, &record);
    noted.map_err(|error| not_noted(&create.name, &record, &error))?;
    drop(held);
    if create.wait {
        heal::until_in_sync(care, &create.name, &record, heal::FOR_EVER)?;
    }
    care.done(&format!(
        "{} is there; `blockmirror raid watch` heals it, and `blockmirror raid status` shows it",
        record.array
    ))
}

async fn plan(care: &Care, create: &CreateArgs, uris: &UriList) -> Result<Plan, Failure> {
    let mut record = record_of(&create.leg, uris);
    record.local = create.local.display().to_string();
    record.array = create
        .array
        .clone()
        .unwrap_or_else(|| format!("/dev/md/{}", create.name));
    if care.machine.blocks.array(&record.array).is_ok() {
        return Err(Failure::Failed(format!(
            "{} is there already: raid adopt takes it under care; or name another --array",
            record.array
        )));
    }
    let local = survey::local(&create.local)?;
    let access = if create.dry_run {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    };
    let side = Side::open(uris, access).await?;
    let mut leg = survey::leg(&side).await?;
    leg.used_by = System::here().users(create.leg.device);
    if System::here().standing(create.leg.device) != Standing::Free {
        leg.used_by
            .push(format!("{} is attached to something", create.leg.device));
    }
    let words = check::create(&local, &leg, create.force).map_err(|refusal| Failure::Failed(refusal.to_string()));
    let words = match words {
        Ok(words) => words,
        Err(failure) => {
            side.close().await;
            return Err(failure);
        }
    };
    let latency = survey::latency(&side, !create.dry_run).await;
    side.close().await;
    let mut options = Options::for_latency(latency?);
    if let Some(writes) = create.write_behind {
        options.write_behind = (writes > 0).then_some(writes);
    }
    options.bitmap_chunk = create.bitmap_chunk.unwrap_or(options.bitmap_chunk);
    Ok(Plan {
        record,
        local,
        leg,
        options,
        words,
        is_clean: create.assume_clean,
    })
}

/// The array is there, and nothing knows of it.
fn not_noted(name: &str, record: &Record, error: &RecordError) -> Failure {
    let Record {
        array,
        uris,
        device,
        connections,
        answer_timeout: answer,
        dead_timeout: dead,
        ..
    } = record;
    Failure::Failed(format!(
        "{error}. {array} has been made all the same; when that is mended: `blockmirror raid adopt {name} {array} '{uris}' {device} \
         --connections {connections} --answer-timeout {answer} --dead-timeout {dead}`"
    ))
}

/// What is known of a leg from the command line.
pub fn record_of(leg: &LegArgs, uris: &UriList) -> Record {
    Record {
        array: String::new(),
        uuid: String::new(),
        local: String::new(),
        uris: uris.to_string(),
        device: leg.device.to_string(),
        connections: leg.times.connections,
        answer_timeout: leg.times.answer_timeout,
        dead_timeout: leg.times.dead_timeout,
        is_removed: false,
        is_local_behind: false,
        tls: certificates(&leg.tls),
    }
}

/// As a record has them.
pub fn certificates(tls: &TlsArgs) -> Option<Certificates> {
    let certificates = Certificates {
        ca: tls.ca.clone(),
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
    };
    (certificates != Certificates::default()).then_some(certificates)
}

/// Attaches the leg, and runs mdadm; the record of what there is then.
fn make(care: &Care, plan: Plan) -> Result<Record, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
    let mut configuration = tempfile::NamedTempFile::new().map_err(|error| failed(&error))?;
    let written = configuration.write_all(Options::CONFIGURATION.as_bytes());
    written.map_err(|error| failed(&error))?;
    let mut record = plan.record.clone();
    let leg = Leg::of(&plan.record)?;
    leg.attach().map_err(|error| failed(&error))?;
    let made = care.machine.mdadm.run(&plan.arguments(configuration.path()));
    let uuid = made.and_then(|_| care.machine.mdadm.uuid_of(&record.array));
    record.uuid = uuid.map_err(|error| {
        // What mdadm has said is what counts.
        let _ = leg.detach(false);
        failed(&error)
    })?;
    Ok(record)
}

impl Plan {
    fn arguments(&self, configuration: &Path) -> Vec<String> {
        let record = &self.record;
        let mut arguments = vec!["--create".to_owned(), record.array.clone(), "--run".to_owned()];
        arguments.push(format!("--config={}", configuration.display()));
        arguments.extend(self.options.array_arguments());
        arguments.extend(self.is_clean.then(|| "--assume-clean".to_owned()));
        arguments.push(record.local.clone());
        arguments.extend(Options::leg_arguments().map(str::to_owned));
        arguments.push(record.device.clone());
        arguments
    }

    fn text(&self) -> String {
        let record = &self.record;
        let mut lines = vec![
            format!("{} of", record.array),
            format!("  local  {}, {}", record.local, bytes(self.local.size)),
            format!(
                "  leg    {} as {}, {}",
                self.leg.name,
                record.device,
                bytes(self.leg.size)
            ),
            self.options.to_string(),
            format!(
                "  timeouts: a request that is not answered within {} s is given up, and waits {} s more for another \
                 connection; so long writes wait for a leg that is gone, and no longer",
                record.answer_timeout, record.dead_timeout
            ),
        ];
        lines.push(if self.is_clean {
            "  no first copy: you say that both hold the same".to_owned()
        } else {
            format!("  first copy: all of {} goes to the leg", record.local)
        });
        lines.extend(self.words.iter().map(|word| format!("  note: {word}")));
        let arguments = self.arguments(Path::new("(CREATE bbl=no)"));
        lines.push(format!("mdadm {}", arguments.join(" ")));
        lines.join("\n") + "\n"
    }

    fn json(&self) -> String {
        let plan = json!({
            "array": self.record.array,
            "local": self.record.local,
            "uris": self.record.uris,
            "device": self.record.device,
            "latency_seconds": self.options.latency.as_secs_f64(),
            "bitmap_chunk_bytes": self.options.bitmap_chunk,
            "write_behind": self.options.write_behind,
            "notes": self.words,
            "mdadm": self.arguments(Path::new("(CREATE bbl=no)")),
        });
        format!("{plan}\n")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;
    use crate::args::Command;
    use crate::args::raid::RaidCommand;

    #[test]
    fn an_array_that_could_not_be_noted_is_adopted_by_the_line_that_is_said() {
        let record = Record {
            array: "/dev/md/data".to_owned(),
            uuid: "1:2:3:4".to_owned(),
            local: "/dev/vda".to_owned(),
            uris: "nbd://a/db,nbd://b/db".to_owned(),
            device: "/dev/nbd3".to_owned(),
            connections: 2,
            answer_timeout: 7,
            dead_timeout: 3,
            is_removed: false,
            is_local_behind: false,
            tls: None,
        };
        let said = not_noted("data", &record, &RecordError::Busy("data".to_owned())).message();
        let line = said.split('`').nth(1).unwrap().replace('\'', "");
        let Command::Raid(raid) = Args::try_parse_from(line.split(' ')).unwrap().command else {
            unreachable!("it says raid");
        };
        let RaidCommand::Adopt(adopt) = raid.command else {
            unreachable!("it says adopt");
        };
        assert_eq!((adopt.name.as_str(), &adopt.array), ("data", &record.array));
        let adopted = record_of(&adopt.leg, &record.uris.parse().unwrap());
        assert_eq!((adopted.backend(), adopted.device), (record.backend(), record.device));
        assert_eq!(
            (adopted.connections, adopted.answer_timeout, adopted.dead_timeout),
            (2, 7, 3)
        );
    }
}
