//! The writer's half of an index.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use stoa_planted::planted;
use stoa_protocol::FeatureGroupId;

use super::segment::{Place, Segment, Segments, UNIT_BYTES, UNIT_ENTRIES_MAX};
use super::{Directory, Index, first_hash, last_hash, prefix};
use crate::lanes::sync::Ordering;
use crate::lanes::{Dead, EpochCell, Trash};
use crate::memory::{ARC_BYTES, map_bytes, vec_bytes};
use crate::numbers::Numbers;

mod tidy;

/// Directory entries for each entry that segments need on average, at most: keys with one long common prefix of hash
/// could otherwise double the directory once a key.
const DIRECTORY_SLACK: usize = 8;

/// What gives the hash of the key of a row again, which an index does not keep.
pub(crate) trait Rehash {
    /// The hash.
    fn hash(&self, row: u32) -> u64;

    /// Asks for what that reads to be brought near.
    fn prefetch(&self, _row: u32) {}
}

impl<F: Fn(u32) -> u64> Rehash for F {
    fn hash(&self, row: u32) -> u64 {
        self(row)
    }
}

/// Rows behind the hashes of their keys. They lie anywhere in memory: one by one each would be waited for. (A key in the arena
/// still is, but not the reference to it.)
fn hashed(rows: impl Iterator<Item = u32>, rehash: &impl Rehash) -> Vec<(u64, u32)> {
    let rows: Vec<u32> = rows.collect();
    rows.iter().for_each(|row| rehash.prefetch(*row));
    rows.into_iter().map(|row| (rehash.hash(row), row)).collect()
}

/// A hash has so many bits, and a segment from none of them to all in common.
const DEPTHS: usize = u64::BITS as usize + 1;

const UNITS: &str = "units of an index";

/// Where a key was found; good until the next insertion.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// The place in its segment.
    pub slot: usize,
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
    /// Entries with which a segment of one unit is full.
    unit_entries_max: usize,
    /// The numbers of units: which are in a segment, or were and may be looked at, and which are free.
    units: Numbers,
    segment_count: usize,
    /// Units of those segments.
    used_units: usize,
    /// Those that have more than one.
    large: BTreeSet<Place>,
    /// Places of such that nobody looks at any more, for the next of their size: no more of them than there are large segments.
    runs: VecDeque<Place>,
    /// Segments by their depth.
    depths: Box<[u32; DEPTHS]>,
    /// Entries of all segments.
    entries: usize,
    /// Whether segments may have come to have few entries since the last walk over them began.
    thinned: bool,
}

impl IndexWriter {
    /// An index without keys, of this group. A segment is full with so many entries, 2 to [`UNIT_ENTRIES_MAX`].
    pub fn new(group: FeatureGroupId, unit_entries_max: usize) -> Self {
        let segments = Segments::new();
        let mut units = Numbers::default();
        let place = Place::new(units.grow(UNITS), 0);
        segments.reserve(place);
        let directory = Arc::new(Directory::new(0, [place].into_iter()));
        let shared = Arc::new(Index { segments, directory: EpochCell::new(directory.clone()) });
        let mut depths = Box::new([0; DEPTHS]);
        depths[0] = 1;
        Self {
            group,
            shared,
            directory,
            heads: vec![Head::default()],
            unit_entries_max: unit_entries_max.clamp(2, UNIT_ENTRIES_MAX),
            units,
            segment_count: 1,
            used_units: 1,
            large: BTreeSet::new(),
            runs: VecDeque::new(),
            depths,
            entries: 0,
            thinned: false,
        }
    }

    /// Makes the directory of an index without keys as large as so many will need, which come in the order of their hashes, as
    /// those of a snapshot do. While all hashes begin alike splitting divides nothing, and the directory would not grow: the
    /// segment would double in place, and half of all keys come to lie in one. So that chance does not bring more to a place
    /// than fit, there is room for twice as many.
    pub fn expect(&mut self, keys: u64, trash: &mut Trash) {
        assert_eq!((self.entries, self.segment_count), (0, 1), "keys are expected before the first has come");
        let depth = (keys * 2).div_ceil(self.unit_entries_max as u64).max(1).next_power_of_two().ilog2();
        let place = self.place(0);
        self.replace_directory(Directory::new(depth, std::iter::repeat_n(place, 1 << depth)), trash);
    }

