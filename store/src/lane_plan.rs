//! How the columns of a group are packed into lanes.
//!
//! A lane is one array over all rows with a fixed stride; a row's values in a lane lie side by side. What is read of a row costs
//! what memory takes for the lines of the cache that it lies in. So columns share lanes up to [`LANE_BYTES_MAX`], those that views
//! read together side by side ([`crate::lane_order`]); a long fixed array, which would push its neighbours apart, has a lane of
//! its own. `stoa-bench widths` measures reads by the width of lanes.
//!
//! ```text
//! lane 0:  0 i64 event time   8 u64 sequence   16 u8 flags   17 validity bits   key   values …
//! others:  values …
//! appended features: their first lane begins with their validity bits
//! ```
//!
//! Validity bits stand in the order of the values, so that those of a view are in as few bytes as they can be, here and in its
//! answers. All else that is kept by feature is in the order of the schema: what a row says must not depend on where it says it.
//!
//! A feature with a default has another bit behind the validity bits, set where a null was written: a row with neither bit
//! has the default. A feature that was widened has a place of its new width in a new lane, and rows that were written before
//! keep what they have at its earlier place: whoever looks takes the one that is there. So no schema change touches a row.
//! Rows that are written again, and those of a snapshot, have the newest place alone.
//!
//! A feature with a storage ([`stoa_protocol::storage`]) has a place of the narrower width, in which its values are as they were
//! narrowed; whoever reads them widens them.
//!
//! The key lies in lane 0, not in a lane of its own: a read compares it anyway, and has the rest of the line for free.
//! Keys of fixed width are stored as they are, others as a reference into the arena. A tombstone keeps the partition
//! time of its deletion where the first value would be. A null is stored as zero bytes, so that a gather need not ask.

use stoa_protocol::codec::put_list;
use stoa_protocol::types::{FeatureType, Width};
use stoa_protocol::{FeatureGroup, Storage, Wire};
use xxhash_rust::xxh3::xxh3_128;

use crate::memory::vec_bytes;

/// Bytes of a lane that columns share, unless the partition was made with others.
pub(crate) const LANE_BYTES_MAX: usize = 256;
/// Fixed values longer than this have a lane of their own.
pub(crate) const SHARED_VALUE_BYTES_MAX: usize = 64;

pub(crate) const EVENT_TIME_AT: usize = 0;
pub(crate) const SEQUENCE_AT: usize = 8;
pub(crate) const FLAGS_AT: usize = 16;
pub(crate) const VALIDITY_AT: usize = 17;
const STAMP_BYTES: usize = 8;
const REFERENCE_BYTES: usize = 8;

/// Where a feature's values lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FeaturePlace {
    pub ty: FeatureType,
    /// What the bytes in the lane are, if not a value of the type.
    pub storage: Option<Storage>,
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
    /// Where it is noted that a null was written, if the feature has a default.
    pub null: Option<BitPlace>,
    /// Whether it had narrower types: its values may lie at an earlier place ([`LanePlan::earlier`]).
    pub widened: bool,
    /// Whether the feature was dropped: rows lose its values as they are written again.
    pub dropped: bool,
}

impl FeaturePlace {
    /// Whether there is nothing to know but the validity bit and the value.
    #[inline]
    pub fn is_plain(&self) -> bool {
        !self.widened && self.null.is_none()
    }
}

/// What a digest does with a feature: what is asked of each feature of each row that changes, in a quarter of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DigestStep {
    /// First byte of the value in a row buffer.
    pub at: u32,
    /// The byte in a row buffer with its validity bit.
    pub validity_at: u32,
    pub feature: u16,
    pub validity_mask: u8,
    pub form: Form,
}

/// In which form a feature lies in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Four bytes.
    Four,
    /// Eight bytes.
    Eight,
    /// Another fixed number of bytes.
    Fixed,
    /// A reference.
    Variable,
    /// Not of variable width, and there is more to it than a validity bit and a value: see [`FeaturePlace::is_plain`].
    Changed,
}

/// Where a bit lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BitPlace {
    pub lane: usize,
    /// The byte in the lane, and the bit in the byte.
    pub byte: usize,
    pub mask: u8,
}

