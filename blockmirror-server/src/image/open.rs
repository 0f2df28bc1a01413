//! Opening and creating images.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FallocateFlags, FileType, MemfdFlags, Mode, OFlags, RenameFlags, SeekFrom};
use rustix::io::Errno;

use super::OpenError;
use super::alignment::{Alignment, DIRECT_BLOCK_ASSUMED, direct_alignment};
use crate::file_lock::{LOCK_PATIENCE, lock};
use crate::ring::AllocateMode;

/// Where an image lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImagePlace {
    /// A regular file or block device.
    Path(PathBuf),
    /// Memory of this process (`memory:`): sparse, gone when the daemon ends.
    Memory,
}

/// How an image's file is read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoMode {
    /// Through the page cache.
    #[default]
    Buffered,
    /// Past the page cache (`O_DIRECT`). Ignored for images in memory.
    Direct,
}

/// What is to be opened.
#[derive(Clone, Debug)]
pub struct ImageOptions {
    /// Where.
    pub place: ImagePlace,
    /// Bytes the image has to have; a missing file is created at this size.
    pub size: Option<u64>,
    /// Buffered or direct.
    pub io: IoMode,
    /// Refuse changes; the lock is then shared with other readers.
    pub read_only: bool,
    /// Allocate all of the file's space now and keep it allocated: zeroing and trimming do not punch holes.
    pub preallocate: bool,
}

/// An opened file with all that had to be found out about it.
#[derive(Debug)]
pub(super) struct OpenedFile {
    pub(super) fd: OwnedFd,
    pub(super) size: u64,
    pub(super) alignment: Alignment,
    pub(super) created: bool,
}

impl IoMode {
    /// The word of the configuration for it.
    pub fn name(self) -> &'static str {
        match self {
            IoMode::Buffered => "buffered",
            IoMode::Direct => "direct",
        }
    }
}

impl ImagePlace {
    /// The place as the configuration has it: `memory:` or a path.
    pub fn parse(text: &str) -> Self {
        match text {
            "memory:" => ImagePlace::Memory,
            path => ImagePlace::Path(PathBuf::from(path)),
        }
    }
}

impl std::fmt::Display for ImagePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ImagePlace::Path(path) => path.display().fmt(f),
            ImagePlace::Memory => f.write_str("memory:"),
        }
    }
}

/// Opens, or creates, locks and measures.
pub(super) fn open(options: &ImageOptions) -> Result<OpenedFile, OpenError> {
    if let Some(wanted) = options.size.filter(|&size| size > i64::MAX as u64) {
        return Err(OpenError::SizeTooLarge { wanted });
    }
    match &options.place {
        ImagePlace::Memory => open_memory(options.size),
        ImagePlace::Path(path) => {
            let opening = Opening { path, options };
            match opening.kind()? {
                Some(FileType::RegularFile) => opening.open_file(),
                Some(FileType::BlockDevice) => opening.open_device(),
                Some(kind) => Err(opening.wrong_kind(kind)),
                None => opening.create(),
            }
        }
    }
}

/// Whether holes can be made in a file of `size` bytes, tried behind its end, where nothing is. A block device says no:
/// what it does with a hole cannot be known without one.
pub(super) fn makes_holes(fd: impl AsFd, size: u64) -> bool {
    let beyond = size.next_multiple_of(HOLE_TRIED);
    rustix::fs::fallocate(fd, AllocateMode::PunchHole.flags(), beyond, HOLE_TRIED).is_ok()
}

fn open_memory(size: Option<u64>) -> Result<OpenedFile, OpenError> {
    let size = size.filter(|&size| size > 0).ok_or(OpenError::MemoryNeedsSize)?;
    let failed = |error: Errno| OpenError::System {
        path: PathBuf::from("memory:"),
        what: "create",
        error: error.into(),
    };
    let fd = rustix::fs::memfd_create("blockmirror-image", MemfdFlags::CLOEXEC).map_err(failed)?;
    rustix::fs::ftruncate(&fd, size).map_err(failed)?;
    Ok(OpenedFile {
        fd,
        size,
        alignment: Alignment::NONE,
        created: true,
    })
}

/// One image on its way to being open.
struct Opening<'a> {
    path: &'a Path,
    options: &'a ImageOptions,
}

