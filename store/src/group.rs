//! A group of a partition as readers see it.

use std::sync::Arc;

use stoa_planted::planted;
use stoa_protocol::{FeatureGroup, KeyType};

use crate::arena::{Arena, ArenaRef};
use crate::cold::Cold;
use crate::index::Index;
use crate::lane_plan::{EVENT_TIME_AT, FLAGS_AT, LanePlan};
use crate::lanes::{Slab, Slot};
use crate::memory::{ARC_BYTES, definition_bytes, vec_bytes};
use crate::row::RowBuffer;

/// How many rows ahead a look through rows asks for their heads.
const SWEEP_AHEAD: usize = 16;

/// One definition of a group and where its rows lie. Another definition is another one of these over the same lanes.
pub(crate) struct Group {
    pub definition: FeatureGroup,
    pub key_types: Vec<KeyType>,
    pub plan: LanePlan,
    pub lanes: Vec<Arc<Slab>>,
    pub index: Arc<Index>,
    /// Rows that have not been taken in from the snapshot of the last start; see [`crate::cold`].
    pub cold: Option<Arc<Cold>>,
}

impl Group {
    /// A new group without rows, with its columns in lanes of up to so many bytes, in this order.
    pub fn new(definition: FeatureGroup, index: Arc<Index>, lane_bytes_max: usize, order: &[usize]) -> Self {
        let plan = LanePlan::new(&definition, lane_bytes_max, order);
        let lanes = plan.strides.iter().map(|stride| Arc::new(Slab::new(*stride))).collect();
        Self { key_types: definition.entity.key_types(), definition, plan, lanes, index, cold: None }
    }

    /// The group with a definition that follows its own, for rows up to number `rows`, which have nothing in new lanes. No row is
    /// cold.
    pub fn extended(&self, definition: FeatureGroup, rows: u32) -> Self {
        let plan = self.plan.extended(&definition);
        let mut lanes = self.lanes.clone();
        for &stride in &plan.strides[lanes.len()..] {
            let lane = Slab::new(stride);
            if let Some(last) = rows.checked_sub(1) {
                lane.reserve(last);
            }
            lanes.push(Arc::new(lane));
        }
        Self { key_types: self.key_types.clone(), definition, plan, lanes, index: self.index.clone(), cold: None }
    }

    /// Bytes of what it is made of, behind an `Arc`: neither rows nor index.
    pub fn bytes(&self) -> usize {
        let lanes = vec_bytes(&self.lanes) + self.lanes.len() * (ARC_BYTES + size_of::<Slab>());
        ARC_BYTES + size_of::<Self>() + self.parts_bytes() + lanes
    }

    /// The part of that which goes when another definition takes its place.
    pub fn replaced_bytes(&self) -> usize {
        ARC_BYTES + size_of::<Self>() + self.parts_bytes() + vec_bytes(&self.lanes)
    }

    fn parts_bytes(&self) -> usize {
        definition_bytes(&self.definition) + vec_bytes(&self.key_types) + self.plan.bytes()
    }

    /// Reads a version of a row from all lanes.
    pub fn load(&self, row: u32, out: &mut RowBuffer) {
        out.bytes.resize(self.plan.row_bytes(), 0);
        for (lane, &start) in self.lanes.iter().zip(&self.plan.starts) {
            lane.read(row, &mut out.bytes[start..start + lane.stride()]);
        }
    }

    /// Writes a version of a row to all lanes. For the writer, to a row number that nobody can reach.
    pub fn store(&self, row: u32, version: &RowBuffer) {
        for (lane, &start) in self.lanes.iter().zip(&self.plan.starts) {
            lane.write(row, &version.bytes[start..start + lane.stride()]);
        }
    }

    /// Whether a row is of this key.
    pub fn is_key(&self, row: u32, key: &[u8], arena: &Arena) -> bool {
        self.is_key_of(self.lanes[0].slot(row), key, arena)
    }

    /// The same of a row that has been found in lane 0.
    #[inline(always)]
    pub fn is_key_of(&self, head: Slot<'_>, key: &[u8], arena: &Arena) -> bool {
        let place = self.plan.key;
        match place.inline {
            true => place.width == key.len() && head.equals(place.offset, key),
            false => arena.equals(self.key_reference(head), key),
        }
    }

    /// Those of these rows that a sweep at a time may remove: rows that have been expired for the late horizon, and
    /// tombstones past it.
    pub fn removable<'a>(&'a self, rows: &'a [u32], time_us: i64) -> impl Iterator<Item = u32> + 'a {
        let heads = &self.lanes[0];
        let before = self.definition.removable_before(time_us);
        let is_removable = move |row: u32| {
            let head = heads.slot(row);
            if head.word(FLAGS_AT / 8) as u8 == 0 {
                return (head.word(EVENT_TIME_AT / 8) as i64) < before;
            }
            let mut stamp = [0; 8];
            head.copy(self.plan.stamp_at, &mut stamp);
            self.definition.forgets_delete(i64::from_le_bytes(stamp), time_us) || planted!(SweepEarly)
        };
        rows.iter().enumerate().filter_map(move |(at, &row)| {
            if let Some(&far) = rows.get(at + SWEEP_AHEAD) {
                heads.slot(far).prefetch(FLAGS_AT / 8, FLAGS_AT / 8);
            }
            is_removable(row).then_some(row)
        })
    }

    /// Appends the key of a row.
    pub fn key_of(&self, row: u32, arena: &Arena, out: &mut Vec<u8>) {
        let (place, head) = (self.plan.key, self.lanes[0].slot(row));
        if place.inline {
            let start = out.len();
            out.resize(start + place.width, 0);
            head.copy(place.offset, &mut out[start..]);
        } else {
            arena.read(self.key_reference(head), out);
        }
    }

    /// Gives the key of a row to `look`.
    pub fn with_key<T>(&self, row: u32, arena: &Arena, look: impl FnOnce(&[u8]) -> T) -> T {
        let (place, mut buffer) = (self.plan.key, [0; KEY_BUFFER_BYTES]);
        if let Some(key) = buffer.get_mut(..place.width).filter(|_| place.inline) {
            self.lanes[0].slot(row).copy(place.offset, key);
            return look(key);
        }
        let mut key = Vec::new();
        self.key_of(row, arena, &mut key);
        look(&key)
    }

    /// Asks for the key of a row, or the reference to it, to be brought near.
    pub fn prefetch_key(&self, row: u32) {
        let place = self.plan.key;
        self.lanes[0].prefetch(row, place.offset, place.width);
    }

    fn key_reference(&self, head: Slot<'_>) -> ArenaRef {
        let mut bytes = [0; 8];
        head.copy(self.plan.key.offset, &mut bytes);
        ArenaRef(u64::from_le_bytes(bytes))
    }
}

/// Bytes of the longest key that lies in its row: eight columns of integers, each with a tag.
const KEY_BUFFER_BYTES: usize = 8 * 9;

/// The reference that a key's place in lane 0 holds.
pub(crate) fn reference(bytes: &[u8]) -> ArenaRef {
    ArenaRef(u64::from_le_bytes(bytes.try_into().expect("a reference has eight bytes")))
}
