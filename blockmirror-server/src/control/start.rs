//! From a configuration to opened images, metadata files and the plans of the data threads. Blocking.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mirror_core::config::{HOT_EXTENTS_DEFAULT, OnIoError, PeerKind, ResyncRate, VOLUME_BYTES_MAX};
use mirror_core::identity::Role;
use mirror_core::metadata::{PeerSlotConfig, Restored};
use mirror_core::{AckMode, MirrorConfig, PeerConfig};
use tokio::sync::Semaphore;

use super::dialer::{PeerKey, Target};
use super::exports::{Entry, MAXIMUM_PAYLOAD, Place, export_info};
use super::fit::Leg;
use crate::config::{Config, Engine, ImageSource, Io, Mode, OnDisconnect, Peer, Resource, Volume};
use crate::data::{self, DataPlan, MirrorPlan, PeerPlan, VolumePlan};
use crate::image::{Image, ImageOptions, ImagePlace, IoMode, OpenError};
use crate::metadata_file::{LOCK_PATIENCE, MetadataFileError, Wanted, image_identity};
use crate::ring::EngineChoice;

/// Requests the queue of an async peer holds at most before the peer falls Behind; its bytes are bounded by `queue`.
const QUEUE_REQUESTS: usize = 16_384;

/// Why a daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `--adopt` names what is not there.
    #[error(
        "--adopt {0}: no volume with a metadata file has this export name; `blockmirror-server --check` lists them"
    )]
    UnknownAdopt(String),
    /// An image cannot be opened.
    #[error("export \"{export}\": {error}")]
    Image {
        /// The export.
        export: String,
        /// Why.
        error: OpenError,
    },
    /// An image is larger than a mirror can be.
    #[error(
        "export \"{export}\": the image {} has {size} bytes, a mirrored volume {VOLUME_BYTES_MAX} (1 PiB) at most; use \
         several volumes, or set mirror = false", path.display()
    )]
    TooLarge {
        /// The export.
        export: String,
        /// The image.
        path: PathBuf,
        /// Its bytes.
        size: u64,
    },
    /// An image cannot be identified.
    #[error("export \"{export}\": the image {} cannot be identified: {error}", path.display())]
    Identity {
        /// The export.
        export: String,
        /// The image.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A metadata file is refused.
    #[error(transparent)]
    Metadata(#[from] MetadataFileError),
    /// There is no randomness.
    #[error("/dev/urandom cannot be read: {0}; new generation identifiers need it")]
    Entropy(io::Error),
}

/// Everything opened, nothing started.
pub(super) struct Prepared {
    pub(super) plans: Vec<DataPlan>,
    pub(super) entries: Vec<Entry>,
    pub(super) targets: HashMap<PeerKey, Target>,
    /// Where every volume is: by resource, then by volume, in the order of the configuration.
    pub(super) places: Vec<Vec<Place>>,
}

/// Open everything the configuration names.
pub(super) fn prepare(config: &Config, adopt: &BTreeSet<String>) -> Result<Prepared, StartError> {
    check_adopt(config, adopt)?;
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut preparing = Preparing {
        config,
        adopt,
        prepared: Prepared {
            plans: (0..config.thread_count(cores))
                .map(|thread| empty_plan(config, thread))
                .collect(),
            entries: Vec::new(),
            targets: HashMap::new(),
            places: Vec::new(),
        },
    };
    for (index, resource) in config.resources.iter().enumerate() {
        let thread = index % preparing.prepared.plans.len();
        let places = resource
            .volumes
            .iter()
            .map(|volume| preparing.volume(resource, volume, thread));
        let places = places.collect::<Result<Vec<Place>, StartError>>()?;
        preparing.prepared.places.push(places);
    }
    Ok(preparing.prepared)
}

fn check_adopt(config: &Config, adopt: &BTreeSet<String>) -> Result<(), StartError> {
    for name in adopt {
        let mut volumes = config.resources.iter().flat_map(|resource| &resource.volumes);
        if !volumes.any(|volume| volume.export == *name && volume.metadata.is_some()) {
            return Err(StartError::UnknownAdopt(name.clone()));
        }
    }
    Ok(())
}

fn empty_plan(config: &Config, thread: usize) -> DataPlan {
    let limits = &config.limits;
    DataPlan {
        name: format!("data-{thread}"),
        engine: match config.engine {
            Engine::Auto => EngineChoice::Auto,
            Engine::Uring => EngineChoice::Uring,
            Engine::Threads => EngineChoice::Threads,
        },
        volumes: Vec::new(),
        limits: data::Limits {
            budget_bytes: limits.bytes_in_flight.max(u64::from(MAXIMUM_PAYLOAD)),
            budget_requests: u32::try_from(limits.requests_in_flight).unwrap_or(u32::MAX),
            idle_timeout: limits.idle_timeout,
        },
    }
}

struct Preparing<'a> {
    config: &'a Config,
    adopt: &'a BTreeSet<String>,
    prepared: Prepared,
}

