//! Reads, on any thread, beside the writer.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use stoa_planted::planted;
use stoa_protocol::key::{KeyBlock, KeyRange};
use stoa_protocol::message::DigestAnswer;
use stoa_protocol::read::{Projection, SectionHead, SectionResult};
use stoa_protocol::row_block::{AnswerWriter, SectionRows, parse_answer};
use stoa_protocol::types::Width;
use stoa_protocol::{ErrorBody, ErrorCode, FeatureGroupId, LogIndex, RowBatch, RowOp};

use crate::cold::Lookup;
use crate::gather::{self, Expiry, Target};
use crate::group::Group;
use crate::group_writer::row_logical_bytes;
use crate::index::index_hash;
use crate::lanes::Guard;
use crate::memory::MemoryReport;
use crate::partition::STATE_DIGEST_ID;
use crate::projector::{self, Projector};
use crate::shared::Shared;
use crate::sweep::{self, SweepLook};

/// Reads of one partition. Takes no lock and never waits for the writer; clone it for each thread.
pub struct PartitionReader {
    shared: Arc<Shared>,
    /// The reader slot to try first, so that threads do not share a cache line.
    home: usize,
}

impl Clone for PartitionReader {
    fn clone(&self) -> Self {
        Self::new(self.shared.clone())
    }
}

impl PartitionReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { home: shared.epochs.home(), shared }
    }

    /// Reads these keys by themselves, at the time that the partition's log says. Every row is whole and at least as new as
    /// the index in the answer; a deleted row is not found. Reads of several partitions, or at a time that is known better,
    /// are done by [`read_sections`].
    ///
    /// # Errors
    /// As [`read_sections`].
    pub fn read(&self, projection: &Projection, keys: &KeyBlock, at_least: LogIndex) -> Result<SectionRows, ErrorBody> {
        let source = SectionSource { reader: self, at_least, time_us: self.time_us(), keys: keys.range(0, keys.len()) };
        let mut answer = AnswerWriter::new(1);
        let result = read_sections(projection, &[source], &mut answer).remove(0);
        let result = result.map_or_else(SectionResult::Failed, SectionResult::Rows);
        parse_answer(answer.finish(&[result]).into_body().into()).expect("what was just written").remove(0)
    }

    /// The index of the last command that reads are sure to see.
    pub fn applied(&self) -> LogIndex {
        LogIndex(self.shared.applied.load(Ordering::Acquire))
    }

    /// The partition's time as its log says it: the largest stamp so far, microseconds since 1970-01-01T00:00:00Z;
    /// `i64::MIN` before the first. As old as the last command is; what a node knows besides is the node's to add.
    pub fn time_us(&self) -> i64 {
        self.shared.time_us.load(Ordering::Relaxed)
    }

    /// Looks at the rows of a group from a hash on, until `rows_max` or more have been seen, for what a sweep would remove
    /// at this time; `None` if there is no such group. Rows that are not in memory yet are not looked at. Takes as long as reading the heads of so many rows.
    pub fn look_for_sweep(
        &self,
        group: FeatureGroupId,
        first_hash: u64,
        rows_max: usize,
        time_us: i64,
    ) -> Option<SweepLook> {
        let guard = self.shared.epochs.pin(self.home);
        let group = self.shared.groups.load(&guard).get(&group)?;
        Some(sweep::look(group, &guard, first_hash, rows_max, time_us))
    }

    /// The digests of one instant between two commands; those of sessions, definitions and time stand under number 0.
    pub fn digest(&self) -> DigestAnswer {
        let published = self.shared.published();
        let groups = published.groups.iter().map(|(id, group)| (*id, group.digest));
        DigestAnswer {
            applied: published.applied,
            groups: std::iter::once((STATE_DIGEST_ID, published.state_digest)).chain(groups).collect(),
            rows: published.memory.rows,
        }
    }

    /// Rows of all groups, without tombstones, after the last command.
    pub fn rows(&self) -> u64 {
        self.shared.published().memory.rows
    }

    /// Writer sessions that are remembered after the last command.
    pub fn sessions(&self) -> usize {
        self.shared.published().sessions
    }

    /// What memory was used for after the last command.
    pub fn memory(&self) -> MemoryReport {
        self.shared.published().memory
    }

    /// What memory was used for after the last command: by all, which is what [`PartitionReader::memory`] says, and by each
    /// group. What groups share is in the first alone.
    pub fn memory_by_group(&self) -> (MemoryReport, Vec<(FeatureGroupId, MemoryReport)>) {
        let published = self.shared.published();
        (published.memory, published.groups.iter().map(|(id, group)| (*id, group.memory)).collect())
    }

    /// Whether memory waits to be given back: worth a call of [`Partition::tidy`](crate::Partition::tidy) if no commands come.
    pub fn is_untidy(&self) -> bool {
        self.shared.untidy.load(Ordering::Relaxed)
    }

    /// What the limit on logical bytes is; `None` if there is none.
    pub fn logical_bytes_max(&self) -> Option<u64> {
        self.shared.logical_bytes_max
    }

    /// Whether the limit on logical bytes leaves room for a batch: for the leader, before it proposes. Counts the rows
    /// that are new and all values of variable length as growth; a batch of deletes alone is always let through, as it
    /// is what makes room.
    pub fn admits(&self, batch: &RowBatch) -> Result<(), ErrorBody> {
        admits(&self.shared, batch)
    }
}

