//! Which Parquet column types hold the values of which feature, without loss, and what they are cast to.
//!
//! Values are read from few Arrow types only, the targets; a column of any type that fits is cast to its target first.
//! What a cast loses (an unscaled decimal or a timestamp beyond 64 bits) becomes null there, and the row a bad one.

use std::sync::Arc;

use arrow_schema::{DataType, Field, TimeUnit};
use stoa_protocol::key::KeyType;
use stoa_protocol::types::{FeatureType, ItemType};

/// Whether every value of a column of type `found` can be one of a feature of type `ty`.
pub(super) fn feature_fits(found: &DataType, ty: FeatureType) -> bool {
    use DataType as D;
    use FeatureType as F;
    match (ty, plain(found)) {
        // A column without a single value has no type of its own.
        (_, D::Null) => true,
        (F::Bool, D::Boolean) => true,
        (F::Int8 | F::Int16 | F::Int32 | F::Int64, found) => {
            integer_bits(found).is_some_and(|bits| bits <= bits_of(ty))
        }
        (F::Float32, D::Float16 | D::Float32) => true,
        (F::Float64, D::Float16 | D::Float32 | D::Float64) => true,
        (F::Decimal128 { scale }, D::Decimal32(_, s) | D::Decimal64(_, s) | D::Decimal128(_, s)) => *s <= scale as i8,
        (F::Date, D::Date32) => true,
        (F::Timestamp, D::Timestamp(_, _)) => true,
        (F::String | F::Json, found) => is_text(found),
        (F::Binary, found) => is_binary(found),
        (F::Array(item), found) => item_of(found).is_some_and(|found| feature_fits(found, item.as_feature_type())),
        (F::FixedArray { items }, D::FixedSizeList(field, n)) => {
            *n == i32::from(items) && feature_fits(field.data_type(), F::Float32)
        }
        (F::FixedArray { .. }, D::List(field) | D::LargeList(field)) => feature_fits(field.data_type(), F::Float32),
        _ => false,
    }
}

/// Whether values of a column of type `found` can be keys of type `ty`. Integers may be of any width, since keys are
/// independent of it; one that is out of its key column's range makes a bad row.
pub(super) fn key_fits(found: &DataType, ty: KeyType) -> bool {
    match ty {
        KeyType::Int8 | KeyType::Int16 | KeyType::Int32 | KeyType::Int64 => {
            integer_bits(plain(found)).is_some() || *plain(found) == DataType::UInt64
        }
        ty => *found != DataType::Null && feature_fits(found, feature_of_key(ty)),
    }
}

/// Whether values of a column of type `found` can be event times: instants, days (their first moment in UTC), or
/// microseconds since 1970.
pub(super) fn event_time_fits(found: &DataType) -> bool {
    matches!(found, DataType::Timestamp(_, _) | DataType::Date32 | DataType::Int64)
}

/// The type that a column of type `found` is cast to, to be read as a feature of type `ty`.
pub(super) fn feature_target(found: &DataType, ty: FeatureType) -> DataType {
    match ty {
        FeatureType::Bool => DataType::Boolean,
        FeatureType::Int8 | FeatureType::Int16 | FeatureType::Int32 | FeatureType::Int64 => DataType::Int64,
        FeatureType::Float32 => DataType::Float32,
        FeatureType::Float64 => DataType::Float64,
        FeatureType::Decimal128 { scale } => DataType::Decimal128(38, scale as i8),
        FeatureType::Date => DataType::Date32,
        FeatureType::Timestamp => timestamp_target(found),
        FeatureType::String | FeatureType::Json => DataType::LargeUtf8,
        FeatureType::Binary => DataType::LargeBinary,
        FeatureType::Array(item) => {
            let inner = item_of(found).unwrap_or(&DataType::Null);
            list_of(feature_target(inner, item.as_feature_type()))
        }
        FeatureType::FixedArray { .. } => list_of(DataType::Float32),
    }
}

/// As [`feature_target`], for a key column.
pub(super) fn key_target(found: &DataType, ty: KeyType) -> DataType {
    feature_target(found, feature_of_key(ty))
}

