//! What a partition says of its memory, beside what the allocator and the kernel say.
//!
//! The heap is what the program has asked of its allocator and not given back. Slabs from 128 KiB on are mappings of their
//! own, of which the pages count that were written: that is the kernel's figure, of all mappings without a name. So that
//! these two do not overlap, the C library is told to map nothing for the heap (in a second process, as it must know that
//! from its start), and the test has one thread, whose heap has a name.

#![allow(clippy::unwrap_used)] // a helper of a test may panic as the test may

use std::alloc::System;
use std::ops::Range;

use cap::Cap;
use stoa_protocol::evolution::evolve;
use stoa_protocol::key::encode_key;
use stoa_protocol::message::SessionStep;
use stoa_protocol::{
    Feature, FeatureGroup, FeatureType, KeyType, KeyValue, LogIndex, RowBatch, RowBatchBuilder, Value,
};
use stoa_store::{Command, Outcome, Partition, PartitionReader, StoreOptions, Sweep};

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

const TOLERANCE: f64 = 0.03;
const TUNABLES: &str = "GLIBC_TUNABLES";
const MAPS_NOTHING: &str = "glibc.malloc.mmap_max=0";

fn main() {
    if !cfg!(all(target_os = "linux", target_env = "gnu")) {
        println!("nothing is measured where the kernel or the C library is another one");
        return;
    }
    if std::env::var_os("ASAN_OPTIONS").is_some() {
        println!("nothing is measured under AddressSanitizer, whose own memory lies among the program's");
        return;
    }
    if std::env::var(TUNABLES).as_deref() != Ok(MAPS_NOTHING) {
        let again = std::process::Command::new(std::env::current_exe().unwrap()).env(TUNABLES, MAPS_NOTHING).status();
        assert!(again.unwrap().success(), "what a partition reports is not what it takes");
        return;
    }
    let shapes: [(&str, Make); 13] = [
        ("48 floats", floats),
        ("strings", strings),
        ("repeated strings", repeated_strings),
        ("deleted rows", deletes),
        ("deleted rows, tidied up", deletes_tidied_up),
        ("swept rows, tidied up", swept_tidied_up),
        ("overwritten under a snapshot", under_a_snapshot),
        ("after the snapshot", after_a_snapshot),
        ("the same, tidied up", snapshot_tidied_up),
        ("features appended", features_appended),
        ("schemas changed", schemas_changed),
        ("small partitions", small_partitions),
        ("writer sessions", sessions),
    ];
    println!("{:<30} {:>12} {:>12} {:>12} {:>8}", "shape", "heap", "mapped", "reported", "differs");
    let mut wrong = Vec::new();
    for (name, make) in shapes {
        let (heap, mapped) = (HEAP.allocated(), mapped_bytes());
        let shape = make();
        let (heap, mapped) = (HEAP.allocated() - heap, mapped_bytes() - mapped);
        let reported: u64 = shape.partitions.iter().map(|tested| tested.partition.memory().total).sum();
        let differs = reported as f64 / (heap + mapped) as f64 - 1.0;
        println!("{name:<30} {heap:>12} {mapped:>12} {reported:>12} {:>7.2}%", differs * 100.0);
        shape.partitions.iter().for_each(|tested| assert_eq!(tested.reader.memory(), tested.partition.memory()));
        shape.partitions.iter().for_each(|tested| tested.partition.check());
        if differs.abs() > TOLERANCE {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "off by more than {TOLERANCE}: {wrong:?}");
    println!("{} passed, 0 failed", shapes.len());
}

/// Bytes of memory in mappings that have no name.
fn mapped_bytes() -> usize {
    let mut sum = 0;
    let mut counts = false;
    for line in std::fs::read_to_string("/proc/self/smaps").unwrap().lines() {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some("Rss:" | "Swap:"), Some(kib)) if counts => sum += kib.parse::<usize>().unwrap() << 10,
            (Some(first), Some(rights)) if !first.ends_with(':') => counts = rights == "rw-p" && words.count() == 3,
            _ => {}
        }
    }
    sum
}

// ---- shapes ----------------------------------------------------------------------------------------------------------

type Make = fn() -> Shape;

struct Shape {
    partitions: Vec<Tested>,
    /// What lives beside them.
    _held: Option<stoa_store::SnapshotSource>,
}

struct Tested {
    partition: Partition,
    reader: PartitionReader,
}

impl Tested {
    fn new(groups: &[FeatureGroup]) -> Self {
        let (partition, reader) = Partition::new(StoreOptions { index_seed: 5, ..StoreOptions::default() });
        let mut tested = Self { partition, reader };
        groups.iter().for_each(|group| assert_eq!(tested.apply(&Command::Define(group.clone())), Outcome::Defined));
        tested
    }

