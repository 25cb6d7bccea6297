//! One version of a row outside its lanes: all lanes one after the other, as the plan lays them out. The writer builds a
//! version here before it is stored, and digests and snapshots read one here.

use std::ops::Deref;

use stoa_protocol::Storage;
use stoa_protocol::widen::{Scalar, narrowest, widen};

use crate::arena::{Arena, ArenaRef};
use crate::lane_plan::{EVENT_TIME_AT, FLAGS_AT, FeaturePlace, LanePlan, SEQUENCE_AT};

const FLAG_TOMBSTONE: u8 = 1;

/// One version of a row.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowBuffer {
    pub bytes: Vec<u8>,
}

impl RowBuffer {
    /// Makes it a row of nulls.
    pub fn clear(&mut self, plan: &LanePlan) {
        self.bytes.clear();
        self.bytes.resize(plan.row_bytes(), 0);
    }

    /// Makes it the same as another.
    pub fn copy_from(&mut self, other: &Self) {
        self.bytes.clone_from(&other.bytes);
    }

    pub fn event_time(&self) -> i64 {
        self.eight(EVENT_TIME_AT) as i64
    }
    pub fn sequence(&self) -> u64 {
        self.eight(SEQUENCE_AT)
    }
    pub fn set_event(&mut self, event_time: i64, sequence: u64) {
        self.set_eight(EVENT_TIME_AT, event_time as u64);
        self.set_eight(SEQUENCE_AT, sequence);
    }

    /// The partition time of the deletion, if it is a tombstone.
    pub fn tombstone(&self, plan: &LanePlan) -> Option<i64> {
        (self.bytes[FLAGS_AT] & FLAG_TOMBSTONE != 0).then(|| self.eight(plan.stamp_at) as i64)
    }
    pub fn set_tombstone(&mut self, plan: &LanePlan, stamp_us: i64) {
        self.bytes[FLAGS_AT] |= FLAG_TOMBSTONE;
        self.set_eight(plan.stamp_at, stamp_us as u64);
    }

    /// The key where its width is fixed; else its reference.
    pub fn key_bytes(&self, plan: &LanePlan) -> &[u8] {
        &self.bytes[plan.key.offset..plan.key.offset + plan.key.width]
    }
    pub fn set_key_bytes(&mut self, plan: &LanePlan, bytes: &[u8]) {
        self.bytes[plan.key.offset..plan.key.offset + plan.key.width].copy_from_slice(bytes);
    }
    /// The reference of a key that lies in the arena.
    pub fn key_reference(&self, plan: &LanePlan) -> Option<ArenaRef> {
        (!plan.key.inline).then(|| ArenaRef(self.eight(plan.key.offset)))
    }

    /// Appends the key.
    pub fn key(&self, plan: &LanePlan, arena: &Arena, out: &mut Vec<u8>) {
        match self.key_reference(plan) {
            Some(reference) => arena.read(reference, out),
            None => out.extend_from_slice(self.key_bytes(plan)),
        }
    }

    #[inline]
    pub fn is_present(&self, plan: &LanePlan, place: &FeaturePlace) -> bool {
        self.bytes[plan.starts[place.validity_lane] + place.validity_byte] & place.validity_mask != 0
    }

    /// The bytes of a feature in its lane.
    #[inline]
    pub fn value(&self, plan: &LanePlan, place: &FeaturePlace) -> &[u8] {
        let at = plan.starts[place.lane] + place.offset;
        &self.bytes[at..at + place.width]
    }

    /// The reference of a feature whose value is present and lies in the arena.
    #[inline]
    pub fn reference(&self, plan: &LanePlan, place: &FeaturePlace) -> Option<ArenaRef> {
        let here = place.variable && self.is_present(plan, place);
        here.then(|| ArenaRef(self.eight(plan.starts[place.lane] + place.offset)))
    }

    /// The references of all values that lie in the arena.
    pub fn references<'a>(&'a self, plan: &'a LanePlan) -> impl Iterator<Item = ArenaRef> + 'a {
        self.values_apart(plan).map(|(_, reference)| reference)
    }

