//! How an index becomes small again, as a part of [`crate::tidy`].
//!
//! 1. A walk goes through the segments in the order of their hashes. Those that have one prefix in common, and entries that
//!    fit one unit with as much room again, become one segment of that prefix. A segment that was just made so takes as many
//!    entries as it has before it splits, and the halves of one that was just split do not merge before half of what they
//!    have is gone.
//! 2. After a walk the directory halves until it has one bit more than the deepest segment: it doubles again when that one
//!    has split twice.
//! 3. The units that were left come back once no reader can be looking at them. When many are free a border is drawn
//!    ([`crate::numbers`]), a walk copies the segments beyond it to units below, and what lies beyond goes back to the system.
//!
//! A segment or a directory is never changed for this, but replaced: a reader that holds the old one finds all in it that
//! there was when it came, as after a split. Until all entries of the directory lead to a merged segment some still lead to
//! the old ones, which say the same.
//!
//! Large segments need none of this. They are made anew without the entries that are taken out, and have at least half as
//! many entries as they take.

use super::*;

/// Segments that become one in a step, at the most: those without entries would be any number.
const MERGED_MAX: usize = 64;

/// What it costs to put an entry into another segment, counted in looks at rows: its key is read and hashed.
const REHASH_COST: usize = 4;

/// What it costs to fill a unit, counted the same.
const FILL_COST: usize = 32;

impl IndexWriter {
    /// Whether so much is free, or could be, of so many bytes at the least, that a walk is worth it.
    pub fn is_worth_walking(&self, bytes_min: usize) -> bool {
        self.units.is_worth(UNIT_BYTES, bytes_min) || self.is_sparse(bytes_min)
    }

    /// Whether segments have so few entries that more than a quarter of all units could be spared, and so many bytes at the
    /// least. Where hashes are what they should be, two neighbours that do not merge have more entries than half of what one
    /// takes, so all have a quarter and more on average. Where they are not, a walk may find nothing to merge; the next one
    /// waits until something has changed.
    pub fn is_sparse(&self, bytes_min: usize) -> bool {
        let needed = (self.entries * 4).div_ceil(self.unit_entries_max).max(1);
        let spare = self.used_units.saturating_sub(needed);
        self.thinned && spare * 4 > self.units.end() as usize && spare * UNIT_BYTES >= bytes_min
    }

    /// Draws the border if segments are to move so that memory can go back, of so many bytes at the least.
    pub fn begin_moving(&mut self, bytes_min: usize) {
        if self.units.is_worth(UNIT_BYTES, bytes_min) {
            self.units.begin();
        }
    }

    /// Whether segments that were to move have not all been given back.
    pub fn is_moving(&self) -> bool {
        self.units.is_moving()
    }

    /// Notes that a walk begins, in which [`IndexWriter::tidy`] is called for each segment.
    pub fn begin_walk(&mut self) {
        self.thinned = false;
    }

    /// Merges the segment of a hash with those behind it, as many as fit well into one, or moves it if it lies beyond the
    /// border. No snapshot is being read. `rehash` and `generation` as in [`IndexWriter::insert`]. Gives what that cost,
    /// counted in looks at rows.
    pub fn tidy(&mut self, hash: u64, rehash: impl Rehash, generation: u64, trash: &mut Trash) -> usize {
        let place = self.place(hash);
        let (depth, looked_at) = self.merged_depth(hash);
        if depth < self.depth(place) {
            return looked_at + self.merge(hash, depth, rehash, generation, trash);
        }
        if !self.units.leaves(place.first()) {
            return looked_at;
        }
        self.copy(hash, generation, trash);
        looked_at + FILL_COST
    }

    /// Notes that a walk has come to its end. If the directory can be smaller, takes as long as a doubling of it.
    pub fn end_walk(&mut self, trash: &mut Trash) {
        let deepest = self.depths.iter().rposition(|segments| *segments > 0).expect("there is a segment") as u32;
        let old_depth = self.directory.depth;
        if deepest + 1 < old_depth {
            let width = 1 << (old_depth - (deepest + 1));
            let places = (0..self.directory.places.len()).step_by(width).map(|entry| self.directory.at(entry));
            self.replace_directory(Directory::new(deepest + 1, places), trash);
        }
    }

