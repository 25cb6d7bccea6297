//! The writer's half of an index.

use std::sync::Arc;

use stoa_protocol::FeatureGroupId;

use super::segment::{Place, Segment, Segments, UNIT_BYTES};
use super::{Directory, Index, prefix};
use crate::lanes::sync::Ordering;
use crate::lanes::{Dead, EpochCell, Trash};

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

/// What the writer knows of a segment, by the number of its first unit.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    /// When it was made, counted in snapshots: one from before a snapshot is copied before it is changed.
    generation: u64,
    /// Number of entries.
    used: u32,
    /// Bits of hash prefix that all its keys share.
    depth: u32,
}

/// The writer's half.
pub(crate) struct IndexWriter {
    /// Whose it is: what goes to the trash says so.
    group: FeatureGroupId,
    shared: Arc<Index>,
    directory: Arc<Directory>,
    heads: Vec<Head>,
    /// Units that are in no segment and that nobody looks at.
    free_units: Vec<u32>,
    segment_count: usize,
}

impl IndexWriter {
    /// An index without keys, of this group.
    pub fn new(group: FeatureGroupId) -> Self {
        let segments = Segments::new();
        let place = Place::new(0, 0);
        segments.reserve(place);
        let directory = Arc::new(Directory::new(0, [place].into_iter()));
        let shared = Arc::new(Index { segments, directory: EpochCell::new(directory.clone()) });
        let heads = vec![Head::default()];
        Self { group, shared, directory, heads, free_units: Vec::new(), segment_count: 1 }
    }

    /// The readers' half.
    pub fn shared(&self) -> &Arc<Index> {
        &self.shared
    }

    /// Bytes in memory, those of segments that wait for readers and of free ones among them.
    pub fn bytes(&self) -> usize {
        self.heads.len() * (UNIT_BYTES + size_of::<Head>()) + self.directory.bytes()
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
        while self.is_full(self.place(hash)) {
            self.grow(hash, &rehash, generation, trash);
        }
        let place = self.own(hash, generation, shared_before, trash);
        self.shared.segments.at(place).insert(hash, row);
        self.head_mut(place).used += 1;
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
        let place = self.own(hash, generation, shared_before, trash);
        self.shared.segments.at(place).replace(found.slot, row);
    }

    /// Takes a segment back that nobody looks at any more.
    pub fn free(&mut self, place: Place) {
        self.free_units.extend(place.units());
    }

    /// Puts a row number into all slots of a segment, for models: nobody may see it.
    #[cfg(all(test, loom))]
    pub fn spoil(&self, place: Place, row: u32) {
        (0..self.head(place).used as usize).for_each(|slot| self.shared.segments.at(place).replace(slot, row));
    }

