//! (skeleton)

pub mod certs;
