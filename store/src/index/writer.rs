//! The writer's half of an index.

use std::sync::Arc;

use super::segment::{SEGMENT_SLOTS, Segment};
use super::{Directory, Index, prefix};
use crate::lanes::{EpochCell, Trash};
use crate::memory::{ARC_BYTES, vec_bytes};

/// Directory entries for each entry that segments need on average, at most: keys with one long common prefix of hash
/// could otherwise double the directory once a key.
const DIRECTORY_SLACK: usize = 8;

/// Where a key was found; good until the next insertion.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// The place in its segment.
    pub slot: usize,
    /// The row that holds the key now.
    pub row: u32,
}

/// The writer's half: knows every segment without following the readers' pointers.
pub(crate) struct IndexWriter {
    shared: Arc<Index>,
    directory: Arc<Directory>,
    /// The segment of each directory entry.
    entries: Vec<Arc<Segment>>,
    segment_count: usize,
    segment_bytes: usize,
}

impl IndexWriter {
    /// An index without keys.
    pub fn new() -> Self {
        let segment = Arc::new(Segment::new(0, SEGMENT_SLOTS, 0));
        let entries = vec![segment];
        let directory = directory(0, &entries);
        let shared = Arc::new(Index { directory: EpochCell::new(directory.clone()) });
        let segment_bytes = entries[0].bytes();
        Self { shared, directory, entries, segment_count: 1, segment_bytes }
    }

    /// The readers' half.
    pub fn shared(&self) -> &Arc<Index> {
        &self.shared
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.segment_bytes + self.directory.bytes() + vec_bytes(&self.entries) + ARC_BYTES + size_of::<Index>()
    }

    /// Where the key with this hash stands; `is` compares keys.
    pub fn find(&self, hash: u64, is: impl FnMut(u32) -> bool) -> Option<Found> {
        self.segment(hash).find(hash, is).map(|(slot, row)| Found { slot, row })
    }

    /// Asks for the place of a hash to be brought near.
    pub fn prefetch(&self, hash: u64) {
        self.segment(hash).prefetch(hash);
    }

    /// Publishes the row of a key that was not there. `rehash` gives the hash of the key of a row; `generation` and
    /// `shared_before` as in [`IndexWriter::replace`].
    pub fn insert(
        &mut self,
        hash: u64,
        row: u32,
        rehash: impl Fn(u32) -> u64,
        generation: u64,
        shared_before: u64,
        trash: &mut Trash,
    ) {
        while self.segment(hash).is_full() {
            self.grow(hash, &rehash, generation, trash);
        }
        self.own(hash, generation, shared_before, trash).insert(hash, row);
    }

    /// Publishes another row of a key that is there. Segments older than generation `shared_before` are part of a
    /// snapshot: such a one is copied first, as of generation `generation`.
    pub fn replace(
        &mut self,
        hash: u64,
        found: Found,
        row: u32,
        generation: u64,
        shared_before: u64,
        trash: &mut Trash,
    ) {
        self.own(hash, generation, shared_before, trash).replace(found.slot, row);
    }

