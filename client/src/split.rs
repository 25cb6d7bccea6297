//! Rows become sections: which entities of which group each partition is asked for, each once, and where every row finds
//! its answer.

use std::collections::BTreeMap;

use stoa_protocol::codec::{Wire, put_list};
use stoa_protocol::key::{KeyBlock, encode_key, partition_hash};
use stoa_protocol::read::{Projection, ReadLevel, ReadSection};
use stoa_protocol::row_block::SectionRows;
use stoa_protocol::value::check_value;
use stoa_protocol::widen::widens;
use stoa_protocol::{ClusterMap, FeatureType, LogIndex, PartitionId, Position, Width};

use crate::distinct::Distinct;
use crate::error::{ReadError, RowsError};
use crate::plan::{EntityPlan, GroupPlan, ViewPlan, check_key_bytes, key_error};
use crate::rows::Rows;

/// Key bytes of one section. A section must fit a request with room beside it; a quarter of a MiB is a thousand keys of
/// two long strings.
const SECTION_KEY_BYTES_MAX: usize = 256 << 10;

/// Estimated bytes of one section's answer. Requests are filled by whole sections, so sections must be small against a
/// frame of 8 MiB.
const SECTION_ANSWER_BYTES_MAX: usize = 1 << 20;

/// What a value of variable width is taken to have, in bytes.
const VARIABLE_BYTES_GUESS: usize = 32;

/// A call's rows, split.
#[derive(Debug)]
pub struct Split {
    /// What is asked, one for each partition (or part of one) and group.
    pub sections: Vec<SectionPlan>,
    /// For each entity of the plan: where its keys are.
    pub entities: Vec<EntitySlots>,
    /// For each group of the plan: its first section; its chunks follow.
    pub first_section: Vec<u32>,
}

/// One section: one group's features for one chunk of an entity's keys.
#[derive(Debug, Clone, Copy)]
pub struct SectionPlan {
    /// The partition.
    pub partition: PartitionId,
    /// The answer must cover at least this index of the partition's log.
    pub at_least: LogIndex,
    /// Place of the group in the plan.
    pub group: usize,
    /// Place of the chunk among those of the group's entity.
    pub chunk: usize,
    /// What it weighs.
    pub weight: SectionWeight,
}

/// What a section adds to a request and to its answer, in bytes, roughly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SectionWeight {
    /// In the request.
    pub request_bytes: usize,
    /// In the answer, estimated.
    pub answer_bytes: usize,
}

/// Where the answers for one entity's keys are.
#[derive(Debug, Default)]
pub struct EntitySlots {
    /// For each row: the number of its key among the distinct ones.
    pub key_of_row: Vec<u32>,
    /// For each distinct key: its chunk, and its place there.
    pub place_of_key: Vec<(u32, u32)>,
    chunks: Vec<Chunk>,
}

/// Keys of one partition, at most as many as one section may have.
#[derive(Debug)]
struct Chunk {
    partition: PartitionId,
    keys: KeyBlock,
    key_bytes: usize,
}

impl Split {
    /// Splits `rows` by the partitions of `map`. `at_least` asks each partition for its part of the position.
    pub fn new(plan: &ViewPlan, rows: &Rows, map: &ClusterMap, at_least: Option<&Position>) -> Result<Self, ReadError> {
        let columns = plan.match_columns(rows.columns())?;
        let keys = EncodedKeys::new(plan, rows, &columns)?;
        let mut split = Self {
            sections: Vec::new(),
            entities: Vec::with_capacity(plan.entities.len()),
            first_section: vec![0; plan.groups.len()],
        };
        for (at, entity) in plan.entities.iter().enumerate() {
            let groups: Vec<_> = plan.groups.iter().enumerate().filter(|(_, group)| group.entity == at).collect();
            let row_bytes = groups.iter().map(|(_, group)| answer_bytes_a_row(group)).max().unwrap_or(1);
            let keys_max = (SECTION_ANSWER_BYTES_MAX / row_bytes).max(1);
            let slots = split_entity(plan, entity, rows.len(), &keys, map, keys_max)?;
            for (place, group) in groups {
                split.first_section[place] = split.sections.len() as u32;
                split.push_group(place, group, &slots.chunks, at_least);
            }
            split.entities.push(slots);
        }
        Ok(split)
    }

