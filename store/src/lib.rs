//! The columns of one partition in memory: schema, lanes, index, apply, reads, digests, snapshot bytes.
//!
//! It must never know: tokio, sockets, files, Raft, clocks, chance. Commands come in, in the order of a log, and equal
//! commands give equal logical state; times, seeds and bytes are arguments. Nothing here waits.
//!
//! Start reading at [`Partition::apply`] (the writer), [`read_sections`] (everybody else) and [`SnapshotSource`].
//! What makes reads possible beside the writer without a lock is explained where it is done: immutable row versions in
//! `group_writer`, memory that never moves in `lanes::slab`, its reuse in `lanes::epochs`. Unsafe code is allowed in
//! `lanes` alone.

mod arena;
mod batch_columns;
mod changes;
mod cold;
mod command;
mod dictionary;
mod digest;
mod gather;
mod group;
mod group_writer;
mod index;
mod lane_order;
mod lane_plan;
mod lanes;
mod memory;
mod numbers;
mod options;
mod outcome;
mod partition;
mod projector;
mod reader;
mod row;
mod sessions;
mod shared;
mod snapshot;
mod space;
mod sweep;
mod tidy;

pub use command::Command;
pub use digest::{DIGEST_RANGES, Digest, GroupDigest};
pub use lane_order::LaneOrders;
pub use memory::MemoryReport;
pub use options::StoreOptions;
pub use outcome::Outcome;
pub use partition::Partition;
pub use reader::{PartitionReader, SectionSource, read_sections};
pub use snapshot::{RestoreError, SnapshotBase, SnapshotPart, SnapshotSource};
pub use sweep::{Sweep, SweepLook};