    /// Gives memory of units back beyond the border, up to so many bytes; says how many.
    pub fn release(&mut self, bytes_max: usize) -> usize {
        if !self.units.drained() {
            return 0;
        }
        let units = self.units.release((bytes_max / UNIT_BYTES).max(1) as u32);
        let count = units.len();
        self.heads.truncate(units.start as usize);
        if self.heads.len() < self.heads.capacity() / 4 {
            self.heads.shrink_to(self.heads.len() * 2);
        }
        self.shared.segments.release(units);
        count * UNIT_BYTES
    }

    /// Bits of the shortest prefix that begins where the segment of `hash` does and whose segments all fit well into one; if
    /// there is none, those of the segment itself. And at how many segments it has looked.
    fn merged_depth(&self, hash: u64) -> (u32, usize) {
        let mut depth = self.depth(self.place(hash));
        let first = first_hash(hash, depth);
        let (mut from, mut entries, mut looked_at) = (first, 0, 0);
        while looked_at < MERGED_MAX {
            looked_at += 1;
            let (place, next) = self.place_from(from);
            entries += self.head(place).used as usize;
            if 2 * entries > self.unit_entries_max {
                break;
            }
            // So far all hashes up to `first + span`: a prefix, if they differ in their last bits alone and in all of those.
            let span = next.unwrap_or(0).wrapping_sub(1) - first;
            if span & span.wrapping_add(1) == 0 && first & span == 0 {
                depth = span.leading_zeros();
            }
            let Some(next) = next else { break };
            from = next;
        }
        (depth, looked_at)
    }

    /// Puts one segment in the place of all those that begin as `hash` does, in so many bits.
    fn merge(&mut self, hash: u64, depth: u32, rehash: impl Rehash, generation: u64, trash: &mut Trash) -> usize {
        let old: Vec<Place> = self.places_between(first_hash(hash, depth), last_hash(hash, depth)).collect();
        let rows = old.iter().flat_map(|place| self.shared.rows(*place));
        let entries = hashed(rows, &rehash);
        assert!(2 * entries.len() <= self.unit_entries_max, "{} entries are too many to merge", entries.len());
        let cost = FILL_COST + old.len() + entries.len() * REHASH_COST;
        let merged = self.filled(0, Head { generation, depth, used: 0 }, entries.into_iter());
        self.put(hash, merged);
        self.segment_count -= old.len() - 1;
        old.into_iter().for_each(|place| self.retire(place, trash));
        self.thinned = true;
        cost
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GROUP, collect, fill};
    use super::*;
    use crate::index::{IndexView, index_hash};
    use crate::lanes::Epochs;

    fn hash_of(row: u32) -> u64 {
        index_hash(7, &row.to_le_bytes())
    }

    fn remove(
        index: &mut IndexWriter,
        rows: impl Iterator<Item = u32>,
        hash_of: impl Fn(u32) -> u64,
        trash: &mut Trash,
    ) {
        let mut gone: Vec<(u64, u32)> = rows.map(|row| (hash_of(row), row)).collect();
        gone.sort_unstable();
        index.remove(&gone, hash_of, 0, trash);
    }

    /// Goes through all segments, with `between` after each.
    fn walk(
        index: &mut IndexWriter,
        hash_of: impl Fn(u32) -> u64 + Copy,
        trash: &mut Trash,
        mut between: impl FnMut(&mut IndexWriter, &mut Trash),
    ) {
        index.begin_walk();
        let mut from = Some(0);
        while let Some(hash) = from {
            index.tidy(hash, hash_of, 0, trash);
            between(index, trash);
            from = index.place_from(hash).1;
        }
        index.end_walk(trash);
        index.check(hash_of, trash);
    }

    /// Walks, moves and releases until there is nothing to do.
    fn tidy_up(index: &mut IndexWriter, hash_of: impl Fn(u32) -> u64 + Copy, trash: &mut Trash) -> usize {
        let mut walks = 0;
        while index.is_worth_walking(1) {
            walks += 1;
            assert!(walks < 20, "there is no end to it");
            index.begin_moving(1);
            walk(index, hash_of, trash, |_, _| {});
            collect(index, trash);
            while index.release(10 * UNIT_BYTES) > 0 {
                index.check(hash_of, trash);
            }
            assert!(!index.is_moving(), "nothing is left beyond the border");
        }
        walks
    }

    fn assert_found(view: IndexView<'_>, mut rows: impl Iterator<Item = u32>) {
        let lost = rows.find(|row| view.segment(hash_of(*row)).find(hash_of(*row), |found| found == *row).is_none());
        assert_eq!(lost, None, "a row that was there when the reader came");
    }

