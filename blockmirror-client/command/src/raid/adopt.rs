//! `blockmirror raid adopt`.

use raid1_glue::md::heal::DeviceState;
use raid1_glue::md::{Hold, check};
use serde_json::json;

use super::Care;
use super::create::record_of;
use super::leg::Leg;
use crate::args::Args;
use crate::args::raid::AdoptArgs;
use crate::commands;
use crate::failure::{Failure, print};

/// Takes an array under care: what is done to it is done to it alone from then on, by its UUID.
pub async fn run(care: &Care, adopt: &AdoptArgs, args: &Args) -> Result<(), Failure> {
    let _held = care.records.claim(&adopt.name)?;
    let uris = adopt
        .leg
        .tls
        .applied_to(&commands::export(&adopt.leg.export, args).await?);
    let array = care.machine.blocks.array(&adopt.array);
    let array = array.map_err(|error| Failure::Failed(format!("{} does not run: {error}", adopt.array)))?;
    let mut record = record_of(&adopt.leg, &uris);
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
    // Which leg is asked for the bitmap does not matter: all of them have it.
    let bitmaps = array.members.iter().map(|member| {
        let device = format!("/dev/{}", member.device);
        care.machine.mdadm.bitmap(&device)
    });
    let bitmaps = bitmaps.collect::<Result<Vec<_>, _>>().map_err(|error| failed(&error))?;
    let has_bitmap = bitmaps.iter().any(Option::is_some);
    record.local = check::adopt(&array, &record.device, has_bitmap).map_err(|refusal| failed(&refusal))?;
    record.uuid = care
        .machine
        .mdadm
        .uuid_of(&adopt.array)
        .map_err(|error| failed(&error))?;
    record.array.clone_from(&adopt.array);
    let is_member = array.member(&record.device).is_some();
    let hold = Leg::of(&record)?.may_touch(is_member).map_err(Failure::Failed)?;
    care.records.add(&adopt.name, &record)?;
    let state = match hold {
        Hold::Untold => DeviceState::Alive,
        // It is attached by us already, or by nobody.
        _ => DeviceState::Absent,
    };
    let advice = check::advice(&adopt.name, &array, &record.device, state);
    if care.json {
        return print(&format!(
            "{}\n",
            json!({ "done": true, "uuid": record.uuid, "advice": advice })
        ));
    }
    let mut text = format!(
        "{} is under care as {}: local leg {}, the other one {} by {}\n",
        record.array, adopt.name, record.local, record.device, record.uris
    );
    for word in advice {
        text.push_str(&format!("  {word}\n"));
    }
    print(&text)
}
