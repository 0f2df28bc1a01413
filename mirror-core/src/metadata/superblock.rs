//! The superblock: whose metadata this is, which generation, which peers.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::field::{put_u32, put_u64, u32_at, u64_at};
use super::{ImageIdentity, MetadataError, SECTOR_BYTES, VERSION};
use crate::config::PEERS_MAX;
use crate::event::LinkKind;
use crate::identity::{Generation, HISTORY_MAX, Meeting};
use crate::state::LocalDisk;

const MAGIC: &[u8; 8] = b"BMIRMETA";
const PEERS_AT: usize = 128;
const PEER_BYTES: usize = 128;
/// Longest peer name, bytes.
pub(crate) const NAME_MAX: usize = 63;
const CRC_AT: usize = SECTOR_BYTES - 4;

const HISTORY_AT: usize = PEERS_AT + PEERS_MAX * PEER_BYTES;
const SYNC_AT: usize = HISTORY_AT + HISTORY_MAX * 8;
const GIVEN_UP_AT: usize = SYNC_AT + PEERS_MAX * 8;

const _: () = assert!(
    GIVEN_UP_AT + PEERS_MAX * 8 <= CRC_AT,
    "history and what each peer slot has more fit"
);

const FLAG_CLEAN: u32 = 1;
const FLAG_FRESH: u32 = 2;
const FLAG_PRIMARY: u32 = 4;
const FLAG_RESUME: u32 = 8;
const FLAG_ACKS_WAIT: u32 = 16;
const FLAG_WHOLE: u32 = 32;
const FLAG_ANSWERS_LOST: u32 = 64;

const PEER_IN_USE: u32 = 1;
const PEER_BASE_DIRTY: u32 = 2;
const PEER_SYNCED: u32 = 4;

const KIND_UNKNOWN: u8 = 0;
const KIND_PLAIN: u8 = 1;
const KIND_PARTNER: u8 = 2;

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
    /// What is there; `None`: never reached.
    pub(crate) kind: Option<LinkKind>,
    /// The block at which an interrupted comparison goes on; 0: at the first.
    pub(crate) verify_cursor: u64,
    /// The last meeting with it, and the one before.
    pub(crate) met: [Meeting; 2],
    /// The meeting at which a resync between the two began that has not ended; 0: none.
    pub(crate) sync: u64,
    /// The generation the operator has given up here for the peer's data; 0: none.
    pub(crate) given_up: Generation,
}

impl PeerRecord {
    /// A peer that has nothing yet. `known` false: no data was declared here, so that it cannot be behind.
    pub(crate) fn new(name: String, known: bool, current: Generation) -> Self {
        Self {
            name,
            generation: if known { current } else { 0 },
            instance: 0,
            base_dirty: true,
            synced: false,
            kind: None,
            verify_cursor: 0,
            met: [Meeting::NEVER; 2],
            sync: 0,
            given_up: 0,
        }
    }
}

/// The superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) sequence: u64,
    pub(crate) volume: u64,
    pub(crate) image: ImageIdentity,
    /// Names the data of this node.
    pub(crate) generation: Generation,
    /// Earlier names, the latest first.
    pub(crate) history: Vec<Generation>,
    /// State of the image.
    pub(crate) disk: LocalDisk,
    /// What the image was left behind with, while a Primary goes on without it; 0: `generation`.
    pub(crate) left_at: Generation,
    /// No data was ever declared.
    pub(crate) fresh: bool,
    /// It is Primary, or was when it ended, and not in order.
    pub(crate) primary: bool,
    /// It was Primary when it last ran.
    pub(crate) resume: bool,
    /// Of the last time as Primary: every write it answered was on every partner before, or at its end in order.
    pub(crate) acks_wait: bool,
    /// Diskless, and the image was complete when a Secondary gave it up: what it lacks is known to its Primary. Of a
    /// Primary: and nothing has been answered without it since.
    pub(crate) whole: bool,
    /// Answered writes may be nowhere any more: see `NodeIdentity`.
    pub(crate) answers_lost: bool,
    /// The daemon stopped in order: nothing was in flight.
    pub(crate) clean: bool,
    /// When this node last became Primary, in seconds since 1970 by its own clock; 0: not known.
    pub(crate) primary_since: u64,
    pub(crate) peers: [Option<PeerRecord>; PEERS_MAX],
}