    /// The same, each behind the place of its dictionary.
    pub fn values_apart<'a>(&'a self, plan: &'a LanePlan) -> impl Iterator<Item = (usize, ArenaRef)> + 'a {
        plan.variable.iter().filter_map(|place| Some((place.dictionary, self.reference(plan, place)?)))
    }

    /// The value of a feature of fixed width in the type that it has now, whatever it has been; or in its storage.
    pub fn fixed<'a>(&'a self, plan: &LanePlan, feature: usize) -> Option<Fixed<'a>> {
        let place = &plan.features[feature];
        if self.is_present(plan, place) {
            return Some(Fixed::Here(self.value(plan, place)));
        }
        let before = self.earlier_place(plan, feature)?;
        Some(Fixed::Converted(widen(before.ty, place.ty, self.value(plan, before))))
    }

    /// The value of a feature of fixed width in the narrowest type that it ever had and that has the value: the same on all
    /// replicas, whatever form it has here.
    pub fn narrowest<'a>(&'a self, plan: &LanePlan, feature: usize) -> Option<Fixed<'a>> {
        let place = &plan.features[feature];
        let place = match self.is_present(plan, place) {
            true => place,
            false => self.earlier_place(plan, feature)?,
        };
        let value = self.value(plan, place);
        let types = plan.earlier(feature).into_iter().flat_map(|earlier| earlier.types.iter().copied());
        Some(narrowest(place.ty, types, value).map_or(Fixed::Here(value), Fixed::Converted))
    }

    /// Whether there is a value of a feature.
    pub fn holds(&self, plan: &LanePlan, feature: usize) -> bool {
        self.is_present(plan, &plan.features[feature]) || self.earlier_place(plan, feature).is_some()
    }

    /// Whether a null was written that hides the feature's default.
    pub fn is_null(&self, plan: &LanePlan, place: &FeaturePlace) -> bool {
        place.null.is_some_and(|null| self.bytes[plan.starts[null.lane] + null.byte] & null.mask != 0)
    }

    /// The earlier place of a feature that has a value.
    fn earlier_place<'a>(&self, plan: &'a LanePlan, feature: usize) -> Option<&'a FeaturePlace> {
        if !plan.features[feature].widened {
            return None;
        }
        plan.earlier(feature)?.places.iter().find(|place| self.is_present(plan, place))
    }

    /// Sets a feature to these bytes in its lane, or to null.
    pub fn set_value(&mut self, plan: &LanePlan, feature: usize, bytes: Option<&[u8]>) {
        self.set_values(plan).set(feature, &plan.features[feature], bytes);
    }

    /// Takes all away that a row has of a feature, as if it had never been written.
    pub fn forget(&mut self, plan: &LanePlan, feature: usize) {
        let place = &plan.features[feature];
        self.put(plan, place, None);
        self.forget_earlier(plan, feature);
        self.set_null(plan, place, false);
    }

    fn forget_earlier(&mut self, plan: &LanePlan, feature: usize) {
        let places = plan.earlier(feature).map_or(&[][..], |earlier| &earlier.places);
        places.iter().for_each(|place| self.put(plan, place, None));
    }

    fn set_null(&mut self, plan: &LanePlan, place: &FeaturePlace, written: bool) {
        if let Some(null) = place.null {
            let byte = &mut self.bytes[plan.starts[null.lane] + null.byte];
            *byte = if written { *byte | null.mask } else { *byte & !null.mask };
        }
    }

    /// Sets what a row has at a place, or that it has nothing there, and touches no other place of the feature.
    pub fn put(&mut self, plan: &LanePlan, place: &FeaturePlace, bytes: Option<&[u8]>) {
        self.set_values(plan).put(place, bytes);
    }

    /// For setting several, which is cheaper in the order of their lanes.
    pub fn set_values<'a>(&'a mut self, plan: &'a LanePlan) -> SetValues<'a> {
        SetValues { row: self, plan, validity_at: 0, present: 0, null: 0 }
    }

    #[inline]
    fn eight(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().expect("eight bytes"))
    }
    fn set_eight(&mut self, at: usize, value: u64) {
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}

