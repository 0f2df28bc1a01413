//! An export as a block device of the kernel, kept alive.
//!
//! [`attach`] negotiates connections and gives them to the kernel ([`crate::nbd`]); the device works from then on without
//! us. [`Kept::keep`] brings it new connections when it loses some: from the daemon when that has been started again, from
//! another node when that has become Primary. Meanwhile requests wait, up to the dead timeout: a pause, and no error.
//!
//! A device outlives who attached it. [`attach`] of one that is attached to the same nodes already takes it over, so that
//! whoever keeps it may be started again at any time.

mod dial;
mod keep;
mod relay;
mod shape;
mod unanswered;

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use blockmirror_client::connect::ConnectError;
use blockmirror_client::uri::UriList;
use nbd_proto::TransmissionFlags;
use tokio::time::{Instant, sleep};

use crate::nbd::sysfs::{NbdIndex, Shape, Standing, System};
use crate::nbd::{DeadLinks, Device, Nbd, NbdError};

use self::dial::Dialled;
pub use self::keep::{End, Event, Kept};

/// Largest logical block size that every kernel takes: a page.
const BLOCK_MAX: u32 = 4096;
/// Smallest.
const BLOCK_MIN: u32 = 512;
/// Whoever looks at new devices (udev) has one open for a moment, and the kernel does not attach it meanwhile: so long it is
/// tried again,
const BUSY: Duration = Duration::from_secs(3);
/// as often as this.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

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
    #[error("{index}: {source}{}", hint(source))]
    Kernel {
        /// Which device.
        index: NbdIndex,
        /// Why.
        source: NbdError,
    },
    /// It is attached to something else.
    #[error(
        "{index} is attached to {}; `blockmirror detach {index}` first, or take another one",
        backend.as_deref().unwrap_or("something, by another program")
    )]
    Taken {
        /// Which device.
        index: NbdIndex,
        /// To what.
        backend: Option<String>,
    },
    /// It is attached to the same, in another way.
    #[error("{index} is attached to the same already, but {what}; `blockmirror detach {index}` first")]
    Otherwise {
        /// Which device.
        index: NbdIndex,
        /// How.
        what: String,
    },
    /// It was detached, and somebody has it open.
    #[error(
        "{index} was detached, and somebody has it open still: it is free when that has ended (`fuser -vm {index}`)"
    )]
    Leaving {
        /// Which device.
        index: NbdIndex,
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
    #[error("{uri} does not serve what the device is made of: {what}")]
    Different {
        /// Where.
        uri: String,
        /// In what it differs.
        what: String,
    },
    /// A socket, or a file of the kernel.
    #[error("the device cannot be prepared: {0}")]
    System(#[from] io::Error),
}

/// How a device came to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was attached now.
    New,
    /// It was attached already, to the same.
    Taken,
}

/// Attach it; one that is attached to the same nodes is taken over as it is.
///
/// # Errors
/// Nothing has changed.
pub async fn attach(wanted: &Wanted) -> Result<(Kept, Origin), AttachError> {
    let index = wanted.index;
    let kernel = |source| AttachError::Kernel { index, source };
    let nbd = Nbd::open().map_err(kernel)?;
    // Before there is a device: no loss of a connection is missed.
    let links = DeadLinks::listen().map_err(kernel)?;
    let backend = wanted.uris.to_string();
    let system = System::here();
    match system.standing(index) {
        Standing::Free => {}
        Standing::Attached(Some(found)) if found == backend => {
            if !nbd.is_attached(index.0, &backend).map_err(kernel)? {
                return Err(AttachError::Leaving { index });
            }
            let mut shape = system.shape(index)?;
            made_as_wanted(wanted, &shape)?;
            // Of too many the kernel lets the rest go.
            shape.connections = shape.connections.max(wanted.connections);
            return Ok((Kept::new(nbd, links, wanted, shape).unheard(), Origin::Taken));
        }
        Standing::Attached(backend) => return Err(AttachError::Taken { index, backend }),
    }
    let dialled = dial::any(wanted, 0, dial::STRAGGLERS_LONGEST, |_| Ok(())).await?;
    let shape = shape_of(wanted, &dialled)?;
    let sockets: Vec<_> = dialled.sockets.iter().map(AsFd::as_fd).collect();
    let until = Instant::now() + BUSY;
    while let Err(error) = nbd.connect(&device(wanted, &shape, &backend), &sockets) {
        if !error.is_busy() || Instant::now() >= until {
            return Err(kernel(error));
        }
        sleep(BUSY_PAUSE).await;
    }
    Ok((Kept::new(nbd, links, wanted, shape).at(&dialled.uri), Origin::New))
}

