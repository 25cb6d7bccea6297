//! See `stoa_fuzz::targets::positions`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stoa_fuzz::targets::positions::run(data));
