//! A group of a partition as the writer sees it: row numbers, and how a row of a batch becomes a version.

use std::sync::Arc;

use stoa_planted::planted;
use stoa_protocol::message::RowOutcome;
use stoa_protocol::types::Width;
use stoa_protocol::widen::widen;
use stoa_protocol::{FeatureGroup, FeatureGroupId, RowBatch, RowOp};

use crate::arena::ArenaRef;
use crate::digest::{GroupDigest, range_of, row_digest};
use crate::group::Group;
use crate::index::{Found, IndexWriter, index_hash};
use crate::lanes::{Dead, Trash};
use crate::memory::MemoryReport;
use crate::row::RowBuffer;
use crate::space::Space;

/// Logical bytes of a row besides key and values: event time, sequence, flags, its share of the index.
const ROW_LOGICAL_BYTES: u64 = 32;

/// How many rows ahead apply asks for index and lanes.
const AHEAD: usize = 8;

/// A row number that no row has.
pub(crate) const NO_ROW: u32 = u32::MAX;

/// The writer's half of a group.
pub(crate) struct GroupWriter {
    pub group: Arc<Group>,
    pub index: IndexWriter,
    pub digest: GroupDigest,
    next_row: u32,
    free_rows: Vec<u32>,
    rows: u64,
    tombstones: u64,
    /// Bytes of keys and of values of variable length.
    variable_bytes: u64,
    old: RowBuffer,
    new: RowBuffer,
    scratch: Vec<u8>,
}

impl GroupWriter {
    /// A group without rows.
    pub fn new(definition: FeatureGroup, lane_bytes_max: usize) -> Self {
        let index = IndexWriter::new();
        Self {
            group: Arc::new(Group::new(definition, index.shared().clone(), lane_bytes_max)),
            index,
            digest: GroupDigest::default(),
            next_row: 0,
            free_rows: Vec::new(),
            rows: 0,
            tombstones: 0,
            variable_bytes: 0,
            old: RowBuffer::default(),
            new: RowBuffer::default(),
            scratch: Vec::new(),
        }
    }

    fn id(&self) -> FeatureGroupId {
        self.group.definition.id
    }

    /// Takes a definition that follows the one that stands. Touches no row, so it takes as long with many as with none.
    pub fn extend(&mut self, definition: FeatureGroup) {
        self.group = Arc::new(self.group.extended(definition, self.next_row));
    }

    /// Applies the rows of a batch that fits the group, in their order; gives the places of those that were older than
    /// what was there. Readers see each row change at once, and the rows of a batch one after the other.
    pub fn apply(&mut self, space: &mut Space, batch: &RowBatch, time_us: i64) -> Vec<u32> {
        let hashes: Vec<u64> = (0..batch.rows()).map(|row| index_hash(space.seed, batch.key(row))).collect();
        let mut older = Vec::new();
        for (row, &hash) in hashes.iter().enumerate() {
            if let Some(&far) = hashes.get(row + 2 * AHEAD) {
                self.index.prefetch(far);
            }
            if let Some(&near) = hashes.get(row + AHEAD) {
                let candidate = |row| {
                    self.group.lanes[0].prefetch(row, 0, self.group.lanes[0].stride());
                    true
                };
                self.index.find(near, candidate);
            }
            if self.apply_row(space, batch, row, hash, time_us) == RowOutcome::Older {
                older.push(row as u32);
            }
        }
        older
    }