/// As [`feature_target`], for the event time.
pub(super) fn event_time_target(found: &DataType) -> DataType {
    match found {
        DataType::Timestamp(_, _) => timestamp_target(found),
        other => other.clone(),
    }
}

/// The file types that fit a feature, in words.
pub(super) fn feature_allowed(ty: FeatureType) -> String {
    let item = |item: ItemType| format!("a list of {}", feature_allowed(item.as_feature_type()));
    match ty {
        FeatureType::Bool => "Boolean".into(),
        FeatureType::Int8 => "Int8".into(),
        FeatureType::Int16 => "Int8, Int16 or UInt8".into(),
        FeatureType::Int32 => "Int8 to Int32, UInt8 or UInt16".into(),
        FeatureType::Int64 => "Int8 to Int64 or UInt8 to UInt32".into(),
        FeatureType::Float32 => "Float16 or Float32".into(),
        FeatureType::Float64 => "Float16 to Float64".into(),
        FeatureType::Decimal128 { scale } => format!("a decimal of up to 38 digits, {scale} or fewer after the point"),
        FeatureType::Date => "Date32".into(),
        FeatureType::Timestamp => "a timestamp of any unit".into(),
        FeatureType::String | FeatureType::Json => "Utf8, LargeUtf8, Utf8View or a dictionary of them".into(),
        FeatureType::Binary => "Binary, LargeBinary, BinaryView, FixedSizeBinary or a dictionary of them".into(),
        FeatureType::Array(of) => item(of),
        FeatureType::FixedArray { items } => format!("FixedSizeList of {items} Float32, or a list of {items} each"),
    }
}

/// The file types that fit a key column, in words.
pub(super) fn key_allowed(ty: KeyType) -> String {
    match ty {
        KeyType::Int8 | KeyType::Int16 | KeyType::Int32 | KeyType::Int64 => "an integer type".into(),
        ty => feature_allowed(feature_of_key(ty)),
    }
}

fn feature_of_key(ty: KeyType) -> FeatureType {
    match ty {
        KeyType::Bool => FeatureType::Bool,
        KeyType::Int8 | KeyType::Int16 | KeyType::Int32 | KeyType::Int64 => FeatureType::Int64,
        KeyType::Date => FeatureType::Date,
        KeyType::Timestamp => FeatureType::Timestamp,
        KeyType::String => FeatureType::String,
        KeyType::Binary => FeatureType::Binary,
    }
}

/// The type behind a dictionary.
fn plain(found: &DataType) -> &DataType {
    match found {
        DataType::Dictionary(_, values) => values,
        other => other,
    }
}

fn is_text(found: &DataType) -> bool {
    matches!(found, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_binary(found: &DataType) -> bool {
    use DataType as D;
    matches!(found, D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_))
}

/// Bits of a signed integer that holds every value of the type.
fn integer_bits(found: &DataType) -> Option<u32> {
    match found {
        DataType::Int8 => Some(8),
        DataType::Int16 | DataType::UInt8 => Some(16),
        DataType::Int32 | DataType::UInt16 => Some(32),
        DataType::Int64 | DataType::UInt32 => Some(64),
        _ => None,
    }
}

fn bits_of(ty: FeatureType) -> u32 {
    match ty {
        FeatureType::Int8 => 8,
        FeatureType::Int16 => 16,
        FeatureType::Int32 => 32,
        _ => 64,
    }
}

fn item_of(found: &DataType) -> Option<&DataType> {
    match found {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            Some(field.data_type())
        }
        _ => None,
    }
}

fn list_of(item: DataType) -> DataType {
    DataType::LargeList(Arc::new(Field::new_list_field(item, true)))
}

/// The same instants in microseconds. The zone stays: it is how instants are shown, and a cast that drops it would have
/// to understand it.
fn timestamp_target(found: &DataType) -> DataType {
    let zone = match found {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    DataType::Timestamp(TimeUnit::Microsecond, zone)
}