impl Preparing<'_> {
    fn volume(&mut self, resource: &Resource, volume: &Volume, thread: usize) -> Result<Place, StartError> {
        let image = Image::open(&image_options(volume)).map_err(|error| StartError::Image {
            export: volume.export.clone(),
            error,
        })?;
        let size = image.size();
        let mirror = match (&volume.metadata, &volume.image) {
            (Some(metadata), ImageSource::Path(path)) => Some(self.mirror(resource, volume, size, path, metadata)?),
            _ => None,
        };
        let place = Place {
            thread,
            volume: self.prepared.plans[thread].volumes.len(),
        };
        self.prepared.plans[thread].volumes.push(VolumePlan {
            export: volume.export.clone(),
            image,
            minimum_block: volume.minimum_block,
            mirror,
        });
        self.prepared.entries.push(Entry {
            info: export_info(volume, size),
            place,
            slots: Arc::new(Semaphore::new(self.config.limits.max_connections_per_export)),
        });
        for (index, peer) in resource.peers.iter().enumerate() {
            self.prepared.targets.insert((place, index), target(peer, volume, size));
        }
        Ok(place)
    }

    fn mirror(
        &self,
        resource: &Resource,
        volume: &Volume,
        size: u64,
        image: &Path,
        metadata: &Path,
    ) -> Result<MirrorPlan, StartError> {
        if size > VOLUME_BYTES_MAX {
            return Err(StartError::TooLarge {
                export: volume.export.clone(),
                path: image.to_owned(),
                size,
            });
        }
        let identity = image_identity(image, size).map_err(|error| StartError::Identity {
            export: volume.export.clone(),
            path: image.to_owned(),
            error,
        })?;
        let slot = |peer: &Peer| PeerSlotConfig {
            name: peer.name.clone(),
            skip_initial_sync: peer.skip_initial_sync,
        };
        let peers: Vec<PeerSlotConfig> = resource.peers.iter().map(slot).collect();
        let adopt = self.adopt.contains(&volume.export);
        let entropy = entropy()?;
        let wanted = Wanted {
            path: metadata,
            export: &volume.export,
            image: identity,
            image_path: image,
            peers: &peers,
            adopt,
            entropy,
            patience: LOCK_PATIENCE,
        };
        let opened = wanted.open_or_create()?;
        tell(volume, metadata, &opened.restored, opened.created, adopt);
        Ok(MirrorPlan {
            config: MirrorConfig {
                size,
                hot_extents: resource
                    .hot_extents
                    .and_then(|count| usize::try_from(count).ok())
                    .unwrap_or(HOT_EXTENTS_DEFAULT),
                peers: resource.peers.iter().map(peer_config).collect(),
                entropy: self::entropy()?,
                role: Role::Primary,
                on_io_error: OnIoError::Pass,
                resync: ResyncRate::default(),
            },
            restored: opened.restored,
            metadata: opened.file,
            peers: resource.peers.iter().map(peer_plan).collect(),
        })
    }
}

fn tell(volume: &Volume, metadata: &Path, restored: &Restored, created: bool, adopt: bool) {
    let (export, metadata) = (&volume.export, metadata.display());
    let hot_extents = restored.hot_extents().len();
    if created {
        tracing::info!(%export, %metadata, "metadata file created");
    } else if adopt {
        tracing::warn!(%export, %metadata, "the image is adopted: where it is another one, every peer is copied in full");
    } else if !restored.was_clean() {
        tracing::warn!(%export, %metadata, hot_extents, "the last stop was not in order: hot extents are resynchronised");
    } else {
        tracing::info!(%export, %metadata, "metadata file read");
    }
}

fn image_options(volume: &Volume) -> ImageOptions {
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

fn target(peer: &Peer, volume: &Volume, size: u64) -> Target {
    Target {
        name: peer.name.clone(),
        address: peer.uri.address.clone(),
        export: peer.export_for(&volume.export).to_owned(),
        leg: Leg {
            export: volume.export.clone(),
            size,
            minimum_block: volume.minimum_block,
        },
    }
}

fn peer_plan(peer: &Peer) -> PeerPlan {
    PeerPlan {
        name: peer.name.clone(),
        request_timeout: peer.request_timeout,
        fence_timeout: peer.fence_timeout,
    }
}

fn peer_config(peer: &Peer) -> PeerConfig {
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
        kind: PeerKind::Plain,
    }
}

fn entropy() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    let mut source = File::open("/dev/urandom").map_err(StartError::Entropy)?;
    source.read_exact(&mut bytes).map_err(StartError::Entropy)?;
    Ok(u64::from_ne_bytes(bytes))
}
