//! See `stoa_fuzz::targets::root_states`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stoa_fuzz::targets::root_states::run(data));
