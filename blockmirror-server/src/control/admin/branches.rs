//! Branches: what was saved of a volume before it was overwritten.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use blockmirror_client::admin::{BranchReport, OrderDone};

use tokio::sync::Semaphore;

use super::query::Query;
use super::{Admin, Refused, ask};
use crate::branch;
use crate::config::{ImageSource, Volume};
use crate::control::branches::{self, Found};
use crate::control::roster::{Place, ServedBranch, VolumeView};
use crate::data::ViewPlan;

/// A branch that is served no longer is closed within this time.
const CLOSING_MAX: Duration = Duration::from_secs(1);
/// Between two looks at it.
const CLOSING_LOOK: Duration = Duration::from_millis(20);

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    RawQuery(query): RawQuery,
) -> Result<Json<BranchReport>, Refused> {
    Query::parse(query.as_deref(), &[])?;
    let found = all(&admin).await?;
    Ok(Json(BranchReport {
        branches: found.iter().map(branches::status).collect(),
    }))
}

pub(super) async fn command(
    State(admin): State<Arc<Admin>>,
    Path((name, verb)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Json<OrderDone>, Refused> {
    Query::parse(query.as_deref(), &[])?;
    let found = all(&admin).await?;
    let Some(found) = found.into_iter().find(|found| found.info.name == name) else {
        return Err(Refused::not_found(format!(
            "there is no branch \"{name}\": `blockmirror branch list` shows them"
        )));
    };
    match verb.as_str() {
        "export" => export(&admin, found).await,
        "unexport" => unexport(&admin, found).await,
        "expire" => expire(found).await,
        other => Err(Refused::not_found(format!(
            "there is no command \"{other}\" for a branch: it can be export, unexport or expire"
        ))),
    }
}

/// All branches; a directory may be slow.
pub(super) async fn all(admin: &Admin) -> Result<Vec<Found>, Refused> {
    let roster = admin.roster.clone();
    let looking = tokio::task::spawn_blocking(move || branches::all(&roster));
    looking.await.map_err(|error| {
        let text = format!("looking for branches broke off: {error}");
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    })
}

/// Serve it read-only: what it has, over what the image holds now.
async fn export(admin: &Admin, found: Found) -> Result<Json<OrderDone>, Refused> {
    let Found { info, exported_as, .. } = found;
    if let Some(export) = exported_as {
        let text = format!("branch \"{}\" is served already, as export \"{export}\"", info.name);
        return Err(Refused::conflict(text));
    }
    let look = |view: VolumeView<'_>| (view.resource.place, view.config.clone());
    let (place, volume) = admin.volume(&info.volume, look)?;
    let ImageSource::Path(image) = volume.image.clone() else {
        return Err(Refused::conflict("a volume in memory has no branches"));
    };
    let name = format!("{}@{}", info.volume, info.name);
    let (export, minimum_block) = (name.clone(), volume.minimum_block);
    let path = info.path.clone();
    let opening = tokio::task::spawn_blocking(move || {
        let (file, replayed) = branch::load(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let image = File::open(&image).map_err(|error| format!("{} cannot be opened: {error}", image.display()))?;
        Ok(ViewPlan {
            export,
            size: replayed.header.size,
            minimum_block,
            index: replayed.index,
            branch: file,
            image,
        })
    });
    let opened: Result<ViewPlan, String> = opening
        .await
        .map_err(|error| Refused::conflict(format!("reading the branch broke off: {error}")))?;
    let plan = opened.map_err(Refused::conflict)?;
    let size = plan.size;
    let number = ask::serve_branch(admin, place, plan).await?;
    let served = ServedBranch {
        name: info.name,
        volume: Volume {
            export: name.clone(),
            description: format!("what {} held before it was overwritten", info.volume),
            read_only: true,
            ..volume
        },
        place: Place {
            thread: place.thread,
            volume: number,
        },
        slots: Arc::new(Semaphore::new(
            admin.roster.look().config.limits.max_connections_per_export,
        )),
        size,
    };
    tracing::info!(branch = %served.name, export = %name, "the branch is served read-only");
    let mut present = admin.roster.change();
    if let Some(owner) = present.resources.iter_mut().find(|owner| owner.place == place) {
        owner.branches.push(served);
    }
    Ok(Json(OrderDone {
        export: Some(name),
        note: None,
    }))
}

async fn unexport(admin: &Admin, found: Found) -> Result<Json<OrderDone>, Refused> {
    let name = found.info.name;
    let gone = {
        let mut present = admin.roster.change();
        let owners = present.resources.iter_mut().map(|owner| &mut owner.branches);
        owners.into_iter().find_map(|branches| {
            let at = branches.iter().position(|branch| branch.name == name)?;
            Some(branches.swap_remove(at))
        })
    };
    let Some(gone) = gone else {
        return Err(Refused::conflict(format!("branch \"{name}\" is not served")));
    };
    ask::drop_branch(admin, gone.place).await?;
    tracing::info!(branch = %name, "the branch is served no longer");
    Ok(Json(OrderDone::default()))
}

async fn expire(found: Found) -> Result<Json<OrderDone>, Refused> {
    let status = branches::status(&found);
    if let Some(export) = status.exported_as {
        return Err(Refused::conflict(format!(
            "branch \"{}\" is served as export \"{export}\": `blockmirror branch unexport {}` first",
            status.name, status.name
        )));
    }
    let (name, path) = (status.name, found.info.path);
    let shown = path.display().to_string();
    let removing = tokio::task::spawn_blocking(move || remove_when_closed(&path));
    match removing.await {
        Ok(Ok(())) => {
            tracing::info!(branch = %name, "the operator had the branch removed");
            Ok(Json(OrderDone::default()))
        }
        Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => Err(Refused::conflict(format!(
            "branch \"{name}\" is being written or served: wait until the resync that overwrites the volume has ended, or unexport it"
        ))),
        Ok(Err(error)) => Err(Refused::conflict(format!("{shown} cannot be removed: {error}"))),
        Err(error) => Err(Refused::conflict(format!("removing {shown} broke off: {error}"))),
    }
}

/// One that was served until just now is closed when the last READ of it has ended.
fn remove_when_closed(path: &FilePath) -> io::Result<()> {
    let until = Instant::now() + CLOSING_MAX;
    loop {
        match branch::remove(path) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < until => sleep(CLOSING_LOOK),
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rustix::fs::{FlockOperation, flock};

    use super::*;

    #[test]
    fn a_branch_that_is_being_closed_is_waited_for_and_one_that_is_used_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db.branch");
        let served = File::create(&path).unwrap();
        flock(&served, FlockOperation::LockShared).unwrap();
        let refused = remove_when_closed(&path).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
        assert!(path.exists());
        let closing = std::thread::spawn(move || {
            sleep(CLOSING_LOOK * 3);
            drop(served);
        });
        remove_when_closed(&path).unwrap();
        closing.join().unwrap();
        assert!(!path.exists());
    }
}