impl Superblock {
    /// The slot this sequence belongs to.
    pub(crate) fn offset(&self) -> u64 {
        (self.sequence & 1) * SECTOR_BYTES as u64
    }

    /// The data has a new name; the old one is remembered.
    pub(crate) fn rename(&mut self, generation: Generation) {
        let old = core::mem::replace(&mut self.generation, generation);
        if old != generation && !self.fresh {
            self.remember(old);
        }
    }

    /// The node is no longer Primary, and its image was left behind: the image is all the data there is here, and what
    /// was written without it is not in it.
    pub(crate) fn fall_back(&mut self) {
        let left_at = self.left_at;
        if !self.is_withheld() {
            self.left_at = 0;
            self.whole &= left_at == 0;
        }
        if left_at == 0 || left_at == self.generation {
            return;
        }
        self.generation = left_at;
        if let Some(at) = self.history.iter().position(|&generation| generation == left_at) {
            self.history.drain(..=at);
        }
        for peer in self.peers.iter_mut().flatten() {
            let held = peer.generation;
            if held != left_at && !self.history.contains(&held) {
                // Known from the time without the image: nothing that the image has descends from it.
                peer.generation = 0;
            }
        }
    }

    /// The image is not there, and may be all that is left of what was answered: a Primary gave it up, and ended before
    /// any peer was known to have everything durably.
    pub(crate) fn is_withheld(&self) -> bool {
        self.disk == LocalDisk::Diskless && self.whole && self.primary && self.left_at != 0
    }

    /// What an image is when it is there again. That of a Primary which did not end in order is what it was then.
    pub(crate) fn taken_again(&self) -> LocalDisk {
        match (self.whole, self.left_at) {
            (true, _) if self.primary => LocalDisk::UpToDate,
            (true, 0) => LocalDisk::Outdated,
            _ => LocalDisk::Inconsistent,
        }
    }

    /// An earlier name of the data.
    pub(crate) fn remember(&mut self, generation: Generation) {
        if self.history.first() != Some(&generation) && generation != 0 {
            self.history.insert(0, generation);
            self.history.truncate(HISTORY_MAX);
        }
    }

