//! See `stoa_fuzz::targets::keys`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stoa_fuzz::targets::keys::run(data));
