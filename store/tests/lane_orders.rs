//! Replicas whose columns lie in other orders, as their nodes knew other views when they were started: what they say is the same.

#![allow(clippy::unwrap_used)] // a helper of a test may panic as the test may

use std::sync::Arc;

use bytes::Bytes;
use stoa_protocol::evolution::evolve;
use stoa_protocol::key::{KeyBlock, encode_key};
use stoa_protocol::read::{Projection, RowStatus, SectionResult};
use stoa_protocol::row_block::{AnswerWriter, parse_answer};
use stoa_protocol::types::ItemType;
use stoa_protocol::{
    Feature, FeatureGroup, FeatureGroupId, FeatureType, KeyType, KeyValue, LogIndex, RowBatchBuilder, Storage, Value,
};
use stoa_store::{
    Command, LaneOrders, Outcome, Partition, PartitionReader, SectionSource, StoreOptions, read_sections,
};

const GROUP: FeatureGroupId = FeatureGroupId(1);
const ROWS: i64 = 300;

/// The first features of the group: every type, storages, defaults, arrays that share lanes and such that have one of their own.
fn first() -> Vec<Feature> {
    use FeatureType::*;
    let types = [
        Bool,
        Int8,
        Float32,
        Int16,
        String,
        Float32,
        Int32,
        FixedArray { items: 3 },
        Int64,
        Binary,
        Float64,
        Decimal128 { scale: 2 },
        FixedArray { items: 20 },
        Date,
        Json,
        Timestamp,
        Array(ItemType::Int32),
        Float32,
        FixedArray { items: 3 },
        FixedArray { items: 4 },
    ];
    let mut features: Vec<Feature> =
        types.into_iter().enumerate().map(|(at, ty)| Feature::new(&format!("f{at}"), ty)).collect();
    features[5].storage = Some(Storage::Float16);
    features[7].storage = Some(Storage::Int8Scaled);
    features[18].storage = Some(Storage::Float16);
    for (at, default) in [(1, Value::Int(-5)), (4, Value::String("none".into())), (17, Value::Float32(0.5))] {
        let mut bytes = Vec::new();
        default.encode(features[at].ty, &mut bytes).unwrap();
        features[at].default = Some(bytes);
    }
    features
}

fn group() -> FeatureGroup {
    let mut group = FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &[("f0", FeatureType::Bool)]);
    group.features = first();
    group.check().unwrap();
    group
}

/// The same after some were widened, one was dropped, and two were appended.
fn changed() -> FeatureGroup {
    let mut changed = group();
    let mut wanted = changed.features.clone();
    for (at, ty) in [(1, FeatureType::Int32), (2, FeatureType::Float64), (3, FeatureType::Int64)] {
        wanted[at].ty = ty;
    }
    wanted[1].default = Some((-5_i32).to_le_bytes().to_vec());
    wanted[9].dropped = true;
    wanted.push(Feature::new("label", FeatureType::String));
    wanted.push(Feature { default: Some(2_f32.to_le_bytes().to_vec()), ..Feature::new("level", FeatureType::Float32) });
    changed.schema_version = 2;
    changed.features = evolve(&changed.features, &wanted, 2).unwrap();
    changed
}

fn key(id: i64) -> Vec<u8> {
    let mut key = Vec::new();
    encode_key(&[KeyType::Int64], &[KeyValue::Int(id)], &mut key).unwrap();
    key
}

/// A value of a type, or a null now and then.
fn value(ty: FeatureType, from: i64) -> Value {
    if from % 7 == 3 {
        return Value::Null;
    }
    match ty {
        FeatureType::Bool => Value::Bool(from % 2 == 0),
        FeatureType::Int8 => Value::Int(from % 100),
        FeatureType::Int16 | FeatureType::Int32 | FeatureType::Int64 => Value::Int(-from),
        FeatureType::Float32 => Value::Float32(from as f32 / 3.0),
        FeatureType::Float64 => Value::Float64(from as f64 / 3.0),
        FeatureType::Decimal128 { .. } => Value::Decimal128(i128::from(from) << 64),
        FeatureType::Date => Value::Date(from as i32),
        FeatureType::Timestamp => Value::Timestamp(from * 1_000),
        FeatureType::String | FeatureType::Json => Value::String(format!("{}", from % 10)),
        FeatureType::Binary => Value::Binary(vec![from as u8; (from % 50) as usize]),
        FeatureType::Array(_) => Value::Array(vec![Value::Int(from); (from % 5) as usize]),
        FeatureType::FixedArray { items } => Value::FixedArray((0..items).map(|at| f32::from(at) - 1.5).collect()),
    }
}

/// Rows of some features, every `step`-th of all.
fn write(group: &FeatureGroup, step: usize, ids: std::ops::Range<i64>, time: i64) -> Command {
    let live = |at: &usize| !group.features[*at].dropped;
    let features: Vec<u16> = (0..group.features.len()).step_by(step).filter(live).map(|at| at as u16).collect();
    let mut batch = RowBatchBuilder::new(group, &features);
    for id in ids {
        let of = |at: &u16| value(group.features[usize::from(*at)].ty, id * 31 + i64::from(*at) + time);
        batch.upsert(&key(id), time, 0, &features.iter().map(of).collect::<Vec<_>>()).unwrap();
    }
    Command::Write { stamp_us: time, step: None, batch: batch.finish().unwrap() }
}

