//! `protocol::batch`: a batch is walked, checked against a group that is made to fit it, built again and applied.

use stoa_protocol::key::{decode_key, encode_key};
use stoa_protocol::limits::{
    BATCH_BYTES_MAX, BATCH_ROWS_MAX, GROUP_FEATURES_MAX, KEY_BYTES_MAX, KEY_COLUMNS_MAX, VALUE_BYTES_MAX,
};
use stoa_protocol::{
    FeatureGroup, FeatureType, KeyType, LogIndex, RowBatch, RowBatchBuilder, RowOp, Storage, Value, Width,
};
use stoa_store::{Command, Outcome, Partition, StoreOptions};

use super::Seed;
use crate::sample::{self, Row};
use crate::{Input, round_trip};

/// A byte of the types of numbers in keys and of how values are kept, then a batch.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let bytes = input.rest();
    let Some(batch) = round_trip::taken(RowBatch::parse(bytes.to_vec().into())) else { return };
    walk(&batch, bytes);
    let Some(group) = fitting(&batch, choice) else { return };
    match batch.check(&group, i64::MAX) {
        Ok(()) => {
            decode(&batch, &group);
            build(&batch, &group);
            apply(&batch, &group);
        }
        Err(error) => assert!(!error.message.is_empty()),
    }
}

fn walk(batch: &RowBatch, bytes: &[u8]) {
    assert!(bytes.len() <= BATCH_BYTES_MAX && batch.bytes() == bytes);
    assert!((1..=BATCH_ROWS_MAX).contains(&batch.rows()) && batch.columns().len() <= GROUP_FEATURES_MAX);
    assert!(batch.columns().windows(2).all(|pair| pair[0].feature < pair[1].feature));
    for row in 0..batch.rows() {
        assert!(batch.key(row).len() <= KEY_BYTES_MAX);
        let _ = (batch.event_time(row), batch.sequence(row), batch.op(row));
        for (at, column) in batch.columns().iter().enumerate() {
            let Some(value) = batch.value(at, row) else { continue };
            match column.ty.width() {
                Width::Fixed(width) => assert_eq!(value.len(), width),
                Width::Variable => assert!(value.len() <= VALUE_BYTES_MAX),
            }
        }
    }
}

/// A group that has the batch's features and key columns; what the batch does not say is made up.
fn fitting(batch: &RowBatch, choice: u8) -> Option<FeatureGroup> {
    let last = batch.columns().last().map_or(0, |column| usize::from(column.feature));
    if last >= GROUP_FEATURES_MAX {
        return None;
    }
    let mut types = vec![FeatureType::Bool; last + 1];
    batch.columns().iter().for_each(|column| types[usize::from(column.feature)] = column.ty);
    let names: Vec<String> = (0..types.len()).map(|at| format!("f{at}")).collect();
    let features: Vec<_> = names.iter().map(String::as_str).zip(types).collect();
    let keys: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().zip(key_types(batch.key(0), choice)).collect();
    let mut group = FeatureGroup::simple(batch.group().0, "g", &keys, &features);
    group.schema_version = batch.schema_version();
    let storages = [None, Some(Storage::Float16), Some(Storage::Int8Scaled), None];
    let storage = storages[usize::from(choice >> 2 & 3)];
    for feature in &mut group.features {
        feature.storage = storage.filter(|storage| storage.check_type(feature.ty).is_ok());
    }
    (group.check().is_ok() && group.id.0 > 0).then_some(group)
}

/// Types of key columns by the tags of a key.
fn key_types(key: &[u8], choice: u8) -> Vec<KeyType> {
    let mut types: Vec<KeyType> = Vec::new();
    let mut rest = key;
    while let Some((tag, after)) = rest.split_first()
        && types.len() < KEY_COLUMNS_MAX
    {
        let (ty, bytes) = match tag {
            0x10 => (KeyType::Bool, 1),
            0x20 => ([KeyType::Int8, KeyType::Int16, KeyType::Int32, KeyType::Int64][usize::from(choice & 3)], 8),
            0x30 => (KeyType::Date, 8),
            0x40 => (KeyType::Timestamp, 8),
            0x50 => (KeyType::String, text_bytes(after)),
            _ => (KeyType::Binary, text_bytes(after)),
        };
        types.push(ty);
        rest = after.get(bytes..).unwrap_or_default();
    }
    types
}

/// Bytes up to an end mark and with it.
fn text_bytes(bytes: &[u8]) -> usize {
    bytes.windows(2).position(|pair| pair == [0, 0]).map_or(bytes.len(), |at| at + 2)
}

