//! A part of the index: open addressing over groups of eight slots.

use crate::lanes::prefetch::prefetch;
use crate::lanes::sync::{AtomicU32, AtomicU64, Ordering};

/// Slots of a new segment. Filling one is a pause of some tens of microseconds, when it splits.
/// Models fill one with seven entries.
pub(crate) const SEGMENT_SLOTS: usize = if cfg!(loom) { 8 } else { 1_024 };

const GROUP: usize = 8;
const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Eight one-byte tags (0 empty, else the top bit and 7 bits of hash), then their rows: 40 bytes, so that a probe
/// touches one line or two.
struct Group {
    tags: AtomicU64,
    rows: [AtomicU32; GROUP],
}

/// A part of the index. A slot is filled once and never emptied; its row number changes. Entries go with their segment, which
/// another one without them replaces.
pub(crate) struct Segment {
    /// Bits of hash prefix that all its keys share.
    pub depth: u32,
    /// When it was made, counted in snapshots: one from before a snapshot is copied before it is changed.
    pub generation: u64,
    used: AtomicU32,
    groups: Box<[Group]>,
}

impl Segment {
    /// An empty segment of a power of two of slots.
    pub fn new(depth: u32, slots: usize, generation: u64) -> Self {
        assert!(slots.is_power_of_two() && slots >= GROUP);
        let empty = || Group { tags: AtomicU64::new(0), rows: std::array::from_fn(|_| AtomicU32::new(0)) };
        let groups = (0..slots / GROUP).map(|_| empty()).collect();
        Self { depth, generation, used: AtomicU32::new(0), groups }
    }

    /// The same entries in the same slots.
    pub fn copy(&self, generation: u64) -> Self {
        let copy = Self::new(self.depth, self.slots(), generation);
        copy.used.store(self.used.load(Ordering::Relaxed), Ordering::Relaxed);
        for (to, from) in copy.groups.iter().zip(&self.groups) {
            to.tags.store(from.tags.load(Ordering::Relaxed), Ordering::Relaxed);
            for (to, from) in to.rows.iter().zip(&from.rows) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        copy
    }

    /// Number of slots.
    pub fn slots(&self) -> usize {
        self.groups.len() * GROUP
    }

    /// Number of entries.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed) as usize
    }

    /// Whether it must grow or split before it takes another entry: at seven eighths. So every probe ends at an empty
    /// slot.
    pub fn is_full(&self) -> bool {
        self.used() >= self.slots() / 8 * 7
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.groups.len() * size_of::<Group>()
    }

    /// The highest hash that begins with the segment's prefix, as `hash` does.
    pub fn last_hash(&self, hash: u64) -> u64 {
        hash | u64::MAX.checked_shr(self.depth).unwrap_or(0)
    }

    /// Asks for the first group of a hash to be brought near.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        let group = &self.groups[self.first_group(hash)];
        prefetch(&group.tags);
        prefetch(&group.rows[GROUP - 1]);
    }

    /// The slot and row of the first entry of this hash that `is` accepts.
    #[inline]
    pub fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<(usize, u32)> {
        let mut at = self.first_group(hash);
        loop {
            let group = &self.groups[at];
            // Acquire: a tag is stored after its row.
            let tags = group.tags.load(Ordering::Acquire);
            let mut matches = matching(tags, tag(hash));
            while matches != 0 {
                let slot = matches.trailing_zeros() as usize / 8;
                // Acquire: the row number is stored after the row itself.
                let row = group.rows[slot].load(Ordering::Acquire);
                if is(row) {
                    return Some((at * GROUP + slot, row));
                }
                matches &= matches - 1;
            }
            if !tags & HIGH != 0 {
                return None;
            }
            at = (at + 1) & (self.groups.len() - 1);
        }
    }

    /// Adds an entry whose key is not there. For the writer.
    pub fn insert(&self, hash: u64, row: u32) {
        assert!(!self.is_full(), "a segment keeps an eighth of its slots empty");
        let mut at = self.first_group(hash);
        loop {
            let group = &self.groups[at];
            let tags = group.tags.load(Ordering::Relaxed);
            let empty = !tags & HIGH;
            if empty != 0 {
                let slot = empty.trailing_zeros() as usize / 8;
                group.rows[slot].store(row, Ordering::Release);
                group.tags.store(tags | u64::from(tag(hash)) << (slot * 8), Ordering::Release);
                self.used.fetch_add(1, Ordering::Relaxed);
                return;
            }
            at = (at + 1) & (self.groups.len() - 1);
        }
    }

    /// Publishes another row in a slot. For the writer, after the row is written.
    pub fn replace(&self, slot: usize, row: u32) {
        self.groups[slot / GROUP].rows[slot % GROUP].store(row, Ordering::Release);
    }

    /// All rows, in no order.
    pub fn rows(&self) -> impl Iterator<Item = u32> {
        self.groups.iter().flat_map(|group| {
            let tags = group.tags.load(Ordering::Acquire);
            let used = (0..GROUP).filter(move |slot| tags >> (slot * 8) & 0x80 != 0);
            used.map(|slot| group.rows[slot].load(Ordering::Acquire))
        })
    }

    #[inline]
    fn first_group(&self, hash: u64) -> usize {
        (hash >> 7) as usize & (self.groups.len() - 1)
    }
}

#[inline]
fn tag(hash: u64) -> u8 {
    0x80 | hash as u8 & 0x7f
}

/// The top bit of each byte of `tags` that equals `tag`, and now and then of one that does not: a key is compared in
/// full anyway. (The zero-byte test of bit twiddling: its false hits lie above a true one and are used slots, because
/// an empty tag differs from every tag in its top bit.)
#[inline]
fn matching(tags: u64, tag: u8) -> u64 {
    let difference = tags ^ (LOW * u64::from(tag));
    difference.wrapping_sub(LOW) & !difference & HIGH & tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_hashes_and_equal_tags_are_told_apart_by_the_caller() {
        let segment = Segment::new(0, SEGMENT_SLOTS, 0);
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
        let copy = segment.copy(1);
        let mut rows: Vec<_> = copy.rows().collect();
        rows.sort_unstable();
        assert_eq!(rows, (0..100).chain(2_000..2_100).collect::<Vec<_>>());
        assert_eq!((copy.used(), copy.bytes()), (200, segment.bytes()));
    }

    #[test]
    fn no_tag_is_missed_and_no_empty_slot_matches() {
        for tag in 0x80..=0xff_u8 {
            for at in 0..8 {
                let tags = u64::from(tag) << (at * 8) | HIGH >> 8 & 0x80;
                assert!(matching(tags, tag) >> (at * 8) & 0x80 != 0);
                assert_eq!(matching(0, tag), 0);
            }
        }
    }
}
