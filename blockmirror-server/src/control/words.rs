//! From the configuration's words to those of the data threads and the core.

use mirror_core::config::PeerKind;
use mirror_core::identity::SplitBrainPolicy;
use mirror_core::resource::AfterRestart;
use mirror_core::{AckMode, PeerConfig};

use crate::config::{
    ImageSource, Io, Mode, OnDisconnect, OnIoError, Peer, Resource, RoleAfterRestart, SplitBrain, Volume,
};
use crate::data::{PartnerPlan, PeerPlan};
use crate::image::{ImageOptions, ImagePlace, IoMode};

/// Requests the queue of an async peer holds at most before the peer falls Behind; its bytes are bounded by `queue`.
const QUEUE_REQUESTS: usize = 16_384;

pub(super) fn after_restart(resource: &Resource) -> AfterRestart {
    match resource.role_after_restart {
        RoleAfterRestart::Resume => AfterRestart::Resume,
        RoleAfterRestart::Secondary => AfterRestart::Secondary,
    }
}

pub(super) fn split_brain(resource: &Resource) -> SplitBrainPolicy {
    match resource.split_brain {
        SplitBrain::Manual => SplitBrainPolicy::Manual,
        SplitBrain::DiscardYounger => SplitBrainPolicy::DiscardYounger,
        SplitBrain::DiscardLeastChanges => SplitBrainPolicy::DiscardLeastChanges,
        SplitBrain::DiscardZeroChanges => SplitBrainPolicy::DiscardZeroChanges,
    }
}

pub(super) fn on_io_error(resource: &Resource) -> mirror_core::config::OnIoError {
    match resource.on_io_error {
        OnIoError::Detach => mirror_core::config::OnIoError::Detach,
        OnIoError::Pass => mirror_core::config::OnIoError::Pass,
    }
}

pub(super) fn image_options(volume: &Volume) -> ImageOptions {
    ImageOptions {
        place: match &volume.image {
            ImageSource::Path(path) => ImagePlace::Path(path.clone()),
            ImageSource::Memory => ImagePlace::Memory,
        },
        size: volume.size,
        io: match volume.io {
            Io::Buffered => IoMode::Buffered,
            Io::Direct => IoMode::Direct,
        },
        read_only: volume.read_only,
        preallocate: volume.preallocate,
    }
}

/// For the links of a volume.
pub(super) fn peer_plan(peer: &Peer) -> PeerPlan {
    PeerPlan {
        name: peer.name.clone(),
        request_timeout: peer.request_timeout,
        fence_timeout: peer.fence_timeout,
    }
}

/// For the streams of a resource.
pub(super) fn partner_plan(peer: &Peer) -> PartnerPlan {
    PartnerPlan {
        name: peer.name.clone(),
        heartbeat: peer.heartbeat,
        dead_after: peer.dead_after,
        request_timeout: peer.request_timeout,
    }
}

/// For the core. A peer that has not been reached is a partner until it turns out to be none.
pub(super) fn peer_config(peer: &Peer, kind: Option<PeerKind>) -> PeerConfig {
    PeerConfig {
        name: peer.name.clone(),
        mode: match peer.mode {
            Mode::Sync => AckMode::Sync,
            Mode::Async => AckMode::Async,
        },
        on_disconnect: match peer.on_disconnect {
            OnDisconnect::Continue => mirror_core::OnDisconnect::Continue,
            OnDisconnect::Suspend => mirror_core::OnDisconnect::Suspend,
            OnDisconnect::Fail => mirror_core::OnDisconnect::Fail,
        },
        queue_bytes: peer.queue,
        queue_requests: QUEUE_REQUESTS,
        kind: kind.unwrap_or(PeerKind::Partner),
    }
}