    /// Earlier names of the data, the latest first; those that are remembered stay where they are.
    pub(crate) fn remember_all(&mut self, generations: &[Generation]) {
        for &generation in generations.iter().rev() {
            if !self.history.contains(&generation) {
                self.remember(generation);
            }
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; SECTOR_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        put_u32(&mut bytes, 8, VERSION);
        put_u32(&mut bytes, 12, self.flags());
        put_u64(&mut bytes, 16, self.sequence);
        put_u64(&mut bytes, 24, self.volume);
        put_u64(&mut bytes, 32, self.image.size);
        put_u64(&mut bytes, 40, self.image.device);
        put_u64(&mut bytes, 48, self.image.inode);
        put_u64(&mut bytes, 56, self.image.born_ns);
        put_u64(&mut bytes, 64, self.generation);
        bytes[72] = disk_code(self.disk);
        put_u64(&mut bytes, 80, self.left_at);
        put_u64(&mut bytes, 88, self.primary_since);
        put_u32(&mut bytes, 76, self.history.len() as u32);
        for (at, &generation) in self.history.iter().enumerate() {
            put_u64(&mut bytes, HISTORY_AT + at * 8, generation);
        }
        for (slot, peer) in self.peers.iter().enumerate() {
            if let Some(peer) = peer {
                let at = PEERS_AT + slot * PEER_BYTES;
                encode_peer(peer, &mut bytes[at..at + PEER_BYTES]);
                put_u64(&mut bytes, SYNC_AT + slot * 8, peer.sync);
                put_u64(&mut bytes, GIVEN_UP_AT + slot * 8, peer.given_up);
            }
        }
        let crc = crc32fast::hash(&bytes[..CRC_AT]);
        put_u32(&mut bytes, CRC_AT, crc);
        bytes
    }

    fn flags(&self) -> u32 {
        let all = [
            (FLAG_CLEAN, self.clean),
            (FLAG_FRESH, self.fresh),
            (FLAG_PRIMARY, self.primary),
            (FLAG_RESUME, self.resume),
            (FLAG_ACKS_WAIT, self.acks_wait),
            (FLAG_WHOLE, self.whole),
            (FLAG_ANSWERS_LOST, self.answers_lost),
        ];
        all.iter()
            .filter(|(_, set)| *set)
            .fold(0, |flags, (flag, _)| flags | flag)
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
            *peer = decode_peer(&bytes[at..at + PEER_BYTES], version)?;
            if let Some(peer) = peer {
                peer.sync = u64_at(bytes, SYNC_AT + slot * 8);
                peer.given_up = u64_at(bytes, GIVEN_UP_AT + slot * 8);
            }
        }
        let size = u64_at(bytes, 32);
        if size == 0 {
            return Err(MetadataError::Inconsistent {
                what: "the image size is 0",
            });
        }
        let flags = u32_at(bytes, 12);
        let (disk, history) = if version == 1 {
            // A release that knew plain peers only: this node was what is Primary now, all the time.
            (LocalDisk::UpToDate, Vec::new())
        } else {
            (decode_disk(bytes[72])?, decode_history(bytes)?)
        };
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
            history,
            disk,
            left_at: u64_at(bytes, 80),
            fresh: flags & FLAG_FRESH != 0,
            primary: flags & FLAG_PRIMARY != 0 || version == 1,
            resume: flags & FLAG_RESUME != 0 || version == 1,
            acks_wait: flags & FLAG_ACKS_WAIT != 0,
            whole: flags & FLAG_WHOLE != 0,
            answers_lost: flags & FLAG_ANSWERS_LOST != 0,
            clean: flags & FLAG_CLEAN != 0,
            primary_since: u64_at(bytes, 88),
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
    bytes[80] = match peer.kind {
        None => KIND_UNKNOWN,
        Some(LinkKind::Nbd) => KIND_PLAIN,
        Some(LinkKind::Stream) => KIND_PARTNER,
    };
    put_u64(bytes, 88, peer.verify_cursor);
    for (at, meeting) in peer.met.iter().enumerate() {
        put_u64(bytes, 96 + at * 16, meeting.count);
        put_u64(bytes, 104 + at * 16, meeting.token);
    }
}

fn decode_peer(bytes: &[u8], version: u32) -> Result<Option<PeerRecord>, MetadataError> {
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
    let kind = match bytes[80] {
        // The release that wrote version 1 knew plain peers only.
        _ if version == 1 => Some(LinkKind::Nbd),
        KIND_UNKNOWN => None,
        KIND_PLAIN => Some(LinkKind::Nbd),
        KIND_PARTNER => Some(LinkKind::Stream),
        _ => {
            return Err(MetadataError::Inconsistent {
                what: "the kind of a peer is not known",
            });
        }
    };
    let meeting = |at: usize| Meeting {
        count: u64_at(bytes, at),
        token: u64_at(bytes, at + 8),
    };
    Ok(Some(PeerRecord {
        name: String::from(name),
        generation: u64_at(bytes, 8),
        instance: u32_at(bytes, 4),
        base_dirty: flags & PEER_BASE_DIRTY != 0,
        synced: flags & PEER_SYNCED != 0,
        kind,
        verify_cursor: u64_at(bytes, 88),
        met: [meeting(96), meeting(112)],
        sync: 0,
        given_up: 0,
    }))
}

fn disk_code(disk: LocalDisk) -> u8 {
    match disk {
        LocalDisk::Diskless => 1,
        LocalDisk::Inconsistent => 2,
        LocalDisk::Outdated => 3,
        LocalDisk::UpToDate => 4,
    }
}

fn decode_disk(code: u8) -> Result<LocalDisk, MetadataError> {
    Ok(match code {
        1 => LocalDisk::Diskless,
        2 => LocalDisk::Inconsistent,
        3 => LocalDisk::Outdated,
        4 => LocalDisk::UpToDate,
        _ => {
            return Err(MetadataError::Inconsistent {
                what: "the state of the image is not known",
            });
        }
    })
}

fn decode_history(bytes: &[u8]) -> Result<Vec<Generation>, MetadataError> {
    let count = u32_at(bytes, 76) as usize;
    if count > HISTORY_MAX {
        return Err(MetadataError::Inconsistent {
            what: "the history of generations is too long",
        });
    }
    Ok((0..count).map(|at| u64_at(bytes, HISTORY_AT + at * 8)).collect())
}
