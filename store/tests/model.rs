//! Command sequences against a small model: every row, every answer, digests, snapshots.

#![allow(clippy::unwrap_used)] // a helper of a test may panic as the test may

use std::collections::BTreeMap;

use proptest::prelude::*;
use stoa_protocol::evolution::evolve;
use stoa_protocol::key::{KeyBlock, encode_key};
use stoa_protocol::message::{RowOutcome, SessionStep};
use stoa_protocol::read::{Projection, RowStatus};
use stoa_protocol::row_block::SectionRows;
use stoa_protocol::widen::widen;
use stoa_protocol::{
    ErrorCode, Feature, FeatureGroup, FeatureGroupId, FeatureType, KeyType, KeyValue, LogIndex, RowBatch,
    RowBatchBuilder, Value,
};
use stoa_store::{Command, Outcome, Partition, PartitionReader, StoreOptions};

const HORIZON_US: i64 = 10;
const KEYS: i64 = 6;

// ---- the model -------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
struct ModelRow {
    event: (i64, u64),
    deleted_at: Option<i64>,
    values: BTreeMap<u16, Value>,
}

#[derive(Debug, Clone, Default)]
struct Model {
    time_us: i64,
    rows: BTreeMap<(u64, i64), ModelRow>,
    /// The last step of each session, and the bytes of its batch.
    sessions: BTreeMap<u128, (u64, Vec<u8>)>,
}

impl Model {
    fn write(&mut self, group: u64, row: &Row) -> RowOutcome {
        let old = self.rows.get(&(group, row.key));
        let expired = |old: &ModelRow| old.deleted_at.is_some_and(|at| self.time_us - at > HORIZON_US);
        let old = old.filter(|old| !expired(old));
        if old.is_some_and(|old| (row.time, row.sequence) < old.event) {
            return RowOutcome::Older;
        }
        let mut values = old.filter(|old| old.deleted_at.is_none()).map(|old| old.values.clone()).unwrap_or_default();
        let deleted_at = row.delete.then_some(self.time_us);
        // A null that was written stays there: it hides a default.
        for (feature, value) in &row.values {
            values.insert(*feature, value.clone());
        }
        if row.delete {
            values.clear();
        }
        self.rows.insert((group, row.key), ModelRow { event: (row.time, row.sequence), deleted_at, values });
        RowOutcome::Applied
    }
}

// ---- what is generated -----------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
struct Row {
    key: i64,
    time: i64,
    sequence: u64,
    delete: bool,
    values: BTreeMap<u16, Value>,
}

#[derive(Debug, Clone)]
enum Op {
    Write {
        group: u64,
        stamp_by: i64,
        step: Option<(u128, u64)>,
        features: Vec<u16>,
        rows: Vec<(Row, u64)>,
    },
    /// Changes of the schema, one version each; the partition learns the last one alone.
    Evolve(u64, Vec<Change>),
    Contradict(u64),
    NewerSchema(u64),
    Snapshot,
}

/// A change of a schema; a feature is the one of this number, counted round.
#[derive(Debug, Clone)]
enum Change {
    Append { ty: FeatureType, default: Option<u64> },
    Widen(usize),
    Drop(usize),
    Alias(usize),
}

const TYPES: [&str; 9] = [
    "Int32",
    "String",
    "FixedArray<Float32, 20>",
    "Int8",
    "Float32",
    "Decimal128(2)",
    "Array<String>",
    "Float64",
    "Int16",
];

fn types() -> Vec<FeatureType> {
    TYPES.iter().map(|name| FeatureType::parse(name).unwrap()).collect()
}

/// Features that every group has from the start.
const FIRST: usize = 5;

fn group(id: u64) -> FeatureGroup {
    let key = if id == 1 { KeyType::Int64 } else { KeyType::String };
    let names: Vec<String> = (0..).map(|at| format!("f{at}")).take(FIRST).collect();
    let features: Vec<_> = names.iter().map(String::as_str).zip(types()).collect();
    let mut group = FeatureGroup::simple(id, "g", &[("id", key)], &features);
    group.late_horizon_us = HORIZON_US;
    group
}

