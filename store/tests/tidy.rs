//! Memory goes back after mass deletes whatever it is that lies beyond a border: nothing may stay there, or come there
//! meanwhile, that would hold all of it. And readers see no difference.

#![allow(clippy::unwrap_used)] // a helper of a test may panic as the test may

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

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
        key(&self.group, id)
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
        let stamp_us = self.partition.time_us();
        let command = Command::Write { stamp_us, step: None, batch: batch.finish().unwrap() };
        assert!(matches!(self.apply(&command), Outcome::Wrote(_)));
        let sweep = Sweep {
            stamp_us: stamp_us + 2 * HORIZON_US,
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
        check(&self.group, &self.reader, ids, value);
    }
}

fn key(group: &FeatureGroup, id: i64) -> Vec<u8> {
    let mut out = Vec::new();
    let types = group.entity.key_types();
    let value = if types[0] == KeyType::String { KeyValue::String(format!("a long key: {id:>20}")) } else { id.into() };
    encode_key(&types, &[value], &mut out).unwrap();
    out
}

/// Reads rows, which are all there and have these values.
fn check(group: &FeatureGroup, reader: &PartitionReader, ids: Range<i64>, value: impl Fn(i64) -> Value) {
    let projection = Projection { group: group.id, schema_version: 1, features: vec![0] };
    let mut keys = KeyBlock::new();
    ids.clone().for_each(|id| keys.push(&key(group, id)));
    let rows = reader.read(&projection, &keys, LogIndex(0)).unwrap();
    for (row, id) in ids.enumerate() {
        assert_eq!(rows.status(row), RowStatus::Found, "{id}");
        let read = Value::decode(group.features[0].ty, rows.value(0, row).unwrap()).unwrap();
        assert_eq!(read, value(id), "{id}");
    }
}

/// Raised when it goes, however that comes.
struct Raised<'a>(&'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
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

#[test]
fn an_index_with_few_entries_left_is_as_large_as_one_that_never_had_more_and_readers_find_all_the_time_what_is_left() {
    // The few are about as many as 16 segments take.
    const MANY: i64 = 178_600;
    const FEW: Range<i64> = MANY - 8_600..MANY;
    let value = |id: i64| Value::Int(id * 3);
    let mut never = Bench::new(KeyType::Int64, FeatureType::Int64);
    never.write(FEW, value);
    let mut bench = Bench::new(KeyType::Int64, FeatureType::Int64);
    bench.write(0..MANY, value);
    let full = bench.partition.memory();
    let (group, reader, done) = (bench.group.clone(), bench.reader.clone(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = false;
            while !last {
                // Once more when all is done.
                last = done.load(Ordering::Relaxed);
                FEW.step_by(100).for_each(|first| check(&group, &reader, first..first + 100, value));
            }
        });
        let _raised = Raised(&done);
        for first in (0..FEW.start).step_by(10_000) {
            bench.delete(first..first + 10_000);
        }
        bench.tidy_up(|_| {});
    });
    let (after, never_had_more) = (bench.partition.memory(), never.partition.memory());
    // Segments that have merged are half full at the most; those that have split, at the least.
    assert!(after.index <= never_had_more.index * 3 / 2, "{after:?}, and never had more: {never_had_more:?}");
    assert!(after.index * 20 < full.index && after.total < full.total / 10, "full {full:?}, after {after:?}");
    // All rows come back, and the index is what it was.
    bench.write(0..FEW.start, value);
    bench.partition.check();
    bench.check(0..MANY, value);
    let again = bench.partition.memory();
    assert!(again.index < full.index * 21 / 20, "before {full:?}, again {again:?}");
}

#[test]
fn nothing_merges_while_a_snapshot_is_read_and_it_has_what_there_was() {
    let mut bench = Bench::new(KeyType::Int64, FeatureType::Int64);
    bench.write(0..ROWS, Value::Int);
    let wanted: Vec<_> = bench.partition.snapshot().map(Result::unwrap).collect();
    let snapshot = bench.partition.snapshot();
    bench.delete(0..LEFT.start);
    let before = bench.partition.memory();
    (0..100).for_each(|_| assert!(bench.partition.tidy(1_000), "the rest waits for the snapshot"));
    let held = bench.partition.memory();
    assert_eq!((held.index, held.dead), (before.index, before.dead));
    assert!(snapshot.map(Result::unwrap).eq(wanted), "a snapshot holds its instant");
    // The next one comes when some segments have merged, and others are to.
    let mut steps = 0..STEPS_MAX;
    while bench.partition.memory().index == held.index {
        assert!(steps.next().is_some() && bench.partition.tidy(1), "segments merge now");
    }
    let begun = bench.partition.memory();
    let snapshot = bench.partition.snapshot();
    (0..100).for_each(|_| assert!(bench.partition.tidy(1_000), "the rest waits for the snapshot"));
    assert_eq!(bench.partition.memory().index, begun.index);
    drop(snapshot);
    bench.tidy_up(|_| {});
    let after = bench.partition.memory();
    assert!(after.index < begun.index);
    assert!(after.index * 3 < before.index * 2, "before {before:?}, after {after:?}");
    bench.check(LEFT, Value::Int);
}

#[test]
fn an_index_that_was_restored_becomes_small_as_any_other() {
    // Segments are as full of these as they become before most of them split.
    const ROWS: i64 = 17_000;
    const LEFT: Range<i64> = 12_500..ROWS;
    let mut bench = Bench::new(KeyType::Int64, FeatureType::Int64);
    bench.write(0..ROWS, Value::Int);
    let written = bench.partition.memory();
    let chunks: Vec<_> = bench.partition.snapshot().map(|part| part.unwrap().into_chunk().unwrap()).collect();
    let options = StoreOptions { tidy_bytes_min: 4 << 10, ..StoreOptions::default() };
    (bench.partition, bench.reader) = Partition::restore(options, chunks).unwrap();
    while bench.partition.thaw(1_000).unwrap() {}
    let restored = bench.partition.memory();
    assert!(restored.index <= written.index, "written {written:?}, restored {restored:?}");
    assert!(restored.dead * 4 < restored.index, "no segment was filled again and again: {restored:?}");
    bench.delete(0..LEFT.start);
    bench.tidy_up(|_| {});
    let after = bench.partition.memory();
    assert!(after.index * 3 < restored.index * 2, "restored {restored:?}, after {after:?}");
    bench.check(LEFT, Value::Int);
}
