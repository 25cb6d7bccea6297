//! The parts of the index: open addressing over cache lines of twelve slots, in one slab.
//!
//! A probe touches one line, or two where the first is full. A slab of any size is in huge pages, so that a probe does not
//! miss the translation caches either. What belongs to a segment beside its slots the writer alone knows.
//!
//! ```text
//! line    0  twelve one-byte tags: 0 empty, else the top bit and 7 bits of hash
//!        12  twelve marks of two bits: further bits of hash
//!        15  a zero
//!        16  twelve u32 row numbers
//! ```

use crate::lanes::prefetch::prefetch;
use crate::lanes::sync::{AtomicU64, Ordering};
use crate::lanes::tags::{ALL_SLOTS, LINE_SLOTS, TAG_WORDS, has_mark, matching, tag, used, with_entry};
use crate::lanes::{Growth, Slab};

const LINE_WORDS: usize = 8;
/// Lines of a unit of memory. Filling one anew is a pause of some tens of microseconds, when it splits. (Models pay for every
/// word that there is.)
const UNIT_LINES: usize = if cfg!(loom) { 1 } else { 64 };
/// Bytes of a unit, a page of 4 KiB.
pub(super) const UNIT_BYTES: usize = UNIT_LINES * LINE_WORDS * 8;
/// Entries with which a segment of one unit is full, at the most: three quarters, so that every probe ends at an empty slot, and
/// few go on behind a full line. Of random keys 3.4 % do in a full segment, and 18 % of its last tenth, against 8 % and 42 %
/// with seven eighths, which would take an eighth less memory on average. Models fill one.
pub(crate) const UNIT_ENTRIES_MAX: usize = if cfg!(loom) { 7 } else { UNIT_LINES * LINE_SLOTS / 4 * 3 };

/// A small index has little memory: one unit, then two, four and so on; what has a huge page or more is made of them. When the
/// first is begun there are 2 MiB of index, which is of some 200,000 rows: what stays unused of it is little beside those.
const GROWTH: Growth = Growth { first_slots_log2: 0, huge_bytes_min: 2 << 20 };

type Line = [AtomicU64; LINE_WORDS];

/// Where a segment lies: the number of its first unit, and how many it has, a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u32);

/// Bits of a [`Place`] that say how many units there are. 27 are left for their numbers: enough for the 2^32 rows that a
/// group can have.
const SIZE_BITS: u32 = 5;

impl Place {
    /// So many units, as a power of two, from `first` on.
    pub fn new(first: u32, units_log2: u32) -> Self {
        assert!(first < 1 << (32 - SIZE_BITS) && units_log2 < 1 << SIZE_BITS, "unit {first} of an index has no place");
        Self(first << SIZE_BITS | units_log2)
    }

    /// The number that a directory has.
    pub fn number(self) -> u32 {
        self.0
    }
    /// The place of that number.
    #[inline]
    pub fn of_number(number: u32) -> Self {
        Self(number)
    }

    /// The first unit.
    #[inline]
    pub fn first(self) -> u32 {
        self.0 >> SIZE_BITS
    }
    /// How many there are, as a power of two.
    #[inline]
    pub fn units_log2(self) -> u32 {
        self.0 & ((1 << SIZE_BITS) - 1)
    }
    /// The numbers of all of them.
    pub fn units(self) -> std::ops::Range<u32> {
        self.first()..self.first() + (1 << self.units_log2())
    }
}

/// The memory of all segments of an index.
pub(crate) struct Segments {
    units: Slab,
}

impl Segments {
    /// Without memory yet.
    pub fn new() -> Self {
        Self { units: Slab::growing(UNIT_BYTES, GROWTH) }
    }

    /// Gives a place its memory. What is new of that is zero and so without entries. For the writer.
    pub fn reserve(&self, place: Place) {
        self.units.reserve(place.units().end - 1);
    }

    /// Bytes of memory once the first so many units have been written.
    pub fn bytes(&self, units: u32) -> usize {
        self.units.bytes(units)
    }

