//! Command sequences against a small model: every row, every answer, digests, snapshots.

#![allow(clippy::unwrap_used)] // a helper of a test may panic as the test may

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use proptest::prelude::*;
use stoa_protocol::evolution::evolve;
use stoa_protocol::key::{KeyBlock, encode_key};
use stoa_protocol::limits::{SWEEP_ROWS_MAX, TTL_US_MIN};
use stoa_protocol::message::{RowOutcome, SessionStep};
use stoa_protocol::read::{Projection, RowStatus, SectionResult};
use stoa_protocol::row_block::{AnswerWriter, SectionRows, parse_answer};
use stoa_protocol::widen::widen;
use stoa_protocol::{
    ErrorCode, Feature, FeatureGroup, FeatureGroupId, FeatureType, KeyType, KeyValue, LogIndex, OnExpired, RowBatch,
    RowBatchBuilder, Storage, Ttl, Value,
};
use stoa_store::{
    Command, LaneOrders, Outcome, Partition, PartitionReader, RestoreError, SectionSource, SnapshotBase, SnapshotPart,
    SnapshotSource, StoreOptions, Sweep, read_sections,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What times are multiples of: the shortest time to live is four of them.
const UNIT: i64 = TTL_US_MIN / 4;
const HORIZON_US: i64 = 10 * UNIT;
const KEYS: i64 = 6;

/// Bytes of a segment of the index.
const SEGMENT_BYTES: u64 = 4 << 10;

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
    fn write(&mut self, group: &FeatureGroup, row: &Row) -> RowOutcome {
        let place = (group.id.0, row.key);
        let forgotten = |old: &ModelRow| old.deleted_at.is_some_and(|at| self.time_us - at > HORIZON_US);
        let old = self.rows.get(&place).filter(|old| !forgotten(old));
        if old.is_some_and(|old| (row.time, row.sequence) < old.event) {
            return RowOutcome::Older;
        }
        let inherited = old.filter(|old| old.deleted_at.is_none() && !has_expired(group, old, self.time_us));
        let mut values = inherited.map(|old| old.values.clone()).unwrap_or_default();
        let deleted_at = row.delete.then_some(self.time_us);
        // A null that was written stays there: it hides a default.
        for (feature, value) in &row.values {
            values.insert(*feature, value.clone());
        }
        if row.delete {
            values.clear();
        }
        self.rows.insert(place, ModelRow { event: (row.time, row.sequence), deleted_at, values });
        RowOutcome::Applied
    }

    /// The keys of what may be removed at a time.
    fn removable(&self, group: &FeatureGroup, stamp_us: i64) -> Vec<i64> {
        let ended = |row: &ModelRow| match (row.deleted_at, group.ttl) {
            (Some(at), _) => stamp_us - at > HORIZON_US,
            (None, Some(ttl)) => row.event.0 + ttl.after_us + HORIZON_US <= stamp_us,
            (None, None) => false,
        };
        let rows = self.rows.iter().filter(|((id, _), row)| *id == group.id.0 && ended(row));
        rows.map(|((_, key), _)| *key).collect()
    }
}

fn has_expired(group: &FeatureGroup, row: &ModelRow, time_us: i64) -> bool {
    group.ttl.is_some_and(|ttl| row.event.0 + ttl.after_us <= time_us)
}

// ---- what is generated -----------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
struct Row {
    key: i64,
    /// Microseconds; in an [`Op`], units: since 0, or, if the seed is odd, before the stamp.
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
    Expire(u64, Option<Ttl>),
    Stamp(i64),
    Sweep {
        group: u64,
        stamp_by: i64,
        range: (u64, u64),
        rows_max: u32,
    },
    Snapshot,
    /// A snapshot of the second replica begins, if there is none, or goes on by a chunk, or ends.
    Hold(bool),
    Tidy(usize),
    Thaw(usize),
}

