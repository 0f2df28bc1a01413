//! The status report: what the configuration says, joined with what the data threads tell.

use std::time::Duration;

use blockmirror_client::admin::{
    ConnectionState, DiskState, HostAccess, LinkKind, Mode, OnDisconnect, PartnerStatus, PeerStatus, ReplicationState,
    ResourceStatus, ResyncLimit, ResyncStatus, StatusReport, VerifyStatus, VolumeStatus,
};
use mirror_core::config::PeerKind;
use mirror_core::resource::{LinkState, status as core_status};
use mirror_core::state::LocalDisk;
use mirror_core::status::Limit;

use super::branches::{self, Found};
use super::roster::{PeerView, Present, Served, VolumeView};
use super::{stalls, why};
use crate::config::{self, ImageSource, Io, Peer, Protocol, Volume};
use crate::data::{PeerSnapshot, ResourceSnapshot, ResyncSnapshot, StreamSnapshot, VolumeSnapshot};

/// What a data thread tells of itself: all its volumes and resources, by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) volumes: Vec<VolumeSnapshot>,
    pub(super) resources: Vec<ResourceSnapshot>,
}

/// The report of the whole daemon. `known` is by data thread.
pub(super) fn report(
    present: &Present,
    known: &[Known],
    found: &[Found],
    engine: &str,
    uptime_seconds: f64,
) -> StatusReport {
    StatusReport {
        name: present.config.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        engine: engine.to_owned(),
        tls: None,
        // Every thread is what the first one was when it made them.
        io_flusher: rustix::process::is_io_flusher().unwrap_or(false),
        uris: Vec::new(),
        uptime_seconds,
        resources: present
            .resources
            .iter()
            .filter_map(|served| {
                let mut status = resource_status(served, known.get(served.place.thread)?);
                let mine = found.iter().filter(|found| found.resource == status.name);
                status.branches = mine.map(branches::status).collect();
                Some(status)
            })
            .collect(),
    }
}

fn resource_status(served: &Served, known: &Known) -> ResourceStatus {
    let snapshot = known.resources.get(served.place.resource);
    let core = snapshot.and_then(|snapshot| snapshot.status.as_ref());
    let volume = |view: VolumeView<'_>| {
        // By name: numbers change hands when volumes come and go.
        let found = known
            .volumes
            .iter()
            .find(|volume| volume.export == view.config.export)?;
        Some(volume_status(served, view.config, found, snapshot))
    };
    ResourceStatus {
        name: served.config.name.clone(),
        volumes: served.views().filter_map(volume).collect(),
        role: core.map(|core| why::role(core.role)),
        hosts: snapshot.map_or(HostAccess::ReadWrite, |snapshot| hosts(snapshot.hosts)),
        partners: core.map_or_else(Vec::new, |core| partners(served, core, snapshot)),
        alerts: core.map_or_else(Vec::new, |core| alerts(core, served, known)),
        branches: Vec::new(),
    }
}

fn partners(
    served: &Served,
    core: &core_status::ResourceStatus,
    snapshot: Option<&ResourceSnapshot>,
) -> Vec<PartnerStatus> {
    let partner = |peer: PeerView<'_>| {
        let told = core.peers.get(peer.number)?;
        let stream = snapshot.and_then(|snapshot| snapshot.streams.get(peer.number));
        Some(PartnerStatus {
            name: peer.config.name.clone(),
            link: link(told.kind),
            connection_state: connection_state(told.link),
            role: told.role.filter(|_| is_connected(told.link)).map(why::role),
            in_flight: stream.map_or(0, |stream| stream.in_flight as u64),
            bytes_in_flight: stream.map_or(0, |stream| stream.bytes_waiting),
            attempts: stream.map_or(0, |stream| u64::from(stream.attempts)),
            last_error: stream.and_then(|stream| stream.last_error.clone()),
            split_brain: told.split_brain.clone(),
        })
    };
    served.peer_views().filter_map(partner).collect()
}

/// What needs somebody.
fn alerts(core: &core_status::ResourceStatus, served: &Served, known: &Known) -> Vec<String> {
    let mut alerts = Vec::new();
    let mine = |volume: &&VolumeSnapshot| served.config.volumes.iter().any(|known| known.export == volume.export);
    for volume in known.volumes.iter().filter(mine) {
        if let Some(trouble) = volume.branch.as_ref().and_then(|branch| branch.trouble.as_ref()) {
            alerts.push(format!(
                "volume {}, saving what is overwritten: {trouble}",
                volume.export
            ));
        }
        if volume.disk == Some(LocalDisk::Diskless) {
            let served = core.role == mirror_core::identity::Role::Primary && volume.no_data.is_none();
            alerts.push(format!(
                "volume {0} has no image here{1}; when it is there again: `blockmirror attach {0}`",
                volume.export,
                if served { ", and lives on its partners" } else { "" }
            ));
        }
        let stalls = stalls::of(served, volume).into_iter();
        alerts.extend(stalls.map(|stall| format!("{}; to do: {}", stall.what, stall.remedy)));
    }
    for peer in core.peers.iter().filter(|peer| !peer.removed) {
        if let Some(text) = &peer.split_brain {
            alerts.push(format!("split brain with {}: {text}", peer.name));
        } else if let Some(text) = &peer.stand_alone {
            alerts.push(format!("StandAlone towards {}: {text}", peer.name));
        } else if peer.no_space {
            alerts.push(format!(
                "{0} had no space left and is tried again every few seconds: make room where its images are",
                peer.name
            ));
        }
    }
    alerts
}