    /// The readers' half.
    pub fn shared(&self) -> &Arc<Index> {
        &self.shared
    }

    /// Bytes in memory, those of segments that wait for readers and of free ones among them.
    pub fn bytes(&self) -> usize {
        let units = self.shared.segments.bytes(self.heads.len() as u32);
        let lists = vec_bytes(&self.heads) + self.units.list_bytes() + self.runs.capacity() * size_of::<Place>();
        let large = map_bytes(self.large.len(), size_of::<Place>());
        units + lists + large + size_of_val(&*self.depths) + self.directory.bytes() + ARC_BYTES + size_of::<Index>()
    }

    /// Bytes among them of segments that wait for readers, and of free ones.
    pub fn dead_bytes(&self) -> usize {
        (self.heads.len() - self.used_units) * UNIT_BYTES
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
        rehash: impl Rehash,
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
        self.entries += 1;
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

    /// Takes entries out, which are given by ascending hash: each segment that has some is replaced by one without them.
    /// Nothing is taken out of a segment in place, since a probe ends at the first empty slot; and a snapshot or a reader
    /// that holds the old one goes on with it.
    pub fn remove(&mut self, entries: &[(u64, u32)], rehash: impl Rehash, generation: u64, trash: &mut Trash) {
        debug_assert!(entries.is_sorted_by_key(|(hash, _)| *hash));
        let mut rest = entries;
        while let Some(&(hash, _)) = rest.first() {
            let old = self.place(hash);
            let Head { used, depth, .. } = self.head(old);
            let here = rest.partition_point(|(other, _)| *other <= last_hash(hash, depth));
            let mut gone: Vec<u32> = rest[..here].iter().map(|(_, row)| *row).collect();
            gone.sort_unstable();
            let stays = |row: &u32| gone.binary_search(row).is_err();
            let kept: Vec<(u64, u32)> = hashed(self.shared.rows(old).filter(stays), &rehash);
            assert_eq!(kept.len() + gone.len(), used as usize, "every entry that is taken out was there");
            let units_log2 = self.units_log2_for(kept.len(), old);
            let new = self.filled(units_log2, Head { generation, depth, used: 0 }, kept.into_iter());
            self.put(hash, new);
            self.retire(old, trash);
            rest = &rest[here..];
        }
        self.entries -= entries.len();
        self.thinned |= !entries.is_empty();
    }

    /// Takes a segment back that nobody looks at any more.
    pub fn free(&mut self, place: Place) {
        match place.units_log2() {
            0 => self.units.give_back(place.first()),
            _ => self.runs.push_back(place),
        }
        self.trim_runs();
    }

    /// Gives units back that lie in a row for large segments which are no more.
    fn trim_runs(&mut self) {
        while self.runs.len() > self.large.len() {
            // The oldest first: those of segments that have grown since.
            let run = self.runs.pop_front().expect("there are more than none");
            run.units().for_each(|unit| self.units.give_back(unit));
        }
        if self.runs.is_empty() {
            self.runs = VecDeque::new();
        }
    }

    /// Puts a row number into all slots of a segment, for models: nobody may see it.
    #[cfg(all(test, loom))]
    pub fn spoil(&self, place: Place, row: u32) {
        (0..self.head(place).used as usize).for_each(|slot| self.shared.segments.at(place).replace(slot, row));
    }

    /// All segments, in the order of their hashes, each once.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.places_and_entries().map(|(place, _)| place)
    }

