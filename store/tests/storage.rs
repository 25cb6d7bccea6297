//! Features that are kept in a narrower storage: what is read of every value that was written, on every way that it can take,
//! and what a row takes.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use bytes::Bytes;
use stoa_protocol::key::{KeyBlock, encode_key};
use stoa_protocol::message::SessionStep;
use stoa_protocol::read::Projection;
use stoa_protocol::value::ValueError;
use stoa_protocol::{
    ErrorCode, Feature, FeatureGroup, FeatureGroupId, FeatureType, KeyType, KeyValue, LogIndex, RowBatch,
    RowBatchBuilder, Storage, Value,
};
use stoa_store::{Command, Outcome, Partition, PartitionReader, StoreOptions};

const ITEMS: u16 = 3;

/// A key, and the values of features 1 to 3.
type Row = (i64, Value, Value, Value);

/// The bytes that are read of features 1 to 5.
type Read = [Vec<u8>; 5];

/// A number, a vector in each storage, one as it is, and a vector with a default; strings around them.
fn group() -> FeatureGroup {
    let vector = FeatureType::FixedArray { items: ITEMS };
    let features = [
        ("before", FeatureType::String),
        ("number", FeatureType::Float32),
        ("half", vector),
        ("scaled", vector),
        ("plain", vector),
        ("given", vector),
        ("after", FeatureType::String),
    ];
    let mut group = FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &features);
    group.features[1].storage = Some(Storage::Float16);
    group.features[2].storage = Some(Storage::Float16);
    group.features[3].storage = Some(Storage::Int8Scaled);
    group.features[5].storage = Some(Storage::Float16);
    group.features[5].default = Some(bytes(&[0.1, -0.1, 1e-9]));
    group
}

