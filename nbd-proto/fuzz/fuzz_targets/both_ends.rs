//! Fuzzes `sequences::both_ends`.
#![no_main]

#[path = "../../tests/sequences/mod.rs"]
#[allow(dead_code)]
mod sequences;

libfuzzer_sys::fuzz_target!(|data: &[u8]| sequences::both_ends(data));