    /// The same, each with its first entry of the directory.
    fn places_and_entries(&self) -> impl Iterator<Item = (Place, usize)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let place = Place::of_number(self.directory.places.get(at)?.load(Ordering::Relaxed));
            let first = at;
            at += 1 << (self.directory.depth - self.head(place).depth);
            Some((place, first))
        })
    }

    /// The segments that have hashes of a range, in their order, each once.
    pub fn places_between(&self, first: u64, last: u64) -> impl Iterator<Item = Place> {
        let mut next = Some(first).filter(|first| *first <= last);
        std::iter::from_fn(move || {
            let from = next?;
            let place = self.place(from);
            let end = last_hash(from, self.depth(place));
            next = end.checked_add(1).filter(|next| *next <= last);
            Some(place)
        })
    }

    /// The segment that a hash leads to, and the lowest hash that leads to the next one, if there is a next one.
    pub fn place_from(&self, hash: u64) -> (Place, Option<u64>) {
        let place = self.place(hash);
        (place, last_hash(hash, self.depth(place)).checked_add(1))
    }

    /// Bits of hash that all keys of a segment share.
    pub fn depth(&self, place: Place) -> u32 {
        self.head(place).depth
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

    /// Entries with which a segment of so many units, as a power of two, is full.
    fn entries_max(&self, units_log2: u32) -> usize {
        self.unit_entries_max << units_log2
    }

    fn is_full(&self, place: Place) -> bool {
        self.head(place).used as usize >= self.entries_max(place.units_log2())
    }

    /// The size of a segment for so many of the entries of `old`, and one more if they are not all of a full one: what is left
    /// of a large one may fit a smaller one.
    fn units_log2_for(&self, entries: usize, old: Place) -> u32 {
        let fits = |size: &u32| entries < self.entries_max(*size);
        (0..old.units_log2()).find(fits).unwrap_or(old.units_log2())
    }

    /// A segment without entries.
    fn allocate(&mut self, units_log2: u32, head: Head) -> Place {
        // One unit is what nearly all have.
        let free = match units_log2 {
            0 => self.units.take(),
            _ => self.take_run(units_log2).map(Place::first),
        };
        let first = free.unwrap_or_else(|| self.units.grow_by(1 << units_log2, UNITS).start);
        let place = Place::new(first, units_log2);
        if free.is_none() {
            self.shared.segments.reserve(place);
            self.heads.resize(self.units.end() as usize, Head::default());
        }
        // Memory that went back to the system, or could not, is given out again as if it were new.
        place.units().for_each(|unit| self.shared.segments.clear(unit));
        if units_log2 > 0 {
            self.large.insert(place);
            self.keep_large();
        }
        self.depths[head.depth as usize] += 1;
        *self.head_mut(place) = head;
        self.used_units += place.units().len();
        place
    }

    /// The lowest units in a row that were a segment of this size.
    fn take_run(&mut self, units_log2: u32) -> Option<Place> {
        let fits = self.runs.iter().enumerate().filter(|(_, run)| run.units_log2() == units_log2);
        let (at, _) = fits.min_by_key(|(_, run)| **run)?;
        self.runs.remove(at)
    }

    /// Takes a segment out of use, which nobody who comes now can reach.
    fn retire(&mut self, place: Place, trash: &mut Trash) {
        self.depths[self.head(place).depth as usize] -= 1;
        self.used_units -= place.units().len();
        if self.large.remove(&place) {
            self.keep_large();
            self.trim_runs();
        }
        trash.push(Dead::Segment(self.group, place));
    }

    /// Large segments stay where they are, as units in a row are seldom free; and so does what lies below them.
    fn keep_large(&mut self) {
        self.units.keep_below(self.large.last().map_or(0, |place| place.units().end));
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
        if head.generation >= shared_before || planted!(ChangeHeldSegment) {
            return place;
        }
        self.copy(hash, generation, trash)
    }

    /// Puts a copy in the place of the segment of a hash.
    fn copy(&mut self, hash: u64, generation: u64, trash: &mut Trash) -> Place {
        let place = self.place(hash);
        let copy = self.allocate(place.units_log2(), Head { generation, ..self.head(place) });
        let segments = &self.shared.segments;
        segments.at(copy).copy_from(segments.at(place));
        self.put(hash, copy);
        self.retire(place, trash);
        copy
    }

    /// Makes room for `hash`: its segment splits, or doubles if splitting would not divide it and the directory had to grow for
    /// that.
    fn grow(&mut self, hash: u64, rehash: &impl Rehash, generation: u64, trash: &mut Trash) {
        let old = self.place(hash);
        let depth = self.head(old).depth;
        let entries: Vec<(u64, u32)> = hashed(self.shared.rows(old), rehash);
        let half = |at: usize| entries.iter().copied().filter(move |(h, _)| prefix(*h, depth + 1) & 1 == at);
        let counts = [0, 1].map(|at| half(at).count());
        let needs_doubling = depth == self.directory.depth;
        let may_double = self.directory.places.len() * 2 <= (self.segment_count + 8) * DIRECTORY_SLACK;
        if needs_doubling && (counts.contains(&0) || !may_double) {
            let head = Head { generation, depth, used: 0 };
            let larger = self.filled(old.units_log2() + 1, head, entries.iter().copied());
            self.put(hash, larger);
        } else {
            if needs_doubling {
                self.double(trash);
            }
            let head = Head { generation, depth: depth + 1, used: 0 };
            let halves = [0, 1].map(|at| self.filled(self.units_log2_for(counts[at], old), head, half(at)));
            let shift = 63 - depth;
            for (at, place) in halves.into_iter().enumerate() {
                self.put(hash & !(1 << shift) | (at as u64) << shift, place);
            }
            self.segment_count += 1;
        }
        self.retire(old, trash);
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
        self.replace_directory(Directory::new(self.directory.depth + 1, places.flat_map(|place| [place; 2])), trash);
    }

    fn replace_directory(&mut self, new: Directory, trash: &mut Trash) {
        let old = std::mem::replace(&mut self.directory, Arc::new(new));
        self.shared.directory.replace(self.directory.clone(), old.bytes(), trash);
    }

    /// Asserts that every row is found where its hash leads, and that every unit is in use once, free once or waiting once;
    /// `hash_of` gives the hash of the key of a row.
    pub fn check(&self, hash_of: impl Fn(u32) -> u64, trash: &Trash) {
        assert_eq!(self.directory.places.len(), 1 << self.directory.depth);
        assert_eq!(self.places().count(), self.segment_count);
        let used = |place: Place| self.head(place).used as usize;
        assert_eq!(self.places().map(used).sum::<usize>(), self.entries);
        for (place, first) in self.places_and_entries() {
            let Head { depth, .. } = self.head(place);
            assert!(depth <= self.directory.depth, "the directory tells the segments apart");
            let alike = 1 << (self.directory.depth - depth);
            assert_eq!(first % alike, 0, "a segment begins where its prefix does");
            assert!(
                (first..first + alike).all(|entry| self.directory.at(entry) == place),
                "all that begins with its prefix leads to a segment"
            );
            assert_eq!(self.shared.rows(place).count(), used(place));
            assert!(used(place) <= self.entries_max(place.units_log2()));
            if let Some(smaller) = place.units_log2().checked_sub(1) {
                assert!(used(place) >= self.entries_max(smaller), "a large segment would not fit half of its units");
            }
            for row in self.shared.rows(place) {
                let hash = hash_of(row);
                assert_eq!(self.place(hash), place, "row {row} lies in the segment of its hash");
                assert!(
                    self.segment(hash).find(hash, |found| found == row).is_some(),
                    "row {row} is found by its hash"
                );
            }
        }
        let waiting = trash.iter().filter_map(|dead| match dead {
            Dead::Segment(group, place) if *group == self.group => Some(*place),
            _ => None,
        });
        assert_eq!(self.places().map(|place| place.units().len()).sum::<usize>(), self.used_units);
        assert_eq!(self.places().filter(|place| place.units_log2() > 0).collect::<BTreeSet<_>>(), self.large);
        assert_eq!(self.heads.len(), self.units.end() as usize);
        assert!(self.runs.len() <= self.large.len() && self.runs.iter().all(|run| run.units_log2() > 0));
        let mut depths = [0; DEPTHS];
        self.places().for_each(|place| depths[self.depth(place) as usize] += 1);
        assert_eq!(*self.depths, depths);
        let taken = self.places().chain(waiting).chain(self.runs.iter().copied());
        self.units.check("unit of the index", taken.flat_map(Place::units).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::index_hash;
    use crate::lanes::Epochs;

    pub(super) const GROUP: FeatureGroupId = FeatureGroupId(1);

    /// Takes back what nobody looks at.
    pub(super) fn collect(index: &mut IndexWriter, trash: &mut Trash) {
        trash.collect(|dead| {
            if let Dead::Segment(group, place) = dead {
                assert_eq!(group, GROUP);
                index.free(place);
            }
        });
    }

    pub(super) fn fill(rows: u32, hash_of: impl Fn(u32) -> u64 + Copy) -> IndexWriter {
        let (epochs, mut trash) = Epochs::new();
        let mut index = IndexWriter::new(GROUP, UNIT_ENTRIES_MAX);
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
        assert!(index.units.free() <= 1, "what a split takes out of use the next one takes");
    }

    #[test]
    fn equal_hashes_and_common_prefixes_grow_one_segment_and_no_directory() {
        let index = fill(3_000, |_| 0xdead_beef_dead_beef);
        assert_eq!((index.directory.places.len(), index.segment_count), (1, 1));
        let index = fill(3_000, |row| (0xabcd << 48) | u64::from(row) << 7);
        assert!(index.directory.places.len() <= 128, "{}", index.directory.places.len());
    }

    #[test]
    fn keys_that_come_in_the_order_of_their_hashes_are_spread_as_others_if_they_are_expected() {
        // The second count would nearly fill the places of half as many, and more than fill some of them by chance.
        for rows in [60_000_u32, 73_700] {
            let mut hashes: Vec<u64> = (0..rows).map(|row| index_hash(7, &row.to_le_bytes())).collect();
            hashes.sort_unstable();
            let hash_of = |row: u32| hashes[row as usize];
            let (_epochs, mut trash) = Epochs::new();
            let mut index = IndexWriter::new(GROUP, UNIT_ENTRIES_MAX);
            index.expect(rows.into(), &mut trash);
            for row in 0..rows {
                index.insert(hash_of(row), row, hash_of, 0, 0, &mut trash);
                collect(&mut index, &mut trash);
            }
            index.check(hash_of, &trash);
            assert!(index.large.is_empty(), "{rows} rows: {:?}", index.large);
            let others = fill(rows, |row| index_hash(7, &row.to_le_bytes())).used_units;
            assert!(index.used_units <= others + others / 8, "{rows} rows: {} units, {others}", index.used_units);
        }
    }

    #[test]
    fn a_large_segment_that_snapshots_share_again_and_again_takes_no_more_than_two_places() {
        let same = |_| 0xdead_beef_dead_beef_u64;
        let (_epochs, mut trash) = Epochs::new();
        let mut index = fill(3_000, same);
        let large = *index.large.last().expect("all have one hash");
        let mut ends = Vec::new();
        for generation in 1..6 {
            let found = index.find(same(0), |row| row == 7).expect("it was put there");
            index.replace(same(0), found, 7, generation, generation, &mut trash);
            collect(&mut index, &mut trash);
            index.check(same, &trash);
            ends.push(index.units.end());
        }
        assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
        assert_eq!(index.large.last().unwrap().units_log2(), large.units_log2());
        // Without large segments there is nothing that units in a row are for.
        let gone: Vec<(u64, u32)> = (0..3_000).map(|row| (same(row), row)).collect();
        index.remove(&gone, same, 9, &mut trash);
        collect(&mut index, &mut trash);
        index.check(same, &trash);
        assert!(index.runs.is_empty() && index.large.is_empty());
    }

    #[test]
    fn what_is_taken_out_is_gone_and_everything_else_is_found_by_those_who_come_and_those_who_hold_the_old() {
        let hash_of = |row: u32| index_hash(7, &row.to_le_bytes());
        let same = |_| 0xdead_beef_dead_beef_u64;
        let hashes: [&dyn Fn(u32) -> u64; 2] = [&hash_of, &same];
        for (hash_of, rows) in hashes.into_iter().zip([20_000, 3_000]) {
            let (epochs, mut trash) = Epochs::new();
            let mut index = fill(rows, hash_of);
            let live_bytes = |index: &IndexWriter| index.bytes() - index.dead_bytes();
            let before = live_bytes(&index);
            let reader = epochs.pin(0);
            let old: Vec<_> = index.places().collect();
            let mut gone: Vec<(u64, u32)> =
                (0..rows).filter(|row| row % 3 > 0).map(|row| (hash_of(row), row)).collect();
            gone.sort_unstable();
            index.remove(&gone, hash_of, 4, &mut trash);
            collect(&mut index, &mut trash);
            index.check(hash_of, &trash);
            for row in 0..rows {
                let found = index.find(hash_of(row), |found| found == row);
                assert_eq!(found.map(|found| found.row), (row % 3 == 0).then_some(row));
            }
            assert_eq!(old.iter().map(|place| index.shared.rows(*place).count()).sum::<usize>(), rows as usize);
            assert!(index.places().all(|place| index.head(place).generation == 4));
            let units = |places: &[Place]| places.iter().map(|place| place.units().len()).sum::<usize>();
            let now: Vec<_> = index.places().collect();
            assert!(units(&now) <= units(&old) && (units(&now) < units(&old) || units(&old) == old.len()));
            assert!(index.dead_bytes() >= units(&old) * UNIT_BYTES && live_bytes(&index) <= before + (64 << 10));
            drop(reader);
            collect(&mut index, &mut trash);
            let all = index.heads.len();
            gone.iter().for_each(|&(hash, row)| index.insert(hash, row, hash_of, 4, 0, &mut trash));
            // What has one unit finds the units that were free; larger ones double twice.
            let grown = index.heads.len() - all;
            assert!(grown <= if units(&old) == old.len() { 0 } else { 2 * units(&old) }, "{grown} units");
            index.check(hash_of, &trash);
        }
    }

    #[test]
    fn a_range_of_hashes_has_the_segments_that_it_touches_each_once() {
        let index = fill(20_000, |row| index_hash(7, &row.to_le_bytes()));
        let all: Vec<_> = index.places().collect();
        assert!(index.places_between(0, u64::MAX).eq(all.iter().copied()));
        let (low, high) = (u64::MAX / 3, u64::MAX / 3 * 2);
        let some: Vec<_> = index.places_between(low, high).collect();
        assert_eq!((some[0], some[some.len() - 1]), (index.place(low), index.place(high)));
        assert!(some.len() > 3 && some.len() < all.len());
        assert_eq!(index.places_between(high, low).count(), 0);
    }

    #[test]
    fn a_walk_from_segment_to_segment_sees_each_row_once_for_the_writer_and_for_readers() {
        for rows in [10, 20_000] {
            let index = fill(rows, |row| index_hash(7, &row.to_le_bytes()));
            let (epochs, _trash) = Epochs::new();
            let guard = epochs.pin(0);
            let view = index.shared().view(&guard);
            let (mut of_writer, mut of_reader, mut from) = (Vec::new(), Vec::new(), Some(0));
            while let Some(hash) = from {
                let (place, next) = index.place_from(hash);
                let (segment, end) = view.segment_with_end(hash);
                assert_eq!(end.checked_add(1), next);
                of_writer.extend(index.shared().entries(place).map(|(_, row)| row));
                of_reader.extend(segment.rows());
                from = next;
            }
            assert_eq!(of_writer, of_reader);
            of_writer.sort_unstable();
            assert!(of_writer.into_iter().eq(0..rows));
        }
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
        let (before, now) = (index.heads.len(), index.find(4, |row| row == 4).unwrap());
        index.replace(4, now, 78, 1, 1, &mut trash);
        assert_eq!(index.heads.len(), before, "the second change finds its own copy");
        index.check(|row| if row > 70 { u64::from(row) - 74 } else { u64::from(row) }, &trash);
        collect(&mut index, &mut trash);
        let found = index.find(5, |row| row == 5).unwrap();
        index.replace(5, found, 79, 2, 2, &mut trash);
        assert_eq!(index.heads.len(), before, "the copy for the next snapshot lies where the first segment lay");
        assert!(!rows(&index).contains(&3) && rows(&index).contains(&79));
        index.check(|row| if row > 70 { u64::from(row) - 74 } else { u64::from(row) }, &trash);
    }
}