fn delete(ids: std::ops::Range<i64>, time: i64) -> Command {
    let mut batch = RowBatchBuilder::new(&group(), &[]);
    ids.for_each(|id| batch.delete(&key(id), time, 0));
    Command::Write { stamp_us: time, step: None, batch: batch.finish().unwrap() }
}

fn apply(partition: &mut Partition, command: &Command) {
    let index = LogIndex(partition.applied().0 + 1);
    let outcome = partition.apply(index, command);
    assert!(matches!(outcome, Outcome::Wrote(_) | Outcome::Defined), "{outcome:?}");
}

fn chunks(partition: &Partition) -> Vec<Bytes> {
    partition.snapshot().map(|part| part.unwrap().into_chunk().unwrap()).collect()
}

/// What is read of a row: what it is, its event time, its values.
type Read = (RowStatus, i64, Vec<Option<Vec<u8>>>);

/// What a reader says of all features of all rows, deleted ones among them.
fn answers(reader: &PartitionReader, group: &FeatureGroup) -> Vec<Read> {
    let features: Vec<u16> = group.live_features().map(|(at, _)| at).collect();
    let mut keys = KeyBlock::new();
    (0..ROWS + 10).for_each(|id| keys.push(&key(id)));
    let columns = features.len();
    let projection = Projection { group: GROUP, schema_version: group.schema_version, features };
    let rows = reader.read(&projection, &keys, LogIndex(0)).unwrap();
    let values = |row| (0..columns).map(|column| rows.value(column, row).map(<[u8]>::to_vec)).collect();
    (0..rows.rows()).map(|row| (rows.status(row), rows.event_time(row), values(row))).collect()
}

/// Orders by views of which nobody but some are known: none, a view of every third feature, many views that overlap.
fn orders() -> [Arc<LaneOrders>; 4] {
    let of = |views: Vec<Vec<u16>>| Arc::new(LaneOrders::by_views(views.into_iter().map(|view| (GROUP, view))));
    let backwards = (1..=20).map(|count| (0..20).rev().take(count).collect());
    [
        of(vec![]),
        of(vec![(0..20).step_by(3).collect()]),
        of(vec![vec![19, 4, 12], vec![4, 1, 2, 20], vec![2, 5, 17, 16, 21], (3..18).collect()]),
        of(backwards.collect()),
    ]
}

fn options(lane_orders: &Arc<LaneOrders>) -> StoreOptions {
    StoreOptions { index_seed: 4, lane_orders: lane_orders.clone(), ..StoreOptions::default() }
}

/// The log up to a change of the schema, and what follows it.
fn log() -> [Vec<Command>; 2] {
    let (group, changed) = (group(), changed());
    let before = vec![
        Command::Define(group.clone()),
        write(&group, 1, 0..ROWS, 10),
        write(&group, 3, 0..ROWS / 2, 20),
        delete(40..60, 30),
        write(&group, 2, 50..55, 40),
    ];
    let after = vec![
        Command::Define(changed.clone()),
        write(&changed, 1, 100..150, 50),
        write(&group, 2, 120..200, 60),
        delete(140..160, 70),
        write(&changed, 4, 150..155, 80),
    ];
    [before, after]
}

#[test]
fn replicas_of_other_orders_answer_alike_and_their_snapshots_are_equal_byte_for_byte() {
    let [before, after] = log();
    let mut replicas = orders().map(|order| Partition::new(options(&order)));
    for (command, group) in before.iter().map(|command| (command, group())).chain(after.iter().map(|c| (c, changed())))
    {
        for (partition, _) in &mut replicas {
            apply(partition, command);
        }
        let ((plain, reader), others) = replicas.split_first().unwrap();
        let (digest, saved) = (plain.digest(), chunks(plain));
        let is_defined = plain.group(GROUP).is_some_and(|known| known.schema_version == group.schema_version);
        let wanted = is_defined.then(|| answers(reader, &group));
        for (partition, reader) in others {
            partition.check();
            assert_eq!(partition.digest(), digest);
            assert_eq!(partition.memory().logical_bytes, plain.memory().logical_bytes);
            assert_eq!(chunks(partition), saved);
            assert_eq!(is_defined.then(|| answers(reader, &group)), wanted);
        }
    }
}