fn key(group: u64, key: i64) -> Vec<u8> {
    let mut out = Vec::new();
    match group {
        1 => encode_key(&[KeyType::Int64], &[KeyValue::Int(key)], &mut out),
        _ => encode_key(&[KeyType::String], &[KeyValue::String("k".repeat(key as usize * 9 + 1))], &mut out),
    }
    .unwrap();
    out
}

fn value(ty: FeatureType, from: u64) -> Value {
    if from.is_multiple_of(4) {
        return Value::Null;
    }
    match ty {
        FeatureType::Int8 => Value::Int(i64::from(from as i8)),
        FeatureType::Int16 => Value::Int(-40 * from as i64 % 30_000),
        FeatureType::Int32 => Value::Int(-70_000 * (from as i64)),
        FeatureType::Int64 => Value::Int((from as i64) << (from % 50)),
        FeatureType::Float32 => Value::Float32(from as f32 / 3.0),
        FeatureType::String => Value::String("s".repeat((from % 70) as usize)),
        FeatureType::FixedArray { items } => Value::FixedArray(vec![from as f32; usize::from(items)]),
        FeatureType::Decimal128 { .. } => Value::Decimal128(-i128::from(from)),
        FeatureType::Array(_) => Value::Array(vec![Value::String("a".repeat((from % 40) as usize))]),
        _ => Value::Float64(from as f64 / if from.is_multiple_of(3) { 3.0 } else { 4.0 }),
    }
}

/// What a read of a feature finds of what was written, if it was.
fn as_read(feature: &Feature, written: Option<&Value>) -> Option<Value> {
    let default = || feature.default.as_ref().map(|bytes| Value::decode(feature.ty, bytes).unwrap());
    match written {
        None => default(),
        Some(Value::Null) => None,
        Some(Value::Float32(single)) if feature.ty == FeatureType::Float64 => Some(Value::Float64(f64::from(*single))),
        Some(value) => Some(value.clone()),
    }
}

impl Change {
    /// Makes the change, if it is one; the features are those of a group at schema version `version` then.
    fn make(&self, features: &[Feature], version: u32) -> Option<Vec<Feature>> {
        let mut wanted = features.to_vec();
        wanted.iter_mut().for_each(|feature| feature.earlier.clear());
        match *self {
            Self::Append { ty, default } => {
                let mut feature = Feature::new(&format!("f{}", features.len()), ty);
                feature.default = default.map(|from| {
                    let mut bytes = Vec::new();
                    value(ty, from | 1).encode(ty, &mut bytes).unwrap();
                    bytes
                });
                wanted.push(feature);
            }
            Self::Widen(at) => {
                let feature = &mut wanted[at % features.len()];
                let wider = match feature.ty {
                    FeatureType::Int8 => [FeatureType::Int16, FeatureType::Int32][at % 2],
                    FeatureType::Int16 => FeatureType::Int32,
                    FeatureType::Int32 => FeatureType::Int64,
                    FeatureType::Float32 => FeatureType::Float64,
                    _ => return None,
                };
                feature.default = feature.default.as_ref().map(|bytes| widen(feature.ty, wider, bytes).to_vec());
                feature.ty = wider;
                if feature.dropped {
                    return None;
                }
            }
            Self::Drop(at) => wanted[at % features.len()].dropped = true,
            Self::Alias(at) => {
                let feature = &mut wanted[at % features.len()];
                let name = format!("{}_{}", feature.name, feature.aliases.len());
                feature.aliases.push(name);
            }
        }
        Some(evolve(features, &wanted, version).unwrap())
    }
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (0..TYPES.len(), prop::option::of(0..1_000u64))
            .prop_map(|(ty, default)| Change::Append { ty: types()[ty], default }),
        3 => (0..20usize).prop_map(Change::Widen),
        1 => (0..20usize).prop_map(Change::Drop),
        1 => (0..20usize).prop_map(Change::Alias),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    let row = (0..KEYS, 0..5i64, 0..3u64, prop::bool::weighted(0.15), 0..1_000u64).prop_map(
        |(key, time, sequence, delete, seed)| (Row { key, time, sequence, delete, values: BTreeMap::new() }, seed),
    );
    let step = prop::option::weighted(0.4, (0..3u128, 0..4u64));
    let write = (1..3u64, 0..6i64, step, prop::collection::vec(0..12u16, 0..6), prop::collection::vec(row, 1..8));
    prop_oneof![
        12 => write.prop_map(|(group, stamp_by, step, features, rows)| Op::Write {
            group, stamp_by, step, features, rows
        }),
        3 => (1..3u64, prop::collection::vec(any_change(), 1..4)).prop_map(|(group, changes)| Op::Evolve(group, changes)),
        1 => (1..3u64).prop_map(Op::Contradict),
        1 => (1..3u64).prop_map(Op::NewerSchema),
        1 => Just(Op::Snapshot),
    ]
}

