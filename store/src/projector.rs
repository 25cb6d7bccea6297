//! A projection, compiled for one lane plan: what a row of the answer looks like, and which pieces of lanes make it up.

use std::cell::RefCell;
use std::rc::Rc;

use stoa_protocol::read::RowStatus;
use stoa_protocol::row_block::{BlockColumn, BlockLayout, STATUS_AT, VALIDITY_AT, bytes_in_row};
use stoa_protocol::{FeatureType, Storage};

use crate::lane_plan::{BitPlace, FLAGS_AT as HEAD_AT, FeaturePlace, LanePlan, VALIDITY_AT as LANE_VALIDITY_AT};
use crate::lanes::{Copied, Copies, Single};

/// Bytes of a lane that a row of the answer has, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The lane.
    pub lane: usize,
    /// The first byte there.
    pub from: usize,
    /// How many.
    pub bytes: usize,
    /// The first byte in the row of the answer.
    pub to: usize,
}

/// A value that lies in a lane in its feature's storage, and is widened into the row of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Narrow {
    pub storage: Storage,
    /// The lane.
    pub lane: usize,
    /// The first byte there.
    pub from: usize,
    /// How many.
    pub bytes: usize,
    /// The first byte in the row of the answer.
    pub to: usize,
    /// How many there.
    pub wide_bytes: usize,
}

/// What a value is where its place in the lanes has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Patch {
    /// Its type in the answer.
    pub ty: FeatureType,
    /// Its first byte in the row of the answer.
    pub to: usize,
    /// The byte in the row of the answer with its validity bit, and the bit.
    pub validity: (usize, u8),
    /// The places at which earlier versions of a row may have it, in narrower types.
    pub earlier: Vec<FeaturePlace>,
    /// Where it is noted that a null was written, and what stands for a value that was not.
    pub default: Option<(BitPlace, Vec<u8>)>,
}

/// Words of a lane, from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Near {
    pub lane: usize,
    pub first: usize,
    pub last: usize,
}

/// What the third word of a row's first lane becomes in the row of the answer: the status, and the first validity bits. A status
/// of 0 says that the row was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub shift: u32,
    /// The validity bits that may be seen.
    pub mask: u64,
}

/// A projection, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Projector {
    /// What the answer's rows look like.
    pub layout: BlockLayout,
    /// Validity and values, neighbours as one.
    pub pieces: Vec<Piece>,
    /// The first validity bits, as they are copied out of lanes.
    pub head: Head,
    /// The other pieces, by their lane: what is copied out of it.
    pub copies: Vec<(usize, Copies)>,
    /// Whether that is all: nothing is widened or patched, and the mask hides none of the validity bits that the head does not
    /// have.
    pub is_copied: bool,
    /// The validity bits that may be seen: a lane's bytes have those of other features, too.
    pub mask: Vec<u8>,
    /// The values that are widened, in the order of their lanes.
    pub narrow: Vec<Narrow>,
    /// Where the references of values of variable width stand in the answer's row.
    pub references: Vec<usize>,
    /// What is to be looked at beside validity bit and value, of features that were widened or have a default.
    pub patches: Vec<Patch>,
    /// What to bring near of each row.
    pub near: Vec<Near>,
}

/// Projectors that a thread remembers. Of one with 1,024 features there are some 100 KiB, so 2 MiB a thread at the most. A
/// node that serves more views than this in turn compiles them again, which is what each read of it did before.
const REMEMBERED_MAX: usize = 16;

thread_local! {
    static REMEMBERED: RefCell<Remembered> = const { RefCell::new(Remembered { all: Vec::new(), oldest: 0 }) };
}

/// Projectors of the last reads of a thread, by what they were compiled from, so that none can be out of date. The plan of a
/// group is the same in all partitions as a rule, so they share one.
struct Remembered {
    all: Vec<Known>,
    /// The place of the one that was compiled first, once there are as many as may be.
    oldest: usize,
}

