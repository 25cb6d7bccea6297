//! The writer's half of an index.

use std::sync::Arc;

use super::segment::{SEGMENT_SLOTS, Segment};
use super::{Directory, Index, prefix};
use crate::lanes::{EpochCell, Trash};

/// Directory entries for each entry that segments need on average, at most: keys with one long common prefix of hash
/// could otherwise double the directory once a key.
const DIRECTORY_SLACK: usize = 8;

/// Where a key was found; good until the next insertion.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    slot: usize,
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
        self.segment_bytes + self.directory.bytes() + self.entries.len() * size_of::<Arc<Segment>>()
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

    /// Takes entries out, which are given by ascending hash: each segment that has some is replaced by one without them.
    /// Nothing is taken out of a segment in place, since a probe ends at the first empty slot; and a snapshot or a reader
    /// that holds the old one goes on with it.
    pub fn remove(&mut self, entries: &[(u64, u32)], rehash: impl Fn(u32) -> u64, generation: u64, trash: &mut Trash) {
        debug_assert!(entries.is_sorted_by_key(|(hash, _)| *hash));
        let mut rest = entries;
        while let Some(&(hash, _)) = rest.first() {
            let old = self.segment(hash).clone();
            let here = rest.partition_point(|(other, _)| *other <= old.last_hash(hash));
            let mut gone: Vec<u32> = rest[..here].iter().map(|(_, row)| *row).collect();
            gone.sort_unstable();
            let kept = old.used() - gone.len();
            let slots = SEGMENT_SLOTS.max((kept + 1).next_power_of_two() * 2).min(old.slots());
            let new = Segment::new(old.depth, slots, generation);
            old.rows().filter(|row| gone.binary_search(row).is_err()).for_each(|row| new.insert(rehash(row), row));
            assert_eq!(new.used(), kept, "every entry that is taken out was there");
            self.segment_bytes = self.segment_bytes + new.bytes() - old.bytes();
            self.put(hash, &Arc::new(new), trash);
            rest = &rest[here..];
        }
    }

    /// The segments that have hashes of a range, in their order, each once.
    pub fn segments_between(&self, first: u64, last: u64) -> impl Iterator<Item = &Arc<Segment>> {
        let mut next = Some(first).filter(|first| *first <= last);
        std::iter::from_fn(move || {
            let from = next?;
            let segment = self.segment(from);
            next = segment.last_hash(from).checked_add(1).filter(|next| *next <= last);
            Some(segment)
        })
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

    fn segment(&self, hash: u64) -> &Arc<Segment> {
        &self.entries[prefix(hash, self.directory.depth)]
    }

    /// The segment of a hash, no part of a snapshot.
    fn own(&mut self, hash: u64, generation: u64, shared_before: u64, trash: &mut Trash) -> &Segment {
        if self.segment(hash).generation < shared_before {
            let copy = Arc::new(self.segment(hash).copy(generation));
            self.put(hash, &copy, trash);
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
            self.put(hash, &larger, trash);
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
            self.put(first, &Arc::new(half), trash);
        }
        self.segment_bytes -= old.bytes();
        self.segment_count += 1;
    }

    /// Puts a segment in all entries that begin with its prefix of `hash`.
    fn put(&mut self, hash: u64, segment: &Arc<Segment>, trash: &mut Trash) {
        let width = 1 << (self.directory.depth - segment.depth);
        let first = prefix(hash, segment.depth) * width;
        for at in first..first + width {
            self.entries[at] = segment.clone();
            self.directory.entries[at].replace(segment.clone(), trash);
        }
    }

    fn double(&mut self, trash: &mut Trash) {
        self.entries = self.entries.iter().flat_map(|segment| [segment.clone(), segment.clone()]).collect();
        self.directory = directory(self.directory.depth + 1, &self.entries);
        self.shared.directory.replace(self.directory.clone(), trash);
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

    fn fill(rows: u32, hash_of: impl Fn(u32) -> u64) -> IndexWriter {
        let (epochs, mut trash) = Epochs::new();
        let mut index = IndexWriter::new();
        for row in 0..rows {
            index.insert(hash_of(row), row, &hash_of, 0, 0, &mut trash);
            trash.collect(drop);
        }
        index.check(&hash_of);
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
    fn what_is_taken_out_is_gone_and_everything_else_is_found_by_those_who_come_and_those_who_hold_the_old() {
        let hash_of = |row: u32| index_hash(7, &row.to_le_bytes());
        let same = |_| 0xdead_beef_dead_beef_u64;
        let hashes: [&dyn Fn(u32) -> u64; 2] = [&hash_of, &same];
        for (hash_of, rows) in hashes.into_iter().zip([20_000, 3_000]) {
            let (_epochs, mut trash) = Epochs::new();
            let mut index = fill(rows, hash_of);
            let before = index.bytes();
            let old: Vec<_> = index.segments().cloned().collect();
            let mut gone: Vec<(u64, u32)> =
                (0..rows).filter(|row| row % 3 > 0).map(|row| (hash_of(row), row)).collect();
            gone.sort_unstable();
            index.remove(&gone, hash_of, 4, &mut trash);
            index.check(hash_of);
            for row in 0..rows {
                let found = index.find(hash_of(row), |found| found == row);
                assert_eq!(found.map(|found| found.row), (row % 3 == 0).then_some(row));
            }
            assert_eq!(old.iter().map(|segment| segment.rows().count()).sum::<usize>(), rows as usize);
            assert!(index.segments().all(|segment| segment.generation == 4));
            assert!(index.bytes() <= before);
            gone.iter().for_each(|&(hash, row)| index.insert(hash, row, hash_of, 4, 0, &mut trash));
            index.check(hash_of);
        }
    }

    #[test]
    fn a_range_of_hashes_has_the_segments_that_it_touches_each_once() {
        let index = fill(20_000, |row| index_hash(7, &row.to_le_bytes()));
        let all: Vec<_> = index.segments().map(Arc::as_ptr).collect();
        assert!(index.segments_between(0, u64::MAX).map(Arc::as_ptr).eq(all.iter().copied()));
        let (low, high) = (u64::MAX / 3, u64::MAX / 3 * 2);
        let some: Vec<_> = index.segments_between(low, high).map(Arc::as_ptr).collect();
        assert_eq!((some[0], some[some.len() - 1]), [low, high].map(|hash| Arc::as_ptr(index.segment(hash))).into());
        assert!(some.len() > 3 && some.len() < all.len());
        assert_eq!(index.segments_between(high, low).count(), 0);
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
