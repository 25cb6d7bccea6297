//! (skeleton)

pub mod disk;
