//! One partition: the single writer that turns commands into columns.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use stoa_planted::planted;
use stoa_protocol::key::check_key;
use stoa_protocol::message::{SessionAnswer, SessionStep, WriteAnswer};
use stoa_protocol::{ErrorBody, ErrorCode, FeatureGroup, FeatureGroupId, LogIndex, RowBatch};

use crate::digest::{Digest, definition_digest, state_digest};
use crate::group_writer::GroupWriter;
use crate::lanes::{Dead, Epochs};
use crate::memory::{MemoryReport, map_bytes};
use crate::reader::PartitionReader;
use crate::sessions::{Sessions, StepVerdict, content_hash};
use crate::shared::{GroupTable, PublishedGroup, Shared};
use crate::space::Space;
use crate::tidy::Tidy;
use crate::{Command, Outcome, RestoreError, SnapshotBase, SnapshotSource, StoreOptions};

/// The digest of sessions, definitions and time stands under this number among those of the groups: no group has it.
pub(crate) const STATE_DIGEST_ID: FeatureGroupId = FeatureGroupId(0);

/// The single writer of a partition. Equal commands give equal logical state, whatever else differs.
pub struct Partition {
    pub(crate) shared: Arc<Shared>,
    pub(crate) space: Space,
    /// In boxes, since a map would keep room for eleven wherever it has one.
    pub(crate) groups: BTreeMap<FeatureGroupId, Box<GroupWriter>>,
    pub(crate) tidy: Tidy,
    /// The sum of what the groups' memory is used for.
    groups_memory: MemoryReport,
    pub(crate) sessions: Sessions,
    /// Partition time: the largest stamp of the commands so far.
    pub(crate) time_us: i64,
    pub(crate) applied: LogIndex,
    pub(crate) definitions: u128,
}

impl Partition {
    /// An empty partition at index 0, and a reader of it.
    pub fn new(options: StoreOptions) -> (Partition, PartitionReader) {
        let (epochs, trash) = Epochs::new();
        let space = Space::new(options.index_seed, trash);
        let shared = Arc::new(Shared::new(&options, epochs, space.arena.shared().clone()));
        let reader = PartitionReader::new(shared.clone());
        let mut partition = Self {
            shared,
            space,
            groups: BTreeMap::new(),
            tidy: Tidy::default(),
            groups_memory: MemoryReport::default(),
            sessions: Sessions::default(),
            time_us: i64::MIN,
            applied: LogIndex(0),
            definitions: 0,
        };
        partition.publish();
        (partition, reader)
    }

    /// Applies a command of the log. What a command cannot do is refused by the same words everywhere; the one thing that can fail is
    /// this replica's own copy of the rows ([`Outcome::Damaged`]).
    /// Indices rise; anything else is the caller's mistake and panics.
    pub fn apply(&mut self, index: LogIndex, command: &Command) -> Outcome {
        assert!(index > self.applied, "entry {index} comes after {}: the log is applied in its order", self.applied);
        self.reclaim();
        if self.is_cold()
            && let Err(error) = self.thaw_for(command)
        {
            return Outcome::Damaged(error);
        }
        let outcome = match command {
            Command::Noop => Outcome::Noop,
            Command::Define(group) => self.define(index, group),
            Command::Write { stamp_us, step, batch } => {
                self.raise_time(*stamp_us);
                self.write(index, *step, batch)
            }
            Command::Stamp { stamp_us } => {
                self.raise_time(*stamp_us);
                Outcome::Noop
            }
            Command::Sweep(sweep) => {
                self.raise_time(sweep.stamp_us);
                let writer = self.groups.get_mut(&sweep.group);
                let removed = writer.map_or(0, |writer| writer.sweep(&mut self.space, sweep, index));
                Outcome::Swept(removed)
            }
        };
        self.applied = index;
        let rows = if let Command::Write { batch, .. } = command { batch.rows() } else { 0 };
        self.tidy_after(rows);
        self.publish();
        outcome
    }

