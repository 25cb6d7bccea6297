//! Taking cold rows into memory: the writer's side.

use std::sync::Arc;

use stoa_protocol::key::check_key;
use stoa_protocol::{DecodeError, RowBatch};

use super::{Cold, ColdRow, Lookup, ignores_damage};
use crate::GroupDigest;
use crate::digest::range_of;
use crate::group::Group;
use crate::group_writer::GroupWriter;
use crate::index::index_hash;
use crate::row::RowBuffer;
use crate::snapshot::{GroupTable, RestoreError};
use crate::space::Space;

/// Rows that are taken in at once where many must be: about a chunk.
const CHUNK_ROWS: usize = 4_096;

/// How far a group has been taken in.
pub(crate) struct Thaw {
    cold: Arc<Cold>,
    /// The chunk that is being taken in, and its next row.
    chunk: usize,
    row: usize,
    /// Rows that are not in memory yet.
    left: u64,
    /// What the rows seen come to, and what all must come to.
    seen: Sums,
    expected: Sums,
    version: RowBuffer,
    scratch: Vec<u8>,
}

/// What rows come to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Sums {
    digest: GroupDigest,
    rows: u64,
    tombstones: u64,
    variable_bytes: u64,
}

impl Thaw {
    /// Nothing has been taken in of these rows, which come to what the table says.
    pub fn new(cold: Arc<Cold>, table: &GroupTable) -> Self {
        let expected = Sums {
            digest: table.digest.clone(),
            rows: table.rows,
            tombstones: table.tombstones,
            variable_bytes: table.variable_bytes,
        };
        let (version, scratch) = (RowBuffer::default(), Vec::new());
        let left = table.rows + table.tombstones;
        Self { cold, chunk: 0, row: 0, left, seen: Sums::default(), expected, version, scratch }
    }

    /// Rows that are not in memory yet.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Bytes in the heap, without the chunks themselves.
    pub fn bytes(&self) -> usize {
        self.version.bytes.capacity() + self.scratch.capacity() + self.cold.bytes()
    }
}

impl GroupWriter {
    /// Takes in the rows that a batch touches, so that it finds them in memory.
    pub fn thaw_batch(&mut self, space: &mut Space, batch: &RowBatch) -> Result<(), RestoreError> {
        let Some(mut thaw) = self.thaw.take() else { return Ok(()) };
        self.stale = true;
        let cold = thaw.cold.clone();
        let taken = (0..batch.rows()).try_for_each(|row| {
            let key = batch.key(row);
            let hash = index_hash(space.seed, key);
            match self.is_in_memory(space, hash, key) {
                true => Ok(()),
                false => match cold.lookup(hash, key)? {
                    Lookup::Row(row) => self.take_in(space, &mut thaw, row, hash),
                    Lookup::Missing | Lookup::Thawed => Ok(()),
                },
            }
        });
        self.thaw = Some(thaw);
        taken
    }

    /// Takes in rows that nobody has touched, looking at `rows_max` at the most, and says at how many it looked. Once the group
    /// has none left, it forgets where they were; the caller publishes it then.
    pub fn thaw_some(&mut self, space: &mut Space, rows_max: usize) -> Result<usize, RestoreError> {
        let Some(mut thaw) = self.thaw.take() else { return Ok(0) };
        self.stale = true;
        let mut seen = 0;
        let cold = thaw.cold.clone();
        while seen < rows_max && thaw.chunk < cold.len() {
            match self.thaw_chunk(space, &mut thaw, &cold, rows_max - seen) {
                Ok(rows) => seen += rows,
                Err(error) => {
                    self.thaw = Some(thaw);
                    return Err(error);
                }
            }
        }
        if thaw.chunk < cold.len() {
            self.thaw = Some(thaw);
            return Ok(seen);
        }
        if (thaw.seen != thaw.expected || thaw.left > 0) && !ignores_damage() {
            let what = format!("the rows of group {}", self.group.definition.id);
            self.thaw = Some(thaw);
            return Err(RestoreError::Digest { what });
        }
        self.group = Arc::new(self.group.without_cold());
        Ok(seen)
    }

