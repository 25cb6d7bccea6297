//! Physical removal of what has had its time: rows that have been expired for their group's late horizon, and tombstones
//! past it.
//!
//! A sweep is a command like any other, so that replicas remove the same rows at the same place of the log. It names a
//! range of index hashes, which all replicas of a partition share with the seed, and a time; what is removed follows from
//! these and the rows. The leader first looks where a sweep would find anything ([`look`]), without writing anything, and
//! so proposes none that does nothing.

use stoa_protocol::FeatureGroupId;

use crate::group::Group;
use crate::lanes::Guard;

/// What a sweep removes: in one range of hashes of one group, up to a number of rows and tombstones, by ascending hash
/// and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sweep {
    /// The leader's time when it proposed it, microseconds since 1970-01-01T00:00:00Z.
    pub stamp_us: i64,
    /// The group.
    pub group: FeatureGroupId,
    /// The lowest hash of the range.
    pub first_hash: u64,
    /// The highest hash of the range.
    pub last_hash: u64,
    /// How many rows and tombstones it removes at the most, 1 to
    /// [`SWEEP_ROWS_MAX`](stoa_protocol::limits::SWEEP_ROWS_MAX).
    pub rows_max: u32,
}

stoa_protocol::wire_struct!(Sweep { stamp_us, group, first_hash, last_hash, rows_max });

/// What a look at a part of a group found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepLook {
    /// The highest hash of the part, which began at the hash that was asked for.
    pub last_hash: u64,
    /// Rows and tombstones that were looked at.
    pub examined: usize,
    /// How many of them a sweep would remove; a few of those may lie below the hash asked for.
    pub removable: usize,
}

/// Looks at rows in memory from `first_hash` on, segment by segment, until `rows_max` or more have been seen.
pub(crate) fn look(group: &Group, guard: &Guard<'_>, first_hash: u64, rows_max: usize, time_us: i64) -> SweepLook {
    let index = group.index.view(guard);
    let (mut examined, mut removable) = (0, 0);
    let mut rows = Vec::new();
    let mut from = first_hash;
    loop {
        let (segment, last_hash) = index.segment_with_end(from);
        rows.clear();
        rows.extend(segment.rows());
        removable += group.removable(&rows, time_us).count();
        examined += rows.len();
        match last_hash.checked_add(1) {
            Some(next) if examined < rows_max => from = next,
            _ => return SweepLook { last_hash, examined, removable },
        }
    }
}
