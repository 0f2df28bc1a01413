//! Golden bytes, crashes and hostile bytes.
#![allow(clippy::unwrap_used)]
extern crate std;

use std::string::ToString;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::event::MetadataWrite;
use crate::identity::{Meeting, Role};
use crate::state::LocalDisk;

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
            kind: Some(LinkKind::Nbd),
        })
        .collect()
}

fn partners(names: &[&str]) -> Vec<PeerSlotConfig> {
    let mut all = peers(names);
    for peer in &mut all {
        peer.kind = Some(LinkKind::Stream);
    }
    all
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
        (4096, &b"BMIRMETA\x02\0\0\0"[..])
    );
    assert_eq!(superblock[16..24], 1u64.to_le_bytes(), "sequence");
    assert_eq!(superblock[24..32], restored.superblock.volume.to_le_bytes());
    assert_eq!(superblock[32..40], (1u64 << 30).to_le_bytes());
    assert_eq!(superblock[48..56], 4711u64.to_le_bytes());
    assert_eq!(superblock[12..16], 12u32.to_le_bytes(), "Primary, and will be again");
    assert_eq!(
        (superblock[72], &superblock[76..80]),
        (4, &[0; 4][..]),
        "UpToDate, no history"
    );
    assert_eq!(superblock[208], 1, "a plain server");
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

