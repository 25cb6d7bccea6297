//! A group of a partition as readers see it.

use std::sync::Arc;

use stoa_protocol::{FeatureGroup, KeyType};

use crate::arena::{Arena, ArenaRef};
use crate::index::Index;
use crate::lane_plan::LanePlan;
use crate::lanes::{Slab, Slot};
use crate::row::RowBuffer;

/// One definition of a group and where its rows lie. Another definition is another one of these over the same lanes.
pub(crate) struct Group {
    pub definition: FeatureGroup,
    pub key_types: Vec<KeyType>,
    pub plan: LanePlan,
    pub lanes: Vec<Arc<Slab>>,
    pub index: Arc<Index>,
}

impl Group {
    /// A new group without rows.
    pub fn new(definition: FeatureGroup, index: Arc<Index>, lane_bytes_max: usize) -> Self {
        let plan = LanePlan::new(&definition, lane_bytes_max);
        let lanes = plan.strides.iter().map(|stride| Arc::new(Slab::new(*stride))).collect();
        Self { key_types: definition.entity.key_types(), definition, plan, lanes, index }
    }

    /// The group with a definition that follows its own, for rows up to number `rows`, which have nothing in new lanes.
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
        Self { key_types: self.key_types.clone(), definition, plan, lanes, index: self.index.clone() }
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
    #[inline]
    pub fn is_key_of(&self, head: Slot<'_>, key: &[u8], arena: &Arena) -> bool {
        let place = self.plan.key;
        match place.inline {
            true => place.width == key.len() && head.equals(place.offset, key),
            false => arena.equals(self.key_reference(head), key),
        }
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

    fn key_reference(&self, head: Slot<'_>) -> ArenaRef {
        let mut bytes = [0; 8];
        head.copy(self.plan.key.offset, &mut bytes);
        ArenaRef(u64::from_le_bytes(bytes))
    }
}

/// The reference that a key's place in lane 0 holds.
pub(crate) fn reference(bytes: &[u8]) -> ArenaRef {
    ArenaRef(u64::from_le_bytes(bytes.try_into().expect("a reference has eight bytes")))
}
