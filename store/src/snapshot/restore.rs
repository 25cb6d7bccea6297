//! Making a partition from a snapshot.

use bytes::Bytes;
use stoa_protocol::key::check_key;
use stoa_protocol::limits::VALUE_BYTES_MAX;
use stoa_protocol::{DecodeError, FeatureGroup, FeatureGroupId, Reader, Wire};

use super::chunk::{ChunkKind, open};
use super::header::Header;
use super::table::Table;
use crate::changes::Changes;
use crate::cold::Cold;
use crate::group_writer::{GroupWriter, Restored, RestoredRow};
use crate::index::index_hash;
use crate::space::Space;
use crate::{Partition, PartitionReader, StoreOptions};

/// Why bytes could not be restored. All of them mean: take another snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The bytes are no chunk of a snapshot.
    #[error("chunk {chunk} is not of a snapshot: it does not begin with SSN1")]
    Foreign {
        /// Place of the chunk, from 0.
        chunk: u32,
    },
    /// The snapshot is of a format that this version does not read.
    #[error("chunk {chunk} is of format {found}, and this version reads up to {known}")]
    Version {
        /// Place of the chunk, from 0.
        chunk: u32,
        /// The format found.
        found: u16,
        /// The format known.
        known: u16,
    },
    /// A length or a checksum does not agree.
    #[error("chunk {chunk} is damaged: its length or checksum does not agree")]
    Damaged {
        /// Place of the chunk, from 0.
        chunk: u32,
    },
    /// A chunk stands where another belongs.
    #[error("chunk {found} stands where chunk {expected} belongs")]
    Order {
        /// The place.
        expected: u32,
        /// The number that the chunk itself has.
        found: u32,
    },
    /// The chunks end before the trailer, or go on after it.
    #[error("the snapshot does not end with its trailer")]
    Incomplete,
    /// The bytes of a chunk are not what its kind has.
    #[error("the bytes of a chunk: {0}")]
    Bytes(#[from] DecodeError),
    /// The state is not the one that the snapshot was taken of.
    #[error("the restored state differs from the one that was saved: {what}")]
    Digest {
        /// What differs.
        what: String,
    },
}

impl RestoreError {
    /// The place of the chunk that is wrong, if it is one.
    pub fn chunk(&self) -> Option<u32> {
        match self {
            Self::Foreign { chunk } | Self::Version { chunk, .. } | Self::Damaged { chunk } => Some(*chunk),
            Self::Order { .. } | Self::Incomplete | Self::Bytes(_) | Self::Digest { .. } => None,
        }
    }
}

impl Partition {
    /// Makes a partition from the chunks of a [`SnapshotSource`](crate::SnapshotSource), in their order. The index seed
    /// is the snapshot's; incarnation and limit are those of `options`.
    ///
    /// Head and table are read and checked now, the chunks of rows are not looked at: each is verified at its first touch, and its
    /// rows are answered from where they lie until [`Partition::thaw`] has taken them into memory. The digest of all rows is compared
    /// once it has. A snapshot of format 1 has no table, and is read whole here.
    pub fn restore<I>(options: StoreOptions, chunks: I) -> Result<(Partition, PartitionReader), RestoreError>
    where
        I: IntoIterator,
        I::Item: Into<Bytes>,
    {
        let chunks: Vec<Bytes> = chunks.into_iter().map(Into::into).collect();
        let first = open(chunks.first().ok_or(RestoreError::Incomplete)?, 0)?;
        if first.kind != ChunkKind::Header {
            return Err(RestoreError::Incomplete);
        }
        let mut restore = Restore::begin(options, first.payload)?;
        match first.version {
            1 => restore.read_whole(&chunks)?,
            _ => restore.read_table(&chunks)?,
        }
        let Restore { mut partition, reader, .. } = restore;
        partition.publish();
        Ok((partition, reader))
    }
}

struct Restore {
    partition: Partition,
    reader: PartitionReader,
    /// Group and hash of the last row, and its key: rows ascend, which keeps any two from being of one key.
    last: Option<(FeatureGroupId, u64)>,
    last_key: Vec<u8>,
    ended: bool,
}

