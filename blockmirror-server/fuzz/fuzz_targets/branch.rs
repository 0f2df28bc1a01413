//! A branch file of arbitrary bytes is refused or read up to its last whole record, never a panic, never a large allocation.
//! Random bytes have no right checksums: the target puts them in, so that what is behind them is met as well.
#![no_main]

use blockmirror_server::branch::{Source, replay};
use libfuzzer_sys::fuzz_target;

const HEADER_BYTES: usize = 4096;
const RECORD_BYTES: usize = 44;

fuzz_target!(|input: &[u8]| {
    let Some((&sealed, bytes)) = input.split_first() else {
        return;
    };
    check(bytes);
    check(&seal(bytes, sealed));
});

fn check(file: &[u8]) {
    let Ok(replayed) = replay(file) else { return };
    let size = replayed.header.size;
    assert!(replayed.end <= file.len() as u64, "nothing is read beyond the end");
    assert!(replayed.index.bytes() <= size, "nothing is outside of the volume");
    for piece in replayed.index.look(0..size) {
        assert!(piece.range.start < piece.range.end && piece.range.end <= size);
        if let Source::File(at) = piece.source {
            assert!(at + (piece.range.end - piece.range.start) <= replayed.end);
        }
    }
}

/// A header of short fields, then records, with the checksums that belong there, the first `sealed` of them.
fn seal(bytes: &[u8], sealed: u8) -> Vec<u8> {
    let (fields, mut rest) = bytes.split_at(bytes.len().min(64));
    let mut file = vec![0; HEADER_BYTES];
    file[..8].copy_from_slice(b"BMBRANCH");
    file[8] = 1;
    file[12..12 + fields.len()].copy_from_slice(fields);
    let tag = crc32fast::hash(&file[..HEADER_BYTES - 4]).to_le_bytes();
    file[HEADER_BYTES - 4..].copy_from_slice(&tag);
    for sequence in 0..u64::from(sealed) {
        let Some((record, behind)) = rest.split_first_chunk::<20>() else {
            break;
        };
        let length = usize::from(record[2]) * 16;
        let (data, behind) = behind.split_at(length.min(behind.len()));
        let mut whole = [0; RECORD_BYTES];
        whole[..4].copy_from_slice(b"REC1");
        whole[4] = record[0] % 6;
        whole[8..16].copy_from_slice(&sequence.to_le_bytes());
        whole[16..24].copy_from_slice(&record[4..12]);
        let long = record[1] & 1 == 1;
        let claimed = if long { &record[12..20] } else { &(length as u64).to_le_bytes()[..] };
        whole[24..32].copy_from_slice(claimed);
        whole[32..36].copy_from_slice(&crc32fast::hash(data).to_le_bytes());
        whole[36..40].copy_from_slice(&tag);
        let crc = crc32fast::hash(&whole[..RECORD_BYTES - 4]).to_le_bytes();
        whole[RECORD_BYTES - 4..].copy_from_slice(&crc);
        file.extend_from_slice(&whole);
        if whole[4] == 1 {
            file.extend_from_slice(data);
        }
        rest = behind;
    }
    file
}
