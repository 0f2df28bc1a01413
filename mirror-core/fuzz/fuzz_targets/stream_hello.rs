//! A HELLO of arbitrary bytes is refused or read; what is read is said again in the same words.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| mirror_core::stream::hello::read_any(bytes));
