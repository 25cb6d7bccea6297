//! Logical digests: replicas of any history that hold the same state have the same digest, and others do not.

use std::collections::BTreeMap;

use stoa_protocol::key::{key_prefix, partition_hash};
use stoa_protocol::limits::SET_PARTITIONS_MAX;
use stoa_protocol::{FeatureGroup, FeatureGroupId, KeyType, Wire};
use xxhash_rust::xxh3::xxh3_128;

use crate::arena::{Arena, ArenaRef};
use crate::lane_plan::{Form, LanePlan};
use crate::row::RowBuffer;

/// Ranges of key hashes that are summed apart, so that a scrub can say where replicas differ.
pub const DIGEST_RANGES: usize = 64;

/// The first bits of the hash say which partition it is; the next six, which range.
const RANGE_SHIFT: u32 = 64 - SET_PARTITIONS_MAX.ilog2() - DIGEST_RANGES.ilog2();

/// The digest of one group: a wrapping sum of one 128-bit hash a row for each range of key hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDigest {
    /// The sum of each range.
    pub ranges: [u128; DIGEST_RANGES],
}

impl Default for GroupDigest {
    fn default() -> Self {
        Self { ranges: [0; DIGEST_RANGES] }
    }
}

impl GroupDigest {
    /// The sum of all ranges.
    pub fn total(&self) -> u128 {
        self.ranges.iter().fold(0, |sum, range| sum.wrapping_add(*range))
    }

    pub(crate) fn add(&mut self, range: usize, row: u128) {
        self.ranges[range] = self.ranges[range].wrapping_add(row);
    }

    pub(crate) fn subtract(&mut self, range: usize, row: u128) {
        self.ranges[range] = self.ranges[range].wrapping_sub(row);
    }
}

/// The digest of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Digest {
    /// Of writer sessions, definitions and partition time.
    pub state: u128,
    /// Of the rows of each group.
    pub groups: BTreeMap<FeatureGroupId, GroupDigest>,
}

/// The range that a canonical key is summed in.
pub(crate) fn range_of(types: &[KeyType], partition_by: u16, key: &[u8]) -> usize {
    let prefix = key_prefix(types, key, usize::from(partition_by)).unwrap_or(key);
    (partition_hash(prefix) >> RANGE_SHIFT) as usize % DIGEST_RANGES
}

/// The hash of a row: group, key, event time, sequence, then the stamp of a tombstone, or place, length and bytes of
/// each value that is present; see docs/storage-snapshot.md.
pub(crate) fn row_digest(
    group: FeatureGroupId,
    key: &[u8],
    row: &RowBuffer,
    plan: &LanePlan,
    arena: &Arena,
    scratch: &mut Vec<u8>,
) -> u128 {
    let tombstone = row.tombstone(plan);
    put_head(group, key, (row.event_time(), row.sequence()), tombstone, scratch);
    if tombstone.is_some() {
        return xxh3_128(scratch);
    }
    for step in &plan.digest_steps {
        let feature = usize::from(step.feature);
        let is_present = row.bytes[step.validity_at as usize] & step.validity_mask != 0;
        let value = &row.bytes[step.at as usize..];
        match step.form {
            Form::Four if is_present => put_four(feature, value.first_chunk().expect("it has four bytes"), scratch),
            Form::Eight if is_present => put_eight(feature, value.first_chunk().expect("it has eight bytes"), scratch),
            Form::Fixed if is_present => put_value(feature, row.value(plan, &plan.features[feature]), scratch),
            Form::Variable if is_present => {
                let reference =
                    ArenaRef(u64::from_le_bytes(*value.first_chunk().expect("a reference has eight bytes")));
                scratch.extend_from_slice(&value_head(feature, reference.len()));
                arena.read(reference, scratch);
            }
            // One of variable width may have a default, which a null hides.
            Form::Changed | Form::Variable if !plan.features[feature].is_plain() => {
                put_changed(feature, row, plan, scratch);
            }
            _ => {}
        }
    }
    xxh3_128(scratch)
}

/// Begins what is hashed of a row: group, key, event time and sequence, and of a tombstone its stamp, which is all of it then.
pub(crate) fn put_head(
    group: FeatureGroupId,
    key: &[u8],
    (event_time, sequence): (i64, u64),
    tombstone: Option<i64>,
    scratch: &mut Vec<u8>,
) {
    scratch.clear();
    group.put(scratch);
    (key.len() as u32).put(scratch);
    scratch.extend_from_slice(key);
    event_time.put(scratch);
    sequence.put(scratch);
    scratch.push(u8::from(tombstone.is_some()));
    tombstone.into_iter().for_each(|stamp_us| stamp_us.put(scratch));
}

/// A length that no value has: it stands for a null that was written and hides a default.
const WRITTEN_NULL: usize = u32::MAX as usize;

/// Appends what a row has of a feature that was widened, or has a default. A value stands in the narrowest type that it ever
/// had: a change of the schema changes no digest, and where a replica keeps the value shows in none.
#[cold]
fn put_changed(feature: usize, row: &RowBuffer, plan: &LanePlan, scratch: &mut Vec<u8>) {
    match row.narrowest(plan, feature) {
        Some(value) => put_value(feature, &value, scratch),
        None if row.is_null(plan, &plan.features[feature]) => put_null(feature, scratch),
        None => {}
    }
}

/// Appends a null that was written and hides a default.
pub(crate) fn put_null(feature: usize, scratch: &mut Vec<u8>) {
    scratch.extend_from_slice(&value_head(feature, WRITTEN_NULL));
}

/// A u16 place and a u32 length.
#[inline]
fn value_head(feature: usize, length: usize) -> [u8; 6] {
    let both = feature as u64 | (length as u64) << 16;
    *both.to_le_bytes().first_chunk().expect("six of eight bytes")
}

/// Appends place, length and bytes of a value. Those of the usual widths in one piece: there are dozens of them in a row, and
/// each row is hashed whenever it changes.
#[inline]
pub(crate) fn put_value(feature: usize, value: &[u8], scratch: &mut Vec<u8>) {
    if let Ok(value) = value.try_into() {
        put_four(feature, value, scratch);
    } else if let Ok(value) = value.try_into() {
        put_eight(feature, value, scratch);
    } else {
        scratch.extend_from_slice(&value_head(feature, value.len()));
        scratch.extend_from_slice(value);
    }
}

#[inline]
fn put_four(feature: usize, value: &[u8; 4], scratch: &mut Vec<u8>) {
    let mut piece = [0; 10];
    piece[..6].copy_from_slice(&value_head(feature, value.len()));
    piece[6..].copy_from_slice(value);
    scratch.extend_from_slice(&piece);
}

#[inline]
fn put_eight(feature: usize, value: &[u8; 8], scratch: &mut Vec<u8>) {
    let mut piece = [0; 14];
    piece[..6].copy_from_slice(&value_head(feature, value.len()));
    piece[6..].copy_from_slice(value);
    scratch.extend_from_slice(&piece);
}

/// The hash of a definition.
pub(crate) fn definition_digest(group: &FeatureGroup) -> u128 {
    xxh3_128(&group.to_bytes())
}

/// The digest of all that is not rows.
pub(crate) fn state_digest(sessions: u128, definitions: u128, time_us: i64) -> u128 {
    let mut bytes = Vec::with_capacity(40);
    sessions.put(&mut bytes);
    definitions.put(&mut bytes);
    time_us.put(&mut bytes);
    xxh3_128(&bytes)
}
