//! From the bytes of a metadata file to the state a mirror starts with.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use super::page::{self, PageKey};
use super::superblock::NAME_MAX;
use super::{
    Geometry, HEADER_BYTES, ImageIdentity, LOG_OFFSET, LOG_SLOT_BYTES, LOG_SLOTS, MetadataError, PeerRecord,
    PeerSlotConfig, SECTOR_BYTES, Superblock, encode_log, log_record,
};
use crate::bitmap::{Bitmap, PageWords};
use crate::config::PEERS_MAX;
use crate::event::{LinkKind, MetadataWrite};
use crate::identity::{Meeting, Role};
use crate::range::{BLOCK_BYTES, EXTENT_BLOCKS};
use crate::rng::Rng;
use crate::state::LocalDisk;

/// Metadata read back, on its way into a mirror.
///
/// New file: [`create`](Self::create), write what it returns. Existing file: [`open`](Self::open) with the header,
/// [`load_page`](Self::load_page) for every other sector that is not a hole, [`finish`](Self::finish), write what it
/// returns. In both cases everything written has to be durable before the mirror starts.
#[derive(Clone, Debug)]
pub struct Restored {
    pub(crate) superblock: Superblock,
    pub(crate) log_sequence: u64,
    /// In the order of the configuration; filled by `create` and `finish`.
    pub(crate) peers: Vec<RestoredPeer>,
    pub(crate) hot: Vec<u32>,
    pub(super) was_clean: bool,
    /// The image is not the one the file names: nothing it says of the peers counts.
    adopted: bool,
    /// The image has grown since: no bitmap page is where it was.
    grown: bool,
    /// There was no file before.
    created: bool,
    /// The image is not there: the volume begins Diskless.
    pub(super) absent: bool,
    loaded: BTreeMap<(u32, u32), LoadedPage>,
}

/// What a mirror starts with for one peer.
#[derive(Clone, Debug)]
pub(crate) struct RestoredPeer {
    pub(crate) slot: u32,
    pub(crate) dirty: Bitmap,
    /// Latest sequence written, per page.
    pub(crate) sequences: Vec<u64>,
}

#[derive(Clone, Debug, Default)]
struct LoadedPage {
    newest: Option<(u64, PageWords)>,
    damaged: u32,
}

impl Restored {
    /// Metadata for an image that has none. `entropy` names the volume and its first generation.
    pub fn create(
        image: ImageIdentity,
        peers: &[PeerSlotConfig],
        entropy: u64,
    ) -> Result<(Self, Vec<MetadataWrite>), MetadataError> {
        let mut rng = Rng::new(entropy);
        let superblock = Superblock {
            sequence: 0,
            volume: rng.identifier(),
            image,
            generation: rng.identifier(),
            history: Vec::new(),
            disk: LocalDisk::UpToDate,
            left_at: 0,
            fresh: true,
            primary: false,
            resume: false,
            acks_wait: false,
            whole: false,
            answers_lost: false,
            clean: true,
            primary_since: 0,
            peers: [const { None }; PEERS_MAX],
        };
        let fresh = Self {
            superblock,
            log_sequence: 0,
            peers: Vec::new(),
            hot: Vec::new(),
            was_clean: true,
            adopted: false,
            grown: false,
            created: true,
            absent: false,
            loaded: BTreeMap::new(),
        };
        let (restored, mut writes) = fresh.finish(peers, entropy)?;
        writes.push(encode_log(restored.superblock.volume, restored.log_sequence, &[]));
        Ok((restored, writes))
    }

    /// Read the first [`HEADER_BYTES`] of a file. `adopt`: take it for `expected` whatever image it names; every peer
    /// is then dirty all over. So it is when the image has grown while nobody looked.
    pub fn open(header: &[u8], expected: &ImageIdentity, adopt: bool) -> Result<Self, MetadataError> {
        if header.len() < HEADER_BYTES {
            return Err(MetadataError::Short { found: header.len() });
        }
        let mut superblock = newest_superblock(header)?;
        let was_clean = superblock.clean;
        let grown = superblock.image.is_grown_into(expected);
        let adopted = superblock.image != *expected && !grown;
        if adopted || grown {
            if !adopt && !grown {
                return Err(MetadataError::OtherImage {
                    recorded: superblock.image,
                    found: *expected,
                });
            }
            superblock.image = *expected;
        }
        let slots = (0..LOG_SLOTS as usize).map(|at| LOG_OFFSET as usize + at * LOG_SLOT_BYTES);
        let records = slots.filter_map(|at| log_record::decode(&header[at..at + LOG_SLOT_BYTES], superblock.volume));
        let (log_sequence, hot) = records
            .max_by_key(|&(sequence, _)| sequence)
            .ok_or(MetadataError::LogDamaged)?;
        Ok(Self {
            superblock,
            log_sequence,
            peers: Vec::new(),
            hot,
            was_clean,
            adopted,
            grown,
            created: false,
            absent: false,
            loaded: BTreeMap::new(),
        })
    }

