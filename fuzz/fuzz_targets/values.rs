//! See `stoa_fuzz::targets::values`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stoa_fuzz::targets::values::run(data));
