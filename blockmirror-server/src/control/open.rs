//! Opening what a resource needs: images, metadata files, and the plans by which a data thread serves them. Blocking.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use mirror_core::MirrorConfig;
use mirror_core::config::{HOT_EXTENTS_DEFAULT, PeerKind, ResyncRate, VOLUME_BYTES_MAX};
use mirror_core::event::LinkKind;
use mirror_core::identity::Role;
use mirror_core::metadata::{ImageIdentity, Restored};
use mirror_core::resource::{HostAccess, ResourceConfig, ResourcePeer};
use mirror_core::stream::codec::Checksum;
use mirror_core::stream::frame::VERSION;

use super::{branches, words};
use crate::branch::BranchError;
use crate::config::{ImageSource, Peer, Protocol, Resource, Volume};
use crate::data::{Gate, MirrorPlan, ResourcePlan, StreamHello, VolumePlan};
use crate::image::{Image, OpenError};
use crate::metadata_file::{MetadataFile, MetadataFileError};

mod metadata;

/// Payload bytes a partner may send on a stream before it is granted more.
const STREAM_CREDIT_BYTES: u64 = 64 << 20;
/// Requests a partner may send on a stream before it is granted more.
const STREAM_CREDIT_REQUESTS: u32 = 4096;

/// Why something cannot be opened.
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
    /// What is still to be saved of a volume has nowhere to go.
    #[error(
        "export \"{export}\": the branch that was being written in {} cannot be gone on with: {error}. Nothing of the \
         volume may be overwritten without it: repair it, or move it away to give up what it does not hold", directory.display()
    )]
    Branch {
        /// The export.
        export: String,
        /// Where it is.
        directory: PathBuf,
        /// Why.
        error: BranchError,
    },
    /// There is no randomness.
    #[error("/dev/urandom cannot be read: {0}; new generation identifiers need it")]
    Entropy(io::Error),
}

/// This node, as resources tell it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) name: String,
    /// Random, new at every start of the daemon.
    pub(super) incarnation: u64,
}

impl Node {
    /// With a new random number.
    pub(super) fn new(name: &str) -> Result<Self, StartError> {
        Ok(Self {
            name: name.to_owned(),
            incarnation: entropy()?,
        })
    }
}

/// A volume with its files open.
struct Opened<'a> {
    volume: &'a Volume,
    image: Image,
    metadata: Option<MetadataFile>,
}

/// Open all volumes of a resource. Its plan has them by name, as streams number them. `adopt`: take this image as the
/// right one whatever its metadata file says.
pub(super) fn resource(
    node: &Node,
    resource: &Resource,
    adopt: impl Fn(&str) -> bool,
) -> Result<ResourcePlan, StartError> {
    let mut by_name: Vec<&Volume> = resource.volumes.iter().collect();
    by_name.sort_by_key(|volume| &volume.export);
    let open = |volume| Opened::new(resource, volume, adopt(&volume.export));
    let opened = by_name.into_iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let kinds = kinds(resource, &opened);
    let role = start_role(&kinds);
    let config = resource_config(node, resource, &opened, &kinds)?;
    let sizes = opened
        .iter()
        .map(|opened| (opened.volume.export.clone(), opened.image.size()));
    let gate = Gate::new(StreamHello {
        node: node.name.clone(),
        incarnation: node.incarnation,
        resource: resource.name.clone(),
        version: VERSION,
        digest_seed: 0,
        checksum: Checksum::default(),
        volumes: sizes.collect(),
        credit_bytes: STREAM_CREDIT_BYTES,
        credit_requests: STREAM_CREDIT_REQUESTS,
    });
    if config.is_some() && role == Role::Secondary {
        // Nobody comes in before the resource has decided.
        gate.set_access(HostAccess::Shut);
    }
    let volumes = opened
        .into_iter()
        .map(|opened| opened.plan(&node.name, resource, &kinds, role))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(ResourcePlan {
        name: resource.name.clone(),
        volumes,
        peers: resource.peers.iter().map(words::partner_plan).collect(),
        config,
        gate: Arc::new(gate),
    })
}

/// Open one more volume of a resource that is served.
pub(super) fn volume(node: &str, resource: &Resource, volume: &Volume) -> Result<VolumePlan, StartError> {
    let opened = Opened::new(resource, volume, false)?;
    let kinds = kinds(resource, std::slice::from_ref(&opened));
    let role = start_role(&kinds);
    opened.plan(node, resource, &kinds, role)
}

/// Open the image of a volume (again).
pub(super) fn image(volume: &Volume) -> Result<Image, StartError> {
    let mut options = words::image_options(volume);
    // It may have got another size since the configuration was written: its metadata knows, and refuses what is not it.
    if let (ImageSource::Path(image), Some(metadata), Some(size)) = (&volume.image, &volume.metadata, options.size)
        && metadata.exists()
        && let Ok(found) = std::fs::metadata(image)
        && found.is_file()
        && found.len() != size
        && found.len() > 0
    {
        let (export, now) = (&volume.export, found.len());
        tracing::warn!(
            export,
            "the configuration has size = {size}, the volume has {now} bytes since it was resized: write that there"
        );
        options.size = None;
    }
    Image::open(&options).map_err(|error| StartError::Image {
        export: volume.export.clone(),
        error,
    })
}

