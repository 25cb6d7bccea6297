//! See `stoa_fuzz::targets::texts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stoa_fuzz::targets::texts::run(data));