    /// All segments, in the order of their hashes, each once.
    pub fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let segment = self.entries.get(at)?;
            at += 1 << (self.directory.depth - segment.depth);
            Some(segment)
        })
    }

    /// The segment that a hash leads to, and the lowest hash that leads to the next one, if there is a next one.
    pub fn segment_from(&self, hash: u64) -> (&Arc<Segment>, Option<u64>) {
        let segment = self.segment(hash);
        let next = (prefix(hash, segment.depth) as u128 + 1) << (64 - segment.depth);
        (segment, u64::try_from(next).ok())
    }

    fn segment(&self, hash: u64) -> &Arc<Segment> {
        &self.entries[prefix(hash, self.directory.depth)]
    }

    /// The segment of a hash, no part of a snapshot.
    fn own(&mut self, hash: u64, generation: u64, shared_before: u64, trash: &mut Trash) -> &Segment {
        if self.segment(hash).generation < shared_before {
            let copy = Arc::new(self.segment(hash).copy(generation));
            self.put(hash, &copy, copy.bytes(), trash);
        }
        self.segment(hash)
    }

    /// Makes room for `hash`: its segment splits, or doubles if splitting would not divide it.
    fn grow(&mut self, hash: u64, rehash: &impl Fn(u32) -> u64, generation: u64, trash: &mut Trash) {
        let old = self.segment(hash).clone();
        let entries: Vec<(u64, u32)> = old.rows().map(|row| (rehash(row), row)).collect();
        let divides = |at: usize| entries.iter().any(|(h, _)| prefix(*h, old.depth + 1) & 1 == at);
        let needs_doubling = old.depth == self.directory.depth;
        let may_double = self.entries.len() * 2 <= (self.segment_count + 8) * DIRECTORY_SLACK;
        if !(divides(0) && divides(1)) || (needs_doubling && !may_double) {
            let larger = Arc::new(Segment::new(old.depth, old.slots() * 2, generation));
            entries.iter().for_each(|&(h, row)| larger.insert(h, row));
            self.segment_bytes += larger.bytes() - old.bytes();
            self.put(hash, &larger, old.bytes(), trash);
            return;
        }
        if needs_doubling {
            self.double(trash);
        }
        let slots = |at: usize| {
            let count = entries.iter().filter(|(h, _)| prefix(*h, old.depth + 1) & 1 == at).count();
            SEGMENT_SLOTS.max((count + 1).next_power_of_two() * 2).min(old.slots())
        };
        let halves = [0, 1].map(|at| Segment::new(old.depth + 1, slots(at), generation));
        entries.iter().for_each(|&(h, row)| halves[prefix(h, old.depth + 1) & 1].insert(h, row));
        let shift = 63 - old.depth;
        for (at, half) in halves.into_iter().enumerate() {
            let first = hash & !(1 << shift) | (at as u64) << shift;
            self.segment_bytes += half.bytes();
            let old_bytes = if at == 0 { old.bytes() } else { 0 };
            self.put(first, &Arc::new(half), old_bytes, trash);
        }
        self.segment_bytes -= old.bytes();
        self.segment_count += 1;
    }

    /// Puts a segment in all entries that begin with its prefix of `hash`. So many bytes go with what stood there, which is
    /// in the trash once for each entry and counted once.
    fn put(&mut self, hash: u64, segment: &Arc<Segment>, mut old_bytes: usize, trash: &mut Trash) {
        let width = 1 << (self.directory.depth - segment.depth);
        let first = prefix(hash, segment.depth) * width;
        for at in first..first + width {
            self.entries[at] = segment.clone();
            self.directory.entries[at].replace(segment.clone(), std::mem::take(&mut old_bytes), trash);
        }
    }

    fn double(&mut self, trash: &mut Trash) {
        self.entries = self.entries.iter().flat_map(|segment| [segment.clone(), segment.clone()]).collect();
        let old_bytes = self.directory.bytes();
        self.directory = directory(self.directory.depth + 1, &self.entries);
        self.shared.directory.replace(self.directory.clone(), old_bytes, trash);
    }

    /// Asserts that every row is found where its hash leads; `hash_of` gives the hash of the key of a row.
    pub fn check(&self, hash_of: impl Fn(u32) -> u64) {
        assert_eq!(self.entries.len(), 1 << self.directory.depth);
        assert_eq!(self.segments().count(), self.segment_count);
        assert_eq!(self.segments().map(|segment| segment.bytes()).sum::<usize>(), self.segment_bytes);
        for segment in self.segments() {
            assert_eq!(segment.rows().count(), segment.used());
            for row in segment.rows() {
                let hash = hash_of(row);
                assert!(Arc::ptr_eq(self.segment(hash), segment), "row {row} lies in the segment of its hash");
                assert!(segment.find(hash, |found| found == row).is_some(), "row {row} is found by its hash");
            }
        }
    }
}

fn directory(depth: u32, entries: &[Arc<Segment>]) -> Arc<Directory> {
    Arc::new(Directory { depth, entries: entries.iter().map(|segment| EpochCell::new(segment.clone())).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::index_hash;
    use crate::lanes::Epochs;

    fn fill(rows: u32, hash_of: impl Fn(u32) -> u64 + Copy) -> IndexWriter {
        let (epochs, mut trash) = Epochs::new();
        let mut index = IndexWriter::new();
        for row in 0..rows {
            index.insert(hash_of(row), row, hash_of, 0, 0, &mut trash);
            trash.collect(drop);
        }
        index.check(hash_of);
        let guard = epochs.pin(0);
        for row in 0..rows {
            let hash = hash_of(row);
            assert_eq!(index.find(hash, |found| found == row).unwrap().row, row);
            let segment = index.shared().directory(&guard).segment(hash, &guard);
            assert_eq!(segment.find(hash, |found| found == row).unwrap().1, row);
            assert!(index.find(hash, |_| false).is_none());
        }
        index
    }

    #[test]
    fn many_keys_are_found_through_splits_and_segments_stay_small() {
        let index = fill(60_000, |row| index_hash(7, &row.to_le_bytes()));
        assert!(index.segments().all(|segment| segment.slots() == SEGMENT_SLOTS));
        assert!(index.bytes() < 60_000 * 12, "{} bytes", index.bytes());
    }

    #[test]
    fn equal_hashes_and_common_prefixes_grow_one_segment_and_no_directory() {
        let index = fill(3_000, |_| 0xdead_beef_dead_beef);
        assert_eq!((index.entries.len(), index.segment_count), (1, 1));
        let index = fill(3_000, |row| (0xabcd << 48) | u64::from(row) << 7);
        assert!(index.entries.len() <= 128, "{}", index.entries.len());
    }

    #[test]
    fn a_segment_of_a_snapshot_is_copied_before_it_changes() {
        let (_epochs, mut trash) = Epochs::new();
        let mut index = fill(10, u64::from);
        let old: Vec<_> = index.segments().cloned().collect();
        let found = index.find(3, |row| row == 3).unwrap();
        index.replace(3, found, 77, 1, 1, &mut trash);
        assert!(index.find(3, |row| row == 77).is_some());
        assert!(old[0].rows().any(|row| row == 3) && !old[0].rows().any(|row| row == 77));
        let (before, now) = (index.bytes(), index.find(4, |row| row == 4).unwrap());
        index.replace(4, now, 78, 1, 1, &mut trash);
        assert_eq!(index.bytes(), before, "the second change finds its own copy");
    }
}
