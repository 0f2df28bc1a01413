//! What the nodes of a cluster are made of.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mirror_core::config::{HOT_EXTENTS_MIN, PeerKind, ResyncRate};
use mirror_core::event::LinkKind;
use mirror_core::identity::Role;
use mirror_core::metadata::{PeerSlotConfig, Restored};
use mirror_core::resource::config::{ResourceConfig, ResourcePeer};
use mirror_core::{MirrorConfig, OnDisconnect, PeerConfig};

use super::cluster::{Cluster, PATIENCE, VOLUMES, node_name};
use crate::branch::{BranchFile, BranchPlace};
use crate::data::{
    BranchPlan, DataPlan, Gate, Limits, MirrorPlan, PartnerPlan, PeerPlan, ResourcePlan, StreamHello, VolumePlan,
};
use crate::file_lock::LOCK_PATIENCE;
use crate::image::{Image, ImageOptions, ImagePlace, IoMode};
use crate::metadata_file::{Wanted, image_identity};

impl Cluster {
    /// The data thread of a node, with its peers.
    pub(super) fn plan(&self, at: usize, peers: &[usize]) -> (DataPlan, Arc<Gate>) {
        let volumes: Vec<VolumePlan> = VOLUMES.iter().map(|name| self.volume(at, name)).collect();
        let restored = volumes.iter().map(|volume| &volume.mirror.as_ref().unwrap().restored);
        let was_primary = Restored::were_primary(restored);
        let plain = volumes
            .iter()
            .all(|volume| volume.mirror.as_ref().unwrap().restored.kind(0) == Some(LinkKind::Nbd));
        let remembered = plain.then_some(PeerKind::Plain);
        let incarnation = self.number();
        let gate = Arc::new(Gate::new(StreamHello {
            node: node_name(at),
            incarnation,
            resource: "r".to_owned(),
            volumes: VOLUMES.iter().map(|name| ((*name).to_owned(), self.size)).collect(),
            credit_bytes: 64 << 20,
            credit_requests: 4096,
            ..StreamHello::default()
        }));
        let config = ResourceConfig {
            name: "db".to_owned(),
            node: node_name(at),
            incarnation,
            entropy: incarnation * 7919 + at as u64,
            volumes: VOLUMES.iter().map(|name| (*name).to_owned()).collect(),
            peers: peers
                .iter()
                .map(|&peer| ResourcePeer {
                    name: node_name(peer),
                    kind: remembered.or(self.known_kind()),
                })
                .collect(),
            was_primary,
            ..ResourceConfig::default()
        };
        let partner = |&peer: &usize| PartnerPlan {
            name: node_name(peer),
            heartbeat: Duration::from_millis(200),
            dead_after: Duration::from_secs(3),
            request_timeout: PATIENCE,
        };
        let resource = ResourcePlan {
            name: "r".to_owned(),
            volumes,
            peers: peers.iter().map(partner).collect(),
            config: Some(config),
            gate: Arc::clone(&gate),
        };
        let plan = DataPlan {
            name: node_name(at),
            engine: self.engine,
            resources: vec![resource],
            limits: Limits::default(),
        };
        (plan, gate)
    }

    pub(super) fn volume(&self, at: usize, name: &str) -> VolumePlan {
        let path = self.image(at, name);
        let image = open_image(&path, self.size);
        VolumePlan {
            export: name.to_owned(),
            image,
            minimum_block: 1,
            mirror: Some(self.mirror(at, name, &path)),
            branches: Some(self.branches(at, name)),
        }
    }

    /// Where a node makes branches.
    pub(super) fn branch_directory(&self, at: usize) -> PathBuf {
        self.directory.path().join(format!("{}-branches", node_name(at)))
    }

    fn branches(&self, at: usize, name: &str) -> BranchPlan {
        let directory = self.branch_directory(at);
        std::fs::create_dir_all(&directory).unwrap();
        BranchPlan {
            unfinished: BranchFile::resume(&directory, name, &[]).unwrap(),
            place: BranchPlace {
                directory,
                node: node_name(at),
            },
        }
    }

    fn mirror(&self, at: usize, name: &str, image: &Path) -> MirrorPlan {
        let metadata = self.directory.path().join(format!("{}-{name}.meta", node_name(at)));
        let others = self.others(at);
        let slot = |&peer: &usize| PeerSlotConfig {
            name: node_name(peer),
            skip_initial_sync: false,
            kind: self.known_kind().map(|_| LinkKind::Stream),
        };
        let slots: Vec<PeerSlotConfig> = others.iter().map(slot).collect();
        let entropy = self.number() * 104_729 + at as u64;
        let wanted = Wanted {
            path: &metadata,
            export: name,
            image: Some(image_identity(image, self.size).unwrap()),
            image_path: image,
            peers: &slots,
            adopt: false,
            entropy,
            patience: LOCK_PATIENCE,
        };
        let opened = wanted.open_or_create().unwrap();
        let role = opened.restored.start_role();
        let is_plain = opened.restored.kind(0) == Some(LinkKind::Nbd);
        assert_eq!(role == Role::Primary, is_plain, "partners decide together");
        let peer = |&peer: &usize| PeerConfig {
            name: node_name(peer),
            mode: self.mode,
            on_disconnect: OnDisconnect::Continue,
            queue_bytes: 4 << 20,
            queue_requests: 1024,
            kind: if is_plain { PeerKind::Plain } else { PeerKind::Partner },
        };
        let plan = |&peer: &usize| PeerPlan {
            name: node_name(peer),
            request_timeout: PATIENCE,
            fence_timeout: PATIENCE,
        };
        MirrorPlan {
            config: MirrorConfig {
                size: self.size,
                hot_extents: HOT_EXTENTS_MIN,
                peers: others.iter().map(peer).collect(),
                entropy: entropy + 1,
                role,
                on_io_error: self.on_io_error,
                resync: ResyncRate::default(),
            },
            restored: opened.restored,
            metadata: opened.file,
            peers: others.iter().map(plan).collect(),
        }
    }
}

pub(super) fn open_image(path: &Path, size: u64) -> Image {
    let options = ImageOptions {
        place: ImagePlace::Path(path.to_owned()),
        size: Some(size),
        io: IoMode::Buffered,
        read_only: false,
        preallocate: false,
    };
    Image::open(&options).unwrap()
}
