//! A group of a partition as the writer sees it: row numbers, and how a row of a batch becomes a version.

use std::collections::BTreeMap;
use std::sync::Arc;

use stoa_planted::planted;
use stoa_protocol::message::RowOutcome;
use stoa_protocol::types::Width;
use stoa_protocol::widen::widen;
use stoa_protocol::{Feature, FeatureGroup, FeatureGroupId, LogIndex, RowBatch, RowOp};

use crate::arena::{Arena, ArenaRef};
use crate::batch_columns::{BatchColumns, Column};
use crate::changes::Changes;
use crate::cold::{Cold, ColdRow, Thaw};
use crate::dictionary::Dictionary;
use crate::digest::{GroupDigest, range_of, row_digest};
use crate::group::Group;
use crate::index::{Found, IndexWriter, Place, Rehash, index_hash};
use crate::lanes::{Dead, Trash};
use crate::memory::{MemoryReport, vec_bytes};
use crate::numbers::Numbers;
use crate::row::RowBuffer;
use crate::shared::Shared;
use crate::snapshot::{GroupTable, depth_of};
use crate::space::Space;
use crate::sweep::Sweep;

/// Logical bytes of a row besides key and values: event time, sequence, flags, its share of the index.
const ROW_LOGICAL_BYTES: u64 = 32;

/// What it costs to move a row, beside looking at one.
const MOVE_COST: usize = 8;

/// How many rows ahead apply asks for index and lanes.
const AHEAD: usize = 8;

/// The writer's half of a group.
pub(crate) struct GroupWriter {
    pub group: Arc<Group>,
    pub index: IndexWriter,
    pub digest: GroupDigest,
    numbers: Numbers,
    rows: u64,
    tombstones: u64,
    /// Bytes of keys and of values of variable length.
    variable_bytes: u64,
    /// Bytes of the slots of those that lie in the arena.
    arena_bytes: u64,
    /// Of the features of variable width, in their order.
    dictionaries: Vec<Dictionary>,
    dictionary_bytes: usize,
    /// What is left to take in from a snapshot.
    pub thaw: Option<Thaw>,
    pub changes: Changes,
    old: RowBuffer,
    new: RowBuffer,
    scratch: Vec<u8>,
    /// The memory as it was when it was accounted for last, and whether it may differ by now.
    accounted: MemoryReport,
    pub stale: bool,
}

impl GroupWriter {
    /// A group without rows, in the partition that has this in common.
    pub fn new(definition: FeatureGroup, shared: &Shared) -> Self {
        let index = IndexWriter::new(definition.id, shared.segment_entries_max);
        let order = shared.lane_orders.of(definition.id, definition.features.len());
        let mut writer = Self {
            group: Arc::new(Group::new(definition, index.shared().clone(), shared.lane_bytes_max, &order)),
            index,
            digest: GroupDigest::default(),
            numbers: Numbers::default(),
            rows: 0,
            tombstones: 0,
            variable_bytes: 0,
            arena_bytes: 0,
            dictionaries: Vec::new(),
            dictionary_bytes: 0,
            thaw: None,
            changes: Changes::default(),
            old: RowBuffer::default(),
            new: RowBuffer::default(),
            scratch: Vec::new(),
            accounted: MemoryReport::default(),
            stale: true,
        };
        writer.add_dictionaries();
        writer
    }

    fn id(&self) -> FeatureGroupId {
        self.group.definition.id
    }

    /// Takes a definition that follows the one that stands, by the command at `index`. All rows are in memory, and none is
    /// touched, so it takes as long with many as with none.
    pub fn extend(&mut self, definition: FeatureGroup, index: LogIndex) {
        self.stale = true;
        self.group = Arc::new(self.group.extended(definition, self.numbers.end()));
        self.add_dictionaries();
        // The bytes of every row in a snapshot are others now.
        self.changes = Changes::new(index);
    }

    fn add_dictionaries(&mut self) {
        self.dictionaries.resize_with(self.group.plan.variable.len(), Dictionary::default);
    }

