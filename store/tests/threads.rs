//! One writer, two readers, rows that can check themselves.

#![allow(clippy::unwrap_used)] // a helper of a test may panic as the test may

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use stoa_protocol::catalog::EarlierType;
use stoa_protocol::key::KeyBlock;
use stoa_protocol::limits::{SWEEP_ROWS_MAX, TTL_US_MIN};
use stoa_protocol::read::{Projection, RowStatus};
use stoa_protocol::{
    FeatureGroup, FeatureGroupId, FeatureType, KeyType, KeyValue, LogIndex, OnExpired, RowBatchBuilder, Ttl, Value,
};
use stoa_store::{Command, Outcome, Partition, PartitionReader, StoreOptions, Sweep};

const KEYS: i64 = 1_500;
const ROUNDS: i64 = 40;

fn group() -> FeatureGroup {
    let embedding = FeatureType::FixedArray { items: 40 };
    let mut features = vec![("round", FeatureType::Int64), ("text", FeatureType::String), ("long", embedding)];
    let names: Vec<String> = (0..40).map(|at| format!("f{at}")).collect();
    features.extend(names.iter().map(|name| (name.as_str(), FeatureType::Float64)));
    FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &features)
}

fn key(id: i64) -> Vec<u8> {
    let mut out = Vec::new();
    stoa_protocol::key::encode_key(&[KeyType::Int64], &[id.into()], &mut out).unwrap();
    out
}

/// What every value of a row of key `id` in round `round` is made of.
fn mark(id: i64, round: i64) -> i64 {
    id * 1_000 + round
}

fn text(mark: i64) -> String {
    format!("{mark}:").repeat((mark % 7) as usize + 1)
}

/// Writes every key; odd rounds leave out the embedding and the second half of the numbers, which stay of the round
/// before.
fn write(group: &FeatureGroup, ids: std::ops::Range<i64>, round: i64) -> Command {
    let whole = round % 2 == 0;
    let features: Vec<u16> = (0..group.features.len() as u16).filter(|f| whole || (*f != 2 && *f < 23)).collect();
    let mut builder = RowBatchBuilder::new(group, &features);
    for id in ids {
        let mark = mark(id, round);
        let values: Vec<Value> = features
            .iter()
            .map(|feature| match feature {
                0 => Value::Int(mark),
                1 => Value::String(text(mark)),
                2 => Value::FixedArray(vec![mark as f32; 40]),
                at => Value::Float64((mark + i64::from(*at)) as f64),
            })
            .collect();
        builder.upsert(&key(id), round, 0, &values).unwrap();
    }
    Command::Write { stamp_us: round, step: None, batch: builder.finish().unwrap() }
}

fn read_until(done: &AtomicBool, reader: &PartitionReader, group: &FeatureGroup, mut chance: u64) {
    let mut seen = vec![-1; KEYS as usize];
    let mut reads = 0;
    while !done.load(Ordering::Relaxed) || reads < 20 {
        reads += 1;
        let ids: Vec<i64> = (0..100)
            .map(|_| {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (chance >> 33) as i64 % KEYS
            })
            .collect();
        let mut keys = KeyBlock::new();
        ids.iter().for_each(|id| keys.push(&key(*id)));
        let features: Vec<u16> = (0..group.features.len() as u16).collect();
        let projection = Projection { group: FeatureGroupId(1), schema_version: 1, features };
        let answer = reader.read(&projection, &keys, LogIndex(0)).unwrap();
        for (at, &id) in ids.iter().enumerate() {
            if answer.status(at) == RowStatus::NotFound {
                assert_eq!(seen[id as usize], -1, "a row does not go away");
                continue;
            }
            let round = answer.event_time(at);
            assert!(round >= seen[id as usize], "key {id} went back from {} to {round}", seen[id as usize]);
            seen[id as usize] = round;
            let (mark, before) = (mark(id, round), mark(id, round - round % 2));
            let value = |feature: usize| {
                let bytes = answer.value(feature, at).expect("every value is present");
                Value::decode(group.features[feature].ty, bytes).unwrap()
            };
            assert_eq!(value(0), Value::Int(mark), "key {id} in round {round}");
            assert_eq!(value(1), Value::String(text(mark)));
            assert_eq!(value(2), Value::FixedArray(vec![before as f32; 40]));
            for feature in 3..group.features.len() {
                let of = if feature < 23 { mark } else { before };
                assert_eq!(value(feature), Value::Float64((of + feature as i64) as f64), "feature {feature}");
            }
        }
    }
}

