//! Reads of several sections at once: whatever partitions, schemas and failures they have, each is what it would be by
//! itself.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use stoa_protocol::evolution::evolve;
use stoa_protocol::key::{KeyBlock, encode_key};
use stoa_protocol::read::{Projection, RowStatus, SectionResult};
use stoa_protocol::row_block::{AnswerWriter, SectionRows, parse_answer};
use stoa_protocol::{
    ErrorBody, ErrorCode, Feature, FeatureGroup, FeatureGroupId, FeatureType, KeyType, LogIndex, RowBatchBuilder, Value,
};
use stoa_store::{Command, Outcome, Partition, PartitionReader, SectionSource, StoreOptions, read_sections};

const KEYS: i64 = 90;

fn key(id: i64) -> Vec<u8> {
    let mut out = Vec::new();
    encode_key(&[KeyType::Int64], &[id.into()], &mut out).unwrap();
    out
}

fn keys(ids: impl IntoIterator<Item = i64>) -> KeyBlock {
    let mut block = KeyBlock::new();
    ids.into_iter().for_each(|id| block.push(&key(id)));
    block
}

fn schema(version: u32) -> FeatureGroup {
    use FeatureType::*;
    let all =
        [("a", Int32), ("s", String), ("e", FixedArray { items: 30 }), ("b", Bool), ("t", String), ("x", Float64)];
    let count = [3, 4, 6][version as usize - 1];
    FeatureGroup { schema_version: version, ..FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &all[..count]) }
}

/// What a feature of a row in a partition is; some are null.
fn value(partition: i64, id: i64, feature: usize, ty: FeatureType) -> Value {
    let number = partition * 1_000_000 + id * 100 + feature as i64;
    if number % 7 == 3 {
        return Value::Null;
    }
    match ty {
        FeatureType::Int32 => Value::Int(number),
        FeatureType::String => Value::String("x".repeat((number % 40) as usize)),
        FeatureType::FixedArray { items } => Value::FixedArray(vec![number as f32; usize::from(items)]),
        FeatureType::Bool => Value::Bool(number % 2 == 0),
        FeatureType::Float64 => Value::Float64(number as f64),
        other => panic!("{other} is not used here"),
    }
}

/// A partition that has come to its schema by these steps, with rows of every key but each ninth, some deleted.
fn partition(number: i64, schemas: &[u32]) -> (Partition, PartitionReader) {
    let (mut partition, reader) = Partition::new(StoreOptions { index_seed: number as u64, ..StoreOptions::default() });
    let mut index = 0;
    let mut apply = |command: &Command| {
        index += 1;
        partition.apply(LogIndex(index), command)
    };
    for version in schemas {
        assert_eq!(apply(&Command::Define(schema(*version))), Outcome::Defined);
    }
    let group = schema(*schemas.last().unwrap());
    let features: Vec<u16> = (0..group.features.len() as u16).collect();
    let mut builder = RowBatchBuilder::new(&group, &features);
    for id in (0..KEYS).filter(|id| id % 9 != 0) {
        let values: Vec<_> =
            group.features.iter().enumerate().map(|(at, feature)| value(number, id, at, feature.ty)).collect();
        builder.upsert(&key(id), id * 10, 0, &values).unwrap();
    }
    (0..KEYS).filter(|id| id % 9 == 4).for_each(|id| builder.delete(&key(id), id * 10 + 1, 0));
    let batch = builder.finish().unwrap();
    assert!(matches!(apply(&Command::Write { stamp_us: 0, step: None, batch }), Outcome::Wrote(_)));
    (partition, reader)
}

