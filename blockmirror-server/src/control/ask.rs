//! Asking a data thread, and waiting for its answer.

use std::time::Duration;

use mirror_core::resource::Answer;
use mirror_core::resource::config::COMMAND_MAX;
use tokio::sync::oneshot;

use super::status::Known;
use crate::data::{DataSender, ResourceOrder, ToData};

/// The core answers every command within its own bound; what is on top is for the way.
const ORDER_TIME: Duration = COMMAND_MAX.saturating_add(Duration::from_secs(30));

/// The data thread does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Silent;

/// What is known of all volumes and resources of a data thread.
pub(super) async fn snapshots(thread: &DataSender, patience: Duration) -> Result<Known, Silent> {
    let (sender, volumes) = oneshot::channel();
    let (other, resources) = oneshot::channel();
    if !thread.send(ToData::Status(sender)) || !thread.send(ToData::Resources(other)) {
        return Err(Silent);
    }
    let both = async { Some((volumes.await.ok()?, resources.await.ok()?)) };
    match tokio::time::timeout(patience, both).await {
        Ok(Some((volumes, resources))) => Ok(Known { volumes, resources }),
        _ => Err(Silent),
    }
}

/// Have a resource carry out an order.
pub(super) async fn order(thread: &DataSender, resource: usize, order: ResourceOrder) -> Result<Answer, Silent> {
    let (answer, receiver) = oneshot::channel();
    let sent = thread.send(ToData::ResourceCommand {
        resource,
        command: order,
        answer,
    });
    if !sent {
        return Err(Silent);
    }
    match tokio::time::timeout(ORDER_TIME, receiver).await {
        Ok(Ok(answer)) => Ok(answer),
        _ => Err(Silent),
    }
}
