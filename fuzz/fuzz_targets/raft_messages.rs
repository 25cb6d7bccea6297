//! See `stoa_fuzz::targets::raft_messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stoa_fuzz::targets::raft_messages::run(data));
