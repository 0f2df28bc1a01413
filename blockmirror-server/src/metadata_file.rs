//! The metadata file at start: created, or opened, locked, read and judged. Blocking; the data thread writes it later.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use mirror_core::event::MetadataWrite;
use mirror_core::metadata::{HEADER_BYTES, ImageIdentity, MetadataError, PeerSlotConfig, Restored, SECTOR_BYTES};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::file_lock::lock;

mod device;
pub(crate) mod space;
#[cfg(test)]
mod tests;

/// Bytes of one read of bitmap pages.
const READ_BYTES: usize = 1 << 20;

/// What happens where there is no metadata file.
const MADE_ANEW: &str = "a new one is made and every peer is copied in full, but for peers with skip_initial_sync = true: \
                         remove that line first, unless their images are known to be equal";

/// A metadata file that fits its image, locked for this process until it is closed.
#[derive(Debug)]
pub struct MetadataFile {
    /// The file.
    pub file: File,
    /// What it holds; everything needed before the mirror may start is durable.
    pub restored: Restored,
    /// It was made just now.
    pub created: bool,
}

/// What is asked of a metadata file.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// The export of its volume, for messages.
    pub export: &'a str,
    /// The image it has to belong to; `None`: it is not there, and the volume begins Diskless.
    pub image: Option<ImageIdentity>,
    /// Where that image is.
    pub image_path: &'a Path,
    /// The peers of the volume.
    pub peers: &'a [PeerSlotConfig],
    /// The operator says the image is the right one, whatever the file says: every peer becomes dirty all over.
    pub adopt: bool,
    /// Random bits.
    pub entropy: u64,
    /// How long to wait for the lock of another process, that was killed a moment ago.
    pub patience: Duration,
}

/// Why a volume cannot start with its metadata file.
#[derive(Debug, thiserror::Error)]
pub enum MetadataFileError {
    /// Another process has it.
    #[error("export \"{export}\": the metadata file {} is in use by another process: is this daemon running already?", path.display())]
    InUse {
        /// The export.
        export: String,
        /// The file.
        path: PathBuf,
    },
    /// The file is not one that can be used.
    #[error("export \"{export}\": the metadata file {} is refused: {reason}. {}", path.display(), remedy(reason, export))]
    Refused {
        /// The export.
        export: String,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: MetadataError,
    },
    /// The image is gone, and nobody is known who could serve in its place.
    #[error(
        "export \"{export}\": the image {} is gone, while its metadata file {} is there, and no peer is known to be a \
         blockmirror that serves in its place. Bring the image back; or copy a peer's export into a file of its name and \
         size, and start once with --adopt {export}. Nothing was changed", image.display(), path.display()
    )]
    NoImage {
        /// The export.
        export: String,
        /// The image.
        image: PathBuf,
        /// The metadata file.
        path: PathBuf,
    },
    /// The image cannot be made durable after a stop that was not in order.
    #[error("export \"{export}\": the image {} cannot be made durable: {error}; check its disk", path.display())]
    Image {
        /// The export.
        export: String,
        /// The image.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A disk that fills up later would keep the volume from noting what a peer misses.
    #[error(
        "export \"{export}\": the metadata file {} needs {needed} bytes of its own, set aside before the volume is served, \
         and its filesystem has no room for them. Free some space, or name a file on another one with `metadata` (an \
         existing file has to be moved there)", path.display()
    )]
    NoSpace {
        /// The export.
        export: String,
        /// The file.
        path: PathBuf,
        /// Bytes the whole file needs.
        needed: u64,
    },
    /// The operating system refuses.
    #[error("export \"{export}\": the metadata file {} cannot be {what}: {error}; check the space and permissions of its directory", path.display())]
    Os {
        /// The export.
        export: String,
        /// The file.
        path: PathBuf,
        /// What was tried: "opened".
        what: &'static str,
        /// Why.
        error: io::Error,
    },
}

