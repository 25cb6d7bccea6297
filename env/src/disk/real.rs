//! (skeleton)
/// Real files.
#[derive(Clone, Debug)]
pub struct RealDisk;