    /// Makes a unit zero that nobody looks at any more. For the writer.
    pub fn clear(&self, unit: u32) {
        self.units.words_of(unit).iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// Gives the memory of the highest units back, which nobody looks at any more: they are reserved and cleared again before
    /// they are filled. For the writer.
    pub fn release(&self, units: std::ops::Range<u32>) {
        self.units.release(units);
    }

    /// The segment at a place.
    #[inline]
    pub fn at(&self, place: Place) -> Segment<'_> {
        Segment { units: &self.units, place }
    }
}

/// A part of the index. A slot is filled once and never emptied; its row number changes. Entries go with their
/// segment, which another one without them replaces.
#[derive(Clone, Copy)]
pub(crate) struct Segment<'a> {
    units: &'a Slab,
    place: Place,
}

impl<'a> Segment<'a> {
    fn lines(self) -> usize {
        UNIT_LINES << self.place.units_log2()
    }

    #[inline(always)]
    fn line(self, at: usize) -> &'a Line {
        let unit = self.units.words_of(self.place.first() + (at / UNIT_LINES) as u32);
        let (lines, _) = unit.as_chunks();
        &lines[at % UNIT_LINES]
    }

    #[inline]
    fn home(self, hash: u64) -> usize {
        (hash >> 7) as usize & (self.lines() - 1)
    }

    /// Asks for the first line of a hash to be brought near.
    #[inline]
    pub fn prefetch(self, hash: u64) {
        self.first_line(hash).prefetch();
    }

    /// The first line of a hash.
    #[inline]
    pub fn first_line(self, hash: u64) -> ProbeLine<'a> {
        ProbeLine { line: self.line(self.home(hash)) }
    }

    /// The line behind it, where a probe goes on if it is full.
    #[inline]
    pub fn second_line(self, hash: u64) -> ProbeLine<'a> {
        ProbeLine { line: self.line((self.home(hash) + 1) & (self.lines() - 1)) }
    }

    /// The slot and row of the first entry of this hash that `is` accepts.
    #[inline]
    pub fn find(self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<(usize, u32)> {
        let mut at = self.home(hash);
        loop {
            let line = self.line(at);
            // Acquire: a tag is stored after its row.
            let tags = [line[0].load(Ordering::Acquire), line[1].load(Ordering::Acquire)];
            for slot in slots_of(tags, hash) {
                // Acquire: the row number is stored after the row itself.
                let row = row_of(line, slot, Ordering::Acquire);
                if is(row) {
                    return Some((at * LINE_SLOTS + slot, row));
                }
            }
            if used(tags) != ALL_SLOTS {
                return None;
            }
            at = (at + 1) & (self.lines() - 1);
        }
    }

    /// Adds an entry whose key is not there. For the writer, who knows that there is room.
    pub fn insert(self, hash: u64, row: u32) {
        let mut at = self.home(hash);
        loop {
            let line = self.line(at);
            let tags = [0, 1].map(|word: usize| line[word].load(Ordering::Relaxed));
            let slot = used(tags).trailing_ones() as usize;
            if slot < LINE_SLOTS {
                put_row(line, slot, row);
                // A mark is there before its tag is seen, which is loaded first if it is in the first word.
                let tags = with_entry(tags, slot, hash);
                line[1].store(tags[1], Ordering::Release);
                if slot < 8 {
                    line[0].store(tags[0], Ordering::Release);
                }
                return;
            }
            at = (at + 1) & (self.lines() - 1);
        }
    }

    /// Publishes another row in a slot. For the writer, after the row is written.
    pub fn replace(self, slot: usize, row: u32) {
        put_row(self.line(slot / LINE_SLOTS), slot % LINE_SLOTS, row);
    }

    /// Makes this one, which has no entries, the same as another of its size: the same entries in the same slots. For the
    /// writer.
    pub fn copy_from(self, other: Segment<'_>) {
        for at in 0..self.lines() {
            for (to, from) in self.line(at).iter().zip(other.line(at)) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }

    /// All rows, in no order.
    pub fn rows(self) -> impl Iterator<Item = u32> + use<'a> {
        self.entries().map(|(_, row)| row)
    }

    /// The same, each behind its slot.
    pub fn entries(self) -> impl Iterator<Item = (usize, u32)> + use<'a> {
        (0..self.lines()).flat_map(move |at| {
            let line = self.line(at);
            let used = used([0, 1].map(|word: usize| line[word].load(Ordering::Acquire)));
            let slots = (0..LINE_SLOTS).filter(move |slot| used >> slot & 1 == 1);
            slots.map(move |slot| (at * LINE_SLOTS + slot, row_of(line, slot, Ordering::Acquire)))
        })
    }
}

