//! Partitions that are measured, filled from row numbers.

use std::sync::Arc;

use stoa_protocol::LogIndex;
use stoa_store::{Command, LaneOrders, Outcome, Partition, PartitionReader, StoreOptions};

use crate::rows::Floats;
pub use crate::store::BATCH_ROWS;
use crate::store::fill;

/// Features of a row.
pub const FEATURES: usize = 48;
/// Rows of a table that stays in the caches: 1 MiB of rows of 48 features, so that the code is what costs.
pub const SMALL_ROWS: u64 = 4_096;

/// A partition of one group.
pub struct Table {
    /// The group.
    pub floats: Floats,
    /// The partition.
    pub partition: Partition,
    /// A reader of it.
    pub reader: PartitionReader,
}

impl Table {
    /// Without rows.
    pub fn empty(features: usize) -> Self {
        Self::with(options(), features)
    }

    /// Without rows, made with options of its own.
    fn with(options: StoreOptions, features: usize) -> Self {
        let floats = Floats::new(features);
        let (mut partition, reader) = Partition::new(options);
        partition.apply(LogIndex(1), &Command::Define(floats.group.clone()));
        Self { floats, partition, reader }
    }

    /// With rows 0 to `rows` in version 0.
    pub fn filled(features: usize, rows: u64) -> Self {
        Self::empty(features).fill(rows)
    }

    /// The same, with columns in lanes as views make them that read these features.
    pub fn filled_for(views: &[Vec<u16>], features: usize, rows: u64) -> Self {
        let group = Floats::new(features).group.id;
        let lane_orders = Arc::new(LaneOrders::by_views(views.iter().map(|view| (group, view.clone()))));
        Self::with(StoreOptions { lane_orders, ..options() }, features).fill(rows)
    }

    fn fill(mut self, rows: u64) -> Self {
        fill(&self.floats, &mut self.partition, 0..rows, 0);
        self
    }

    /// A command that writes these rows.
    pub fn write(&self, ids: impl Iterator<Item = u64>, version: i64) -> Command {
        Command::Write { stamp_us: version, step: None, batch: self.floats.batch(ids, version) }
    }
}

/// Applies the next command.
pub fn apply(partition: &mut Partition, command: &Command) -> Outcome {
    partition.apply(LogIndex(partition.applied().0 + 1), command)
}

/// The same seed of the index in every run.
pub fn options() -> StoreOptions {
    StoreOptions { index_seed: 7, ..StoreOptions::default() }
}