fn read(projection: &Projection, sources: &[SectionSource<'_>]) -> Vec<Result<SectionRows, ErrorBody>> {
    let mut answer = AnswerWriter::default();
    let results: Vec<_> = read_sections(projection, sources, &mut answer)
        .into_iter()
        .map(|result| result.map_or_else(SectionResult::Failed, SectionResult::Rows))
        .collect();
    parse_answer(answer.finish(&results).into_body().into()).unwrap()
}

fn projection(schema_version: u32, features: &[u16]) -> Projection {
    Projection { group: FeatureGroupId(1), schema_version, features: features.to_vec() }
}

fn assert_rows(rows: &SectionRows, partition: i64, ids: impl Iterator<Item = i64>, features: &[u16]) {
    let group = schema(3);
    for (at, id) in ids.enumerate() {
        let is_there = (0..KEYS).contains(&id) && id % 9 != 0 && id % 9 != 4;
        let status = if is_there { RowStatus::Found } else { RowStatus::NotFound };
        assert_eq!(rows.status(at), status, "partition {partition}, key {id}");
        assert_eq!(rows.event_time(at), if is_there { id * 10 } else { 0 });
        for (column, &feature) in features.iter().enumerate() {
            let ty = group.features[usize::from(feature)].ty;
            let found = rows.value(column, at).map_or(Value::Null, |bytes| Value::decode(ty, bytes).unwrap());
            let wanted = if is_there { value(partition, id, usize::from(feature), ty) } else { Value::Null };
            assert_eq!(found, wanted, "partition {partition}, key {id}, feature {feature}");
        }
    }
}

#[test]
fn partitions_of_every_history_and_failures_between_them_answer_as_if_each_were_alone() {
    // Those that have come to their schema in other steps have other lanes.
    let histories: [&[u32]; 5] = [&[3], &[1, 2, 3], &[3], &[1, 3], &[2]];
    let partitions: Vec<_> = histories.iter().zip(0..).map(|(history, number)| partition(number, history)).collect();
    let features = [2, 0, 3, 1, 0];
    let blocks: Vec<KeyBlock> = (0..5).map(|n| keys((0..KEYS + 5).skip(n).step_by(n + 1))).collect();
    let wrong = keys([1]);
    let mut sources = Vec::new();
    for round in 0..3 {
        for (at, (_, reader)) in partitions.iter().enumerate() {
            let block = &blocks[(at + round) % 5];
            sources.push(SectionSource {
                reader,
                at_least: LogIndex(0),
                time_us: i64::MAX,
                keys: block.range(0, block.len()),
            });
        }
        let reader = &partitions[0].1;
        sources.push(SectionSource { reader, at_least: LogIndex(1_000), time_us: i64::MAX, keys: wrong.range(0, 1) });
    }
    let answers = read(&projection(2, &features), &sources);
    for (at, answer) in answers.iter().enumerate() {
        let (round, place) = (at / 6, at % 6);
        match answer {
            Ok(rows) => {
                let first = (place + round) % 5;
                assert_rows(rows, place as i64, (0..KEYS + 5).skip(first).step_by(first + 1), &features);
                assert_eq!(rows.head.schema_version, *histories[place].last().unwrap());
            }
            Err(error) => assert_eq!((place, error.code), (5, ErrorCode::NotCaughtUp)),
        }
    }
    assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 3);
    let newest = read(&projection(3, &features), &sources);
    let codes: Vec<_> = newest.iter().map(|answer| answer.as_ref().err().map(|error| error.code)).collect();
    let round = [None, None, None, None, Some(ErrorCode::SchemaNotReady), Some(ErrorCode::NotCaughtUp)];
    assert_eq!(codes, round.repeat(3), "the partition that has not learnt the schema fails by itself");
}

#[test]
fn a_request_may_have_more_sections_of_a_partition_than_it_has_places_for_readers() {
    let (_partition, reader) = partition(7, &[3]);
    let block = keys(0..KEYS);
    let sources: Vec<_> = (0..1_000)
        .map(|at| SectionSource {
            reader: &reader,
            at_least: LogIndex(0),
            time_us: i64::MAX,
            keys: block.range(at % 80, at % 11),
        })
        .collect();
    let features = [5, 4, 1];
    for (at, answer) in read(&projection(3, &features), &sources).into_iter().enumerate() {
        assert_rows(&answer.unwrap(), 7, (0..KEYS).skip(at % 80).take(at % 11), &features);
    }
}

#[test]
fn a_section_that_makes_the_answer_too_large_fails_and_leaves_the_others_as_they_are() {
    let group = FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &[("s", FeatureType::String)]);
    let (mut partition, reader) = Partition::new(StoreOptions::default());
    partition.apply(LogIndex(1), &Command::Define(group.clone()));
    for (index, id) in (2..).zip(0..200) {
        let mut builder = RowBatchBuilder::new(&group, &[0]);
        builder.upsert(&key(id), 1, 0, &[Value::String(id.to_string().repeat(60_000 / 3))]).unwrap();
        let batch = builder.finish().unwrap();
        partition.apply(LogIndex(index), &Command::Write { stamp_us: 0, step: None, batch });
    }
    let block = keys(0..200);
    let section = |first, count| SectionSource {
        reader: &reader,
        at_least: LogIndex(0),
        time_us: i64::MAX,
        keys: block.range(first, count),
    };
    // 4 MB, then one that would not fit, whose keys are in several chunks, then 2 MB, and one of rows that are not there.
    let none = keys(1_000..1_090);
    let empty = SectionSource { reader: &reader, at_least: LogIndex(0), time_us: i64::MAX, keys: none.range(0, 90) };
    let sources = [section(100, 70), section(0, 200), section(110, 30), empty];
    let answers = read(&projection(1, &[0]), &sources);
    let [Ok(first), Err(error), Ok(last), Ok(none)] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(error.code, ErrorCode::TooLarge);
    for (rows, from, count) in [(first, 100, 70), (last, 110, 30)] {
        assert_eq!(rows.rows(), count);
        for at in 0..count {
            let wanted = (from + at).to_string().repeat(60_000 / 3);
            assert_eq!(rows.value(0, at), Some(wanted.as_bytes()));
        }
    }
    assert!((0..90).all(|row| none.status(row) == RowStatus::NotFound));
}

