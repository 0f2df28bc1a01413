//! The seeds of the fuzz targets, played by the plain compiler: what fuzzing has found once is never lost again, and no
//! target rots between two runs of `scripts/fuzz`, which begins with them, and writes them anew when it is told to.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[allow(dead_code)]
mod decoders;
mod sequences;

use std::path::Path;

type Target = (&'static str, fn(&[u8]));

/// As in `fuzz/fuzz_targets`.
const TARGETS: [Target; 7] = [
    ("server_handshake", decoders::server_handshake),
    ("client_handshake", decoders::client_handshake),
    ("request", decoders::request),
    ("reply", decoders::replies),
    ("server_sequence", sequences::server_sequence),
    ("client_sequence", sequences::client_sequence),
    ("both_ends", sequences::both_ends),
];

#[test]
fn every_seed_is_played() {
    for (name, play) in TARGETS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/corpus/{name}.hex"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(text.lines().count() >= 10, "{name}: too few seeds");
        for line in text.lines() {
            let played = std::panic::catch_unwind(|| play(&bytes(line)));
            assert!(played.is_ok(), "{name} fails on {line}");
        }
    }
}

/// A seed is a line of hexadecimal digits.
fn bytes(line: &str) -> Vec<u8> {
    let digits: Vec<u8> = line.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A quick look without a corpus: random bytes, the same ones in every run.
#[test]
fn every_target_takes_anything() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for (name, play) in TARGETS {
        for round in 0..3000_usize {
            let bytes: Vec<u8> = (0..round % 400)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state as u8
                })
                .collect();
            let played = std::panic::catch_unwind(|| play(&bytes));
            assert!(played.is_ok(), "{name} fails on {bytes:02x?}");
        }
    }
}
