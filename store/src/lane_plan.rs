//! How the columns of a group are packed into lanes.
//!
//! A lane is one array over all rows with a fixed stride; a row's values in a lane lie side by side. 100 random rows of
//! 48 Float32 out of 10 million took 70 us from one array a column, 6.6 us from 64-byte lanes, 6.0 us from one array
//! with all 48; for 3 of the columns it was 3.7, 2.1 and 2.8 us (docs/decisions has the conditions). So columns share
//! lanes, in schema order, up to [`LANE_BYTES_MAX`]; a long fixed array, which would push its neighbours apart, has a
//! lane of its own. The widths are to be measured again with validity, index and readers on.
//!
//! ```text
//! lane 0:  0 i64 event time   8 u64 sequence   16 u8 flags   17 validity bits   key   values …
//! others:  values …
//! appended features: their first lane begins with their validity bits
//! ```
//!
//! The key lies in lane 0, not in a lane of its own: a read compares it anyway, and has the rest of the line for free.
//! Keys of fixed width are stored as they are, others as a reference into the arena. A tombstone keeps the partition
//! time of its deletion where the first value would be. A null is stored as zero bytes, so that a gather need not ask.

use stoa_protocol::types::{FeatureType, Width};
use stoa_protocol::{FeatureGroup, Wire};
use xxhash_rust::xxh3::xxh3_128;

use crate::memory::vec_bytes;

/// Bytes of a lane that columns share, unless the partition was made with others.
pub(crate) const LANE_BYTES_MAX: usize = 256;
/// Fixed values longer than this have a lane of their own.
pub(crate) const SHARED_VALUE_BYTES_MAX: usize = 64;

pub(crate) const EVENT_TIME_AT: usize = 0;
pub(crate) const SEQUENCE_AT: usize = 8;
pub(crate) const FLAGS_AT: usize = 16;
const VALIDITY_AT: usize = 17;
const STAMP_BYTES: usize = 8;
const REFERENCE_BYTES: usize = 8;

/// Where a feature's values lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FeaturePlace {
    pub ty: FeatureType,
    pub lane: usize,
    /// First byte in the lane.
    pub offset: usize,
    /// Bytes in the lane: of the value, or of its reference.
    pub width: usize,
    pub variable: bool,
    /// The place of its dictionary among those of the group, if its values are of variable width.
    pub dictionary: usize,
    /// The lane with its validity bit.
    pub validity_lane: usize,
    /// The byte in that lane, and the bit in that byte.
    pub validity_byte: usize,
    pub validity_mask: u8,
}

/// Where a key lies in lane 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyPlace {
    pub offset: usize,
    /// Bytes of the key, or of its reference.
    pub width: usize,
    /// Whether the bytes are the key itself.
    pub inline: bool,
}

/// How the columns of a group are packed into lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LanePlan {
    /// The stride of each lane, multiples of 8.
    pub strides: Vec<usize>,
    /// Where each lane begins in a row buffer, which holds all lanes of a row.
    pub starts: Vec<usize>,
    pub key: KeyPlace,
    /// Where a tombstone's stamp lies in lane 0.
    pub stamp_at: usize,
    pub features: Vec<FeaturePlace>,
    /// Those of variable width among them.
    pub variable: Vec<FeaturePlace>,
    lane_bytes_max: usize,
    /// A hash of all of the above: plans with the same one are the same.
    pub fingerprint: u128,
}

