//! Rows of a file into row batches, one partition each.
//!
//! Where a batch ends depends on the rows alone: on their number, their bytes, and the bytes of all open batches. So the
//! same rows in the same order give the same batches with the same numbers.

use std::ops::RangeInclusive;

use stoa_env::{Bounds, Gauge, planted};
use stoa_protocol::FeatureGroup;
use stoa_protocol::batch::{RowBatch, RowBatchBuilder};
use stoa_protocol::ids::PartitionId;
use stoa_protocol::key::{KeyType, key_prefix, partition_hash};
use stoa_protocol::limits::{BATCH_BYTES_MAX, BATCH_ROWS_MAX};
use stoa_protocol::map::PartitionSet;

use super::error::LoadError;
use super::row::{LoadRow, variable_bytes};

/// Bytes of all batches that are not full yet. Beyond it the fullest one is handed out as it is: thousands of partitions
/// with wide rows would else hold gigabytes.
const OPEN_BYTES_MAX: usize = 256 << 20;

/// A batch that can be sent.
#[derive(Debug, Clone)]
pub struct ReadyBatch {
    /// Where it belongs.
    pub partition: PartitionId,
    /// Its number in its partition: 1, 2, 3 …
    pub sequence: u64,
    /// The lines of its first and its last row; other partitions' rows lie between them.
    pub lines: RangeInclusive<u64>,
    /// The rows.
    pub batch: RowBatch,
}

/// Turns rows into batches.
#[derive(Debug)]
pub struct Batcher {
    group: FeatureGroup,
    features: Vec<u16>,
    key_types: Vec<KeyType>,
    set: PartitionSet,
    rows_per_batch: usize,
    open_bytes_max: usize,
    open_bytes: usize,
    /// Counts them, if somebody wants to know.
    counted: Option<Gauge>,
    /// In the order of the set's partitions.
    open: Vec<OpenBatch>,
}

#[derive(Debug, Default)]
struct OpenBatch {
    builder: Option<RowBatchBuilder>,
    /// As counted in `open_bytes`.
    bytes: usize,
    first_line: u64,
    last_line: u64,
    /// Batches handed out.
    done: u64,
}

impl Batcher {
    /// For rows whose values stand in the order of `features` ([`super::SourceFile::features`]). `rows_per_batch` is
    /// brought into 1 to [`BATCH_ROWS_MAX`]; a batch at its limit of bytes ends earlier. Fails if `set` is not the
    /// group's, or has no partitions.
    pub fn new(
        group: &FeatureGroup,
        features: &[u16],
        set: &PartitionSet,
        rows_per_batch: usize,
    ) -> Result<Self, LoadError> {
        if set.id != group.set || set.partition_of(0).is_none() {
            return Err(LoadError::Partitions {
                group: group.full_name(),
                wanted: group.set.0,
                given: set.id.0,
                partitions: set.partitions.len(),
            });
        }
        assert!(features.is_sorted_by(|a, b| a < b), "features ascend, as the values of rows do");
        Ok(Self {
            group: group.clone(),
            features: features.to_vec(),
            key_types: group.entity.key_types(),
            set: set.clone(),
            rows_per_batch: rows_per_batch.clamp(1, BATCH_ROWS_MAX),
            open_bytes_max: OPEN_BYTES_MAX,
            open_bytes: 0,
            counted: None,
            open: set.partitions.iter().map(|_| OpenBatch::default()).collect(),
        })
    }

    /// The same, with the bytes of all batches that are not full yet counted in `bounds`.
    pub fn counted(self, bounds: &Bounds) -> Self {
        // What a row adds before the fullest one goes.
        let bound = OPEN_BYTES_MAX + BATCH_BYTES_MAX;
        Self { counted: Some(bounds.node_gauge("load: bytes of batches that are not full yet", bound as u64)), ..self }
    }

    /// Adds a row of a [`super::Chunk`]; a batch that it filled or that had no room for it, if any.
    pub fn push(&mut self, row: &LoadRow) -> Option<ReadyBatch> {
        let at = self.partition_of(&row.key);
        // Two bytes a column cover what a row may add to validity bits beyond the average.
        let row_bytes = row.key.len() + row.values.iter().map(variable_bytes).sum::<usize>() + self.features.len() * 2;
        let has_room = self.open[at].builder.as_ref().is_none_or(|builder| !builder.is_full(row_bytes));
        let ready = if has_room { None } else { self.close(at) };
        self.add(at, row);
        self.counted.iter().for_each(|gauge| gauge.note_len(self.open_bytes));
        if ready.is_some() {
            return ready;
        }
        if self.open[at].builder.as_ref().is_some_and(|builder| builder.rows() >= self.rows_per_batch) {
            return self.close(at);
        }
        if self.open_bytes > self.open_bytes_max {
            // Of equally full ones the first, so that the choice is the same in every run.
            let fullest = (0..self.open.len()).rev().max_by_key(|&at| self.open[at].bytes)?;
            return self.close(fullest);
        }
        None
    }