    /// 1. Finds the version that stands and decides whether the event is newer.
    /// 2. Builds the new version beside it: the old values, or nulls, and over them the values of the batch.
    /// 3. Accounts for the change.
    /// 4. Writes it to a free row number and publishes that.
    /// 5. Takes the old row number, and the values that the new version does not have, out of use.
    fn apply_row(&mut self, space: &mut Space, batch: &RowBatch, row: usize, hash: u64, time_us: i64) -> RowOutcome {
        let key = batch.key(row);
        let event = (batch.event_time(row), batch.sequence(row));
        let group = self.group.clone();
        let plan = &group.plan;
        let arena = space.arena.shared().clone();
        let found = self.index.find(hash, |row| group.is_key(row, key, &arena));
        let mut standing = false;
        if let Some(found) = found {
            group.load(found.row, &mut self.old);
            let tombstone = self.old.tombstone(plan);
            let horizon_us = group.definition.late_horizon_us;
            // A tombstone past the late horizon counts as no row at all.
            let in_force = tombstone.is_none_or(|stamp_us| time_us.saturating_sub(stamp_us) <= horizon_us);
            if in_force && event < (self.old.event_time(), self.old.sequence()) && !planted!(OlderEventWins) {
                return RowOutcome::Older;
            }
            standing = tombstone.is_none();
        }
        let delete = batch.op(row) == RowOp::Delete;
        let mut retired: Vec<ArenaRef> = Vec::new();
        if standing && !delete && !planted!(ForgetAbsent) {
            self.new.copy_from(&self.old);
            for &feature in &plan.dropped {
                retired.extend(self.new.reference(plan, &plan.features[usize::from(feature)]));
                self.new.forget(plan, feature.into());
            }
        } else {
            self.new.clear(plan);
            self.set_key(space, key, found.is_some());
        }
        self.new.set_event(event.0, event.1);
        if delete {
            self.new.set_tombstone(plan, time_us);
            if standing {
                retired.extend(self.old.references(plan));
            }
        } else {
            for (at, column) in batch.columns().iter().enumerate() {
                if planted!(TornRow) && standing && at > 0 {
                    break;
                }
                let feature = usize::from(column.feature);
                let place = &plan.features[feature];
                if place.dropped {
                    continue;
                }
                retired.extend(self.new.reference(plan, place));
                match batch.value(at, row) {
                    Some(bytes) if place.variable => {
                        let reference = space.arena.put(bytes).0.to_le_bytes();
                        self.new.set_value(plan, feature, Some(&reference));
                    }
                    // The batch is of an earlier schema.
                    Some(bytes) if column.ty != place.ty => {
                        let wide = widen(column.ty, place.ty, bytes);
                        if planted!(EarlierByPlace) {
                            let mut taken = [0; 8];
                            taken[..bytes.len()].copy_from_slice(bytes);
                            self.new.set_value(plan, feature, Some(&taken[..place.width]));
                            continue;
                        }
                        self.new.set_value(plan, feature, Some(&wide));
                    }
                    fixed_or_null => self.new.set_value(plan, feature, fixed_or_null),
                }
            }
        }
        if found.is_some() {
            self.account(space, key, Side::Old);
        }
        self.account(space, key, Side::New);
        self.publish(space, hash, found);
        retired.into_iter().for_each(|reference| space.retire_value(reference));
        RowOutcome::Applied
    }

    /// Adds a row of a snapshot, whose key is not there: `new` has been filled by `fill`.
    pub fn restore_row(
        &mut self,
        space: &mut Space,
        key: &[u8],
        hash: u64,
        fill: impl FnOnce(&mut RowBuffer, &mut Space),
    ) {
        self.new.clear(&self.group.plan);
        self.set_key(space, key, false);
        fill(&mut self.new, space);
        self.account(space, key, Side::New);
        self.publish(space, hash, None);
    }

    fn set_key(&mut self, space: &mut Space, key: &[u8], exists: bool) {
        let group = &self.group;
        if group.plan.key.inline {
            self.new.set_key_bytes(&group.plan, key);
        } else if exists {
            let reference = self.old.key_bytes(&group.plan);
            self.new.set_key_bytes(&group.plan, reference);
        } else {
            let reference = space.arena.put(key).0.to_le_bytes();
            self.new.set_key_bytes(&group.plan, &reference);
        }
    }

