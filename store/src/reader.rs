//! Reads, on any thread, beside the writer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use stoa_planted::planted;
use stoa_protocol::key::check_key;
use stoa_protocol::limits::FRAME_BYTES_MAX;
use stoa_protocol::message::DigestAnswer;
use stoa_protocol::read::{ReadSection, SectionAnswer, SectionResult};
use stoa_protocol::types::Width;
use stoa_protocol::{ErrorBody, ErrorCode, LogIndex, RowBatch, RowOp};

use crate::gather::Gather;
use crate::group::Group;
use crate::group_writer::row_logical_bytes;
use crate::index::index_hash;
use crate::memory::MemoryReport;
use crate::partition::STATE_DIGEST_ID;
use crate::shared::Shared;

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

    /// Answers one section of a multi-get. Every row is whole and at least as new as the index in the answer; a deleted
    /// row is not found.
    ///
    /// A section of an older schema version than the group's is answered, as feature places never change; of a newer
    /// one, fails with [`ErrorCode::SchemaNotReady`].
    pub fn read(&self, section: &ReadSection) -> SectionResult {
        match self.try_read(section) {
            Ok(answer) => SectionResult::Rows(answer),
            Err(error) => SectionResult::Failed(error),
        }
    }

    /// The index of the last command that reads are sure to see.
    pub fn applied(&self) -> LogIndex {
        LogIndex(self.shared.applied.load(Ordering::Acquire))
    }

    /// The digests of one instant between two commands; those of sessions, definitions and time stand under number 0.
    pub fn digest(&self) -> DigestAnswer {
        let published = self.shared.published();
        let groups = published.groups.iter().map(|(id, digest)| (*id, *digest));
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

    /// Whether the limit on logical bytes leaves room for a batch: for the leader, before it proposes. Counts the rows
    /// that are new and all values of variable length as growth; a batch of deletes alone is always let through, as it
    /// is what makes room.
    pub fn admits(&self, batch: &RowBatch) -> Result<(), ErrorBody> {
        admits(&self.shared, batch)
    }

    fn try_read(&self, section: &ReadSection) -> Result<SectionAnswer, ErrorBody> {
        // Before the probe: every row found is at least as new.
        let applied = self.applied();
        let applied = if planted!(IgnorePosition) { applied.max(section.at_least) } else { applied };
        if section.at_least > applied {
            let message = format!("index {} was asked for, and {applied} is applied", section.at_least);
            return Err(ErrorBody::new(ErrorCode::NotCaughtUp, message));
        }
        let guard = self.shared.epochs.pin(self.home);
        let groups = self.shared.groups.load(&guard);
        let Some(group) = groups.get(&section.group) else {
            let message = format!("the partition has not learnt feature group {} yet", section.group);
            return Err(ErrorBody::new(ErrorCode::SchemaNotReady, message));
        };
        check_section(group, section)?;
        let gather = Gather::new(group, &self.shared.arena, section);
        let (statuses, event_times, columns) = gather.run(self.shared.seed, &guard)?;
        Ok(SectionAnswer {
            schema_version: group.definition.schema_version,
            applied,
            incarnation: self.shared.incarnation,
            // Nobody here knows the time, nor what the leader has: the node adds it.
            age: None,
            stale: false,
            statuses,
            event_times,
            columns,
        })
    }
}

fn check_section(group: &Group, section: &ReadSection) -> Result<(), ErrorBody> {
    let definition = &group.definition;
    if section.schema_version > definition.schema_version {
        let message = format!(
            "schema {} of {} was asked for, and the partition has learnt {}",
            section.schema_version,
            definition.full_name(),
            definition.schema_version
        );
        return Err(ErrorBody::new(ErrorCode::SchemaNotReady, message));
    }
    let mut row_bytes = 0;
    for &feature in &section.features {
        let Some(known) = definition.features.get(usize::from(feature)) else {
            let count = definition.features.len();
            let message = format!("{} has no feature {feature}, only 0 to {}", definition.full_name(), count - 1);
            return Err(ErrorBody::new(ErrorCode::NotFound, message));
        };
        row_bytes += match known.ty.width() {
            Width::Fixed(width) => width,
            Width::Variable => 4,
        };
    }
    check_answer_bytes(row_bytes.saturating_mul(section.keys.len()))?;
    for (at, key) in section.keys.iter().enumerate() {
        if let Err(error) = check_key(&group.key_types, key) {
            return Err(ErrorBody::new(ErrorCode::BadKey, format!("key {at} of the section: {error}")));
        }
    }
    Ok(())
}

/// An answer must fit a frame: a section that cannot is refused before its memory is taken.
pub(crate) fn check_answer_bytes(bytes: usize) -> Result<(), ErrorBody> {
    if bytes <= FRAME_BYTES_MAX {
        return Ok(());
    }
    let message = format!("the answer has over {FRAME_BYTES_MAX} bytes: ask for fewer keys or features at a time");
    Err(ErrorBody::new(ErrorCode::TooLarge, message))
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
    let directory = group.index.directory(&guard);
    let mut growth = 0;
    for row in 0..batch.rows() {
        let key = batch.key(row);
        let hash = index_hash(shared.seed, key);
        let is = |row| group.is_key(row, key, &shared.arena);
        if directory.segment(hash, &guard).find(hash, is).is_none() {
            growth += row_bytes + key.len() as u64;
        }
        for (at, column) in batch.columns().iter().enumerate() {
            if column.ty.width() == Width::Variable {
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
