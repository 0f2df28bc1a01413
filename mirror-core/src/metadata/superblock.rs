//! The superblock: whose metadata this is, which generation, which peers.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::field::{put_u32, put_u64, u32_at, u64_at};
use super::{ImageIdentity, MetadataError, SECTOR_BYTES, VERSION};
use crate::config::PEERS_MAX;

const MAGIC: &[u8; 8] = b"BMIRMETA";
const PEERS_AT: usize = 128;
const PEER_BYTES: usize = 128;
/// Longest peer name, bytes.
pub(crate) const NAME_MAX: usize = 63;
const CRC_AT: usize = SECTOR_BYTES - 4;

const FLAG_CLEAN: u32 = 1;

const PEER_IN_USE: u32 = 1;
const PEER_BASE_DIRTY: u32 = 2;
const PEER_SYNCED: u32 = 4;

/// What is durably known of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerRecord {
    /// As configured.
    pub(crate) name: String,
    /// The generation its data is an earlier state of; 0 while it has every write.
    pub(crate) generation: u64,
    /// Pages of other instances are stale.
    pub(crate) instance: u32,
    /// A page with no valid side is all dirty rather than all clean.
    pub(crate) base_dirty: bool,
    /// It once held everything.
    pub(crate) synced: bool,
}

/// The superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) sequence: u64,
    pub(crate) volume: u64,
    pub(crate) image: ImageIdentity,
    /// Names the data of this node.
    pub(crate) generation: u64,
    /// The daemon stopped in order: nothing was in flight.
    pub(crate) clean: bool,
    pub(crate) peers: [Option<PeerRecord>; PEERS_MAX],
}

impl Superblock {
    /// The slot this sequence belongs to.
    pub(crate) fn offset(&self) -> u64 {
        (self.sequence & 1) * SECTOR_BYTES as u64
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; SECTOR_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        put_u32(&mut bytes, 8, VERSION);
        put_u32(&mut bytes, 12, if self.clean { FLAG_CLEAN } else { 0 });
        put_u64(&mut bytes, 16, self.sequence);
        put_u64(&mut bytes, 24, self.volume);
        put_u64(&mut bytes, 32, self.image.size);
        put_u64(&mut bytes, 40, self.image.device);
        put_u64(&mut bytes, 48, self.image.inode);
        put_u64(&mut bytes, 56, self.image.born_ns);
        put_u64(&mut bytes, 64, self.generation);
        for (slot, peer) in self.peers.iter().enumerate() {
            if let Some(peer) = peer {
                let at = PEERS_AT + slot * PEER_BYTES;
                encode_peer(peer, &mut bytes[at..at + PEER_BYTES]);
            }
        }
        let crc = crc32fast::hash(&bytes[..CRC_AT]);
        put_u32(&mut bytes, CRC_AT, crc);
        bytes
    }

    /// Read one slot. `Foreign` and `Torn` are about this slot alone.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, MetadataError> {
        if bytes[..8] != MAGIC[..] {
            return Err(MetadataError::Foreign);
        }
        if crc32fast::hash(&bytes[..CRC_AT]) != u32_at(bytes, CRC_AT) {
            return Err(MetadataError::Torn);
        }
        let version = u32_at(bytes, 8);
        if version > VERSION {
            return Err(MetadataError::TooNew { found: version });
        }
        let mut peers = [const { None }; PEERS_MAX];
        for (slot, peer) in peers.iter_mut().enumerate() {
            let at = PEERS_AT + slot * PEER_BYTES;
            *peer = decode_peer(&bytes[at..at + PEER_BYTES])?;
        }
        let size = u64_at(bytes, 32);
        if size == 0 {
            return Err(MetadataError::Inconsistent {
                what: "the image size is 0",
            });
        }
        Ok(Self {
            sequence: u64_at(bytes, 16),
            volume: u64_at(bytes, 24),
            image: ImageIdentity {
                size,
                device: u64_at(bytes, 40),
                inode: u64_at(bytes, 48),
                born_ns: u64_at(bytes, 56),
            },
            generation: u64_at(bytes, 64),
            clean: u32_at(bytes, 12) & FLAG_CLEAN != 0,
            peers,
        })
    }
}

fn encode_peer(peer: &PeerRecord, bytes: &mut [u8]) {
    let mut flags = PEER_IN_USE;
    if peer.base_dirty {
        flags |= PEER_BASE_DIRTY;
    }
    if peer.synced {
        flags |= PEER_SYNCED;
    }
    put_u32(bytes, 0, flags);
    put_u32(bytes, 4, peer.instance);
    put_u64(bytes, 8, peer.generation);
    bytes[16] = peer.name.len() as u8;
    bytes[17..17 + peer.name.len()].copy_from_slice(peer.name.as_bytes());
}

fn decode_peer(bytes: &[u8]) -> Result<Option<PeerRecord>, MetadataError> {
    let flags = u32_at(bytes, 0);
    if flags & PEER_IN_USE == 0 {
        return Ok(None);
    }
    let length = usize::from(bytes[16]);
    if length > NAME_MAX {
        return Err(MetadataError::Inconsistent {
            what: "a peer name is too long",
        });
    }
    let name = core::str::from_utf8(&bytes[17..17 + length]).map_err(|_| MetadataError::Inconsistent {
        what: "a peer name is not UTF-8",
    })?;
    Ok(Some(PeerRecord {
        name: String::from(name),
        generation: u64_at(bytes, 8),
        instance: u32_at(bytes, 4),
        base_dirty: flags & PEER_BASE_DIRTY != 0,
        synced: flags & PEER_SYNCED != 0,
    }))
}
