//! The columns of a batch as the writer takes values from them: those of the usual kind many at once.

use stoa_protocol::{ColumnValues, FeatureType, RowBatch};

use crate::lane_plan::{FeaturePlace, LanePlan};
use crate::row::RowBuffer;

/// The columns of a batch, without those of features that were dropped.
pub(crate) struct BatchColumns<'a> {
    /// Values of four bytes of features that lie side by side in their lane, where every row has a value.
    fours: Vec<Run<'a>>,
    /// The validity bits of these, by the byte of the row that they are in.
    present: Vec<(usize, u8)>,
    /// All others.
    pub rest: Vec<Column<'a>>,
}

/// Values that lie side by side in a row.
struct Run<'a> {
    /// The first byte in the row buffer.
    at: usize,
    /// By row, those of one feature after those of the other.
    columns: Vec<&'a [[u8; 4]]>,
}

/// A column of a batch.
pub(crate) struct Column<'a> {
    pub feature: usize,
    pub place: FeaturePlace,
    /// Its type in the batch's schema.
    pub ty: FeatureType,
    pub values: ColumnValues<'a>,
}

impl<'a> BatchColumns<'a> {
    /// The columns of a batch that fits the group of the plan.
    pub fn new(plan: &LanePlan, batch: &'a RowBatch) -> Self {
        let mut all = Self { fours: Vec::new(), present: Vec::new(), rest: Vec::new() };
        for (at, column) in batch.columns().iter().enumerate() {
            let feature = usize::from(column.feature);
            let place = plan.features[feature];
            if place.dropped {
                continue;
            }
            let column = Column { feature, place, ty: column.ty, values: batch.column(at) };
            match column.fours(batch.rows()) {
                Some(values) => all.push_fours(plan, &place, values),
                _ => all.rest.push(column),
            }
        }
        all
    }

    fn push_fours(&mut self, plan: &LanePlan, place: &FeaturePlace, values: &'a [[u8; 4]]) {
        let at = plan.starts[place.lane] + place.offset;
        match self.fours.last_mut() {
            Some(run) if run.at + run.columns.len() * 4 == at => run.columns.push(values),
            _ => self.fours.push(Run { at, columns: vec![values] }),
        }
        let validity_at = plan.starts[place.validity_lane] + place.validity_byte;
        match self.present.last_mut() {
            Some((byte, mask)) if *byte == validity_at => *mask |= place.validity_mask,
            _ => self.present.push((validity_at, place.validity_mask)),
        }
    }

    /// Sets what a version of a row has of the features that every row has a value of.
    #[inline]
    pub fn set_fours(&self, row: usize, version: &mut RowBuffer) {
        for Run { at, columns } in &self.fours {
            let values = version.bytes[*at..*at + columns.len() * 4].as_chunks_mut::<4>().0;
            values.iter_mut().zip(columns).for_each(|(value, column)| *value = column[row]);
        }
        for (byte, mask) in &self.present {
            version.bytes[*byte] |= mask;
        }
    }
}

impl<'a> Column<'a> {
    /// The values, if every row has one and they are copied as they are, four bytes each.
    fn fours(&self, rows: usize) -> Option<&'a [[u8; 4]]> {
        let place = &self.place;
        let as_they_are = !place.variable && place.storage.is_none() && place.is_plain() && self.ty == place.ty;
        let values = (as_they_are && place.width == 4).then(|| self.values.all_fixed(rows)).flatten()?;
        let (fours, rest) = values.as_chunks::<4>();
        (rest.is_empty() && fours.len() == rows).then_some(fours)
    }
}
