//! Golden bytes, crashes and hostile bytes.
#![allow(clippy::unwrap_used)]
extern crate std;

use std::string::ToString;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::event::MetadataWrite;

const IMAGE: ImageIdentity = ImageIdentity {
    size: 1 << 30,
    device: 0x801,
    inode: 4711,
    born_ns: 99,
};

fn peers(names: &[&str]) -> Vec<PeerSlotConfig> {
    names
        .iter()
        .map(|name| PeerSlotConfig {
            name: name.to_string(),
            skip_initial_sync: true,
        })
        .collect()
}

/// A file with everything a mirror wrote.
fn file(writes: &[MetadataWrite]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES + 64 * SECTOR_BYTES];
    for write in writes {
        let at = write.offset as usize;
        bytes[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
    }
    bytes
}

fn reopen(bytes: &[u8], names: &[&str]) -> Result<Restored, MetadataError> {
    let mut restored = Restored::open(&bytes[..HEADER_BYTES], &IMAGE, false)?;
    for at in (HEADER_BYTES..bytes.len()).step_by(SECTOR_BYTES) {
        restored.load_page(at as u64, bytes[at..at + SECTOR_BYTES].try_into().unwrap())?;
    }
    Ok(restored.finish(&peers(names), 5)?.0)
}

#[test]
fn golden_superblock_and_log() {
    let (restored, writes) = Restored::create(IMAGE, &peers(&["bravo"]), 7).unwrap();
    let superblock = &writes[0].bytes;
    assert_eq!(
        (writes[0].offset, &superblock[..12]),
        (4096, &b"BMIRMETA\x01\0\0\0"[..])
    );
    assert_eq!(superblock[16..24], 1u64.to_le_bytes(), "sequence");
    assert_eq!(superblock[24..32], restored.superblock.volume.to_le_bytes());
    assert_eq!(superblock[32..40], (1u64 << 30).to_le_bytes());
    assert_eq!(superblock[48..56], 4711u64.to_le_bytes());
    assert_eq!(
        &superblock[128..150],
        b"\x05\0\0\0\xc1\xf0\xab\x59\0\0\0\0\0\0\0\0\x05bravo".as_slice()
    );
    let log = encode_log(0x1122_3344_5566_7788, 9, &[3, 70000]);
    assert_eq!(log.offset, LOG_OFFSET + LOG_SLOT_BYTES as u64);
    assert_eq!(log.bytes[..4], *b"BMAL");
    assert_eq!(log.bytes[8..12], 2u32.to_le_bytes());
    assert_eq!(
        log.bytes[16..32],
        [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 9, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(log.bytes[32..40], [3, 0, 0, 0, 0x70, 0x11, 1, 0]);
    assert_eq!(log.bytes[4..8], crc32fast::hash(&log.bytes[8..40]).to_le_bytes());
}

#[test]
fn hot_extents_come_back_dirty_and_a_torn_log_slot_falls_back() {
    let (restored, writes) = Restored::create(IMAGE, &peers(&["bravo"]), 7).unwrap();
    let mut bytes = file(&writes);
    let volume = restored.superblock.volume;
    for (sequence, extents) in [(2u64, &[1u32, 5][..]), (3, &[5, 6])] {
        let write = encode_log(volume, sequence, extents);
        bytes[write.offset as usize..][..write.bytes.len()].copy_from_slice(&write.bytes);
    }
    let back = reopen(&bytes, &["bravo"]).unwrap();
    assert_eq!((back.hot_extents(), back.dirty_blocks(0)), (&[5, 6][..], 2048));
    assert_ne!(
        back.generation(),
        restored.generation(),
        "the peer holds an earlier generation now"
    );
    let newest = (LOG_OFFSET + 3 * LOG_SLOT_BYTES as u64) as usize;
    bytes[newest + 33] ^= 1;
    assert_eq!(reopen(&bytes, &["bravo"]).unwrap().hot_extents(), [1, 5]);
}

#[test]
fn each_refusal_has_its_reason() {
    let (_, writes) = Restored::create(IMAGE, &peers(&["bravo"]), 7).unwrap();
    let good = file(&writes);
    assert!(reopen(&good, &["bravo"]).is_ok());
    let reason = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        reopen(&bytes, &["bravo"]).unwrap_err()
    };
    assert_eq!(reason(&|bytes| bytes[4096] = b'X'), MetadataError::Foreign);
    assert_eq!(reason(&|bytes| bytes[4200] ^= 1), MetadataError::Torn);
    let newer = |bytes: &mut Vec<u8>| {
        bytes[4104] = 2;
        let crc = crc32fast::hash(&bytes[4096..8188]);
        bytes[8188..8192].copy_from_slice(&crc.to_le_bytes());
    };
    assert_eq!(reason(&newer), MetadataError::TooNew { found: 2 });
    let all_logs = |bytes: &mut Vec<u8>| bytes[LOG_OFFSET as usize..HEADER_BYTES].fill(0xff);
    assert_eq!(reason(&all_logs), MetadataError::LogDamaged);
    let both_sides = |bytes: &mut Vec<u8>| bytes[HEADER_BYTES..HEADER_BYTES + 2 * SECTOR_BYTES].fill(1);
    assert_eq!(reason(&both_sides), MetadataError::PageDamaged { slot: 0, page: 0 });
    let other = ImageIdentity { inode: 1, ..IMAGE };
    let refused = Restored::open(&good[..HEADER_BYTES], &other, false).unwrap_err();
    assert_eq!(
        refused,
        MetadataError::OtherImage {
            recorded: IMAGE,
            found: other
        }
    );
    let adopted = Restored::open(&good[..HEADER_BYTES], &other, true)
        .unwrap()
        .finish(&peers(&["bravo"]), 3)
        .unwrap();
    assert_eq!(
        adopted.0.dirty_blocks(0),
        (1 << 30) / 4096,
        "adopted: everything is dirty"
    );
    assert!(matches!(
        Restored::open(&good[..100], &IMAGE, false),
        Err(MetadataError::Short { found: 100 })
    ));
}

#[test]
fn a_peer_that_left_the_configuration_comes_back_as_new() {
    let (_, writes) = Restored::create(IMAGE, &peers(&["bravo"]), 7).unwrap();
    let bytes = file(&writes);
    let restored = Restored::open(&bytes[..HEADER_BYTES], &IMAGE, false).unwrap();
    let (_, rewritten) = restored.finish(&peers(&["charlie"]), 5).unwrap();
    let mut bytes = bytes;
    bytes[rewritten[0].offset as usize..][..SECTOR_BYTES].copy_from_slice(&rewritten[0].bytes);
    let config = peers(&["bravo"]);
    let restored = Restored::open(&bytes[..HEADER_BYTES], &IMAGE, false).unwrap();
    assert_eq!(restored.finish(&config, 5).unwrap().0.dirty_blocks(0), (1 << 30) / 4096);
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read_any(&bytes);
    }

    #[test]
    fn log_records_round_trip(extents in proptest::collection::vec(any::<u32>(), 0..4000), sequence in any::<u64>()) {
        let write = encode_log(77, sequence, &extents);
        let mut slot = vec![0xa5; LOG_SLOT_BYTES];
        slot[..write.bytes.len()].copy_from_slice(&write.bytes);
        prop_assert_eq!(log_record::decode(&slot, 77), Some((sequence, extents)));
        prop_assert_eq!(log_record::decode(&slot, 78), None);
    }
}