/// What a section of a multi-get asks of one partition.
#[derive(Clone, Copy)]
pub struct SectionSource<'a> {
    /// The partition.
    pub reader: &'a PartitionReader,
    /// The answer must cover this index.
    pub at_least: LogIndex,
    /// The partition's time, by which rows expire; microseconds since 1970-01-01T00:00:00Z.
    pub time_us: i64,
    /// Canonical keys.
    pub keys: KeyRange<'a>,
}

/// Answers sections of one projection, each of whatever partition, into blocks of the answer: one for all, or one for each
/// lane plan, where partitions have come to different ones. Every row is whole and at least as new as the index in its
/// section's head; a deleted row is not found. A row that has outlived its group's time to live is marked as expired, with
/// its last values or none, as the group says.
///
/// A section of an older schema version than the group's is answered, as feature places never change. The answer is of the
/// group's schema as a whole, in its types, and its head says of which.
///
/// # Errors
/// Of a section, in its place. [`ErrorCode::NotCaughtUp`] if the index asked for is not applied;
/// [`ErrorCode::SchemaNotReady`] if the group, or the schema version, has not been learnt; [`ErrorCode::NotFound`] for a
/// feature that the group does not have, or not any more; [`ErrorCode::BadKey`]; [`ErrorCode::TooLarge`] where answers would
/// not fit a frame; [`ErrorCode::NotReady`] if schemas changed over and over while it was read; [`ErrorCode::ReplicaOut`] where
/// rows still lie in the snapshot of the last start and are damaged.
pub fn read_sections(
    projection: &Projection,
    sources: &[SectionSource<'_>],
    answer: &mut AnswerWriter,
) -> Vec<Result<SectionHead, ErrorBody>> {
    for _ in 0..SCHEMA_CHANGES_MAX {
        if let Some(results) = read_under_one_schema(projection, sources, answer) {
            return results;
        }
    }
    let changed = ErrorBody::new(ErrorCode::NotReady, "the schema changed while it was read");
    vec![Err(changed); sources.len()]
}

/// Reads that a change of schemas may spoil before one is given up. Changes come at the pace of people.
const SCHEMA_CHANGES_MAX: usize = 4;

/// Reads all sections, each under the schema that its partition has; `None` if one has changed meanwhile. A row that was
/// written under the new schema may have values where the old one does not look. Whoever finds such a row, finds the new
/// schema as well, since that was published before the row was; so it is enough to look once more when all is read. What
/// such a read has put into the answer stays there, and no section's result names it.
fn read_under_one_schema(
    projection: &Projection,
    sources: &[SectionSource<'_>],
    answer: &mut AnswerWriter,
) -> Option<Vec<Result<SectionHead, ErrorBody>>> {
    let stays = Stays::enter(sources);
    let before: Vec<_> = stays.schemas().collect();
    let highest = projection.features.iter().max().copied();
    let mut results = Vec::with_capacity(sources.len());
    let mut classes: Vec<Class<'_>> = Vec::with_capacity(1);
    for (at, source) in sources.iter().enumerate() {
        // Before the probes, which come after all sections: every row found is at least as new.
        let applied = source.check_applied();
        let shared = &source.reader.shared;
        let guard = stays.of(source.reader);
        let placed = applied.and_then(|applied| {
            let group = source.group(projection, highest, guard)?;
            let class = Class::of(&mut classes, group, projection);
            let (first_row, rows) = (class.rows, class.rows + source.keys.len());
            gather::check_answer_bytes(class.projector.layout.block_bytes(rows))?;
            class.rows = rows;
            class.sections.push(at);
            class.targets.push(Target {
                group,
                heads: &group.lanes[0],
                index: group.index.view(guard),
                arena: &shared.arena,
                guard,
                seed: shared.seed,
                keys: source.keys,
                first_row,
                expiry: group.definition.ttl.map(|ttl| Expiry {
                    before: group.definition.expired_before(source.time_us),
                    on_expired: ttl.on_expired,
                }),
            });
            Ok(SectionHead {
                schema_version: group.definition.schema_version,
                applied,
                incarnation: shared.incarnation,
                // Nobody here knows the time, nor what the leader has: the node adds it.
                age: None,
                stale: false,
                block: 0,
                first_row: first_row as u32,
                rows: source.keys.len() as u32,
            })
        });
        results.push(placed);
    }
    for class in &classes {
        let (number, mut block) = answer.block(&class.projector.layout, class.rows);
        let failed = gather::gather(&class.targets, &class.projector, &mut block);
        block.finish();
        for &at in &class.sections {
            if let Ok(head) = &mut results[at] {
                head.block = number;
            }
        }
        failed.into_iter().for_each(|(target, error)| results[class.sections[target]] = Err(error));
    }
    stays.schemas().eq(before).then_some(results)
}

/// What is held while a read looks at its partitions.
struct Stays<'a>(Vec<(&'a PartitionReader, Guard<'a>)>);

impl<'a> Stays<'a> {
    /// A partition has not so many places for readers as a request may have sections, so each is entered once. In one order
    /// everywhere: threads that hold the last places of some partitions never wait for each other in a circle.
    fn enter(sources: &[SectionSource<'a>]) -> Self {
        let mut readers: Vec<&'a PartitionReader> = sources.iter().map(|source| source.reader).collect();
        readers.sort_unstable_by_key(|reader| place(reader));
        readers.dedup_by_key(|reader| place(reader));
        Self(readers.into_iter().map(|reader| (reader, reader.shared.epochs.pin(reader.home))).collect())
    }

    fn of(&self, reader: &PartitionReader) -> &Guard<'a> {
        let at = self.0.binary_search_by_key(&place(reader), |stay| place(stay.0));
        &self.0[at.expect("every partition of the read was entered")].1
    }

    /// What tells the groups of each partition from those that it has after another definition.
    fn schemas(&self) -> impl Iterator<Item = *const ()> + '_ {
        self.0.iter().map(|(reader, guard)| std::ptr::from_ref(reader.shared.groups.load(guard)).cast())
    }
}

fn place(reader: &PartitionReader) -> *const Shared {
    Arc::as_ptr(&reader.shared)
}

impl SectionSource<'_> {
    fn check_applied(&self) -> Result<LogIndex, ErrorBody> {
        let applied = self.reader.applied();
        let applied = if planted!(IgnorePosition) { applied.max(self.at_least) } else { applied };
        if self.at_least > applied {
            let message = format!("index {} was asked for, and {applied} is applied", self.at_least);
            return Err(ErrorBody::new(ErrorCode::NotCaughtUp, message));
        }
        Ok(applied)
    }

    /// The group, if the section fits it; `highest` is the last of the features that are asked for, if there are any.
    fn group<'g>(
        &'g self,
        projection: &Projection,
        highest: Option<u16>,
        guard: &'g Guard<'_>,
    ) -> Result<&'g Group, ErrorBody> {
        let groups = self.reader.shared.groups.load(guard);
        let Some(group) = groups.get(&projection.group) else {
            let message = format!("the partition has not learnt feature group {} yet", projection.group);
            return Err(ErrorBody::new(ErrorCode::SchemaNotReady, message));
        };
        let definition = &group.definition;
        if projection.schema_version > definition.schema_version {
            let message = format!(
                "schema {} of {} was asked for, and the partition has learnt {}",
                projection.schema_version,
                definition.full_name(),
                definition.schema_version
            );
            return Err(ErrorBody::new(ErrorCode::SchemaNotReady, message));
        }
        let count = definition.features.len();
        if let Some(feature) = highest.filter(|feature| usize::from(*feature) >= count) {
            let message = format!("{} has no feature {feature}, only 0 to {}", definition.full_name(), count - 1);
            return Err(ErrorBody::new(ErrorCode::NotFound, message));
        }
        let dropped = |at: &&u16| definition.features[usize::from(**at)].dropped;
        let any_dropped = !group.plan.dropped.is_empty();
        if let Some(feature) = any_dropped.then(|| projection.features.iter().find(dropped)).flatten() {
            let (name, schema) = (&definition.features[usize::from(*feature)].name, definition.schema_version);
            let message =
                format!("{name} was dropped: {} has none since schema {schema} or before", definition.full_name());
            return Err(ErrorBody::new(ErrorCode::NotFound, message));
        }
        let bad = |(at, error)| ErrorBody::new(ErrorCode::BadKey, format!("key {at} of the section: {error}"));
        self.keys.check(&group.key_types).map_err(bad)?;
        Ok(group)
    }
}

