//! The seeds of the fuzz targets, played by the plain compiler: what fuzzing has found once is never lost again, and no
//! target rots between two runs of `scripts/fuzz`, which begins with them, and writes them anew when it is told to.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[allow(dead_code)]
mod decoders;
mod seeds;
mod sequences;

use std::path::Path;

use seeds::{play_anything, play_seeds};

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
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
        play_seeds(&folder.join(name).with_extension("hex"), play);
    }
}

/// A quick look without a corpus.
#[test]
fn every_target_takes_anything() {
    for (name, play) in TARGETS {
        println!("{name}");
        play_anything(3000, 400, play);
    }
}