/// The first line of a hash in a segment, to be looked at when it has come.
#[derive(Clone, Copy)]
pub(crate) struct ProbeLine<'a> {
    line: &'a Line,
}

/// What the first line of a hash says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// The row of the first entry with its tag and mark, and whether there are more of them in the line.
    Row(u32, bool),
    /// There is no entry of it.
    Nothing,
    /// There is none of it here, and the line is full: it may be in another one.
    Behind,
}

impl<'a> ProbeLine<'a> {
    /// Asks for it to be brought near.
    #[inline]
    pub fn prefetch(self) {
        prefetch(self.line);
    }

    #[inline]
    fn tags(self) -> [u64; TAG_WORDS] {
        // Acquire: a tag is stored after its row.
        [self.line[0].load(Ordering::Acquire), self.line[1].load(Ordering::Acquire)]
    }

    /// What it says of the hash.
    #[inline]
    pub fn first(self, hash: u64) -> First {
        let tags = self.tags();
        let mut slots = slots_of(tags, hash);
        match slots.next() {
            // Acquire: the row number is stored after the row itself.
            Some(slot) => First::Row(row_of(self.line, slot, Ordering::Acquire), slots.next().is_some()),
            None if used(tags) != ALL_SLOTS => First::Nothing,
            None => First::Behind,
        }
    }

    /// Whether no slot is free.
    #[cfg(test)]
    fn is_full(self) -> bool {
        used(self.tags()) == ALL_SLOTS
    }

    /// The rows of all entries of the line with tag and mark of the hash.
    pub fn candidates(self, hash: u64) -> impl Iterator<Item = u32> + use<'a> {
        slots_of(self.tags(), hash).map(move |slot| row_of(self.line, slot, Ordering::Acquire))
    }
}

/// The slots of a line with tag and mark of a hash.
#[inline]
fn slots_of(tags: [u64; TAG_WORDS], hash: u64) -> impl Iterator<Item = usize> {
    let mut matches = matching(tags, tag(hash));
    std::iter::from_fn(move || {
        while matches != 0 {
            let slot = matches.trailing_zeros() as usize;
            matches &= matches - 1;
            if has_mark(tags, slot, hash) {
                return Some(slot);
            }
        }
        None
    })
}

#[inline]
fn row_of(line: &Line, slot: usize, ordering: Ordering) -> u32 {
    (line[TAG_WORDS + slot / 2].load(ordering) >> (slot % 2 * 32)) as u32
}

