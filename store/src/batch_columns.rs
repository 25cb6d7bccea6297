//! The columns of a batch as the writer takes values from them: those of the usual kind many at once.

use stoa_protocol::{BatchColumn, ColumnValues, FeatureType, RowBatch};

use crate::lane_plan::{FeaturePlace, LanePlan};
use crate::row::RowBuffer;

/// The columns of a batch, without those of features that were dropped, in the order in which they lie in their lanes: a batch
/// has them in that of the schema, in which neighbours may lie apart.
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
        let column = |(at, column): (usize, &BatchColumn)| {
            let feature = usize::from(column.feature);
            Column { feature, place: plan.features[feature], ty: column.ty, values: batch.column(at) }
        };
        let mut columns: Vec<Column<'a>> = batch.columns().iter().enumerate().map(column).collect();
        columns.retain(|column| !column.place.dropped);
        columns.sort_by_key(|column| (column.place.lane, column.place.offset));
        let mut all = Self { fours: Vec::new(), present: Vec::new(), rest: Vec::new() };
        for column in columns {
            match column.fours(batch.rows()) {
                Some(values) => all.push_fours(plan, &column.place, values),
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

#[cfg(test)]
mod tests {
    use stoa_protocol::{FeatureGroup, KeyType, RowBatchBuilder, Value};

    use super::*;
    use crate::lane_plan::LANE_BYTES_MAX;

    /// How many runs there are of six numbers, all but the fourth of four bytes, where they lie in this order, after all that was
    /// set has been compared.
    fn runs(order: &[usize]) -> usize {
        use FeatureType::*;
        let features = [("a", Float32), ("b", Int32), ("c", Float32), ("d", Int64), ("e", Float32), ("f", Date)];
        let group = FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &features);
        let plan = LanePlan::new(&group, LANE_BYTES_MAX, order);
        let mut batch = RowBatchBuilder::new(&group, &[0, 1, 2, 3, 4, 5]);
        let key = [0; 8];
        let values = [
            Value::Float32(1.0),
            Value::Int(2),
            Value::Float32(3.0),
            Value::Int(4),
            Value::Float32(5.0),
            Value::Date(6),
        ];
        batch.upsert(&key, 1, 0, &values).unwrap();
        let batch = batch.finish().unwrap();
        let columns = BatchColumns::new(&plan, &batch);
        let mut version = RowBuffer::default();
        version.clear(&plan);
        columns.set_fours(0, &mut version);
        for (place, value) in plan.features.iter().zip(&values) {
            let mut bytes = Vec::new();
            value.encode(place.ty, &mut bytes).unwrap();
            let is_set = place.width == 4;
            assert_eq!(version.is_present(&plan, place), is_set);
            assert_eq!(version.value(&plan, place) == bytes, is_set, "{order:?}: {place:?}");
        }
        assert_eq!(columns.rest.iter().map(|column| column.feature).collect::<Vec<_>>(), [3]);
        columns.fours.len()
    }

    #[test]
    fn a_run_is_of_features_that_are_neighbours_in_their_lane_whatever_the_order_of_the_batch() {
        assert_eq!(runs(&[0, 1, 2, 3, 4, 5]), 2);
        assert_eq!(runs(&[5, 4, 2, 1, 0, 3]), 1);
        assert_eq!(runs(&[4, 0, 3, 2, 5, 1]), 2);
    }
}