/// The same without storages: what a leader of another opinion would take.
fn plain_group() -> FeatureGroup {
    let mut group = group();
    group.features.iter_mut().for_each(|feature| feature.storage = None);
    group
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn key(id: i64) -> Vec<u8> {
    let mut key = Vec::new();
    encode_key(&[KeyType::Int64], &[KeyValue::Int(id)], &mut key).unwrap();
    key
}

/// Rows of these values, in features 1 to 3 and as it is in 4; strings around them.
fn batch(group: &FeatureGroup, rows: &[Row]) -> RowBatch {
    let mut batch = RowBatchBuilder::new(group, &[0, 1, 2, 3, 4, 6]);
    for (id, number, half, scaled) in rows {
        let text = |end: &str| Value::String(format!("{id} {end}"));
        let values = [text("a"), number.clone(), half.clone(), scaled.clone(), half.clone(), text("b")];
        batch.upsert(&key(*id), 1, 0, &values).unwrap();
    }
    batch.finish().unwrap()
}

fn write(batch: RowBatch) -> Command {
    Command::Write { stamp_us: 1, step: None, batch }
}

/// The values of interest: what is written, and what is read of it in binary16.
fn halves() -> Vec<(f32, f32)> {
    let nan = |bits: u32| f32::from_bits(bits);
    vec![
        (0.0, 0.0),
        (-0.0, -0.0),
        (1.0, 1.0),
        (-2.5, -2.5),
        (0.1, 0.099_975_586),
        (2_048.0, 2_048.0),
        // Ties go to the even one.
        (2_049.0, 2_048.0),
        (2_051.0, 2_052.0),
        (65_504.0, 65_504.0),
        (-65_504.0, -65_504.0),
        // Subnormal ones, the least of them, and what is nothing beside it.
        (6.0e-5, 6.002_187_7e-5),
        (5.960_464_5e-8, 5.960_464_5e-8),
        (-2.980_232_2e-8, -0.0),
        (2.980_232_6e-8, 5.960_464_5e-8),
        (f32::from_bits(1), 0.0),
        (f32::INFINITY, f32::INFINITY),
        (f32::NEG_INFINITY, f32::NEG_INFINITY),
        // Quiet, with the upper ten bits of the payload.
        (nan(0x7fc0_0000), nan(0x7fc0_0000)),
        (nan(0xffc1_2345), nan(0xffc1_2000)),
        (nan(0x7f80_0001), nan(0x7fc0_0000)),
    ]
}

/// Vectors, and what is read of them with a scale.
fn scaled() -> Vec<([f32; 3], [f32; 3])> {
    let tiny = f32::MIN_POSITIVE;
    vec![
        ([0.0, -0.0, 0.0], [0.0, 0.0, 0.0]),
        ([127.0, -3.0, 0.5], [127.0, -3.0, 0.0]),
        ([-254.0, 3.0, 5.0], [-254.0, 4.0, 4.0]),
        ([127.0, 1.5, -126.5], [127.0, 2.0, -126.0]),
        ([tiny, -tiny, tiny / 2.0], [tiny, -tiny, 0.0]),
        // The greatest, beside which the others are nothing.
        ([f32::from_bits(0x7f7f_fff8), 1e30, -1e36], [f32::from_bits(0x7f7f_fff8), 0.0, 0.0]),
    ]
}

/// Rows of all of them, and what is to be read: the bytes of features 1 to 5.
fn all() -> (Vec<Row>, Vec<Read>) {
    let (halves, scaled) = (halves(), scaled());
    let row = |at: usize| {
        let pick = |step: usize| halves[(at + step) % halves.len()];
        let (number, vector) = (pick(0), [pick(1), pick(5), pick(9)]);
        let (given, kept) = scaled[at % scaled.len()];
        let half = vector.map(|(given, _)| given);
        let values =
            (at as i64, Value::Float32(number.0), Value::FixedArray(half.to_vec()), Value::FixedArray(given.to_vec()));
        let read =
            [bytes(&[number.1]), bytes(&vector.map(|(_, kept)| kept)), bytes(&kept), bytes(&half), bytes(&GIVEN[0])];
        (values, read)
    };
    (0..halves.len()).map(row).unzip()
}

/// The bytes of features 1 to 5 of a row, and their neighbours, asked for out of order.
fn read(reader: &PartitionReader, id: i64) -> [Option<Vec<u8>>; 5] {
    let features = vec![6, 5, 3, 1, 2, 4, 0];
    let projection = Projection { group: FeatureGroupId(1), schema_version: 1, features };
    let mut keys = KeyBlock::new();
    keys.push(&key(id));
    let rows = reader.read(&projection, &keys, LogIndex(0)).unwrap();
    assert!(rows.value(0, 0).is_none_or(|text| text == format!("{id} b").as_bytes()));
    assert!(rows.value(6, 0).is_none_or(|text| text == format!("{id} a").as_bytes()));
    [3, 4, 2, 5, 1].map(|column| rows.value(column, 0).map(<[u8]>::to_vec))
}

fn check_all(reader: &PartitionReader, how: &str) {
    for (id, wanted) in (0..).zip(all().1) {
        assert_eq!(read(reader, id), wanted.map(Some), "{how}, row {id}");
    }
    for (id, given) in [(1_000, Some(bytes(&GIVEN[0]))), (1_001, None), (1_002, Some(bytes(&GIVEN[1])))] {
        assert_eq!(read(reader, id), [None, None, None, None, given], "{how}, row {id}");
    }
}

/// The default of feature 5, and a value that takes its place.
const GIVEN: [[f32; 3]; 2] = [[0.099_975_586, -0.099_975_586, 0.0], [2_048.0, -0.0, 0.099_975_586]];

/// All of them; row 1,000, which is null but for the default, 1,001 with a null in its place, and 1,002 with a value after it.
fn filled(lane_bytes_max: usize) -> (Partition, PartitionReader) {
    let (mut partition, reader) =
        Partition::new(StoreOptions { index_seed: 4, lane_bytes_max, ..StoreOptions::default() });
    let mut nulls = RowBatchBuilder::new(&group(), &[5]);
    let mut values = RowBatchBuilder::new(&group(), &[5]);
    [1_001, 1_002].iter().for_each(|id| nulls.upsert(&key(*id), 1, 0, &[Value::Null]).unwrap());
    values.upsert(&key(1_002), 2, 0, &[Value::FixedArray(vec![2_049.0, -0.0, 0.1])]).unwrap();
    let commands = [
        Command::Define(group()),
        write(batch(&group(), &all().0)),
        write(batch(&group(), &[(1_000, Value::Null, Value::Null, Value::Null)])),
        write(nulls.finish().unwrap()),
        write(values.finish().unwrap()),
    ];
    for (index, command) in (1..).zip(&commands) {
        // As the log gives it.
        let command = Command::decode(&command.encode()).unwrap();
        assert!(!matches!(partition.apply(LogIndex(index), &command), Outcome::Refused(_)));
    }
    (partition, reader)
}

fn chunks(partition: &Partition) -> Vec<Bytes> {
    partition.snapshot().map(|part| part.unwrap().into_chunk().unwrap()).collect()
}

#[test]
fn every_value_is_read_as_its_storage_has_it_from_lanes_from_snapshots_and_after_a_start() {
    let (partition, reader) = filled(256);
    check_all(&reader, "from lanes");
    partition.check();
    let saved = chunks(&partition);
    for lane_bytes_max in [8, 64, 512] {
        let (narrower, reader) = filled(lane_bytes_max);
        check_all(&reader, "from other lanes");
        assert_eq!((narrower.digest(), chunks(&narrower)), (partition.digest(), saved.clone()));
        let options = StoreOptions { lane_bytes_max, ..StoreOptions::default() };
        let (mut restored, reader) = Partition::restore(options, saved.clone()).unwrap();
        assert!(restored.is_cold());
        check_all(&reader, "from the chunks of a snapshot");
        restored.check();
        assert!(!restored.thaw(usize::MAX).unwrap());
        check_all(&reader, "after a start");
        restored.check();
        assert_eq!((restored.digest(), chunks(&restored)), (partition.digest(), saved.clone()));
    }
}

#[test]
fn what_was_read_and_is_written_again_changes_nothing() {
    let (mut partition, reader) = filled(256);
    let (digest, saved) = (partition.digest(), chunks(&partition));
    let value = |feature: u16, bytes: Option<Vec<u8>>| {
        let ty = group().features[usize::from(feature)].ty;
        bytes.map_or(Value::Null, |bytes| Value::decode(ty, &bytes).unwrap())
    };
    let mut again = RowBatchBuilder::new(&group(), &[1, 2, 3]);
    for id in 0..all().0.len() as i64 {
        let [number, half, scaled, ..] = read(&reader, id);
        again.upsert(&key(id), 1, 0, &[value(1, number), value(2, half), value(3, scaled)]).unwrap();
    }
    let outcome = partition.apply(LogIndex(6), &write(again.finish().unwrap()));
    assert!(matches!(outcome, Outcome::Wrote(answer) if answer.older.is_empty()));
    assert_eq!(partition.digest(), digest);
    assert_eq!(chunks(&partition)[1..], saved[1..], "the header has the index of the last command");
}

#[test]
fn a_value_that_cannot_be_kept_is_refused_by_whoever_lays_it_out_and_by_apply() {
    let (mut partition, reader) = filled(256);
    let before = (partition.digest(), chunks(&partition)[1..].to_vec());
    let vector = |last: f32| Value::FixedArray(vec![1.0, 2.0, last]);
    let cases = [
        ((Value::Float32(65_504.01), vector(0.0), vector(0.0)), "feature number: the value is 65504.01, and float16"),
        ((Value::Null, vector(-70_000.0), vector(0.0)), "feature half: item 2 is -70000.0, and float16"),
        ((Value::Null, vector(f32::NAN), vector(f32::NAN)), "feature scaled: item 2 is NaN, and int8_scaled"),
        ((Value::Null, vector(f32::INFINITY), vector(f32::INFINITY)), "feature scaled: item 2 is inf, and int8_scaled"),
        ((Value::Null, vector(0.0), vector(f32::MAX)), "feature scaled: item 2 is 3.4028235e38, and int8_scaled"),
    ];
    for ((number, half, scaled), wanted) in cases {
        let mut builder = RowBatchBuilder::new(&group(), &[1, 2, 3]);
        let good = [Value::Float32(1.0), vector(1.0), vector(1.0)];
        builder.upsert(&key(1), 9, 0, &good).unwrap();
        let mut alone = builder.clone();
        let (feature, error) =
            builder.upsert(&key(2), 9, 0, &[number.clone(), half.clone(), scaled.clone()]).unwrap_err();
        assert!(matches!(error, ValueError::Storage(_)));
        assert!(
            format!("feature {}: {error}", group().features[usize::from(feature)].name).contains(wanted),
            "{error}"
        );
        alone.upsert(&key(3), 9, 0, &good).unwrap();
        builder.upsert(&key(3), 9, 0, &good).unwrap();
        assert_eq!(builder.finish().unwrap().bytes(), alone.finish().unwrap().bytes(), "a refused row leaves nothing");

        let rows = [(1, Value::Null, vector(1.0), vector(1.0)), (2, number, half, scaled)];
        let foreign = batch(&plain_group(), &rows);
        assert_eq!(foreign.check(&plain_group(), 9), Ok(()));
        let error = foreign.check(&group(), 9).unwrap_err();
        assert_eq!(error.code, ErrorCode::BadValue);
        assert!(error.message.contains(&format!("row 1, {wanted}")), "{error}");
        let index = LogIndex(partition.applied().0 + 1);
        let step = Some(SessionStep { session: 3, sequence: 1 });
        let outcome = partition.apply(index, &Command::Write { stamp_us: 1, step, batch: foreign });
        assert_eq!(outcome, Outcome::Refused(error));
        assert_eq!((partition.digest(), partition.session(3).last), (before.0.clone(), 0));
    }
    assert_eq!(chunks(&partition)[1..], before.1);
    check_all(&reader, "after what was refused");
}

#[test]
fn what_is_written_of_a_dropped_feature_is_passed_over_whatever_it_is() {
    let (mut partition, _) = filled(256);
    let mut dropped = group();
    dropped.schema_version = 2;
    dropped.features[1..4].iter_mut().for_each(|feature| feature.dropped = true);
    assert_eq!(partition.apply(LogIndex(6), &Command::Define(dropped.clone())), Outcome::Defined);
    let nan = Value::FixedArray(vec![f32::NAN; 3]);
    let batch = batch(&plain_group(), &[(1, Value::Float32(f32::MAX), nan.clone(), nan)]);
    assert_eq!(batch.check(&dropped, 9), Ok(()));
    assert!(matches!(partition.apply(LogIndex(7), &write(batch)), Outcome::Wrote(_)));
    partition.check();
}

#[test]
fn a_row_takes_as_many_bytes_less_as_its_storage_says_in_memory_in_snapshots_and_of_the_limit() {
    const ROWS: i64 = 2_000;
    let used = |storage: Option<Storage>| {
        let vector = Feature { storage, ..Feature::new("taste", FeatureType::FixedArray { items: 128 }) };
        let mut group = FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &[]);
        group.features.push(vector);
        let (mut partition, reader) = Partition::new(StoreOptions::default());
        partition.apply(LogIndex(1), &Command::Define(group.clone()));
        for first in (0..ROWS).step_by(500) {
            let mut batch = RowBatchBuilder::new(&group, &[0]);
            for id in first..first + 500 {
                let values = (0..128).map(|at| (id * 128 + at) as f32 / 1_000.0).collect();
                batch.upsert(&key(id), 1, 0, &[Value::FixedArray(values)]).unwrap();
            }
            let batch = batch.finish().unwrap();
            reader.admits(&batch).unwrap();
            partition.apply(LogIndex(partition.applied().0 + 1), &write(batch));
        }
        let memory = partition.memory();
        let snapshot: usize = chunks(&partition).iter().map(Bytes::len).sum();
        (memory.lanes / ROWS as u64, memory.logical_bytes / ROWS as u64, snapshot as u64 / ROWS as u64)
    };
    let (wide, float16, int8) = (used(None), used(Some(Storage::Float16)), used(Some(Storage::Int8Scaled)));
    // Beside the vector there are 31 bytes: event time, sequence, flags, validity, a tombstone's stamp; and lanes end at a multiple
    // of eight.
    assert_eq!([wide.0, float16.0, int8.0], [31 + 512, 31 + 256, 31 + 136]);
    assert_eq!([wide.1, float16.1, int8.1], [32 + 9 + 512, 32 + 9 + 256, 32 + 9 + 132]);
    assert_eq!([wide.2 - float16.2, wide.2 - int8.2], [512 - 256, 512 - 132]);
}
