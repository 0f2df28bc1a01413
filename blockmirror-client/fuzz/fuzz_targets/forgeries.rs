//! Fuzzes `forgeries::forgeries`.
#![no_main]

#[path = "../../tests/forgeries/mod.rs"]
#[allow(dead_code)]
mod forgeries;

libfuzzer_sys::fuzz_target!(|data: &[u8]| forgeries::forgeries(data));