/// What cannot be changed while the device is attached. (The number of connections cannot either, and is not shown.)
fn made_as_wanted(wanted: &Wanted, shape: &Shape) -> Result<(), AttachError> {
    let is_read_only = shape.flags.contains(TransmissionFlags::READ_ONLY);
    let what = match wanted.block_size {
        Some(size) if size != shape.block_size => format!("with blocks of {} bytes", shape.block_size),
        _ if is_read_only && !wanted.read_only => "read-only".to_owned(),
        _ if !is_read_only && wanted.read_only => "for writes, too".to_owned(),
        _ => return Ok(()),
    };
    let index = wanted.index;
    Err(AttachError::Otherwise { index, what })
}

/// What the kernel is told of a device.
fn device<'a>(wanted: &Wanted, shape: &Shape, backend: &'a str) -> Device<'a> {
    Device {
        index: Some(wanted.index.0),
        size: shape.size,
        block_size: shape.block_size,
        flags: shape.flags.bits(),
        timeout: wanted.timeout,
        dead_timeout: wanted.dead_timeout,
        backend,
    }
}

/// What a device is made with.
fn shape_of(wanted: &Wanted, dialled: &Dialled) -> Result<Shape, AttachError> {
    let block_size = block_size(wanted, dialled)?;
    let mut flags = dialled.flags;
    flags.set(
        TransmissionFlags::READ_ONLY,
        flags.contains(TransmissionFlags::READ_ONLY) || wanted.read_only,
    );
    Ok(Shape {
        size: shape::whole_blocks(dialled.size, block_size),
        block_size,
        connections: dialled.sockets.len(),
        flags,
    })
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

fn hint(error: &NbdError) -> &'static str {
    let NbdError::Refused { source, .. } = error else {
        return "";
    };
    match source.kind() {
        io::ErrorKind::ResourceBusy => "; somebody has it open: take another one, or see `fuser -v`",
        io::ErrorKind::PermissionDenied => "; only root may",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn wanted(block_size: Option<u32>) -> Wanted {
        Wanted {
            uris: "nbd://alpha/db,nbd://bravo/db".parse().unwrap(),
            index: NbdIndex(0),
            connections: 1,
            block_size,
            timeout: None,
            dead_timeout: Duration::from_secs(60),
            read_only: false,
        }
    }

    fn dialled(size: u64, minimum_block: u32) -> Dialled {
        Dialled {
            sockets: Vec::new(),
            size,
            flags: TransmissionFlags::SEND_FLUSH,
            minimum_block,
            uri: "nbd://alpha/db".parse().unwrap(),
        }
    }

    #[test]
    fn blocks_are_as_large_as_asked_for_or_as_the_export_needs() {
        let size = |asked, minimum| shape_of(&wanted(asked), &dialled(1 << 20, minimum)).map(|shape| shape.block_size);
        assert_eq!(size(None, 1).unwrap(), 512);
        assert_eq!(size(None, 4096).unwrap(), 4096);
        assert_eq!(size(Some(1024), 512).unwrap(), 1024);
        for (asked, minimum, word) in [
            (1000, 1, "power of two"),
            (8192, 1, "power of two"),
            (512, 4096, "4096"),
        ] {
            let refused = size(Some(asked), minimum).unwrap_err().to_string();
            assert!(refused.contains(word), "{refused}");
        }
        let odd = shape_of(&wanted(Some(4096)), &dialled(4096 + 512, 1)).unwrap_err();
        assert!(odd.to_string().contains("multiple"), "{odd}");
        assert_eq!(shape_of(&wanted(None), &dialled(4096 + 100, 1)).unwrap().size, 4096);
    }

    #[test]
    fn what_is_attached_is_taken_over_as_it_is_or_not_at_all() {
        let shape = shape_of(&wanted(None), &dialled(1 << 20, 4096)).unwrap();
        made_as_wanted(&wanted(None), &shape).unwrap();
        made_as_wanted(&wanted(Some(4096)), &shape).unwrap();
        let blocks = made_as_wanted(&wanted(Some(512)), &shape).unwrap_err();
        assert!(blocks.to_string().contains("4096"), "{blocks}");
        let reading = Wanted {
            read_only: true,
            ..wanted(None)
        };
        assert!(made_as_wanted(&reading, &shape).is_err());
        let shape = shape_of(&reading, &dialled(1 << 20, 4096)).unwrap();
        made_as_wanted(&reading, &shape).unwrap();
        assert!(made_as_wanted(&wanted(None), &shape).is_err());
    }
}