    /// Applies the rows of a batch that fits the group, in their order; gives the places of those that were older than
    /// what was there. Readers see each row change at once, and the rows of a batch one after the other.
    pub fn apply(&mut self, space: &mut Space, batch: &RowBatch, time_us: i64, index: LogIndex) -> Vec<u32> {
        let hashes: Vec<u64> = (0..batch.rows()).map(|row| index_hash(space.seed, batch.key(row))).collect();
        self.changes.refine(depth_of(self.logical_bytes()));
        self.stale = true;
        let columns = BatchColumns::new(&self.group.plan, batch);
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
            match self.apply_row(space, batch, &columns, (row, hash), time_us) {
                RowOutcome::Older => older.push(row as u32),
                _ => self.changes.note(hash, index),
            }
        }
        older
    }

    /// 1. Finds the version that stands and decides whether the event is newer.
    /// 2. Builds the new version beside it: the old values unless they have expired, or nulls, and over them the values of
    ///    the batch. Here, and here alone, a value is narrowed to its feature's storage: what is accounted for, stored and read
    ///    from now on is what has become of it.
    /// 3. Accounts for the change.
    /// 4. Writes it to a free row number and publishes that.
    /// 5. Takes the old row number, and the values that the new version does not have, out of use.
    fn apply_row(
        &mut self,
        space: &mut Space,
        batch: &RowBatch,
        columns: &BatchColumns<'_>,
        (row, hash): (usize, u64),
        time_us: i64,
    ) -> RowOutcome {
        let key = batch.key(row);
        let event = (batch.event_time(row), batch.sequence(row));
        let group = self.group.clone();
        let (definition, plan) = (&group.definition, &group.plan);
        let arena = space.arena.shared().clone();
        let found = self.index.find(hash, |row| group.is_key(row, key, &arena));
        let mut standing = false;
        if let Some(found) = found {
            group.load(found.row, &mut self.old);
            let tombstone = self.old.tombstone(plan);
            // A tombstone past the late horizon counts as no row at all, whether it has been swept or not.
            let in_force = tombstone.is_none_or(|stamp_us| !definition.forgets_delete(stamp_us, time_us));
            let sequence = if planted!(TieIgnoresSequence) { event.1 } else { self.old.sequence() };
            if in_force && event < (self.old.event_time(), sequence) && !planted!(OlderEventWins) {
                return RowOutcome::Older;
            }
            standing = tombstone.is_none();
        }
        let delete = batch.op(row) == RowOp::Delete;
        // What has expired does not come back as part of a newer row, whether it has been swept or not.
        let has_expired = standing && self.old.event_time() < definition.expired_before(time_us);
        let inherits = standing && !delete && !has_expired && !planted!(ForgetAbsent);
        let mut retired: Vec<(usize, ArenaRef)> = Vec::new();
        if inherits {
            self.new.copy_from(&self.old);
            for &feature in &plan.dropped {
                let place = &plan.features[usize::from(feature)];
                retired.extend(self.new.reference(plan, place).map(|reference| (place.dictionary, reference)));
                self.new.forget(plan, feature.into());
            }
        } else {
            self.new.clear(plan);
            self.set_key(space, key, found.is_some());
        }
        self.new.set_event(event.0, event.1);
        if standing && !inherits {
            retired.extend(self.old.values_apart(plan));
        }
        if delete {
            self.new.set_tombstone(plan, time_us);
        } else {
            let mut version = std::mem::take(&mut self.new);
            let torn = standing && planted!(TornRow);
            if !torn {
                columns.set_fours(row, &mut version);
            }
            let mut new = version.set_values(plan);
            for (at, Column { feature, place, ty, values }) in columns.rest.iter().enumerate() {
                if torn && at > 0 {
                    break;
                }
                retired.extend(new.reference(place).map(|reference| (place.dictionary, reference)));
                match values.value(row) {
                    Some(bytes) if place.variable => {
                        let reference = self.put_value(space, place.dictionary, bytes).0.to_le_bytes();
                        new.set(*feature, place, Some(&reference));
                    }
                    // The batch is of an earlier schema.
                    Some(bytes) if *ty != place.ty => {
                        let wide = widen(*ty, place.ty, bytes);
                        if planted!(EarlierByPlace) {
                            let mut taken = [0; 8];
                            taken[..bytes.len()].copy_from_slice(bytes);
                            new.set(*feature, place, Some(&taken[..place.width]));
                            continue;
                        }
                        new.set(*feature, place, Some(&wide));
                    }
                    Some(bytes) if let Some(storage) = place.storage => {
                        new.set_narrowed(*feature, place, storage, bytes);
                    }
                    fixed_or_null => new.set(*feature, place, fixed_or_null),
                }
            }
            drop(new);
            self.new = version;
        }
        if found.is_some() {
            self.account(space, key, Side::Old);
        }
        self.account(space, key, Side::New);
        self.publish(space, hash, found);
        retired.into_iter().for_each(|(dictionary, reference)| self.retire_value(space, dictionary, reference));
        RowOutcome::Applied
    }

    /// Makes a new group that of a snapshot's table, whose rows are in `cold`. As of `index`, nothing has changed.
    pub fn begin_cold(&mut self, space: &mut Space, table: &GroupTable, cold: Cold, index: LogIndex) {
        let rows = table.rows.saturating_add(table.tombstones).min(cold.rows_max());
        self.index.expect(rows, &mut space.trash);
        let (group, cold) = (&self.group, Arc::new(cold));
        self.thaw = (cold.len() > 0).then(|| Thaw::new(cold.clone(), table));
        self.group = Arc::new(Group {
            definition: group.definition.clone(),
            key_types: group.key_types.clone(),
            plan: group.plan.clone(),
            lanes: group.lanes.clone(),
            index: group.index.clone(),
            cold: (cold.len() > 0).then_some(cold),
        });
        self.stale = true;
        self.digest = table.digest.clone();
        (self.rows, self.tombstones, self.variable_bytes) = (table.rows, table.tombstones, table.variable_bytes);
        self.changes = Changes::new(index);
    }

    /// Takes in a row that was laid out from a chunk, and whose key is not there. Digest and counts have it already.
    pub fn add_cold(&mut self, space: &mut Space, row: ColdRow<'_>, hash: u64, version: &mut RowBuffer) {
        self.stale = true;
        let group = self.group.clone();
        for place in &group.plan.variable {
            if let Some(here) = version.reference(&group.plan, place) {
                let there = self.put_value(space, place.dictionary, row.value(here)).0.to_le_bytes();
                version.put(&group.plan, place, Some(&there));
            }
        }
        std::mem::swap(&mut self.new, version);
        self.set_key(space, row.key, false);
        self.publish(space, hash, None);
        std::mem::swap(&mut self.new, version);
    }

    /// What the table of a snapshot says of the group, but for its chunks.
    pub fn table(&self) -> GroupTable {
        GroupTable {
            id: self.id(),
            digest: self.digest.clone(),
            rows: self.rows,
            tombstones: self.tombstones,
            variable_bytes: self.variable_bytes,
            depth: depth_of(self.logical_bytes()),
            chunks: Vec::new(),
        }
    }

    fn logical_bytes(&self) -> u64 {
        (self.rows + self.tombstones) * row_logical_bytes(&self.group) + self.variable_bytes
    }

    /// Rows in memory: all but those that are cold.
    fn rows_in_memory(&self) -> u64 {
        self.rows + self.tombstones - self.thaw.as_ref().map_or(0, Thaw::left)
    }

    /// Removes what a sweep removes, by the command at `index`, and says how much that was. The rows of its range are in memory.
    ///
    /// 1. Finds the rows, and puts those first that every replica puts first.
    /// 2. Replaces the segments that have them: readers that come now do not find them.
    /// 3. Accounts for the change, and takes row numbers, values and keys out of use.
    pub fn sweep(&mut self, space: &mut Space, sweep: &Sweep, index: LogIndex) -> u32 {
        let rows = self.removable(space, sweep);
        let (group, arena, seed) = (self.group.clone(), space.arena.shared().clone(), space.seed);
        let entries: Vec<(u64, u32)> = rows.iter().map(|(hash, _, row)| (*hash, *row)).collect();
        self.index.remove(&entries, Keys { group: &group, arena: &arena, seed }, space.generation, &mut space.trash);
        for (hash, key, row) in &rows {
            group.load(*row, &mut self.old);
            self.account(space, key, Side::Old);
            self.changes.note(*hash, index);
            space.trash.push(Dead::Row(self.id(), *row));
            let values: Vec<_> = self.old.values_apart(&group.plan).collect();
            values.into_iter().for_each(|(dictionary, value)| self.retire_value(space, dictionary, value));
            if let Some(key) = self.old.key_reference(&group.plan) {
                self.arena_bytes -= key.slot_bytes() as u64;
                space.retire_value(key);
            }
        }
        self.stale = true;
        rows.len() as u32
    }

    /// What a sweep removes: hash, key and row, by hash and key.
    fn removable(&self, space: &Space, sweep: &Sweep) -> Vec<(u64, Vec<u8>, u32)> {
        let (group, arena) = (&self.group, space.arena.shared());
        let mut found = Vec::new();
        for place in self.index.places_between(sweep.first_hash, sweep.last_hash) {
            let rows: Vec<u32> = group.index.rows(place).collect();
            for row in group.removable(&rows, sweep.stamp_us) {
                let mut key = Vec::new();
                group.key_of(row, arena, &mut key);
                let hash = index_hash(space.seed, &key);
                if (sweep.first_hash..=sweep.last_hash).contains(&hash) {
                    found.push((hash, key, row));
                }
            }
        }
        found.sort_unstable();
        found.truncate(sweep.rows_max as usize);
        found
    }

    /// Adds a row of a snapshot, whose key is not there.
    pub fn restore_row(&mut self, space: &mut Space, key: &[u8], hash: u64, row: &RestoredRow<'_, '_>) {
        self.stale = true;
        let group = self.group.clone();
        let plan = &group.plan;
        self.new.clear(plan);
        self.set_key(space, key, false);
        self.new.set_event(row.event_time, row.sequence);
        if let Some(stamp_us) = row.tombstone {
            self.new.set_tombstone(plan, stamp_us);
        }
        for (feature, value) in row.values.iter().enumerate() {
            let place = &plan.features[feature];
            match *value {
                Restored::Value(bytes) if place.variable => {
                    let reference = self.put_value(space, place.dictionary, bytes).0.to_le_bytes();
                    self.new.set_value(plan, feature, Some(&reference));
                }
                Restored::Value(bytes) => self.new.set_value(plan, feature, Some(bytes)),
                Restored::Null => self.new.set_value(plan, feature, None),
                Restored::Nothing => {}
            }
        }
        self.account(space, key, Side::New);
        self.publish(space, hash, None);
    }

    /// A slot of the arena that holds the value of a feature: one that has it already, or a new one.
    fn put_value(&mut self, space: &mut Space, dictionary: usize, bytes: &[u8]) -> ArenaRef {
        let seed = space.seed;
        let (reference, new) = self.ask(dictionary, |dictionary| dictionary.put(bytes, seed, &mut space.arena));
        if new {
            self.arena_bytes += reference.slot_bytes() as u64;
        }
        reference
    }

    /// Takes the value of a feature out of a version that is out of reach from now on.
    fn retire_value(&mut self, space: &mut Space, dictionary: usize, reference: ArenaRef) {
        if self.ask(dictionary, |dictionary| dictionary.retire(reference, space.seed, space.arena.shared())) {
            self.arena_bytes -= reference.slot_bytes() as u64;
            space.retire_value(reference);
        }
    }

    /// Asks a dictionary, and accounts for what it has grown by.
    fn ask<R>(&mut self, dictionary: usize, question: impl FnOnce(&mut Dictionary) -> R) -> R {
        let dictionary = &mut self.dictionaries[dictionary];
        let before = dictionary.bytes();
        let answer = question(dictionary);
        self.dictionary_bytes = self.dictionary_bytes - before + dictionary.bytes();
        answer
    }

    fn set_key(&mut self, space: &mut Space, key: &[u8], exists: bool) {
        let group = &self.group;
        if group.plan.key.inline {
            self.new.set_key_bytes(&group.plan, key);
        } else if exists {
            let reference = self.old.key_bytes(&group.plan);
            self.new.set_key_bytes(&group.plan, reference);
        } else {
            let reference = space.arena.put(key);
            self.arena_bytes += reference.slot_bytes() as u64;
            let reference = reference.0.to_le_bytes();
            self.new.set_key_bytes(&self.group.plan, &reference);
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
            let (group, arena) = (self.group.clone(), space.arena.shared().clone());
            let rehash = Keys { group: &group, arena: &arena, seed: space.seed };
            return self.index.insert(hash, row, rehash, generation, shared_before, &mut space.trash);
        };
        self.index.replace(hash, found, row, generation, shared_before, &mut space.trash);
        if planted!(ReuseTooEarly) {
            return self.free(found.row);
        }
        space.trash.push(Dead::Row(self.id(), found.row));
    }

    fn allocate(&mut self) -> u32 {
        self.numbers.take().unwrap_or_else(|| {
            let row = self.numbers.grow("rows");
            self.group.lanes.iter().for_each(|lane| lane.reserve(row));
            row
        })
    }

    /// Takes a row number back that nobody reads any more.
    pub fn free(&mut self, row: u32) {
        self.stale = true;
        self.numbers.give_back(row);
    }

    /// Takes a segment of the index back that nobody looks at any more.
    pub fn free_segment(&mut self, place: Place) {
        self.stale = true;
        self.index.free(place);
    }

    /// Whether so much is free, of so many bytes at the least, that it is worth to move rows or segments of the index.
    pub fn is_worth_moving(&self, bytes_min: usize) -> bool {
        self.are_rows_worth_moving(bytes_min) || (self.thaw.is_none() && self.index.is_worth_walking(bytes_min))
    }

    /// Whether segments of the index are to merge. While rows are cold the index waits for them as it is.
    pub fn is_index_sparse(&self, bytes_min: usize) -> bool {
        self.thaw.is_none() && self.index.is_sparse(bytes_min)
    }

    fn are_rows_worth_moving(&self, bytes_min: usize) -> bool {
        self.numbers.is_worth(self.group.plan.row_bytes(), bytes_min)
    }

    /// Draws borders if rows or segments are to move so that memory can go back, of so many bytes at the least.
    pub fn begin_moving(&mut self, bytes_min: usize) {
        self.stale = true;
        if self.are_rows_worth_moving(bytes_min) {
            self.numbers.begin();
        }
        if self.thaw.is_none() {
            self.index.begin_moving(bytes_min);
        }
    }

    /// Whether rows or segments that were to move have not all been given back.
    pub fn is_moving(&self) -> bool {
        self.numbers.is_moving() || self.index.is_moving()
    }

    /// Whether something of the group may lie in the arena.
    pub fn has_values_apart(&self) -> bool {
        !self.group.plan.variable.is_empty() || !self.group.plan.key.inline
    }

    /// Moves what is to move of one segment of the index, that of the hash `from`. Gives what that cost, counted in rows that
    /// are looked at, and the hash of the next segment, if there is one.
    ///
    /// 1. The segment itself moves if it lies beyond the border of segments, or merges with others into one.
    /// 2. Then those of its rows do that lie beyond their border, or that have values beyond theirs if `values` says that there
    ///    are such. A row moves as an update does: a whole new version that says the same.
    pub fn move_segment(&mut self, space: &mut Space, from: u64, values: Values) -> (usize, Option<u64>) {
        self.stale = true;
        let mut cost = 1;
        let (group, arena) = (self.group.clone(), space.arena.shared().clone());
        if self.thaw.is_none() {
            if from == 0 {
                self.index.begin_walk();
            }
            let rehash = Keys { group: &group, arena: &arena, seed: space.seed };
            cost += self.index.tidy(from, rehash, space.generation, &mut space.trash);
        }
        let (place, next) = self.index.place_from(from);
        if self.numbers.is_moving() || values == Values::Move {
            for (slot, row) in group.index.entries(place) {
                cost += 1;
                if self.move_row(space, from, Found { slot, row }, values) {
                    cost += MOVE_COST;
                }
            }
        }
        if next.is_none() && self.thaw.is_none() {
            self.index.end_walk(&mut space.trash);
        }
        (cost, next)
    }

    fn move_row(&mut self, space: &mut Space, hash: u64, found: Found, values: Values) -> bool {
        let row_leaves = self.numbers.leaves(found.row);
        if !row_leaves && values == Values::Stay {
            return false;
        }
        let group = self.group.clone();
        let plan = &group.plan;
        group.load(found.row, &mut self.old);
        let left_key = self.old.key_reference(plan).filter(|key| space.arena.leaves(*key));
        let leaves = |reference| space.arena.leaves(reference);
        if !row_leaves && left_key.is_none() && !self.old.references(plan).any(leaves) {
            return false;
        }
        self.new.copy_from(&self.old);
        let mut left = Vec::new();
        for place in &plan.variable {
            let Some(value) = self.old.reference(plan, place).filter(|value| space.arena.leaves(*value)) else {
                continue;
            };
            let seed = space.seed;
            let (moved, new) =
                self.ask(place.dictionary, |dictionary| dictionary.move_user(value, seed, &mut space.arena));
            if new {
                self.arena_bytes += moved.slot_bytes() as u64;
            }
            self.new.put(plan, place, Some(&moved.0.to_le_bytes()));
            left.push((place.dictionary, value));
        }
        if let Some(key) = left_key {
            let mut bytes = Vec::with_capacity(key.len());
            space.arena.shared().read(key, &mut bytes);
            let moved = space.arena.put(&bytes);
            self.arena_bytes += moved.slot_bytes() as u64;
            self.new.set_key_bytes(plan, &moved.0.to_le_bytes());
        }
        self.publish(space, hash, Some(found));
        left.into_iter().for_each(|(dictionary, value)| self.retire_value(space, dictionary, value));
        if let Some(key) = left_key {
            self.arena_bytes -= key.slot_bytes() as u64;
            space.retire_value(key);
        }
        true
    }

    /// Gives memory of rows or segments back beyond their border, up to so many bytes; says how many.
    pub fn release(&mut self, bytes_max: usize) -> usize {
        let bytes = match self.release_rows(bytes_max) {
            0 => self.index.release(bytes_max),
            bytes => bytes,
        };
        self.stale |= bytes > 0;
        bytes
    }

    fn release_rows(&mut self, bytes_max: usize) -> usize {
        if !self.numbers.drained() {
            return 0;
        }
        let row_bytes = self.group.plan.row_bytes();
        let rows = self.numbers.release((bytes_max / row_bytes).max(1) as u32);
        let bytes = rows.len() * row_bytes;
        self.group.lanes.iter().for_each(|lane| lane.release(rows.clone()));
        bytes
    }

    /// The hash of all rows, computed again from memory, and from the snapshot where they still lie there.
    pub fn recompute_digest(&self, space: &Space) -> GroupDigest {
        let arena = space.arena.shared();
        let (mut digest, mut version) = (GroupDigest::default(), RowBuffer::default());
        let (mut key, mut scratch) = (Vec::new(), Vec::new());
        let definition = &self.group.definition;
        for row in self.index.rows() {
            self.group.load(row, &mut version);
            key.clear();
            version.key(&self.group.plan, arena, &mut key);
            let range = range_of(&self.group.key_types, definition.entity.partition_by, &key);
            digest.add(range, row_digest(definition.id, &key, &version, &self.group.plan, arena, &mut scratch));
        }
        self.visit_cold(space, |row| {
            let range = range_of(&self.group.key_types, definition.entity.partition_by, row.key);
            if let Ok((row, _)) = row.digest(definition.id, &self.group.plan, &mut scratch) {
                digest.add(range, row);
            }
        });
        digest
    }

    /// What the group's memory is used for; its share of the arena is without what is free there.
    pub fn memory(&self) -> MemoryReport {
        let used = self.rows_in_memory();
        let row_bytes = self.group.plan.row_bytes() as u64;
        let keys = used * self.group.plan.key.width as u64;
        let touched = u64::from(self.numbers.end()) * row_bytes;
        let slabs: usize = self.group.lanes.iter().map(|lane| lane.bytes(self.numbers.end())).sum();
        let buffers = [&self.old.bytes, &self.new.bytes, &self.scratch].map(|buffer| buffer.capacity());
        let cold = self.thaw.as_ref().map_or(0, Thaw::bytes);
        let made_of = cold
            + size_of::<Self>()
            + self.group.bytes()
            + self.numbers.list_bytes()
            + self.changes.bytes()
            + buffers.iter().sum::<usize>();
        MemoryReport {
            keys,
            index: (self.index.bytes() - self.index.dead_bytes()) as u64,
            lanes: used * row_bytes - keys,
            arena: self.arena_bytes,
            dictionaries: (self.dictionary_bytes + vec_bytes(&self.dictionaries)) as u64,
            dead: touched - used * row_bytes + self.index.dead_bytes() as u64,
            overhead: slabs as u64 - touched + made_of as u64,
            rows: self.rows,
            tombstones: self.tombstones,
            logical_bytes: self.logical_bytes(),
            ..MemoryReport::default()
        }
        .summed()
    }

    /// The memory as it was accounted for last and as it is now, if it may have changed since.
    pub fn reaccount(&mut self) -> Option<(MemoryReport, MemoryReport)> {
        if !std::mem::take(&mut self.stale) {
            return None;
        }
        let now = self.memory();
        Some((std::mem::replace(&mut self.accounted, now), now))
    }

    /// Asserts what must hold of the group; adds the arena references in use, and takes from `waiting` its dead rows.
    pub fn check(&self, space: &Space, trash: &Trash, live: &mut Vec<ArenaRef>) {
        let arena = space.arena.shared();
        let plan = &self.group.plan;
        let hash_of = |row| {
            let mut key = Vec::new();
            self.group.key_of(row, arena, &mut key);
            index_hash(space.seed, &key)
        };
        self.index.check(hash_of, trash);
        let mut numbers: Vec<u32> = self.index.rows().collect();
        let (mut rows, mut tombstones, mut variable, others) = (0, 0, 0, live.len());
        let mut users: Vec<BTreeMap<ArenaRef, u32>> = vec![BTreeMap::new(); self.dictionaries.len()];
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
            live.extend(version.key_reference(plan));
            for (dictionary, reference) in version.values_apart(plan) {
                match reference.is_shared() {
                    true => *users[dictionary].entry(reference).or_default() += 1,
                    false => live.push(reference),
                }
            }
        }
        for (dictionary, users) in self.dictionaries.iter().zip(&users) {
            dictionary.check(users, space.seed, arena);
            live.extend(users.keys());
        }
        assert_eq!(self.dictionaries.iter().map(Dictionary::bytes).sum::<usize>(), self.dictionary_bytes);
        let mut cold = 0;
        self.visit_cold(space, |row| {
            let (_, bytes) = row.digest(self.id(), plan, &mut Vec::new()).expect("a row that was verified");
            variable += (row.key.len() + bytes) as u64;
            let count = if row.is_tombstone() { &mut tombstones } else { &mut rows };
            *count += 1;
            cold += 1;
        });
        assert_eq!(cold, self.thaw.as_ref().map_or(0, Thaw::left), "rows that are not in memory");
        assert_eq!((rows, tombstones, variable), (self.rows, self.tombstones, self.variable_bytes), "counts");
        let slots: usize = live[others..].iter().map(|reference| reference.slot_bytes()).sum();
        assert_eq!(slots as u64, self.arena_bytes, "bytes in the arena");
        assert!(self.stale || self.accounted == self.memory(), "what changes is accounted for");
        numbers.extend(trash.iter().filter_map(|dead| match dead {
            Dead::Row(group, row) if *group == self.id() => Some(*row),
            _ => None,
        }));
        self.numbers.check("row number", numbers);
    }
}

