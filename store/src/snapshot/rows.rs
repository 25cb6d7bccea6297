//! The rows of a group in the order of a snapshot: those in memory and, where a partition has not taken in all of the snapshot it
//! was restored from, those that are cold.

use std::cmp::Ordering;
use std::sync::Arc;

use stoa_protocol::Wire;

use super::restore::RestoreError;
use crate::arena::Arena;
use crate::changes::range;
use crate::cold::{Cold, ColdRow};
use crate::group::Group;
use crate::index::{Place, index_hash};
use crate::row::RowBuffer;

/// Rows by ascending hash, equal hashes by key. What they are was fixed when it was made.
pub(super) struct SortedRows {
    group: Arc<Group>,
    arena: Arc<Arena>,
    seed: u64,
    live: Live,
    cold: Option<ColdCursor>,
}

/// Segments stand in the order of their hashes, so each is sorted by itself.
struct Live {
    /// Each with the number of bits that its hashes share. None is changed or filled again before the snapshot ends.
    segments: std::vec::IntoIter<(Place, u32)>,
    /// The first hash of the next segment; `None` after the last.
    next_at: Option<u64>,
    /// The rows of the segment that has been begun: hash, key, row; last first.
    begun: Vec<(u64, Vec<u8>, u32)>,
}

struct ColdCursor {
    cold: Arc<Cold>,
    /// Those that had been taken in when the snapshot began: their rows are in memory, or were removed.
    thawed: Vec<bool>,
    chunk: usize,
    row: usize,
}

/// Which ranges are wanted.
pub(super) struct Wanted<'a> {
    /// Bits that tell them apart.
    pub depth: u32,
    /// Those that are not: their chunks are kept.
    pub kept: &'a [bool],
}

impl Wanted<'_> {
    fn has(&self, hash: u64) -> bool {
        !self.kept[range(hash, self.depth)]
    }

    /// Whether any of the hashes that begin as `first` does, in so many bits, is wanted.
    fn has_any(&self, first: u64, bits: u32) -> bool {
        let last = if bits == 0 { u64::MAX } else { first | (u64::MAX >> 1 >> (bits - 1)) };
        (range(first, self.depth)..=range(last, self.depth)).any(|range| !self.kept[range])
    }
}

impl SortedRows {
    pub fn new(group: Arc<Group>, arena: Arc<Arena>, seed: u64, segments: Vec<(Place, u32)>) -> Self {
        let cold = group.cold.clone().map(|cold| ColdCursor { thawed: cold.thawed(), cold, chunk: 0, row: 0 });
        let live = Live { segments: segments.into_iter(), next_at: Some(0), begun: Vec::new() };
        Self { group, arena, seed, live, cold }
    }

    /// The group.
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// Appends the next row that is wanted and whose range is `range`, as a snapshot has it; gives its hash and where it begins.
    pub fn put_next(
        &mut self,
        wanted: &Wanted<'_>,
        of_range: usize,
        version: &mut RowBuffer,
        out: &mut Vec<u8>,
    ) -> Result<Option<(u64, usize)>, RestoreError> {
        let live = self.live.peek(&self.group, &self.arena, self.seed, wanted).map(|(hash, key, _)| (*hash, &key[..]));
        let cold = match &mut self.cold {
            Some(cursor) => cursor.peek(self.seed, wanted)?,
            None => None,
        };
        let order = match (&live, &cold) {
            (None, None) => return Ok(None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(live), Some((hash, row))) => live.cmp(&(*hash, row.key)),
        };
        let hash = match order {
            Ordering::Greater => cold.as_ref().map(|(hash, _)| *hash),
            _ => live.map(|(hash, _)| hash),
        };
        let Some(hash) = hash.filter(|hash| range(*hash, wanted.depth) == of_range) else { return Ok(None) };
        let begins = out.len();
        if order == Ordering::Greater {
            let (_, row) = cold.expect("it is the next");
            row.lay_out(&self.group.plan, version)?;
            put_row(&self.group, row.key, version, out, |reference, out| out.extend_from_slice(row.value(reference)));
        } else {
            let (_, key, row) = self.live.begun.pop().expect("it was looked at");
            self.group.load(row, version);
            put_row(&self.group, &key, version, out, |reference, out| self.arena.read(reference, out));
        }
        // The row in memory is the newer one.
        if let Some(cursor) = self.cold.as_mut().filter(|_| order != Ordering::Less) {
            cursor.row += 1;
        }
        Ok(Some((hash, begins)))
    }
}

