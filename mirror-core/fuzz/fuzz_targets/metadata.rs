//! A metadata file of arbitrary bytes is refused or read, never a panic, never a large allocation.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| mirror_core::metadata::read_any(bytes));
