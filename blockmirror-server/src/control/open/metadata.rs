//! The metadata file of a volume, with its image or without.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use mirror_core::config::VOLUME_BYTES_MAX;
use mirror_core::event::LinkKind;
use mirror_core::metadata::{ImageIdentity, PeerSlotConfig, Restored};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{StartError, entropy};
use crate::config::{ImageSource, Peer, Protocol, Resource, Volume};
use crate::file_lock::LOCK_PATIENCE;
use crate::image::Image;
use crate::metadata_file::{MetadataFile, Wanted, image_identity};

/// Errors of opening an image that mean that it is not there, or its device is not.
const GONE: [Errno; 4] = [Errno::IO, Errno::NXIO, Errno::NODEV, Errno::STALE];

/// A volume's two files.
pub(super) struct Files<'a> {
    pub(super) volume: &'a Volume,
    pub(super) image: &'a Path,
    pub(super) metadata: &'a Path,
}

/// An image that is gone while its metadata is there has to be somewhere else: it is not made anew. The volume begins
/// Diskless where a partner can serve in its place. `None`: it is there, or was never mirrored.
pub(super) fn without_image(resource: &Resource, volume: &Volume) -> Result<Option<(Image, MetadataFile)>, StartError> {
    let (Some(metadata), ImageSource::Path(image)) = (&volume.metadata, &volume.image) else {
        return Ok(None);
    };
    if !metadata.exists() || !is_gone(image) {
        return Ok(None);
    }
    let files = Files {
        volume,
        image,
        metadata,
    };
    let opened = files.wanted(resource, None, false)?;
    let size = opened.restored.image().size;
    let placeholder = Image::placeholder(size).map_err(|error| StartError::Image {
        export: volume.export.clone(),
        error,
    })?;
    let (export, image) = (&volume.export, image.display());
    tracing::error!(
        %export,
        %image,
        "the image is gone: a partner has to serve in its place. When it is there again, type `blockmirror attach {export}`; \
         with a new one in its place, `blockmirror attach --replaced {export}`"
    );
    Ok(Some((placeholder, opened)))
}

fn is_gone(image: &Path) -> bool {
    let mut options = OpenOptions::new();
    // A pipe, which is no image, would wait for its other end.
    let opened = options
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(image);
    opened.is_err_and(|error| {
        let known = Errno::from_io_error(&error);
        error.kind() == ErrorKind::NotFound || known.is_some_and(|error| GONE.contains(&error))
    })
}

impl Files<'_> {
    /// `adopt`: take this image as the right one whatever its metadata file says.
    pub(super) fn open(&self, resource: &Resource, size: u64, adopt: bool) -> Result<MetadataFile, StartError> {
        let (export, path) = (self.volume.export.clone(), self.image.to_owned());
        if size > VOLUME_BYTES_MAX {
            return Err(StartError::TooLarge { export, path, size });
        }
        let identity =
            image_identity(self.image, size).map_err(|error| StartError::Identity { export, path, error })?;
        let opened = self.wanted(resource, Some(identity), adopt)?;
        self.tell(&opened.restored, opened.created, adopt);
        Ok(opened)
    }

    fn wanted(
        &self,
        resource: &Resource,
        image: Option<ImageIdentity>,
        adopt: bool,
    ) -> Result<MetadataFile, StartError> {
        let slot = |peer: &Peer| PeerSlotConfig {
            name: peer.name.clone(),
            skip_initial_sync: peer.skip_initial_sync,
            kind: match peer.protocol {
                Protocol::Auto => None,
                Protocol::Nbd => Some(LinkKind::Nbd),
                Protocol::Blockmirror => Some(LinkKind::Stream),
            },
        };
        let peers: Vec<PeerSlotConfig> = resource.peers.iter().map(slot).collect();
        let wanted = Wanted {
            path: self.metadata,
            export: &self.volume.export,
            image,
            image_path: self.image,
            peers: &peers,
            adopt,
            entropy: entropy()?,
            patience: LOCK_PATIENCE,
        };
        Ok(wanted.open_or_create()?)
    }

    fn tell(&self, restored: &Restored, created: bool, adopt: bool) {
        let (export, metadata) = (&self.volume.export, self.metadata.display());
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
}
