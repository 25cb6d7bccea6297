//! (skeleton)

pub mod wal;
