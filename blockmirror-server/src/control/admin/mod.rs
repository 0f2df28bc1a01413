//! The admin API: HTTP with JSON over a Unix socket. Requests and answers are in `blockmirror_client::admin`.

mod ask;
mod attach;
mod branches;
mod orders;
mod peers;
mod query;

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use blockmirror_client::admin::{
    BRANCHES_PATH, ErrorBody, RELOAD_PATH, ReloadReport, STATUS_PATH, StatusReport, WhyReport,
};

use self::query::Query;
use super::clients::Clients;
use super::reload::Reloader;
use super::roster::Roster;
use super::security::Keyring;
use super::{status, why};
use crate::data::DataSender;

/// What the API knows.
pub(super) struct Admin {
    pub(super) roster: Roster,
    pub(super) threads: Vec<DataSender>,
    pub(super) engine: String,
    pub(super) keyring: Arc<Keyring>,
    pub(super) clients: Clients,
    pub(super) uris: Vec<String>,
    pub(super) started: Instant,
    pub(super) reloader: Reloader,
}

/// A request that is not carried out.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    body: ErrorBody,
}

impl Refused {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            body: ErrorBody::new(text),
        }
    }

    fn not_found(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    fn conflict(text: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, text)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

/// The API's requests.
pub(super) fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route(STATUS_PATH, get(read_status))
        .route(RELOAD_PATH, post(reload))
        .route(BRANCHES_PATH, get(branches::list))
        .route("/v1/branches/{branch}/{verb}", post(branches::command))
        .route("/v1/resources/{resource}/why", get(read_why))
        .route("/v1/resources/{resource}/{verb}", post(orders::of_resource))
        .route("/v1/volumes/{volume}/{verb}", post(orders::of_volume))
        .route("/v1/volumes/{volume}/peers/{peer}/{verb}", post(peers::command))
        .fallback(async || Refused::not_found("there is no such request in the admin API"))
        .method_not_allowed_fallback(async || {
            let text = "reports are asked with GET, commands are given with POST";
            Refused::new(StatusCode::METHOD_NOT_ALLOWED, text)
        })
        .with_state(admin)
}

async fn read_status(
    State(admin): State<Arc<Admin>>,
    RawQuery(query): RawQuery,
) -> Result<Json<StatusReport>, Refused> {
    Query::parse(query.as_deref(), &[])?;
    let mut known = Vec::new();
    for thread in 0..admin.threads.len() {
        known.push(ask::snapshots(&admin, thread).await?);
    }
    let found = branches::all(&admin).await?;
    let uptime = admin.started.elapsed().as_secs_f64();
    let present = admin.roster.look();
    let mut report = status::report(&present, &known, &found, &admin.engine, uptime);
    report.uris.clone_from(&admin.uris);
    report.tls = admin.keyring.describe();
    for volume in report.resources.iter_mut().flat_map(|resource| &mut resource.volumes) {
        volume.clients = admin.clients.of(&volume.export);
    }
    Ok(Json(report))
}

async fn read_why(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<WhyReport>, Refused> {
    Query::parse(query.as_deref(), &[])?;
    let place = admin.resource(&name)?;
    let known = ask::snapshots(&admin, place.thread).await?;
    let present = admin.roster.look();
    let mut resources = present.resources.iter();
    let served = resources.find(|served| served.config.name == name);
    let report = served.and_then(|served| why::report(&present.config.name, served, &known));
    report.map(Json).ok_or_else(|| {
        Refused::conflict(format!(
            "resource \"{name}\" is not mirrored: nothing is decided about it"
        ))
    })
}

async fn reload(State(admin): State<Arc<Admin>>, RawQuery(query): RawQuery) -> Result<Json<ReloadReport>, Refused> {
    Query::parse(query.as_deref(), &[])?;
    admin
        .reloader
        .reload()
        .await
        .map(Json)
        .map_err(|error| Refused::new(StatusCode::BAD_REQUEST, error))
}
