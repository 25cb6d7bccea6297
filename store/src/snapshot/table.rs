//! The table at the end of a snapshot: what each group comes to, and where its rows lie.

use stoa_protocol::codec::{get_list, put_list};
use stoa_protocol::{DecodeError, FeatureGroupId, LogIndex, Reader, Wire};

use super::chunk::{CHUNK_BYTES_TARGET, ChunkKind, open};
use super::header::Header;
use crate::GroupDigest;

/// Most bits that tell the ranges of a group apart: chunks of 512 KiB of half a terabyte.
const DEPTH_MAX: u32 = 20;

/// One chunk of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkEntry {
    /// The hash of its first row.
    pub first_hash: u64,
    /// Its rows.
    pub rows: u32,
    /// The checksum that its frame has.
    pub crc: u32,
}
stoa_protocol::wire_struct!(ChunkEntry { first_hash, rows, crc });

/// One group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupTable {
    /// The group.
    pub id: FeatureGroupId,
    /// The digest of its rows.
    pub digest: GroupDigest,
    /// Its rows, without tombstones.
    pub rows: u64,
    /// Its tombstones.
    pub tombstones: u64,
    /// Bytes of keys and values of variable width, as they count for the limit on writes.
    pub variable_bytes: u64,
    /// Bits of the index hash that tell its ranges apart. A chunk has rows of one range.
    pub depth: u32,
    /// Its chunks, by ascending first hash.
    pub chunks: Vec<ChunkEntry>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// The digest of sessions, definitions and time.
    pub state: u128,
    /// The groups, by ascending number.
    pub groups: Vec<GroupTable>,
}

impl Table {
    /// The bytes of the trailer.
    pub fn put(&self, out: &mut Vec<u8>) {
        self.state.put(out);
        put_list(&self.groups, out);
    }

    /// Reads the bytes of a trailer.
    pub fn get(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(payload);
        let state = u128::get(&mut input)?;
        let groups: Vec<GroupTable> = get_list(&mut input, "groups")?;
        input.finish()?;
        groups.iter().try_for_each(GroupTable::check)?;
        if !groups.is_sorted_by(|one, next| one.id < next.id) {
            return Err(DecodeError::invalid("the groups of a table", "not ascending", "ascending by number"));
        }
        Ok(Self { state, groups })
    }
}

impl Wire for GroupTable {
    fn put(&self, out: &mut Vec<u8>) {
        self.id.put(out);
        self.digest.ranges.iter().for_each(|range| range.put(out));
        [self.rows, self.tombstones, self.variable_bytes].iter().for_each(|count| count.put(out));
        self.depth.put(out);
        put_list(&self.chunks, out);
    }

    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let id = FeatureGroupId::get(input)?;
        let mut digest = GroupDigest::default();
        for range in &mut digest.ranges {
            *range = u128::get(input)?;
        }
        let (rows, tombstones, variable_bytes) = (u64::get(input)?, u64::get(input)?, u64::get(input)?);
        let depth = u32::get(input)?;
        let chunks = get_list(input, "chunks")?;
        Ok(Self { id, digest, rows, tombstones, variable_bytes, depth, chunks })
    }
}

impl GroupTable {
    fn check(&self) -> Result<(), DecodeError> {
        let rows = self.chunks.iter().map(|chunk| u64::from(chunk.rows)).sum::<u64>();
        if self.rows.checked_add(self.tombstones) != Some(rows) {
            return Err(DecodeError::invalid("the rows of a group's chunks", rows, "the rows of the group"));
        }
        if self.depth > DEPTH_MAX {
            return Err(DecodeError::invalid(
                "the depth of a group's ranges",
                self.depth,
                format!("up to {DEPTH_MAX}"),
            ));
        }
        let ascends = self.chunks.is_sorted_by(|one, next| one.first_hash <= next.first_hash);
        if !ascends || self.chunks.iter().any(|chunk| chunk.rows == 0) {
            return Err(DecodeError::invalid(
                "the chunks of a group",
                "empty or not ascending",
                "ascending, none empty",
            ));
        }
        Ok(())
    }
}

/// How many bits of the hash tell the ranges of a group apart whose rows come to so many logical bytes: a function of the state
/// alone, so that equal states have equal chunks.
pub(crate) fn depth_of(logical_bytes: u64) -> u32 {
    (logical_bytes / CHUNK_BYTES_TARGET as u64).max(1).next_power_of_two().ilog2().min(DEPTH_MAX)
}

/// An earlier snapshot of the same partition, whose chunks another one may keep.
#[derive(Debug, Clone)]
pub struct SnapshotBase {
    pub(crate) seed: u64,
    pub(crate) applied: LogIndex,
    pub(crate) table: Table,
    /// The place of the first chunk of rows.
    pub(crate) rows_at: u32,
}

impl SnapshotBase {
    /// Reads it from the first and the last chunk of the snapshot; `None` if it is of a format that has no table, or damaged.
    pub fn read(first: &[u8], last: &[u8]) -> Option<Self> {
        let (head, tail) = (open(first, 0).ok()?, open(last, 0).ok()?);
        if (head.kind, tail.kind) != (ChunkKind::Header, ChunkKind::Trailer) || head.version < 2 || tail.version < 2 {
            return None;
        }
        let (header, table) = (Header::get(head.payload).ok()?, Table::get(tail.payload).ok()?);
        let rows_at = 1 + table.groups.len() as u32;
        Some(Self { seed: header.seed, applied: header.applied, table, rows_at })
    }

    /// The group's table, and the place of its first chunk.
    pub(crate) fn group(&self, id: FeatureGroupId) -> Option<(&GroupTable, u32)> {
        let mut at = self.rows_at;
        for group in &self.table.groups {
            if group.id == id {
                return Some((group, at));
            }
            at += group.chunks.len() as u32;
        }
        None
    }
}