/// The hashes of the keys of a group's rows.
struct Keys<'a> {
    group: &'a Group,
    arena: &'a Arena,
    seed: u64,
}

impl Rehash for Keys<'_> {
    fn hash(&self, row: u32) -> u64 {
        self.group.with_key(row, self.arena, |key| index_hash(self.seed, key))
    }

    fn prefetch(&self, row: u32) {
        self.group.prefetch_key(row);
    }
}

/// Whether values in the arena are to move to other slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    Move,
    Stay,
}

/// A row of a snapshot besides its key.
pub(crate) struct RestoredRow<'a, 'v> {
    pub event_time: i64,
    pub sequence: u64,
    /// The partition time of the deletion, if it is a tombstone.
    pub tombstone: Option<i64>,
    /// By place; none of a tombstone.
    pub values: &'a [Restored<'v>],
}

/// What a row of a snapshot has of a feature.
#[derive(Clone, Copy)]
pub(crate) enum Restored<'a> {
    Nothing,
    /// A null that was written and hides a default.
    Null,
    Value(&'a [u8]),
}

#[derive(Clone, Copy)]
enum Side {
    Old,
    New,
}

/// Logical bytes of a row of a group besides its key and its values of variable length.
pub(crate) fn row_logical_bytes(group: &Group) -> u64 {
    let width = |feature: &Feature| match feature.stored_width() {
        Width::Fixed(width) => width as u64,
        Width::Variable => 8,
    };
    ROW_LOGICAL_BYTES + group.definition.features.iter().map(width).sum::<u64>()
}
