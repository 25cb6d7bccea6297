//! What a partition is made with.

/// What a partition is made with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreOptions {
    /// The seed of the index hash, drawn at random when the partition is made, so that nobody can compute keys that
    /// collide. Part of the replicated state: a snapshot carries it, and restore takes the snapshot's.
    pub index_seed: u64,
    /// The incarnation of the partition set, repeated in answers. Raised by restore and unsafe recovery.
    pub incarnation: u32,
    /// Logical bytes beyond which [`Partition::admits`](crate::Partition::admits) refuses rows; `None` for no limit.
    /// Apply does not ask.
    pub logical_bytes_max: Option<u64>,
}