struct Known {
    fingerprint: u128,
    features: Vec<u16>,
    projector: Rc<Projector>,
}

/// These features, which the plan has, compiled by this read of the thread or by one before.
pub(crate) fn compiled(plan: &LanePlan, features: &[u16]) -> Rc<Projector> {
    REMEMBERED.with_borrow_mut(|remembered| remembered.compiled(plan, features))
}

impl Remembered {
    fn compiled(&mut self, plan: &LanePlan, features: &[u16]) -> Rc<Projector> {
        let fingerprint = plan.fingerprint;
        let is = |known: &&Known| known.fingerprint == fingerprint && known.features == features;
        if let Some(known) = self.all.iter().find(is) {
            return known.projector.clone();
        }
        let projector = Rc::new(Projector::new(plan, features));
        let known = Known { fingerprint, features: features.to_vec(), projector: projector.clone() };
        if self.all.len() < REMEMBERED_MAX {
            self.all.push(known);
        } else {
            self.all[self.oldest] = known;
            self.oldest = (self.oldest + 1) % REMEMBERED_MAX;
        }
        projector
    }
}

/// Words of a cache line.
const LINE_WORDS: usize = 8;
/// Bytes that are brought near of pieces that lie side by side; the processor sees the pattern after that.
const NEAR_BYTES_MAX: usize = 256;

impl Projector {
    /// Compiles these features, which the plan has. Values come in the order in which they lie in their lanes, whatever the
    /// order asked for, so that neighbours are copied as one; a feature that is asked for twice is there once.
    pub fn new(plan: &LanePlan, features: &[u16]) -> Self {
        let place = |feature: &u16| &plan.features[usize::from(*feature)];
        let mut bytes: Vec<_> =
            features.iter().map(place).map(|place| (place.validity_lane, place.validity_byte)).collect();
        bytes.sort_unstable();
        bytes.dedup();
        let mut pieces = Vec::new();
        for (at, &(lane, byte)) in bytes.iter().enumerate() {
            push(&mut pieces, Piece { lane, from: byte, bytes: 1, to: VALIDITY_AT + at });
        }
        let values_at = VALIDITY_AT + bytes.len();
        let mut values: Vec<(&FeaturePlace, u16)> = features.iter().map(|feature| (place(feature), *feature)).collect();
        values.sort_unstable_by_key(|(place, _)| (place.lane, place.offset));
        values.dedup();
        let mut stride = values_at;
        let mut offsets = Vec::with_capacity(values.len());
        let (mut narrow, mut references, mut patches) = (Vec::new(), Vec::new(), Vec::new());
        for &(place, feature) in &values {
            offsets.push(stride);
            references.extend(place.variable.then_some(stride));
            if !place.is_plain() {
                let byte = bytes.binary_search(&(place.validity_lane, place.validity_byte)).expect("it is among them");
                patches.push(Patch {
                    ty: place.ty,
                    to: stride,
                    validity: (VALIDITY_AT + byte, place.validity_mask),
                    earlier: plan.earlier(feature.into()).map_or_else(Vec::new, |earlier| earlier.places.clone()),
                    default: place.null.zip(plan.default(feature.into()).map(<[u8]>::to_vec)),
                });
            }
            let wide_bytes = bytes_in_row(place.ty);
            let (lane, from, bytes, to) = (place.lane, place.offset, place.width, stride);
            match place.storage {
                Some(storage) => narrow.push(Narrow { storage, lane, from, bytes, to, wide_bytes }),
                None => {
                    debug_assert_eq!(bytes, wide_bytes);
                    push(&mut pieces, Piece { lane, from, bytes, to });
                }
            }
            stride += wide_bytes;
        }
        let mut mask = vec![0; bytes.len()];
        let column = |place: &FeaturePlace| {
            let of_value =
                |(value, _): &(&FeaturePlace, u16)| (value.lane, value.offset).cmp(&(place.lane, place.offset));
            let value = values.binary_search_by(of_value).expect("it is among them");
            let byte = bytes.binary_search(&(place.validity_lane, place.validity_byte)).expect("it is among them");
            mask[byte] |= place.validity_mask;
            let bit = byte as u32 * 8 + place.validity_mask.trailing_zeros();
            BlockColumn { ty: place.ty, offset: offsets[value] as u32, bit: bit as u16 }
        };
        let columns = features.iter().map(place).map(column).collect();
        let layout = BlockLayout::new(columns, bytes.len(), stride);
        // A place that nobody is to look at twice costs nothing; what earlier versions have is as far away as any lane.
        patches.retain(|patch| !patch.earlier.is_empty() || patch.default.is_some());
        let near = near(plan, &pieces, &narrow, &patches);
        let (head, headed) = Head::of(&bytes, &mask);
        let is_copied = narrow.is_empty() && patches.is_empty() && mask[headed..].iter().all(|mask| *mask == u8::MAX);
        let copies = copies(plan, stride, &pieces, VALIDITY_AT + headed);
        Self { layout, pieces, head, copies, is_copied, mask, narrow, references, patches, near }
    }