#[test]
fn a_snapshot_of_one_order_opens_in_another_and_comes_out_of_it_as_it_was() {
    let [before, after] = log();
    let (schemas, orders) = ([group(), changed()], orders());
    for (written, opened) in orders.iter().flat_map(|one| orders.iter().map(move |other| (one, other))) {
        let (mut source, source_reader) = Partition::new(options(written));
        for (commands, group) in [&before, &after].into_iter().zip(&schemas) {
            commands.iter().for_each(|command| apply(&mut source, command));
            let (digest, saved, wanted) = (source.digest(), chunks(&source), answers(&source_reader, group));
            let (mut restored, reader) = Partition::restore(options(opened), saved.clone()).unwrap();
            assert!(restored.is_cold());
            assert_eq!(answers(&reader, group), wanted, "from the chunks of the snapshot");
            assert_eq!(chunks(&restored), saved, "what is cold is saved as it lies there");
            restored.thaw(ROWS as usize / 2).unwrap();
            restored.check();
            while restored.thaw(100).unwrap() {}
            restored.check();
            assert_eq!(answers(&reader, group), wanted, "from lanes of another order");
            assert_eq!((restored.digest(), restored.recompute_digest()), (digest.clone(), digest));
            assert_eq!(chunks(&restored), saved);
            // Both go on alike.
            let mut twin = Partition::restore(options(written), saved).unwrap().0;
            for each in [&mut restored, &mut twin] {
                apply(each, &write(group, 2, 30..90, 100));
                apply(each, &delete(80..100, 110));
            }
            assert_eq!((restored.digest(), chunks(&restored)), (twin.digest(), chunks(&twin)));
        }
    }
}

#[test]
fn partitions_of_two_orders_are_read_together() {
    let mut partitions = [0, 1, 2, 3].map(|at| Partition::new(options(&orders()[at])));
    let mut wanted = Vec::new();
    for (partition, reader) in &mut partitions {
        log()[0].iter().for_each(|command| apply(partition, command));
        wanted.push(answers(reader, &group()));
    }
    let features: Vec<u16> = (0..group().features.len() as u16).collect();
    let projection = Projection { group: GROUP, schema_version: 1, features };
    let mut keys = KeyBlock::new();
    (0..ROWS + 10).for_each(|id| keys.push(&key(id)));
    let source = |reader| SectionSource { reader, at_least: LogIndex(0), time_us: 0, keys: keys.range(0, keys.len()) };
    let sources: Vec<_> = partitions.iter().map(|(_, reader)| source(reader)).collect();
    let mut answer = AnswerWriter::new(sources.len());
    let heads = read_sections(&projection, &sources, &mut answer);
    let results: Vec<_> = heads.into_iter().map(|head| SectionResult::Rows(head.unwrap())).collect();
    let body = answer.finish(&results).into_body().into();
    let sections = parse_answer(body).unwrap();
    for (rows, wanted) in sections.into_iter().zip(wanted) {
        let rows = rows.unwrap();
        for (row, (status, time, values)) in wanted.into_iter().enumerate() {
            assert_eq!((rows.status(row), rows.event_time(row)), (status, time));
            let found = (0..values.len()).map(|column| rows.value(column, row).map(<[u8]>::to_vec));
            assert!(found.eq(values), "row {row}");
        }
    }
}

#[test]
fn the_rows_of_a_view_take_fewer_bytes_of_an_answer_once_its_features_lie_together() {
    let names: Vec<String> = (0..400).map(|at| format!("f{at}")).collect();
    let features: Vec<_> = names.iter().map(|name| (name.as_str(), FeatureType::Float32)).collect();
    let group = FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &features);
    let view: Vec<u16> = (0..400).step_by(25).collect();
    let projection = Projection { group: GROUP, schema_version: 1, features: view.clone() };
    let mut keys = KeyBlock::new();
    (0..10).for_each(|id| keys.push(&key(id)));
    let bytes = |orders: LaneOrders| {
        let (mut partition, reader) = Partition::new(options(&Arc::new(orders)));
        apply(&mut partition, &Command::Define(group.clone()));
        apply(&mut partition, &write(&group, 1, 0..10, 1));
        let keys = keys.range(0, keys.len());
        let source = SectionSource { reader: &reader, at_least: LogIndex(0), time_us: 0, keys };
        let mut answer = AnswerWriter::new(1);
        let head = read_sections(&projection, &[source], &mut answer).remove(0).unwrap();
        answer.finish(&[SectionResult::Rows(head)]).into_body().len()
    };
    let (apart, together) = (bytes(LaneOrders::default()), bytes(LaneOrders::by_views([(GROUP, view.clone())])));
    assert_eq!(apart - together, 10 * (16 - 2), "sixteen validity bits in as many bytes of each row, or in two");
}

#[test]
fn a_partition_that_has_not_learnt_what_a_view_reads_lays_out_what_it_knows() {
    let order = &orders()[2];
    let (mut partition, reader) = Partition::new(options(order));
    let mut young = group();
    young.features.truncate(3);
    apply(&mut partition, &Command::Define(young.clone()));
    apply(&mut partition, &write(&young, 1, 0..ROWS, 1));
    partition.check();
    let wanted = answers(&reader, &young);
    let (mut restored, reader) = Partition::restore(options(order), chunks(&partition)).unwrap();
    while restored.thaw(100).unwrap() {}
    restored.check();
    assert_eq!(answers(&reader, &young), wanted);
}
