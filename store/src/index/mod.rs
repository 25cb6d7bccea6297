//! From a key's hash to the row that holds it now.
//!
//! An extendible directory: the first bits of the hash choose a [`Segment`], which is a small open-addressed table. A
//! full segment splits alone, so no pause ever covers the whole table; when its prefix is as long as the directory's,
//! the directory doubles, 4 bytes a segment. Segments with few entries merge again, the directory halves, and units that are
//! free go back to the system, step by step (`writer/tidy.rs`).
//!
//! All segments lie in one slab, and the directory has their numbers: so a reader goes from the directory, which fits the
//! caches, straight to the line with the tags and rows of its hash. What the epochs are for rows they are for segments: one
//! that is out of use is filled again when nobody can be looking at it, and a reader that holds one from before a split, or a
//! merge, still finds every row that was there when it came.
//!
//! The hash is XXH3-64 under a seed of the partition, so that keys which collide cannot be computed outside. Even if all
//! hashes were equal the index would stay right: a segment that cannot be divided doubles in place.

mod segment;
mod writer;

use xxhash_rust::xxh3::xxh3_64_with_seed;

pub(crate) use segment::{First, Place, ProbeLine, Segment, UNIT_ENTRIES_MAX};
pub(crate) use writer::{Found, IndexWriter, Rehash};

use crate::lanes::sync::{AtomicU32, Ordering};
use crate::lanes::{EpochCell, Guard};
use crate::memory::ARC_BYTES;
use segment::Segments;

/// The hash of a key in the index of a partition. The partition hash has seed 0 and is public; this one is not.
#[inline]
pub(crate) fn index_hash(seed: u64, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, seed)
}

/// The segments by hash prefix.
struct Directory {
    depth: u32,
    places: Box<[AtomicU32]>,
}

impl Directory {
    fn new(depth: u32, places: impl Iterator<Item = Place>) -> Self {
        Self { depth, places: places.map(|place| AtomicU32::new(place.number())).collect() }
    }

    fn bytes(&self) -> usize {
        ARC_BYTES + size_of::<Self>() + self.places.len() * size_of::<AtomicU32>()
    }

    /// Where the segment of a hash lies.
    #[inline]
    fn place(&self, hash: u64) -> Place {
        self.at(prefix(hash, self.depth))
    }

    #[inline]
    fn at(&self, entry: usize) -> Place {
        // Acquire: a segment is filled before its place is stored.
        Place::of_number(self.places[entry].load(Ordering::Acquire))
    }
}

/// What readers and writer of an index have in common.
pub(crate) struct Index {
    segments: Segments,
    directory: EpochCell<Directory>,
}

impl Index {
    /// The index of this moment or later.
    #[inline]
    pub fn view<'g>(&'g self, guard: &'g Guard<'_>) -> IndexView<'g> {
        IndexView { segments: &self.segments, directory: self.directory.load(guard) }
    }

    /// The rows of a segment that cannot be filled again meanwhile, in no order.
    pub fn rows(&self, place: Place) -> impl Iterator<Item = u32> {
        self.segments.at(place).rows()
    }

    /// The same, each behind its slot.
    pub fn entries(&self, place: Place) -> impl Iterator<Item = (usize, u32)> {
        self.segments.at(place).entries()
    }
}

/// An index under a guard.
#[derive(Clone, Copy)]
pub(crate) struct IndexView<'g> {
    segments: &'g Segments,
    directory: &'g Directory,
}

impl<'g> IndexView<'g> {
    /// The segment of a hash.
    #[inline]
    pub fn segment(self, hash: u64) -> Segment<'g> {
        self.at(self.place(hash))
    }

    /// Where the segment of a hash lies.
    #[inline]
    pub fn place(self, hash: u64) -> Place {
        self.directory.place(hash)
    }

    /// The segment at a place.
    #[inline]
    pub fn at(self, place: Place) -> Segment<'g> {
        self.segments.at(place)
    }

    /// The segment of a hash, and the highest hash that leads to it. While the writer puts another one in its place that may
    /// be less than all of them: what follows then leads to the other one.
    pub fn segment_with_end(self, hash: u64) -> (Segment<'g>, u64) {
        let Directory { depth, places } = self.directory;
        let mut at = prefix(hash, *depth);
        let place = self.directory.at(at);
        while at + 1 < places.len() && self.directory.at(at + 1) == place {
            at += 1;
        }
        (self.segments.at(place), last_hash((at as u64).checked_shl(64 - depth).unwrap_or(0), *depth))
    }
}

#[inline]
fn prefix(hash: u64, depth: u32) -> usize {
    // A shift by 64, for depth 0, would be no shift.
    (hash >> 1 >> (63 - depth)) as usize
}

/// The lowest hash that begins with the same bits as `hash`, so many of them.
fn first_hash(hash: u64, depth: u32) -> u64 {
    hash & !u64::MAX.checked_shr(depth).unwrap_or(0)
}

/// The highest hash that begins with the same bits as `hash`, so many of them.
fn last_hash(hash: u64, depth: u32) -> u64 {
    hash | u64::MAX.checked_shr(depth).unwrap_or(0)
}