    /// What a row of the answer has beside its head, if that is one piece of lane 0.
    #[inline]
    pub fn single(&self) -> Option<Single> {
        match &self.copies[..] {
            [(0, copies)] if self.is_copied => copies.single(),
            _ => None,
        }
    }

    /// The default of the value that begins at a place of the answer's row.
    pub fn default_at(&self, to: usize) -> &[u8] {
        let patch = self.patches.iter().find(|patch| patch.to == to);
        patch.and_then(|patch| patch.default.as_ref()).map_or(&[], |(_, value)| value)
    }
}

impl Head {
    /// Of rows with these bytes of validity bits, by lane and place: the first ones that lie side by side in the word. And
    /// how many these are.
    fn of(bytes: &[(usize, usize)], mask: &[u8]) -> (Self, usize) {
        const { assert!(RowStatus::Found as u8 == 0 && LANE_VALIDITY_AT == HEAD_AT + 1 && VALIDITY_AT == STATUS_AT + 1) };
        let first = bytes.first().map_or(LANE_VALIDITY_AT, |(_, byte)| *byte);
        let side_by_side = |&(at, &(lane, byte)): &(usize, &(usize, usize))| {
            lane == 0 && byte == first + at && byte < HEAD_AT + size_of::<u64>()
        };
        let count = bytes.iter().enumerate().take_while(side_by_side).count();
        let mut visible = [0; size_of::<u64>()];
        visible[1..=count].copy_from_slice(&mask[..count]);
        let shift = if count > 0 { (first - LANE_VALIDITY_AT) as u32 * 8 } else { 0 };
        (Self { shift, mask: u64::from_le_bytes(visible) }, count)
    }
}

/// What is copied out of each lane, into rows of `stride` bytes: these pieces, from byte `done` of the row on.
fn copies(plan: &LanePlan, stride: usize, pieces: &[Piece], done: usize) -> Vec<(usize, Copies)> {
    let left = |piece: &Piece| {
        let gone = done.saturating_sub(piece.to).min(piece.bytes);
        let (from, to) = ((piece.from + gone) as u32, (piece.to + gone) as u32);
        (piece.lane, Copied { from, bytes: (piece.bytes - gone) as u32, to })
    };
    let mut left: Vec<_> = pieces.iter().map(left).filter(|(_, copied)| copied.bytes > 0).collect();
    left.sort_by_key(|(lane, _)| *lane);
    let of_lane = |of: &[(usize, Copied)]| {
        let lane = of[0].0;
        (lane, Copies::new(plan.strides[lane], stride, of.iter().map(|(_, copied)| *copied)))
    };
    left.chunk_by(|one, next| one.0 == next.0).map(of_lane).collect()
}