/// The bytes of a value of fixed width.
pub(crate) enum Fixed<'a> {
    /// As they lie in the row.
    Here(&'a [u8]),
    /// In another type.
    Converted(Scalar),
}

impl Deref for Fixed<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Here(bytes) => bytes,
            Self::Converted(scalar) => scalar,
        }
    }
}

/// Sets values of a row. Validity bits are collected until one of another byte comes: eight changes of a byte in memory wait
/// for each other.
pub(crate) struct SetValues<'a> {
    row: &'a mut RowBuffer,
    plan: &'a LanePlan,
    /// The byte of the row that they are of, and which of its bits are to be set and to be cleared.
    validity_at: usize,
    present: u8,
    null: u8,
}

impl SetValues<'_> {
    /// Sets a feature, whose place is this, to these bytes in its lane, or to null.
    #[inline]
    pub fn set(&mut self, feature: usize, place: &FeaturePlace, bytes: Option<&[u8]>) {
        self.put(place, bytes);
        if !place.is_plain() {
            self.set_rest(feature, place, bytes.is_none());
        }
    }

    /// What else there is of a feature that was widened or has a default.
    #[cold]
    fn set_rest(&mut self, feature: usize, place: &FeaturePlace, is_null: bool) {
        // The bits may be in the byte that is collected.
        self.put_validity();
        self.row.forget_earlier(self.plan, feature);
        self.row.set_null(self.plan, place, is_null);
    }

    /// The same of a value of the feature's type, which is narrowed to its storage.
    pub fn set_narrowed(&mut self, feature: usize, place: &FeaturePlace, storage: Storage, value: &[u8]) {
        self.put_validity_of(place, true);
        storage.narrow(value, self.room_of(place));
        if !place.is_plain() {
            self.set_rest(feature, place, false);
        }
    }

    #[inline]
    fn put(&mut self, place: &FeaturePlace, bytes: Option<&[u8]>) {
        self.put_validity_of(place, bytes.is_some());
        let to = self.room_of(place);
        match bytes {
            Some(bytes) => copy_value(to, bytes),
            None => to.fill(0),
        }
    }

    #[inline]
    fn room_of(&mut self, place: &FeaturePlace) -> &mut [u8] {
        let at = self.plan.starts[place.lane] + place.offset;
        &mut self.row.bytes[at..at + place.width]
    }

    #[inline]
    fn put_validity_of(&mut self, place: &FeaturePlace, is_present: bool) {
        let validity_at = self.plan.starts[place.validity_lane] + place.validity_byte;
        if validity_at != self.validity_at {
            self.put_validity();
            self.validity_at = validity_at;
        }
        match is_present {
            true => self.present |= place.validity_mask,
            false => self.null |= place.validity_mask,
        }
    }

    /// The reference that a feature has which has not been set yet.
    #[inline]
    pub fn reference(&self, place: &FeaturePlace) -> Option<ArenaRef> {
        self.row.reference(self.plan, place)
    }

    fn put_validity(&mut self) {
        let validity = &mut self.row.bytes[self.validity_at];
        *validity = *validity & !self.null | self.present;
        (self.present, self.null) = (0, 0);
    }
}

impl Drop for SetValues<'_> {
    fn drop(&mut self) {
        self.put_validity();
    }
}

/// Copies a value. A call of the C library's copy costs more than those of the usual widths do.
#[inline]
fn copy_value(to: &mut [u8], from: &[u8]) {
    if let (Ok(to), Ok(from)) = (<&mut [u8; 4]>::try_from(&mut *to), <&[u8; 4]>::try_from(from)) {
        *to = *from;
    } else if let (Ok(to), Ok(from)) = (<&mut [u8; 8]>::try_from(&mut *to), <&[u8; 8]>::try_from(from)) {
        *to = *from;
    } else {
        to.copy_from_slice(from);
    }
}
