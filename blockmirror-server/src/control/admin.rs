//! The admin API: HTTP with JSON over a Unix socket. Requests and answers are in `blockmirror_client::admin`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use blockmirror_client::admin::{ErrorBody, PeerCommand, STATUS_PATH, StatusReport};
use tokio::sync::oneshot;

use super::exports::Place;
use super::status;
use crate::config::Config;
use crate::data::{DataSender, ToData, VolumeSnapshot};

/// A data thread answers within this time, or the operator is told that it does not.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// What the API knows.
pub(super) struct Admin {
    pub(super) config: Config,
    pub(super) places: Vec<Vec<Place>>,
    pub(super) threads: Vec<DataSender>,
    pub(super) engine: String,
    pub(super) started: Instant,
}

/// A request that is not carried out.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(ErrorBody { error: self.1 })).into_response()
    }
}

/// The API's requests.
pub(super) fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route(STATUS_PATH, get(read_status))
        .route("/v1/volumes/{export}/peers/{peer}/{command}", post(command))
        .fallback(async || {
            Refused(
                StatusCode::NOT_FOUND,
                "there is no such request in the admin API".to_owned(),
            )
        })
        .method_not_allowed_fallback(async || {
            let text = "status is asked with GET, commands are given with POST";
            Refused(StatusCode::METHOD_NOT_ALLOWED, text.to_owned())
        })
        .with_state(admin)
}

async fn read_status(State(admin): State<Arc<Admin>>) -> Result<Json<StatusReport>, Refused> {
    let mut snapshots = Vec::new();
    for (index, thread) in admin.threads.iter().enumerate() {
        snapshots.push(snapshot(thread).await.ok_or_else(|| silent(index))?);
    }
    let uptime = admin.started.elapsed().as_secs_f64();
    Ok(Json(status::report(
        &admin.config,
        &admin.places,
        &snapshots,
        &admin.engine,
        uptime,
    )))
}

async fn snapshot(thread: &DataSender) -> Option<Vec<VolumeSnapshot>> {
    let (sender, receiver) = oneshot::channel();
    if !thread.send(ToData::Status(sender)) {
        return None;
    }
    tokio::time::timeout(ANSWER_TIME, receiver).await.ok()?.ok()
}

async fn command(
    State(admin): State<Arc<Admin>>,
    Path((export, peer, verb)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Json<serde_json::Value>, Refused> {
    let command = parse_command(&verb, query.as_deref())?;
    let (place, peer) = admin.find(&export, &peer)?;
    let thread = admin.threads.get(place.thread).ok_or_else(|| silent(place.thread))?;
    let (answer, receiver) = oneshot::channel();
    let order = ToData::Command {
        volume: place.volume,
        peer,
        command,
        answer,
    };
    if !thread.send(order) {
        return Err(silent(place.thread));
    }
    match tokio::time::timeout(ANSWER_TIME, receiver).await {
        Ok(Ok(Ok(()))) => {
            tracing::info!(%export, peer, command = %verb, "the operator's command was taken");
            Ok(Json(serde_json::json!({})))
        }
        Ok(Ok(Err(why))) => Err(Refused(StatusCode::CONFLICT, why)),
        Ok(Err(_)) | Err(_) => Err(silent(place.thread)),
    }
}

fn parse_command(verb: &str, query: Option<&str>) -> Result<PeerCommand, Refused> {
    let full = match query {
        None | Some("" | "full=false") => false,
        Some("full=true") => true,
        Some(other) => {
            let text = format!("?{other} means nothing: write ?full=true, or nothing");
            return Err(Refused(StatusCode::BAD_REQUEST, text));
        }
    };
    match verb {
        "connect" => Ok(PeerCommand::Connect),
        "disconnect" => Ok(PeerCommand::Disconnect),
        "resync" => Ok(PeerCommand::Resync { full }),
        other => {
            let text = format!("there is no command \"{other}\": it can be connect, disconnect or resync");
            Err(Refused(StatusCode::NOT_FOUND, text))
        }
    }
}

fn silent(thread: usize) -> Refused {
    let text = format!("data thread {thread} does not answer: the daemon is stopping, or an image hangs; see the log");
    Refused(StatusCode::SERVICE_UNAVAILABLE, text)
}

impl Admin {
    /// The place of an export and the number of its peer.
    fn find(&self, export: &str, peer: &str) -> Result<(Place, usize), Refused> {
        let not_found = |text: String| Refused(StatusCode::NOT_FOUND, text);
        for (resource, places) in self.config.resources.iter().zip(&self.places) {
            let Some(volume) = resource.volumes.iter().position(|volume| volume.export == export) else {
                continue;
            };
            let place = places.get(volume).copied();
            let number = resource.peers.iter().position(|candidate| candidate.name == peer);
            if let (Some(place), Some(number)) = (place, number) {
                return Ok((place, number));
            }
            let names: Vec<&str> = resource.peers.iter().map(|peer| peer.name.as_str()).collect();
            let known = if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            };
            return Err(not_found(format!(
                "volume \"{export}\" has no peer \"{peer}\"; its peers: {known}"
            )));
        }
        let volumes = self.config.resources.iter().flat_map(|resource| &resource.volumes);
        let names: Vec<&str> = volumes.map(|volume| volume.export.as_str()).collect();
        Err(not_found(format!(
            "there is no volume \"{export}\"; volumes: {}",
            names.join(", ")
        )))
    }
}
