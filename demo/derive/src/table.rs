//! A table of features on its way to a Parquet file: keys first, then the event time, then the features.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow_array::{
    ArrayRef, FixedSizeListArray, Float32Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use crate::window::Micros;

/// Name of the column that holds a row's event time.
pub const EVENT_TIME: &str = "event_time";

/// Columns in the order they are added. All columns of a table have one length.
pub struct Table {
    name: &'static str,
    fields: Vec<Field>,
    columns: Vec<ArrayRef>,
    /// Columns of sorted or spread-out integers, which deltas shrink better than a dictionary does.
    delta: Vec<&'static str>,
}

/// What was written.
pub struct Written {
    pub name: &'static str,
    pub rows: usize,
    pub bytes: u64,
}

impl Table {
    pub fn new(name: &'static str) -> Self {
        Self { name, fields: Vec::new(), columns: Vec::new(), delta: Vec::new() }
    }

    /// A key column. Rows come sorted by their keys; the caller's ordered map sees to it.
    pub fn key(mut self, name: &'static str, values: impl IntoIterator<Item = i64>) -> Self {
        self.delta.push(name);
        self.push(name, false, Arc::new(Int64Array::from_iter_values(values)))
    }

    pub fn event_time(mut self, values: impl IntoIterator<Item = Micros>) -> Self {
        self.delta.push(EVENT_TIME);
        let values = TimestampMicrosecondArray::from_iter_values(values.into_iter().map(|at| at.0));
        self.push(EVENT_TIME, false, Arc::new(values.with_timezone("UTC")))
    }

    pub fn int16(self, name: &'static str, values: impl IntoIterator<Item = i16>) -> Self {
        self.push(name, true, Arc::new(Int16Array::from_iter_values(values)))
    }

    pub fn int32(self, name: &'static str, values: impl IntoIterator<Item = i32>) -> Self {
        self.push(name, true, Arc::new(Int32Array::from_iter_values(values)))
    }

    pub fn int64(self, name: &'static str, values: impl IntoIterator<Item = i64>) -> Self {
        self.push(name, true, Arc::new(Int64Array::from_iter_values(values)))
    }

    pub fn float32(self, name: &'static str, values: impl IntoIterator<Item = Option<f32>>) -> Self {
        self.push(name, true, Arc::new(Float32Array::from_iter(values)))
    }

    pub fn text<'a>(self, name: &'static str, values: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        self.push(name, true, Arc::new(StringArray::from_iter(values)))
    }

    /// A column of arrays of one length; an array is there as a whole or not at all.
    pub fn array<const N: usize>(self, name: &'static str, values: impl IntoIterator<Item = Option<[f32; N]>>) -> Self {
        let rows: Vec<Option<[f32; N]>> = values.into_iter().collect();
        let present = rows.iter().map(Option::is_some).collect();
        let flat = Float32Array::from_iter_values(rows.iter().flat_map(|row| row.unwrap_or([0.0; N])));
        let item = Arc::new(Field::new("item", DataType::Float32, false));
        let length = i32::try_from(N).expect("an array of features is short");
        self.push(name, true, Arc::new(FixedSizeListArray::new(item, length, Arc::new(flat), Some(present))))
    }

    fn push(mut self, name: &str, nullable: bool, column: ArrayRef) -> Self {
        if let Some(first) = self.columns.first() {
            assert_eq!(first.len(), column.len(), "column {name} of {} is as long as the keys", self.name);
        }
        self.fields.push(Field::new(name, column.data_type().clone(), nullable));
        self.columns.push(column);
        self
    }

    /// Writes `<name>.parquet`. Equal tables give equal bytes.
    pub fn write(self, dir: &Path) -> Result<Written> {
        let path = dir.join(format!("{}.parquet", self.name));
        let mut properties = WriterProperties::builder()
            .set_created_by("stoa-demo-derive".to_owned())
            .set_compression(Compression::SNAPPY);
        for name in &self.delta {
            let column = ColumnPath::from(*name);
            properties = properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
        }
        let batch = RecordBatch::try_new(Arc::new(Schema::new(self.fields)), self.columns)?;
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties.build()))?;
        writer.write(&batch)?;
        writer.close()?;
        let bytes = std::fs::metadata(&path)?.len();
        Ok(Written { name: self.name, rows: batch.num_rows(), bytes })
    }
}

/// Cents as dollars.
pub fn dollars(cents: i64) -> f32 {
    (cents as f64 / 100.0) as f32
}

/// A share or a mean, which nothing divided by nothing does not have.
pub fn ratio(part: i64, of: i64) -> Option<f32> {
    (of != 0).then(|| (part as f64 / of as f64) as f32)
}

/// Cents per unit in dollars; none without units.
pub fn dollars_per(cents: i64, units: i64) -> Option<f32> {
    (units != 0).then(|| (cents as f64 / 100.0 / units as f64) as f32)
}

/// A count as the column type that holds it.
pub fn count(n: usize) -> i32 {
    i32::try_from(n).expect("counts of one year's sales fit 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_of_nothing_are_absent() {
        assert_eq!(ratio(0, 0), None);
        assert_eq!(ratio(1, 4), Some(0.25));
        assert_eq!(dollars_per(250, 0), None);
        assert_eq!(dollars_per(250, 2), Some(1.25));
    }
}
