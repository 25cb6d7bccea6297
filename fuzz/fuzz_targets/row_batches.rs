//! See `stoa_fuzz::targets::row_batches`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stoa_fuzz::targets::row_batches::run(data));