/// The words of the pieces and of the key, which is compared with each row, and of what patches look at.
fn near(plan: &LanePlan, pieces: &[Piece], narrow: &[Narrow], patches: &[Patch]) -> Vec<Near> {
    let mut ranges: Vec<_> = pieces.iter().map(|piece| (piece.lane, piece.from, piece.from + piece.bytes)).collect();
    ranges.extend(narrow.iter().map(|value| (value.lane, value.from, value.from + value.bytes)));
    for patch in patches {
        for place in &patch.earlier {
            ranges.push((place.lane, place.offset, place.offset + place.width));
            ranges.push((place.validity_lane, place.validity_byte, place.validity_byte + 1));
        }
        ranges.extend(patch.default.iter().map(|(null, _)| (null.lane, null.byte, null.byte + 1)));
    }
    ranges.push((0, 0, plan.key.offset + plan.key.width));
    ranges.sort_unstable();
    let mut merged: Vec<(usize, usize, usize)> = Vec::new();
    for (lane, from, to) in ranges {
        match merged.last_mut() {
            Some(last) if last.0 == lane && from < last.2 + LINE_WORDS * 8 => last.2 = last.2.max(to),
            _ => merged.push((lane, from, to)),
        }
    }
    let words = |(lane, from, to): (usize, usize, usize)| Near {
        lane,
        first: from / 8,
        last: (to.min(from + NEAR_BYTES_MAX) - 1) / 8,
    };
    merged.into_iter().map(words).collect()
}

/// Adds a piece, to the one before if they are neighbours on both sides.
fn push(pieces: &mut Vec<Piece>, piece: Piece) {
    match pieces.last_mut() {
        Some(last)
            if last.lane == piece.lane && last.from + last.bytes == piece.from && last.to + last.bytes == piece.to =>
        {
            last.bytes += piece.bytes;
        }
        _ => pieces.push(piece),
    }
}

#[cfg(test)]
mod tests {
    use stoa_protocol::{FeatureGroup, KeyType};

    use super::*;
    use crate::lane_order::LaneOrders;
    use crate::lane_plan::{LANE_BYTES_MAX, in_schema_order};