    /// Where the answer for a row of a group is: its section, and the place there.
    pub fn place(&self, plan: &ViewPlan, group: usize, row: usize) -> (usize, usize) {
        let slots = &self.entities[plan.groups[group].entity];
        let (chunk, at) = slots.place_of_key[slots.key_of_row[row] as usize];
        ((self.first_section[group] + chunk) as usize, at as usize)
    }

    /// The keys that a section asks for.
    pub fn keys_of(&self, plan: &ViewPlan, section: usize) -> &KeyBlock {
        let SectionPlan { group, chunk, .. } = self.sections[section];
        &self.entities[plan.groups[group].entity].chunks[chunk].keys
    }

    /// Appends the bytes of a [`ReadRequest`](stoa_protocol::read::ReadRequest) for these sections. Groups that are read by
    /// the same keys name them once.
    pub fn put_request(&self, plan: &ViewPlan, level: ReadLevel, sections: &[u32], out: &mut Vec<u8>) {
        let (mut projections, mut keys, mut count) = (Vec::new(), Vec::new(), 0);
        let mut projection_of = vec![None; plan.groups.len()];
        let mut first_key_of = BTreeMap::new();
        let mut asked = Vec::with_capacity(sections.len());
        for &at in sections {
            let SectionPlan { partition, at_least, group, chunk, .. } = self.sections[at as usize];
            let projection = *projection_of[group].get_or_insert_with(|| {
                let GroupPlan { id, schema_version, ref features, .. } = plan.groups[group];
                projections.push(Projection { group: id, schema_version, features: features.clone() });
                projections.len() as u16 - 1
            });
            let block = self.keys_of(plan, at as usize);
            let first_key = *first_key_of.entry((plan.groups[group].entity, chunk)).or_insert_with(|| {
                keys.push(block);
                count += block.len() as u32;
                count - block.len() as u32
            });
            asked.push(ReadSection { partition, at_least, projection, first_key, keys: block.len() as u32 });
        }
        level.put(out);
        put_list(&projections, out);
        KeyBlock::put_joined(&keys, out);
        put_list(&asked, out);
    }

    /// Whether an answer is one to a section: as many rows and columns, of the same types, of the schema asked or a newer
    /// one. A newer one has the features asked for still at their places, some in a wider type; the whole answer is of it.
    pub fn fits(&self, plan: &ViewPlan, section: usize, answer: &SectionRows) -> Result<(), String> {
        let asked = &self.sections[section];
        let group = &plan.groups[asked.group];
        if answer.head.schema_version < group.schema_version {
            let (found, wanted) = (answer.head.schema_version, group.schema_version);
            return Err(format!(
                "it is of schema {found} of {}, and schema {wanted} or a newer one was asked",
                group.name
            ));
        }
        let rows = self.keys_of(plan, section).len();
        if answer.rows() != rows {
            return Err(format!("it has {} rows of {}, and {rows} were asked", answer.rows(), group.name));
        }
        let newer = answer.head.schema_version > group.schema_version;
        let same = |(found, asked): (FeatureType, &FeatureType)| found == *asked || (newer && widens(*asked, found));
        if answer.types().len() != group.types.len() || !answer.types().zip(&group.types).all(same) {
            return Err(format!("its columns of {} are not of the types asked", group.name));
        }
        for (column, ty) in group.types.iter().enumerate().filter(|(_, ty)| has_wrong_bytes(**ty)) {
            for value in (0..rows).filter_map(|row| answer.value(column, row)) {
                check_value(*ty, value).map_err(|error| format!("a value of {}: {error}", group.name))?;
            }
        }
        if answer.head.applied < asked.at_least {
            return Err(format!("it is of index {}, and {} was asked", answer.head.applied, asked.at_least));
        }
        Ok(())
    }

