//! The status report: what the configuration says, joined with what the data threads tell.

use blockmirror_client::admin::{
    Mode, OnDisconnect, PeerStatus, ResourceStatus, ResyncStatus, StatusReport, VolumeStatus,
};

use super::exports::Place;
use crate::config::{self, Config, ImageSource, Io, Peer, Resource, Volume};
use crate::data::{PeerSnapshot, ResyncSnapshot, VolumeSnapshot};

/// The report of the whole daemon. `snapshots` is by data thread, then in the order of its plan.
pub(super) fn report(
    config: &Config,
    places: &[Vec<Place>],
    snapshots: &[Vec<VolumeSnapshot>],
    engine: &str,
    uptime_seconds: f64,
) -> StatusReport {
    let resource = |(resource, places): (&Resource, &Vec<Place>)| ResourceStatus {
        name: resource.name.clone(),
        volumes: resource
            .volumes
            .iter()
            .zip(places)
            .filter_map(|(volume, place)| {
                let snapshot = snapshots.get(place.thread)?.get(place.volume)?;
                Some(volume_status(resource, volume, snapshot))
            })
            .collect(),
    };
    StatusReport {
        name: config.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        engine: engine.to_owned(),
        uptime_seconds,
        resources: config.resources.iter().zip(places).map(resource).collect(),
    }
}

fn volume_status(resource: &Resource, volume: &Volume, snapshot: &VolumeSnapshot) -> VolumeStatus {
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
        hot_extents: snapshot.hot_extents as u64,
        generation: snapshot.generation.clone(),
        failed: snapshot.failed.clone(),
        peers: resource
            .peers
            .iter()
            .zip(&snapshot.peers)
            .map(|(peer, snapshot)| peer_status(peer, volume, snapshot))
            .collect(),
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
    }
}

/// The rate is the mean since the start, and the ETA what is left at that rate: none before anything was done.
fn resync_status(resync: &ResyncSnapshot) -> ResyncStatus {
    let done_bytes = resync.done_bytes;
    let elapsed_seconds = resync.elapsed.as_secs_f64();
    let bytes_per_second = if elapsed_seconds > 0.0 {
        done_bytes as f64 / elapsed_seconds
    } else {
        0.0
    };
    let eta_seconds = (bytes_per_second > 0.0).then(|| resync.remaining_bytes as f64 / bytes_per_second);
    ResyncStatus {
        dirty_at_start_bytes: resync.dirty_at_start_bytes,
        done_bytes,
        copied_bytes: resync.copied_bytes,
        zeroed_bytes: resync.zeroed_bytes,
        remaining_bytes: resync.remaining_bytes,
        elapsed_seconds,
        bytes_per_second,
        eta_seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn progress_rate_and_time_left() {
        let half = ResyncSnapshot {
            dirty_at_start_bytes: 8192,
            done_bytes: 4096,
            copied_bytes: 1024,
            zeroed_bytes: 3072,
            remaining_bytes: 4096,
            elapsed: Duration::from_secs(2),
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
