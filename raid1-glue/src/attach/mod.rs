//! An export as a block device of the kernel, kept alive.
//!
//! [`attach`] negotiates connections and gives them to the kernel ([`crate::nbd`]); the device works from then on without
//! us. [`Kept::keep`] brings it new connections when it loses some: from the daemon when that has been started again, from
//! another node when that has become Primary. Meanwhile requests wait, up to the dead timeout: a pause, and no error.

mod dial;
mod keep;
mod relay;

use std::os::fd::AsFd;
use std::time::Duration;

use blockmirror_client::connect::ConnectError;
use blockmirror_client::uri::UriList;
use nbd_proto::TransmissionFlags;

use crate::nbd::sysfs::NbdIndex;
use crate::nbd::{Device, Nbd, NbdError};

use self::dial::Dialled;
pub use self::keep::{End, Event, Kept};

/// Largest logical block size that every kernel takes: a page.
const BLOCK_MAX: u32 = 4096;
/// Smallest.
const BLOCK_MIN: u32 = 512;

/// What is to be attached, and how.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The export, on every node that may serve it.
    pub uris: UriList,
    /// The device.
    pub index: NbdIndex,
    /// Connections. More than one only where the export says that they see each other's writes (CAN_MULTI_CONN).
    pub connections: usize,
    /// Logical block size; `None`: what the export wants, 512 at least.
    pub block_size: Option<u32>,
    /// A request that is not answered by then is sent again on another connection; `None`: never.
    pub timeout: Option<Duration>,
    /// So long requests wait for a connection when none is left, before they fail.
    pub dead_timeout: Duration,
    /// Without writes: any node serves.
    pub read_only: bool,
}

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No node serves the export.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Every node that answers refuses writes.
    #[error("no node grants writes: {0}; promote one, or attach read-only")]
    NoPrimary(String),
    /// The kernel.
    #[error("{index}: {source}{}", hint(*index, source))]
    Kernel {
        /// Which device.
        index: NbdIndex,
        /// Why.
        source: NbdError,
    },
    /// Blocks of this size do not work.
    #[error("a block size of {wanted} does not work: {why}")]
    BlockSize {
        /// What was asked for.
        wanted: u32,
        /// Why.
        why: String,
    },
    /// What a node serves is not what the device is made of.
    #[error("{uri} serves another export now: {what}")]
    Different {
        /// Where.
        uri: String,
        /// In what it differs.
        what: String,
    },
    /// A socket.
    #[error("a connection cannot be prepared: {0}")]
    Socket(#[from] std::io::Error),
}

/// Attach it.
///
/// # Errors
/// Nothing is attached.
pub async fn attach(wanted: &Wanted) -> Result<Kept, AttachError> {
    let kernel = |source| AttachError::Kernel {
        index: wanted.index,
        source,
    };
    let nbd = Nbd::open().map_err(kernel)?;
    let dialled = dial::any(wanted).await?;
    let block_size = block_size(wanted, &dialled)?;
    let backend = wanted.uris.to_string();
    let device = device(wanted, &dialled, block_size, &backend);
    let sockets: Vec<_> = dialled.sockets.iter().map(AsFd::as_fd).collect();
    nbd.connect(&device, &sockets).map_err(kernel)?;
    Ok(Kept::new(nbd, wanted.clone(), dialled, block_size))
}

fn device<'a>(wanted: &Wanted, dialled: &Dialled, block_size: u32, backend: &'a str) -> Device<'a> {
    let mut flags = dialled.flags;
    if wanted.read_only {
        flags |= TransmissionFlags::READ_ONLY;
    }
    Device {
        index: Some(wanted.index.0),
        size: dialled.size,
        block_size,
        flags: flags.bits(),
        timeout: wanted.timeout,
        dead_timeout: wanted.dead_timeout,
        backend,
    }
}

/// The block size that was asked for, or that the export needs.
fn block_size(wanted: &Wanted, dialled: &Dialled) -> Result<u32, AttachError> {
    let needed = dialled.minimum_block.clamp(BLOCK_MIN, BLOCK_MAX);
    let Some(size) = wanted.block_size else {
        return Ok(needed);
    };
    let why = if !size.is_power_of_two() || !(BLOCK_MIN..=BLOCK_MAX).contains(&size) {
        format!("it has to be a power of two from {BLOCK_MIN} to {BLOCK_MAX}")
    } else if size < needed {
        format!("the export takes no blocks of less than {needed} bytes")
    } else if !dialled.size.is_multiple_of(u64::from(size)) {
        format!("the export has {} bytes, which is no multiple of it", dialled.size)
    } else {
        return Ok(size);
    };
    Err(AttachError::BlockSize { wanted: size, why })
}

fn hint(index: NbdIndex, error: &NbdError) -> String {
    let NbdError::Refused { source, .. } = error else {
        return String::new();
    };
    match source.kind() {
        std::io::ErrorKind::ResourceBusy => match index.backend() {
            Some(backend) => format!("; it is attached to {backend} (`blockmirror detach {index}`)"),
            None => format!("; somebody uses it: `blockmirror detach {index}`, or take another one"),
        },
        std::io::ErrorKind::PermissionDenied => "; only root may".to_owned(),
        _ => String::new(),
    }
}
