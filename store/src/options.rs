//! What a partition is made with.

use std::sync::Arc;

use crate::index::UNIT_ENTRIES_MAX;
use crate::lane_order::LaneOrders;
use crate::lane_plan::LANE_BYTES_MAX;

/// What a partition is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// The seed of the index hash, drawn at random when the partition is made, so that nobody can compute keys that
    /// collide. Part of the replicated state: a snapshot carries it, and restore takes the snapshot's. 0 by default.
    pub index_seed: u64,
    /// The incarnation of the partition set, repeated in answers. Raised by restore and unsafe recovery.
    pub incarnation: u32,
    /// Logical bytes beyond which [`Partition::admits`](crate::Partition::admits) refuses rows; `None` for no limit.
    /// Apply does not ask.
    pub logical_bytes_max: Option<u64>,
    /// Bytes of a row that columns share one lane for, 256 by default. Narrower lanes are for measurements: a column by
    /// itself (8), lines of a cache (64). It shows in no answer, digest or snapshot.
    pub lane_bytes_max: usize,
    /// In which order the columns of groups are packed into lanes; that of the schema by default. A group's order is chosen
    /// once, when the partition learns of the group, from its log or from the snapshot that it is restored from. It shows in no
    /// answer, digest or snapshot. Partitions share one, and none has it in its account of memory: 2 bytes for each feature.
    pub lane_orders: Arc<LaneOrders>,
    /// Entries with which a segment of the index is full, and splits: 576 by default, at the most, and if there are more.
    /// Tests have fewer, so that few rows have many segments; 2 at the least. It shows in no answer, digest or snapshot.
    pub segment_entries_max: usize,
    /// Free bytes of the rows of a group, of slots of one size in the arena, or of units of a group's index, for which it is
    /// not worth to move others so that they can go back to the system; 256 KiB by default. Tests have fewer. It shows in no
    /// answer, digest or snapshot.
    pub tidy_bytes_min: usize,
}

const TIDY_BYTES_MIN: usize = 256 << 10;

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            index_seed: 0,
            incarnation: 0,
            logical_bytes_max: None,
            lane_bytes_max: LANE_BYTES_MAX,
            lane_orders: Arc::default(),
            segment_entries_max: UNIT_ENTRIES_MAX,
            tidy_bytes_min: TIDY_BYTES_MIN,
        }
    }
}