const fn is_connected(link: LinkState) -> bool {
    matches!(connection_state(link), ConnectionState::Connected)
}

const fn connection_state(link: LinkState) -> ConnectionState {
    match link {
        LinkState::StandAlone => ConnectionState::StandAlone,
        LinkState::Connecting => ConnectionState::Connecting,
        LinkState::Handshake | LinkState::Preparing | LinkState::Connected => ConnectionState::Connected,
    }
}

const fn link(kind: Option<PeerKind>) -> LinkKind {
    match kind {
        None => LinkKind::Unknown,
        Some(PeerKind::Plain) => LinkKind::Nbd,
        Some(PeerKind::Partner) => LinkKind::Stream,
    }
}

const fn hosts(access: mirror_core::resource::HostAccess) -> HostAccess {
    match access {
        mirror_core::resource::HostAccess::Shut => HostAccess::Shut,
        mirror_core::resource::HostAccess::ReadOnly => HostAccess::ReadOnly,
        mirror_core::resource::HostAccess::ReadWrite => HostAccess::ReadWrite,
    }
}

fn volume_status(
    served: &Served,
    volume: &Volume,
    snapshot: &VolumeSnapshot,
    resource: Option<&ResourceSnapshot>,
) -> VolumeStatus {
    let peer = |peer: PeerView<'_>| {
        let found = snapshot.peers.get(peer.number)?;
        let core = resource.and_then(|resource| resource.status.as_ref()?.peers.get(peer.number));
        let mut status = peer_status(peer.config, volume, found);
        status.link = match peer.config.protocol {
            Protocol::Nbd => LinkKind::Nbd,
            Protocol::Auto | Protocol::Blockmirror => core.map_or(LinkKind::Nbd, |core| link(core.kind)),
        };
        if status.link != LinkKind::Nbd {
            let stream = resource.and_then(|resource| resource.streams.get(peer.number));
            of_stream(&mut status, core.map(|core| core.link), stream);
            if core.is_some_and(|core| lacks_image(core, &volume.export)) {
                status.disk_state = DiskState::Diskless;
            }
        }
        Some(status)
    };
    VolumeStatus {
        export: volume.export.clone(),
        image: match &volume.image {
            ImageSource::Path(path) => path.display().to_string(),
            ImageSource::Memory => "memory:".to_owned(),
        },
        size_bytes: snapshot.size_bytes,
        io: match volume.io {
            Io::Buffered => "buffered".to_owned(),
            Io::Direct => "direct".to_owned(),
        },
        image_engine: snapshot.image_engine.clone(),
        connections: snapshot.connections as u64,
        requests_in_flight: snapshot.requests_in_flight as u64,
        bytes_in_flight: snapshot.bytes_in_flight,
        requests_held: snapshot.requests_held as u64,
        hot_extents: snapshot.hot_extents as u64,
        generation: snapshot.generation.clone(),
        failed: snapshot.failed.clone(),
        peers: served.peer_views().filter_map(peer).collect(),
        disk_state: snapshot.disk.map(why::disk_state),
        clients: Vec::new(),
    }
}

/// It has said on the present connection that the volume has no image there.
fn lacks_image(core: &core_status::PeerStatus, export: &str) -> bool {
    let mut disks = core.disks.iter();
    disks.any(|(name, disk)| name == export && *disk == LocalDisk::Diskless)
}

/// What a volume's mirror does not know of a peer that is reached by the resource's stream.
fn of_stream(status: &mut PeerStatus, link: Option<LinkState>, stream: Option<&StreamSnapshot>) {
    if let Some(link) = link
        && status.replication_state == ReplicationState::Off
    {
        status.connection_state = connection_state(link);
    }
    if let Some(stream) = stream {
        status.attempts = status.attempts.max(u64::from(stream.attempts));
        if !stream.connected && stream.last_error.is_some() {
            status.last_error = stream.last_error.clone();
        }
    }
}