    /// Takes in all chunks that may have rows up to a hash.
    pub fn thaw_to(&mut self, space: &mut Space, last_hash: u64) -> Result<(), RestoreError> {
        let reaches = |thaw: &Thaw| thaw.chunk < thaw.cold.len() && thaw.cold.first_hash(thaw.chunk) <= last_hash;
        while self.thaw.as_ref().is_some_and(reaches) {
            self.thaw_some(space, CHUNK_ROWS)?;
        }
        Ok(())
    }

    fn thaw_chunk(
        &mut self,
        space: &mut Space,
        thaw: &mut Thaw,
        cold: &Cold,
        rows_max: usize,
    ) -> Result<usize, RestoreError> {
        let rows = cold.rows(thaw.chunk)?;
        let end = rows.len().min(thaw.row.saturating_add(rows_max));
        let seen = end - thaw.row;
        while thaw.row < end {
            let row = rows.get(thaw.row)?;
            if let Err(error) = check_key(&self.group.key_types, row.key) {
                return Err(DecodeError::invalid("a key", error, "canonical").into());
            }
            let hash = index_hash(space.seed, row.key);
            let first = cold.first_hash(thaw.chunk);
            if rows.upper(thaw.row) != (hash >> 32) as u32 || hash < first || (thaw.row == 0 && hash != first) {
                return Err(DecodeError::invalid("the hash of a row", "another's", "that of its key").into());
            }
            let (digest, bytes) = row.digest(self.group.definition.id, &self.group.plan, &mut thaw.scratch)?;
            if !self.is_in_memory(space, hash, row.key) {
                self.take_in(space, thaw, row, hash)?;
            }
            let definition = &self.group.definition;
            let range = range_of(&self.group.key_types, definition.entity.partition_by, row.key);
            thaw.seen.digest.add(range, digest);
            thaw.seen.variable_bytes += (row.key.len() + bytes) as u64;
            let count = if row.is_tombstone() { &mut thaw.seen.tombstones } else { &mut thaw.seen.rows };
            *count += 1;
            thaw.row += 1;
        }
        if thaw.row == rows.len() {
            cold.set_thawed(thaw.chunk);
            (thaw.chunk, thaw.row) = (thaw.chunk + 1, 0);
        }
        Ok(seen.max(1))
    }

    /// Visits the rows that are not in memory. Those of a damaged chunk are left out.
    pub fn visit_cold(&self, space: &Space, mut visit: impl FnMut(ColdRow<'_>)) {
        let Some(thaw) = &self.thaw else { return };
        for chunk in thaw.chunk..thaw.cold.len() {
            let Ok(rows) = thaw.cold.rows(chunk) else { continue };
            for row in (0..rows.len()).filter_map(|row| rows.get(row).ok()) {
                if !self.is_in_memory(space, index_hash(space.seed, row.key), row.key) {
                    visit(row);
                }
            }
        }
    }

    fn is_in_memory(&self, space: &Space, hash: u64, key: &[u8]) -> bool {
        let arena = space.arena.shared();
        self.index.find(hash, |row| self.group.is_key(row, key, arena)).is_some()
    }

    /// Takes in one row, whose key is not in memory. Digest and counts have it already.
    fn take_in(&mut self, space: &mut Space, thaw: &mut Thaw, row: ColdRow<'_>, hash: u64) -> Result<(), RestoreError> {
        let plan = &self.group.plan;
        // Read whole before anything is taken from the arena.
        row.lay_out(plan, &mut thaw.version)?;
        thaw.left = thaw.left.checked_sub(1).ok_or_else(|| RestoreError::Digest {
            what: format!("the number of rows of group {}", self.group.definition.id),
        })?;
        self.add_cold(space, row, hash, &mut thaw.version);
        Ok(())
    }
}

impl Group {
    /// The same group, with all its rows in memory.
    fn without_cold(&self) -> Self {
        Self {
            definition: self.definition.clone(),
            key_types: self.key_types.clone(),
            plan: self.plan.clone(),
            lanes: self.lanes.clone(),
            index: self.index.clone(),
            cold: None,
        }
    }
}
