//! Types of features, and how wide their values are.

use std::fmt;

use crate::codec::{DecodeError, Reader, Wire};
use crate::limits::FIXED_ARRAY_ITEMS_MAX;

/// The type of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FeatureType {
    /// True or false; one byte, 0 or 1.
    Bool,
    /// Signed 8-bit integer.
    Int8,
    /// Signed 16-bit integer.
    Int16,
    /// Signed 32-bit integer.
    Int32,
    /// Signed 64-bit integer.
    Int64,
    /// IEEE 754 single; every bit pattern is kept, NaN payloads and -0.0 included.
    Float32,
    /// IEEE 754 double; every bit pattern is kept.
    Float64,
    /// A 128-bit integer times 10 to the minus `scale`, 0 to 38.
    Decimal128 {
        /// Digits after the point.
        scale: u8,
    },
    /// Days since 1970-01-01.
    Date,
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp,
    /// UTF-8 text.
    String,
    /// Bytes.
    Binary,
    /// JSON as UTF-8 text, kept as written.
    Json,
    /// A list of items of one type, of any length.
    Array(ItemType),
    /// A list of exactly `n` Float32: an embedding.
    FixedArray {
        /// Number of items, 1 to 4,096.
        items: u16,
    },
}

/// The type of an array's items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ItemType {
    /// As [`FeatureType::Bool`].
    Bool,
    /// As [`FeatureType::Int8`].
    Int8,
    /// As [`FeatureType::Int16`].
    Int16,
    /// As [`FeatureType::Int32`].
    Int32,
    /// As [`FeatureType::Int64`].
    Int64,
    /// As [`FeatureType::Float32`].
    Float32,
    /// As [`FeatureType::Float64`].
    Float64,
    /// As [`FeatureType::Date`].
    Date,
    /// As [`FeatureType::Timestamp`].
    Timestamp,
    /// As [`FeatureType::String`]: each item behind a u32 length.
    String,
}

impl ItemType {
    const ALL: [(ItemType, u8, &'static str, usize); 10] = [
        (ItemType::Bool, 1, "Bool", 1),
        (ItemType::Int8, 2, "Int8", 1),
        (ItemType::Int16, 3, "Int16", 2),
        (ItemType::Int32, 4, "Int32", 4),
        (ItemType::Int64, 5, "Int64", 8),
        (ItemType::Float32, 6, "Float32", 4),
        (ItemType::Float64, 7, "Float64", 8),
        (ItemType::Date, 9, "Date", 4),
        (ItemType::Timestamp, 10, "Timestamp", 8),
        (ItemType::String, 11, "String", 0),
    ];

    /// Bytes of one item; `None` for strings, which carry their length.
    pub fn width(self) -> Option<usize> {
        let row = Self::ALL.iter().find(|row| row.0 == self).expect("the table lists every item type");
        (row.3 > 0).then_some(row.3)
    }
}

/// How much room a value takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// Always this many bytes.
    Fixed(usize),
    /// Up to [`crate::limits::VALUE_BYTES_MAX`] bytes.
    Variable,
}

impl FeatureType {
    /// How much room a value takes.
    pub fn width(self) -> Width {
        match self {
            Self::Bool | Self::Int8 => Width::Fixed(1),
            Self::Int16 => Width::Fixed(2),
            Self::Int32 | Self::Float32 | Self::Date => Width::Fixed(4),
            Self::Int64 | Self::Float64 | Self::Timestamp => Width::Fixed(8),
            Self::Decimal128 { .. } => Width::Fixed(16),
            Self::FixedArray { items } => Width::Fixed(usize::from(items) * 4),
            Self::String | Self::Binary | Self::Json | Self::Array(_) => Width::Variable,
        }
    }

    /// Reads a type as people write it: `Int64`, `Decimal128(2)`, `Array<Int32>`, `FixedArray<Float32, 16>`.
    pub fn parse(text: &str) -> Result<Self, DecodeError> {
        let bad = || {
            DecodeError::invalid(
                "a feature type",
                format!("{text:?}"),
                "Bool, Int8, Int16, Int32, Int64, Float32, Float64, Decimal128(scale), Date, Timestamp, String, Binary, \
                 Json, Array<T> or FixedArray<Float32, n>",
            )
        };
        let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let plain = [
            ("Bool", Self::Bool),
            ("Int8", Self::Int8),
            ("Int16", Self::Int16),
            ("Int32", Self::Int32),
            ("Int64", Self::Int64),
            ("Float32", Self::Float32),
            ("Float64", Self::Float64),
            ("Date", Self::Date),
            ("Timestamp", Self::Timestamp),
            ("String", Self::String),
            ("Binary", Self::Binary),
            ("Json", Self::Json),
        ];
        if let Some((_, ty)) = plain.iter().find(|(name, _)| *name == compact) {
            return Ok(*ty);
        }
        if let Some(scale) = compact.strip_prefix("Decimal128(").and_then(|rest| rest.strip_suffix(')')) {
            let scale = scale.parse().map_err(|_| bad())?;
            return Self::Decimal128 { scale }.checked();
        }
        if let Some(items) = compact.strip_prefix("FixedArray<Float32,").and_then(|rest| rest.strip_suffix('>')) {
            let items = items.parse().map_err(|_| bad())?;
            return Self::FixedArray { items }.checked();
        }
        if let Some(item) = compact.strip_prefix("Array<").and_then(|rest| rest.strip_suffix('>')) {
            let row = ItemType::ALL.iter().find(|row| row.2 == item).ok_or_else(bad)?;
            return Ok(Self::Array(row.0));
        }
        Err(bad())
    }