    /// The index of the last command applied.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// A group by its number.
    pub fn group(&self, id: FeatureGroupId) -> Option<&FeatureGroup> {
        self.groups.get(&id).map(|writer| &writer.group.definition)
    }

    /// All groups, by number.
    pub fn groups(&self) -> impl Iterator<Item = &FeatureGroup> {
        self.groups.values().map(|writer| &writer.group.definition)
    }

    /// How far a writer session has come.
    pub fn session(&self, session: u128) -> SessionAnswer {
        self.sessions.answer(session)
    }

    /// The partition's time: the largest stamp of the commands so far, microseconds since
    /// 1970-01-01T00:00:00Z; `i64::MIN` before the first.
    pub fn time_us(&self) -> i64 {
        self.time_us
    }

    /// Whether the limit on logical bytes leaves room for a batch. See [`PartitionReader::admits`].
    pub fn admits(&self, batch: &RowBatch) -> Result<(), ErrorBody> {
        crate::reader::admits(&self.shared, batch)
    }

    /// The state of this moment as chunks of bytes, for another thread to take while commands go on.
    ///
    /// This call clones the index's list of segments (8 bytes for each 400 rows or so). While the source lives, the
    /// first change to each segment copies it (4 KiB), and no row number or arena slot that goes out of use is used
    /// again: memory grows by what is overwritten meanwhile ([`MemoryReport::dead`]), until the source is dropped.
    pub fn snapshot(&self) -> SnapshotSource {
        SnapshotSource::new(self, None)
    }

    /// The same, keeping the chunks of `base`, an earlier snapshot of this partition, whose rows have not changed since.
    pub fn snapshot_over(&self, base: Option<&SnapshotBase>) -> SnapshotSource {
        SnapshotSource::new(self, base)
    }

    /// Takes rows into memory that still lie in the snapshot that the partition was restored from, looking at `rows_max` at the
    /// most; whether some are left. Reads and commands go on between two calls, and are right before the first.
    ///
    /// # Errors
    /// Those rows are damaged, or are not the rows that the snapshot was taken of: the partition is of no use any more.
    pub fn thaw(&mut self, rows_max: usize) -> Result<bool, RestoreError> {
        self.reclaim();
        let mut left = rows_max;
        let ids: Vec<FeatureGroupId> = self.groups.keys().copied().collect();
        for id in ids {
            let writer = self.groups.get_mut(&id).expect("it was there above");
            if writer.thaw.is_none() {
                continue;
            }
            let old_bytes = writer.group.replaced_bytes();
            left = left.saturating_sub(writer.thaw_some(&mut self.space, left)?);
            if writer.thaw.is_none() {
                self.publish_groups(old_bytes);
            }
            if left == 0 {
                break;
            }
        }
        self.publish();
        Ok(self.is_cold())
    }

    /// Whether rows still lie in the snapshot that the partition was restored from.
    pub fn is_cold(&self) -> bool {
        self.groups.values().any(|writer| writer.thaw.is_some())
    }

    /// Whether a definition takes the place of another one, neither the same nor refused.
    fn changes_schema(&self, group: &FeatureGroup) -> bool {
        let known = self.groups.get(&group.id).map(|writer| &writer.group.definition);
        known.is_some_and(|known| known != group && group.check().is_ok() && group.follows(known).is_ok())
    }

    /// Takes in the rows of a group up to this hash.
    fn thaw_to(&mut self, group: FeatureGroupId, last_hash: u64) -> Result<(), RestoreError> {
        let Some(writer) = self.groups.get_mut(&group).filter(|writer| writer.thaw.is_some()) else { return Ok(()) };
        let old_bytes = writer.group.replaced_bytes();
        writer.thaw_to(&mut self.space, last_hash)?;
        if writer.thaw.is_none() {
            self.publish_groups(old_bytes);
        }
        Ok(())
    }

