//! What a partition's memory is used for.

use stoa_protocol::{Feature, FeatureGroup};

/// Bytes of a partition, or of one of its groups, by use: what was asked of the allocator, and of mappings the pages that
/// were written. A slab grows by doubling, and the part of a mapping that was never written is address space, not memory.
///
/// Values, keys and what replaced them share the arena and the trash of their partition: its free and waiting slots, its
/// lists and what it is made of are counted for the partition alone, so that the sum over groups is less than its total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryReport {
    /// Keys that lie in the lanes, or references to those that do not.
    pub keys: u64,
    /// Index segments in use, and directories.
    pub index: u64,
    /// Event times, validity and values in the lanes.
    pub lanes: u64,
    /// Slots of values and keys in the arena.
    pub arena: u64,
    /// Dictionaries of repeated strings; the strings themselves lie in the arena, once.
    pub dictionaries: u64,
    /// Rows, arena slots and index segments that are free or wait for readers. Grows while a snapshot is taken under
    /// writes, by as much as is overwritten meanwhile: whoever takes a snapshot drops it when this exceeds the reserve.
    pub dead: u64,
    /// What else there is: definitions, sessions, lists of what is free or waits, ends of slabs that no row has yet.
    pub overhead: u64,
    /// The sum of the above.
    pub total: u64,
    /// Rows, without tombstones.
    pub rows: u64,
    /// Deleted keys that are remembered.
    pub tombstones: u64,
    /// What the limit on writes counts: equal on all replicas.
    pub logical_bytes: u64,
}

impl MemoryReport {
    /// The report with its total.
    pub(crate) fn summed(self) -> Self {
        let total = self.keys + self.index + self.lanes + self.arena + self.dictionaries + self.dead + self.overhead;
        Self { total, ..self }
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        self.each(other, |mine, theirs| *mine += theirs);
    }

    /// Takes one out that was added.
    pub fn subtract(&mut self, other: &Self) {
        self.each(other, |mine, theirs| *mine -= theirs);
    }

    fn each(&mut self, other: &Self, change: impl Fn(&mut u64, u64)) {
        let Self { keys, index, lanes, arena, dictionaries, dead, overhead, total, rows, tombstones, logical_bytes } =
            self;
        change(keys, other.keys);
        change(index, other.index);
        change(lanes, other.lanes);
        change(arena, other.arena);
        change(dictionaries, other.dictionaries);
        change(dead, other.dead);
        change(overhead, other.overhead);
        change(total, other.total);
        change(rows, other.rows);
        change(tombstones, other.tombstones);
        change(logical_bytes, other.logical_bytes);
    }
}

/// Bytes of the counts before what an `Arc` holds.
pub(crate) const ARC_BYTES: usize = 2 * size_of::<usize>();

/// Bytes of the nodes of a map of so many entries, as std's B-trees are made: 11 entries to a node and a little more; one
/// node for the first 11, then about six in each, as maps that are filled in order split in the middle.
pub(crate) fn map_bytes(entries: usize, entry_bytes: usize) -> usize {
    let nodes = if entries <= 11 { entries.min(1) } else { entries.div_ceil(6) };
    nodes * (11 * entry_bytes + 16)
}

/// Bytes of a vector in the heap.
pub(crate) fn vec_bytes<T>(of: &Vec<T>) -> usize {
    of.capacity() * size_of::<T>()
}

/// Bytes that a definition has in the heap.
pub(crate) fn definition_bytes(group: &FeatureGroup) -> usize {
    let FeatureGroup { project, name, entity, event_time, features, description, .. } = group;
    let texts = [project, name, description, &entity.name, &entity.description];
    let of_feature = |feature: &Feature| {
        let Feature { name, ty: _, storage: _, description, aliases, default, dropped: _, earlier } = feature;
        name.capacity()
            + description.capacity()
            + vec_bytes(aliases)
            + aliases.iter().map(String::capacity).sum::<usize>()
            + default.as_ref().map_or(0, Vec::capacity)
            + vec_bytes(earlier)
    };
    texts.into_iter().chain(event_time).map(String::capacity).sum::<usize>()
        + vec_bytes(&entity.keys)
        + entity.keys.iter().map(|column| column.name.capacity()).sum::<usize>()
        + vec_bytes(features)
        + features.iter().map(of_feature).sum::<usize>()
}
