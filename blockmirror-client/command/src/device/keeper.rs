//! Keeping a device for as long as this process is to live.

use raid1_glue::attach::{End, Kept};
use tokio::signal::unix::{SignalKind, signal};

use super::service::Service;
use crate::failure::Failure;

/// Ends when the process is told to end.
pub fn told_to_stop() -> Result<impl Future<Output = ()>, Failure> {
    let failed = |error| Failure::Failed(format!("signals cannot be caught: {error}"));
    let mut terminated = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
    })
}

/// Until it is detached, or this process is told to end. The device stays then.
pub async fn keep(mut kept: Kept, stop: impl Future<Output = ()>, service: &Service) {
    let end = kept.keep(stop, |event| service.tell(&event)).await;
    service.stops(match end {
        End::Detached => "has been detached",
        End::Told => "stays attached, and nobody connects it again",
    });
}
