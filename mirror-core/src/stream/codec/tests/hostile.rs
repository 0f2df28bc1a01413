//! Bytes that are no frame.

use alloc::vec;

use proptest::prelude::*;

use super::*;
use crate::range::ByteRange;

/// A frame of this header and body, its CRC right.
fn frame(kind: u8, flags: u8, volume: u16, sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut head = [0; HEADER_BYTES];
    let mut header = Header::new(Payload::NONE);
    (header.kind, header.flags, header.volume, header.sequence) = (kind, flags, volume, sequence);
    header.finish(&mut head, body);
    [&head[..], body].concat()
}

fn malformed(kind: u8, flags: u8, volume: u16, sequence: u64, body: &[u8]) {
    let bytes = frame(kind, flags, volume, sequence, body);
    let found = decode(&bytes);
    assert!(
        matches!(found, Err(DecodeError::Malformed { kind: of, .. }) if of == kind),
        "{found:?} of {bytes:02x?}"
    );
}

#[test]
fn a_long_body_is_refused_before_it_is_waited_for() {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..4].copy_from_slice(&(BODY_BYTES_MAX as u32 + 1).to_le_bytes());
    assert_eq!(decode(&bytes), Err(DecodeError::TooLong(BODY_BYTES_MAX as u32 + 1)));
    bytes[..4].copy_from_slice(&(BODY_BYTES_MAX as u32).to_le_bytes());
    let total = Some(FRAME_BYTES_MAX);
    assert_eq!(decode(&bytes), Ok(Progress::NeedMore { total }));
}

#[test]
fn every_flipped_bit_is_seen() {
    let range = ByteRange::new(8192, 4096);
    let bytes = encoded(&Frame::Request {
        sequence: 3,
        volume: 1,
        request: Request::Write { range, fua: true },
    });
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let found = decode(&damaged);
        let seen = matches!(
            found,
            Err(DecodeError::Damaged { .. } | DecodeError::TooLong(_)) | Ok(Progress::NeedMore { .. })
        );
        assert!(seen, "bit {bit}: {found:?}");
    }
}

#[test]
fn unknown_types_flags_and_fields() {
    for kind in [0, 12, 31, 36, 63, 85, 255] {
        malformed(kind, 0, 0, 1, &[]);
    }
    malformed(4, 1, 0, 1, &[]);
    malformed(1, 2, 0, 1, &[0; 12]);
    malformed(4, 0, 0, 1, &[0]);
    malformed(32, 0, 1, 0, &[0; 4]);
    malformed(32, 0, 0, 1, &[0; 4]);
    malformed(68, 0, 0, 1, &[]);
    malformed(68, 0, 1, 0, &[]);
    malformed(11, 0, 0, 1, &[9]);
    malformed(11, 0, 0, 1, &[8, 4]);
    malformed(33, 0, 0, 1, &[3]);
    malformed(67, 0, 0, 0, &[3, 0, 0, 0, 0]);
    malformed(84, 0, 0, 0, &[2, 0, 0]);
    malformed(70, 0, 0, 0, &[1, 0, 0xff]);
}

#[test]
fn lists_that_claim_more_than_there_is() {
    let claim = |count: u32, rest: &[u8]| [&count.to_le_bytes()[..], rest].concat();
    malformed(32, 0, 0, 0, &claim(u32::MAX, &[0; 8]));
    malformed(32, 0, 0, 0, &claim(2, &[0; 8]));
    malformed(32, 0, 0, 0, &claim(DONE_MAX as u32 + 1, &vec![0; 8 * DONE_MAX + 8]));
    malformed(34, 0, 0, 1, &claim(2, &[1; 12]));
    malformed(66, 0, 0, 0, &claim(1 << 8, &[0; 40]));
}

#[test]
fn ranges_that_cannot_be() {
    let range = |offset: u64, length: u32| [&offset.to_le_bytes()[..], &length.to_le_bytes()].concat();
    malformed(2, 0, 0, 1, &range(0, 0));
    malformed(2, 0, 0, 1, &range(0, RANGE_BYTES_MAX as u32 + 1));
    malformed(2, 0, 0, 1, &range(u64::MAX, 1));
    // A write whose header announces no payload.
    malformed(1, 0, 0, 1, &range(0, 4096));
    let two = |first: Vec<u8>, second: Vec<u8>| [&2_u32.to_le_bytes()[..], &first, &second].concat();
    malformed(34, 0, 0, 1, &two(range(4096, 4096), range(0, 4096)));
    malformed(34, 0, 0, 1, &two(range(0, 4097), range(4096, 4096)));
    // Digests that are not one per block, and a range that does not begin with one.
    malformed(
        6,
        0,
        0,
        1,
        &[&range(0, 8192)[..], &1_u32.to_le_bytes(), &[0; 8]].concat(),
    );
    malformed(
        6,
        0,
        0,
        1,
        &[&range(1, 4096)[..], &1_u32.to_le_bytes(), &[0; 8]].concat(),
    );
    // A hole outside of the contents.
    let one = |range: Vec<u8>| [&1_u32.to_le_bytes()[..], &range].concat();
    malformed(35, 0, 0, 1, &[one(range(0, 4096)), one(range(4096, 4096))].concat());
    malformed(35, 0, 0, 1, &[one(range(0, 4096)), one(range(2048, 4096))].concat());
    // Contents of more than was asked for.
    let most = RANGE_BYTES_MAX as u32;
    let much = two(range(0, most), range(u64::from(most), 1));
    malformed(35, 0, 0, 1, &[&much[..], &0_u32.to_le_bytes()].concat());
}

proptest! {
    /// What decodes at all says the same when it is encoded again: there is one form of everything.
    #[test]
    fn rubbish_with_a_right_crc(kind in 0..90_u8, flags in 0..4_u8, volume in 0..2_u16, sequence in 0..2_u64,
                                body in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..80)) {
        read_any(&frame(kind, flags, volume, sequence, &body));
    }

    #[test]
    fn rubbish(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read_any(&bytes);
    }
}