impl LanePlan {
    /// The plan of a new group, whose columns share lanes of up to so many bytes.
    pub fn new(group: &FeatureGroup, lane_bytes_max: usize) -> Self {
        let widths: Option<Vec<usize>> = group.entity.keys.iter().map(|column| column.ty.canonical_width()).collect();
        let key = KeyPlace {
            offset: VALIDITY_AT + group.features.len().div_ceil(8),
            width: widths.as_ref().map_or(REFERENCE_BYTES, |widths| widths.iter().sum()),
            inline: widths.is_some(),
        };
        let stamp_at = key.offset + key.width;
        let (strides, starts, features, variable) = (vec![stamp_at], Vec::new(), Vec::new(), Vec::new());
        let mut plan = Self { strides, starts, key, stamp_at, features, variable, lane_bytes_max, fingerprint: 0 };
        plan.pack(group, 0, VALIDITY_AT);
        plan.strides[0] = plan.strides[0].max(stamp_at + STAMP_BYTES).next_multiple_of(8);
        plan.finish();
        plan
    }

    /// The plan after features were appended: the lanes so far stay as they are, and new ones follow.
    pub fn extended(&self, group: &FeatureGroup) -> Self {
        let mut plan = self.clone();
        let added = group.features.len() - self.features.len();
        if added > 0 {
            plan.strides.push(added.div_ceil(8));
            plan.pack(group, plan.strides.len() - 1, 0);
        }
        plan.finish();
        plan
    }

    /// Bytes of a row in all lanes.
    pub fn row_bytes(&self) -> usize {
        self.strides.iter().sum()
    }

    /// Bytes in the heap.
    pub fn bytes(&self) -> usize {
        vec_bytes(&self.strides) + vec_bytes(&self.starts) + vec_bytes(&self.features) + vec_bytes(&self.variable)
    }

    /// Places the features that are not placed yet, from lane `open` on, whose validity bits begin at `validity_at`.
    fn pack(&mut self, group: &FeatureGroup, mut open: usize, validity_at: usize) {
        let (validity_lane, placed) = (open, self.features.len());
        let mut dictionary = self.features.iter().filter(|place| place.variable).count();
        for (bit, feature) in group.features[placed..].iter().enumerate() {
            let (width, variable) = match feature.ty.width() {
                Width::Fixed(width) => (width, false),
                Width::Variable => (REFERENCE_BYTES, true),
            };
            let alone = width > SHARED_VALUE_BYTES_MAX;
            if alone {
                self.strides.push(0);
            } else if self.strides[open] + width > self.lane_bytes_max {
                self.strides.push(0);
                open = self.strides.len() - 1;
            }
            let lane = if alone { self.strides.len() - 1 } else { open };
            self.features.push(FeaturePlace {
                ty: feature.ty,
                lane,
                offset: self.strides[lane],
                width,
                variable,
                dictionary,
                validity_lane,
                validity_byte: validity_at + bit / 8,
                validity_mask: 1 << (bit % 8),
            });
            dictionary += usize::from(variable);
            self.strides[lane] += width;
        }
        self.strides.iter_mut().for_each(|stride| *stride = stride.next_multiple_of(8));
    }