fn peer_status(peer: &Peer, volume: &Volume, snapshot: &PeerSnapshot) -> PeerStatus {
    let mut uri = peer.uri.clone();
    uri.export = Some(peer.export_for(&volume.export).to_owned());
    PeerStatus {
        name: peer.name.clone(),
        uri: uri.to_string(),
        mode: match peer.mode {
            config::Mode::Sync => Mode::Sync,
            config::Mode::Async => Mode::Async,
        },
        on_disconnect: match peer.on_disconnect {
            config::OnDisconnect::Continue => OnDisconnect::Continue,
            config::OnDisconnect::Suspend => OnDisconnect::Suspend,
            config::OnDisconnect::Fail => OnDisconnect::Fail,
        },
        connection_state: snapshot.connection_state,
        replication_state: snapshot.replication_state,
        disk_state: snapshot.disk_state,
        dirty_bytes: snapshot.dirty_bytes,
        in_flight: snapshot.in_flight as u64,
        queue_bytes: snapshot.queue_bytes,
        resync: snapshot.resync.as_ref().map(resync_status),
        last_resync: snapshot.last_resync.as_ref().map(resync_status),
        last_error: snapshot.last_error.clone(),
        attempts: u64::from(snapshot.attempts),
        waited_for_seconds: snapshot.waited_for.map(|time| time.as_secs_f64()),
        link: LinkKind::Nbd,
        verify: snapshot.verify.as_ref().map(verify_status),
        last_verify: snapshot.last_verify.as_ref().map(verify_status),
    }
}

fn verify_status(verify: &mirror_core::status::VerifyStatus) -> VerifyStatus {
    let elapsed_seconds = verify.elapsed.as_secs_f64();
    let bytes_per_second = speed(verify.speed, verify.done, elapsed_seconds);
    let left = verify.total.saturating_sub(verify.done);
    VerifyStatus {
        total_bytes: verify.total,
        done_bytes: verify.done,
        differing_bytes: verify.different,
        unread_bytes: verify.unread,
        repair: verify.repair,
        finished: verify.finished,
        elapsed_seconds,
        bytes_per_second,
        eta_seconds: eta(verify.rest, left, bytes_per_second),
    }
}

/// The core's, or the mean since the beginning.
fn speed(told: Option<u64>, done_bytes: u64, elapsed_seconds: f64) -> f64 {
    match told {
        Some(speed) => speed as f64,
        None if elapsed_seconds > 0.0 => done_bytes as f64 / elapsed_seconds,
        None => 0.0,
    }
}

/// The core's, or what is left at this speed: none before anything was done.
fn eta(told: Option<Duration>, left_bytes: u64, bytes_per_second: f64) -> Option<f64> {
    match told {
        Some(rest) => Some(rest.as_secs_f64()),
        None => (bytes_per_second > 0.0).then(|| left_bytes as f64 / bytes_per_second),
    }
}

pub(super) fn resync_status(resync: &ResyncSnapshot) -> ResyncStatus {
    let done_bytes = resync.done_bytes;
    let elapsed_seconds = resync.elapsed.as_secs_f64();
    let bytes_per_second = speed(resync.bytes_per_second, done_bytes, elapsed_seconds);
    ResyncStatus {
        dirty_at_start_bytes: resync.dirty_at_start_bytes,
        done_bytes,
        copied_bytes: resync.copied_bytes,
        zeroed_bytes: resync.zeroed_bytes,
        remaining_bytes: resync.remaining_bytes,
        elapsed_seconds,
        bytes_per_second,
        eta_seconds: eta(resync.eta, resync.remaining_bytes, bytes_per_second),
        equal_bytes: resync.equal_bytes,
        limit: (resync.allowed_bytes_per_second > 0).then(|| limit(resync.limit)),
    }
}

const fn limit(limit: Limit) -> ResyncLimit {
    match limit {
        Limit::Probing => ResyncLimit::Probing,
        Limit::Transport => ResyncLimit::Transport,
        Limit::Application => ResyncLimit::Application,
        Limit::Cap => ResyncLimit::Cap,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_rate_and_time_left() {
        let half = ResyncSnapshot {
            dirty_at_start_bytes: 8192,
            done_bytes: 4096,
            copied_bytes: 1024,
            zeroed_bytes: 3072,
            remaining_bytes: 4096,
            elapsed: Duration::from_secs(2),
            ..ResyncSnapshot::default()
        };
        let status = resync_status(&half);
        assert_eq!((status.done_bytes, status.remaining_bytes), (4096, 4096));
        assert!((status.bytes_per_second - 2048.0).abs() < 1e-9);
        assert_eq!(status.eta_seconds, Some(2.0));
    }

    #[test]
    fn there_is_no_time_left_to_tell_before_anything_was_done() {
        let none = ResyncSnapshot {
            dirty_at_start_bytes: 8192,
            remaining_bytes: 8192,
            ..ResyncSnapshot::default()
        };
        assert_eq!(resync_status(&none).eta_seconds, None);
        let idle = ResyncSnapshot {
            elapsed: Duration::from_secs(1),
            ..none
        };
        assert_eq!(
            (resync_status(&idle).done_bytes, resync_status(&idle).eta_seconds),
            (0, None)
        );
    }
}