    const ROWS: u32 = 40_000;

    fn left() -> impl Iterator<Item = u32> {
        (0..ROWS).filter(|row| row % 20 == 3)
    }

    /// An index of which a twentieth is left.
    fn thinned(trash: &mut Trash) -> IndexWriter {
        let mut index = fill(ROWS, hash_of);
        remove(&mut index, (0..ROWS).filter(|row| row % 20 != 3), hash_of, trash);
        collect(&mut index, trash);
        index
    }

    #[test]
    fn segments_with_few_entries_merge_and_those_who_hold_old_ones_or_the_old_directory_find_all_in_them() {
        let (epochs, mut trash) = Epochs::new();
        let mut index = thinned(&mut trash);
        let (segments, depth) = (index.segment_count, index.directory.depth);
        let shared = index.shared().clone();
        let early = epochs.pin(0);
        let before = shared.view(&early);
        assert!(index.is_sparse(1));
        walk(&mut index, hash_of, &mut trash, |index, trash| {
            collect(index, trash);
            index.check(hash_of, trash);
            assert_found(before, left());
            assert_found(shared.view(&epochs.pin(1)), left());
        });
        assert!(index.segment_count * 8 <= segments, "{} of {segments}", index.segment_count);
        assert!(index.directory.depth + 2 < depth, "{} of {depth} bits", index.directory.depth);
        assert_found(before, left());
        assert_found(shared.view(&epochs.pin(1)), left());
        drop(early);
        collect(&mut index, &mut trash);
        index.check(hash_of, &trash);
        assert!(!index.is_sparse(1) && index.units.free() as usize > segments);
    }

    #[test]
    fn what_has_merged_does_not_split_at_once_and_what_has_split_does_not_merge() {
        let (_epochs, mut trash) = Epochs::new();
        let mut index = fill(ROWS, hash_of);
        let full: Vec<Place> = index.places().collect();
        walk(&mut index, hash_of, &mut trash, |_, _| {});
        assert!(index.places().eq(full.iter().copied()) && !index.is_sparse(1));
        let mut index = thinned(&mut trash);
        tidy_up(&mut index, hash_of, &mut trash);
        let merged = index.segment_count;
        let some = || (0..ROWS).filter(|row| row % 40 == 4);
        for row in some() {
            index.insert(hash_of(row), row, hash_of, 0, 0, &mut trash);
            collect(&mut index, &mut trash);
        }
        assert!(index.segment_count <= merged + 1, "{} of {merged}", index.segment_count);
        remove(&mut index, some(), hash_of, &mut trash);
        collect(&mut index, &mut trash);
        assert!(!index.is_sparse(1));
        // And all that there was, right after a walk.
        for row in (0..ROWS).filter(|row| row % 20 != 3) {
            index.insert(hash_of(row), row, hash_of, 0, 0, &mut trash);
            collect(&mut index, &mut trash);
        }
        index.check(hash_of, &trash);
        assert_eq!(index.segment_count, full.len(), "the same splits as before");
    }

    #[test]
    fn units_go_back_when_nobody_can_be_looking_at_them_and_are_filled_anew_when_they_are_needed() {
        let (epochs, mut trash) = Epochs::new();
        let mut index = thinned(&mut trash);
        walk(&mut index, hash_of, &mut trash, |_, _| {});
        collect(&mut index, &mut trash);
        let (units, bytes) = (index.units.end(), index.bytes());
        let shared = index.shared().clone();
        let early = epochs.pin(0);
        let before = shared.view(&early);
        assert!(index.is_worth_walking(1));
        index.begin_moving(1);
        walk(&mut index, hash_of, &mut trash, |index, trash| {
            collect(index, trash);
            assert_eq!(index.release(usize::MAX), 0, "the first reader may be looking at the highest units");
            assert_found(before, left());
        });
        assert!(index.is_moving());
        drop(early);
        collect(&mut index, &mut trash);
        let (mut released, mut steps) = (0, 0);
        while index.release(10 * UNIT_BYTES) > 0 {
            index.check(hash_of, &trash);
            assert_found(shared.view(&epochs.pin(1)), left());
            (released, steps) = (units - index.units.end(), steps + 1);
        }
        assert_eq!(steps, released.div_ceil(10));
        assert!(index.units.end() as usize <= 2 * index.segment_count, "{} units", index.units.end());
        // What is smaller than 128 KiB stays: five units and ten and so on, 31 in all.
        assert!(index.bytes() <= bytes / 4 + 31 * UNIT_BYTES, "{} of {bytes} bytes", index.bytes());
        for row in (0..ROWS).filter(|row| row % 20 != 3) {
            index.insert(hash_of(row), row, hash_of, 0, 0, &mut trash);
            collect(&mut index, &mut trash);
        }
        index.check(hash_of, &trash);
        assert_found(shared.view(&epochs.pin(1)), 0..ROWS);
    }