    /// Fills in what follows from the rest.
    fn finish(&mut self) {
        let mut end = 0;
        let mut start = |stride: &usize| {
            end += stride;
            end - stride
        };
        self.starts = self.strides.iter().map(&mut start).collect();
        self.variable = self.features.iter().filter(|place| place.variable).copied().collect();
        let mut bytes = Vec::new();
        let mut put = |number: usize| (number as u64).put(&mut bytes);
        self.strides.iter().for_each(|stride| put(*stride));
        [self.key.offset, self.key.width, usize::from(self.key.inline), self.stamp_at].into_iter().for_each(&mut put);
        for place in &self.features {
            [place.lane, place.offset, place.width, place.validity_lane, place.validity_byte]
                .into_iter()
                .for_each(&mut put);
            put(usize::from(place.validity_mask) << 1 | usize::from(place.variable));
        }
        self.features.iter().for_each(|place| place.ty.put(&mut bytes));
        self.fingerprint = xxh3_128(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stoa_protocol::KeyType;

    fn group(types: &[FeatureType], keys: &[KeyType]) -> FeatureGroup {
        let names: Vec<String> = (0..types.len().max(keys.len())).map(|at| format!("f{at}")).collect();
        let keys: Vec<_> = keys.iter().enumerate().map(|(at, ty)| (names[at].as_str(), *ty)).collect();
        let features: Vec<_> = types.iter().enumerate().map(|(at, ty)| (names[at].as_str(), *ty)).collect();
        FeatureGroup::simple(1, "g", &keys, &features)
    }

    fn check(plan: &LanePlan, features: usize) {
        assert_eq!(plan.features.len(), features);
        let mut taken = vec![0u8; plan.row_bytes()];
        let mut take = |lane: usize, from: usize, bytes: usize| {
            assert!(from + bytes <= plan.strides[lane]);
            taken[plan.starts[lane]..][from..from + bytes].iter_mut().for_each(|b| *b += 1);
        };
        take(0, 0, VALIDITY_AT);
        take(0, plan.key.offset, plan.key.width);
        plan.features.iter().for_each(|f| take(f.lane, f.offset, f.width));
        let mut bits: Vec<_> =
            plan.features.iter().map(|f| (f.validity_lane, f.validity_byte, f.validity_mask)).collect();
        let mut bytes: Vec<_> = bits.iter().map(|b| (b.0, b.1)).collect();
        bytes.dedup();
        bytes.iter().for_each(|&(lane, byte)| take(lane, byte, 1));
        bits.sort_unstable();
        bits.dedup();
        assert_eq!(bits.len(), features, "every feature has a validity bit of its own");
        assert!(taken.iter().all(|&count| count <= 1), "nothing overlaps");
        assert!(plan.stamp_at + STAMP_BYTES <= plan.strides[0]);
        assert!(plan.strides.iter().all(|stride| stride.is_multiple_of(8) && *stride > 0));
    }

    #[test]
    fn forty_eight_floats_and_an_integer_key_take_one_lane_of_224_bytes() {
        let all = group(&[FeatureType::Float32; 48], &[KeyType::Int64]);
        let plan = LanePlan::new(&all, LANE_BYTES_MAX);
        check(&plan, 48);
        assert_eq!(plan.strides, [224]);
        for (bytes_max, lanes) in [(8, 25), (64, 4), (512, 1)] {
            let plan = LanePlan::new(&all, bytes_max);
            check(&plan, 48);
            assert_eq!(plan.strides.len(), lanes, "lanes of {bytes_max} bytes: {:?}", plan.strides);
        }
    }

    #[test]
    fn wide_groups_take_several_lanes_and_embeddings_their_own() {
        use FeatureType::*;
        let types = [Bool, FixedArray { items: 128 }, String, Int64, FixedArray { items: 16 }, Decimal128 { scale: 2 }];
        let types: Vec<_> = types.iter().copied().cycle().take(30).collect();
        let all = group(&types, &[KeyType::Int64, KeyType::String]);
        let plan = LanePlan::new(&all, LANE_BYTES_MAX);
        check(&plan, 30);
        assert_eq!(plan.strides.iter().filter(|stride| **stride == 512).count(), 5);
        assert!(plan.strides.iter().all(|stride| *stride <= LANE_BYTES_MAX || *stride == 512));
        let mut first = all.clone();
        first.features.truncate(7);
        let extended = LanePlan::new(&first, LANE_BYTES_MAX).extended(&all);
        check(&extended, 30);
        assert_eq!(extended.features[..7], LanePlan::new(&first, LANE_BYTES_MAX).features);
    }

    #[test]
    fn the_narrowest_and_the_widest_group_have_a_plan() {
        check(&LanePlan::new(&group(&[FeatureType::Bool], &[KeyType::Bool]), LANE_BYTES_MAX), 1);
        check(&LanePlan::new(&group(&[FeatureType::Bool; 1_024], &[KeyType::Int64; 8]), LANE_BYTES_MAX), 1_024);
        check(&LanePlan::new(&group(&[FeatureType::String; 1_024], &[KeyType::Binary]), LANE_BYTES_MAX), 1_024);
    }
}
