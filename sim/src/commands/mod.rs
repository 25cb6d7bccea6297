//! The commands of the program, one file each.

pub mod meta;
pub mod minimise;
pub mod options;
pub mod play;
pub mod report;
pub mod sweep;