    fn apply(&mut self, command: &Command) -> Outcome {
        self.partition.apply(LogIndex(self.partition.applied().0 + 1), command)
    }

    fn write(&mut self, batch: RowBatch) {
        let outcome = self.apply(&Command::Write { stamp_us: 1, step: None, batch });
        assert!(matches!(&outcome, Outcome::Wrote(answer) if answer.older.is_empty()), "{outcome:?}");
    }

    fn fill(&mut self, group: &FeatureGroup, rows: Range<u64>, time: i64, value: impl Fn(u64, u64) -> Value) {
        let features: Vec<u16> = (0..group.features.len() as u16).collect();
        for first in rows.clone().step_by(500) {
            let mut builder = RowBatchBuilder::new(group, &features);
            for row in first..rows.end.min(first + 500) {
                let values: Vec<_> = (0..group.features.len() as u64).map(|feature| value(row, feature)).collect();
                builder.upsert(&key(group, row), time, 0, &values).unwrap();
            }
            self.write(builder.finish().unwrap());
        }
    }

    fn tidy_up(&mut self) {
        while self.partition.tidy(10_000) {}
    }

    fn alone(self) -> Shape {
        Shape { partitions: vec![self], _held: None }
    }
}

fn group(id: u64, key: KeyType, ty: FeatureType, features: usize) -> FeatureGroup {
    let names: Vec<String> = (0..features).map(|at| format!("feature_{at}")).collect();
    let features: Vec<_> = names.iter().map(|name| (name.as_str(), ty)).collect();
    FeatureGroup::simple(id, "group", &[("id", key)], &features)
}

fn key(group: &FeatureGroup, row: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let types = group.entity.key_types();
    let value = if types[0] == KeyType::Int64 { (row as i64).into() } else { KeyValue::String(format!("key {row}")) };
    encode_key(&types, &[value], &mut out).unwrap();
    out
}

fn float(row: u64, feature: u64) -> Value {
    Value::Float32((row + feature) as f32)
}

/// Of 0 to 99 bytes, each another one.
fn text(row: u64, feature: u64) -> Value {
    let length = (row * 7 + feature * 31) % 100;
    Value::String(format!("{row} {feature} {:<100}", "").chars().take(length as usize).collect())
}

fn floats() -> Shape {
    let group = group(1, KeyType::Int64, FeatureType::Float32, 48);
    let mut tested = Tested::new(std::slice::from_ref(&group));
    tested.fill(&group, 0..150_000, 1, float);
    tested.alone()
}

fn strings() -> Shape {
    let group = group(1, KeyType::String, FeatureType::String, 3);
    let mut tested = Tested::new(std::slice::from_ref(&group));
    tested.fill(&group, 0..60_000, 1, text);
    tested.alone()
}

fn repeated_strings() -> Shape {
    let group = group(1, KeyType::Int64, FeatureType::String, 3);
    let mut tested = Tested::new(std::slice::from_ref(&group));
    tested.fill(&group, 0..60_000, 1, |row, feature| match feature {
        0 => Value::String(format!("one of five hundred: {}", row % 500)),
        1 => Value::String(format!("one of many: {}", row % 30_000)),
        _ => text(row, feature),
    });
    tested.alone()
}

fn deletes() -> Shape {
    let group = group(1, KeyType::String, FeatureType::String, 3);
    let mut tested = Tested::new(std::slice::from_ref(&group));
    tested.fill(&group, 0..60_000, 1, text);
    for first in (0..50_000).step_by(500) {
        let mut builder = RowBatchBuilder::new(&group, &[]);
        (first..first + 500).for_each(|row| builder.delete(&key(&group, row), 2, 0));
        tested.write(builder.finish().unwrap());
    }
    tested.alone()
}

fn under_a_snapshot() -> Shape {
    let group = group(1, KeyType::Int64, FeatureType::Float32, 48);
    let mut tested = Tested::new(std::slice::from_ref(&group));
    tested.fill(&group, 0..50_000, 1, float);
    let snapshot = tested.partition.snapshot();
    (2..4).for_each(|time| tested.fill(&group, 0..50_000, time, float));
    Shape { partitions: vec![tested], _held: Some(snapshot) }
}

fn after_a_snapshot() -> Shape {
    let mut shape = under_a_snapshot();
    shape._held = None;
    let tested = &mut shape.partitions[0];
    (0..2).for_each(|_| drop(tested.apply(&Command::Noop)));
    shape
}

/// Nothing is left but what lies in rows, their tombstones among them.
fn deletes_tidied_up() -> Shape {
    let mut shape = deletes();
    let before = shape.partitions[0].partition.memory();
    shape.partitions[0].tidy_up();
    let after = shape.partitions[0].partition.memory();
    assert!(after.dead < after.total / 4, "before {before:?}, after {after:?}");
    assert!(after.total < before.total * 3 / 4, "before {before:?}, after {after:?}");
    shape
}

