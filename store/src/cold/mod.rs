//! Rows that still lie in the chunks of the snapshot that a partition was restored from.
//!
//! Restoring reads the snapshot's head and its table, and no row. From then on a key that the index does not know is looked for in
//! the chunk that its hash belongs to, whose checksum is verified at its first touch. The writer takes rows into its own memory: one
//! by one where a command touches them, and chunk by chunk in bounded steps for the rest ([`thaw`]). A chunk that has been taken in
//! whole is thawed; once all are, the group forgets them, and their memory (mapped files, as a rule) is given back when the last
//! reader has left.
//!
//! Why readers are right without a lock:
//! 1. A row is taken in by an insertion into the index like any other, so a row that the index knows is never looked for here: it
//!    is the newer one.
//! 2. A reader that has not found a key in the index looks into the chunks that may have it and are not thawed. What it finds there
//!    was true when the index was asked: nobody had written the key then, and a chunk's bytes never change. If it finds nothing, and
//!    one of these chunks is thawed, it looks into the index once more: all rows of that chunk were inserted before it was said to
//!    be thawed (release).
//! 3. A deleted row leaves a tombstone in the index, which is a row: it hides the one here. Who removes tombstones for good takes in
//!    the chunks of their hashes first.

mod row;
mod thaw;

use bytes::Bytes;
use stoa_planted::planted;
use stoa_protocol::{FeatureGroupId, Reader, Wire};

pub(crate) use row::ColdRow;
pub(crate) use thaw::Thaw;

use crate::lanes::sync::{AtomicU8, Ordering};
use crate::memory::ARC_BYTES;
use crate::snapshot::{ChunkEntry, ChunkKind, RestoreError, chunk_of_rows};

/// The chunks of one group.
pub(crate) struct Cold {
    group: FeatureGroupId,
    /// Features of the definition that the rows were written under.
    features: usize,
    /// By ascending first hash.
    chunks: Vec<Chunk>,
}

/// One chunk. Nothing of its bytes is believed before they are verified.
struct Chunk {
    bytes: Bytes,
    /// Its place among the chunks of the snapshot, for people.
    place: u32,
    entry: ChunkEntry,
    state: AtomicU8,
}

const UNSEEN: u8 = 0;
const GOOD: u8 = 1;
const DAMAGED: u8 = 2;
const THAWED: u8 = 3;

/// What became of a key that was looked for.
pub(crate) enum Lookup<'a> {
    /// The chunk has been taken in: what there is of the key is in the index.
    Thawed,
    /// No such row.
    Missing,
    /// Here it is.
    Row(ColdRow<'a>),
}

/// The verified rows of a chunk.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    payload: &'a [u8],
    place: u32,
    count: usize,
    features: usize,
}

/// Group and number of rows.
const HEAD_BYTES: usize = 12;
/// The upper half of a row's hash, and where it begins.
pub(crate) const ENTRY_BYTES: usize = 8;

/// As if what cannot be read had never been.
fn ignores_damage() -> bool {
    planted!(BelieveRottenSnapshot)
}

impl Cold {
    /// The chunks of a group, each with its entry of the table and its place in the snapshot.
    pub fn new(group: FeatureGroupId, features: usize, chunks: Vec<(Bytes, u32, ChunkEntry)>) -> Self {
        let chunk = |(bytes, place, entry)| Chunk { bytes, place, entry, state: AtomicU8::new(UNSEEN) };
        Self { group, features, chunks: chunks.into_iter().map(chunk).collect() }
    }

    /// How many chunks there are.
    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    /// How many rows they can have by their size, whatever they say of themselves.
    pub fn rows_max(&self) -> u64 {
        self.chunks.iter().map(|chunk| (chunk.bytes.len() / ENTRY_BYTES) as u64).sum()
    }

    /// Bytes in the heap, without the chunks themselves.
    pub fn bytes(&self) -> usize {
        ARC_BYTES + size_of::<Self>() + self.chunks.capacity() * size_of::<Chunk>()
    }

    /// Which of them have been taken in.
    pub fn thawed(&self) -> Vec<bool> {
        self.chunks.iter().map(|chunk| chunk.state.load(Ordering::Acquire) == THAWED).collect()
    }

