//! A partition's state as bytes, and back. The layout is docs/storage-snapshot.md.

mod chunk;
mod restore;
mod source;

pub use restore::RestoreError;
pub use source::SnapshotSource;
