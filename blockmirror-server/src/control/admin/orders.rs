//! Orders to resources and volumes.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use blockmirror_client::admin::OrderDone;
use mirror_core::resource::Command;

use super::peers::index;
use super::query::Query;
use super::{Admin, Refused, ask, attach};
use crate::control::roster::{ResourcePlace, VolumeView};
use crate::data::ResourceOrder;

pub(super) async fn of_resource(
    State(admin): State<Arc<Admin>>,
    Path((name, verb)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Json<OrderDone>, Refused> {
    let query = query.as_deref();
    let command = match verb.as_str() {
        "promote" => {
            let query = Query::parse(query, &["force", "accept"])?;
            Command::Promote {
                force: query.flag("force")?,
                accept: query.text("accept").map(str::to_owned),
            }
        }
        "demote" => {
            Query::parse(query, &[])?;
            Command::Demote
        }
        "invalidate" => {
            let query = Query::parse(query, &["peer"])?;
            admin.resource(&name)?;
            Command::Invalidate(index(admin.peer_of(&name, query.text("peer"))?)?)
        }
        other => {
            let text = format!("there is no command \"{other}\": it can be promote, demote or invalidate");
            return Err(Refused::not_found(text));
        }
    };
    let place = admin.resource(&name)?;
    tracing::info!(resource = %name, command = %verb, "the operator's command has come");
    ask::order(&admin, place, ResourceOrder::Core(command)).await?;
    tracing::info!(resource = %name, command = %verb, "the operator's command was carried out");
    Ok(Json(OrderDone::default()))
}

pub(super) async fn of_volume(
    State(admin): State<Arc<Admin>>,
    Path((name, verb)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Json<OrderDone>, Refused> {
    let query = query.as_deref();
    match verb.as_str() {
        "verify" => {
            let query = Query::parse(query, &["peer", "repair", "resume"])?;
            let (repair, resume) = (query.flag("repair")?, query.flag("resume")?);
            let make = |volume, peer| Command::Verify {
                volume,
                peer,
                repair,
                resume,
            };
            verify(&admin, &name, query.text("peer"), make).await?;
        }
        "verify-stop" => {
            let query = Query::parse(query, &["peer"])?;
            verify_stop(&admin, &name, query.text("peer")).await?;
        }
        "resize" => {
            let query = Query::parse(query, &["size", "assume_clean", "force"])?;
            let flags = (query.flag("assume_clean")?, query.flag("force")?);
            resize(&admin, &name, query.bytes("size")?, flags).await?;
        }
        "attach" => {
            let replaced = Query::parse(query, &["replaced"])?.flag("replaced")?;
            attach::attach(&admin, &name, replaced).await?;
        }
        "detach" => {
            Query::parse(query, &[])?;
            let (place, volume) = admin.volume(&name, |view| (view.resource.place, view.served.number))?;
            ask::order(&admin, place, ResourceOrder::Core(Command::Detach(volume))).await?;
        }
        other => {
            let text =
                format!("there is no command \"{other}\": it can be verify, verify-stop, resize, attach or detach");
            return Err(Refused::not_found(text));
        }
    }
    tracing::info!(%name, command = %verb, "the operator's command was carried out");
    Ok(Json(OrderDone::default()))
}

/// Stop those that are under way, of all that are meant.
async fn verify_stop(admin: &Admin, name: &str, peer: Option<&str>) -> Result<(), Refused> {
    let (mut meant, mut stopped) = (0, 0);
    for (place, volume, number, peers) in admin.volumes(name, |view| compared(view, peer))? {
        let known = ask::snapshots(admin, place.thread).await?.volumes;
        let known = known.iter().find(|known| known.export == volume);
        for peer in peers {
            meant += 1;
            let snapshot = known.and_then(|known| known.peers.get(peer));
            if snapshot.is_some_and(|snapshot| snapshot.verify.is_some()) {
                let (volume, peer) = (number, index(peer)?);
                ask::order(admin, place, ResourceOrder::Core(Command::VerifyStop { volume, peer })).await?;
                stopped += 1;
            }
        }
    }
    match (stopped, meant, peer) {
        (0, 0, Some(peer)) => return Err(Refused::not_found(format!("\"{name}\" has no peer \"{peer}\""))),
        (0, ..) => {}
        _ => return Ok(()),
    }
    let with = peer.map(|peer| format!(" with \"{peer}\"")).unwrap_or_default();
    Err(Refused::conflict(format!(
        "no comparison of \"{name}\"{with} is under way on this node: there is nothing to stop (where one is, `blockmirror status` \
         shows it: on the Primary)"
    )))
}

/// A volume that is meant, and the peers that are.
fn compared(view: VolumeView<'_>, peer: Option<&str>) -> (ResourcePlace, String, usize, Vec<usize>) {
    let present = view.resource.peer_views();
    let peers = present.filter(|view| peer.is_none_or(|name| view.config.name == name));
    let peers = peers.map(|peer| peer.number).collect();
    (
        view.resource.place,
        view.config.export.clone(),
        view.served.number,
        peers,
    )
}

/// One comparison per volume and peer that is meant.
async fn verify(
    admin: &Admin,
    name: &str,
    peer: Option<&str>,
    make: impl Fn(usize, mirror_core::event::PeerIndex) -> Command,
) -> Result<(), Refused> {
    let mut asked = 0;
    for (place, _, volume, peers) in admin.volumes(name, |view| compared(view, peer))? {
        for peer in peers {
            let command = make(volume, index(peer)?);
            ask::order(admin, place, ResourceOrder::Core(command)).await?;
            asked += 1;
        }
    }
    match (asked, peer) {
        (0, Some(peer)) => Err(Refused::not_found(format!("\"{name}\" has no peer \"{peer}\""))),
        (0, None) => Err(Refused::conflict(format!("\"{name}\" has no peer to compare with"))),
        _ => Ok(()),
    }
}

async fn resize(admin: &Admin, name: &str, size: u64, (assume_clean, force): (bool, bool)) -> Result<(), Refused> {
    let (place, volume) = admin.volume(name, |view| (view.resource.place, view.served.number))?;
    let command = Command::Resize {
        volume,
        size,
        assume_clean,
        force,
    };
    ask::order(admin, place, ResourceOrder::Core(command)).await
}