    /// The batches that are not full, in the order of the partitions.
    pub fn finish(mut self) -> Vec<ReadyBatch> {
        let open = self.open.len() - usize::from(planted!(DropLastBatch));
        (0..open).filter_map(|at| self.close(at)).collect()
    }

    fn partition_of(&self, key: &[u8]) -> usize {
        let columns = usize::from(self.group.entity.partition_by);
        let prefix = key_prefix(&self.key_types, key, columns).expect("the rows of a chunk have canonical keys");
        let hash = partition_hash(prefix);
        let after = self.set.partitions.partition_point(|partition| partition.first_hash <= hash);
        after.checked_sub(1).expect("`new` has seen that the first range begins at 0")
    }

    fn add(&mut self, at: usize, row: &LoadRow) {
        let open = &mut self.open[at];
        let builder = open.builder.get_or_insert_with(|| {
            open.first_line = row.line;
            RowBatchBuilder::new(&self.group, &self.features)
        });
        builder.upsert(&row.key, row.event_time, 0, &row.values).expect("the rows of a chunk have checked values");
        open.last_line = row.line;
        self.open_bytes -= open.bytes;
        open.bytes = builder.bytes();
        self.open_bytes += open.bytes;
    }

    fn close(&mut self, at: usize) -> Option<ReadyBatch> {
        let open = &mut self.open[at];
        let batch = open.builder.take()?.finish()?;
        self.open_bytes -= open.bytes;
        open.bytes = 0;
        open.done += 1;
        let partition = self.set.partitions[at].id;
        Some(ReadyBatch { partition, sequence: open.done, lines: open.first_line..=open.last_line, batch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::ROW_BYTES_MAX;
    use stoa_protocol::key::{KeyValue, encode_key};
    use stoa_protocol::limits::{BATCH_BYTES_MAX, GROUP_FEATURES_MAX, VALUE_BYTES_MAX};
    use stoa_protocol::map::PartitionInfo;
    use stoa_protocol::value::Value;
    use stoa_protocol::{FeatureType, PartitionSetId};

    fn set(partitions: usize) -> PartitionSet {
        let partitions = PartitionSet::even_ranges(partitions).enumerate().map(|(at, first_hash)| PartitionInfo {
            id: PartitionId(at as u64 + 2),
            first_hash,
            replicas: vec![],
        });
        PartitionSet { id: PartitionSetId(1), name: "s".into(), incarnation: 0, partitions: partitions.collect() }
    }

    fn group(features: &[(&str, FeatureType)]) -> FeatureGroup {
        let mut group = FeatureGroup::simple(1, "g", &[("id", KeyType::Int64), ("store", KeyType::Int32)], features);
        group.entity.partition_by = 1;
        group
    }

    fn row(line: u64, id: i64, values: Vec<Value>) -> LoadRow {
        let mut key = Vec::new();
        let key_values = [KeyValue::Int(id), KeyValue::Int(line as i64)];
        encode_key(&[KeyType::Int64, KeyType::Int32], &key_values, &mut key).unwrap();
        LoadRow { line, key, event_time: 1, values }
    }

    fn run(mut batcher: Batcher, rows: &[LoadRow]) -> Vec<ReadyBatch> {
        let mut ready: Vec<_> = rows.iter().filter_map(|row| batcher.push(row)).collect();
        ready.extend(batcher.finish());
        ready
    }

    #[test]
    fn every_row_comes_once_to_its_partition_in_numbered_batches_and_again_the_same() {
        let group = group(&[("a", FeatureType::Int32), ("b", FeatureType::String)]);
        let set = set(5);
        let rows: Vec<_> = (0..1_000)
            .map(|n| row(n + 2, (n / 3) as i64, vec![Value::Int(1), Value::String("x".repeat(n as usize))]))
            .collect();
        let ready = run(Batcher::new(&group, &[0, 1], &set, 64).unwrap(), &rows);
        let mut seen = Vec::new();
        for partition in &set.partitions {
            let batches: Vec<_> = ready.iter().filter(|ready| ready.partition == partition.id).collect();
            for (at, ready) in batches.iter().enumerate() {
                assert_eq!(ready.sequence, at as u64 + 1);
                assert!(ready.batch.check(&group, i64::MAX).is_ok());
                assert!(ready.batch.rows() == 64 || at + 1 == batches.len());
                let lines: Vec<u64> = (0..ready.batch.rows())
                    .map(|at| rows.iter().find(|row| row.key == ready.batch.key(at)).unwrap().line)
                    .collect();
                assert!(lines.is_sorted());
                assert_eq!(ready.lines, lines[0]..=lines[lines.len() - 1]);
                for at in 0..ready.batch.rows() {
                    let prefix = key_prefix(&group.entity.key_types(), ready.batch.key(at), 1).unwrap();
                    assert_eq!(set.partition_of(partition_hash(prefix)).unwrap().id, partition.id);
                }
                seen.extend(lines);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, rows.iter().map(|row| row.line).collect::<Vec<_>>());
        let again = run(Batcher::new(&group, &[0, 1], &set, 64).unwrap(), &rows);
        assert_eq!(ready.len(), again.len());
        for (a, b) in ready.iter().zip(&again) {
            assert_eq!((a.partition, a.sequence, a.batch.bytes()), (b.partition, b.sequence, b.batch.bytes()));
        }
    }

    #[test]
    fn batches_end_before_their_limit_of_bytes() {
        let group = group(&[("a", FeatureType::String)]);
        let rows: Vec<_> = (0..200).map(|n| row(n, 7, vec![Value::String("x".repeat(VALUE_BYTES_MAX))])).collect();
        let ready = run(Batcher::new(&group, &[0], &set(1), BATCH_ROWS_MAX).unwrap(), &rows);
        assert_eq!(ready.iter().map(|ready| ready.batch.rows()).sum::<usize>(), 200);
        assert!(ready.iter().all(|ready| ready.batch.bytes().len() <= BATCH_BYTES_MAX));
        assert!(ready.len() < 12, "batches of 2 MiB hold some thirty values of 64 KiB each: {}", ready.len());
    }

    #[test]
    fn the_widest_rows_fit() {
        let names: Vec<String> = (0..GROUP_FEATURES_MAX).map(|n| format!("f{n}")).collect();
        let features: Vec<_> = names.iter().map(|name| (name.as_str(), FeatureType::String)).collect();
        let group = group(&features);
        let places: Vec<u16> = (0..GROUP_FEATURES_MAX as u16).collect();
        let bytes_each = (ROW_BYTES_MAX - 64) / GROUP_FEATURES_MAX;
        for bytes in [bytes_each, 60, 1, 0] {
            let values = vec![Value::String("x".repeat(bytes)); GROUP_FEATURES_MAX];
            let rows: Vec<_> = (0..100).map(|n| row(n, 7, values.clone())).collect();
            let ready = run(Batcher::new(&group, &places, &set(1), BATCH_ROWS_MAX).unwrap(), &rows);
            assert_eq!(ready.iter().map(|ready| ready.batch.rows()).sum::<usize>(), 100);
        }
    }

    #[test]
    fn open_batches_are_bounded() {
        let group = group(&[("a", FeatureType::String)]);
        let mut batcher = Batcher::new(&group, &[0], &set(64), BATCH_ROWS_MAX).unwrap();
        batcher.open_bytes_max = 100_000;
        let mut ready = 0;
        for n in 0..1_000 {
            ready += usize::from(batcher.push(&row(n, n as i64, vec![Value::String("x".repeat(1_000))])).is_some());
            assert!(batcher.open_bytes <= 102_000, "{}", batcher.open_bytes);
        }
        assert!(ready > 100);
    }

    #[test]
    fn a_set_without_partitions_or_of_another_group_is_refused() {
        let group = group(&[("a", FeatureType::Int32)]);
        let message = Batcher::new(&group, &[0], &set(0), 10).unwrap_err().to_string();
        assert!(message.contains("test/g@1 lies in partition set 1, and the set given is 1 with 0 partitions"));
        let other = PartitionSet { id: PartitionSetId(2), ..set(4) };
        assert!(Batcher::new(&group, &[0], &other, 10).is_err());
    }
}
