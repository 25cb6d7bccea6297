//! Values of a Parquet column, read from its target type ([`super::parquet_types`]).

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Decimal128Type, Float32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{ArrowError, DataType};
use stoa_protocol::key::{KeyType, KeyValue};
use stoa_protocol::types::FeatureType;
use stoa_protocol::value::Value;

const DAY_US: i64 = 24 * 3_600 * 1_000_000;

/// A column of some rows, cast to its target.
pub(super) struct TargetColumn {
    array: ArrayRef,
    /// Where the cast lost a value; `None` if it lost none.
    lost: Option<Vec<bool>>,
}

impl TargetColumn {
    pub fn new(source: &ArrayRef, target: &DataType) -> Result<Self, ArrowError> {
        if source.data_type() == target {
            return Ok(Self { array: source.clone(), lost: None });
        }
        // Safe: a value that does not fit becomes null instead of failing all rows; which ones, is seen below.
        let options = CastOptions { safe: true, ..CastOptions::default() };
        let array = cast_with_options(source, target, &options)?;
        // Logical nulls: a dictionary's nulls may stand among its values.
        let lost = (array.logical_null_count() > source.logical_null_count()).then(|| {
            let (before, after) = (source.logical_nulls(), array.logical_nulls());
            let was = |row| before.as_ref().is_some_and(|nulls| nulls.is_null(row));
            let is = |row| after.as_ref().is_some_and(|nulls| nulls.is_null(row));
            (0..array.len()).map(|row| is(row) && !was(row)).collect()
        });
        Ok(Self { array, lost })
    }

    /// The value of a row for a feature.
    pub fn value(&self, ty: FeatureType, row: usize) -> Result<Value, String> {
        if self.is_null(row)? {
            return Ok(Value::Null);
        }
        let array = &self.array;
        Ok(match ty {
            FeatureType::Array(item) => {
                let items = array.as_list::<i64>().value(row);
                if items.logical_null_count() > 0 {
                    return Err("an item is null or out of range; the items of an array are values".into());
                }
                Value::Array((0..items.len()).map(|at| scalar(&items, item.as_feature_type(), at)).collect())
            }
            FeatureType::FixedArray { .. } => {
                let items = array.as_list::<i64>().value(row);
                if items.logical_null_count() > 0 {
                    return Err("an item is null; the items of an array are values".into());
                }
                Value::FixedArray(items.as_primitive::<Float32Type>().values().to_vec())
            }
            ty => scalar(array, ty, row),
        })
    }

    /// The value of a row for a key column.
    pub fn key(&self, ty: KeyType, row: usize) -> Result<KeyValue, String> {
        if self.is_null(row)? {
            return Err("the key is null".into());
        }
        let array = &self.array;
        Ok(match ty {
            KeyType::Bool => KeyValue::Bool(array.as_boolean().value(row)),
            KeyType::Int8 | KeyType::Int16 | KeyType::Int32 | KeyType::Int64 => {
                KeyValue::Int(array.as_primitive::<Int64Type>().value(row))
            }
            KeyType::Date => KeyValue::Date(array.as_primitive::<Date32Type>().value(row)),
            KeyType::Timestamp => KeyValue::Timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row)),
            KeyType::String => KeyValue::String(array.as_string::<i64>().value(row).to_owned()),
            KeyType::Binary => KeyValue::Binary(array.as_binary::<i64>().value(row).to_vec()),
        })
    }

    /// The value of a row for the event time.
    pub fn event_time(&self, row: usize) -> Result<i64, String> {
        if self.is_null(row)? {
            return Err("the event time is null".into());
        }
        Ok(match self.array.data_type() {
            DataType::Date32 => i64::from(self.array.as_primitive::<Date32Type>().value(row)) * DAY_US,
            DataType::Int64 => self.array.as_primitive::<Int64Type>().value(row),
            _ => self.array.as_primitive::<TimestampMicrosecondType>().value(row),
        })
    }

    fn is_null(&self, row: usize) -> Result<bool, String> {
        if self.lost.as_ref().is_some_and(|lost| lost[row]) {
            return Err("the value is out of range".into());
        }
        Ok(self.array.is_null(row))
    }
}

/// The value of a row that is not null, of a type that is no list.
fn scalar(array: &ArrayRef, ty: FeatureType, row: usize) -> Value {
    match ty {
        FeatureType::Bool => Value::Bool(array.as_boolean().value(row)),
        FeatureType::Int8 | FeatureType::Int16 | FeatureType::Int32 | FeatureType::Int64 => {
            Value::Int(array.as_primitive::<Int64Type>().value(row))
        }
        FeatureType::Float32 => Value::Float32(array.as_primitive::<Float32Type>().value(row)),
        FeatureType::Float64 => Value::Float64(array.as_primitive::<Float64Type>().value(row)),
        FeatureType::Decimal128 { .. } => Value::Decimal128(array.as_primitive::<Decimal128Type>().value(row)),
        FeatureType::Date => Value::Date(array.as_primitive::<Date32Type>().value(row)),
        FeatureType::Timestamp => Value::Timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row)),
        FeatureType::String | FeatureType::Json => Value::String(array.as_string::<i64>().value(row).to_owned()),
        FeatureType::Binary => Value::Binary(array.as_binary::<i64>().value(row).to_vec()),
        FeatureType::Array(_) | FeatureType::FixedArray { .. } => unreachable!("lists are taken apart before"),
    }
}
