//! Waiting until a peer is Established.

use std::time::{Duration, Instant};

use blockmirror_client::admin::{
    AdminClient, ConnectionState, DiskState, PeerStatus, ReplicationState, ResyncStatus, StatusReport, VolumeStatus,
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

/// Where everything is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// In the images of this node.
    Here,
    /// On every peer too.
    Everywhere,
}

/// Waits until nothing is left to be copied of a volume, or of all volumes of a resource, showing progress.
pub async fn until_complete(admin: &AdminClient, name: &str, goal: Goal, timeout: Duration) -> Result<(), Failure> {
    let mut progress = Progress::new(name);
    let started = Instant::now();
    loop {
        let report = admin.status().await?;
        let lacking = match lacking(&report, name, goal) {
            Ok(None) => {
                progress.end(false);
                return Ok(());
            }
            Ok(Some(lacking)) => lacking,
            Err(reason) => {
                progress.end(true);
                return Err(Failure::Failed(reason));
            }
        };
        progress.peer(lacking);
        if started.elapsed() >= timeout {
            progress.end(true);
            return Err(Failure::Failed(too_late(lacking, timeout)));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// A peer whose copying is still waited for: of those, one that copies now.
fn lacking<'a>(report: &'a StatusReport, name: &str, goal: Goal) -> Result<Option<&'a PeerStatus>, String> {
    let mut copying: Option<&PeerStatus> = None;
    for volume in meant(report, name)? {
        let here = volume.disk_state.is_none_or(|disk| disk == DiskState::UpToDate);
        let alone = |peer: &PeerStatus| peer.connection_state == ConnectionState::StandAlone;
        if !here && volume.peers.iter().all(alone) {
            return Err(format!(
                "volume \"{}\" is not complete here, and every peer is StandAlone: see `blockmirror why`",
                volume.export
            ));
        }
        for peer in &volume.peers {
            let there = match judge(name, peer) {
                Verdict::GiveUp(reason) if goal == Goal::Everywhere => return Err(reason),
                verdict => goal == Goal::Here || (verdict == Verdict::Established && peer.dirty_bytes == 0),
            };
            if (!here || !there) && copying.is_none_or(|copying| copying.resync.is_none()) {
                copying = Some(peer);
            }
        }
    }
    Ok(copying)
}

/// The name of a volume goes before that of a resource, here as in the daemon.
fn meant<'a>(report: &'a StatusReport, name: &str) -> Result<Vec<&'a VolumeStatus>, String> {
    let mut volumes = report.resources.iter().flat_map(|resource| &resource.volumes);
    if let Some(volume) = volumes.find(|volume| volume.export == name) {
        return Ok(vec![volume]);
    }
    let resource = report.resource(name);
    resource
        .map(|resource| resource.volumes.iter().collect())
        .ok_or_else(|| format!("{} has no volume or resource \"{name}\" any more", report.name))
}

/// The peer is there, and nothing is known that it lacks.
pub fn has_everything(peer: &PeerStatus) -> bool {
    judge("", peer) == Verdict::Established && peer.dirty_bytes == 0
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