    fn push_group(&mut self, place: usize, group: &GroupPlan, chunks: &[Chunk], at_least: Option<&Position>) {
        let row_bytes = answer_bytes_a_row(group);
        for (at, chunk) in chunks.iter().enumerate() {
            let weight = SectionWeight {
                request_bytes: 64 + group.features.len() * 2 + chunk.keys.len() * 2 + chunk.key_bytes,
                answer_bytes: 64 + group.features.len() * 4 + chunk.keys.len() * row_bytes,
            };
            let at_least = at_least.map_or(LogIndex(0), |position| position.index_of(chunk.partition));
            self.sections.push(SectionPlan { partition: chunk.partition, at_least, group: place, chunk: at, weight });
        }
    }
}

/// Whether bytes of the right length can be wrong for the type all the same.
fn has_wrong_bytes(ty: FeatureType) -> bool {
    ty.width() == Width::Variable || ty == FeatureType::Bool
}

fn answer_bytes_a_row(group: &GroupPlan) -> usize {
    let width = |width| match width {
        Width::Fixed(bytes) => bytes,
        Width::Variable => 4 + VARIABLE_BYTES_GUESS,
    };
    9 + group.types.iter().map(|ty| width(ty.width())).sum::<usize>()
}

/// Numbers the distinct keys of one entity and hands each to its partition.
fn split_entity(
    plan: &ViewPlan,
    entity: &EntityPlan,
    rows: usize,
    keys: &EncodedKeys,
    map: &ClusterMap,
    keys_max: usize,
) -> Result<EntitySlots, ReadError> {
    let bad = |what: String| ReadError::View { view: plan.name.clone(), what };
    let set = map.set(entity.set).ok_or_else(|| {
        bad(format!("its data lie in partition set {}, which map version {} lacks", entity.set, map.version))
    })?;
    let mut distinct = Distinct::new(rows);
    let mut slots = EntitySlots { key_of_row: Vec::with_capacity(rows), place_of_key: Vec::new(), chunks: Vec::new() };
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut open: BTreeMap<PartitionId, u32> = BTreeMap::new();
    let mut key = Vec::new();
    for row in 0..rows {
        key.clear();
        let mut prefix = 0;
        for (at, &column) in entity.columns.iter().enumerate() {
            key.extend_from_slice(keys.get(row, column));
            if at + 1 == entity.partition_by {
                prefix = key.len();
            }
        }
        check_key_bytes(row, entity.columns.iter().map(|&at| &plan.keys[at]), key.len())?;
        let prefix_hash = partition_hash(&key[..prefix]);
        let hash = if prefix == key.len() { prefix_hash } else { partition_hash(&key) };
        let (number, new) = distinct.insert(&key, hash);
        slots.key_of_row.push(number);
        if !new {
            continue;
        }
        let partition = set
            .partition_of(prefix_hash)
            .ok_or_else(|| bad(format!("partition set {} has no partitions", set.name)))?;
        let fits = |chunk: &Chunk| chunk.keys.len() < keys_max && chunk.key_bytes + key.len() <= SECTION_KEY_BYTES_MAX;
        let at = match open.get(&partition.id) {
            Some(&at) if fits(&chunks[at as usize]) => at,
            _ => {
                chunks.push(Chunk { partition: partition.id, keys: KeyBlock::new(), key_bytes: 0 });
                open.insert(partition.id, chunks.len() as u32 - 1);
                chunks.len() as u32 - 1
            }
        };
        let chunk = &mut chunks[at as usize];
        slots.place_of_key.push((at, chunk.keys.len() as u32));
        chunk.keys.push(&key);
        chunk.key_bytes += key.len();
    }
    slots.chunks = chunks;
    Ok(slots)
}