impl Restore {
    fn begin(options: StoreOptions, payload: &[u8]) -> Result<Self, RestoreError> {
        let header = Header::get(payload)?;
        let (mut partition, reader) = Partition::new(StoreOptions { index_seed: header.seed, ..options });
        partition.applied = header.applied;
        partition.time_us = header.time_us;
        partition.sessions = header.sessions;
        Ok(Self { partition, reader, last: None, last_key: Vec::new(), ended: false })
    }

    /// Format 2: header, definitions, chunks of rows, and the table that says which is whose.
    fn read_table(&mut self, chunks: &[Bytes]) -> Result<(), RestoreError> {
        let last = chunks.len() - 1;
        let trailer = open(&chunks[last], last as u32)?;
        if trailer.kind != ChunkKind::Trailer || trailer.version < 2 {
            return Err(RestoreError::Incomplete);
        }
        let table = Table::get(trailer.payload)?;
        let mut at = 1;
        for _ in &table.groups {
            let definition = open(chunks.get(at).ok_or(RestoreError::Incomplete)?, at as u32)?;
            if definition.kind != ChunkKind::Definition {
                return Err(RestoreError::Incomplete);
            }
            self.definition(definition.payload)?;
            at += 1;
        }
        let Partition { groups, applied, space, .. } = &mut self.partition;
        for (writer, of) in groups.values_mut().zip(&table.groups) {
            let definition = &writer.group.definition;
            if definition.id != of.id {
                return Err(RestoreError::Digest {
                    what: format!("group {} stands where {} is defined", of.id, definition.id),
                });
            }
            let end = at.checked_add(of.chunks.len()).filter(|end| *end <= last).ok_or(RestoreError::Incomplete)?;
            let here = chunks[at..end].iter().cloned().zip(at as u32..).zip(&of.chunks);
            let here = here.map(|((bytes, place), entry)| (bytes, place, *entry)).collect();
            let cold = Cold::new(of.id, definition.features.len(), here);
            writer.begin_cold(space, of, cold, *applied);
            at = end;
        }
        if at != last {
            return Err(RestoreError::Incomplete);
        }
        self.partition.publish_groups(0);
        match self.partition.digest().state == table.state {
            true => Ok(()),
            false => Err(RestoreError::Digest { what: "sessions, definitions or time".into() }),
        }
    }

    /// Format 1: rows are taken in as they come, and the trailer has their digests.
    fn read_whole(&mut self, chunks: &[Bytes]) -> Result<(), RestoreError> {
        for (place, bytes) in (1..).zip(&chunks[1..]) {
            let opened = open(bytes, place)?;
            if self.ended || opened.version != 1 {
                return Err(RestoreError::Incomplete);
            }
            match opened.kind {
                ChunkKind::Header => return Err(RestoreError::Incomplete),
                ChunkKind::Definition => self.definition(opened.payload)?,
                ChunkKind::Rows => self.rows(opened.payload)?,
                ChunkKind::Trailer => self.trailer(opened.payload)?,
            }
        }
        let applied = self.partition.applied;
        self.partition.groups.values_mut().for_each(|writer| writer.changes = Changes::new(applied));
        if self.ended { Ok(()) } else { Err(RestoreError::Incomplete) }
    }

    fn definition(&mut self, payload: &[u8]) -> Result<(), RestoreError> {
        let group = FeatureGroup::from_bytes(payload)?;
        group.check()?;
        let after_last = self.partition.groups.last_key_value().is_none_or(|(last, _)| *last < group.id);
        if group.id == FeatureGroupId(0) || !after_last || self.last.is_some() {
            return Err(DecodeError::invalid("a definition", group.id, "before all rows, by ascending number").into());
        }
        self.partition.add_group(group);
        Ok(())
    }

