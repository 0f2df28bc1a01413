//! What can be wrong with an image.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a request failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ImageError {
    /// The file system or device below has no room.
    #[error("no space left below the image")]
    NoSpace,
    /// The storage failed; the kind and the operation are for the log.
    #[error("{operation} at byte {offset} of the image failed: {error}")]
    Io {
        /// `read`, `write`, `zero`.
        operation: &'static str,
        /// Where.
        offset: u64,
        /// What the kernel said.
        error: String,
    },
    /// The image ends before its size: somebody has truncated it.
    #[error("the image ends at or before byte {offset}, which is within its size: it has been truncated")]
    Truncated {
        /// First byte that could not be read.
        offset: u64,
    },
    /// The image is open for reading only.
    #[error("the image is read-only")]
    ReadOnly,
    /// A flush has failed, now or before. What is durable is unknown; it is never tried again.
    #[error("a flush of the image failed ({error}); nothing can be promised about what is durable")]
    FlushFailed {
        /// What the kernel said to the flush that failed.
        error: String,
    },
    /// The request reaches beyond the image. The export checks before; this is the second line.
    #[error("{length} bytes at {offset} are not within the image's {size} bytes")]
    OutOfRange {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
        /// The image's size.
        size: u64,
    },
    /// Too many requests are in flight at this image.
    #[error("too many requests are in flight at the image")]
    Busy,
}

/// Why an image was not opened. Every text names the file and what to do.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is no file, and no size to create one with.
    #[error("image {} does not exist: give `size` to have it created", path.display())]
    Missing {
        /// The image.
        path: PathBuf,
    },
    /// The file is smaller than the configured size.
    #[error(
        "image {} has {actual} bytes, but `size` says {wanted}: grow the file (truncate -s {wanted} FILE), or set `size` \
         to {actual} or leave it out", path.display()
    )]
    TooSmall {
        /// The image.
        path: PathBuf,
        /// Bytes there are.
        actual: u64,
        /// Bytes configured.
        wanted: u64,
    },
    /// The file is larger than the configured size.
    #[error(
        "image {} has {actual} bytes, but `size` says {wanted}: set `size` to {actual} or leave it out (the rest of the \
         file would not be exported)", path.display()
    )]
    TooLarge {
        /// The image.
        path: PathBuf,
        /// Bytes there are.
        actual: u64,
        /// Bytes configured.
        wanted: u64,
    },
    /// An image of no bytes cannot be exported.
    #[error("image {} is empty: give it a size (truncate -s SIZE FILE), or remove it and set `size`", path.display())]
    Empty {
        /// The image.
        path: PathBuf,
    },
    /// `memory:` without a size, or with a size of 0.
    #[error("an image in memory needs a `size` above 0")]
    MemoryNeedsSize,
    /// Larger than a file can be.
    #[error("`size` of {wanted} bytes is more than an image can have ({})", i64::MAX)]
    SizeTooLarge {
        /// Bytes configured.
        wanted: u64,
    },
    /// Neither a regular file nor a block device.
    #[error("image {} is {what}: an image is a regular file or a block device", path.display())]
    WrongKind {
        /// The image.
        path: PathBuf,
        /// `a directory`, `a character device`, ...
        what: &'static str,
    },
    /// Somebody has it open as an image.
    #[error(
        "image {} is in use: another process holds its lock (one daemon at a time; `fuser -v FILE` names it)",
        path.display()
    )]
    InUse {
        /// The image.
        path: PathBuf,
    },
    /// `io = "direct"` is not possible on this file system.
    #[error("image {} cannot be opened with io = \"direct\" ({error}): use io = \"buffered\"", path.display())]
    NoDirect {
        /// The image.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// `io = "direct"` needs whole blocks.
    #[error(
        "image {} has {size} bytes, which is not a multiple of the {block} byte blocks io = \"direct\" needs here: use \
         io = \"buffered\", or a size that is", path.display()
    )]
    UnalignedSize {
        /// The image.
        path: PathBuf,
        /// Bytes it has or would have.
        size: u64,
        /// Bytes per block.
        block: u32,
    },
    /// There is no room to create it.
    #[error("image {} of {size} bytes does not fit on its file system: make room, or leave out `preallocate`", path.display())]
    NoSpace {
        /// The image.
        path: PathBuf,
        /// Bytes asked for.
        size: u64,
    },
    /// Anything else the system said.
    #[error("cannot {what} image {}: {error}", path.display())]
    System {
        /// The image.
        path: PathBuf,
        /// `open`, `create`, ...
        what: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}