#[test]
fn readers_see_whole_rows_of_their_key_that_never_go_back() {
    let group = group();
    let options = StoreOptions { tidy_bytes_min: 1, ..StoreOptions::default() };
    let (mut partition, reader) = Partition::new(options);
    partition.apply(LogIndex(1), &Command::Define(group.clone()));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for chance in [1, 2] {
            let (reader, group, done) = (reader.clone(), &group, &done);
            scope.spawn(move || read_until(done, &reader, group, chance));
        }
        let (mut index, mut shrunk) = (1, 0);
        // Readers that are interrupted keep what they look at, so that a round may end before anything can go back.
        for round in 0..20 * ROUNDS {
            if round >= ROUNDS && shrunk > 0 {
                break;
            }
            let mut snapshot = (round % 16 == 3).then(|| partition.snapshot());
            for first in (0..KEYS).step_by(100) {
                index += 1;
                partition.apply(LogIndex(index), &write(&group, first..first + 100, round));
                if let Some(source) = &mut snapshot {
                    source.next();
                }
            }
            // What was overwritten under the snapshot is much: rows and values move, and what they leave goes back.
            drop(snapshot);
            let (before, mut steps) = (partition.memory().total, 0);
            while partition.tidy(1_000) && steps < 200 {
                steps += 1;
                std::thread::yield_now();
            }
            shrunk += usize::from(partition.memory().total < before * 9 / 10);
        }
        done.store(true, Ordering::Relaxed);
        assert!(shrunk > 0, "memory goes back beside readers");
    });
    partition.check();
    let memory = partition.memory();
    let lanes = memory.lanes + memory.keys;
    assert!(memory.dead < 8 * lanes, "row numbers are used again: {memory:?}");
}

/// Reads rows that are written, swept and written anew: each is whole and its own, or not there.
fn read_swept_until(done: &AtomicBool, reader: &PartitionReader) {
    let keys: Vec<Vec<u8>> = (0..KEYS).map(text_key).collect();
    let projection = Projection { group: FeatureGroupId(2), schema_version: 1, features: vec![0, 1] };
    let mut reads = 0;
    while !done.load(Ordering::Relaxed) || reads < 20 {
        reads += 1;
        for (chunk, ids) in keys.chunks(100).zip((0..KEYS).step_by(100)) {
            let mut block = KeyBlock::new();
            chunk.iter().for_each(|key| block.push(key));
            let answer = reader.read(&projection, &block, LogIndex(0)).unwrap();
            for at in (0..chunk.len()).filter(|at| answer.status(*at) != RowStatus::NotFound) {
                let mark = mark(ids + at as i64, answer.event_time(at) / EVENT_STEP);
                let value = |feature, ty| Value::decode(ty, answer.value(feature, at).unwrap()).unwrap();
                assert_eq!(value(0, FeatureType::Int64), Value::Int(mark));
                assert_eq!(value(1, FeatureType::String), Value::String(text(mark)));
            }
        }
    }
}

/// Event times of two rounds are so far apart that the rows of one have had their time when the next comes.
const EVENT_STEP: i64 = 10 * TTL_US_MIN;

fn text_key(id: i64) -> Vec<u8> {
    let mut out = Vec::new();
    stoa_protocol::key::encode_key(&[KeyType::String], &[KeyValue::String(format!("key {id}"))], &mut out).unwrap();
    out
}

