//! Snapshots that earlier versions wrote must open for ever: their bytes are kept below `fixtures/`.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::path::{Path, PathBuf};

use bytes::Bytes;
use stoa_protocol::catalog::Feature;
use stoa_protocol::evolution::evolve;
use stoa_protocol::key::encode_key;
use stoa_protocol::message::SessionStep;
use stoa_protocol::types::ItemType;
use stoa_protocol::{FeatureGroup, FeatureType, KeyType, KeyValue, LogIndex, RowBatchBuilder, Storage, Value};
use stoa_store::{Command, Outcome, Partition, StoreOptions};

/// A partition with a row of every kind: all types at their ends, nulls, a group that grew, tombstones, sessions.
fn partition() -> Partition {
    let (mut partition, _) = Partition::new(StoreOptions { index_seed: 99, incarnation: 3, ..StoreOptions::default() });
    let mut index = 0;
    let mut apply = |command: &Command| {
        index += 1;
        partition.apply(LogIndex(index), command)
    };
    let types = [
        FeatureType::Bool,
        FeatureType::Int8,
        FeatureType::Int16,
        FeatureType::Int32,
        FeatureType::Int64,
        FeatureType::Float32,
        FeatureType::Float64,
        FeatureType::Decimal128 { scale: 2 },
        FeatureType::Date,
        FeatureType::Timestamp,
        FeatureType::String,
        FeatureType::Binary,
        FeatureType::Json,
        FeatureType::Array(ItemType::Int32),
        FeatureType::FixedArray { items: 20 },
    ];
    let low = [
        Value::Bool(false),
        Value::Int(i64::from(i8::MIN)),
        Value::Int(i64::from(i16::MIN)),
        Value::Int(i64::from(i32::MIN)),
        Value::Int(i64::MIN),
        Value::Float32(f32::from_bits(0xffc0_0001)),
        Value::Float64(-0.0),
        Value::Decimal128(-1),
        Value::Date(-1),
        Value::Timestamp(-1),
        Value::String(String::new()),
        Value::Binary(Vec::new()),
        Value::String("{}".into()),
        Value::Array(Vec::new()),
        Value::FixedArray(vec![f32::NEG_INFINITY; 20]),
    ];
    let high = [
        Value::Bool(true),
        Value::Int(i64::from(i8::MAX)),
        Value::Int(i64::from(i16::MAX)),
        Value::Int(i64::from(i32::MAX)),
        Value::Int(i64::MAX),
        Value::Float32(f32::MAX),
        Value::Float64(f64::from_bits(0x7ff8_0000_0000_00ff)),
        Value::Decimal128(i128::MAX),
        Value::Date(20_000),
        Value::Timestamp(1_700_000_000_000_000),
        Value::String("äöü".repeat(40)),
        Value::Binary(vec![0, 255, 0]),
        Value::String("[1, null]".into()),
        Value::Array(vec![Value::Int(-7), Value::Int(7)]),
        Value::FixedArray((0..20).map(|at| at as f32).collect()),
    ];
    let names: Vec<String> = (0..types.len()).map(|at| format!("f{at}")).collect();
    let features: Vec<_> = names.iter().map(String::as_str).zip(types).collect();
    let wide = FeatureGroup::simple(1, "wide", &[("id", KeyType::Int64), ("shop", KeyType::String)], &features);
    let all: Vec<u16> = (0..types.len() as u16).collect();
    let mut narrow = FeatureGroup::simple(2, "narrow", &[("id", KeyType::Int32)], &[("x", FeatureType::Int64)]);
    assert_eq!(apply(&Command::Define(wide.clone())), Outcome::Defined);
    assert_eq!(apply(&Command::Define(narrow.clone())), Outcome::Defined);
    let key = |types: &[KeyType], values: &[KeyValue]| {
        let mut out = Vec::new();
        encode_key(types, values, &mut out).unwrap();
        out
    };
    let mut rows = RowBatchBuilder::new(&wide, &all);
    for (at, values) in [low.to_vec(), high.to_vec(), vec![Value::Null; types.len()]].into_iter().enumerate() {
        let id = key(&[KeyType::Int64, KeyType::String], &[(at as i64 - 1).into(), "shop".into()]);
        rows.upsert(&id, at as i64 - 1, at as u64, &values).unwrap();
    }
    let step = Some(SessionStep { session: 1 << 90, sequence: 1 });
    assert!(matches!(apply(&Command::Write { stamp_us: 5, step, batch: rows.finish().unwrap() }), Outcome::Wrote(_)));
    let mut rows = RowBatchBuilder::new(&narrow, &[0]);
    for id in 0..40_i64 {
        let bytes = key(&[KeyType::Int32], &[id.into()]);
        rows.upsert(&bytes, id, 0, &[Value::Int(id * id)]).unwrap();
        if id % 5 == 0 {
            rows.delete(&bytes, id + 1, 0);
        }
    }
    assert!(matches!(
        apply(&Command::Write { stamp_us: 9, step: None, batch: rows.finish().unwrap() }),
        Outcome::Wrote(_)
    ));
    narrow.schema_version = 2;
    narrow.features.push(Feature { description: "late".into(), ..Feature::new("y", FeatureType::String) });
    assert_eq!(apply(&Command::Define(narrow.clone())), Outcome::Defined);
    let mut rows = RowBatchBuilder::new(&narrow, &[1]);
    rows.upsert(&key(&[KeyType::Int32], &[7.into()]), 100, 0, &[Value::String("new".into())]).unwrap();
    let step = Some(SessionStep { session: 7, sequence: 1 });
    assert!(matches!(apply(&Command::Write { stamp_us: 12, step, batch: rows.finish().unwrap() }), Outcome::Wrote(_)));
    partition
}