/// Sections whose groups have one lane plan.
struct Class<'g> {
    fingerprint: u128,
    projector: Rc<Projector>,
    /// The places of the sections among all, and what is read for each.
    sections: Vec<usize>,
    targets: Vec<Target<'g>>,
    rows: usize,
}

impl<'g> Class<'g> {
    /// The class of a group, which is made if it is the first of its plan.
    fn of<'a>(classes: &'a mut Vec<Self>, group: &Group, projection: &Projection) -> &'a mut Self {
        let fingerprint = group.plan.fingerprint;
        let known = classes.iter().position(|class| class.fingerprint == fingerprint);
        let at = known.unwrap_or_else(|| {
            let projector = projector::compiled(&group.plan, &projection.features);
            classes.push(Self { fingerprint, projector, sections: Vec::new(), targets: Vec::new(), rows: 0 });
            classes.len() - 1
        });
        &mut classes[at]
    }
}

pub(crate) fn admits(shared: &Shared, batch: &RowBatch) -> Result<(), ErrorBody> {
    let Some(limit) = shared.logical_bytes_max else {
        return Ok(());
    };
    if (0..batch.rows()).all(|row| batch.op(row) == RowOp::Delete) {
        return Ok(());
    }
    let guard = shared.epochs.pin(0);
    let Some(group) = shared.groups.load(&guard).get(&batch.group()) else {
        let message = format!("the partition has not learnt feature group {} yet", batch.group());
        return Err(ErrorBody::new(ErrorCode::SchemaNotReady, message));
    };
    let row_bytes = row_logical_bytes(group);
    let index = group.index.view(&guard);
    let mut growth = 0;
    for row in 0..batch.rows() {
        let key = batch.key(row);
        let hash = index_hash(shared.seed, key);
        let is = |row| group.is_key(row, key, &shared.arena);
        let is_cold = || group.cold.as_ref().is_some_and(|cold| matches!(cold.lookup(hash, key), Ok(Lookup::Row(_))));
        if index.segment(hash).find(hash, is).is_none() && !is_cold() {
            growth += row_bytes + key.len() as u64;
        }
        for (at, column) in batch.columns().iter().enumerate() {
            let dropped = group.plan.features.get(usize::from(column.feature)).is_some_and(|place| place.dropped);
            if column.ty.width() == Width::Variable && !dropped {
                growth += batch.value(at, row).map_or(0, |value| value.len() as u64);
            }
        }
    }
    let used = shared.logical_bytes.load(Ordering::Relaxed);
    if used.saturating_add(growth) <= limit {
        return Ok(());
    }
    let message = format!(
        "the partition holds {used} of {limit} logical bytes and the batch may add {growth}: delete rows, raise the \
         limit or add partitions; reads go on"
    );
    Err(ErrorBody::new(ErrorCode::TooLarge, message))
}