    /// As [`open`](Self::open), of an image that is not there: the volume begins Diskless, with the size it had.
    pub fn open_without_image(header: &[u8]) -> Result<Self, MetadataError> {
        if header.len() < HEADER_BYTES {
            return Err(MetadataError::Short { found: header.len() });
        }
        let recorded = newest_superblock(header)?.image;
        let mut restored = Self::open(header, &recorded, false)?;
        restored.absent = true;
        Ok(restored)
    }

    /// Read one sector behind the header. Sectors of other volumes, peers and instances are stale and ignored.
    pub fn load_page(&mut self, offset: u64, bytes: &[u8; SECTOR_BYTES]) -> Result<(), MetadataError> {
        if self.adopted || self.grown {
            // Everything is dirty: a damaged page does no harm.
            return Ok(());
        }
        let geometry = Geometry::new(self.superblock.image.size);
        let Some((slot, page)) = geometry.page_at(offset) else {
            return Ok(());
        };
        let Some(record) = &self.superblock.peers[slot as usize] else {
            return Ok(());
        };
        if bytes.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        let loaded = self.loaded.entry((slot, page)).or_default();
        let Some((key, words)) = page::decode(bytes) else {
            loaded.damaged += 1;
            if loaded.damaged == 2 {
                return Err(MetadataError::PageDamaged { slot, page });
            }
            return Ok(());
        };
        let sequence = key.sequence;
        let wanted = PageKey {
            volume: self.superblock.volume,
            slot,
            instance: record.instance,
            page,
            sequence,
        };
        if key == wanted && loaded.newest.as_ref().is_none_or(|&(newest, _)| newest < sequence) {
            loaded.newest = Some((sequence, words));
        }
        Ok(())
    }

    /// Match the peers with the configuration and account for a crash: what was hot is dirty for every peer. Returns
    /// what has to be made durable before the mirror starts.
    pub fn finish(
        mut self,
        config: &[PeerSlotConfig],
        entropy: u64,
    ) -> Result<(Self, Vec<MetadataWrite>), MetadataError> {
        if config.len() > PEERS_MAX {
            return Err(MetadataError::TooManyPeers { found: config.len() });
        }
        if let Some(peer) = config.iter().find(|peer| peer.name.len() > NAME_MAX) {
            return Err(MetadataError::NameTooLong {
                name: peer.name.clone(),
            });
        }
        let doubted = self.drop_peers(config);
        let mut rng = Rng::new(entropy ^ self.superblock.generation);
        if self.adopted || self.grown || doubted {
            self.loaded.clear();
            for peer in self.superblock.peers.iter_mut().flatten() {
                make_all_dirty(peer, rng.identifier() as u32);
            }
        }
        for peer in config {
            let slot = self.slot_for(peer, &mut rng);
            self.note_kind(slot, peer.kind);
            let restored = self.restore_peer(slot);
            self.peers.push(restored);
        }
        self.note_end();
        if self.start_role() == Role::Primary {
            self.note_outdated(&mut rng);
        }
        self.loaded.clear();
        let mut writes = self.page_writes();
        self.superblock.sequence += 1;
        self.superblock.clean = false;
        writes.push(MetadataWrite {
            offset: self.superblock.offset(),
            bytes: self.superblock.encode(),
        });
        Ok((self, writes))
    }

    fn note_kind(&mut self, slot: u32, configured: Option<LinkKind>) {
        if let Some(record) = &mut self.superblock.peers[slot as usize] {
            record.kind = configured.or(record.kind);
        }
    }

    /// What the flags say from here on of the life that has ended, and of the one that begins.
    fn note_end(&mut self) {
        let role = self.start_role();
        let superblock = &mut self.superblock;
        if role == Role::Primary {
            superblock.fresh = false;
            superblock.primary = true;
            superblock.resume = true;
            return;
        }
        if self.adopted {
            // Nobody knows what this image holds: it must not overwrite a partner's.
            superblock.fresh = true;
        }
        match (superblock.disk, self.absent) {
            // The image is there again; what it lacks is in the bitmaps.
            (LocalDisk::Diskless, false) => superblock.disk = superblock.taken_again(),
            (LocalDisk::Diskless, true) | (_, false) => {}
            (disk, true) => {
                superblock.whole = disk.is_whole();
                superblock.disk = LocalDisk::Diskless;
            }
        }
        superblock.fall_back();
    }

