//! The log's identity, its options, and the limits they move within.

use super::WalError;

/// The longest payload of one frame. Entries are batches of rows bounded far below; the bound is here so that a length
/// read from a file cannot make us allocate more.
pub const PAYLOAD_BYTES_MAX: usize = 32 << 20;

/// The longest segment file that is read. A segment outgrows `segment_bytes` by its preamble and one round at most.
pub const SEGMENT_FILE_BYTES_MAX: usize = 1 << 30;

/// Bytes of vote, commit position or purge position of one group: openraft's are a few dozen bytes.
pub const SMALL_BYTES_MAX: usize = 4 << 10;

/// The smallest segment worth its preamble. Small enough for tests that roll often.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;

/// The largest segment: files are read whole on start.
pub const SEGMENT_BYTES_MAX: u64 = 256 << 20;

/// Segments with a body up to this are rewritten into the next one when the log is opened, so that a node that restarts
/// over and over does not leave a trail of small files.
pub const SUPERSEDE_BYTES_MAX: u64 = 4 << 20;

/// Groups of one node. The segment header names them all, eight bytes each.
pub const GROUPS_MAX: usize = 1 << 20;

const _: () = assert!(SEGMENT_BYTES_MIN < SEGMENT_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES_MAX as usize + 2 * PAYLOAD_BYTES_MAX < SEGMENT_FILE_BYTES_MAX);
const _: () = assert!(GROUPS_MAX * 8 + 1024 < PAYLOAD_BYTES_MAX);
const _: () = assert!(3 * SMALL_BYTES_MAX + 128 < PAYLOAD_BYTES_MAX);
const _: () = assert!(SUPERSEDE_BYTES_MAX < SEGMENT_BYTES_MAX);

/// Whose log it is. A log of another cluster or node is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalIdentity {
    /// The cluster's id.
    pub cluster: u128,
    /// The node's id in it.
    pub node: u64,
}

impl std::fmt::Display for WalIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {} of cluster {:032x}", self.node, self.cluster)
    }
}

impl WalIdentity {
    /// The start value of the header checksums: bytes of another log on a recycled block do not pass.
    pub(super) fn salt(self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.cluster.to_le_bytes());
        hasher.update(&self.node.to_le_bytes());
        hasher.finalize()
    }
}

/// How the log behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalOptions {
    /// Bytes after which a new segment is begun. Default 64 MiB: a second of heavy writing, and a unit of deletion.
    pub segment_bytes: u64,
    /// Bytes of entries that may wait for the writer. Default 64 MiB; at the bound appends get [`WalError::Busy`].
    pub queue_bytes: u64,
    /// Bytes taken for one append and sync. Default 8 MiB: some milliseconds of a device's bandwidth.
    pub round_bytes: u64,
    /// Bytes all segments may hold. Default 8 GiB; at the bound appends get [`WalError::Overgrown`].
    pub max_live_bytes: u64,
    /// Bytes of zeros held back for the day the device is full, so that accepted entries and votes go through. Default
    /// 80 MiB; 0 for none, and then a full device ends the log.
    pub reserve_bytes: u64,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            queue_bytes: 64 << 20,
            round_bytes: 8 << 20,
            max_live_bytes: 8 << 30,
            reserve_bytes: 80 << 20,
        }
    }
}

impl WalOptions {
    /// Refuses options that contradict each other.
    pub(super) fn check(&self) -> Result<(), WalError> {
        let rules = [
            (
                (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes),
                "segment_bytes must lie between 4 KiB and 256 MiB",
            ),
            (self.round_bytes > 0 && self.round_bytes <= self.queue_bytes, "round_bytes must be 1 to queue_bytes"),
            (self.max_live_bytes / 2 >= self.segment_bytes, "max_live_bytes must hold two segments"),
            (
                self.reserve_bytes == 0 || self.reserve_bytes >= self.queue_bytes.saturating_add(self.round_bytes),
                "reserve_bytes must be 0 or hold what was accepted: queue_bytes + round_bytes",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(WalError::Options(rule)),
            None => Ok(()),
        }
    }
}