/// Columns of both groups in this order, by views of which each reads one feature more than the one before.
fn lanes_in(order: &[u16]) -> Arc<LaneOrders> {
    let views = (1..=order.len()).flat_map(|end| [1, 2].map(|group| (FeatureGroupId(group), order[..end].to_vec())));
    Arc::new(LaneOrders::by_views(views))
}

/// The chunks of a snapshot without a base.
fn whole(source: SnapshotSource) -> Vec<Bytes> {
    source.map(chunk).collect()
}

fn chunk(part: Result<SnapshotPart, RestoreError>) -> Bytes {
    part.unwrap().into_chunk().unwrap()
}

/// A change of a schema; a feature is the one of this number, counted round.
#[derive(Debug, Clone)]
enum Change {
    Append { ty: FeatureType, storage: Option<Storage>, default: Option<u64> },
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
    if id == 2 {
        group.features[2].storage = Some(Storage::Int8Scaled);
        group.features[4].storage = Some(Storage::Float16);
    }
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
        FeatureType::FixedArray { items } => {
            Value::FixedArray((0..items).map(|at| from as f32 / 3.0 - 1.7 * f32::from(at)).collect())
        }
        FeatureType::Decimal128 { .. } => Value::Decimal128(-i128::from(from)),
        FeatureType::Array(_) => Value::Array(vec![Value::String("a".repeat((from % 40) as usize))]),
        _ => Value::Float64(from as f64 / if from.is_multiple_of(3) { 3.0 } else { 4.0 }),
    }
}