impl Wanted<'_> {
    /// Open the file, or make it when there is none.
    pub fn open_or_create(&self) -> Result<MetadataFile, MetadataFileError> {
        match OpenOptions::new().read(true).write(true).open(self.path) {
            Ok(file) => self.open(file),
            Err(error) => match self.image {
                Some(image) if error.kind() == ErrorKind::NotFound => self.create(image),
                _ => Err(self.os("opened", error)),
            },
        }
    }

    fn create(&self, image: ImageIdentity) -> Result<MetadataFile, MetadataFileError> {
        let (restored, writes) =
            Restored::create(image, self.peers, self.entropy).map_err(|reason| self.refused(reason))?;
        // Made under another name: a crash while it is written leaves no half of a metadata file.
        let mut name = self.path.as_os_str().to_owned();
        name.push(".new");
        let unfinished = PathBuf::from(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&unfinished).map_err(|error| self.os("created", error))?;
        self.lock(&file)?;
        self.fill(&file, &restored, &writes).inspect_err(|_| {
            // The error is what matters; a file left behind is made anew by the next attempt.
            let _ = fs::remove_file(&unfinished);
        })?;
        fs::rename(&unfinished, self.path).map_err(|error| self.os("given its name", error))?;
        sync_directory(self.path).map_err(|error| self.os("made durable", error))?;
        self.tell_unproven("it is taken to be equal and not copied, as skip_initial_sync says: remove that line now");
        Ok(MetadataFile {
            file,
            restored,
            created: true,
        })
    }

    fn fill(&self, file: &File, restored: &Restored, writes: &[MetadataWrite]) -> Result<(), MetadataFileError> {
        file.set_len(HEADER_BYTES as u64)
            .map_err(|error| self.os("written", error))?;
        self.set_aside(file, restored)?;
        write_all(file, writes).map_err(|error| self.os("written", error))
    }

    fn open(&self, file: File) -> Result<MetadataFile, MetadataFileError> {
        self.lock(&file)?;
        let header = read_up_to(&file, 0, HEADER_BYTES).map_err(|error| self.os("read", error))?;
        let mut restored = self.read(&header).map_err(|reason| self.refused(reason))?;
        if self.image.is_none() && !restored.has_partner(self.peers) {
            return Err(MetadataFileError::NoImage {
                export: self.export.to_owned(),
                image: self.image_path.to_owned(),
                path: self.path.to_owned(),
            });
        }
        if self.image.is_some() && !restored.was_clean() {
            self.sync_image()?;
        }
        self.load_pages(&file, &mut restored)?;
        let (restored, writes) = restored
            .finish(self.peers, self.entropy)
            .map_err(|reason| self.refused(reason))?;
        self.set_aside(&file, &restored)?;
        write_all(&file, &writes).map_err(|error| self.os("written", error))?;
        self.tell_unproven(
            "skip_initial_sync has no effect any more: remove it, for with it the peer is not copied should the metadata \
             file ever be made anew",
        );
        Ok(MetadataFile {
            file,
            restored,
            created: false,
        })
    }

    fn read(&self, header: &[u8]) -> Result<Restored, MetadataError> {
        match &self.image {
            Some(image) => Restored::open(header, image, self.adopt),
            None => Restored::open_without_image(header),
        }
    }

    /// A disk that is full, most likely of the image beside it, must not keep the volume from noting what a peer misses.
    fn set_aside(&self, file: &File, restored: &Restored) -> Result<(), MetadataFileError> {
        let space = restored.space();
        let needed = space::bytes(&space);
        match space::set_aside(file, &space) {
            Ok(true) => Ok(()),
            Ok(false) => {
                tracing::warn!(
                    export = self.export,
                    metadata = %self.path.display(),
                    needed,
                    "this filesystem cannot set space aside: when it is full the volume may have to refuse changes"
                );
                Ok(())
            }
            Err(Errno::NOSPC | Errno::DQUOT) => Err(MetadataFileError::NoSpace {
                export: self.export.to_owned(),
                path: self.path.to_owned(),
                needed,
            }),
            Err(error) => Err(self.os("given its space", error.into())),
        }
    }

    /// Say this of every peer whose image is only said to be equal.
    fn tell_unproven(&self, what: &str) {
        for peer in self.peers.iter().filter(|peer| peer.skip_initial_sync) {
            let (export, peer) = (self.export, peer.name.as_str());
            tracing::warn!(export, peer, "peer \"{peer}\": {what}");
        }
    }

    /// Make the image durable as it is read now. A process that was killed leaves writes in the page cache; resync would
    /// copy them to the peers, and a power cut afterwards would take them from this leg alone.
    fn sync_image(&self) -> Result<(), MetadataFileError> {
        let synced = File::open(self.image_path).and_then(|image| image.sync_data());
        synced.map_err(|error| MetadataFileError::Image {
            export: self.export.to_owned(),
            path: self.image_path.to_owned(),
            error,
        })
    }

    /// Every sector behind the header that is not in a hole.
    fn load_pages(&self, file: &File, restored: &mut Restored) -> Result<(), MetadataFileError> {
        let end = file.metadata().map_err(|error| self.os("read", error))?.len();
        let mut at = HEADER_BYTES as u64;
        while let Some(data) = next_data(file, at, end).map_err(|error| self.os("read", error))? {
            let start = data / SECTOR_BYTES as u64 * SECTOR_BYTES as u64;
            let bytes = read_up_to(file, start, READ_BYTES).map_err(|error| self.os("read", error))?;
            let mut offset = start;
            for sector in bytes.chunks(SECTOR_BYTES) {
                let mut whole = [0; SECTOR_BYTES];
                whole[..sector.len()].copy_from_slice(sector);
                restored
                    .load_page(offset, &whole)
                    .map_err(|reason| self.refused(reason))?;
                offset += SECTOR_BYTES as u64;
            }
            at = offset.max(start + SECTOR_BYTES as u64);
        }
        Ok(())
    }

    fn lock(&self, file: &File) -> Result<(), MetadataFileError> {
        let waits = || {
            tracing::info!(metadata = %self.path.display(), "waiting for another process to let go of it");
        };
        lock(file, false, self.patience, waits).map_err(|error| match error {
            Errno::WOULDBLOCK => MetadataFileError::InUse {
                export: self.export.to_owned(),
                path: self.path.to_owned(),
            },
            error => self.os("locked", error.into()),
        })
    }

    fn refused(&self, reason: MetadataError) -> MetadataFileError {
        MetadataFileError::Refused {
            export: self.export.to_owned(),
            path: self.path.to_owned(),
            reason,
        }
    }

    fn os(&self, what: &'static str, error: io::Error) -> MetadataFileError {
        MetadataFileError::Os {
            export: self.export.to_owned(),
            path: self.path.to_owned(),
            what,
            error,
        }
    }
}