    /// Takes in what a command touches; all rows of a group whose schema changes, and those up to the end of a range that is swept.
    fn thaw_for(&mut self, command: &Command) -> Result<(), RestoreError> {
        match command {
            Command::Noop | Command::Stamp { .. } => Ok(()),
            Command::Define(group) if self.changes_schema(group) => self.thaw_to(group.id, u64::MAX),
            Command::Define(_) => Ok(()),
            Command::Sweep(sweep) => self.thaw_to(sweep.group, sweep.last_hash),
            Command::Write { batch, .. } => match self.groups.get_mut(&batch.group()) {
                Some(writer) => writer.thaw_batch(&mut self.space, batch),
                None => Ok(()),
            },
        }
    }

    /// The digest, as kept by every change.
    pub fn digest(&self) -> Digest {
        self.digest_with(|writer| writer.digest.clone())
    }

    /// The digest, computed again from memory: a difference to [`Partition::digest`] is damage.
    pub fn recompute_digest(&self) -> Digest {
        self.digest_with(|writer| writer.recompute_digest(&self.space))
    }

    /// What memory is used for.
    pub fn memory(&self) -> MemoryReport {
        let mut report = self.groups_memory;
        report.add(&self.common_memory());
        report
    }

    /// What is of no group.
    fn common_memory(&self) -> MemoryReport {
        let arena = self.space.arena.bytes();
        let trash = &self.space.trash;
        let maps = Shared::maps_bytes(self.groups.len())
            + map_bytes(self.groups.len(), size_of::<(FeatureGroupId, Box<GroupWriter>)>());
        let made_of = size_of::<Self>() + Shared::BYTES + Epochs::BYTES + maps;
        MemoryReport {
            // The groups have counted what they use of the arena, and what they do not use any more waits.
            dead: arena.free + self.space.waiting_bytes + trash.memory_bytes() as u64,
            overhead: arena.overhead + (made_of + trash.list_bytes() + self.sessions.bytes()) as u64,
            ..MemoryReport::default()
        }
        .summed()
    }

    /// Asserts all invariants. Costs as much as reading everything.
    pub fn check(&self) {
        self.sessions.check();
        let mut live = Vec::new();
        self.groups.values().for_each(|writer| writer.check(&self.space, &self.space.trash, &mut live));
        let waiting = |dead: &Dead| match dead {
            Dead::Value(reference) => Some(*reference),
            Dead::Row(..) | Dead::Segment(..) | Dead::Memory(_) => None,
        };
        let waiting: Vec<_> = self.space.trash.iter().filter_map(waiting).collect();
        let waiting_bytes: usize = waiting.iter().map(|reference| reference.slot_bytes()).sum();
        assert_eq!(waiting_bytes as u64, self.space.waiting_bytes);
        live.extend(waiting);
        self.space.arena.check(&mut live);
        assert_eq!(self.digest(), self.recompute_digest(), "the digest is that of the rows");
        let sum = self.groups().fold(0, |sum: u128, group| sum.wrapping_add(definition_digest(group)));
        assert_eq!(sum, self.definitions);
        let published = self.shared.published();
        assert_eq!((published.applied, published.memory.rows), (self.applied, self.memory().rows));
        let mut groups = MemoryReport::default();
        self.groups.values().for_each(|writer| groups.add(&writer.memory()));
        assert_eq!(groups, self.groups_memory, "the sum is that of the groups");
        assert_eq!(groups.arena + self.space.waiting_bytes, self.space.arena.bytes().used);
    }

    fn digest_with(&self, of: impl Fn(&GroupWriter) -> crate::GroupDigest) -> Digest {
        Digest {
            state: state_digest(self.sessions.digest(), self.definitions, self.time_us),
            groups: self.groups.iter().map(|(id, writer)| (*id, of(writer))).collect(),
        }
    }

