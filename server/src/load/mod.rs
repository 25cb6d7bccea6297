//! Feature files on their way into a group: `stoa load GROUP FILE`.
//!
//! A file is opened against a group ([`SourceFile`]), which settles what each of its columns is and refuses what cannot
//! fit; it is read in chunks of rows ([`Chunk`]), in which bad rows stand apart with their reasons; a [`Batcher`] turns
//! rows into one row batch after the other for each partition; [`load`] sends them. The time of the load is an option.
//!
//! The same file, group, options and partition ranges give the same batches, byte for byte. That makes a load resumable:
//! its batches are written under a session id ([`load_session_id`]) and numbered 1, 2, 3 … for each partition,
//! so a second run repeats them and the partitions pass over those they have.
//!
//! Feature files belong to the user, not to the node: they are read with `std::fs`, not through the node's `Disk`.

mod batcher;
mod columns;
mod csv_file;
mod error;
mod identity;
mod lanes;
mod options;
mod parquet_file;
mod parquet_types;
mod parquet_values;
mod reading;
mod row;
mod run;
mod source;
mod text;

pub use batcher::{Batcher, ReadyBatch};
pub use error::LoadError;
pub use identity::{LoadIdentity, load_session_id};
pub use lanes::{LaneFailure, Lanes};
pub use options::{LoadOptions, UnknownColumns};
pub use row::{BadRow, Chunk, LoadRow, ROW_BYTES_MAX};
pub use run::{
    Acknowledged, LoadFailure, LoadReport, LoadRequest, OnBad, Progress, Silent, default_name, file_time_us, load,
};
pub use source::{CHUNK_ROWS_MAX, Chunks, SourceFile};
pub(crate) use text::parse_value;
