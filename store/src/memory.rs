//! What a partition's memory is used for.

/// Bytes of a partition by use. Slabs grow by doubling and the part that was never written is address space, not
/// memory: it is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryReport {
    /// Keys that lie in the lanes, or references to those that do not.
    pub keys: u64,
    /// Index segments, those that wait for readers or are free among them, and directories.
    pub index: u64,
    /// Event times, validity and values in the lanes.
    pub lanes: u64,
    /// Slots of values and keys in the arena.
    pub arena: u64,
    /// Rows and arena slots that are free or wait for readers. Grows while a snapshot is taken under writes, by as much
    /// as is overwritten meanwhile: whoever takes a snapshot drops it when this exceeds the reserve.
    pub dead: u64,
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
    pub(crate) fn add(&mut self, other: &Self) {
        self.keys += other.keys;
        self.index += other.index;
        self.lanes += other.lanes;
        self.arena += other.arena;
        self.dead += other.dead;
        self.total += other.total;
        self.rows += other.rows;
        self.tombstones += other.tombstones;
        self.logical_bytes += other.logical_bytes;
    }
}