    /// Time never goes back, whatever the clock of the next leader says.
    fn raise_time(&mut self, stamp_us: i64) {
        self.time_us = self.time_us.max(stamp_us);
    }

    fn define(&mut self, index: LogIndex, group: &FeatureGroup) -> Outcome {
        let refused = |code, message: String| Outcome::Refused(ErrorBody::new(code, message));
        if let Err(error) = group.check() {
            return refused(ErrorCode::BadRequest, error.to_string());
        }
        if group.id == STATE_DIGEST_ID {
            return refused(ErrorCode::BadRequest, "a feature group's number is 1 and up".into());
        }
        let Some(writer) = self.groups.get(&group.id) else {
            self.add_group(group.clone());
            return Outcome::Defined;
        };
        let known = &writer.group.definition;
        if known == group {
            return Outcome::Defined;
        }
        if let Err(why) = group.follows(known) {
            let name = known.full_name();
            return refused(ErrorCode::Conflict, format!("{name} stands at schema {}: {why}", known.schema_version));
        }
        self.definitions =
            self.definitions.wrapping_sub(definition_digest(known)).wrapping_add(definition_digest(group));
        let writer = self.groups.get_mut(&group.id).expect("it was there above");
        let old_bytes = writer.group.replaced_bytes();
        writer.extend(group.clone(), index);
        self.publish_groups(old_bytes);
        Outcome::Defined
    }

    pub(crate) fn add_group(&mut self, group: FeatureGroup) {
        self.definitions = self.definitions.wrapping_add(definition_digest(&group));
        self.groups.insert(group.id, Box::new(GroupWriter::new(group, &self.shared)));
        self.publish_groups(0);
    }

    fn write(&mut self, index: LogIndex, step: Option<SessionStep>, batch: &RowBatch) -> Outcome {
        // Before anything else: a step that was applied stays applied, whatever has become of the schema since.
        let content = step.map_or(0, |_| content_hash(batch));
        if let Some(outcome) = step.and_then(|step| self.settled(step, content)) {
            return outcome;
        }
        let Some(writer) = self.groups.get_mut(&batch.group()) else {
            let message = format!("the partition knows no feature group {}", batch.group());
            return Outcome::Refused(ErrorBody::new(ErrorCode::SchemaMismatch, message));
        };
        if let Err(error) = fits(batch, &writer.group.definition, &writer.group.key_types) {
            return Outcome::Refused(error);
        }
        if let Some(step) = step {
            self.sessions.record(step, index, content);
        }
        let older = writer.apply(&mut self.space, batch, self.time_us, index);
        let applied = (batch.rows() - older.len()) as u32;
        Outcome::Wrote(WriteAnswer { index, incarnation: self.shared.incarnation, applied, older, repeated: false })
    }

    /// The outcome of a step that is not the next one of its session.
    fn settled(&self, step: SessionStep, content: u64) -> Option<Outcome> {
        let SessionStep { session, sequence } = step;
        let (code, message) = match self.sessions.verdict(step, content) {
            StepVerdict::Next => return None,
            StepVerdict::Repeated(index) => {
                let incarnation = self.shared.incarnation;
                let answer = WriteAnswer { index, incarnation, applied: 0, older: Vec::new(), repeated: true };
                return Some(Outcome::Wrote(answer));
            }
            StepVerdict::Gap(last) => (
                ErrorCode::SessionGap,
                format!(
                    "batch {sequence} of writer session {session:032x}: the last one applied was {last} (0: none, or \
                     forgotten), so the next one is {}",
                    last.saturating_add(1)
                ),
            ),
            StepVerdict::Other => (
                ErrorCode::SessionConflict,
                format!(
                    "batch {sequence} of writer session {session:032x} was applied with other rows: two writers use one \
                     session, or a number was given twice; write these rows in a session of their own"
                ),
            ),
        };
        Some(Outcome::Refused(ErrorBody::new(code, message)))
    }

