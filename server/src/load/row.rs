//! Rows as a load carries them, and the checks that every row passes whatever file it comes from.

use stoa_protocol::catalog::FeatureGroup;
use stoa_protocol::key::{KeyType, KeyValue, encode_key};
use stoa_protocol::limits::{
    BATCH_BYTES_MAX, EVENT_FUTURE_US_MAX, GROUP_FEATURES_MAX, KEY_BYTES_MAX, ROW_FIXED_BYTES_MAX, VALUE_BYTES_MAX,
};
use stoa_protocol::types::FeatureType;
use stoa_protocol::value::{Value, ValueError};

use super::columns::FeatureColumn;

/// Bytes of the key and the variable-width values of one row: half a batch, so that any row fits one.
pub const ROW_BYTES_MAX: usize = BATCH_BYTES_MAX / 2;

const _: () = {
    assert!(ROW_BYTES_MAX >= KEY_BYTES_MAX + VALUE_BYTES_MAX, "a row with one value at its limit must pass");
    // 64 bytes a column are more than a batch needs for its header, validity, ends and padding.
    let rest = ROW_FIXED_BYTES_MAX + GROUP_FEATURES_MAX * 64 + 1_024;
    assert!(ROW_BYTES_MAX + rest <= BATCH_BYTES_MAX, "every row must fit a batch of its own");
};

/// A row that can be written.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadRow {
    /// Its row number from 1 (Parquet), or the line it begins at (CSV; the header is line 1).
    pub line: u64,
    /// Its canonical key.
    pub key: Vec<u8>,
    /// Its event time, microseconds since 1970-01-01T00:00:00Z.
    pub event_time: i64,
    /// Its values, in the order of the source's features.
    pub values: Vec<Value>,
}

/// A row that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// As [`LoadRow::line`].
    pub line: u64,
    /// What is wrong with it, naming the column.
    pub reason: String,
}

/// Some consecutive rows of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// How many rows of the file come before it.
    pub first_row: u64,
    /// The rows that can be written, in the order of the file.
    pub rows: Vec<LoadRow>,
    /// The rows that cannot, in the order of the file.
    pub bad: Vec<BadRow>,
}

impl Chunk {
    pub(super) fn new(first_row: u64) -> Self {
        Self { first_row, rows: Vec::new(), bad: Vec::new() }
    }

    /// Number of rows, good and bad.
    pub fn len(&self) -> usize {
        self.rows.len() + self.bad.len()
    }

    /// Whether it has no rows at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn push(&mut self, line: u64, row: Result<LoadRow, String>) {
        match row {
            Ok(row) => self.rows.push(row),
            Err(reason) => self.bad.push(BadRow { line, reason }),
        }
    }
}

/// Gives a row's parts their last checks.
#[derive(Debug, Clone)]
pub(super) struct RowCheck {
    key_names: String,
    key_types: Vec<KeyType>,
    features: Vec<FeatureColumn>,
    event_time_max: i64,
}

impl RowCheck {
    pub fn new(group: &FeatureGroup, features: &[FeatureColumn], load_time_us: i64) -> Self {
        let names: Vec<_> = group.entity.keys.iter().map(|column| column.name.as_str()).collect();
        Self {
            key_names: names.join(", "),
            key_types: group.entity.key_types(),
            features: features.to_vec(),
            event_time_max: load_time_us.saturating_add(EVENT_FUTURE_US_MAX),
        }
    }

    /// The row, or why it cannot be written.
    pub fn row(
        &self,
        line: u64,
        key_values: &[KeyValue],
        event_time: i64,
        values: Vec<Value>,
    ) -> Result<LoadRow, String> {
        let mut key = Vec::new();
        encode_key(&self.key_types, key_values, &mut key)
            .map_err(|error| format!("{error} (the key columns are {})", self.key_names))?;
        if event_time > self.event_time_max {
            let max = self.event_time_max;
            return Err(format!(
                "the event time {event_time} us is more than 5 minutes after the time of the load; the latest allowed is {max}"
            ));
        }
        let mut bytes = key.len();
        for (value, column) in values.iter().zip(&self.features) {
            let checked = check_value(value, column.ty)
                .and_then(|bytes| check_storage(value, column).map(|()| bytes).map_err(|error| error.to_string()));
            bytes += checked.map_err(|why| format!("column {}: {why}", column.name))?;
        }
        if bytes > ROW_BYTES_MAX {
            return Err(format!("the row's key and values have {bytes} bytes; the limit is {ROW_BYTES_MAX}"));
        }
        Ok(LoadRow { line, key, event_time, values })
    }
}

/// Bytes of a value of variable width, or more; 0 for the others.
pub(super) fn variable_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Binary(bytes) => bytes.len(),
        Value::Array(items) => items.iter().map(item_bytes).sum(),
        _ => 0,
    }
}

fn item_bytes(item: &Value) -> usize {
    match item {
        Value::String(text) => 4 + text.len(),
        Value::Bool(_) => 1,
        Value::Float32(_) | Value::Date(_) => 4,
        // An Int may be narrower as an Int8 to Int32; the sum is a bound then.
        _ => 8,
    }
}

/// Checks what a reader leaves open of a value of its feature's type: ranges, counts, lengths, JSON. Its variable bytes.
fn check_value(value: &Value, ty: FeatureType) -> Result<usize, String> {
    match (ty, value) {
        (FeatureType::Int8 | FeatureType::Int16 | FeatureType::Int32, Value::Int(v)) => {
            let fits = match ty {
                FeatureType::Int8 => i8::try_from(*v).is_ok(),
                FeatureType::Int16 => i16::try_from(*v).is_ok(),
                _ => i32::try_from(*v).is_ok(),
            };
            if fits { Ok(0) } else { Err(format!("{v} is out of the range of {ty}")) }
        }
        (FeatureType::FixedArray { items }, Value::FixedArray(values)) if values.len() != usize::from(items) => {
            Err(format!("{} items where {ty} has {items}", values.len()))
        }
        (FeatureType::Json, Value::String(text)) => {
            serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| format!("not JSON: {error}"))?;
            check_length(text.len())
        }
        (FeatureType::Array(item), Value::Array(items)) => {
            for item_value in items {
                check_value(item_value, item.as_feature_type())?;
            }
            check_length(item.width().map_or_else(|| variable_bytes(value), |width| width * items.len()))
        }
        _ => check_length(variable_bytes(value)),
    }
}

/// Checks that a value of the feature's type can be kept in its storage.
fn check_storage(value: &Value, column: &FeatureColumn) -> Result<(), ValueError> {
    let Some(storage) = column.storage else { return Ok(()) };
    let mut bytes = Vec::new();
    value.encode(column.ty, &mut bytes)?;
    Ok(storage.check(&bytes)?)
}

fn check_length(bytes: usize) -> Result<usize, String> {
    if bytes > VALUE_BYTES_MAX {
        return Err(format!("a value of {bytes} bytes is over the limit of {VALUE_BYTES_MAX}"));
    }
    Ok(bytes)
}