#[test]
fn readers_see_whole_rows_or_none_while_rows_are_swept_and_their_places_used_again() {
    let features = [("round", FeatureType::Int64), ("text", FeatureType::String)];
    let group = FeatureGroup {
        ttl: Some(Ttl { after_us: TTL_US_MIN, on_expired: OnExpired::ServeLast }),
        late_horizon_us: 0,
        ..FeatureGroup::simple(2, "swept", &[("id", KeyType::String)], &features)
    };
    let (mut partition, reader) = Partition::new(StoreOptions::default());
    partition.apply(LogIndex(1), &Command::Define(group.clone()));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (reader, done) = (reader.clone(), &done);
            scope.spawn(move || read_swept_until(done, &reader));
        }
        let mut index = 1;
        for round in 0..ROUNDS {
            let mut snapshot = (round % 16 == 3).then(|| partition.snapshot());
            let mut builder = RowBatchBuilder::new(&group, &[0, 1]);
            for id in 0..KEYS {
                let mark = mark(id, round);
                let values = [Value::Int(mark), Value::String(text(mark))];
                builder.upsert(&text_key(id), round * EVENT_STEP, 0, &values).unwrap();
            }
            let write = Command::Write { stamp_us: round * EVENT_STEP, step: None, batch: builder.finish().unwrap() };
            partition.apply(LogIndex(index + 1), &write);
            let stamp_us = round * EVENT_STEP + TTL_US_MIN;
            let (mut removed, mut steps) = (0, 0);
            for first_hash in [0, 1 << 63] {
                let last_hash = first_hash + (u64::MAX >> 1);
                let sweep = Sweep { stamp_us, group: group.id, first_hash, last_hash, rows_max: SWEEP_ROWS_MAX };
                steps += 1;
                let outcome = partition.apply(LogIndex(index + 1 + steps), &Command::Sweep(sweep));
                let Outcome::Swept(rows) = outcome else { panic!("{outcome:?}") };
                removed += rows;
            }
            index += 1 + steps;
            assert_eq!((removed, partition.memory().rows), (KEYS as u32, 0), "all of the round have had their time");
            if let Some(source) = &mut snapshot {
                source.next();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    partition.check();
    // Nobody reads any more, so one command more takes back what waited for readers.
    partition.apply(LogIndex(1_000), &Command::Noop);
    partition.check();
    let memory = partition.memory();
    assert_eq!(
        (memory.rows, memory.tombstones, memory.logical_bytes, memory.keys, memory.lanes, memory.arena),
        (0, 0, 0, 0, 0, 0)
    );
}

// ---- schemas that change under readers -------------------------------------------------------------------------------

const GROUPS: u64 = 6;
const WIDTHS: [FeatureType; 4] = [FeatureType::Int8, FeatureType::Int16, FeatureType::Int32, FeatureType::Int64];

/// A group whose one feature was widened so often.
fn widened(id: u64, times: u32) -> FeatureGroup {
    let mut group = FeatureGroup::simple(id, "w", &[("id", KeyType::Int64)], &[("n", WIDTHS[times as usize])]);
    group.schema_version = times + 1;
    group.features[0].earlier = (0..times).map(|at| EarlierType { until: at + 2, ty: WIDTHS[at as usize] }).collect();
    group
}

/// What key `id` has when it was written after so many widenings; the type before could not hold all of it.
fn widened_value(id: i64, times: i64) -> Value {
    let scale = [1, 200, 60_000, 5_000_000_000][times as usize];
    Value::Int((id % 100 - 50) * scale)
}

/// Reads all keys by the first schema, over and over. The whole of an answer is of the schema that it names.
fn read_widened(done: &AtomicBool, rounds: &AtomicU64, reader: &PartitionReader) {
    let mut keys = KeyBlock::new();
    (0..KEYS).for_each(|id| keys.push(&key(id)));
    while !done.load(Ordering::Relaxed) {
        rounds.fetch_add(1, Ordering::Relaxed);
        for group in 1..=GROUPS {
            let projection = Projection { group: FeatureGroupId(group), schema_version: 1, features: vec![0] };
            let Ok(answer) = reader.read(&projection, &keys, LogIndex(0)) else { continue };
            let ty = WIDTHS[answer.head.schema_version as usize - 1];
            assert!(answer.types().eq([ty]), "{ty} in schema {}", answer.head.schema_version);
            for id in 0..KEYS as usize {
                if answer.status(id) == RowStatus::NotFound {
                    continue;
                }
                let times = answer.event_time(id);
                let value = answer.value(0, id).map(|bytes| Value::decode(ty, bytes).unwrap());
                let schema = answer.head.schema_version;
                assert_eq!(value, Some(widened_value(id as i64, times)), "key {id} of {times}, by schema {schema}");
            }
        }
    }
}

#[test]
fn an_answer_is_of_one_schema_whatever_becomes_of_the_schema_while_it_is_read() {
    let (mut partition, reader) = Partition::new(StoreOptions::default());
    let (done, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let readers = [1, 2].map(|_| {
            let (reader, done, rounds) = (reader.clone(), &done, &rounds);
            scope.spawn(move || read_widened(done, rounds, &reader))
        });
        let mut index = 0;
        let mut apply = |command: &Command| {
            index += 1;
            partition.apply(LogIndex(index), command);
        };
        for id in 1..=GROUPS {
            for times in 0..WIDTHS.len() as u32 {
                let group = widened(id, times);
                let mut builder = RowBatchBuilder::new(&group, &[0]);
                // From the end: who reads from the front is there when the new rows are.
                for key_of in (0..KEYS).rev() {
                    let value = widened_value(key_of, times.into());
                    builder.upsert(&key(key_of), times.into(), 0, &[value]).unwrap();
                }
                let write = Command::Write { stamp_us: 0, step: None, batch: builder.finish().unwrap() };
                apply(&Command::Define(group));
                apply(&write);
                // Until readers have been through all groups again, and are at work.
                let seen = rounds.load(Ordering::Relaxed);
                while rounds.load(Ordering::Relaxed) < seen + 6 && !readers.iter().any(|reader| reader.is_finished()) {
                    std::thread::yield_now();
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    partition.check();
}