    #[test]
    fn an_index_without_entries_becomes_one_segment() {
        let (_epochs, mut trash) = Epochs::new();
        let mut index = fill(ROWS, hash_of);
        remove(&mut index, 0..ROWS, hash_of, &mut trash);
        collect(&mut index, &mut trash);
        let walks = tidy_up(&mut index, hash_of, &mut trash);
        assert!(walks <= 4, "{walks} walks");
        assert_eq!((index.segment_count, index.directory.depth), (1, 1));
    }

    #[test]
    fn a_large_segment_stays_and_units_above_it_go_back() {
        let (_epochs, mut trash) = Epochs::new();
        // The first of them have one hash, and so units in a row; the others grow around those.
        let hash_of = |row: u32| if row < 3_000 { 0xdead_beef_dead_beef } else { hash_of(row) };
        let mut index = fill(ROWS, hash_of);
        let large = *index.large.last().expect("one has as many entries");
        let places: Vec<Place> = (0..ROWS).map(|row| index.place(hash_of(row))).collect();
        // What is taken out of a large segment makes another one of it.
        let small = (0..ROWS).filter(|row| places[*row as usize] != large);
        remove(&mut index, small.skip(100), hash_of, &mut trash);
        collect(&mut index, &mut trash);
        tidy_up(&mut index, hash_of, &mut trash);
        assert_eq!(index.large.last(), Some(&large));
        assert!(index.units.end() <= large.units().end.max(2 * index.used_units as u32));
        remove(&mut index, (0..ROWS).filter(|row| places[*row as usize] == large), hash_of, &mut trash);
        collect(&mut index, &mut trash);
        tidy_up(&mut index, hash_of, &mut trash);
        assert!(index.large.is_empty() && index.units.end() <= 4, "{} units", index.units.end());
    }

    #[test]
    fn one_large_segment_that_comes_meanwhile_ends_the_border() {
        let (_epochs, mut trash) = Epochs::new();
        let hash_of = |row: u32| if row >= ROWS { 0xdead_beef_dead_beef } else { hash_of(row) };
        let mut index = thinned(&mut trash);
        walk(&mut index, hash_of, &mut trash, |_, _| {});
        collect(&mut index, &mut trash);
        index.begin_moving(1);
        assert!(index.is_moving());
        let mut next = ROWS;
        walk(&mut index, hash_of, &mut trash, |index, trash| {
            for row in next..next + 500 {
                index.insert(hash_of(row), row, hash_of, 0, 0, trash);
                collect(index, trash);
            }
            next += 500;
            index.check(hash_of, trash);
        });
        assert!(!index.large.is_empty() && !index.is_moving());
        tidy_up(&mut index, hash_of, &mut trash);
    }

    #[test]
    fn segments_that_cannot_merge_are_walked_over_once() {
        let (_epochs, mut trash) = Epochs::new();
        // As somebody would have it who could choose hashes: each segment but the last two is beside a deeper one.
        const LAST: u32 = 6;
        let class = |row: u32| row % (LAST + 1);
        let hash_of = |row: u32| !(u64::MAX >> class(row)) | u64::from(row) << 7;
        let mut index = IndexWriter::new(GROUP, 4);
        for row in 0..4 * (LAST + 1) {
            index.insert(hash_of(row), row, hash_of, 0, 0, &mut trash);
            collect(&mut index, &mut trash);
        }
        let segments = index.segment_count;
        for gone in 0..LAST {
            remove(&mut index, (0..4 * (LAST + 1)).filter(|row| class(*row) == gone), hash_of, &mut trash);
            collect(&mut index, &mut trash);
        }
        assert!(index.is_sparse(1));
        tidy_up(&mut index, hash_of, &mut trash);
        assert_eq!(index.segment_count, segments);
        assert!(!index.is_sparse(1), "it waits until more is taken out");
    }
}
