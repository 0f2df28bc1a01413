//! Frames of arbitrary bytes are refused or read, never a panic, never a large allocation, and there is one form of each.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| mirror_core::stream::codec::read_any(bytes));
