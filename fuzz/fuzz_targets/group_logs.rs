//! See `stoa_fuzz::targets::group_logs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stoa_fuzz::targets::group_logs::run(data));