    /// Takes a version out of, or into, digest and counts.
    fn account(&mut self, space: &Space, key: &[u8], side: Side) {
        let group = self.group.clone();
        let version = match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        };
        let plan = &group.plan;
        let range = range_of(&group.key_types, group.definition.entity.partition_by, key);
        let arena = space.arena.shared();
        let digest = row_digest(group.definition.id, key, version, plan, arena, &mut self.scratch);
        let bytes = (key.len() + version.references(plan).map(ArenaRef::len).sum::<usize>()) as u64;
        let count = if version.tombstone(plan).is_some() { &mut self.tombstones } else { &mut self.rows };
        match side {
            Side::Old => {
                self.digest.subtract(range, digest);
                self.variable_bytes -= bytes;
                *count -= 1;
            }
            Side::New => {
                self.digest.add(range, digest);
                self.variable_bytes += bytes;
                *count += 1;
            }
        }
    }

    /// Stores the new version and lets readers see it.
    fn publish(&mut self, space: &mut Space, hash: u64, found: Option<Found>) {
        let row = self.allocate();
        self.group.store(row, &self.new);
        let (generation, shared_before) = (space.generation, space.shared_before);
        let Some(found) = found else {
            let (group, arena, seed) = (self.group.clone(), space.arena.shared().clone(), space.seed);
            let rehash = |row| {
                let mut key = Vec::new();
                group.key_of(row, &arena, &mut key);
                index_hash(seed, &key)
            };
            return self.index.insert(hash, row, rehash, generation, shared_before, &mut space.trash);
        };
        self.index.replace(hash, found, row, generation, shared_before, &mut space.trash);
        space.trash.push(Dead::Row(self.id(), found.row));
    }

    fn allocate(&mut self) -> u32 {
        self.free_rows.pop().unwrap_or_else(|| {
            let row = self.next_row;
            assert!(row < NO_ROW, "2^32 rows do not fit a machine");
            self.group.lanes.iter().for_each(|lane| lane.reserve(row));
            self.next_row += 1;
            row
        })
    }

    /// Takes a row number back that nobody reads any more.
    pub fn free(&mut self, row: u32) {
        self.free_rows.push(row);
    }

    /// The hash of all rows, computed again from memory.
    pub fn recompute_digest(&self, space: &Space) -> GroupDigest {
        let arena = space.arena.shared();
        let (mut digest, mut version) = (GroupDigest::default(), RowBuffer::default());
        let (mut key, mut scratch) = (Vec::new(), Vec::new());
        let definition = &self.group.definition;
        for row in self.index.segments().flat_map(|segment| segment.rows()) {
            self.group.load(row, &mut version);
            key.clear();
            version.key(&self.group.plan, arena, &mut key);
            let range = range_of(&self.group.key_types, definition.entity.partition_by, &key);
            digest.add(range, row_digest(definition.id, &key, &version, &self.group.plan, arena, &mut scratch));
        }
        digest
    }

    /// What the group's own memory is used for; values in the arena are the partition's to count.
    pub fn memory(&self) -> MemoryReport {
        let used = self.rows + self.tombstones;
        let row_bytes = self.group.plan.row_bytes() as u64;
        let keys = used * self.group.plan.key.width as u64;
        let lanes = used * row_bytes - keys;
        let dead = (u64::from(self.next_row) - used) * row_bytes;
        let index = self.index.bytes() as u64;
        MemoryReport {
            keys,
            index,
            lanes,
            arena: 0,
            dead,
            total: keys + index + lanes + dead,
            rows: self.rows,
            tombstones: self.tombstones,
            logical_bytes: used * row_logical_bytes(&self.group) + self.variable_bytes,
        }
    }

    /// Asserts what must hold of the group; adds the arena references in use, and takes from `waiting` its dead rows.
    pub fn check(&self, space: &Space, trash: &Trash, live: &mut Vec<ArenaRef>) {
        let arena = space.arena.shared();
        let plan = &self.group.plan;
        self.index.check(|row| {
            let mut key = Vec::new();
            self.group.key_of(row, arena, &mut key);
            index_hash(space.seed, &key)
        });
        let mut numbers: Vec<u32> = self.index.segments().flat_map(|segment| segment.rows()).collect();
        let (mut rows, mut tombstones, mut variable) = (0, 0, 0);
        let mut version = RowBuffer::default();
        for &row in &numbers {
            self.group.load(row, &mut version);
            match version.tombstone(plan) {
                None => rows += 1,
                Some(_) => tombstones += 1,
            }
            let mut key = Vec::new();
            version.key(plan, arena, &mut key);
            variable += (key.len() + version.references(plan).map(ArenaRef::len).sum::<usize>()) as u64;
            live.extend(version.references(plan).chain(version.key_reference(plan)));
        }
        assert_eq!((rows, tombstones, variable), (self.rows, self.tombstones, self.variable_bytes), "counts");
        numbers.extend(&self.free_rows);
        numbers.extend(trash.iter().filter_map(|dead| match dead {
            Dead::Row(group, row) if *group == self.id() => Some(*row),
            _ => None,
        }));
        numbers.sort_unstable();
        let all: Vec<u32> = (0..self.next_row).collect();
        assert_eq!(numbers, all, "every row number is in use once, free once or waiting once");
    }
}

#[derive(Clone, Copy)]
enum Side {
    Old,
    New,
}

/// Logical bytes of a row of a group besides its key and its values of variable length.
pub(crate) fn row_logical_bytes(group: &Group) -> u64 {
    let width = |ty: stoa_protocol::FeatureType| match ty.width() {
        Width::Fixed(width) => width as u64,
        Width::Variable => 8,
    };
    ROW_LOGICAL_BYTES + group.definition.features.iter().map(|feature| width(feature.ty)).sum::<u64>()
}
