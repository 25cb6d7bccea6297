//! (skeleton)

pub mod config;
pub mod definitions;
pub mod load;