/// A group of which feature 0 became an Int64 and feature 1 a Float64 with schema 2, which feature 3 came with, too.
fn changing(version: u32) -> FeatureGroup {
    use FeatureType::*;
    let mut group =
        FeatureGroup::simple(1, "c", &[("id", KeyType::Int64)], &[("a", Int16), ("b", Float32), ("s", String)]);
    if version == 2 {
        let types = [(0, Int64), (1, Float64)];
        let mut wanted = group.features.clone();
        types.into_iter().for_each(|(at, ty)| wanted[at].ty = ty);
        wanted.push(Feature { default: Some(b"none yet".to_vec()), ..Feature::new("t", String) });
        (group.features, group.schema_version) = (evolve(&group.features, &wanted, 2).unwrap(), 2);
    }
    group
}

/// Rows `ids`, written under a schema; every third has no feature 0 and every fourth a null there.
fn write_changing(index: u64, version: u32, ids: std::ops::Range<i64>, partition: &mut Partition) {
    let group = changing(version);
    for part in 0..2 {
        let features: &[u16] = if part == 0 { &[0, 1] } else { &[1] };
        let mut builder = RowBatchBuilder::new(&group, features);
        for id in ids.clone().filter(|id| (id % 3 == 0) == (part == 1)) {
            let b =
                if version == 1 { Value::Float32(id as f32 / 3.0) } else { Value::Float64(f64::from(id as f32 / 3.0)) };
            let a = if id % 4 == 0 { Value::Null } else { Value::Int(-id) };
            let values = if part == 0 { vec![a, b] } else { vec![b] };
            builder.upsert(&key(id), 1, 0, &values).unwrap();
        }
        let batch = builder.finish().unwrap();
        let outcome = partition.apply(LogIndex(index + part), &Command::Write { stamp_us: 0, step: None, batch });
        assert!(matches!(outcome, Outcome::Wrote(_)), "{outcome:?}");
    }
}

#[test]
fn each_section_is_of_the_schema_that_its_head_names_wherever_its_partition_has_come_to() {
    let make = || Partition::new(StoreOptions::default());
    let define = |partition: &mut Partition, index, version| {
        assert_eq!(partition.apply(LogIndex(index), &Command::Define(changing(version))), Outcome::Defined);
    };
    let ((mut behind, behind_reader), (mut ahead, ahead_reader), (mut grown, grown_reader)) = (make(), make(), make());
    define(&mut behind, 1, 1);
    write_changing(2, 1, 0..KEYS, &mut behind);
    define(&mut ahead, 1, 2);
    write_changing(2, 1, 0..KEYS, &mut ahead);
    define(&mut grown, 1, 1);
    write_changing(2, 1, 0..KEYS / 2, &mut grown);
    define(&mut grown, 4, 2);
    write_changing(5, 2, KEYS / 2..KEYS, &mut grown);
    let chunks = || grown.snapshot().map(|part| part.unwrap().into_chunk().unwrap());
    let restore = || Partition::restore(StoreOptions::default(), chunks()).unwrap();
    let ((cold, cold_reader), (mut restored, restored_reader)) = (restore(), restore());
    assert!(cold.is_cold() && !restored.thaw(usize::MAX).unwrap());
    for partition in [&cold, &restored] {
        assert_eq!((partition.digest(), partition.recompute_digest()), (grown.digest(), grown.digest()));
    }
    let block = keys(0..KEYS);
    let readers =
        [(&behind_reader, 1), (&ahead_reader, 2), (&grown_reader, 2), (&cold_reader, 2), (&restored_reader, 2)];
    let source =
        |reader| SectionSource { reader, at_least: LogIndex(0), time_us: 0, keys: block.range(0, KEYS as usize) };
    let sources = readers.map(|(reader, _)| source(reader));
    for asked in [1, 2] {
        let features: &[u16] = if asked == 1 { &[1, 0, 1] } else { &[3, 0, 1] };
        for (answer, (_, version)) in read(&projection(asked, features), &sources).iter().zip(readers) {
            let Ok(rows) = answer else {
                let error = answer.as_ref().unwrap_err();
                assert_eq!((asked, version, error.code), (2, 1, ErrorCode::SchemaNotReady));
                continue;
            };
            let group = changing(version);
            assert_eq!(rows.head.schema_version, version);
            assert!(rows.types().eq(features.iter().map(|at| group.features[usize::from(*at)].ty)));
            for id in 0..KEYS {
                let of =
                    |column: usize, ty| rows.value(column, id as usize).map(|bytes| Value::decode(ty, bytes).unwrap());
                let a = (id % 3 != 0 && id % 4 != 0).then_some(Value::Int(-id));
                assert_eq!(of(1, group.features[0].ty), a, "key {id}, schema {version}");
                let single = id as f32 / 3.0;
                let b = if version == 1 { Value::Float32(single) } else { Value::Float64(f64::from(single)) };
                assert_eq!(of(2, group.features[1].ty), Some(b), "key {id}, schema {version}");
                if asked == 2 {
                    assert_eq!(of(0, FeatureType::String), Some(Value::String("none yet".into())), "key {id}");
                }
            }
        }
    }
}