impl Opening<'_> {
    /// What is at the path; `None` when nothing is.
    fn kind(&self) -> Result<Option<FileType>, OpenError> {
        match rustix::fs::stat(self.path) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failed("look at", error)),
        }
    }

    fn open_file(&self) -> Result<OpenedFile, OpenError> {
        let fd = self.open_fd(self.path, OFlags::empty())?;
        self.lock(&fd)?;
        let stat = rustix::fs::fstat(&fd).map_err(|error| self.failed("look at", error))?;
        let size = self.check_size(stat.st_size as u64)?;
        let alignment = self.alignment(&fd, size, None)?;
        if self.options.preallocate && !self.options.read_only {
            self.preallocate(&fd, size)?;
        }
        self.settle(&fd)?;
        Ok(OpenedFile {
            fd,
            size,
            alignment,
            created: false,
        })
    }

    fn open_device(&self) -> Result<OpenedFile, OpenError> {
        let fd = self.open_fd(self.path, OFlags::empty())?;
        self.lock(&fd)?;
        let end = rustix::fs::seek(&fd, SeekFrom::End(0)).map_err(|error| self.failed("measure", error))?;
        let size = self.check_size(end)?;
        let block = rustix::fs::ioctl_blksszget(&fd).map_err(|error| self.failed("measure", error))?;
        let alignment = self.alignment(&fd, size, Some(block))?;
        self.settle(&fd)?;
        Ok(OpenedFile {
            fd,
            size,
            alignment,
            created: false,
        })
    }

    /// Makes the file under a passing name, so that a crash on the way leaves no image of a wrong size.
    fn create(&self) -> Result<OpenedFile, OpenError> {
        let path = || self.path.to_owned();
        let size = self.options.size.ok_or_else(|| OpenError::Missing { path: path() })?;
        if size == 0 {
            return Err(OpenError::Empty { path: path() });
        }
        if self.options.read_only {
            return Err(OpenError::Missing { path: path() });
        }
        let passing = self.passing_name();
        let fd = self.open_fd(&passing, OFlags::CREATE)?;
        self.lock(&fd)?;
        let alignment = self.fill(&fd, size).inspect_err(|_| {
            // The error is what matters; a file left behind is used again by the next attempt.
            let _ = rustix::fs::unlink(&passing);
        })?;
        match rustix::fs::renameat_with(CWD, &passing, CWD, self.path, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            // A file system without this flag.
            Err(Errno::INVAL | Errno::NOSYS) => {
                rustix::fs::rename(&passing, self.path).map_err(|error| self.failed("create", error))?;
            }
            Err(error) => return Err(self.failed("create", error)),
        }
        self.sync_directory().map_err(|error| OpenError::System {
            path: path(),
            what: "create",
            error,
        })?;
        Ok(OpenedFile {
            fd,
            size,
            alignment,
            created: true,
        })
    }

    fn fill(&self, fd: &OwnedFd, size: u64) -> Result<Alignment, OpenError> {
        let alignment = self.alignment(fd, size, None)?;
        let set = |bytes| rustix::fs::ftruncate(fd, bytes).map_err(|error| self.failed("create", error));
        set(0)?;
        set(size)?;
        if self.options.preallocate {
            self.preallocate(fd, size)?;
        }
        rustix::fs::fsync(fd).map_err(|error| self.failed("create", error))?;
        Ok(alignment)
    }

    fn open_fd(&self, path: &Path, extra: OFlags) -> Result<OwnedFd, OpenError> {
        let mut flags = OFlags::CLOEXEC | extra;
        flags |= if self.options.read_only {
            OFlags::RDONLY
        } else {
            OFlags::RDWR
        };
        if self.options.io == IoMode::Direct {
            flags |= OFlags::DIRECT;
        }
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::open(path, flags, mode).map_err(|error| match error {
            Errno::INVAL if self.options.io == IoMode::Direct => self.no_direct(error),
            error => self.failed("open", error),
        })
    }

    /// The lock goes with the open file: it is free again when the daemon is gone, however it ended.
    fn lock(&self, fd: &OwnedFd) -> Result<(), OpenError> {
        let waits = || tracing::info!(image = %self.path.display(), "waiting for the image's lock");
        lock(fd, self.options.read_only, LOCK_WAIT, waits).map_err(|error| match error {
            Errno::WOULDBLOCK => OpenError::InUse {
                path: self.path.to_owned(),
            },
            error => self.failed("lock", error),
        })
    }

    /// Makes what an earlier daemon has left in the page cache durable: what is read from now on must not be what a
    /// power cut takes back.
    fn settle(&self, fd: &OwnedFd) -> Result<(), OpenError> {
        rustix::fs::fdatasync(fd).map_err(|error| self.failed("flush", error))
    }

    fn check_size(&self, actual: u64) -> Result<u64, OpenError> {
        let path = || self.path.to_owned();
        match self.options.size {
            Some(wanted) if actual < wanted => Err(OpenError::TooSmall {
                path: path(),
                actual,
                wanted,
            }),
            Some(wanted) if actual > wanted => Err(OpenError::TooLarge {
                path: path(),
                actual,
                wanted,
            }),
            _ if actual == 0 => Err(OpenError::Empty { path: path() }),
            _ => Ok(actual),
        }
    }

    /// Looks at the free space first: an attempt that must fail would fill the file system before it does.
    fn preallocate(&self, fd: &OwnedFd, size: u64) -> Result<(), OpenError> {
        let no_space = || OpenError::NoSpace {
            path: self.path.to_owned(),
            size,
        };
        let failed = |error| match error {
            Errno::NOSPC => no_space(),
            error => self.failed("preallocate", error),
        };
        let system = rustix::fs::fstatvfs(fd).map_err(failed)?;
        let stat = rustix::fs::fstat(fd).map_err(failed)?;
        let free = system.f_bavail.saturating_mul(system.f_frsize);
        if size.saturating_sub(stat.st_blocks as u64 * STAT_BLOCK) > free {
            return Err(no_space());
        }
        rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, size).map_err(failed)
    }

    /// `device_block`: logical block size when this is a block device.
    fn alignment(&self, fd: &OwnedFd, size: u64, device_block: Option<u32>) -> Result<Alignment, OpenError> {
        if self.options.io == IoMode::Buffered {
            return Ok(Alignment::buffered(device_block));
        }
        let allocation = u64::from(device_block.unwrap_or(1));
        let (memory, block) = direct_alignment(fd).unwrap_or_else(|| {
            let block = device_block.unwrap_or(DIRECT_BLOCK_ASSUMED);
            (block, block)
        });
        if block == 0 {
            return Err(self.no_direct(Errno::INVAL));
        }
        if !size.is_multiple_of(u64::from(block)) {
            return Err(OpenError::UnalignedSize {
                path: self.path.to_owned(),
                size,
                block,
            });
        }
        Ok(Alignment {
            transfer: u64::from(block),
            memory: memory.max(1) as usize,
            allocation: allocation.max(u64::from(block)),
        })
    }

    fn passing_name(&self) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(".creating");
        self.path.with_file_name(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        let parent = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let directory = rustix::fs::open(
            parent,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(rustix::fs::fsync(directory)?)
    }

    fn wrong_kind(&self, kind: FileType) -> OpenError {
        let what = match kind {
            FileType::Directory => "a directory",
            FileType::CharacterDevice => "a character device",
            FileType::Fifo => "a pipe",
            FileType::Socket => "a socket",
            _ => "a special file",
        };
        OpenError::WrongKind {
            path: self.path.to_owned(),
            what,
        }
    }

    fn no_direct(&self, error: Errno) -> OpenError {
        OpenError::NoDirect {
            path: self.path.to_owned(),
            error: error.into(),
        }
    }

    fn failed(&self, what: &'static str, error: Errno) -> OpenError {
        OpenError::System {
            path: self.path.to_owned(),
            what,
            error: error.into(),
        }
    }
}

/// How long a locked image is waited for.
const LOCK_WAIT: Duration = if cfg!(test) {
    Duration::from_millis(200)
} else {
    LOCK_PATIENCE
};

/// Bytes of the hole that is tried: a block of every file system.
const HOLE_TRIED: u64 = 64 << 10;
/// Bytes per unit of `st_blocks`.
const STAT_BLOCK: u64 = 512;