    fn rows(&mut self, payload: &[u8]) -> Result<(), RestoreError> {
        let mut input = Reader::new(payload);
        let id = FeatureGroupId::get(&mut input)?;
        // Key length, event time, sequence and flags at least.
        let count = input.count(19, "rows")?;
        let Partition { groups, space, .. } = &mut self.partition;
        let writer =
            groups.get_mut(&id).ok_or_else(|| DecodeError::invalid("the group of rows", id, "defined before"))?;
        let mut values = Vec::new();
        for _ in 0..count {
            let length = usize::from(u16::get(&mut input)?);
            let key = input.take(length, "a key")?;
            if let Err(error) = check_key(&writer.group.key_types, key) {
                return Err(DecodeError::invalid("a key", error, "canonical").into());
            }
            let hash = index_hash(space.seed, key);
            if self.last.is_some_and(|(last, last_hash)| (last, last_hash, &self.last_key[..]) >= (id, hash, key)) {
                return Err(DecodeError::invalid("a row", "out of order", "ascending by group, hash and key").into());
            }
            self.last = Some((id, hash));
            self.last_key.clear();
            self.last_key.extend_from_slice(key);
            restore_row(&mut input, writer, space, (key, hash), &mut values)?;
        }
        Ok(input.finish()?)
    }

    fn trailer(&mut self, payload: &[u8]) -> Result<(), RestoreError> {
        let mut input = Reader::new(payload);
        let state = u128::get(&mut input)?;
        let count = u32::get(&mut input)? as usize;
        // Each row was digested as it was read.
        let digest = self.partition.digest();
        let differs = |what: String| Err(RestoreError::Digest { what });
        if state != digest.state {
            return differs("sessions, definitions or time".into());
        }
        if count != digest.groups.len() {
            return differs(format!("{} groups of {count}", digest.groups.len()));
        }
        for (id, group) in &digest.groups {
            if (FeatureGroupId::get(&mut input)?, u128::get(&mut input)?) != (*id, group.total()) {
                return differs(format!("the rows of group {id}"));
            }
        }
        for (id, writer) in &self.partition.groups {
            let memory = writer.memory();
            if u64::get(&mut input)? != memory.rows + memory.tombstones {
                return differs(format!("the number of rows of group {id}"));
            }
        }
        self.ended = true;
        Ok(input.finish()?)
    }
}

/// Reads a row behind its key and adds it. The bytes are walked once to check them and once to take the values, so that
/// a row that breaks off leaves nothing half done.
fn restore_row<'a>(
    input: &mut Reader<'a>,
    writer: &mut GroupWriter,
    space: &mut Space,
    (key, hash): (&[u8], u64),
    values: &mut Vec<Restored<'a>>,
) -> Result<(), DecodeError> {
    let event_time = i64::get(input)?;
    let sequence = u64::get(input)?;
    let group = writer.group.clone();
    let plan = &group.plan;
    values.clear();
    let tombstone = match u8::get(input)? {
        1 => Some(i64::get(input)?),
        0 => {
            let validity = input.take(plan.features.len().div_ceil(8), "validity")?;
            let nulls = input.take(plan.defaults.len().div_ceil(8), "written nulls")?;
            let mut bit = 0;
            for (feature, place) in plan.features.iter().enumerate() {
                let present = validity[feature / 8] >> (feature % 8) & 1 == 1;
                let null = place.null.is_some() && {
                    bit += 1;
                    nulls[(bit - 1) / 8] >> ((bit - 1) % 8) & 1 == 1
                };
                values.push(match (present, place.variable) {
                    (true, _) if null => return Err(DecodeError::invalid("a written null", "a value", "a null")),
                    (false, _) if null => Restored::Null,
                    (false, _) => Restored::Nothing,
                    (true, false) => Restored::Value(input.take(place.width, "a value")?),
                    (true, true) => {
                        let length = input.count(1, "a value")?;
                        if length > VALUE_BYTES_MAX {
                            return Err(DecodeError::invalid("a value's length", length, VALUE_BYTES_MAX));
                        }
                        Restored::Value(input.take(length, "a value")?)
                    }
                });
            }
            None
        }
        other => return Err(DecodeError::invalid("a row's flags", other, "0 or 1")),
    };
    writer.restore_row(space, key, hash, &RestoredRow { event_time, sequence, tombstone, values });
    Ok(())
}