/// The file of a mirrored volume's image, as its metadata has it: also when it is not there.
pub(super) fn identity(plan: &VolumePlan) -> Option<ImageIdentity> {
    plan.mirror.as_ref().map(|mirror| mirror.restored.image())
}

impl<'a> Opened<'a> {
    fn new(resource: &Resource, volume: &'a Volume, adopt: bool) -> Result<Self, StartError> {
        if let Some((image, metadata)) = metadata::without_image(resource, volume)? {
            return Ok(Self {
                volume,
                image,
                metadata: Some(metadata),
            });
        }
        let image = image(volume)?;
        let metadata = match (&volume.metadata, &volume.image) {
            (Some(metadata), ImageSource::Path(path)) => {
                let files = metadata::Files {
                    volume,
                    image: path,
                    metadata,
                };
                Some(files.open(resource, image.size(), adopt)?)
            }
            _ => None,
        };
        Ok(Self {
            volume,
            image,
            metadata,
        })
    }

    fn plan(
        self,
        node: &str,
        resource: &Resource,
        kinds: &[Option<PeerKind>],
        role: Role,
    ) -> Result<VolumePlan, StartError> {
        let size = self.image.size();
        let branches = branches::plan(node, resource, self.volume, self.metadata.is_some())?;
        let mirror = match self.metadata {
            Some(metadata) => Some(MirrorPlan {
                config: MirrorConfig {
                    size,
                    hot_extents: resource
                        .hot_extents
                        .and_then(|count| usize::try_from(count).ok())
                        .unwrap_or(HOT_EXTENTS_DEFAULT),
                    peers: resource
                        .peers
                        .iter()
                        .zip(kinds)
                        .map(|(peer, kind)| words::peer_config(peer, *kind))
                        .collect(),
                    entropy: entropy()?,
                    role,
                    on_io_error: words::on_io_error(resource),
                    resync: ResyncRate {
                        floor: resource.resync_min,
                        cap: resource.resync_max.unwrap_or(0),
                    },
                },
                restored: metadata.restored,
                metadata: metadata.file,
                peers: resource.peers.iter().map(words::peer_plan).collect(),
            }),
            None => None,
        };
        Ok(VolumePlan {
            export: self.volume.export.clone(),
            image: self.image,
            minimum_block: self.volume.minimum_block,
            mirror,
            branches,
        })
    }

    fn restored(&self) -> Option<&Restored> {
        self.metadata.as_ref().map(|metadata| &metadata.restored)
    }
}

/// What every peer is, as far as the configuration or the metadata of all volumes says; `None`: it has not been reached.
fn kinds(resource: &Resource, opened: &[Opened<'_>]) -> Vec<Option<PeerKind>> {
    let kind = |(index, peer): (usize, &Peer)| match peer.protocol {
        Protocol::Nbd => Some(PeerKind::Plain),
        Protocol::Blockmirror => Some(PeerKind::Partner),
        Protocol::Auto => {
            let all = |kind| {
                let mut restored = opened.iter().map(Opened::restored);
                restored.all(|restored| restored.and_then(|restored| restored.kind(index)) == Some(kind))
            };
            match (all(LinkKind::Nbd), all(LinkKind::Stream)) {
                (true, _) => Some(PeerKind::Plain),
                (_, true) => Some(PeerKind::Partner),
                // Where the volumes do not agree the last word has not been written everywhere: it is asked again.
                _ => None,
            }
        }
    };
    resource.peers.iter().enumerate().map(kind).collect()
}

/// Where every peer is a plain server nobody else can be Primary. Otherwise the resource decides.
fn start_role(kinds: &[Option<PeerKind>]) -> Role {
    if kinds.iter().all(|kind| *kind == Some(PeerKind::Plain)) {
        Role::Primary
    } else {
        Role::Secondary
    }
}

/// `None`: some volume has no metadata, so that the resource has no role.
fn resource_config(
    node: &Node,
    resource: &Resource,
    opened: &[Opened<'_>],
    kinds: &[Option<PeerKind>],
) -> Result<Option<ResourceConfig>, StartError> {
    let Some(restored) = opened.iter().map(Opened::restored).collect::<Option<Vec<&Restored>>>() else {
        return Ok(None);
    };
    let peer = |(peer, kind): (&Peer, &Option<PeerKind>)| ResourcePeer {
        name: peer.name.clone(),
        kind: *kind,
    };
    Ok(Some(ResourceConfig {
        name: resource.name.clone(),
        node: node.name.clone(),
        incarnation: node.incarnation,
        entropy: entropy()?,
        volumes: opened.iter().map(|opened| opened.volume.export.clone()).collect(),
        peers: resource.peers.iter().zip(kinds).map(peer).collect(),
        was_primary: Restored::were_primary(restored.iter().copied()),
        answers_lost: restored.iter().any(|restored| restored.answers_lost()),
        primary_since: restored
            .iter()
            .map(|restored| restored.primary_since())
            .max()
            .unwrap_or(0),
        after_restart: words::after_restart(resource),
        split_brain: words::split_brain(resource),
        read_only_secondary: resource.read_only_secondary,
        ..ResourceConfig::default()
    }))
}

fn entropy() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    let mut source = File::open("/dev/urandom").map_err(StartError::Entropy)?;
    source.read_exact(&mut bytes).map_err(StartError::Entropy)?;
    Ok(u64::from_ne_bytes(bytes))
}