/// Two rows share a word. There is one writer, so nobody stores the other one meanwhile; to who reads that, it is the same
/// as before.
fn put_row(line: &Line, slot: usize, row: u32) {
    let (word, shift) = (&line[TAG_WORDS + slot / 2], slot % 2 * 32);
    let other = word.load(Ordering::Relaxed) & !(0xffff_ffff << shift);
    word.store(other | u64::from(row) << shift, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_hashes_and_equal_tags_are_told_apart_by_the_caller() {
        for units_log2 in [0, 2] {
            let segments = Segments::new();
            let places = [3, 9].map(|first| Place::new(first, units_log2));
            places.iter().for_each(|place| segments.reserve(*place));
            let segment = segments.at(places[0]);
            for row in 0..100 {
                segment.insert(42, row);
                segment.insert(u64::from(row) << 7 | 42, 1_000 + row);
            }
            for row in 0..100 {
                assert_eq!(segment.find(42, |found| found == row).unwrap().1, row);
                let other = segment.find(u64::from(row) << 7 | 42, |found| found == 1_000 + row).unwrap();
                segment.replace(other.0, 2_000 + row);
            }
            assert_eq!(segment.find(42, |_| false), None);
            assert_eq!(segment.find(43, |_| true), None);
            let copy = segments.at(places[1]);
            assert_eq!(copy.rows().count(), 0);
            copy.copy_from(segment);
            let mut rows: Vec<_> = copy.rows().collect();
            rows.sort_unstable();
            assert_eq!(rows, (0..100).chain(2_000..2_100).collect::<Vec<_>>());
            places[0].units().for_each(|unit| segments.clear(unit));
            assert_eq!((segment.rows().count(), copy.rows().count()), (0, 200));
        }
    }

    #[test]
    fn entries_with_the_tag_and_another_mark_are_not_looked_at() {
        let segments = Segments::new();
        let place = Place::new(0, 0);
        segments.reserve(place);
        let segment = segments.at(place);
        // One line, one tag, the marks in turn.
        let hash = |entry: u32| u64::from(entry % 4) << 37 | 42;
        (0..8).for_each(|entry| segment.insert(hash(entry), entry));
        for entry in 0..4 {
            let mut seen = Vec::new();
            assert_eq!(
                segment.find(hash(entry), |row| {
                    seen.push(row);
                    false
                }),
                None
            );
            assert_eq!(seen, [entry, entry + 4]);
            let line = segment.first_line(hash(entry));
            line.prefetch();
            assert_eq!(line.first(hash(entry)), First::Row(entry, true));
            assert_eq!(line.candidates(hash(entry)).collect::<Vec<_>>(), seen);
        }
        assert_eq!(segment.first_line(43).first(43), First::Nothing);
        // Four more, of another tag: the line is full, and what comes then lies behind it.
        (8..13).for_each(|entry| segment.insert(43, entry));
        assert_eq!(segment.first_line(43).first(43), First::Row(8, true));
        assert_eq!(segment.first_line(44).first(44), First::Behind);
        assert_eq!(segment.find(43, |row| row == 12).map(|(slot, _)| slot / LINE_SLOTS), Some(1));
        assert_eq!(segment.second_line(43).first(43), First::Row(12, false));
    }

    /// Of random keys in segments with so many entries each: how many lie behind a full line, of all and of the last tenth that
    /// came, in thousandths.
    fn behind(entries: u32) -> (u32, u32) {
        let (segments, place, mut counts) = (Segments::new(), Place::new(0, 0), [0; 2]);
        segments.reserve(place);
        let segment = segments.at(place);
        const SEGMENTS: u32 = 200;
        for of in 0..SEGMENTS {
            segments.clear(0);
            for row in 0..entries {
                let hash = crate::index::index_hash(of.into(), &row.to_le_bytes());
                let is_behind = segment.first_line(hash).is_full();
                segment.insert(hash, row);
                counts[0] += u32::from(is_behind);
                counts[1] += u32::from(is_behind && row >= entries - entries / 10);
            }
        }
        (counts[0] * 1_000 / (entries * SEGMENTS), counts[1] * 1_000 / (entries / 10 * SEGMENTS))
    }

    #[test]
    fn so_many_keys_lie_behind_a_full_line_as_is_said_where_the_limit_is_set() {
        let (all, last) = behind(UNIT_ENTRIES_MAX as u32);
        assert!((30..39).contains(&all) && (160..200).contains(&last), "three quarters: {all}, {last}");
        let (all, last) = behind((UNIT_LINES * LINE_SLOTS / 8 * 7) as u32);
        assert!((75..92).contains(&all) && (390..450).contains(&last), "seven eighths: {all}, {last}");
    }

    #[test]
    fn a_line_is_a_line_of_the_cache() {
        let segments = Segments::new();
        segments.reserve(Place::new(700, 0));
        for unit in [0, 1, 2, 700] {
            let at = std::ptr::from_ref(segments.at(Place::new(unit, 0)).line(0)).addr();
            assert!(at.is_multiple_of(64), "unit {unit} begins at {at:x}");
        }
    }
}