/// What was checked can be taken apart, and is of one form.
fn decode(batch: &RowBatch, group: &FeatureGroup) {
    let types = group.entity.key_types();
    for row in 0..batch.rows() {
        let values = decode_key(&types, batch.key(row)).expect("keys were checked");
        let mut key = Vec::new();
        assert_eq!(encode_key(&types, &values, &mut key), Ok(()));
        assert_eq!(key, batch.key(row));
        for (at, column) in batch.columns().iter().enumerate() {
            let Some(bytes) = batch.value(at, row) else { continue };
            let mut again = Vec::new();
            let value = Value::decode(column.ty, bytes).expect("values were checked");
            assert_eq!(value.encode(column.ty, &mut again), Ok(()));
            assert_eq!(again, bytes);
        }
    }
}

/// The builder makes a batch of the same rows.
fn build(batch: &RowBatch, group: &FeatureGroup) {
    let features: Vec<u16> = batch.columns().iter().map(|column| column.feature).collect();
    let mut builder = RowBatchBuilder::new(group, &features);
    let value = |at: usize, row| {
        let value = batch.value(at, row).map(|bytes| Value::decode(batch.columns()[at].ty, bytes));
        value.map_or(Value::Null, |value| value.expect("values were checked"))
    };
    for row in 0..batch.rows() {
        let (key, time, sequence) = (batch.key(row), batch.event_time(row), batch.sequence(row));
        match batch.op(row) {
            RowOp::Delete => builder.delete(key, time, sequence),
            RowOp::Upsert => {
                let values: Vec<_> = (0..features.len()).map(|at| value(at, row)).collect();
                assert_eq!(builder.upsert(key, time, sequence, &values), Ok(()));
            }
        }
    }
    let again = builder.finish().expect("a batch has rows");
    assert_eq!((again.rows(), again.group(), again.schema_version()), (batch.rows(), group.id, group.schema_version));
    for row in 0..batch.rows() {
        assert_eq!(again.key(row), batch.key(row));
        assert_eq!((again.event_time(row), again.sequence(row)), (batch.event_time(row), batch.sequence(row)));
        assert_eq!(again.op(row), batch.op(row));
        let written = (0..features.len()).filter(|_| batch.op(row) == RowOp::Upsert);
        written.for_each(|at| assert_eq!(again.value(at, row), batch.value(at, row)));
    }
}

/// A batch that was checked is not refused, and leaves a sound partition.
fn apply(batch: &RowBatch, group: &FeatureGroup) {
    let (mut partition, _reader) = Partition::new(StoreOptions::default());
    assert_eq!(partition.apply(LogIndex(1), &Command::Define(group.clone())), Outcome::Defined);
    let write = Command::Write { stamp_us: 7, step: None, batch: batch.clone() };
    let Outcome::Wrote(answer) = partition.apply(LogIndex(2), &write) else { panic!("a checked batch was refused") };
    assert_eq!(answer.applied as usize + answer.older.len(), batch.rows());
    assert!(answer.older.iter().all(|row| (*row as usize) < batch.rows()));
    partition.check();
    assert!(partition.memory().rows + partition.memory().tombstones <= u64::from(answer.applied));
}

/// Batches of both groups: with deletes, with sequences, with neither, with a key alone.
pub fn seeds() -> Vec<Seed> {
    let seed = |group: &FeatureGroup, features: &[u16], rows: &[Row]| {
        let batch = sample::batch(group, features, rows).expect("there are rows");
        [&[3 | 4 << (group.features.len() % 2)][..], batch.bytes()].concat()
    };
    let row = |key, sequence, values| Row { key, time: i64::from(key) * 10, sequence, values };
    let all: Vec<u16> = (0..18).collect();
    let (product, visitor) = (sample::product(), sample::visitor());
    vec![
        ("plain", seed(&product, &[0, 2], &[row(1, 0, Some(7)), row(2, 0, Some(10))])),
        ("text", seed(&product, &[1], &(1..10).map(|n| row(n, u64::from(n), Some(n))).collect::<Vec<_>>())),
        ("deletes", seed(&product, &[0, 1, 2], &[row(1, 1, Some(3)), row(1, 2, None), row(3, 0, None)])),
        ("all", seed(&visitor, &all, &[row(1, 0, Some(7)), row(2, 9, Some(11))])),
        ("keys", seed(&visitor, &[], &[row(1, 0, Some(1))])),
    ]
}
