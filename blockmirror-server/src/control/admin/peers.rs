//! Commands about one peer of a volume, or of a resource with all its volumes.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use blockmirror_client::admin::{OrderDone, PeerCommand};
use mirror_core::config::PeerKind;
use mirror_core::event::PeerIndex;
use mirror_core::resource::Command;

use super::ask::{self, or_none};
use super::query::Query;
use super::{Admin, Refused};
use crate::control::roster::{Place, ResourcePlace, VolumeView};
use crate::data::{ResourceOrder, ToData};

/// What is meant by a name and a peer's name.
struct Meant {
    resource: ResourcePlace,
    /// The resource has this name, and no volume.
    whole: bool,
    volumes: Vec<Place>,
    peer: usize,
}

pub(super) async fn command(
    State(admin): State<Arc<Admin>>,
    Path((name, peer, verb)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Json<OrderDone>, Refused> {
    let query = query.as_deref();
    match verb.as_str() {
        "connect" => {
            let discard_my_data = Query::parse(query, &["discard_my_data"])?.flag("discard_my_data")?;
            let meant = admin.meant(&name, &peer)?;
            if discard_my_data || admin.is_of_resource(&meant).await? {
                let peer = index(meant.peer)?;
                let connect = Command::Connect { peer, discard_my_data };
                ask::order(&admin, meant.resource, ResourceOrder::Core(connect)).await?;
            } else {
                each(&admin, &meant, PeerCommand::Connect).await?;
            }
        }
        "disconnect" => {
            Query::parse(query, &[])?;
            let meant = admin.meant(&name, &peer)?;
            if admin.is_of_resource(&meant).await? {
                let disconnect = Command::Disconnect(index(meant.peer)?);
                ask::order(&admin, meant.resource, ResourceOrder::Core(disconnect)).await?;
            } else {
                each(&admin, &meant, PeerCommand::Disconnect).await?;
            }
        }
        "resync" => {
            let full = Query::parse(query, &["full"])?.flag("full")?;
            let meant = admin.meant(&name, &peer)?;
            if !full && admin.is_of_resource(&meant).await? {
                // Everything dirty is copied as soon as a partner is connected; if it is, what a verify has marked.
                let (peer, discard_my_data) = (index(meant.peer)?, false);
                let connect = Command::Connect { peer, discard_my_data };
                ask::order(&admin, meant.resource, ResourceOrder::Core(connect)).await?;
            } else {
                each(&admin, &meant, PeerCommand::Resync { full }).await?;
            }
        }
        other => {
            let text = format!("there is no command \"{other}\": it can be connect, disconnect or resync");
            return Err(Refused::not_found(text));
        }
    }
    tracing::info!(%name, %peer, command = %verb, "the operator's command was taken");
    Ok(Json(OrderDone::default()))
}

async fn each(admin: &Admin, meant: &Meant, command: PeerCommand) -> Result<(), Refused> {
    for place in &meant.volumes {
        let (volume, peer) = (place.volume, meant.peer);
        ask::of_peer(admin, *place, |answer| ToData::Command {
            volume,
            peer,
            command,
            answer,
        })
        .await?;
    }
    Ok(())
}

/// A peer's number as the core has it.
pub(super) fn index(peer: usize) -> Result<PeerIndex, Refused> {
    u8::try_from(peer)
        .map(PeerIndex)
        .map_err(|_| Refused::conflict("there have been too many peers: restart the daemon"))
}

impl Admin {
    /// The whole resource is named, or the peer is connected to it as a whole.
    async fn is_of_resource(&self, meant: &Meant) -> Result<bool, Refused> {
        if meant.whole {
            return Ok(true);
        }
        let known = ask::snapshots(self, meant.resource.thread).await?;
        let resource = known.resources.get(meant.resource.resource);
        let core = resource.and_then(|resource| resource.status.as_ref());
        let peer = core.and_then(|core| core.peers.get(meant.peer));
        Ok(peer.is_some_and(|peer| peer.kind != Some(PeerKind::Plain)))
    }

    fn meant(&self, name: &str, peer: &str) -> Result<Meant, Refused> {
        let look = |view: VolumeView<'_>| {
            let names: Vec<&str> = view
                .resource
                .config
                .peers
                .iter()
                .map(|peer| peer.name.as_str())
                .collect();
            let number = view
                .resource
                .peer(peer)
                .map(|peer| peer.number)
                .ok_or_else(|| or_none(&names));
            (view.resource.place, view.served.place, number)
        };
        let found = self.volumes(name, look)?;
        let whole = self.roster.look().volume(name).is_none();
        let mut meant: Option<Meant> = None;
        for (resource, volume, number) in found {
            let peer = number.map_err(|known| {
                Refused::not_found(format!("volume \"{name}\" has no peer \"{peer}\"; its peers: {known}"))
            })?;
            meant
                .get_or_insert_with(|| Meant {
                    resource,
                    whole,
                    volumes: Vec::new(),
                    peer,
                })
                .volumes
                .push(volume);
        }
        meant.ok_or_else(|| Refused::not_found(format!("\"{name}\" has no volumes")))
    }
}