/// What a read of a feature finds of what was written, if it was.
fn as_read(feature: &Feature, written: Option<&Value>) -> Option<Value> {
    let default = feature.default.as_ref().map(|bytes| Value::decode(feature.ty, bytes).unwrap());
    match written.or(default.as_ref()) {
        None => None,
        Some(value) if *value != Value::Null && feature.storage.is_some() => {
            let mut bytes = Vec::new();
            value.encode(feature.ty, &mut bytes).unwrap();
            Some(Value::decode(feature.ty, &feature.storage.unwrap().as_read(&bytes)).unwrap())
        }
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
            Self::Append { ty, storage, default } => {
                let mut feature = Feature::new(&format!("f{}", features.len()), ty);
                feature.storage = storage.filter(|storage| storage.check_type(ty).is_ok());
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
                if feature.dropped || feature.storage.is_some() {
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
        3 => (0..TYPES.len(), 0..3usize, prop::option::of(0..1_000u64)).prop_map(|(ty, storage, default)| {
            let storage = [None, Some(Storage::Float16), Some(Storage::Int8Scaled)][storage];
            Change::Append { ty: types()[ty], storage, default }
        }),
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
    let ttl = prop::option::weighted(
        0.8,
        (4..12i64, prop::bool::ANY).prop_map(|(units, serve)| Ttl {
            after_us: units * UNIT,
            on_expired: if serve { OnExpired::ServeLast } else { OnExpired::Expire },
        }),
    );
    prop_oneof![
        12 => write.prop_map(|(group, stamp_by, step, features, rows)| Op::Write {
            group, stamp_by, step, features, rows
        }),
        3 => (1..3u64, prop::collection::vec(any_change(), 1..4)).prop_map(|(group, changes)| Op::Evolve(group, changes)),
        1 => (1..3u64).prop_map(Op::Contradict),
        1 => (1..3u64).prop_map(Op::NewerSchema),
        1 => (1..3u64, ttl).prop_map(|(group, ttl)| Op::Expire(group, ttl)),
        1 => (-5..15i64).prop_map(Op::Stamp),
        3 => (1..3u64, -3..20i64, prop::option::of((0..4u64, 0..5u64)), 1..5u32).prop_map(|(group, stamp_by, part, most)| {
            let at = |quarter: u64| quarter.saturating_mul(1 << 62).saturating_sub(u64::from(quarter == 4));
            let range = part.map_or((0, u64::MAX), |(from, to)| (at(from), at(to)));
            Op::Sweep { group, stamp_by, range, rows_max: if part.is_some() { most } else { SWEEP_ROWS_MAX } }
        }),
        2 => Just(Op::Snapshot),
        2 => (1..4usize).prop_map(Op::Thaw),
        1 => any::<bool>().prop_map(Op::Hold),
        3 => (1..200usize).prop_map(Op::Tidy),
    ]
}

// ---- both together ---------------------------------------------------------------------------------------------------

/// Partitions that apply the same log: the first from the start, the second perhaps with another seed, the third made anew
/// from every snapshot. The first has its columns in the order of the schema, the second in another one, the third in the one
/// that is the second's from its end.
struct Bench {
    /// Whether all have one index seed, as replicas have: ranges of hashes mean the same rows to all.
    one_seed: bool,
    /// The order of the third.
    turned: Arc<LaneOrders>,
    replicas: Vec<(Partition, PartitionReader)>,
    definitions: BTreeMap<u64, FeatureGroup>,
    /// Every schema that a group ever had: writers and readers that were opened then know no other.
    schemas: BTreeMap<u64, Vec<FeatureGroup>>,
    model: Model,
    index: u64,
    /// The chunks of the last snapshot of the first replica.
    last: Vec<Bytes>,
    /// A snapshot of the second replica that is being read, and what it will have been.
    held: Option<(SnapshotSource, Vec<Bytes>, Vec<Bytes>)>,
}

impl Bench {
    fn new() -> Self {
        Self::with(false, &[3, 0, 4, 2, 1])
    }

    fn with(one_seed: bool, order: &[u16]) -> Self {
        // How columns are packed shows nowhere, nor how keys are spread over segments, nor what moves so that memory can go
        // back.
        let make = |index_seed, lane_bytes_max, lane_orders, (segment_entries_max, tidy_bytes_min)| {
            let options = StoreOptions { index_seed, lane_bytes_max, lane_orders, ..StoreOptions::default() };
            Partition::new(StoreOptions { segment_entries_max, tidy_bytes_min, ..options })
        };
        let turned = lanes_in(&order.iter().rev().copied().collect::<Vec<_>>());
        let mut bench = Self {
            one_seed,
            replicas: vec![
                make(1, 256, Arc::default(), (1 << 10, 1 << 18)),
                make(if one_seed { 1 } else { 2 }, 64, lanes_in(order), (2, 1)),
                make(1, 8, turned.clone(), (3, 100)),
            ],
            turned,
            definitions: BTreeMap::new(),
            schemas: BTreeMap::new(),
            model: Model { time_us: i64::MIN, ..Model::default() },
            index: 0,
            last: Vec::new(),
            held: None,
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
        let index = LogIndex(self.index);
        let apply = |partition: &mut Partition| partition.apply(index, &command);
        let mut outcomes = self.replicas.iter_mut().map(|(partition, _)| counting_merges(partition, apply));
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
            Op::Expire(id, ttl) => {
                let definition = self.definitions.get_mut(&id).unwrap();
                definition.ttl = ttl;
                definition.schema_version += 1;
                let command = Command::Define(definition.clone());
                self.schemas.get_mut(&id).unwrap().push(definition.clone());
                assert_eq!(self.apply(&command), Outcome::Defined);
            }
            Op::Stamp(by) => {
                let stamp_us = self.model.time_us.max(0) + by * UNIT;
                assert_eq!(self.apply(&Command::Stamp { stamp_us }), Outcome::Noop);
                self.model.time_us = self.model.time_us.max(stamp_us);
            }
            Op::Sweep { group, stamp_by, range, rows_max } => self.sweep(group, stamp_by, range, rows_max),
            Op::Snapshot => {
                let chunks = whole(self.replicas[0].0.snapshot());
                let again = whole(self.replicas[2].0.snapshot());
                assert_eq!(chunks, again, "equal states of two histories give equal bytes");
                let kept = std::mem::replace(&mut self.last, chunks.clone());
                let base = kept.first().and_then(|first| SnapshotBase::read(first, kept.last().unwrap()));
                let over = self.replicas[0].0.snapshot_over(base.as_ref()).map(|part| match part.unwrap() {
                    SnapshotPart::Chunk(chunk) => chunk,
                    SnapshotPart::Kept(place) => kept[place as usize].clone(),
                });
                assert_eq!(over.collect::<Vec<_>>(), chunks, "what is kept is what would be written");
                let lane_orders = self.turned.clone();
                let options = StoreOptions { lane_orders, segment_entries_max: 3, ..StoreOptions::default() };
                self.replicas[2] = Partition::restore(StoreOptions { tidy_bytes_min: 100, ..options }, chunks).unwrap();
            }
            Op::Thaw(rows) => drop(self.replicas[2].0.thaw(rows).unwrap()),
            Op::Hold(on) => match &mut self.held {
                None if on => {
                    let partition = &self.replicas[1].0;
                    self.held = Some((partition.snapshot(), Vec::new(), whole(partition.snapshot())));
                }
                Some((source, taken, _)) if on => taken.extend(source.next().map(chunk)),
                held => {
                    if let Some((source, mut taken, wanted)) = held.take() {
                        taken.extend(source.map(chunk));
                        assert_eq!(taken, wanted, "a snapshot holds its instant");
                    }
                }
            },
            Op::Tidy(rows_max) => self.replicas.iter_mut().for_each(|(partition, _)| {
                counting_merges(partition, |partition| partition.tidy(rows_max));
            }),
        }
        self.check();
    }

    fn sweep(&mut self, id: u64, stamp_by: i64, range: (u64, u64), rows_max: u32) {
        let ((first_hash, last_hash), rows_max) =
            if self.one_seed { (range, rows_max) } else { ((0, u64::MAX), SWEEP_ROWS_MAX) };
        let stamp_us = self.model.time_us.max(0) + stamp_by * UNIT;
        let group = FeatureGroupId(id);
        let outcome = self.apply(&Command::Sweep(Sweep { stamp_us, group, first_hash, last_hash, rows_max }));
        self.model.time_us = self.model.time_us.max(stamp_us);
        let ended = self.model.removable(&self.definitions[&id], stamp_us);
        let hashed = ended.into_iter().map(|k| (xxh3_64_with_seed(&key(id, k), 1), key(id, k), k));
        let mut hashed: Vec<_> = hashed.filter(|(hash, ..)| (first_hash..=last_hash).contains(hash)).collect();
        hashed.sort_unstable();
        hashed.truncate(rows_max as usize);
        assert_eq!(outcome, Outcome::Swept(hashed.len() as u32));
        hashed.iter().for_each(|(_, _, k)| drop(self.model.rows.remove(&(id, *k))));
    }

    /// Tidies up until nothing is to do.
    fn rest(&mut self) {
        for _ in 0..100 {
            let mut untidy = false;
            for (partition, reader) in &mut self.replicas {
                untidy |= partition.tidy(50);
                let more = partition.tidy(0);
                assert_eq!(reader.is_untidy(), more);
            }
            self.check();
            if !untidy {
                return;
            }
        }
        panic!("there is no end to it");
    }

    fn write(&mut self, id: u64, stamp_by: i64, step: Option<(u128, u64)>, features: Vec<u16>, rows: Vec<(Row, u64)>) {
        // A writer that was opened before a change lays batches out by the schema it knows.
        let schemas = &self.schemas[&id];
        let behind = if stamp_by % 2 == 1 { rows.len() % schemas.len() } else { 0 };
        let definition = schemas[schemas.len() - 1 - behind].clone();
        let stamp_us = self.model.time_us.max(0) + stamp_by * UNIT;
        let features: Vec<u16> = features.into_iter().filter(|f| usize::from(*f) < definition.features.len()).collect();
        let mut filled = Vec::new();
        for (mut row, seed) in rows {
            let feature = |f: &u16| (*f, value(definition.features[usize::from(*f)].ty, seed + u64::from(*f)));
            row.values = features.iter().map(feature).collect();
            row.time = if seed % 2 == 1 { stamp_us - row.time * UNIT } else { row.time * UNIT };
            filled.push(row);
        }
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
        let outcomes: Vec<_> = filled.iter().map(|row| self.model.write(&self.definitions[&id], row)).collect();
        let older: Vec<u32> =
            (0..).zip(&outcomes).filter(|(_, outcome)| **outcome == RowOutcome::Older).map(|(at, _)| at).collect();
        let Outcome::Wrote(answer) = outcome else { panic!("{outcome:?}") };
        assert_eq!((answer.index, answer.repeated), (LogIndex(self.index), false));
        assert_eq!(answer.applied as usize, filled.len() - older.len());
        assert_eq!(answer.older, older);
    }

    fn check(&self) {
        let digest = self.replicas[0].0.digest();
        for replica in &self.replicas {
            let (partition, reader) = replica;
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
                    assert_eq!(reader.time_us(), self.model.time_us);
                    self.compare(definition, &live, &answer, self.model.time_us);
                    if let Some(gone) = gone.first() {
                        let wanted = projection(*id, known.schema_version, &[*gone]);
                        let error = reader.read(&wanted, &block(&keys), LogIndex(0)).unwrap_err();
                        assert!(error.code == ErrorCode::NotFound && error.message.contains("was dropped"), "{error}");
                    }
                }
                let live: Vec<u16> = definition.live_features().map(|(at, _)| at).collect();
                for time_us in [-5, 3, 40].map(|by| self.model.time_us.saturating_add(by * UNIT)) {
                    let answer = read_at(reader, &projection(*id, definition.schema_version, &live), &keys, time_us);
                    self.compare(definition, &live, &answer, time_us);
                    self.look(replica, definition, time_us);
                }
            }
            for (session, (last, _)) in &self.model.sessions {
                assert_eq!(partition.session(*session).last, *last);
            }
        }
    }

    fn compare(&self, group: &FeatureGroup, features: &[u16], answer: &SectionRows, time_us: i64) {
        for key in 0..KEYS {
            let row = self.model.rows.get(&(group.id.0, key)).filter(|row| row.deleted_at.is_none());
            let at = key as usize;
            let wanted = match row {
                None => RowStatus::NotFound,
                Some(row) if has_expired(group, row, time_us) => RowStatus::Expired,
                Some(_) => RowStatus::Found,
            };
            let id = group.id;
            assert_eq!(answer.status(at), wanted, "group {id} key {key}");
            assert_eq!(answer.event_time(at), row.map_or(0, |row| row.event.0));
            let shown =
                wanted == RowStatus::Found || group.ttl.is_some_and(|ttl| ttl.on_expired == OnExpired::ServeLast);
            for (column, feature) in features.iter().enumerate() {
                let of = &group.features[usize::from(*feature)];
                assert_eq!(answer.types().nth(column), Some(of.ty));
                let found = answer.value(column, at).map(|bytes| Value::decode(of.ty, bytes).unwrap());
                let wanted = row.filter(|_| shown).and_then(|row| as_read(of, row.values.get(feature)));
                assert_eq!(found, wanted, "group {id} key {key} feature {feature}");
            }
        }
    }

    /// Looks through a group for what a sweep would remove: all of it, and nothing else.
    fn look(&self, (partition, reader): &(Partition, PartitionReader), group: &FeatureGroup, time_us: i64) {
        let is_cold = partition.is_cold();
        let (mut from, mut examined, mut removable) = (Some(0), 0, 0);
        while let Some(first_hash) = from {
            let look = reader.look_for_sweep(group.id, first_hash, 1, time_us).unwrap();
            (examined, removable) = (examined + look.examined, removable + look.removable);
            from = look.last_hash.checked_add(1);
        }
        let rows = self.model.rows.keys().filter(|(id, _)| *id == group.id.0).count();
        let wanted = (rows, self.model.removable(group, time_us).len());
        match is_cold {
            true => assert!(examined <= wanted.0 && removable <= wanted.1, "what is not in memory is not looked at"),
            false => assert_eq!((examined, removable), wanted),
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

fn read_at(reader: &PartitionReader, projection: &Projection, keys: &[Vec<u8>], time_us: i64) -> SectionRows {
    let keys = block(keys);
    let source = SectionSource { reader, at_least: LogIndex(0), time_us, keys: keys.range(0, keys.len()) };
    let mut answer = AnswerWriter::new(1);
    let head = read_sections(projection, &[source], &mut answer).remove(0).unwrap();
    parse_answer(answer.finish(&[SectionResult::Rows(head)]).into_body().into()).unwrap().remove(0).unwrap()
}

/// How often segments of an index have merged.
static MERGES: AtomicUsize = AtomicUsize::new(0);

/// Does something, and looks whether there are fewer segments for it: what is written has more of them, and what is removed as
/// many.
fn counting_merges<R>(partition: &mut Partition, act: impl Fn(&mut Partition) -> R) -> R {
    let before = partition.memory().index;
    let answer = act(partition);
    let merged = partition.memory().index + SEGMENT_BYTES <= before;
    MERGES.fetch_add(usize::from(merged), Ordering::Relaxed);
    answer
}

#[test]
fn the_store_does_what_the_model_does() {
    any_commands_do_what_the_model_does();
    assert!(MERGES.load(Ordering::Relaxed) > 0, "segments of the index have merged under some of these commands");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 4_000, ..ProptestConfig::default() })]
    fn any_commands_do_what_the_model_does(
        one_seed in prop::bool::ANY,
        order in Just((0..16_u16).collect::<Vec<_>>()).prop_shuffle(),
        ops in prop::collection::vec(any_op(), 1..40),
    ) {
        let mut bench = Bench::with(one_seed, &order);
        ops.into_iter().for_each(|op| bench.run(op));
        bench.run(Op::Hold(false));
        bench.run(Op::Snapshot);
        bench.rest();
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
    let chunks: Vec<Vec<u8>> = whole(bench.replicas[0].0.snapshot()).iter().map(|chunk| chunk.to_vec()).collect();
    // What is not seen when the partition is made is seen before all rows are in memory.
    let restore = |chunks: &[Vec<u8>]| {
        Partition::restore(StoreOptions::default(), chunks.to_vec()).and_then(|(mut partition, _)| partition.thaw(9))
    };
    assert_eq!(restore(&chunks), Ok(false));
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
    let wanted = whole(bench.replicas[0].0.snapshot());
    let mut late = bench.replicas[0].0.snapshot().map(|part| part.unwrap().into_chunk().unwrap());
    let mut taken = vec![late.next().unwrap()];
    let dead = bench.replicas[0].0.memory().dead;
    for from in 2..20 {
        bench.write(1, 1, None, vec![0, 1], rows(from));
        bench.write(2, 1, None, vec![0, 1], rows(from));
        bench.run(Op::Evolve(
            1,
            vec![Change::Append { ty: FeatureType::String, storage: None, default: Some(from as u64) }],
        ));
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
    // Each of these rows has a text of its own, of 32 bytes and more.
    let rows = || (0..KEYS).map(|k| (upsert(k, 1, 0, 0), 101 + 4 * k as u64)).collect::<Vec<_>>();
    let texts: u64 = (0..KEYS as u64).map(|k| 32 + 4 * k).sum();
    bench.write(1, 1, None, vec![0, 1], rows());
    let written = bench.replicas[0].0.memory();
    assert!(written.arena >= texts);
    bench.run(Op::Evolve(1, vec![Change::Drop(1)]));
    let dropped = bench.replicas[0].0.memory();
    assert_eq!((dropped.arena, dropped.logical_bytes), (written.arena, written.logical_bytes), "no row was touched");
    bench.run(Op::Snapshot);
    bench.write(1, 1, None, vec![0], rows());
    bench.check();
    // Five rows of one who knows the first of two schemas, and still has texts.
    bench.write(1, 1, None, vec![0, 1], rows().split_off(1));
    bench.check();
    for (partition, _) in &bench.replicas {
        let memory = partition.memory();
        assert_eq!((memory.arena, memory.logical_bytes + texts), (0, written.logical_bytes));
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