/// What names the image at `path`: of a file its inode and birth, of a block device its hardware's or mapper's name.
pub fn image_identity(path: &Path, size: u64) -> io::Result<ImageIdentity> {
    let found = fs::metadata(path)?;
    if found.file_type().is_block_device() {
        return Ok(device::identity(found.rdev(), size));
    }
    // The number of the filesystem is left out: it may be another one after a reboot.
    let born = found
        .created()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let born_ns = born.and_then(|age| u64::try_from(age.as_nanos()).ok()).unwrap_or(0);
    Ok(ImageIdentity {
        size,
        device: 0,
        inode: found.ino(),
        born_ns,
    })
}

/// What the operator can do about a refused file.
fn remedy(reason: &MetadataError, export: &str) -> String {
    match reason {
        MetadataError::Foreign => {
            format!("Choose another path with `metadata`, or move that file away: {MADE_ANEW}")
        }
        MetadataError::TooNew { .. } => "Nothing was changed".to_owned(),
        MetadataError::OtherImage { .. } => format!(
            "If the image was moved or replaced on purpose, start once with --adopt {export}: every peer is copied in \
             full then. If not, check `image` and `metadata` in the configuration"
        ),
        MetadataError::TooManyPeers { .. } | MetadataError::NameTooLong { .. } => {
            "Change the peers in the configuration".to_owned()
        }
        MetadataError::Short { .. }
        | MetadataError::Torn
        | MetadataError::LogDamaged
        | MetadataError::PageDamaged { .. }
        | MetadataError::Inconsistent { .. } => {
            format!("What a peer misses is not known any more. Check the disk, then move the file away: {MADE_ANEW}")
        }
    }
}

/// Write everything and make it durable.
fn write_all(file: &File, writes: &[MetadataWrite]) -> io::Result<()> {
    for write in writes {
        file.write_all_at(&write.bytes, write.offset)?;
    }
    file.sync_all()
}

/// The bytes from `offset`, fewer than `length` only at the end of the file.
fn read_up_to(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Where the next data is, at or behind `at`.
fn next_data(file: &File, at: u64, end: u64) -> io::Result<Option<u64>> {
    if at >= end {
        return Ok(None);
    }
    match seek(file, SeekFrom::Data(at)) {
        Ok(data) => Ok(Some(data)),
        Err(Errno::NXIO) => Ok(None),
        // A filesystem that knows no holes: all of it is data.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(at)),
        Err(error) => Err(error.into()),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
