//! Everything a data thread needs to start; made by the control side, consumed by [`spawn`](super::spawn).

use std::sync::Arc;
use std::time::Duration;

use mirror_core::MirrorConfig;
use mirror_core::metadata::Restored;
use mirror_core::resource::config::ResourceConfig;

use super::resource::Gate;
use crate::branch::{BranchFile, BranchPlace, Index};
use crate::image::Image;
use crate::ring::EngineChoice;

/// A data thread.
pub struct DataPlan {
    /// Thread name, for the log and for `ps`; at most 15 bytes are shown.
    pub name: String,
    /// Which I/O engine.
    pub engine: EngineChoice,
    /// Its resources. Its volumes are numbered through all of them, in this order.
    pub resources: Vec<ResourcePlan>,
    /// Bounds.
    pub limits: Limits,
}

/// One resource of a data thread.
pub struct ResourcePlan {
    /// Its name, the same on every node.
    pub name: String,
    /// Its volumes, by name order: a stream names them by their place.
    pub volumes: Vec<VolumePlan>,
    /// Its peers, in the order of every volume's `MirrorPlan::peers`.
    pub peers: Vec<PartnerPlan>,
    /// The resource's state machine; its volumes and peers are in the order they have here. `None` (`mirror = false`):
    /// it has no role, and no streams.
    pub config: Option<ResourceConfig>,
    /// What the control side knows of it without asking.
    pub gate: Arc<Gate>,
}

/// A peer of a resource, as far as it may be another blockmirror.
#[derive(Clone, Debug)]
pub struct PartnerPlan {
    /// Its name: the node name of a blockmirror.
    pub name: String,
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// Silence after which the connection is lost.
    pub dead_after: Duration,
    /// A request left unanswered for this long means that the connection is lost.
    pub request_timeout: Duration,
}

/// One volume of a data thread.
pub struct VolumePlan {
    /// The export's name.
    pub export: String,
    /// The opened image.
    pub image: Image,
    /// The minimum block size the export advertises: a peer that asks for larger ones does not fit.
    pub minimum_block: u32,
    /// The mirror machinery; `None` (`mirror = false`): served plain, only overlapping mutations are ordered.
    pub mirror: Option<MirrorPlan>,
    /// Where it is saved what another history overwrites; `None`: nowhere, so that no history can.
    pub branches: Option<BranchPlan>,
}

/// The branches of a volume.
#[derive(Debug)]
pub struct BranchPlan {
    /// Where new ones are made.
    pub place: BranchPlace,
    /// The one that an earlier life of the daemon has left unfinished.
    pub unfinished: Option<BranchFile>,
}

/// A branch that is to be served: what it has, over the image as it is.
pub struct ViewPlan {
    /// The export's name.
    pub export: String,
    /// Bytes.
    pub size: u64,
    /// The minimum block size the export advertises.
    pub minimum_block: u32,
    /// What the branch has.
    pub index: Index,
    /// Its file.
    pub branch: std::fs::File,
    /// The image.
    pub image: std::fs::File,
}

/// The mirror of one volume.
pub struct MirrorPlan {
    /// The core's configuration; its peers are in the order of `peers`.
    pub config: MirrorConfig,
    /// What the metadata file holds.
    pub restored: Restored,
    /// The metadata file, opened and locked.
    pub metadata: std::fs::File,
    /// The peers.
    pub peers: Vec<PeerPlan>,
}

/// One peer, as the data thread needs it.
#[derive(Clone, Debug)]
pub struct PeerPlan {
    /// Its name, for the log.
    pub name: String,
    /// A request left unanswered for this long means that the connection is lost.
    pub request_timeout: Duration,
    /// How long a lost connection may keep the next one waiting until the peer is seen to have closed it.
    pub fence_timeout: Duration,
}

/// Bounds of a data thread.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of host payload in flight per volume; at least one request of the largest size.
    pub budget_bytes: u64,
    /// Host requests in flight per volume.
    pub budget_requests: u32,
    /// A host connection without a request in flight that stays silent for this long is closed; `None`: never.
    pub idle_timeout: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            budget_bytes: 64 << 20,
            budget_requests: 1024,
            idle_timeout: None,
        }
    }
}
