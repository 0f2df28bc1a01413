//! Fuzzes `decoders::request`.
#![no_main]

#[path = "../../tests/decoders/mod.rs"]
#[allow(dead_code)]
mod decoders;

libfuzzer_sys::fuzz_target!(|data: &[u8]| decoders::request(data));
