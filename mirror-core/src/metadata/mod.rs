//! The metadata file as bytes: where things stand in it, and how each is encoded and checked.
//!
//! ```text
//! 0        superblock slot 0   4 KiB   two alternating slots, the valid one with the larger sequence counts
//! 4 KiB    superblock slot 1   4 KiB
//! 8 KiB    activity-log ring   8 slots of 16 KiB, each the whole hot set; the newest valid one counts
//! 136 KiB  bitmap pages        per peer slot and page two alternating sides of 4 KiB, the newest valid one counts
//! ```
//! All integers are little-endian. Every record carries the volume's random id, so that bytes of another file are
//! never taken for ours, and a CRC-32 over all of itself. docs/ON_DISK.md gives every field.

mod facts;
mod log_record;
mod page;
mod restore;
mod superblock;

#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

pub use restore::Restored;
pub(crate) use restore::{RestoredPeer, make_all_clean, make_all_dirty};

pub(crate) use log_record::encode as encode_log;
pub(crate) use page::{PageKey, encode as encode_page};
pub(crate) use superblock::{NAME_MAX as PEER_NAME_MAX, PeerRecord, Superblock};

use crate::bitmap::PAGE_BLOCKS;
use crate::config::PEERS_MAX;
use crate::event::LinkKind;
use crate::range::BLOCK_BYTES;

/// The version this build writes, and the newest it reads.
pub const VERSION: u32 = 2;
/// A superblock slot, and a side of a bitmap page.
pub const SECTOR_BYTES: usize = 4096;
/// A slot of the activity-log ring.
pub const LOG_SLOT_BYTES: usize = 16384;
/// Slots of the activity-log ring.
pub const LOG_SLOTS: u64 = 8;
/// Where the activity-log ring begins.
pub const LOG_OFFSET: u64 = 2 * SECTOR_BYTES as u64;
/// Superblocks and activity log: what has to be read before anything else. Bitmap pages follow.
pub const HEADER_BYTES: usize = LOG_OFFSET as usize + LOG_SLOTS as usize * LOG_SLOT_BYTES;

/// Which image a metadata file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageIdentity {
    /// Bytes of the image.
    pub size: u64,
    /// Filesystem or device that holds it.
    pub device: u64,
    /// Inode, or the number of the block device.
    pub inode: u64,
    /// Birth time in nanoseconds since 1970, 0 where unknown.
    pub born_ns: u64,
}

impl ImageIdentity {
    /// The same image, larger now.
    fn is_grown_into(&self, now: &Self) -> bool {
        let same = Self {
            size: now.size,
            ..*self
        };
        same == *now && now.size > self.size
    }
}

/// A peer as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSlotConfig {
    /// Its name, 63 bytes at most.
    pub name: String,
    /// Its image is known to be equal when the metadata file is created. Ignored for a peer that joins later.
    pub skip_initial_sync: bool,
    /// What is there, if the configuration says so; `None`: what an earlier connection has found.
    pub kind: Option<LinkKind>,
}

/// Why a metadata file is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// No slot begins with our magic.
    #[error("it is not a blockmirror metadata file (neither superblock begins with \"BMIRMETA\")")]
    Foreign,
    /// Written by a newer release.
    #[error("it was written by a newer release (format {found}, this one reads up to {VERSION}): upgrade this node")]
    TooNew {
        /// The version found.
        found: u32,
    },
    /// Both superblocks are damaged.
    #[error("both superblocks are torn or damaged (checksums do not match)")]
    Torn,
    /// No readable record of the hot extents.
    #[error("every slot of the activity log is damaged: which extents were hot is not known")]
    LogDamaged,
    /// Both sides of a bitmap page are damaged.
    #[error("both sides of bitmap page {page} of peer slot {slot} are damaged")]
    PageDamaged {
        /// Peer slot.
        slot: u32,
        /// Page.
        page: u32,
    },
    /// The file is shorter than its header.
    #[error("it is only {found} bytes long, shorter than its {HEADER_BYTES}-byte header")]
    Short {
        /// Bytes there are.
        found: usize,
    },
    /// Another image.
    #[error(
        "it belongs to another image (its image: {} bytes, device {:#x}, inode {}; this image: {} bytes, device {:#x}, \
         inode {})", .recorded.size, .recorded.device, .recorded.inode, .found.size, .found.device, .found.inode
    )]
    OtherImage {
        /// In the superblock.
        recorded: ImageIdentity,
        /// The image given.
        found: ImageIdentity,
    },
    /// Too many peers.
    #[error("{found} peers are configured, {PEERS_MAX} is the most")]
    TooManyPeers {
        /// Peers in the configuration.
        found: usize,
    },
    /// A name that does not fit.
    #[error("the peer name {name:?} is longer than 63 bytes")]
    NameTooLong {
        /// The name.
        name: String,
    },
    /// A field that contradicts another.
    #[error("its superblock is inconsistent: {what}")]
    Inconsistent {
        /// Which field.
        what: &'static str,
    },
}

