//! `blockmirror raid add` and `remove`.

use blockmirror_client::client::Access;
use raid1_glue::md::heal::Copying;
use raid1_glue::md::{Hold, LegDevice, Record};

use super::create::certificates;
use super::leg::Leg;
use super::{Care, heal, survey};
use crate::args::Args;
use crate::args::raid::AddArgs;
use crate::commands;
use crate::failure::Failure;
use crate::side::Side;

/// Brings the leg in. One that was in before comes by its bitmap; an empty one, or any with `--full`, is copied whole.
pub async fn add(care: &Care, add: &AddArgs, args: &Args) -> Result<(), Failure> {
    let (held, mut record) = care.take(&add.name)?;
    let array = care
        .machine
        .ours(&record)
        .map_err(|error| Failure::Failed(error.to_string()))?;
    if let (Some(export), Some(device)) = (&add.export, add.device) {
        if array.member(&record.device).is_some() {
            return Err(Failure::Failed(format!(
                "{} is the leg of {} now: `blockmirror raid remove {}` first",
                record.device, record.array, add.name
            )));
        }
        let uris = add.tls.applied_to(&commands::export(export, args).await?);
        (record.uris, record.device) = (uris.to_string(), device.to_string());
        record.tls = certificates(&add.tls);
    }
    let is_member = array.member(&record.device).is_some();
    Leg::of(&record)?.may_touch(is_member).map_err(Failure::Failed)?;
    let copying = if add.full {
        Copying::Whole
    } else if is_empty(&record, &add.tls).await? {
        Copying::WholeIfRefused
    } else {
        Copying::Changed
    };
    record.is_removed = false;
    care.records.replace(&add.name, &record)?;
    let wait = add.wait.then_some(heal::FOR_EVER);
    heal::bring_back(care, held, &add.name, &record, copying, wait)
}

/// Whether nothing can be lost by copying over it.
async fn is_empty(record: &Record, tls: &crate::args::TlsArgs) -> Result<bool, Failure> {
    let uris = record.uris.parse();
    let uris: blockmirror_client::uri::UriList =
        uris.map_err(|error: blockmirror_client::uri::UriError| Failure::Failed(error.to_string()))?;
    let side = Side::open(&tls.applied_to(&uris), Access::ReadOnly).await?;
    let leg = survey::leg(&side).await;
    side.close().await;
    Ok(leg?.holds.is_none())
}

/// Takes the leg out, and lets its device go.
pub fn remove(care: &Care, name: &str, forget: bool) -> Result<(), Failure> {
    let (_held, mut record) = care.take(name)?;
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
    let array = match care.machine.ours(&record) {
        Ok(array) => Some(array),
        // What does not run has no leg that could be taken out; it can be forgotten all the same.
        Err(_) if forget => None,
        Err(error) => return Err(failed(&error)),
    };
    let is_member = array.is_some_and(|array| array.member(&record.device).is_some());
    let hold = Leg::of(&record)?.may_touch(is_member);
    if let (Err(refused), false) = (&hold, forget) {
        return Err(Failure::Failed(refused.clone()));
    }
    if is_member && hold.is_ok() {
        record.is_removed = true;
        care.records.replace(name, &record)?;
        // One that has failed already is no error.
        let fail = care.machine.mdadm.run(&[&record.array, "--fail", &record.device]);
        fail.map_err(|error| failed(&error))?;
        care.machine.remove(&record).map_err(|error| failed(&error))?;
    }
    // What another program has attached is let go to be attached by us; who forgets it leaves it to that.
    if hold == Ok(Hold::Ours) || (hold == Ok(Hold::Untold) && !forget) {
        match Leg::of(&record)?.detach(is_member) {
            // What is used, by an array that is not ours for instance, stays with who uses it.
            Err(_) if forget => {}
            detached => detached.map_err(Failure::Failed)?,
        }
    }
    if forget {
        care.records.remove(name)?;
        return care.done(&format!(
            "{name} is none of ours any more; {} stays as it is",
            record.array
        ));
    }
    record.is_removed = true;
    care.records.replace(name, &record)?;
    care.done(&format!(
        "{} goes on without its leg; `blockmirror raid add {name}` brings it back",
        record.array
    ))
}
