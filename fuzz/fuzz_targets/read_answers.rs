//! See `stoa_fuzz::targets::read_answers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stoa_fuzz::targets::read_answers::run(data));
