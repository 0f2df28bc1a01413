//! Fuzzes `sequences::client_sequence`.
#![no_main]

#[path = "../../tests/sequences/mod.rs"]
#[allow(dead_code)]
mod sequences;

libfuzzer_sys::fuzz_target!(|data: &[u8]| sequences::client_sequence(data));
