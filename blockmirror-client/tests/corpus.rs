//! The seeds of the fuzz target, played by the plain compiler, and a quick look without them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod forgeries;
#[path = "../../nbd-proto/tests/seeds/mod.rs"]
mod seeds;

use std::path::Path;

use forgeries::{forgeries, meet};
use rustls::ContentType;
use seeds::{play_anything, play_seeds};

#[test]
fn every_seed_is_played() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    play_seeds(&folder.join("forgeries.hex"), forgeries);
}

#[test]
fn anything_can_be_played() {
    play_anything(200, 90, forgeries);
}

/// rustls keeps the first part of a message of the handshake, and has to find it again whatever is done in between.
#[test]
fn a_message_in_two_records_is_put_together_while_data_is_sealed() {
    const UPDATE_REQUESTED: [u8; 5] = [24, 0, 0, 1, 1];
    for split in 1..UPDATE_REQUESTED.len() {
        for piece in [1, 7, 1000] {
            let (mut forger, mut victim) = meet(true);
            let usual = victim.answer(9);
            let (early, late) = UPDATE_REQUESTED.split_at(split);
            victim.receive(&mut forger.seal(ContentType::Handshake, early), piece, false);
            assert_eq!(victim.answer(9), usual, "it is not complete");
            victim.receive(&mut forger.seal(ContentType::Handshake, late), piece, false);
            assert!(!victim.failed);
            assert!(victim.answer(9) > usual, "the answer goes before");
        }
    }
}

/// What never becomes complete is not kept for ever.
#[test]
fn a_message_in_endless_records_is_refused() {
    let (mut forger, mut victim) = meet(true);
    let begin = [[24, 0, 200, 0].to_vec(), vec![0; 100]].concat();
    victim.receive(&mut forger.seal(ContentType::Handshake, &begin), 1000, false);
    let kept = (0..).find(|_| {
        victim.receive(&mut forger.seal(ContentType::Handshake, &[0]), 1000, false);
        victim.failed
    });
    assert!((1000..4000).contains(&kept.unwrap()), "{kept:?} records");
}
