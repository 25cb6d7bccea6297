//! See `stoa_fuzz::targets::reads`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stoa_fuzz::targets::reads::run(data));
