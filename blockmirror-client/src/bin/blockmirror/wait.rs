//! Waiting until a peer is Established.

use std::time::{Duration, Instant};

use blockmirror_client::admin::{
    AdminClient, ConnectionState, PeerStatus, ReplicationState, ResyncStatus, StatusReport,
};

use crate::args::PeerArgs;
use crate::failure::Failure;
use crate::human;
use crate::progress::Progress;

/// Between two questions.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// What a look at the peer says about the wait.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Established,
    GoOn,
    GiveUp(String),
}

/// The peer's present state. Of a resource with several volumes: in the volume that is furthest from Established.
pub async fn look(admin: &AdminClient, peer: &PeerArgs) -> Result<PeerStatus, Failure> {
    let report = admin.status().await?;
    find(&report, peer).cloned().ok_or_else(|| {
        Failure::Failed(format!(
            "{} has no volume or resource \"{}\" with a peer \"{}\": see `blockmirror status`",
            report.name, peer.volume, peer.peer
        ))
    })
}

fn find<'a>(report: &'a StatusReport, wanted: &PeerArgs) -> Option<&'a PeerStatus> {
    // The name of a volume goes before that of a resource, here as in the daemon.
    let of_volume = report.peer(&wanted.volume, &wanted.peer);
    of_volume.or_else(|| {
        let volumes = &report.resource(&wanted.volume)?.volumes;
        let peers = volumes.iter().flat_map(|volume| &volume.peers);
        peers
            .filter(|peer| peer.name == wanted.peer)
            .max_by_key(|peer| match judge(&wanted.volume, peer) {
                Verdict::Established => 0,
                Verdict::GoOn => 1,
                Verdict::GiveUp(_) => 2,
            })
    })
}

/// Waits, showing progress; the last resync when one ended since `before`, which was seen before the wait's cause.
pub async fn until_established(
    admin: &AdminClient,
    peer: &PeerArgs,
    before: &PeerStatus,
    timeout: Duration,
) -> Result<Option<ResyncStatus>, Failure> {
    let mut progress = Progress::new(&peer.peer);
    let started = Instant::now();
    loop {
        let now = look(admin, peer).await?;
        match judge(&peer.volume, &now) {
            Verdict::Established => {
                let resync = now
                    .last_resync
                    .filter(|resync| before.last_resync.as_ref() != Some(resync));
                if let Some(resync) = &resync {
                    progress.resync_done(resync);
                }
                progress.end(resync.is_some());
                return Ok(resync);
            }
            Verdict::GiveUp(reason) => {
                progress.end(true);
                return Err(Failure::Failed(reason));
            }
            Verdict::GoOn => progress.peer(&now),
        }
        if started.elapsed() >= timeout {
            progress.end(true);
            return Err(Failure::Failed(too_late(&now, timeout)));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn judge(name: &str, peer: &PeerStatus) -> Verdict {
    match peer.connection_state {
        ConnectionState::StandAlone => Verdict::GiveUp(format!(
            "peer \"{0}\" is StandAlone{1}: let it connect with `blockmirror connect {name} {0}`",
            peer.name,
            because(peer)
        )),
        ConnectionState::Connected
            if peer.replication_state == ReplicationState::Established && peer.resync.is_none() =>
        {
            Verdict::Established
        }
        _ => Verdict::GoOn,
    }
}

fn too_late(peer: &PeerStatus, timeout: Duration) -> String {
    let state = match peer.connection_state {
        ConnectionState::Connected => peer.replication_state.to_string(),
        other => other.to_string(),
    };
    format!(
        "after {} peer \"{}\" is not Established but {state}, with {} dirty{}",
        human::duration(timeout.as_secs_f64()),
        peer.name,
        human::bytes(peer.dirty_bytes),
        because(peer)
    )
}

fn because(peer: &PeerStatus) -> String {
    peer.last_error
        .as_deref()
        .map(|error| format!(" (last error: {error})"))
        .unwrap_or_default()
}
