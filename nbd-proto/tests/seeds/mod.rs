//! Playing what a fuzz target plays: its seeds, and anything.

use std::path::Path;

/// Every line of a file of seeds: an input, in hexadecimal digits.
pub(crate) fn play_seeds(file: &Path, play: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert!(text.lines().count() >= 10, "{}: too few seeds", file.display());
    for line in text.lines() {
        let played = std::panic::catch_unwind(|| play(&bytes(line)));
        assert!(played.is_ok(), "{} fails on {line}", file.display());
    }
}

fn bytes(line: &str) -> Vec<u8> {
    let digits: Vec<u8> = line.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// So many random inputs, each shorter than `longest`: the same ones in every run.
pub(crate) fn play_anything(rounds: usize, longest: usize, play: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..rounds {
        let bytes: Vec<u8> = (0..round % longest)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        let played = std::panic::catch_unwind(|| play(&bytes));
        assert!(played.is_ok(), "fails on {bytes:02x?}");
    }
}