    /// Looks for a key that the index did not know.
    pub fn lookup(&self, hash: u64, key: &[u8]) -> Result<Lookup<'_>, RestoreError> {
        // Rows of one hash may go over the end of a chunk, and the chunk before the one that begins with this hash may have been
        // taken in when that one has not.
        let mut thawed = false;
        let first = self.chunks.partition_point(|chunk| chunk.entry.first_hash < hash).saturating_sub(1);
        for at in first..self.chunks.len() {
            let chunk = &self.chunks[at];
            if chunk.entry.first_hash > hash {
                break;
            }
            if chunk.state.load(Ordering::Acquire) == THAWED {
                thawed = true;
                continue;
            }
            if let Some(row) = self.rows(at)?.find(hash, key)? {
                return Ok(Lookup::Row(row));
            }
        }
        Ok(if thawed { Lookup::Thawed } else { Lookup::Missing })
    }

    /// The rows of a chunk, verified.
    pub fn rows(&self, at: usize) -> Result<Rows<'_>, RestoreError> {
        let chunk = &self.chunks[at];
        let state = chunk.state.load(Ordering::Acquire);
        let rows = match state {
            DAMAGED => Err(RestoreError::Damaged { chunk: chunk.place }),
            UNSEEN => self.verify(chunk),
            _ => self.trusted(chunk),
        };
        if state == UNSEEN {
            let found = if rows.is_ok() { GOOD } else { DAMAGED };
            // Others may verify it at the same time, to the same end; what has been thawed stays so.
            let _ = chunk.state.compare_exchange(UNSEEN, found, Ordering::AcqRel, Ordering::Acquire);
        }
        match rows {
            Err(_) if ignores_damage() => {
                Ok(Rows { payload: &[], place: chunk.place, count: 0, features: self.features })
            }
            rows => rows,
        }
    }

    fn verify<'a>(&'a self, chunk: &'a Chunk) -> Result<Rows<'a>, RestoreError> {
        let damaged = RestoreError::Damaged { chunk: chunk.place };
        let (kind, payload, crc) = chunk_of_rows(&chunk.bytes, chunk.place)?;
        let mut input = Reader::new(payload);
        let group = FeatureGroupId::get(&mut input)?;
        let count = input.count(ENTRY_BYTES, "rows")?;
        let fits = (kind, crc, group, count)
            == (ChunkKind::Rows, chunk.entry.crc, self.group, chunk.entry.rows as usize)
            && count > 0;
        if !fits {
            return Err(damaged);
        }
        let rows = Rows { payload, place: chunk.place, count, features: self.features };
        rows.check(chunk.entry.first_hash)?;
        Ok(rows)
    }

    /// The rows of a chunk that has been verified before.
    fn trusted<'a>(&'a self, chunk: &'a Chunk) -> Result<Rows<'a>, RestoreError> {
        let payload = crate::snapshot::payload_of(&chunk.bytes).ok_or(RestoreError::Damaged { chunk: chunk.place })?;
        Ok(Rows { payload, place: chunk.place, count: chunk.entry.rows as usize, features: self.features })
    }

    /// The first hash that may be in a chunk.
    pub fn first_hash(&self, at: usize) -> u64 {
        self.chunks[at].entry.first_hash
    }

    fn set_thawed(&self, at: usize) {
        // Release: all its rows are in the index.
        self.chunks[at].state.store(THAWED, Ordering::Release);
    }
}

impl<'a> Rows<'a> {
    /// How many there are.
    pub fn len(self) -> usize {
        self.count
    }

    /// The upper half of a row's hash.
    fn upper(self, row: usize) -> u32 {
        self.u32_at(HEAD_BYTES + row * ENTRY_BYTES)
    }

    fn u32_at(self, at: usize) -> u32 {
        let bytes = self.payload.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    /// A row by its number.
    pub fn get(self, row: usize) -> Result<ColdRow<'a>, RestoreError> {
        let at = self.u32_at(HEAD_BYTES + row * ENTRY_BYTES + 4) as usize;
        ColdRow::new(self.payload, at, self.features).map_err(|_| RestoreError::Damaged { chunk: self.place })
    }

    fn find(self, hash: u64, key: &[u8]) -> Result<Option<ColdRow<'a>>, RestoreError> {
        let wanted = (hash >> 32) as u32;
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.upper(middle) < wanted {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        for at in low..self.count {
            if self.upper(at) != wanted {
                break;
            }
            let row = self.get(at)?;
            if row.key == key {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// That the table of rows ascends and leads into the payload.
    fn check(self, first_hash: u64) -> Result<(), RestoreError> {
        let damaged = RestoreError::Damaged { chunk: self.place };
        let mut last = (0, 0);
        let rows_at = HEAD_BYTES + self.count * ENTRY_BYTES;
        for row in 0..self.count {
            let next = (self.upper(row), self.u32_at(HEAD_BYTES + row * ENTRY_BYTES + 4) as usize);
            let begins = row > 0 || (next.0 == (first_hash >> 32) as u32 && next.1 == rows_at);
            if !begins || next.0 < last.0 || (row > 0 && next.1 <= last.1) || next.1 >= self.payload.len() {
                return Err(damaged);
            }
            last = next;
        }
        Ok(())
    }
}
