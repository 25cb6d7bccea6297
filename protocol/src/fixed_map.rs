//! Hash maps whose hasher is fixed: equal inputs give equal iteration order in every process. For keys that users choose
//! use them only where the map is bounded, since collisions can be crafted.

#[allow(clippy::disallowed_types)] // the deterministic forms below are made of them
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::Xxh3Default;

/// XXH3-64 with seed 0.
#[derive(Default)]
pub struct FixedHasher(Xxh3Default);

impl Hasher for FixedHasher {
    fn finish(&self) -> u64 {
        self.0.digest()
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

/// A hash map with a fixed hasher.
#[allow(clippy::disallowed_types)] // this is the deterministic form that the ban points to
pub type FixedMap<K, V> = HashMap<K, V, BuildHasherDefault<FixedHasher>>;
/// A hash set with a fixed hasher.
#[allow(clippy::disallowed_types)] // as above
pub type FixedSet<K> = HashSet<K, BuildHasherDefault<FixedHasher>>;