/// What a feature was before it was widened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Earlier {
    pub feature: u16,
    /// Its earlier types, the narrowest first.
    pub types: Vec<FeatureType>,
    /// The places at which rows may still have it.
    pub places: Vec<FeaturePlace>,
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
    /// What a digest does with each of them.
    pub digest_steps: Vec<DigestStep>,
    /// Those of variable width among them.
    pub variable: Vec<FeaturePlace>,
    /// What those that were widened were before, by ascending feature.
    pub earlier: Vec<Earlier>,
    /// The defaults of features as they are read, by ascending feature.
    pub defaults: Vec<(u16, Vec<u8>)>,
    /// The features that were dropped.
    pub dropped: Vec<u16>,
    lane_bytes_max: usize,
    /// A hash of all of the above: plans with the same one are the same.
    pub fingerprint: u128,
}

impl LanePlan {
    /// The plan of a new group, whose columns share lanes of up to so many bytes, in this order of all features.
    pub fn new(group: &FeatureGroup, lane_bytes_max: usize, order: &[usize]) -> Self {
        assert_eq!(order.len(), group.features.len(), "the order is of all features");
        let widths: Option<Vec<usize>> = group.entity.keys.iter().map(|column| column.ty.canonical_width()).collect();
        let key = KeyPlace {
            offset: VALIDITY_AT + validity_bytes(group, order, 0),
            width: widths.as_ref().map_or(REFERENCE_BYTES, |widths| widths.iter().sum()),
            inline: widths.is_some(),
        };
        let stamp_at = key.offset + key.width;
        let mut plan = Self {
            strides: vec![stamp_at],
            starts: Vec::new(),
            key,
            stamp_at,
            features: Vec::new(),
            digest_steps: Vec::new(),
            variable: Vec::new(),
            earlier: Vec::new(),
            defaults: Vec::new(),
            dropped: Vec::new(),
            lane_bytes_max,
            fingerprint: 0,
        };
        plan.pack(group, order, 0, VALIDITY_AT);
        plan.strides[0] = plan.strides[0].max(stamp_at + STAMP_BYTES).next_multiple_of(8);
        plan.finish(group);
        plan
    }

    /// The plan after a change of the schema: the lanes so far stay as they are, and new ones follow for features that were
    /// appended or have another type, in schema order.
    pub fn extended(&self, group: &FeatureGroup) -> Self {
        let mut plan = self.clone();
        let is_new = |at: &usize| self.features.get(*at).is_none_or(|place| place.ty != group.features[*at].ty);
        let new: Vec<usize> = (0..group.features.len()).filter(is_new).collect();
        if !new.is_empty() {
            plan.strides.push(validity_bytes(group, &new, self.features.len()));
            plan.pack(group, &new, plan.strides.len() - 1, 0);
        }
        plan.finish(group);
        plan
    }

    /// Bytes of a row in all lanes.
    pub fn row_bytes(&self) -> usize {
        self.strides.iter().sum()
    }

    /// Bytes in the heap.
    pub fn bytes(&self) -> usize {
        let earlier = |of: &Earlier| vec_bytes(&of.types) + vec_bytes(&of.places);
        vec_bytes(&self.strides)
            + vec_bytes(&self.starts)
            + vec_bytes(&self.features)
            + vec_bytes(&self.digest_steps)
            + vec_bytes(&self.variable)
            + vec_bytes(&self.earlier)
            + self.earlier.iter().map(earlier).sum::<usize>()
            + vec_bytes(&self.defaults)
            + self.defaults.iter().map(|(_, bytes)| bytes.capacity()).sum::<usize>()
            + vec_bytes(&self.dropped)
    }

    /// What a feature was before it was widened.
    pub fn earlier(&self, feature: usize) -> Option<&Earlier> {
        let at = self.earlier.binary_search_by_key(&feature, |earlier| usize::from(earlier.feature)).ok()?;
        Some(&self.earlier[at])
    }

    /// The default of a feature.
    pub fn default(&self, feature: usize) -> Option<&[u8]> {
        let at = self.defaults.binary_search_by_key(&feature, |(at, _)| usize::from(*at)).ok()?;
        Some(&self.defaults[at].1)
    }