// ---- both together ---------------------------------------------------------------------------------------------------

/// Partitions that apply the same log: the first from the start, the second with another seed, the third made anew from
/// every snapshot.
struct Bench {
    replicas: Vec<(Partition, PartitionReader)>,
    definitions: BTreeMap<u64, FeatureGroup>,
    /// Every schema that a group ever had: writers and readers that were opened then know no other.
    schemas: BTreeMap<u64, Vec<FeatureGroup>>,
    model: Model,
    index: u64,
}

impl Bench {
    fn new() -> Self {
        // How columns are packed shows nowhere.
        let make = |index_seed, lane_bytes_max| {
            Partition::new(StoreOptions { index_seed, lane_bytes_max, ..StoreOptions::default() })
        };
        let mut bench = Self {
            replicas: vec![make(1, 256), make(2, 64), make(1, 8)],
            definitions: BTreeMap::new(),
            schemas: BTreeMap::new(),
            model: Model { time_us: i64::MIN, ..Model::default() },
            index: 0,
        };
        for id in [1, 2] {
            bench.definitions.insert(id, group(id));
            bench.schemas.insert(id, vec![group(id)]);
            assert_eq!(bench.apply(&Command::Define(group(id))), Outcome::Defined);
        }
        bench
    }

    fn apply(&mut self, command: &Command) -> Outcome {
        self.index += 1;
        let command = Command::decode(&command.encode()).unwrap();
        let mut outcomes = self.replicas.iter_mut().map(|(p, _)| p.apply(LogIndex(self.index), &command));
        let first = outcomes.next().unwrap();
        outcomes.for_each(|outcome| assert_eq!(outcome, first, "replicas answer the same"));
        first
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Write { group, stamp_by, step, features, rows } => self.write(group, stamp_by, step, features, rows),
            Op::Evolve(id, changes) => {
                let mut definition = self.definitions[&id].clone();
                for change in changes {
                    let version = definition.schema_version + 1;
                    let Some(features) = change.make(&definition.features, version) else { continue };
                    (definition.features, definition.schema_version) = (features, version);
                    self.schemas.get_mut(&id).unwrap().push(definition.clone());
                }
                self.definitions.insert(id, definition.clone());
                let digest = self.replicas[0].0.digest();
                let command = Command::Define(definition);
                assert_eq!(self.apply(&command), Outcome::Defined);
                assert_eq!(self.apply(&command), Outcome::Defined, "the same again changes nothing");
                assert_eq!(self.replicas[0].0.digest().groups, digest.groups, "a schema change touches no row");
            }
            Op::Contradict(id) => {
                let mut other = self.definitions[&id].clone();
                other.schema_version += 1;
                (other.features[0].ty, other.features[0].earlier) = (FeatureType::Date, Vec::new());
                let outcome = self.apply(&Command::Define(other));
                assert!(matches!(outcome, Outcome::Refused(e) if e.code == ErrorCode::Conflict));
            }
            Op::NewerSchema(id) => {
                let mut newer = self.definitions[&id].clone();
                newer.schema_version += 1;
                let batch = batch(&newer, &[], &[]);
                let outcome = self.apply(&Command::Write { stamp_us: i64::MIN, step: None, batch });
                assert!(matches!(outcome, Outcome::Refused(e) if e.code == ErrorCode::SchemaMismatch));
            }
            Op::Snapshot => {
                let chunks: Vec<_> = self.replicas[0].0.snapshot().collect();
                let again: Vec<_> = self.replicas[2].0.snapshot().collect();
                assert_eq!(chunks, again, "equal states of two histories give equal bytes");
                self.replicas[2] = Partition::restore(StoreOptions::default(), &chunks).unwrap();
            }
        }
        self.check();
    }

    fn write(&mut self, id: u64, stamp_by: i64, step: Option<(u128, u64)>, features: Vec<u16>, rows: Vec<(Row, u64)>) {
        // A writer that was opened before a change lays batches out by the schema it knows.
        let schemas = &self.schemas[&id];
        let behind = if stamp_by % 2 == 1 { rows.len() % schemas.len() } else { 0 };
        let definition = schemas[schemas.len() - 1 - behind].clone();
        let features: Vec<u16> = features.into_iter().filter(|f| usize::from(*f) < definition.features.len()).collect();
        let mut filled = Vec::new();
        for (mut row, seed) in rows {
            let feature = |f: &u16| (*f, value(definition.features[usize::from(*f)].ty, seed + u64::from(*f)));
            row.values = features.iter().map(feature).collect();
            filled.push(row);
        }
        let stamp_us = self.model.time_us.max(0) + stamp_by;
        let step = step.map(|(session, sequence)| SessionStep { session, sequence });
        let batch = batch(&definition, &features, &filled);
        let dropped = |feature: &u16| self.definitions[&id].features[usize::from(*feature)].dropped;
        filled.iter_mut().for_each(|row| row.values.retain(|feature, _| !dropped(feature)));
        let bytes = batch.bytes().to_vec();
        let outcome = self.apply(&Command::Write { stamp_us, step, batch });
        self.model.time_us = stamp_us;
        if let Some(step) = step {
            let (last, content) = self.model.sessions.entry(step.session).or_default();
            if step.sequence > 0 && (step.sequence < *last || (step.sequence == *last && bytes != *content)) {
                assert!(matches!(outcome, Outcome::Refused(e) if e.code == ErrorCode::SessionConflict));
                return;
            }
            if step.sequence > 0 && step.sequence == *last {
                assert!(matches!(outcome, Outcome::Wrote(answer) if answer.repeated && answer.applied == 0));
                return;
            }
            if step.sequence != *last + 1 {
                assert!(matches!(outcome, Outcome::Refused(e) if e.code == ErrorCode::SessionGap));
                return;
            }
            (*last, *content) = (*last + 1, bytes);
        }
        let outcomes: Vec<_> = filled.iter().map(|row| self.model.write(id, row)).collect();
        let older: Vec<u32> =
            (0..).zip(&outcomes).filter(|(_, outcome)| **outcome == RowOutcome::Older).map(|(at, _)| at).collect();
        let Outcome::Wrote(answer) = outcome else { panic!("{outcome:?}") };
        assert_eq!((answer.index, answer.repeated), (LogIndex(self.index), false));
        assert_eq!(answer.applied as usize, filled.len() - older.len());
        assert_eq!(answer.older, older);
    }

    fn check(&self) {
        let digest = self.replicas[0].0.digest();
        for (partition, reader) in &self.replicas {
            partition.check();
            assert_eq!(partition.digest(), digest);
            assert_eq!(partition.memory().logical_bytes, self.replicas[0].0.memory().logical_bytes);
            let answer = reader.digest();
            assert_eq!(answer.groups[0].1, digest.state);
            assert_eq!(
                answer.groups[1..],
                [1, 2].map(|id| (FeatureGroupId(id), digest.groups[&FeatureGroupId(id)].total()))
            );
            for (id, definition) in &self.definitions {
                let keys: Vec<_> = (0..KEYS).map(|k| key(*id, k)).collect();
                for known in &self.schemas[id] {
                    let (live, gone): (Vec<u16>, Vec<u16>) = (0..known.features.len() as u16)
                        .rev()
                        .partition(|feature| !definition.features[usize::from(*feature)].dropped);
                    let answer = read(reader, *id, known.schema_version, &live, &keys);
                    assert_eq!(answer.head.applied, LogIndex(self.index));
                    assert_eq!(
                        answer.head.schema_version, definition.schema_version,
                        "of one schema, whatever was asked"
                    );
                    self.compare(*id, definition, &live, &answer);
                    if let Some(gone) = gone.first() {
                        let wanted = projection(*id, known.schema_version, &[*gone]);
                        let error = reader.read(&wanted, &block(&keys), LogIndex(0)).unwrap_err();
                        assert!(error.code == ErrorCode::NotFound && error.message.contains("was dropped"), "{error}");
                    }
                }
            }
            for (session, (last, _)) in &self.model.sessions {
                assert_eq!(partition.session(*session).last, *last);
            }
        }
    }

    fn compare(&self, id: u64, definition: &FeatureGroup, features: &[u16], answer: &SectionRows) {
        for key in 0..KEYS {
            let row = self.model.rows.get(&(id, key)).filter(|row| row.deleted_at.is_none());
            let at = key as usize;
            let wanted = if row.is_some() { RowStatus::Found } else { RowStatus::NotFound };
            assert_eq!(answer.status(at), wanted, "group {id} key {key}");
            assert_eq!(answer.event_time(at), row.map_or(0, |row| row.event.0));
            for (column, feature) in features.iter().enumerate() {
                let of = &definition.features[usize::from(*feature)];
                assert_eq!(answer.types().nth(column), Some(of.ty));
                let found = answer.value(column, at).map(|bytes| Value::decode(of.ty, bytes).unwrap());
                let wanted = row.and_then(|row| as_read(of, row.values.get(feature)));
                assert_eq!(found, wanted, "group {id} key {key} feature {feature}");
            }
        }
    }
}

