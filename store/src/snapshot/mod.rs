//! A partition's state as bytes, and back. The layout is docs/storage-snapshot.md.

mod chunk;
mod header;
mod restore;
mod rows;
mod source;
mod table;

pub(crate) use chunk::{ChunkKind, chunk_of_rows, payload_of};
pub use restore::RestoreError;
pub use source::{SnapshotPart, SnapshotSource};
pub use table::SnapshotBase;
pub(crate) use table::{ChunkEntry, GroupTable, depth_of};