    /// Gives these features places in this order, from lane `open` on, whose validity bits begin at `validity_at`. Those that
    /// have a place already keep it as an earlier one; those that have none are all that follow in the schema.
    fn pack(&mut self, group: &FeatureGroup, new: &[usize], mut open: usize, validity_at: usize) {
        let (validity_lane, mut null_bit) = (open, new.len());
        let mut appended: Vec<(usize, FeaturePlace)> = Vec::new();
        let bit = |bit: usize| BitPlace { lane: validity_lane, byte: validity_at + bit / 8, mask: 1 << (bit % 8) };
        for (number, &at) in new.iter().enumerate() {
            let feature = &group.features[at];
            let (width, variable) = match feature.stored_width() {
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
            let validity = bit(number);
            let mut place = FeaturePlace {
                ty: feature.ty,
                storage: feature.storage,
                lane,
                offset: self.strides[lane],
                width,
                variable,
                dictionary: 0,
                validity_lane,
                validity_byte: validity.byte,
                validity_mask: validity.mask,
                null: None,
                widened: false,
                dropped: false,
            };
            self.strides[lane] += width;
            match self.features.get_mut(at) {
                Some(known) => {
                    place.null = known.null;
                    let before = std::mem::replace(known, place);
                    match self.earlier.binary_search_by_key(&at, |earlier| usize::from(earlier.feature)) {
                        Ok(found) => self.earlier[found].places.push(before),
                        Err(free) => {
                            let earlier = Earlier { feature: at as u16, types: Vec::new(), places: vec![before] };
                            self.earlier.insert(free, earlier);
                        }
                    }
                }
                None => {
                    if feature.default.is_some() {
                        place.null = Some(bit(null_bit));
                        null_bit += 1;
                    }
                    appended.push((at, place));
                }
            }
        }
        appended.sort_unstable_by_key(|(at, _)| *at);
        for (at, place) in appended {
            assert_eq!(at, self.features.len(), "places stand in schema order, whatever the order of the lanes");
            self.features.push(place);
        }
        let variable = self.features.iter_mut().filter(|place| place.variable);
        variable.enumerate().for_each(|(dictionary, place)| place.dictionary = dictionary);
        self.strides.iter_mut().for_each(|stride| *stride = stride.next_multiple_of(8));
    }

    /// Fills in what follows from the rest and from the definition.
    fn finish(&mut self, group: &FeatureGroup) {
        let mut end = 0;
        let mut start = |stride: &usize| {
            end += stride;
            end - stride
        };
        self.starts = self.strides.iter().map(&mut start).collect();
        let mut earlier = std::mem::take(&mut self.earlier).into_iter().peekable();
        (self.defaults, self.dropped) = (Vec::new(), Vec::new());
        for (at, (feature, place)) in (0..).zip(group.features.iter().zip(&mut self.features)) {
            (place.dropped, place.widened) = (feature.dropped, !feature.earlier.is_empty());
            self.dropped.extend(feature.dropped.then_some(at));
            self.defaults.extend(feature.default_as_read().map(|bytes| (at, bytes)));
            if place.widened {
                let known = earlier.next_if(|known| known.feature == at);
                let places = known.map_or_else(Vec::new, |known| known.places);
                let types = feature.earlier.iter().map(|earlier| earlier.ty).collect();
                self.earlier.push(Earlier { feature: at, types, places });
            }
        }
        self.variable = self.features.iter().filter(|place| place.variable).copied().collect();
        self.digest_steps =
            (0..).zip(&self.features).map(|(feature, place)| self.digest_step(feature, place)).collect();
        self.fingerprint = self.hash();
    }

    fn digest_step(&self, feature: u16, place: &FeaturePlace) -> DigestStep {
        DigestStep {
            at: (self.starts[place.lane] + place.offset) as u32,
            validity_at: (self.starts[place.validity_lane] + place.validity_byte) as u32,
            feature,
            validity_mask: place.validity_mask,
            form: match place.width {
                _ if place.variable => Form::Variable,
                _ if !place.is_plain() => Form::Changed,
                4 => Form::Four,
                8 => Form::Eight,
                _ => Form::Fixed,
            },
        }
    }

    fn hash(&self) -> u128 {
        let mut bytes = Vec::new();
        let mut put = |number: usize| (number as u64).put(&mut bytes);
        self.strides.iter().for_each(|stride| put(*stride));
        [self.key.offset, self.key.width, usize::from(self.key.inline), self.stamp_at].into_iter().for_each(&mut put);
        for place in self.features.iter().chain(self.earlier.iter().flat_map(|earlier| &earlier.places)) {
            [place.lane, place.offset, place.width, place.validity_lane, place.validity_byte]
                .into_iter()
                .for_each(&mut put);
            put(usize::from(place.validity_mask) << 1 | usize::from(place.variable));
            let null = place.null.map_or([usize::MAX; 3], |null| [null.lane, null.byte, usize::from(null.mask)]);
            null.into_iter().for_each(&mut put);
        }
        self.earlier.iter().for_each(|earlier| put(usize::from(earlier.feature) << 16 | earlier.places.len()));
        self.features.iter().for_each(|place| place.ty.put(&mut bytes));
        self.features.iter().for_each(|place| place.storage.put(&mut bytes));
        self.earlier.iter().flat_map(|earlier| &earlier.places).for_each(|place| place.ty.put(&mut bytes));
        put_list(&self.defaults, &mut bytes);
        xxh3_128(&bytes)
    }
}

/// Bytes of the validity bits of these features, and of the bits for written nulls of those with a default that have none
/// yet, which are those from `known` on.
fn validity_bytes(group: &FeatureGroup, features: &[usize], known: usize) -> usize {
    let nulls = features.iter().filter(|at| **at >= known && group.features[**at].default.is_some()).count();
    (features.len() + nulls).div_ceil(8)
}

/// The plan of a group that no view is known of.
#[cfg(test)]
pub(crate) fn in_schema_order(group: &FeatureGroup, lane_bytes_max: usize) -> LanePlan {
    let order: Vec<usize> = (0..group.features.len()).collect();
    LanePlan::new(group, lane_bytes_max, &order)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stoa_protocol::catalog::EarlierType;
    use stoa_protocol::{Feature, KeyType};

    use super::*;

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
        let places = || plan.features.iter().chain(plan.earlier.iter().flat_map(|earlier| &earlier.places));
        plan.earlier.iter().flat_map(|earlier| &earlier.places).for_each(|f| take(f.lane, f.offset, f.width));
        let mut bits: Vec<_> = places().map(|f| (f.validity_lane, f.validity_byte, f.validity_mask)).collect();
        let (valid, nulls) = (bits.len(), plan.features.iter().filter_map(|f| f.null));
        bits.extend(nulls.map(|null| (null.lane, null.byte, null.mask)));
        bits.sort_unstable();
        let wanted = valid + plan.features.iter().filter(|f| f.null.is_some()).count();
        let mut bytes: Vec<_> = bits.iter().map(|b| (b.0, b.1)).collect();
        bytes.dedup();
        bytes.iter().for_each(|&(lane, byte)| take(lane, byte, 1));
        bits.dedup();
        assert_eq!(bits.len(), wanted, "every place has a validity bit of its own, and every default a bit for nulls");
        assert!(taken.iter().all(|&count| count <= 1), "nothing overlaps");
        assert!(plan.stamp_at + STAMP_BYTES <= plan.strides[0]);
        assert!(plan.strides.iter().all(|stride| stride.is_multiple_of(8) && *stride > 0));
    }