fn batch(group: &FeatureGroup, features: &[u16], rows: &[Row]) -> RowBatch {
    let mut builder = RowBatchBuilder::new(group, features);
    let order: Vec<u16> = builder.features().collect();
    for row in rows {
        let key = key(group.id.0, row.key);
        if row.delete {
            builder.delete(&key, row.time, row.sequence);
        } else {
            let values: Vec<_> = order.iter().map(|feature| row.values[feature].clone()).collect();
            builder.upsert(&key, row.time, row.sequence, &values).unwrap();
        }
    }
    if rows.is_empty() {
        builder.delete(&key(group.id.0, 0), 0, 0);
    }
    builder.finish().unwrap()
}

fn projection(group: u64, schema_version: u32, features: &[u16]) -> Projection {
    Projection { group: FeatureGroupId(group), schema_version, features: features.to_vec() }
}

fn block(keys: &[Vec<u8>]) -> KeyBlock {
    let mut block = KeyBlock::new();
    keys.iter().for_each(|key| block.push(key));
    block
}

fn read(reader: &PartitionReader, group: u64, schema_version: u32, features: &[u16], keys: &[Vec<u8>]) -> SectionRows {
    let answer = reader.read(&projection(group, schema_version, features), &block(keys), LogIndex(0));
    answer.unwrap_or_else(|error| panic!("{error}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 4_000, ..ProptestConfig::default() })]
    #[test]
    fn the_store_does_what_the_model_does(ops in prop::collection::vec(any_op(), 1..40)) {
        let mut bench = Bench::new();
        ops.into_iter().for_each(|op| bench.run(op));
        bench.run(Op::Snapshot);
    }
}

// ---- single scenarios ------------------------------------------------------------------------------------------------

fn upsert(key: i64, time: i64, sequence: u64, value: i64) -> Row {
    Row { key, time, sequence, delete: false, values: BTreeMap::from([(0, Value::Int(value))]) }
}

#[test]
fn a_read_that_cannot_be_answered_says_why() {
    let bench = Bench::new();
    let reader = &bench.replicas[0].1;
    let code = |group, schema_version, features: &[u16], key: Vec<u8>, at_least| {
        let answer = reader.read(&projection(group, schema_version, features), &block(&[key]), LogIndex(at_least));
        answer.map(|rows| panic!("{rows:?}")).unwrap_err().code
    };
    let good = key(1, 0);
    assert!(reader.read(&projection(1, 1, &[0]), &block(std::slice::from_ref(&good)), LogIndex(2)).is_ok());
    assert_eq!(code(9, 1, &[0], good.clone(), 0), ErrorCode::SchemaNotReady);
    assert_eq!(code(1, 2, &[0], good.clone(), 0), ErrorCode::SchemaNotReady);
    assert_eq!(code(1, 1, &[0], good.clone(), 3), ErrorCode::NotCaughtUp);
    assert_eq!(code(1, 1, &[FIRST as u16], good, 0), ErrorCode::NotFound);
    assert_eq!(code(1, 1, &[0], key(2, 0), 0), ErrorCode::BadKey);
    assert_eq!(code(1, 1, &[0], vec![], 0), ErrorCode::BadKey);
}

#[test]
fn a_batch_whose_keys_or_types_do_not_fit_is_refused_and_leaves_its_session_where_it_was() {
    let mut bench = Bench::new();
    let mut foreign = group(1);
    foreign.features[0].ty = FeatureType::Date;
    let mut builder = RowBatchBuilder::new(&group(1), &[]);
    builder.delete(&key(2, 1), 0, 0);
    let cases =
        [(builder.finish().unwrap(), ErrorCode::BadKey), (batch(&foreign, &[0], &[]), ErrorCode::SchemaMismatch)];
    for (batch, code) in cases {
        let step = Some(SessionStep { session: 5, sequence: 1 });
        let outcome = bench.apply(&Command::Write { stamp_us: 0, step, batch });
        assert!(matches!(outcome, Outcome::Refused(e) if e.code == code));
    }
    assert_eq!(bench.replicas[0].0.session(5).last, 0);
    assert_eq!(bench.replicas[0].0.time_us(), 0, "the stamp of a refused batch counts");
    bench.check_all_but_time();
}

impl Bench {
    fn check_all_but_time(&self) {
        self.replicas.iter().for_each(|(partition, _)| partition.check());
        assert_eq!(self.replicas[0].0.digest(), self.replicas[1].0.digest());
    }
}

#[test]
fn damaged_cut_and_foreign_snapshots_are_refused() {
    let mut bench = Bench::new();
    bench.write(1, 5, Some((7, 1)), vec![0, 1], (0..4).map(|k| (upsert(k, 1, 0, 1), k as u64)).collect());
    bench.write(2, 5, None, vec![0, 2], (0..4).map(|k| (upsert(k, 1, 0, 1), k as u64)).collect());
    let chunks: Vec<Vec<u8>> = bench.replicas[0].0.snapshot().map(|chunk| chunk.to_vec()).collect();
    let restore = |chunks: &[Vec<u8>]| Partition::restore(StoreOptions::default(), chunks).map(drop);
    assert_eq!(restore(&chunks), Ok(()));
    for cut in 0..chunks.len() {
        assert!(restore(&chunks[..cut]).is_err(), "cut after {cut} chunks");
        let mut swapped = chunks.clone();
        swapped.remove(cut);
        assert!(restore(&swapped).is_err(), "chunk {cut} is missing");
    }
    for (number, chunk) in chunks.iter().enumerate() {
        for bit in 0..chunk.len() * 8 {
            let mut damaged = chunks.clone();
            damaged[number][bit / 8] ^= 1 << (bit % 8);
            assert!(restore(&damaged).is_err(), "bit {bit} of chunk {number}");
        }
    }
    let mut twice = chunks.clone();
    twice.push(chunks[chunks.len() - 1].clone());
    assert!(restore(&twice).is_err());
}

#[test]
fn a_snapshot_holds_its_instant_while_commands_go_on() {
    let mut bench = Bench::new();
    let rows = |from: i64| (0..KEYS).map(|k| (upsert(k, from, 0, 0), from as u64 * 4 + 1)).collect::<Vec<_>>();
    bench.write(1, 1, None, vec![0, 1, 2], rows(1));
    bench.write(2, 1, None, vec![0, 1, 2], rows(1));
    let wanted: Vec<_> = bench.replicas[0].0.snapshot().collect();
    let mut late = bench.replicas[0].0.snapshot();
    let mut taken = vec![late.next().unwrap()];
    let dead = bench.replicas[0].0.memory().dead;
    for from in 2..20 {
        bench.write(1, 1, None, vec![0, 1], rows(from));
        bench.write(2, 1, None, vec![0, 1], rows(from));
        bench.run(Op::Evolve(1, vec![Change::Append { ty: FeatureType::String, default: Some(from as u64) }]));
        bench.run(Op::Evolve(1, vec![Change::Widen(from as usize), Change::Drop(from as usize * 3 % 19 + 5)]));
        taken.extend(late.next());
    }
    assert!(bench.replicas[0].0.memory().dead > dead, "nothing is used again while the snapshot is read");
    taken.extend(late.by_ref());
    assert_eq!(taken, wanted);
    let waiting = bench.replicas[0].0.memory();
    drop(late);
    bench.write(1, 1, None, vec![0, 1], rows(20));
    bench.write(1, 1, None, vec![0, 1], rows(21));
    bench.check();
    assert!(bench.replicas[0].0.memory().total <= waiting.total, "the dead rows are used again");
}

#[test]
fn the_bytes_of_a_dropped_feature_are_given_back_as_rows_are_written_again() {
    let mut bench = Bench::new();
    // Only every fourth value is a null: each of these rows has a text of 60 bytes.
    let rows = |time| (0..KEYS).map(|k| (upsert(k, time, 0, 0), 129)).collect::<Vec<_>>();
    bench.write(1, 1, None, vec![0, 1], rows(1));
    let written = bench.replicas[0].0.memory();
    assert!(written.arena >= KEYS as u64 * 60);
    bench.run(Op::Evolve(1, vec![Change::Drop(1)]));
    let dropped = bench.replicas[0].0.memory();
    assert_eq!((dropped.arena, dropped.logical_bytes), (written.arena, written.logical_bytes), "no row was touched");
    bench.run(Op::Snapshot);
    bench.write(1, 1, None, vec![0], rows(2));
    bench.check();
    // Five rows of one who knows the first of two schemas, and still has texts.
    bench.write(1, 1, None, vec![0, 1], rows(3).split_off(1));
    bench.check();
    for (partition, _) in &bench.replicas {
        let memory = partition.memory();
        assert_eq!((memory.arena, memory.logical_bytes + KEYS as u64 * 60), (0, written.logical_bytes));
    }
}

#[test]
fn a_limit_refuses_growth_before_the_proposal_and_lets_updates_and_deletes_through() {
    let options = StoreOptions { logical_bytes_max: Some(2_000), ..StoreOptions::default() };
    let (mut partition, reader) = Partition::new(options);
    partition.apply(LogIndex(1), &Command::Define(group(1)));
    let many =
        |range: std::ops::Range<i64>| batch(&group(1), &[0], &range.map(|k| upsert(k, 1, 0, 1)).collect::<Vec<_>>());
    assert!(reader.admits(&many(0..10)).is_ok());
    partition.apply(LogIndex(2), &Command::Write { stamp_us: 1, step: None, batch: many(0..10) });
    let refused = partition.admits(&many(10..100)).unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooLarge);
    assert!(reader.admits(&many(0..10)).is_ok(), "the same rows do not grow");
    assert!(reader.admits(&batch(&group(1), &[], &[])).is_ok(), "a delete makes room");
    assert_eq!(reader.memory(), partition.memory());
    assert_eq!(reader.rows(), 10);
}
