//! One writer, two readers, rows that can check themselves.

#![allow(clippy::unwrap_used)] // a helper of a test may panic as the test may

use std::sync::atomic::{AtomicBool, Ordering};

use stoa_protocol::key::KeyBlock;
use stoa_protocol::read::{Projection, RowStatus};
use stoa_protocol::{FeatureGroup, FeatureGroupId, FeatureType, KeyType, LogIndex, RowBatchBuilder, Value};
use stoa_store::{Command, Partition, PartitionReader, StoreOptions};

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
        for round in 0..ROUNDS {
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
