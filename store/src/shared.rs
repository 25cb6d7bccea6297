//! What the writer and the readers of a partition have in common.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard};

use stoa_protocol::{FeatureGroupId, LogIndex};

use crate::arena::Arena;
use crate::group::Group;
use crate::lane_order::LaneOrders;
use crate::lanes::{EpochCell, Epochs, sync};
use crate::memory::{ARC_BYTES, MemoryReport, map_bytes};

/// The groups that readers see.
pub(crate) type GroupTable = BTreeMap<FeatureGroupId, Arc<Group>>;

/// What the writer and the readers have in common.
pub(crate) struct Shared {
    pub incarnation: u32,
    pub seed: u64,
    pub logical_bytes_max: Option<u64>,
    pub lane_bytes_max: usize,
    /// Many partitions have one, so it is in the account of none.
    pub lane_orders: Arc<LaneOrders>,
    pub segment_entries_max: usize,
    pub tidy_bytes_min: usize,
    pub epochs: Arc<Epochs>,
    pub arena: Arc<Arena>,
    pub groups: EpochCell<GroupTable>,
    /// The index of the last command that readers can rely on: stored with release after all its rows.
    pub applied: sync::AtomicU64,
    pub logical_bytes: AtomicU64,
    /// The partition's time as its log says it.
    pub time_us: AtomicI64,
    /// Whether there is something to tidy up.
    pub untidy: AtomicBool,
    published: Mutex<Published>,
}

impl Shared {
    pub fn new(options: &crate::StoreOptions, epochs: Arc<Epochs>, arena: Arc<Arena>) -> Self {
        Self {
            incarnation: options.incarnation,
            seed: options.index_seed,
            logical_bytes_max: options.logical_bytes_max,
            lane_bytes_max: options.lane_bytes_max,
            lane_orders: options.lane_orders.clone(),
            segment_entries_max: options.segment_entries_max,
            tidy_bytes_min: options.tidy_bytes_min,
            epochs,
            arena,
            groups: EpochCell::new(Arc::new(GroupTable::new())),
            applied: sync::AtomicU64::new(0),
            logical_bytes: AtomicU64::new(0),
            time_us: AtomicI64::new(i64::MIN),
            untidy: AtomicBool::new(false),
            published: Mutex::new(Published::default()),
        }
    }

    /// Bytes of what it is itself, behind an `Arc`.
    pub const BYTES: usize = ARC_BYTES + size_of::<Self>();

    /// Bytes of the maps in it, which have one entry a group.
    pub fn maps_bytes(groups: usize) -> usize {
        Self::table_bytes(groups) + map_bytes(groups, size_of::<(FeatureGroupId, PublishedGroup)>())
    }

    /// Bytes of a table of so many groups.
    pub fn table_bytes(groups: usize) -> usize {
        ARC_BYTES + size_of::<GroupTable>() + map_bytes(groups, size_of::<(FeatureGroupId, Arc<Group>)>())
    }

    /// The figures for status and scrub. Reads never come here.
    pub fn published(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Figures of one instant between two commands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Published {
    pub applied: LogIndex,
    pub state_digest: u128,
    pub groups: BTreeMap<FeatureGroupId, PublishedGroup>,
    /// Of all groups, and of what they share.
    pub memory: MemoryReport,
    pub sessions: usize,
}

/// Figures of one group.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PublishedGroup {
    pub digest: u128,
    pub memory: MemoryReport,
}