/// Writes later ones of a file over it.
fn overwrite(bytes: &mut [u8], writes: &[MetadataWrite]) {
    for write in writes {
        let at = write.offset as usize;
        bytes[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
    }
}

#[test]
fn a_volume_whose_image_is_gone_begins_diskless_and_is_as_at_the_crash_when_it_is_back() {
    let wanted = partners(&["bravo"]);
    let (mut crashed, writes) = Restored::create(IMAGE, &wanted, 7).unwrap();
    let mut bytes = file(&writes);
    // It was Primary when it was killed, and wrote.
    (crashed.superblock.fresh, crashed.superblock.primary) = (false, true);
    crashed.superblock.sequence += 1;
    let superblock = MetadataWrite {
        offset: crashed.superblock.offset(),
        bytes: crashed.superblock.encode(),
    };
    let log = encode_log(crashed.superblock.volume, crashed.log_sequence + 1, &[3]);
    overwrite(&mut bytes, &[superblock, log]);
    for _ in 0..2 {
        let gone = Restored::open_without_image(&bytes[..HEADER_BYTES]).unwrap();
        assert!(gone.has_partner(&wanted) && !gone.has_partner(&peers(&["bravo"])));
        assert_eq!(gone.image(), IMAGE);
        let (gone, writes) = gone.finish(&wanted, 5).unwrap();
        assert_eq!((gone.disk(), gone.start_role()), (LocalDisk::Diskless, Role::Secondary));
        assert!(gone.dirty_blocks(0) > 0, "what was hot may not be durable in it");
        overwrite(&mut bytes, &writes);
    }
    let back = Restored::open(&bytes[..HEADER_BYTES], &IMAGE, false).unwrap();
    let (back, _) = back.finish(&wanted, 6).unwrap();
    assert_eq!(back.disk(), LocalDisk::UpToDate, "it may have what nobody else has");
    let other = ImageIdentity { inode: 1, ..IMAGE };
    assert!(matches!(
        Restored::open(&bytes[..HEADER_BYTES], &other, false),
        Err(MetadataError::OtherImage { .. })
    ));
}

/// Everything that version 2 added, at its place.
#[test]
fn golden_identity() {
    let (restored, _) = Restored::create(IMAGE, &partners(&["bravo"]), 7).unwrap();
    let mut superblock = restored.superblock.clone();
    assert!(superblock.fresh && !superblock.primary);
    (superblock.fresh, superblock.primary, superblock.acks_wait) = (false, true, true);
    superblock.disk = LocalDisk::Inconsistent;
    superblock.primary_since = 0x55;
    superblock.generation = 0x0102_0304_0506_0708;
    superblock.rename(0x1112);
    let mut record = superblock.peers[0].clone().unwrap();
    (record.verify_cursor, record.sync) = (0x77, 0x66);
    record.given_up = 0x44;
    record.met = [Meeting { count: 3, token: 4 }, Meeting { count: 2, token: 5 }];
    superblock.peers[0] = Some(record);
    let bytes = superblock.encode();
    assert_eq!(bytes[12..16], [4 | 16, 0, 0, 0]);
    assert_eq!(bytes[64..80], [0x12, 0x11, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(bytes[88..96], 0x55u64.to_le_bytes(), "when it became Primary");
    assert_eq!(bytes[1152..1160], [8, 7, 6, 5, 4, 3, 2, 1], "the history");
    assert_eq!(bytes[1408..1416], 0x66u64.to_le_bytes(), "a resync that has not ended");
    assert_eq!(bytes[1472..1480], 0x44u64.to_le_bytes(), "the operator's word");
    assert_eq!(bytes[208..216], [2, 0, 0, 0, 0, 0, 0, 0], "a partner");
    assert_eq!(bytes[216], 0x77);
    let words = [3u64, 4, 2, 5].map(u64::to_le_bytes).concat();
    assert_eq!(bytes[224..256], words);
    assert_eq!(Superblock::decode(&bytes).unwrap(), superblock);
}

/// What an earlier release left: plain peers only, Primary all the time.
#[test]
fn version_1_is_read_and_written_back_as_version_2() {
    let (_, writes) = Restored::create(IMAGE, &peers(&["bravo"]), 7).unwrap();
    let mut bytes = file(&writes);
    let old = &mut bytes[4096..8192];
    old[8] = 1;
    old[12] = 0;
    old[72..128].fill(0);
    old[208..256].fill(0);
    old[1152..4092].fill(0);
    let crc = crc32fast::hash(&old[..4092]);
    old[4092..].copy_from_slice(&crc.to_le_bytes());
    let mut auto = peers(&["bravo"]);
    auto[0].kind = None;
    let restored = Restored::open(&bytes[..HEADER_BYTES], &IMAGE, false).unwrap();
    let (restored, writes) = restored.finish(&auto, 5).unwrap();
    assert_eq!(
        (restored.kind(0), restored.start_role()),
        (Some(LinkKind::Nbd), Role::Primary)
    );
    assert!(!restored.is_fresh() && restored.was_primary() && restored.disk() == LocalDisk::UpToDate);
    assert_eq!(writes.last().unwrap().bytes[8], 2);
}

#[test]
fn a_partner_makes_a_start_as_secondary_and_a_crash_keeps_the_generation() {
    let (restored, writes) = Restored::create(IMAGE, &partners(&["bravo"]), 7).unwrap();
    assert_eq!(restored.start_role(), Role::Secondary);
    assert!(restored.is_fresh() && !restored.was_primary());
    let mut bytes = file(&writes);
    let mut superblock = restored.superblock.clone();
    (superblock.fresh, superblock.primary, superblock.resume) = (false, true, true);
    superblock.sequence += 1;
    let log = encode_log(superblock.volume, 2, &[1]);
    for (offset, written) in [(superblock.offset(), superblock.encode()), (log.offset, log.bytes)] {
        bytes[offset as usize..][..written.len()].copy_from_slice(&written);
    }
    let opened = Restored::open(&bytes[..HEADER_BYTES], &IMAGE, false).unwrap();
    let (back, _) = opened.finish(&partners(&["bravo"]), 5).unwrap();
    assert_eq!(back.dirty_blocks(0), 1024);
    assert_eq!(
        (back.generation(), back.recorded("bravo")),
        (superblock.generation, Some(0))
    );
    assert!(back.was_primary() && back.superblock.primary, "crashed");
    superblock.sequence += 2;
    (superblock.clean, superblock.primary) = (true, false);
    let at = superblock.offset() as usize;
    bytes[at..at + SECTOR_BYTES].copy_from_slice(&superblock.encode());
    let opened = Restored::open(&bytes[..HEADER_BYTES], &IMAGE, false).unwrap();
    let (back, _) = opened.finish(&partners(&["bravo"]), 5).unwrap();
    assert!(back.was_primary() && !back.superblock.primary, "stopped in order");
}

#[test]
fn an_image_that_grew_is_the_same_image_with_everything_dirty() {
    let (_, writes) = Restored::create(IMAGE, &peers(&["bravo"]), 7).unwrap();
    let bytes = file(&writes);
    let grown = ImageIdentity { size: 2 << 30, ..IMAGE };
    let opened = Restored::open(&bytes[..HEADER_BYTES], &grown, false).unwrap();
    let (back, _) = opened.finish(&peers(&["bravo"]), 5).unwrap();
    assert_eq!(back.dirty_blocks(0), (2 << 30) / 4096);
    let shrunk = ImageIdentity { size: 1 << 20, ..IMAGE };
    let refused = Restored::open(&bytes[..HEADER_BYTES], &shrunk, false);
    assert!(matches!(refused, Err(MetadataError::OtherImage { .. })));
}

#[test]
fn an_adopted_image_does_not_overwrite_a_partner() {
    let (_, writes) = Restored::create(IMAGE, &partners(&["bravo"]), 7).unwrap();
    let bytes = file(&writes);
    let other = ImageIdentity { inode: 1, ..IMAGE };
    let opened = Restored::open(&bytes[..HEADER_BYTES], &other, true).unwrap();
    assert!(opened.finish(&partners(&["bravo"]), 5).unwrap().0.is_fresh());
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
        bytes[4104] = 3;
        let crc = crc32fast::hash(&bytes[4096..8188]);
        bytes[8188..8192].copy_from_slice(&crc.to_le_bytes());
    };
    assert_eq!(reason(&newer), MetadataError::TooNew { found: 3 });
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

/// A Primary went on without its image, on its peers: they hold nothing that the image descends from.
#[test]
fn an_image_that_was_left_behind_falls_back_without_what_was_known_since() {
    let (restored, _) = Restored::create(IMAGE, &partners(&["bravo", "charlie"]), 7).unwrap();
    let mut superblock = restored.superblock;
    (superblock.fresh, superblock.generation, superblock.left_at) = (false, 6, 4);
    superblock.history = vec![5, 4, 3];
    for (peer, held) in superblock.peers.iter_mut().flatten().zip([5, 3]) {
        peer.generation = held;
    }
    superblock.fall_back();
    let held: Vec<u64> = superblock.peers.iter().flatten().map(|peer| peer.generation).collect();
    assert_eq!((superblock.generation, superblock.history), (4, vec![3]));
    assert_eq!(held, [0, 3]);
}

/// A Primary gave its image up and died before a peer was known to have everything: what the image has is all there is of
/// what was answered, and it must not be overwritten by a peer that has less.
#[test]
fn an_image_that_was_given_up_in_memory_only_is_whole_after_a_crash() {
    let (restored, _) = Restored::create(IMAGE, &partners(&["bravo"]), 7).unwrap();
    let mut superblock = restored.superblock;
    (superblock.fresh, superblock.disk, superblock.left_at) = (false, LocalDisk::Diskless, 4);
    for (primary, whole, then) in [
        (true, true, LocalDisk::UpToDate),
        (true, false, LocalDisk::Inconsistent),
        (false, true, LocalDisk::Inconsistent),
    ] {
        (superblock.primary, superblock.whole) = (primary, whole);
        assert_eq!(superblock.taken_again(), then, "{primary} {whole}");
    }
    for primary in [true, false] {
        let mut ended = superblock.clone();
        (ended.generation, ended.history) = (5, vec![4]);
        (ended.primary, ended.whole) = (primary, true);
        for _ in 0..2 {
            ended.fall_back();
            assert_eq!(
                (ended.generation, ended.whole),
                (4, primary),
                "ended in order: {}",
                !primary
            );
        }
        assert_eq!(ended.taken_again() == LocalDisk::UpToDate, primary);
    }
    (superblock.whole, superblock.left_at) = (true, 0);
    for (primary, then) in [(true, LocalDisk::UpToDate), (false, LocalDisk::Outdated)] {
        superblock.primary = primary;
        assert_eq!(superblock.taken_again(), then, "it was not there at the start");
    }
}