    fn checked(self) -> Result<Self, DecodeError> {
        match self {
            Self::Decimal128 { scale } if scale > 38 => {
                Err(DecodeError::invalid("the scale of a Decimal128", scale, "0 to 38"))
            }
            Self::FixedArray { items } if items == 0 || usize::from(items) > FIXED_ARRAY_ITEMS_MAX => {
                Err(DecodeError::invalid("the length of a FixedArray", items, format!("1 to {FIXED_ARRAY_ITEMS_MAX}")))
            }
            fits => Ok(fits),
        }
    }

    fn tag(self) -> (u8, u16) {
        match self {
            Self::Bool => (1, 0),
            Self::Int8 => (2, 0),
            Self::Int16 => (3, 0),
            Self::Int32 => (4, 0),
            Self::Int64 => (5, 0),
            Self::Float32 => (6, 0),
            Self::Float64 => (7, 0),
            Self::Decimal128 { scale } => (8, u16::from(scale)),
            Self::Date => (9, 0),
            Self::Timestamp => (10, 0),
            Self::String => (11, 0),
            Self::Binary => (12, 0),
            Self::Json => (13, 0),
            Self::Array(item) => {
                let row = ItemType::ALL.iter().find(|row| row.0 == item).expect("the table lists every item type");
                (14, u16::from(row.1))
            }
            Self::FixedArray { items } => (15, items),
        }
    }
}

/// Three bytes: a tag, and a u16 that is the scale, the item's tag, the number of items, or 0.
impl Wire for FeatureType {
    fn put(&self, out: &mut Vec<u8>) {
        let (tag, parameter) = self.tag();
        tag.put(out);
        parameter.put(out);
    }

    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let tag = u8::get(input)?;
        let parameter = u16::get(input)?;
        let ty = match tag {
            1 => Self::Bool,
            2 => Self::Int8,
            3 => Self::Int16,
            4 => Self::Int32,
            5 => Self::Int64,
            6 => Self::Float32,
            7 => Self::Float64,
            8 => Self::Decimal128 { scale: u8::try_from(parameter).unwrap_or(u8::MAX) },
            9 => Self::Date,
            10 => Self::Timestamp,
            11 => Self::String,
            12 => Self::Binary,
            13 => Self::Json,
            14 => {
                let row = ItemType::ALL.iter().find(|row| u16::from(row.1) == parameter);
                Self::Array(row.ok_or_else(|| DecodeError::invalid("an item type's tag", parameter, "1 to 11"))?.0)
            }
            15 => Self::FixedArray { items: parameter },
            other => return Err(DecodeError::invalid("a feature type's tag", other, "1 to 15")),
        };
        let ty = ty.checked()?;
        if ty.tag() != (tag, parameter) {
            return Err(DecodeError::invalid("a feature type's parameter", parameter, "0 where the type has none"));
        }
        Ok(ty)
    }
}

impl fmt::Display for FeatureType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decimal128 { scale } => write!(f, "Decimal128({scale})"),
            Self::Array(item) => write!(f, "Array<{item:?}>"),
            Self::FixedArray { items } => write!(f, "FixedArray<Float32, {items}>"),
            plain => write!(f, "{plain:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_comes_back_from_its_text_and_its_bytes() {
        let mut all = vec![FeatureType::Decimal128 { scale: 38 }, FeatureType::FixedArray { items: 4_096 }];
        all.extend(ItemType::ALL.iter().map(|row| FeatureType::Array(row.0)));
        for name in "Bool Int8 Int16 Int32 Int64 Float32 Float64 Date Timestamp String Binary Json".split(' ') {
            all.push(FeatureType::parse(name).unwrap());
        }
        for ty in all {
            assert_eq!(FeatureType::parse(&ty.to_string()).unwrap(), ty);
            assert_eq!(FeatureType::from_bytes(&ty.to_bytes()).unwrap(), ty);
        }
    }

    #[test]
    fn a_wrong_type_is_refused_with_the_list_of_right_ones() {
        for text in ["int", "Decimal128(39)", "FixedArray<Float32, 0>", "FixedArray<Float32, 5000>", "Array<Array>", ""]
        {
            let message = FeatureType::parse(text).unwrap_err().to_string();
            assert!(message.contains("may be"), "{text}: {message}");
        }
        assert!(FeatureType::from_bytes(&[1, 7, 0]).is_err(), "a Bool has no parameter");
        assert!(FeatureType::from_bytes(&[16, 0, 0]).is_err());
        assert!(FeatureType::from_bytes(&[14, 8, 0]).is_err());
        assert!(FeatureType::from_bytes(&[8, 255, 255]).is_err());
    }
}