/// Canonical bytes of every value of the rows, each encoded and checked once, however many groups use it.
struct EncodedKeys {
    columns: usize,
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl EncodedKeys {
    fn new(plan: &ViewPlan, rows: &Rows, places: &[usize]) -> Result<Self, RowsError> {
        let columns = plan.keys.len();
        let mut ends = Vec::with_capacity(rows.len() * columns + 1);
        ends.push(0);
        let mut bytes = Vec::with_capacity(rows.len() * columns * 9);
        for row in 0..rows.len() {
            for (key, &place) in plan.keys.iter().zip(places) {
                encode_key(&[key.ty], std::slice::from_ref(rows.value(row, place)), &mut bytes)
                    .map_err(|error| key_error(row, key, error))?;
                ends.push(bytes.len() as u32);
            }
        }
        Ok(Self { columns, ends, bytes })
    }

    fn get(&self, row: usize, column: usize) -> &[u8] {
        let at = row * self.columns + column;
        &self.bytes[self.ends[at] as usize..self.ends[at + 1] as usize]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::SocketAddr;

    use stoa_protocol::map::{NodeInfo, PartitionInfo, PartitionSet, ReplicaInfo};
    use stoa_protocol::{ClusterId, KeyValue, MapVersion, NodeId, PartitionSetId, ReplicaId};

    use super::*;
    use crate::plan::tests::shop;

    /// Three nodes in zones a, b and c, each with a replica of each of `count` partitions.
    pub(crate) fn map_of(count: usize) -> ClusterMap {
        let nodes = (1..=3u64).map(|id| NodeInfo {
            id: NodeId(id),
            zone: ["a", "b", "c"][id as usize - 1].into(),
            addr: SocketAddr::from(([10, 0, 0, id as u8], 7400)),
            incarnation: id,
        });
        let replicas = |at: u64| (1..=3).map(|n| ReplicaInfo { id: ReplicaId(at * 3 + n), node: NodeId(n) }).collect();
        let partitions = PartitionSet::even_ranges(count).enumerate().map(|(at, first_hash)| PartitionInfo {
            id: PartitionId(at as u64 + 2),
            first_hash,
            replicas: replicas(at as u64),
        });
        ClusterMap {
            cluster: ClusterId(77),
            version: MapVersion(5),
            nodes: nodes.collect(),
            root: replicas(1_000),
            sets: vec![PartitionSet {
                id: PartitionSetId(1),
                name: "shared".into(),
                incarnation: 0,
                partitions: partitions.collect(),
            }],
        }
    }

    fn rows(products: impl Iterator<Item = i64>) -> Rows {
        let mut rows = Rows::new(&["product_id", "household_id", "store_id"]);
        products.for_each(|id| rows.push(&[id.into(), 7.into(), (id % 2).into()]).unwrap());
        rows
    }

    #[test]
    fn repeated_entities_are_asked_once_and_every_row_finds_its_answer() {
        let plan = ViewPlan::new(&shop()).unwrap();
        let rows = rows((0..100).map(|n| n % 40));
        let split = Split::new(&plan, &rows, &map_of(4), None).unwrap();
        let asked = |group: usize| -> usize {
            let of = (0..split.sections.len()).filter(|&at| split.sections[at].group == group);
            of.map(|at| split.keys_of(&plan, at).len()).sum()
        };
        assert_eq!((asked(0), asked(1), asked(2), asked(3)), (1, 40, 40, 40));
        for (group, of) in plan.groups.iter().enumerate() {
            for row in 0..rows.len() {
                let (section, at) = split.place(&plan, group, row);
                let entity = &plan.entities[of.entity];
                let columns = plan.match_columns(rows.columns()).unwrap();
                let values: Vec<_> = entity.columns.iter().map(|&c| rows.value(row, columns[c]).clone()).collect();
                let types: Vec<_> = entity.columns.iter().map(|&c| plan.keys[c].ty).collect();
                let mut key = Vec::new();
                encode_key(&types, &values, &mut key).unwrap();
                assert_eq!(split.keys_of(&plan, section).get(at), key);
                assert_eq!(split.sections[section].group, group);
            }
        }
    }

    #[test]
    fn a_request_has_the_bytes_that_the_protocol_gives_it_and_each_key_once() {
        let plan = ViewPlan::new(&shop()).unwrap();
        let split = Split::new(&plan, &rows(0..50), &map_of(4), None).unwrap();
        let all: Vec<u32> = (0..split.sections.len() as u32).collect();
        for sections in [&all[..], &all[1..3], &all[..0]] {
            let mut bytes = Vec::new();
            split.put_request(&plan, ReadLevel::default(), sections, &mut bytes);
            let request = stoa_protocol::read::ReadRequest::from_bytes(&bytes).unwrap();
            assert_eq!(request.to_bytes(), bytes);
            assert_eq!(request.sections.len(), sections.len());
            for (section, &at) in request.sections.iter().zip(sections) {
                let keys = request.keys.range(section.first_key as usize, section.keys as usize);
                assert!(keys.iter().eq(split.keys_of(&plan, at as usize).iter()));
                assert_eq!(section.partition, split.sections[at as usize].partition);
                let group = &plan.groups[split.sections[at as usize].group];
                let projection = &request.projections[usize::from(section.projection)];
                assert_eq!((projection.group, projection.schema_version), (group.id, group.schema_version));
                assert_eq!(projection.features, group.features);
            }
            if sections.len() == all.len() {
                let distinct = split.entities.iter().map(|slots| slots.place_of_key.len()).sum::<usize>();
                assert_eq!((request.keys.len(), request.projections.len()), (distinct, plan.groups.len()));
            }
        }
    }

    #[test]
    fn a_store_sits_with_its_product() {
        let plan = ViewPlan::new(&shop()).unwrap();
        let split = Split::new(&plan, &rows(0..50), &map_of(16), None).unwrap();
        for row in 0..50 {
            let partition = |group| split.sections[split.place(&plan, group, row).0].partition;
            assert_eq!(partition(1), partition(3), "row {row}");
        }
    }

    #[test]
    fn a_bad_value_is_named_by_row_and_column() {
        let plan = ViewPlan::new(&shop()).unwrap();
        let mut rows = rows(0..3);
        rows.push(&[1.into(), KeyValue::String("x".into()), 1.into()]).unwrap();
        let error = Split::new(&plan, &rows, &map_of(4), None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "row 3, key column household_id (Int64): String was given; give a value of Int64"
        );
    }

    #[test]
    fn a_position_reaches_the_sections_of_its_partitions() {
        let plan = ViewPlan::new(&shop()).unwrap();
        let mut position = Position::new();
        position.raise(stoa_protocol::position::PartitionPosition {
            set: PartitionSetId(1),
            incarnation: 0,
            partition: PartitionId(3),
            index: LogIndex(99),
        });
        let split = Split::new(&plan, &rows(0..100), &map_of(4), Some(&position)).unwrap();
        for section in &split.sections {
            assert_eq!(section.at_least.0, if section.partition == PartitionId(3) { 99 } else { 0 });
        }
    }

    #[test]
    fn a_partition_with_very_many_key_bytes_is_asked_in_several_sections() {
        let mut definition = shop();
        for key in definition.view.keys.iter_mut().chain(definition.groups.iter_mut().flat_map(|g| &mut g.entity.keys))
        {
            key.ty = stoa_protocol::KeyType::String;
        }
        let plan = ViewPlan::new(&definition).unwrap();
        let mut rows = Rows::new(&["product_id", "household_id", "store_id"]);
        for n in 0..1_000 {
            let long: KeyValue = format!("{n}{}", "x".repeat(1_000)).as_str().into();
            rows.push(&[long.clone(), "h".into(), long]).unwrap();
        }
        let split = Split::new(&plan, &rows, &map_of(1), None).unwrap();
        assert!(split.sections.iter().all(|section| section.weight.request_bytes < SECTION_KEY_BYTES_MAX + 8_192));
        let (section, at) = split.place(&plan, 3, 999);
        assert!(split.keys_of(&plan, section).get(at).starts_with(b"\x50999x"));
    }
}