/// Where the bitmap pages of a volume stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pages: u64,
}

impl Geometry {
    pub(crate) fn new(size: u64) -> Self {
        Self {
            pages: size.div_ceil(BLOCK_BYTES).div_ceil(PAGE_BLOCKS),
        }
    }

    /// Offset of the side of a page that a write with this sequence goes to.
    pub(crate) fn page_offset(self, slot: u32, page: u32, sequence: u64) -> u64 {
        let place = (u64::from(slot) * self.pages + u64::from(page)) * 2 + (sequence & 1);
        HEADER_BYTES as u64 + place * SECTOR_BYTES as u64
    }

    /// Both sides of every page of a peer slot.
    pub(crate) fn slot_space(self, slot: u32) -> Range<u64> {
        self.page_offset(slot, 0, 0)..self.page_offset(slot + 1, 0, 0)
    }

    /// Peer slot and page at an offset, when it is one of this volume's.
    pub(crate) fn page_at(self, offset: u64) -> Option<(u32, u32)> {
        let place = offset.checked_sub(HEADER_BYTES as u64)? / SECTOR_BYTES as u64 / 2;
        let slot = place / self.pages;
        (slot < PEERS_MAX as u64).then_some((slot as u32, (place % self.pages) as u32))
    }
}

impl Restored {
    /// Every part of the file that may ever be written while the peers stay as they are, in bytes: the header, then the
    /// pages of each peer. Space set aside for them keeps a full disk from failing the mirror.
    pub fn space(&self) -> Vec<Range<u64>> {
        let geometry = Geometry::new(self.superblock.image.size);
        let mut space = alloc::vec![0..HEADER_BYTES as u64];
        space.extend(self.peers.iter().map(|peer| geometry.slot_space(peer.slot)));
        space
    }
}

/// Little-endian field access over a sector of fixed size.
pub(crate) mod field {
    /// The 4 bytes at `at`.
    pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
        let mut raw = [0; 4];
        raw.copy_from_slice(&bytes[at..at + 4]);
        u32::from_le_bytes(raw)
    }

    /// The 8 bytes at `at`.
    pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
        let mut raw = [0; 8];
        raw.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(raw)
    }

    /// Store 4 bytes at `at`.
    pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Store 8 bytes at `at`.
    pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}

/// Read whatever `bytes` are as a metadata file: a header patched with them, then pages of them. The body of the fuzz
/// target and of the property test; nothing else calls it.
#[doc(hidden)]
pub fn read_any(bytes: &[u8]) {
    let image = ImageIdentity {
        size: 1 << 28,
        device: 1,
        inode: 2,
        born_ns: 3,
    };
    let slot = PeerSlotConfig {
        name: String::from("bravo"),
        skip_initial_sync: true,
        kind: None,
    };
    let Ok((_, writes)) = Restored::create(image, core::slice::from_ref(&slot), 7) else {
        return;
    };
    let mut header = alloc::vec![0; HEADER_BYTES];
    for write in writes {
        let at = write.offset as usize;
        header[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
    }
    let (patch, pages) = bytes.split_at(bytes.len().min(4 + bytes.len() / 2));
    if let [low, high, patch @ ..] = patch {
        let at = usize::from(u16::from_le_bytes([*low, *high])) * 2;
        let end = (at + patch.len()).min(HEADER_BYTES);
        header[at..end].copy_from_slice(&patch[..end - at]);
    }
    let Ok(mut restored) = Restored::open(&header, &image, true) else {
        return;
    };
    for (at, page) in pages.chunks(SECTOR_BYTES).enumerate() {
        let mut sector = [0; SECTOR_BYTES];
        sector[..page.len()].copy_from_slice(page);
        let _ = restored.load_page((HEADER_BYTES + at * SECTOR_BYTES) as u64, &sector);
    }
    let _ = restored.finish(&[slot], 5);
}