    /// Takes back what no reader can be looking at.
    pub(crate) fn reclaim(&mut self) {
        let Space { arena, trash, waiting_bytes, .. } = &mut self.space;
        trash.collect(|dead| match dead {
            Dead::Row(group, row) => {
                self.groups.get_mut(&group).expect("groups are never dropped").free(row);
            }
            Dead::Value(reference) => {
                *waiting_bytes -= reference.slot_bytes() as u64;
                arena.free(reference);
            }
            Dead::Segment(group, place) => {
                self.groups.get_mut(&group).expect("groups are never dropped").free_segment(place);
            }
            Dead::Memory(retired) => drop(retired),
        });
        self.space.notice_snapshots();
    }

    /// Lets readers see the groups as they are; so many bytes go with those that they saw before, besides their table.
    pub(crate) fn publish_groups(&mut self, old_bytes: usize) {
        let table: GroupTable = self.groups.iter().map(|(id, writer)| (*id, writer.group.clone())).collect();
        let old_bytes = old_bytes + Shared::table_bytes(table.len());
        self.shared.groups.replace(Arc::new(table), old_bytes, &mut self.space.trash);
    }

    /// Lets readers rely on everything applied so far.
    pub(crate) fn publish(&mut self) {
        let mut published = self.shared.published();
        for (id, writer) in &mut self.groups {
            if let Some((before, memory)) = writer.reaccount() {
                self.groups_memory.subtract(&before);
                self.groups_memory.add(&memory);
                published.groups.insert(*id, PublishedGroup { digest: writer.digest.total(), memory });
            }
        }
        let memory = self.memory();
        published.applied = self.applied;
        published.memory = memory;
        published.sessions = self.sessions.len();
        published.state_digest = state_digest(self.sessions.digest(), self.definitions, self.time_us);
        self.shared.untidy.store(self.is_untidy(), Ordering::Relaxed);
        self.shared.logical_bytes.store(memory.logical_bytes, Ordering::Relaxed);
        self.shared.time_us.store(self.time_us, Ordering::Relaxed);
        // Release, after all rows: a reader that sees the index sees the rows.
        self.shared.applied.store(self.applied.0, Ordering::Release);
    }
}

/// Checks again what apply relies on: version, features, types, keys, and that values can be narrowed to their storage. What it
/// does not rely on (values of strings, event times) the leader has checked alone.
fn fits(batch: &RowBatch, group: &FeatureGroup, keys: &[stoa_protocol::KeyType]) -> Result<(), ErrorBody> {
    let mismatch = |message| Err(ErrorBody::new(ErrorCode::SchemaMismatch, message));
    // Features keep their places, and the definition knows which type each had when: a batch of an earlier schema fits.
    let earlier_fits = !planted!(RefuseEarlierSchema);
    if batch.schema_version() > group.schema_version || (batch.schema_version() < group.schema_version && !earlier_fits)
    {
        return mismatch(format!(
            "the batch is of schema {}, and {} is at schema {}",
            batch.schema_version(),
            group.full_name(),
            group.schema_version
        ));
    }
    for column in batch.columns() {
        match group.features.get(usize::from(column.feature)) {
            Some(feature) if feature.type_at(batch.schema_version()) == column.ty => {}
            Some(feature) => {
                let (name, schema) = (&feature.name, batch.schema_version());
                let ty = feature.type_at(schema);
                return mismatch(format!("feature {name} is {ty} in schema {schema}, and the batch has {}", column.ty));
            }
            None => return mismatch(format!("{} has no feature {}", group.full_name(), column.feature)),
        }
    }
    for row in 0..batch.rows() {
        if let Err(error) = check_key(keys, batch.key(row)) {
            return Err(ErrorBody::new(ErrorCode::BadKey, format!("row {row} of the batch: {error}")));
        }
    }
    batch.check_storage(group)
}