    fn plan(types: &[FeatureType]) -> LanePlan {
        let names: Vec<String> = (0..types.len()).map(|at| format!("f{at}")).collect();
        let features: Vec<_> = names.iter().map(String::as_str).zip(types.iter().copied()).collect();
        in_schema_order(&FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &features), LANE_BYTES_MAX)
    }

    #[test]
    fn a_whole_row_of_one_lane_is_two_pieces_in_whatever_order_it_is_asked_for() {
        let plan = plan(&[FeatureType::Float32; 48]);
        let all: Vec<u16> = (0..48).collect();
        let projector = Projector::new(&plan, &all);
        let values = plan.features[0].offset;
        assert_eq!(
            projector.pieces,
            [Piece { lane: 0, from: 17, bytes: 6, to: 9 }, Piece { lane: 0, from: values, bytes: 192, to: 15 }]
        );
        assert_eq!((projector.layout.stride(), &projector.mask, projector.is_copied), (207, &vec![0xff; 6], true));
        assert_eq!(projector.near, [Near { lane: 0, first: 0, last: 27 }]);
        let back: Vec<u16> = all.into_iter().rev().collect();
        let turned = Projector::new(&plan, &back);
        assert_eq!(turned.pieces, projector.pieces);
        assert!(turned.layout.columns().iter().eq(projector.layout.columns().iter().rev()));
    }

    #[test]
    fn what_a_view_reads_of_a_wide_group_is_as_few_pieces_as_if_the_group_had_nothing_else() {
        let names: Vec<String> = (0..500).map(|at| format!("f{at}")).collect();
        let features: Vec<_> = names.iter().map(|name| (name.as_str(), FeatureType::Float32)).collect();
        let group = FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &features);
        let view: Vec<u16> = (0..500).step_by(25).collect();
        let spread = Projector::new(&in_schema_order(&group, LANE_BYTES_MAX), &view);
        assert_eq!((spread.pieces.len(), spread.layout.stride()), (40, VALIDITY_AT + 20 + 80));
        let orders = LaneOrders::by_views([(group.id, view.clone())]);
        let plan = LanePlan::new(&group, LANE_BYTES_MAX, &orders.of(group.id, 500));
        let together = Projector::new(&plan, &view);
        let values = Piece { lane: 0, from: plan.stamp_at, bytes: 80, to: VALIDITY_AT + 3 };
        assert_eq!(together.pieces, [Piece { lane: 0, from: 17, bytes: 3, to: VALIDITY_AT }, values]);
        assert_eq!(together.layout.stride(), VALIDITY_AT + 3 + 80);
        assert_eq!(together.near, [Near { lane: 0, first: 0, last: (plan.stamp_at + 79) / 8 }]);
    }

    #[test]
    fn what_is_remembered_is_of_this_plan_and_these_features_and_no_more_than_may_be() {
        use FeatureType::*;
        let plans = [plan(&[Int32, Float64, Int16]), plan(&[Float64, Int32, Int16])];
        let mut remembered = Remembered { all: Vec::new(), oldest: 0 };
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let asked: Vec<_> = plans.iter().flat_map(|plan| orders.iter().map(move |order| (plan, &order[..]))).collect();
        let asked: Vec<_> =
            asked.iter().copied().chain(asked.iter().map(|(plan, order)| (*plan, &order[..2]))).collect();
        for (plan, features) in asked.iter().chain(&asked) {
            let projector = remembered.compiled(plan, features);
            assert_eq!(*projector, Projector::new(plan, features));
            assert!(Rc::ptr_eq(&projector, &remembered.compiled(plan, features)));
            assert!(remembered.all.len() <= REMEMBERED_MAX);
        }
        assert_eq!(remembered.all.len(), REMEMBERED_MAX);
    }

    #[test]
    fn what_is_widened_is_no_piece_and_its_neighbours_are_not_one() {
        use FeatureType::*;
        let features = [("a", Float32), ("b", Float32), ("c", FixedArray { items: 64 }), ("d", Float32)];
        let mut group = FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &features);
        group.features[1].storage = Some(Storage::Float16);
        group.features[2].storage = Some(Storage::Int8Scaled);
        let plan = in_schema_order(&group, LANE_BYTES_MAX);
        let projector = Projector::new(&plan, &[0, 1, 2, 3]);
        assert_eq!(projector.pieces.len(), 3, "validity, a and d: {:?}", projector.pieces);
        let widths: Vec<_> = projector.narrow.iter().map(|value| (value.bytes, value.wide_bytes)).collect();
        assert_eq!(widths, [(2, 4), (68, 256)]);
        assert_eq!(projector.layout.stride(), VALIDITY_AT + 1 + 3 * 4 + 256);
        assert!(projector.near.iter().any(|near| near.lane == plan.features[2].lane), "{:?}", projector.near);
    }

    #[test]
    fn what_was_not_asked_for_is_not_copied_and_its_validity_is_masked() {
        use FeatureType::*;
        let plan = plan(&[Int8, String, Float64, FixedArray { items: 128 }, Bool, Binary, Int32, Int16, Int8, Int8]);
        let projector = Projector::new(&plan, &[3, 0, 1, 9, 1]);
        let wanted: usize = [512, 1, 8, 1].iter().sum();
        let copied: usize = projector.pieces.iter().map(|piece| piece.bytes).sum();
        assert_eq!(copied, wanted + 2);
        assert_eq!((&projector.mask[..], projector.is_copied), (&[0b1011, 0b10][..], true));
        assert_eq!(projector.layout.stride(), VALIDITY_AT + 2 + wanted);
        assert_eq!(projector.layout.columns()[2], projector.layout.columns()[4]);
        assert_eq!(projector.references, [projector.layout.columns()[2].offset as usize]);
        assert!(projector.near.iter().any(|near| near.lane == plan.features[3].lane), "{:?}", projector.near);
        let bits: Vec<_> = projector.layout.columns().iter().map(|column| column.bit).collect();
        assert_eq!(bits, [3, 0, 1, 9, 1]);
    }
}
