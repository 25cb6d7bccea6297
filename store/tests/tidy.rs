//! Memory goes back after mass deletes whatever it is that lies beyond a border: nothing may stay there, or come there
//! meanwhile, that would hold all of it.

#![allow(clippy::unwrap_used)] // a helper of a test may panic as the test may

use std::ops::Range;

use stoa_protocol::key::{KeyBlock, encode_key};
use stoa_protocol::read::{Projection, RowStatus};
use stoa_protocol::{FeatureGroup, FeatureType, KeyType, KeyValue, LogIndex, RowBatchBuilder, Value};
use stoa_store::{Command, Outcome, Partition, PartitionReader, StoreOptions, Sweep};

const ROWS: i64 = 20_000;
/// Those that are left. They were written last, so that all of them lie beyond the borders; and to move them costs more than
/// the commands before pay for.
const LEFT: Range<i64> = 15_000..ROWS;
const BATCH: i64 = 500;
const HORIZON_US: i64 = 1_000_000;

/// Steps of tidying, by far more than all segments and pages take.
const STEPS_MAX: usize = 2_000;

struct Bench {
    group: FeatureGroup,
    partition: Partition,
    reader: PartitionReader,
}

impl Bench {
    fn new(key: KeyType, feature: FeatureType) -> Self {
        let options = StoreOptions { index_seed: 5, tidy_bytes_min: 4 << 10, ..StoreOptions::default() };
        let (partition, reader) = Partition::new(options);
        let mut group = FeatureGroup::simple(1, "g", &[("id", key)], &[("value", feature)]);
        group.late_horizon_us = HORIZON_US;
        let mut bench = Self { group, partition, reader };
        assert_eq!(bench.apply(&Command::Define(bench.group.clone())), Outcome::Defined);
        bench
    }

    fn apply(&mut self, command: &Command) -> Outcome {
        self.partition.apply(LogIndex(self.partition.applied().0 + 1), command)
    }

    fn key(&self, id: i64) -> Vec<u8> {
        let mut out = Vec::new();
        let types = self.group.entity.key_types();
        let value =
            if types[0] == KeyType::String { KeyValue::String(format!("a long key: {id:>20}")) } else { id.into() };
        encode_key(&types, &[value], &mut out).unwrap();
        out
    }

    fn write(&mut self, ids: Range<i64>, value: impl Fn(i64) -> Value) {
        for first in ids.clone().step_by(BATCH as usize) {
            let mut batch = RowBatchBuilder::new(&self.group, &[0]);
            for id in first..ids.end.min(first + BATCH) {
                batch.upsert(&self.key(id), 1, 0, &[value(id)]).unwrap();
            }
            let command = Command::Write { stamp_us: 1, step: None, batch: batch.finish().unwrap() };
            assert!(matches!(self.apply(&command), Outcome::Wrote(_)));
        }
    }

    /// Deletes rows, and has their tombstones removed.
    fn delete(&mut self, ids: Range<i64>) {
        let mut batch = RowBatchBuilder::new(&self.group, &[]);
        ids.clone().for_each(|id| batch.delete(&self.key(id), 2, 0));
        let command = Command::Write { stamp_us: 2, step: None, batch: batch.finish().unwrap() };
        assert!(matches!(self.apply(&command), Outcome::Wrote(_)));
        let sweep = Sweep {
            stamp_us: 2 * HORIZON_US,
            group: self.group.id,
            first_hash: 0,
            last_hash: u64::MAX,
            rows_max: ids.clone().count() as u32,
        };
        assert_eq!(self.apply(&Command::Sweep(sweep)), Outcome::Swept(ids.count() as u32));
    }

    /// Tidies up, with `between` after each step, until there is nothing to do: that comes, and what is free then is little.
    fn tidy_up(&mut self, mut between: impl FnMut(&mut Self)) {
        let before = self.partition.memory();
        let mut steps = 0;
        while self.partition.tidy(1) {
            steps += 1;
            assert!(steps < STEPS_MAX, "something stays beyond a border: {:?}", self.partition.memory());
            between(self);
        }
        let after = self.partition.memory();
        assert!(after.dead < before.dead / 4, "before {before:?}, after {after:?}");
        self.partition.check();
    }

    fn check(&self, ids: Range<i64>, value: impl Fn(i64) -> Value) {
        let projection = Projection { group: self.group.id, schema_version: 1, features: vec![0] };
        let mut keys = KeyBlock::new();
        ids.clone().for_each(|id| keys.push(&self.key(id)));
        let rows = self.reader.read(&projection, &keys, LogIndex(0)).unwrap();
        for (row, id) in ids.enumerate() {
            assert_eq!(rows.status(row), RowStatus::Found, "{id}");
            let read = Value::decode(self.group.features[0].ty, rows.value(0, row).unwrap()).unwrap();
            assert_eq!(read, value(id), "{id}");
        }
    }
}

#[test]
fn keys_in_the_arena_move_below_the_border_and_what_they_leave_goes_back() {
    let mut bench = Bench::new(KeyType::String, FeatureType::Int64);
    bench.write(0..ROWS, Value::Int);
    bench.delete(0..LEFT.start);
    bench.tidy_up(|_| {});
    bench.check(LEFT, Value::Int);
}

/// Three rows in a row share a value.
fn shared(of: i64) -> Value {
    Value::String(format!("a value of three rows: {:>40}", of / 3))
}

#[test]
fn a_row_that_comes_meanwhile_takes_no_shared_slot_that_is_being_left() {
    let mut bench = Bench::new(KeyType::Int64, FeatureType::String);
    bench.write(0..ROWS, shared);
    bench.delete(0..LEFT.start);
    // New rows with values that are moving, in segments that the moving has passed and in such that it has not.
    let left = LEFT.end - LEFT.start;
    let value = |id: i64| shared(LEFT.start + (id - ROWS) % left);
    let mut next = ROWS;
    bench.tidy_up(|bench| {
        if next < ROWS + 4 * left {
            bench.write(next..next + 100, value);
            next += 100;
        }
    });
    assert!(next > ROWS + 500, "rows came meanwhile: {next}");
    // 63 bytes of each value lie in a slot of 64.
    let values = (left as u64).div_ceil(3);
    assert_eq!(bench.partition.memory().arena, values * 64, "old rows and new ones share a slot for each value");
    bench.check(LEFT, shared);
    bench.check(ROWS..next, value);
}