/// A partition whose group has changed in every way, with rows from before, between and after the changes.
fn changed_partition() -> Partition {
    let (mut partition, _) = Partition::new(StoreOptions { index_seed: 99, incarnation: 3, ..StoreOptions::default() });
    let mut index = 0;
    let mut apply = |command: Command| {
        index += 1;
        partition.apply(LogIndex(index), &command)
    };
    let types = [("a", FeatureType::Int16), ("b", FeatureType::Float32), ("s", FeatureType::String)];
    let mut group = FeatureGroup::simple(1, "changed", &[("id", KeyType::Int64)], &types);
    let values = |version: u32, id: i64| {
        let real = f32::from_bits(0x7fa0_0001 + id as u32);
        let wide = f64::from_bits(0x7ff0_0000_0000_0000 | (u64::from(real.to_bits() & 0x7f_ffff) << 29));
        let null = |value: Value| if id % 5 == 4 { Value::Null } else { value };
        match version {
            1 => vec![Value::Int(-id), Value::Float32(real), Value::String("s".repeat(id as usize))],
            2 => vec![Value::Int(-id << 40), Value::Float64(wide), Value::String("gone".into()), null(Value::Int(-id))],
            _ => vec![Value::Int(-id << 40), Value::Float64(0.1), null(Value::Int(id << 20))],
        }
    };
    for version in 1..=3 {
        if version > 1 {
            let mut wanted = group.features.clone();
            wanted.iter_mut().for_each(|feature| feature.earlier.clear());
            if version == 2 {
                (wanted[0].ty, wanted[1].ty) = (FeatureType::Int64, FeatureType::Float64);
                wanted.push(Feature { default: Some(vec![7]), ..Feature::new("n", FeatureType::Int8) });
                wanted.push(Feature { default: Some(b"none".to_vec()), ..Feature::new("t", FeatureType::String) });
            } else {
                (wanted[2].dropped, wanted[3].ty) = (true, FeatureType::Int32);
                wanted[3].default = Some(7i32.to_le_bytes().to_vec());
                wanted[4].aliases.push("text".into());
            }
            group.features = evolve(&group.features, &wanted, version).unwrap();
            group.schema_version = version;
        }
        assert_eq!(apply(Command::Define(group.clone())), Outcome::Defined);
        let places: &[u16] = [&[0, 1, 2][..], &[0, 1, 2, 3], &[0, 1, 3]][version as usize - 1];
        let mut rows = RowBatchBuilder::new(&group, places);
        for id in i64::from(version) * 20..i64::from(version) * 20 + 10 {
            let mut key = Vec::new();
            encode_key(&[KeyType::Int64], &[id.into()], &mut key).unwrap();
            rows.upsert(&key, id, 0, &values(version, id)).unwrap();
        }
        let batch = rows.finish().unwrap();
        assert!(matches!(apply(Command::Write { stamp_us: 1, step: None, batch }), Outcome::Wrote(_)));
    }
    partition
}