impl Live {
    /// The next row that is wanted.
    fn peek(&mut self, group: &Group, arena: &Arena, seed: u64, wanted: &Wanted<'_>) -> Option<&(u64, Vec<u8>, u32)> {
        while self.begun.is_empty() {
            let (place, bits) = self.segments.next()?;
            let first = self.next_at?;
            self.next_at = first.checked_add(if bits == 0 { u64::MAX } else { 1 << (64 - bits) });
            if !wanted.has_any(first, bits) {
                continue;
            }
            for row in group.index.rows(place) {
                let mut key = Vec::new();
                group.key_of(row, arena, &mut key);
                let hash = index_hash(seed, &key);
                if wanted.has(hash) {
                    self.begun.push((hash, key, row));
                }
            }
            self.begun.sort_unstable_by(|a, b| b.cmp(a));
        }
        self.begun.last()
    }
}

impl ColdCursor {
    fn peek(&mut self, seed: u64, wanted: &Wanted<'_>) -> Result<Option<(u64, ColdRow<'_>)>, RestoreError> {
        while self.chunk < self.cold.len() {
            let first = self.cold.first_hash(self.chunk);
            let last = match self.chunk + 1 < self.cold.len() {
                true => self.cold.first_hash(self.chunk + 1),
                false => u64::MAX,
            };
            let ranges = range(first, wanted.depth)..=range(last, wanted.depth);
            let skipped = self.thawed[self.chunk] || ranges.clone().all(|range| wanted.kept[range]);
            let rows = if skipped { None } else { Some(self.cold.rows(self.chunk)?) };
            while let Some(rows) = rows.filter(|rows| self.row < rows.len()) {
                let key = rows.get(self.row)?.key;
                let hash = index_hash(seed, key);
                if wanted.has(hash) {
                    let row = self.cold.rows(self.chunk)?.get(self.row)?;
                    return Ok(Some((hash, row)));
                }
                self.row += 1;
            }
            (self.chunk, self.row) = (self.chunk + 1, 0);
        }
        Ok(None)
    }
}

/// Appends a row; `read` appends the value that a reference of the version leads to.
fn put_row(
    group: &Group,
    key: &[u8],
    version: &RowBuffer,
    out: &mut Vec<u8>,
    read: impl Fn(crate::arena::ArenaRef, &mut Vec<u8>),
) {
    let plan = &group.plan;
    (key.len() as u16).put(out);
    out.extend_from_slice(key);
    version.event_time().put(out);
    version.sequence().put(out);
    if let Some(stamp_us) = version.tombstone(plan) {
        out.push(1);
        stamp_us.put(out);
        return;
    }
    out.push(0);
    let validity = out.len();
    let nulls = validity + plan.features.len().div_ceil(8);
    out.resize(nulls + plan.defaults.len().div_ceil(8), 0);
    for (bit, (feature, _)) in plan.defaults.iter().enumerate() {
        let written = version.is_null(plan, &plan.features[usize::from(*feature)]);
        out[nulls + bit / 8] |= u8::from(written) << (bit % 8);
    }
    for (feature, place) in plan.features.iter().enumerate() {
        if !version.holds(plan, feature) {
            continue;
        }
        out[validity + feature / 8] |= 1 << (feature % 8);
        match version.reference(plan, place) {
            None => out.extend_from_slice(&version.fixed(plan, feature).expect("it holds one")),
            Some(reference) => {
                (reference.len() as u32).put(out);
                read(reference, out);
            }
        }
    }
}