    fn slot_for(&mut self, wanted: &PeerSlotConfig, rng: &mut Rng) -> u32 {
        let named = |slot: &Option<PeerRecord>| slot.as_ref().is_some_and(|peer| peer.name == wanted.name);
        if let Some(slot) = self.superblock.peers.iter().position(named) {
            return slot as u32;
        }
        // The word of the configuration counts for a first start only: a peer that joins later, or comes back, has
        // missed writes that no bitmap holds.
        let equal = wanted.skip_initial_sync && self.created;
        let free = self.superblock.peers.iter().position(Option::is_none);
        let slot = free.unwrap_or(PEERS_MAX - 1);
        self.loaded.retain(|&(of, _), _| of as usize != slot);
        self.superblock.peers[slot] = Some(PeerRecord {
            name: wanted.name.clone(),
            // What data it was made over tells later whether the two have met since.
            generation: if self.superblock.fresh {
                0
            } else {
                self.superblock.generation
            },
            // A random instance: pages that an earlier peer left in this slot can never match it.
            instance: rng.identifier() as u32,
            base_dirty: !equal,
            synced: equal,
            kind: None,
            verify_cursor: 0,
            met: [Meeting::NEVER; 2],
            sync: 0,
            given_up: 0,
        });
        slot as u32
    }

    fn restore_peer(&self, slot: u32) -> RestoredPeer {
        let blocks = self.superblock.image.size.div_ceil(BLOCK_BYTES);
        let mut dirty = Bitmap::new(blocks);
        if self.superblock.peers[slot as usize]
            .as_ref()
            .is_some_and(|peer| peer.base_dirty)
        {
            dirty.fill();
        }
        let mut sequences = vec![0; dirty.pages() as usize];
        for (&(_, page), loaded) in self.loaded.range((slot, 0)..(slot + 1, 0)) {
            if let Some((sequence, words)) = &loaded.newest {
                dirty.load(page, words);
                sequences[page as usize] = *sequence;
            }
        }
        for &extent in &self.hot {
            let start = u64::from(extent) * EXTENT_BLOCKS;
            dirty.set(start.min(blocks)..(start + EXTENT_BLOCKS).min(blocks));
        }
        RestoredPeer { slot, dirty, sequences }
    }

    /// A peer that was in step and is dirty now holds an earlier state of the data: a new generation begins.
    fn note_outdated(&mut self, rng: &mut Rng) {
        let current = self.superblock.generation;
        for peer in &self.peers {
            if let Some(record) = &mut self.superblock.peers[peer.slot as usize]
                && record.generation == 0
                && !peer.dirty.is_empty()
            {
                record.generation = current;
                self.superblock.rename(rng.identifier_after(current));
            }
        }
    }

    /// Pages that the hot extents changed: durable before the log is written again.
    fn page_writes(&mut self) -> Vec<MetadataWrite> {
        let geometry = Geometry::new(self.superblock.image.size);
        let mut writes = Vec::new();
        for peer in &mut self.peers {
            let Some(record) = &self.superblock.peers[peer.slot as usize] else {
                continue;
            };
            let changed: Vec<u32> = peer.dirty.changed().iter().copied().collect();
            for page in changed {
                let sequence = peer.sequences[page as usize] + 1;
                peer.sequences[page as usize] = sequence;
                let volume = self.superblock.volume;
                let key = PageKey {
                    volume,
                    slot: peer.slot,
                    instance: record.instance,
                    page,
                    sequence,
                };
                let bytes = page::encode(key, &peer.dirty.words(page));
                peer.dirty.written(page);
                writes.push(MetadataWrite {
                    offset: geometry.page_offset(peer.slot, page, sequence),
                    bytes,
                });
            }
        }
        writes
    }
}

/// Everything of this peer is dirty from here on; its old pages are stale.
///
/// `instance` is random: a page that an earlier attempt left can then not be taken for one of this instance.
pub(crate) fn make_all_dirty(peer: &mut PeerRecord, instance: u32) {
    peer.instance = if instance == peer.instance { !instance } else { instance };
    peer.base_dirty = true;
}

/// Nothing of this peer is dirty from here on; its old pages are stale.
pub(crate) fn make_all_clean(peer: &mut PeerRecord, instance: u32) {
    make_all_dirty(peer, instance);
    peer.base_dirty = false;
}

fn newest_superblock(header: &[u8]) -> Result<Superblock, MetadataError> {
    let first = Superblock::decode(&header[..SECTOR_BYTES]);
    let second = Superblock::decode(&header[SECTOR_BYTES..2 * SECTOR_BYTES]);
    match (first, second) {
        (Err(error @ MetadataError::TooNew { .. }), _) | (_, Err(error @ MetadataError::TooNew { .. })) => Err(error),
        (Ok(first), Ok(second)) => Ok(if first.sequence > second.sequence {
            first
        } else {
            second
        }),
        (Ok(only), Err(_)) | (Err(_), Ok(only)) => Ok(only),
        (Err(MetadataError::Foreign), Err(MetadataError::Foreign)) => Err(MetadataError::Foreign),
        (Err(MetadataError::Foreign), Err(error)) | (Err(error), Err(_)) => Err(error),
    }
}