    #[test]
    fn forty_eight_floats_and_an_integer_key_take_one_lane_of_224_bytes() {
        let all = group(&[FeatureType::Float32; 48], &[KeyType::Int64]);
        let plan = in_schema_order(&all, LANE_BYTES_MAX);
        check(&plan, 48);
        assert_eq!(plan.strides, [224]);
        for (bytes_max, lanes) in [(8, 25), (64, 4), (512, 1)] {
            let plan = in_schema_order(&all, bytes_max);
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
        let plan = in_schema_order(&all, LANE_BYTES_MAX);
        check(&plan, 30);
        assert_eq!(plan.strides.iter().filter(|stride| **stride == 512).count(), 5);
        assert!(plan.strides.iter().all(|stride| *stride <= LANE_BYTES_MAX || *stride == 512));
        let mut first = all.clone();
        first.features.truncate(7);
        let extended = in_schema_order(&first, LANE_BYTES_MAX).extended(&all);
        check(&extended, 30);
        assert_eq!(extended.features[..7], in_schema_order(&first, LANE_BYTES_MAX).features);
    }

    #[test]
    fn a_storage_makes_rows_as_much_narrower_as_it_says() {
        use FeatureType::*;
        let mut all = group(&[FixedArray { items: 128 }; 2], &[KeyType::Int64]);
        all.features.extend((2..26).map(|at| Feature::new(&format!("f{at}"), Float32)));
        let wide = in_schema_order(&all, LANE_BYTES_MAX);
        check(&wide, 26);
        assert_eq!(wide.strides, [128, 512, 512]);
        all.features[0].storage = Some(Storage::Int8Scaled);
        all.features[1..].iter_mut().for_each(|feature| feature.storage = Some(Storage::Float16));
        let narrow = in_schema_order(&all, LANE_BYTES_MAX);
        check(&narrow, 26);
        assert_eq!(
            narrow.strides,
            [80, 136, 256],
            "132 bytes of the first vector, 256 of the second, 48 of 24 numbers"
        );
        // Of these both storages have eight bytes, and readers must not take one for the other.
        let mut alike = group(&[FixedArray { items: 4 }], &[KeyType::Int64]);
        let fingerprints = [Storage::Float16, Storage::Int8Scaled].map(|storage| {
            alike.features[0].storage = Some(storage);
            in_schema_order(&alike, LANE_BYTES_MAX).fingerprint
        });
        assert_ne!(fingerprints[0], fingerprints[1], "readers share what has one fingerprint");
    }

    #[test]
    fn features_that_change_get_new_places_and_keep_the_old_ones() {
        use FeatureType::*;
        let mut all = group(&[Int8, Float32, Int16, String], &[KeyType::Int64]);
        all.features[0].default = Some(vec![1]);
        let first = in_schema_order(&all, 16);
        check(&first, 4);
        let plain = in_schema_order(&group(&[Int8, Float32, Int16, String], &[KeyType::Int64]), 16);
        assert!(plain.features.iter().all(FeaturePlace::is_plain) && first.fingerprint != plain.fingerprint);
        let mut widen = |at: usize, ty| {
            all.schema_version += 1;
            let feature = &mut all.features[at];
            feature.earlier.push(EarlierType { until: all.schema_version, ty: std::mem::replace(&mut feature.ty, ty) });
            feature.default = feature.default.as_ref().map(|_| vec![0; 8]);
            all.clone()
        };
        let (second, third) = (widen(0, Int32), widen(0, Int64));
        let mut last = widen(1, Float64);
        last.features.push(Feature { default: Some(vec![2]), ..Feature::new("more", Int8) });
        last.features[3].dropped = true;
        let mut plan = first.clone();
        for group in [&second, &third, &last] {
            plan = plan.extended(group);
            check(&plan, group.features.len());
        }
        let before: Vec<_> = plan.earlier(0).unwrap().places.iter().map(|place| place.ty).collect();
        assert_eq!((before, plan.earlier(0).unwrap().types.len()), (vec![Int8, Int32], 2));
        assert_eq!((plan.features[0].null, plan.dropped.as_slice()), (first.features[0].null, &[3][..]));
        assert_eq!((plan.default(4), plan.default(1)), (Some(&[2][..]), None));
        let at_once = in_schema_order(&last, 16);
        check(&at_once, 5);
        assert!(at_once.earlier(0).unwrap().places.is_empty() && at_once.fingerprint != plan.fingerprint);
        let mut other = last.clone();
        other.features[4].default = Some(vec![3]);
        assert_ne!(
            in_schema_order(&other, 16).fingerprint,
            at_once.fingerprint,
            "readers share what has one fingerprint"
        );
    }

    #[test]
    fn what_comes_first_in_the_order_is_at_the_head_of_the_row_and_its_bits_are_in_as_few_bytes() {
        let all = group(&[FeatureType::Float32; 500], &[KeyType::Int64]);
        let plain = in_schema_order(&all, LANE_BYTES_MAX);
        let wanted: Vec<usize> = (0..500).step_by(25).collect();
        let others = (0..500).filter(|feature| feature % 25 != 0);
        let order: Vec<usize> = wanted.iter().copied().chain(others).collect();
        let plan = LanePlan::new(&all, LANE_BYTES_MAX, &order);
        check(&plan, 500);
        assert_eq!((plan.key, plan.row_bytes()), (plain.key, plain.row_bytes()));
        for (at, feature) in wanted.iter().enumerate() {
            let place = &plan.features[*feature];
            assert_eq!((place.lane, place.offset), (0, plan.stamp_at + at * 4));
            let bit = (VALIDITY_AT + at / 8, 1 << (at % 8));
            assert_eq!((place.validity_lane, (place.validity_byte, place.validity_mask)), (0, bit));
        }
        assert!(plan.digest_steps.iter().map(|step| usize::from(step.feature)).eq(0..500), "digests know no lanes");
    }

    #[test]
    fn places_by_feature_are_in_schema_order_whatever_the_order_of_the_lanes() {
        use FeatureType::*;
        let mut all = group(&[String, Int8, Binary, Float32, Json, Int64], &[KeyType::String]);
        all.features[4].default = Some(b"{}".to_vec());
        all.features[1].default = Some(vec![7]);
        all.features[3].dropped = true;
        let plan = LanePlan::new(&all, LANE_BYTES_MAX, &[5, 4, 3, 2, 1, 0]);
        check(&plan, 6);
        assert!(plan.features.iter().zip(&all.features).all(|(place, feature)| place.ty == feature.ty));
        let numbers: Vec<_> = plan.variable.iter().map(|place| (place.ty, place.dictionary)).collect();
        assert_eq!(numbers, [(String, 0), (Binary, 1), (Json, 2)]);
        let defaults: Vec<u16> = plan.defaults.iter().map(|(feature, _)| *feature).collect();
        assert_eq!((defaults, plan.dropped.as_slice()), (vec![1, 4], &[3][..]));
        let lanes: Vec<usize> = plan.features.iter().map(|place| place.offset).collect();
        assert!(lanes.is_sorted_by(|one, next| one > next), "the last feature lies first: {lanes:?}");
    }

    fn any_feature() -> impl Strategy<Value = (FeatureType, usize)> {
        use FeatureType::*;
        let types = [
            Bool,
            Int8,
            Int16,
            Int32,
            Int64,
            Float32,
            Float64,
            Decimal128 { scale: 2 },
            Date,
            Timestamp,
            String,
            Binary,
            Json,
            FixedArray { items: 3 },
            FixedArray { items: 16 },
            FixedArray { items: 17 },
        ];
        (prop::sample::select(types.to_vec()), 0..4_usize)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
        #[test]
        fn a_plan_in_any_order_is_sound_and_is_known_by_its_fingerprint(
            features in prop::collection::vec(any_feature(), 2..60),
            seeds in prop::collection::vec(any::<u64>(), 60),
            lane_bytes_max in prop::sample::select(vec![8, 64, 256, 512]),
            appended in 0..8_usize,
        ) {
            let types: Vec<FeatureType> = features.iter().map(|(ty, _)| *ty).collect();
            let mut all = group(&types, &[KeyType::Int64]);
            for (feature, (ty, kind)) in all.features.iter_mut().zip(&features) {
                let storage = [None, None, Some(Storage::Float16), Some(Storage::Int8Scaled)][*kind];
                feature.storage = storage.filter(|storage| storage.check_type(*ty).is_ok());
                if let (1, Width::Fixed(width)) = (*kind, ty.width()) {
                    feature.default = Some(vec![0; width]);
                }
            }
            let mut first = all.clone();
            first.features.truncate((features.len() - appended.min(features.len() - 2)).max(2));
            let count = first.features.len();
            let mut order: Vec<usize> = (0..count).collect();
            order.sort_by_key(|feature| seeds[*feature]);
            let plan = LanePlan::new(&first, lane_bytes_max, &order);
            check(&plan, count);
            let shared: Vec<_> = order.iter().map(|feature| &plan.features[*feature]).collect();
            let values: Vec<_> = shared
                .iter()
                .filter(|place| place.width <= SHARED_VALUE_BYTES_MAX)
                .map(|place| (place.lane, place.offset))
                .collect();
            prop_assert!(values.is_sorted(), "values lie in the order");
            let bits: Vec<_> = shared.iter().map(|place| (place.validity_byte, place.validity_mask)).collect();
            prop_assert!(bits.is_sorted(), "and so do their validity bits");
            let mut other = order.clone();
            other.swap(0, count - 1);
            let turned = LanePlan::new(&first, lane_bytes_max, &other);
            prop_assert_ne!(turned.fingerprint, plan.fingerprint, "readers share what has one fingerprint");
            let extended = plan.extended(&all);
            check(&extended, all.features.len());
            prop_assert_eq!(&extended.features[..count], &plan.features[..], "what stands stays where it is");
        }
    }

    #[test]
    fn the_narrowest_and_the_widest_group_have_a_plan() {
        check(&in_schema_order(&group(&[FeatureType::Bool], &[KeyType::Bool]), LANE_BYTES_MAX), 1);
        check(&in_schema_order(&group(&[FeatureType::Bool; 1_024], &[KeyType::Int64; 8]), LANE_BYTES_MAX), 1_024);
        check(&in_schema_order(&group(&[FeatureType::String; 1_024], &[KeyType::Binary]), LANE_BYTES_MAX), 1_024);
    }
}
