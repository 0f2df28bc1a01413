//! Orders to resources and volumes.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use blockmirror_client::admin::OrderDone;
use mirror_core::resource::Command;

use super::peers::index;
use super::query::Query;
use super::{Admin, Refused, ask, attach};
use crate::control::roster::{PeerView, VolumeView};
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
            let make = |volume, peer| Command::VerifyStop { volume, peer };
            verify(&admin, &name, query.text("peer"), make).await?;
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

/// One comparison per volume and peer that is meant.
async fn verify(
    admin: &Admin,
    name: &str,
    peer: Option<&str>,
    make: impl Fn(usize, mirror_core::event::PeerIndex) -> Command,
) -> Result<(), Refused> {
    let wanted = |view: &PeerView<'_>| peer.is_none_or(|name| view.config.name == name);
    let look = |view: VolumeView<'_>| {
        let peers: Vec<usize> = view
            .resource
            .peer_views()
            .filter(wanted)
            .map(|peer| peer.number)
            .collect();
        (view.resource.place, view.served.number, peers)
    };
    let mut asked = 0;
    for (place, volume, peers) in admin.volumes(name, look)? {
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
