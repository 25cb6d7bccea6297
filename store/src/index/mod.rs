//! From a key's hash to the row that holds it now.
//!
//! An extendible directory: the first bits of the hash choose a [`Segment`], which is a small open-addressed table. A
//! full segment splits alone, so no pause ever covers the whole table; when its prefix is as long as the directory's,
//! the directory doubles, 8 bytes a segment. Readers follow two [`EpochCell`]s; a reader that holds a segment from
//! before a split still finds every row that was there when it came.
//!
//! The hash is XXH3-64 under a seed of the partition, so that keys which collide cannot be computed outside. Even if all
//! hashes were equal the index would stay right: a segment that cannot be divided doubles in place.

mod segment;
mod writer;

use xxhash_rust::xxh3::xxh3_64_with_seed;

pub(crate) use segment::Segment;
pub(crate) use writer::{Found, IndexWriter};

use crate::lanes::prefetch::prefetch;
use crate::lanes::{EpochCell, Guard};

/// The hash of a key in the index of a partition. The partition hash has seed 0 and is public; this one is not.
#[inline]
pub(crate) fn index_hash(seed: u64, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, seed)
}

/// The segments by hash prefix.
pub(crate) struct Directory {
    depth: u32,
    entries: Box<[EpochCell<Segment>]>,
}

impl Directory {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.entries.len() * size_of::<EpochCell<Segment>>()
    }

    /// Asks for the entry of a hash to be brought near.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.entries[prefix(hash, self.depth)]);
    }

    /// The segment of a hash.
    #[inline]
    pub fn segment<'g>(&'g self, hash: u64, guard: &'g Guard<'_>) -> &'g Segment {
        self.entries[prefix(hash, self.depth)].load(guard)
    }

    /// The segment of a hash, and the highest hash that belongs to it.
    pub fn segment_with_end<'g>(&'g self, hash: u64, guard: &'g Guard<'_>) -> (&'g Segment, u64) {
        let segment = self.segment(hash, guard);
        (segment, segment.last_hash(hash))
    }
}

/// The readers' half of an index.
pub(crate) struct Index {
    directory: EpochCell<Directory>,
}

impl Index {
    /// The directory of this moment.
    #[inline]
    pub fn directory<'g>(&'g self, guard: &'g Guard<'_>) -> &'g Directory {
        self.directory.load(guard)
    }
}

#[inline]
fn prefix(hash: u64, depth: u32) -> usize {
    // A shift by 64, for depth 0, would be no shift.
    (hash >> 1 >> (63 - depth)) as usize
}
