//! Looking things up for a request, and asking the data thread that has them.

use std::time::Duration;

use axum::http::StatusCode;
use blockmirror_client::admin::{ErrorBody, NeedsAccept};
use mirror_core::resource::Answer;
use tokio::sync::oneshot;

use super::{Admin, Refused};
use crate::control::ask::{self, Silent};
use crate::control::roster::{Place, ResourcePlace, VolumeView};
use crate::control::status::Known;
use crate::control::why;
use crate::data::{ResourceOrder, ToData, ViewPlan};

/// A data thread answers a question within this time, or the operator is told that it does not.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// What is known of all volumes and resources of a data thread.
pub(super) async fn snapshots(admin: &Admin, thread: usize) -> Result<Known, Refused> {
    let Some(sender) = admin.threads.get(thread) else {
        return Err(silent(thread));
    };
    ask::snapshots(sender, ANSWER_TIME)
        .await
        .map_err(|Silent| silent(thread))
}

/// Have a resource carry out an order.
pub(super) async fn order(admin: &Admin, place: ResourcePlace, order: ResourceOrder) -> Result<(), Refused> {
    let sender = admin.threads.get(place.thread).ok_or_else(|| silent(place.thread))?;
    let answer = ask::order(sender, place.resource, order)
        .await
        .map_err(|Silent| silent(place.thread))?;
    match answer {
        Answer::Done => Ok(()),
        Answer::Refused(why) | Answer::HalfDone(why) => Err(Refused::conflict(why)),
        Answer::NeedsAccept { loss, token } => Err(Refused {
            status: StatusCode::CONFLICT,
            body: ErrorBody {
                error: "its Primary did not hand over, and the data here may not be the newest".to_owned(),
                needs_accept: Some(NeedsAccept {
                    loss: why::loss(&loss),
                    token,
                }),
            },
        }),
    }
}

/// Have one volume do something about one peer.
pub(super) async fn of_peer(
    admin: &Admin,
    place: Place,
    make: impl FnOnce(oneshot::Sender<Result<(), String>>) -> ToData,
) -> Result<(), Refused> {
    let thread = admin.threads.get(place.thread).ok_or_else(|| silent(place.thread))?;
    let (answer, receiver) = oneshot::channel();
    if !thread.send(make(answer)) {
        return Err(silent(place.thread));
    }
    match tokio::time::timeout(ANSWER_TIME, receiver).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(why))) => Err(Refused::conflict(why)),
        Ok(Err(_)) | Err(_) => Err(silent(place.thread)),
    }
}

/// Have a branch served; the number of the volume it is in its thread.
pub(super) async fn serve_branch(admin: &Admin, place: ResourcePlace, plan: ViewPlan) -> Result<usize, Refused> {
    let thread = admin.threads.get(place.thread).ok_or_else(|| silent(place.thread))?;
    let (answer, receiver) = oneshot::channel();
    let sent = thread.send(ToData::ServeBranch {
        resource: place.resource,
        plan: Box::new(plan),
        answer,
    });
    if !sent {
        return Err(silent(place.thread));
    }
    match tokio::time::timeout(ANSWER_TIME, receiver).await {
        Ok(Ok(Ok(number))) => Ok(number),
        Ok(Ok(Err(why))) => Err(Refused::conflict(why)),
        Ok(Err(_)) | Err(_) => Err(silent(place.thread)),
    }
}

/// Have a branch served no longer.
pub(super) async fn drop_branch(admin: &Admin, place: Place) -> Result<(), Refused> {
    let thread = admin.threads.get(place.thread).ok_or_else(|| silent(place.thread))?;
    let (answer, receiver) = oneshot::channel();
    let volume = place.volume;
    if !thread.send(ToData::DropBranch { volume, answer }) {
        return Err(silent(place.thread));
    }
    match tokio::time::timeout(ANSWER_TIME, receiver).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(silent(place.thread)),
    }
}

fn silent(thread: usize) -> Refused {
    let text = format!("data thread {thread} does not answer: the daemon is stopping, or an image hangs; see the log");
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, text)
}

impl Admin {
    /// Where the resource is.
    pub(super) fn resource(&self, name: &str) -> Result<ResourcePlace, Refused> {
        let present = self.roster.look();
        present.resource(name).map(|served| served.place).ok_or_else(|| {
            let names: Vec<&str> = present
                .resources
                .iter()
                .map(|served| served.config.name.as_str())
                .collect();
            Refused::not_found(format!(
                "there is no resource \"{name}\"; resources: {}",
                names.join(", ")
            ))
        })
    }

    /// The peer of a resource; the only one when it is not named.
    pub(super) fn peer_of(&self, resource: &str, peer: Option<&str>) -> Result<usize, Refused> {
        let present = self.roster.look();
        let served = present
            .resource(resource)
            .ok_or_else(|| Refused::not_found(format!("there is no resource \"{resource}\"")))?;
        let names: Vec<&str> = served.config.peers.iter().map(|peer| peer.name.as_str()).collect();
        match (peer, &served.peers[..]) {
            (None, [only]) => Ok(*only),
            (None, []) => Err(Refused::conflict(format!("resource \"{resource}\" has no peer"))),
            (None, _) => Err(Refused::conflict(format!(
                "resource \"{resource}\" has several peers, name one: {}",
                names.join(", ")
            ))),
            (Some(name), _) => served.peer(name).map(|peer| peer.number).ok_or_else(|| {
                Refused::not_found(format!(
                    "resource \"{resource}\" has no peer \"{name}\"; its peers: {}",
                    or_none(&names)
                ))
            }),
        }
    }

    /// One volume, with `look`.
    pub(super) fn volume<T>(&self, export: &str, look: impl FnOnce(VolumeView<'_>) -> T) -> Result<T, Refused> {
        let present = self.roster.look();
        match present.volume(export) {
            Some(view) => Ok(look(view)),
            None => {
                let names: Vec<&str> = present.volumes().map(|view| view.config.export.as_str()).collect();
                Err(Refused::not_found(format!(
                    "there is no volume \"{export}\"; volumes: {}",
                    or_none(&names)
                )))
            }
        }
    }

    /// The volume of this name, or all volumes of the resource of this name, with `look`.
    pub(super) fn volumes<T>(&self, name: &str, look: impl Fn(VolumeView<'_>) -> T) -> Result<Vec<T>, Refused> {
        let present = self.roster.look();
        if let Some(served) = present.resource(name).filter(|_| present.volume(name).is_none()) {
            return Ok(served.views().map(look).collect());
        }
        drop(present);
        self.volume(name, look).map(|one| vec![one])
    }
}

/// Names for a message.
pub(super) fn or_none(names: &[&str]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
