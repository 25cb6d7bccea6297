//! Every decoder of foreign bytes, fuzzed: bytes of the wire, of the log and of snapshots. A target takes bytes as they
//! come, or makes bytes of them that pass checksums and digests, and says what must hold of whatever is accepted: what
//! is written again is what was read, nothing is beyond its limit, what is applied leaves a sound state.
//!
//! Start reading at [`TARGETS`], then at any module of [`targets`]: its input, its assertions, its seeds.

pub mod input;
pub mod memory_disk;
pub mod round_trip;
pub mod sample;
pub mod snapshot_bytes;
pub mod targets;
pub mod wal_bytes;

pub use input::Input;
pub use targets::{Seed, TARGETS, Target};
