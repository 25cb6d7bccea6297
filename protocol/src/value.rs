//! One value by itself, for edges where speed does not matter: the command line, file readers, tests. The store and the
//! answers keep values in columns.

use std::fmt;

use crate::limits::VALUE_BYTES_MAX;
use crate::storage::StorageError;
use crate::types::{FeatureType, ItemType};

/// A value of a feature, or its absence.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// The row has no value for the feature.
    Null,
    /// For Bool.
    Bool(bool),
    /// For Int8 to Int64.
    Int(i64),
    /// For Float32.
    Float32(f32),
    /// For Float64.
    Float64(f64),
    /// For Decimal128: the unscaled integer.
    Decimal128(i128),
    /// For Date: days since 1970-01-01.
    Date(i32),
    /// For Timestamp: microseconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
    /// For String and Json.
    String(String),
    /// For Binary.
    Binary(Vec<u8>),
    /// For Array: none of the items is Null.
    Array(Vec<Value>),
    /// For FixedArray.
    FixedArray(Vec<f32>),
}

/// Why a value is not one of a feature's type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// It is of another type.
    #[error("{given} was given where the type is {wanted}")]
    Type {
        /// The value, in words.
        given: String,
        /// The feature's type.
        wanted: FeatureType,
    },
    /// It is longer than a value may be.
    #[error("a value of {bytes} bytes is over the limit of {VALUE_BYTES_MAX}")]
    TooLong {
        /// Bytes of the value.
        bytes: usize,
    },
    /// Bytes of a column are not a value of its type.
    #[error("the bytes are not a value of type {wanted}: {why}")]
    Bytes {
        /// The feature's type.
        wanted: FeatureType,
        /// What is wrong.
        why: String,
    },
    /// It cannot be kept in its feature's storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Value {
    /// Appends the little-endian bytes of a value of type `ty`; a Null appends the zero bytes of a fixed-width type or
    /// nothing.
    pub fn encode(&self, ty: FeatureType, out: &mut Vec<u8>) -> Result<(), ValueError> {
        let start = out.len();
        self.encode_any(ty, out)
            .ok_or_else(|| ValueError::Type { given: format!("{self:?}"), wanted: ty })
            .inspect_err(|_| out.truncate(start))?;
        let bytes = out.len() - start;
        if ty.width() == crate::types::Width::Variable && bytes > VALUE_BYTES_MAX {
            out.truncate(start);
            return Err(ValueError::TooLong { bytes });
        }
        Ok(())
    }

    fn encode_any(&self, ty: FeatureType, out: &mut Vec<u8>) -> Option<()> {
        use FeatureType as T;
        match (ty, self) {
            (ty, Self::Null) => {
                if let crate::types::Width::Fixed(width) = ty.width() {
                    out.resize(out.len() + width, 0);
                }
            }
            (T::Bool, Self::Bool(v)) => out.push(u8::from(*v)),
            (T::Int8, Self::Int(v)) => out.extend_from_slice(&i8::try_from(*v).ok()?.to_le_bytes()),
            (T::Int16, Self::Int(v)) => out.extend_from_slice(&i16::try_from(*v).ok()?.to_le_bytes()),
            (T::Int32, Self::Int(v)) => out.extend_from_slice(&i32::try_from(*v).ok()?.to_le_bytes()),
            (T::Int64, Self::Int(v)) => out.extend_from_slice(&v.to_le_bytes()),
            (T::Float32, Self::Float32(v)) => out.extend_from_slice(&v.to_bits().to_le_bytes()),
            (T::Float64, Self::Float64(v)) => out.extend_from_slice(&v.to_bits().to_le_bytes()),
            (T::Decimal128 { .. }, Self::Decimal128(v)) => out.extend_from_slice(&v.to_le_bytes()),
            (T::Date, Self::Date(v)) => out.extend_from_slice(&v.to_le_bytes()),
            (T::Timestamp, Self::Timestamp(v)) => out.extend_from_slice(&v.to_le_bytes()),
            (T::String | T::Json, Self::String(v)) => out.extend_from_slice(v.as_bytes()),
            (T::Binary, Self::Binary(v)) => out.extend_from_slice(v),
            (T::FixedArray { items }, Self::FixedArray(v)) if v.len() == usize::from(items) => {
                v.iter().for_each(|x| out.extend_from_slice(&x.to_bits().to_le_bytes()));
            }
            (T::Array(item), Self::Array(values)) => {
                for value in values {
                    match (item, value) {
                        (_, Self::Null) => return None,
                        (ItemType::String, Self::String(text)) => {
                            out.extend_from_slice(&u32::try_from(text.len()).ok()?.to_le_bytes());
                            out.extend_from_slice(text.as_bytes());
                        }
                        (item, value) => value.encode_any(item.as_feature_type(), out)?,
                    }
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// The value that the bytes of a column stand for.
    pub fn decode(ty: FeatureType, bytes: &[u8]) -> Result<Self, ValueError> {
        check_value(ty, bytes)?;
        Ok(Self::decode_checked(ty, bytes))
    }

    fn decode_checked(ty: FeatureType, bytes: &[u8]) -> Self {
        use FeatureType as T;
        fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
            bytes.try_into().expect("check_value has seen the width")
        }
        match ty {
            T::Bool => Self::Bool(bytes[0] == 1),
            T::Int8 => Self::Int(i64::from(i8::from_le_bytes(fixed(bytes)))),
            T::Int16 => Self::Int(i64::from(i16::from_le_bytes(fixed(bytes)))),
            T::Int32 => Self::Int(i64::from(i32::from_le_bytes(fixed(bytes)))),
            T::Int64 => Self::Int(i64::from_le_bytes(fixed(bytes))),
            T::Float32 => Self::Float32(f32::from_le_bytes(fixed(bytes))),
            T::Float64 => Self::Float64(f64::from_le_bytes(fixed(bytes))),
            T::Decimal128 { .. } => Self::Decimal128(i128::from_le_bytes(fixed(bytes))),
            T::Date => Self::Date(i32::from_le_bytes(fixed(bytes))),
            T::Timestamp => Self::Timestamp(i64::from_le_bytes(fixed(bytes))),
            T::String | T::Json => {
                Self::String(std::str::from_utf8(bytes).expect("check_value has seen UTF-8").to_owned())
            }
            T::Binary => Self::Binary(bytes.to_vec()),
            T::FixedArray { .. } => {
                Self::FixedArray(bytes.chunks_exact(4).map(|b| f32::from_le_bytes(fixed(b))).collect())
            }
            T::Array(item) => Self::Array(
                array_items(item, bytes)
                    .map(|part| Self::decode_checked(item.as_feature_type(), part.expect("check_value has walked it")))
                    .collect(),
            ),
        }
    }
}

/// Checks that `bytes` are a value of type `ty`: the width, UTF-8, the bounds of arrays.
pub fn check_value(ty: FeatureType, bytes: &[u8]) -> Result<(), ValueError> {
    let bad = |why: String| ValueError::Bytes { wanted: ty, why };
    match ty.width() {
        crate::types::Width::Fixed(width) if bytes.len() != width => {
            return Err(bad(format!("{} bytes where it has {width}", bytes.len())));
        }
        crate::types::Width::Variable if bytes.len() > VALUE_BYTES_MAX => {
            return Err(ValueError::TooLong { bytes: bytes.len() });
        }
        _ => {}
    }
    match ty {
        FeatureType::Bool if bytes[0] > 1 => Err(bad(format!("{} where a Bool is 0 or 1", bytes[0]))),
        FeatureType::String | FeatureType::Json => {
            std::str::from_utf8(bytes).map(drop).map_err(|e| bad(format!("not UTF-8 at byte {}", e.valid_up_to())))
        }
        FeatureType::Array(item) => {
            for part in array_items(item, bytes) {
                let part = part.ok_or_else(|| bad("an item ends beyond the array".into()))?;
                check_value(item.as_feature_type(), part)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The bytes of an array's items; `None` once where an item is cut off.
fn array_items(item: ItemType, bytes: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let left = rest.take()?;
        if left.is_empty() {
            return None;
        }
        let split = match item.width() {
            Some(width) => left.split_at_checked(width),
            None => left
                .split_first_chunk::<4>()
                .and_then(|(n, tail)| tail.split_at_checked(u32::from_le_bytes(*n) as usize)),
        };
        match split {
            None => Some(None),
            Some((part, tail)) => {
                rest = Some(tail);
                Some(Some(part))
            }
        }
    })
}

impl ItemType {
    /// The feature type whose values the items are.
    pub fn as_feature_type(self) -> FeatureType {
        match self {
            Self::Bool => FeatureType::Bool,
            Self::Int8 => FeatureType::Int8,
            Self::Int16 => FeatureType::Int16,
            Self::Int32 => FeatureType::Int32,
            Self::Int64 => FeatureType::Int64,
            Self::Float32 => FeatureType::Float32,
            Self::Float64 => FeatureType::Float64,
            Self::Date => FeatureType::Date,
            Self::Timestamp => FeatureType::Timestamp,
            Self::String => FeatureType::String,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(v) => write!(f, "{v}"),
            Self::Int(v) | Self::Timestamp(v) => write!(f, "{v}"),
            Self::Float32(v) => write!(f, "{v}"),
            Self::Float64(v) => write!(f, "{v}"),
            Self::Decimal128(v) => write!(f, "{v}"),
            Self::Date(v) => write!(f, "{v}"),
            Self::String(v) => f.write_str(v),
            Self::Binary(v) => v.iter().try_for_each(|b| write!(f, "{b:02x}")),
            Self::Array(v) => write!(f, "[{}]", v.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
            Self::FixedArray(v) => write!(f, "[{}]", v.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(ty: &str, value: Value) {
        let ty = FeatureType::parse(ty).unwrap();
        let mut bytes = Vec::new();
        value.encode(ty, &mut bytes).unwrap();
        let back = Value::decode(ty, &bytes).unwrap();
        assert_eq!(format!("{back:?}"), format!("{value:?}"), "{ty}");
        let mut again = Vec::new();
        back.encode(ty, &mut again).unwrap();
        assert_eq!(again, bytes, "{ty}");
    }

    #[test]
    fn every_bit_of_a_value_comes_back() {
        round("Float32", Value::Float32(f32::from_bits(0x7fc0_1234)));
        round("Float32", Value::Float32(-0.0));
        round("Float64", Value::Float64(f64::from_bits(0xfff8_0000_dead_beef)));
        round("Int64", Value::Int(i64::MIN));
        round("Int8", Value::Int(-128));
        round("Decimal128(2)", Value::Decimal128(i128::MIN));
        round("String", Value::String(String::new()));
        round("Binary", Value::Binary(vec![0, 255]));
        round("Array<String>", Value::Array(vec![Value::String("a".into()), Value::String(String::new())]));
        round("Array<Int16>", Value::Array(vec![Value::Int(-1), Value::Int(2)]));
        round("Array<Bool>", Value::Array(vec![]));
        round("FixedArray<Float32, 2>", Value::FixedArray(vec![1.5, f32::NEG_INFINITY]));
        round("Date", Value::Date(-1));
    }

    #[test]
    fn a_value_of_another_type_is_refused_and_leaves_nothing() {
        let cases = [
            ("Int8", Value::Int(128)),
            ("Int8", Value::Float32(1.0)),
            ("FixedArray<Float32, 3>", Value::FixedArray(vec![1.0])),
            ("Array<Int8>", Value::Array(vec![Value::Null])),
            ("String", Value::String("x".repeat(VALUE_BYTES_MAX + 1))),
        ];
        for (ty, value) in cases {
            let mut out = vec![1];
            assert!(value.encode(FeatureType::parse(ty).unwrap(), &mut out).is_err(), "{ty}");
            assert_eq!(out, [1]);
        }
    }

    #[test]
    fn bytes_that_are_no_value_are_refused() {
        for (ty, bytes) in [
            ("Bool", &[2u8][..]),
            ("Int32", &[1, 2, 3]),
            ("String", &[0xff]),
            ("Array<Int16>", &[1, 2, 3]),
            ("Array<String>", &[255, 255, 255, 255, 1]),
            ("Array<Bool>", &[0, 1, 2]),
        ] {
            assert!(Value::decode(FeatureType::parse(ty).unwrap(), bytes).is_err(), "{ty} {bytes:?}");
        }
    }
}