/// Rows that were mostly index, in huge pages; nothing is left of it but what the rest takes.
fn swept_tidied_up() -> Shape {
    let mut group = group(1, KeyType::Int64, FeatureType::Int8, 1);
    group.late_horizon_us = 1;
    let mut tested = Tested::new(std::slice::from_ref(&group));
    tested.fill(&group, 0..300_000, 1, |_, _| Value::Int(1));
    for first in (0..295_000).step_by(5_000) {
        let mut builder = RowBatchBuilder::new(&group, &[]);
        (first..first + 5_000).for_each(|row| builder.delete(&key(&group, row), 2, 0));
        tested.write(builder.finish().unwrap());
    }
    let before = tested.partition.memory();
    let sweep = Sweep { stamp_us: 3, group: group.id, first_hash: 0, last_hash: u64::MAX, rows_max: 10_000 };
    while tested.apply(&Command::Sweep(sweep)) != Outcome::Swept(0) {}
    tested.tidy_up();
    let after = tested.partition.memory();
    assert!(after.index < before.index / 20 && after.total < before.total / 10, "before {before:?}, after {after:?}");
    tested.alone()
}

/// A third of the rows that there were under the snapshot, and a little more.
fn snapshot_tidied_up() -> Shape {
    let mut shape = after_a_snapshot();
    let before = shape.partitions[0].partition.memory();
    shape.partitions[0].tidy_up();
    let after = shape.partitions[0].partition.memory();
    assert!(after.total < before.total / 2, "before {before:?}, after {after:?}");
    shape
}

fn features_appended() -> Shape {
    let mut group = group(1, KeyType::Int64, FeatureType::Float32, 20);
    let mut tested = Tested::new(std::slice::from_ref(&group));
    tested.fill(&group, 0..40_000, 1, float);
    for at in 20..30 {
        let late = Feature::new(&format!("late_{at}"), FeatureType::Float32);
        group.features.push(Feature { description: "appended later".into(), ..late });
        group.schema_version += 1;
        assert_eq!(tested.apply(&Command::Define(group.clone())), Outcome::Defined);
    }
    tested.fill(&group, 0..40_000, 2, float);
    tested.alone()
}

/// Definitions and plans are most of it.
fn schemas_changed() -> Shape {
    let mut partitions = Vec::with_capacity(100);
    for _ in 0..partitions.capacity() {
        let mut group = group(1, KeyType::Int64, FeatureType::Int8, 200);
        let mut tested = Tested::new(std::slice::from_ref(&group));
        tested.fill(&group, 0..50, 1, |_, _| Value::Int(1));
        for ty in [FeatureType::Int16, FeatureType::Int64] {
            let mut wanted = group.features.clone();
            for (at, feature) in wanted[..200].iter_mut().enumerate() {
                feature.earlier.clear();
                feature.aliases.push(format!("{}_of_{}", feature.name, group.schema_version));
                feature.dropped |= at % 10 == 3;
                feature.ty = if feature.dropped { feature.ty } else { ty };
            }
            for at in wanted.len() - 200..10 {
                let late = Feature::new(&format!("late_{at}"), FeatureType::String);
                wanted.push(Feature { default: Some(vec![b'x'; 2_000]), ..late });
            }
            group.schema_version += 1;
            group.features = evolve(&group.features, &wanted, group.schema_version).unwrap();
            assert_eq!(tested.apply(&Command::Define(group.clone())), Outcome::Defined);
        }
        partitions.push(tested);
    }
    Shape { partitions, _held: None }
}

fn small_partitions() -> Shape {
    let groups = [1, 2, 3].map(|id| group(id, KeyType::String, FeatureType::String, 4));
    let mut partitions = Vec::with_capacity(200);
    for _ in 0..partitions.capacity() {
        let mut tested = Tested::new(&groups);
        groups.iter().for_each(|group| tested.fill(group, 0..50, 1, text));
        partitions.push(tested);
    }
    Shape { partitions, _held: None }
}

fn sessions() -> Shape {
    let group = group(1, KeyType::Int64, FeatureType::Float32, 1);
    let mut tested = Tested::new(std::slice::from_ref(&group));
    for session in 0..2_000u128 {
        let mut builder = RowBatchBuilder::new(&group, &[0]);
        builder.upsert(&key(&group, session as u64 % 10), 1, session as u64, &[float(0, 0)]).unwrap();
        let step = Some(SessionStep { session: session.wrapping_mul(0x9e37_79b9_7f4a_7c15), sequence: 1 });
        let command = Command::Write { stamp_us: 1, step, batch: builder.finish().unwrap() };
        assert!(matches!(tested.apply(&command), Outcome::Wrote(_)));
    }
    tested.alone()
}