    /// All segments, in the order of their hashes, each once.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let place = Place::of_number(self.directory.places.get(at)?.load(Ordering::Relaxed));
            at += 1 << (self.directory.depth - self.head(place).depth);
            Some(place)
        })
    }

    /// The rows of all segments.
    pub fn rows(&self) -> impl Iterator<Item = u32> {
        self.places().flat_map(move |place| self.shared.rows(place))
    }

    fn place(&self, hash: u64) -> Place {
        self.directory.place(hash)
    }

    fn segment(&self, hash: u64) -> Segment<'_> {
        self.shared.segments.at(self.place(hash))
    }

    fn head(&self, place: Place) -> Head {
        self.heads[place.first() as usize]
    }

    fn head_mut(&mut self, place: Place) -> &mut Head {
        &mut self.heads[place.first() as usize]
    }

    fn is_full(&self, place: Place) -> bool {
        self.head(place).used as usize >= place.entries_max()
    }

    /// A segment without entries.
    fn allocate(&mut self, units_log2: u32, head: Head) -> Place {
        // One unit is what nearly all have, and what those that are out of use are taken apart into.
        let free = if units_log2 == 0 { self.free_units.pop() } else { None };
        let place = match free {
            Some(unit) => {
                self.shared.segments.clear(unit);
                Place::new(unit, 0)
            }
            None => {
                let place = Place::new(self.heads.len() as u32, units_log2);
                self.shared.segments.reserve(place);
                self.heads.resize(place.units().end as usize, Head::default());
                place
            }
        };
        *self.head_mut(place) = head;
        place
    }

    /// A segment of these entries.
    fn filled(&mut self, units_log2: u32, head: Head, entries: impl Iterator<Item = (u64, u32)>) -> Place {
        let place = self.allocate(units_log2, head);
        for (hash, row) in entries {
            self.shared.segments.at(place).insert(hash, row);
            self.head_mut(place).used += 1;
        }
        place
    }

    /// The segment of a hash, no part of a snapshot.
    fn own(&mut self, hash: u64, generation: u64, shared_before: u64, trash: &mut Trash) -> Place {
        let place = self.place(hash);
        let head = self.head(place);
        if head.generation >= shared_before {
            return place;
        }
        let copy = self.allocate(place.units_log2(), Head { generation, ..head });
        let segments = &self.shared.segments;
        segments.at(copy).copy_from(segments.at(place));
        self.put(hash, copy);
        trash.push(Dead::Segment(self.group, place));
        copy
    }

    /// Makes room for `hash`: its segment splits, or doubles if splitting would not divide it.
    fn grow(&mut self, hash: u64, rehash: &impl Fn(u32) -> u64, generation: u64, trash: &mut Trash) {
        let old = self.place(hash);
        let depth = self.head(old).depth;
        let entries: Vec<(u64, u32)> = self.shared.rows(old).map(|row| (rehash(row), row)).collect();
        let half = |at: usize| entries.iter().copied().filter(move |(h, _)| prefix(*h, depth + 1) & 1 == at);
        let counts = [0, 1].map(|at| half(at).count());
        let needs_doubling = depth == self.directory.depth;
        let may_double = self.directory.places.len() * 2 <= (self.segment_count + 8) * DIRECTORY_SLACK;
        if counts.contains(&0) || (needs_doubling && !may_double) {
            let head = Head { generation, depth, used: 0 };
            let larger = self.filled(old.units_log2() + 1, head, entries.iter().copied());
            self.put(hash, larger);
        } else {
            if needs_doubling {
                self.double(trash);
            }
            let head = Head { generation, depth: depth + 1, used: 0 };
            let halves = [0, 1].map(|at| {
                // What is left of a large one may fit a smaller one.
                let fits = |size: &u32| counts[at] < Place::new(0, *size).entries_max();
                let units_log2 = (0..=old.units_log2()).find(fits).expect("the whole fitted in that many");
                self.filled(units_log2, head, half(at))
            });
            let shift = 63 - depth;
            for (at, place) in halves.into_iter().enumerate() {
                self.put(hash & !(1 << shift) | (at as u64) << shift, place);
            }
            self.segment_count += 1;
        }
        trash.push(Dead::Segment(self.group, old));
    }

    /// Puts a segment in all entries that begin with its prefix of `hash`.
    fn put(&self, hash: u64, place: Place) {
        let depth = self.head(place).depth;
        let width = 1 << (self.directory.depth - depth);
        let first = prefix(hash, depth) * width;
        let entries = &self.directory.places[first..first + width];
        // Release, after all that the segment has.
        entries.iter().for_each(|entry| entry.store(place.number(), Ordering::Release));
    }

    fn double(&mut self, trash: &mut Trash) {
        let places = self.directory.places.iter().map(|entry| Place::of_number(entry.load(Ordering::Relaxed)));
        self.directory = Arc::new(Directory::new(self.directory.depth + 1, places.flat_map(|place| [place; 2])));
        self.shared.directory.replace(self.directory.clone(), trash);
    }

    /// Asserts that every row is found where its hash leads, and that every unit is in use once, free once or waiting once;
    /// `hash_of` gives the hash of the key of a row.
    pub fn check(&self, hash_of: impl Fn(u32) -> u64, trash: &Trash) {
        assert_eq!(self.directory.places.len(), 1 << self.directory.depth);
        assert_eq!(self.places().count(), self.segment_count);
        for place in self.places() {
            assert_eq!(self.shared.rows(place).count(), self.head(place).used as usize);
            for row in self.shared.rows(place) {
                let hash = hash_of(row);
                assert_eq!(self.place(hash), place, "row {row} lies in the segment of its hash");
                assert!(self.segment(hash).find(hash, |found| found == row).is_some(), "row {row} is found by its hash");
            }
        }
        let waiting = trash.iter().filter_map(|dead| match dead {
            Dead::Segment(group, place) if *group == self.group => Some(*place),
            _ => None,
        });
        let mut units: Vec<u32> = self.places().chain(waiting).flat_map(Place::units).collect();
        units.extend(&self.free_units);
        units.sort_unstable();
        assert!(units.into_iter().eq(0..self.heads.len() as u32), "every unit is in use once, free once or waiting once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::index_hash;
    use crate::lanes::Epochs;

    const GROUP: FeatureGroupId = FeatureGroupId(1);

    /// Takes back what nobody looks at.
    fn collect(index: &mut IndexWriter, trash: &mut Trash) {
        trash.collect(|dead| {
            if let Dead::Segment(group, place) = dead {
                assert_eq!(group, GROUP);
                index.free(place);
            }
        });
    }

    fn fill(rows: u32, hash_of: impl Fn(u32) -> u64 + Copy) -> IndexWriter {
        let (epochs, mut trash) = Epochs::new();
        let mut index = IndexWriter::new(GROUP);
        for row in 0..rows {
            index.insert(hash_of(row), row, hash_of, 0, 0, &mut trash);
            collect(&mut index, &mut trash);
        }
        index.check(hash_of, &trash);
        let guard = epochs.pin(0);
        for row in 0..rows {
            let hash = hash_of(row);
            assert_eq!(index.find(hash, |found| found == row).unwrap().row, row);
            let view = index.shared().view(&guard);
            view.prefetch(hash);
            assert_eq!(view.segment(hash).find(hash, |found| found == row).unwrap().1, row);
            assert!(index.find(hash, |_| false).is_none());
        }
        index
    }

    #[test]
    fn many_keys_are_found_through_splits_and_segments_stay_small() {
        let index = fill(60_000, |row| index_hash(7, &row.to_le_bytes()));
        assert!(index.places().all(|place| place.units_log2() == 0));
        assert!(index.bytes() < 60_000 * 13, "{} bytes", index.bytes());
        assert!(index.free_units.len() <= 1, "what a split takes out of use the next one takes");
    }

    #[test]
    fn equal_hashes_and_common_prefixes_grow_one_segment_and_no_directory() {
        let index = fill(3_000, |_| 0xdead_beef_dead_beef);
        assert_eq!((index.directory.places.len(), index.segment_count), (1, 1));
        let index = fill(3_000, |row| (0xabcd << 48) | u64::from(row) << 7);
        assert!(index.directory.places.len() <= 128, "{}", index.directory.places.len());
    }

    #[test]
    fn a_segment_of_a_snapshot_is_copied_before_it_changes_and_is_used_again_after_it() {
        let (_epochs, mut trash) = Epochs::new();
        let mut index = fill(10, u64::from);
        let old: Vec<_> = index.places().collect();
        let found = index.find(3, |row| row == 3).unwrap();
        index.replace(3, found, 77, 1, 1, &mut trash);
        assert!(index.find(3, |row| row == 77).is_some());
        let rows = |index: &IndexWriter| index.shared.rows(old[0]).collect::<Vec<_>>();
        assert!(rows(&index).contains(&3) && !rows(&index).contains(&77));
        let (before, now) = (index.bytes(), index.find(4, |row| row == 4).unwrap());
        index.replace(4, now, 78, 1, 1, &mut trash);
        assert_eq!(index.bytes(), before, "the second change finds its own copy");
        index.check(|row| if row > 70 { u64::from(row) - 74 } else { u64::from(row) }, &trash);
        collect(&mut index, &mut trash);
        let found = index.find(5, |row| row == 5).unwrap();
        index.replace(5, found, 79, 2, 2, &mut trash);
        assert_eq!(index.bytes(), before, "the copy for the next snapshot lies where the first segment lay");
        assert!(!rows(&index).contains(&3) && rows(&index).contains(&79));
        index.check(|row| if row > 70 { u64::from(row) - 74 } else { u64::from(row) }, &trash);
    }
}