/// A partition whose group has features in every storage, with values that were rounded, nulls and defaults.
fn narrow_partition() -> Partition {
    let (mut partition, _) = Partition::new(StoreOptions { index_seed: 99, incarnation: 3, ..StoreOptions::default() });
    let vector = FeatureType::FixedArray { items: 5 };
    let features = [("a", FeatureType::Float32), ("b", vector), ("c", vector), ("d", FeatureType::Float32)];
    let mut group = FeatureGroup::simple(1, "narrow", &[("id", KeyType::Int64)], &features);
    for (at, storage) in [(0, Storage::Float16), (1, Storage::Float16), (2, Storage::Int8Scaled), (3, Storage::Float16)]
    {
        group.features[at].storage = Some(storage);
    }
    group.features[3].default = Some(0.1_f32.to_le_bytes().to_vec());
    assert_eq!(partition.apply(LogIndex(1), &Command::Define(group.clone())), Outcome::Defined);
    for (index, places) in [(2, &[0, 1, 2][..]), (3, &[1, 2, 3])] {
        let mut rows = RowBatchBuilder::new(&group, places);
        for id in index * 20..index * 20 + 10_i64 {
            let mut key = Vec::new();
            encode_key(&[KeyType::Int64], &[id.into()], &mut key).unwrap();
            let value = |at: &u16| match (group.features[usize::from(*at)].ty, (id + i64::from(*at)) % 7) {
                (_, 0) => Value::Null,
                (FeatureType::Float32, n) => Value::Float32(n as f32 / 3.0 * (-1.0_f32).powi(id as i32)),
                (_, n) => Value::FixedArray((0..5).map(|item| (item - n) as f32 * (1.1 + id as f32 / 7.0)).collect()),
            };
            rows.upsert(&key, id, 0, &places.iter().map(value).collect::<Vec<_>>()).unwrap();
        }
        let write = Command::Write { stamp_us: 1, step: None, batch: rows.finish().unwrap() };
        assert!(matches!(partition.apply(LogIndex(index as u64), &write), Outcome::Wrote(_)));
    }
    partition
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Chunks, each behind its length.
fn chunks(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut chunks = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (chunk, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        chunks.push(chunk);
        bytes = rest;
    }
    chunks
}

/// The partition that a fixture holds, with all rows in memory.
fn restored(name: &str) -> (Partition, Vec<Bytes>) {
    let bytes = std::fs::read(path(name)).unwrap();
    let chunks: Vec<Bytes> = chunks(&bytes).into_iter().map(Bytes::copy_from_slice).collect();
    let options = StoreOptions { incarnation: 3, ..StoreOptions::default() };
    let (mut restored, _) = Partition::restore(options, chunks.clone()).unwrap();
    restored.check();
    assert!(!restored.thaw(usize::MAX).unwrap());
    restored.check();
    (restored, chunks)
}

fn holds_what_it_held(restored: &Partition) {
    let wanted = partition();
    assert_eq!(restored.digest(), wanted.digest());
    assert_eq!((restored.applied(), restored.time_us()), (wanted.applied(), wanted.time_us()));
    assert_eq!((restored.session(7), restored.session(1 << 90)), (wanted.session(7), wanted.session(1 << 90)));
    assert!(restored.groups().eq(wanted.groups()));
}

fn written(partition: &Partition) -> Vec<Bytes> {
    partition.snapshot().map(|part| part.unwrap().into_chunk().unwrap()).collect()
}

#[test]
fn a_snapshot_of_format_1_opens_and_holds_what_it_held() {
    let (restored, _) = restored("snapshot-1.bin");
    holds_what_it_held(&restored);
    assert_eq!(written(&restored), written(&partition()), "what is written then is of the present format");
}

#[test]
fn a_snapshot_of_format_2_opens_and_holds_what_it_held() {
    let (restored, chunks) = restored("snapshot-2.bin");
    holds_what_it_held(&restored);
    assert_eq!(written(&restored), chunks, "and the format that is written is still this one");
}

#[test]
fn snapshots_of_changed_schemas_open_and_hold_what_they_held() {
    let wanted = changed_partition();
    wanted.check();
    for (name, present) in [("snapshot-1-changed.bin", false), ("snapshot-2-changed.bin", true)] {
        let (restored, chunks) = restored(name);
        assert_eq!(restored.digest(), wanted.digest());
        assert!(restored.groups().eq(wanted.groups()));
        for partition in [&restored, &wanted] {
            let again = written(partition);
            assert_eq!(again == chunks, present, "whatever form the values have in memory");
        }
        assert_eq!(written(&restored), written(&wanted));
    }
}

#[test]
fn a_snapshot_of_rounded_values_opens_and_holds_what_it_held() {
    let (restored, chunks) = restored("snapshot-2-narrow.bin");
    let wanted = narrow_partition();
    wanted.check();
    assert_eq!(restored.digest(), wanted.digest(), "values are rounded as they were");
    assert!(restored.groups().eq(wanted.groups()));
    assert_eq!((written(&restored), written(&wanted)), (chunks.clone(), chunks));
}

/// Writes the fixtures of the present format: to be run once, when there is a new one.
#[test]
#[ignore = "it writes fixtures, of which there is one for each format"]
fn write_fixture() {
    for (name, partition) in [
        ("snapshot-2.bin", partition()),
        ("snapshot-2-changed.bin", changed_partition()),
        ("snapshot-2-narrow.bin", narrow_partition()),
    ] {
        let mut bytes = Vec::new();
        for chunk in written(&partition) {
            bytes.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&chunk);
        }
        std::fs::write(path(name), bytes).unwrap();
    }
}
