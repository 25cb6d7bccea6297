//! How an entity becomes bytes, and bytes a partition.
//!
//! Canonical key bytes are the key columns in order, each a class tag and a payload whose byte order is the value order,
//! so that comparing two keys as bytes compares them column by column:
//!
//! ```text
//! class       tag   payload
//! Bool        0x10  1 byte, 0 or 1
//! integer     0x20  8 bytes big-endian, sign bit flipped (any width: Int8 7 and Int64 7 are the same key)
//! Date        0x30  8 bytes as integer, days since 1970-01-01
//! Timestamp   0x40  8 bytes as integer, microseconds since 1970-01-01T00:00:00Z
//! String      0x50  the bytes with 00 written as 00 FF, then 00 00
//! Binary      0x60  as String
//! ```
//!
//! The partition hash is XXH3-64, seed 0, over the canonical bytes of the first `partition_by` columns. Test vectors:
//! tests/fixtures/keys.json.

use std::fmt;

use crate::codec::{DecodeError, Reader, Wire};
use crate::limits::{KEY_BYTES_MAX, KEY_COLUMN_BYTES_MAX, KEY_COLUMNS_MAX};

/// The type of a key column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// True or false.
    Bool,
    /// Signed 8-bit integer.
    Int8,
    /// Signed 16-bit integer.
    Int16,
    /// Signed 32-bit integer.
    Int32,
    /// Signed 64-bit integer.
    Int64,
    /// UTF-8 text, 1 to 1,024 bytes.
    String,
    /// Days since 1970-01-01.
    Date,
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp,
    /// 1 to 1,024 bytes.
    Binary,
}

crate::wire_enum!(KeyType {
    1 => Bool, 2 => Int8, 3 => Int16, 4 => Int32, 5 => Int64, 9 => Date, 10 => Timestamp, 11 => String, 12 => Binary,
});

impl KeyType {
    const NAMES: [(&'static str, KeyType); 9] = [
        ("Bool", Self::Bool),
        ("Int8", Self::Int8),
        ("Int16", Self::Int16),
        ("Int32", Self::Int32),
        ("Int64", Self::Int64),
        ("String", Self::String),
        ("Date", Self::Date),
        ("Timestamp", Self::Timestamp),
        ("Binary", Self::Binary),
    ];

    /// Reads a type as people write it, such as `Int64`.
    pub fn parse(text: &str) -> Result<Self, DecodeError> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text.trim());
        found.map(|(_, ty)| *ty).ok_or_else(|| {
            let allowed = "Bool, Int8, Int16, Int32, Int64, String, Date, Timestamp or Binary";
            DecodeError::invalid("a key column's type", format!("{text:?}"), allowed)
        })
    }

    /// Canonical bytes of a value of this type, its tag included; `None` where they vary.
    pub fn canonical_width(self) -> Option<usize> {
        match self {
            Self::Bool => Some(2),
            Self::String | Self::Binary => None,
            _ => Some(9),
        }
    }

    fn tag(self) -> u8 {
        match self {
            Self::Bool => TAG_BOOL,
            Self::Int8 | Self::Int16 | Self::Int32 | Self::Int64 => TAG_INT,
            Self::Date => TAG_DATE,
            Self::Timestamp => TAG_TIMESTAMP,
            Self::String => TAG_STRING,
            Self::Binary => TAG_BINARY,
        }
    }

    fn range(self) -> (i64, i64) {
        match self {
            Self::Int8 => (i64::from(i8::MIN), i64::from(i8::MAX)),
            Self::Int16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
            Self::Int32 | Self::Date => (i64::from(i32::MIN), i64::from(i32::MAX)),
            _ => (i64::MIN, i64::MAX),
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A value of a key column.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyValue {
    /// For Bool.
    Bool(bool),
    /// For all integers.
    Int(i64),
    /// For Date, days since 1970-01-01.
    Date(i32),
    /// For Timestamp, microseconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
    /// For String.
    String(String),
    /// For Binary.
    Binary(Vec<u8>),
}

impl From<i64> for KeyValue {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for KeyValue {
    fn from(value: &str) -> Self {
        Self::String(value.to_owned())
    }
}

impl KeyValue {
    fn class(&self) -> &'static str {
        match self {
            Self::Bool(_) => "Bool",
            Self::Int(_) => "an integer",
            Self::Date(_) => "Date",
            Self::Timestamp(_) => "Timestamp",
            Self::String(_) => "String",
            Self::Binary(_) => "Binary",
        }
    }
}

impl fmt::Display for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(v) => write!(f, "{v}"),
            Self::Int(v) | Self::Timestamp(v) => write!(f, "{v}"),
            Self::Date(v) => write!(f, "{v}"),
            Self::String(v) => write!(f, "{v}"),
            Self::Binary(v) => v.iter().try_for_each(|b| write!(f, "{b:02x}")),
        }
    }
}

/// Why a key is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The number of values is not that of the entity's key columns.
    #[error("a key of {given} values was given where the entity has {wanted} key columns")]
    Count {
        /// Values given.
        given: usize,
        /// Key columns of the entity.
        wanted: usize,
    },
    /// A value is not of its column's type.
    #[error("key column {column} is {wanted}, and {given} was given")]
    Type {
        /// Place of the column, from 0.
        column: usize,
        /// The column's type.
        wanted: KeyType,
        /// The class of the value given.
        given: &'static str,
    },
    /// An integer does not fit its column's type.
    #[error("key column {column} is {wanted} ({low} to {high}), and {given} was given")]
    Range {
        /// Place of the column, from 0.
        column: usize,
        /// The column's type.
        wanted: KeyType,
        /// Smallest value.
        low: i64,
        /// Largest value.
        high: i64,
        /// The value given.
        given: i64,
    },
    /// A String or Binary value is empty.
    #[error("key column {column} is empty; a key value has 1 to {KEY_COLUMN_BYTES_MAX} bytes")]
    Empty {
        /// Place of the column, from 0.
        column: usize,
    },
    /// A value or the whole key is too long.
    #[error("a key of {bytes} bytes is over the limit of {limit}")]
    TooLong {
        /// Bytes given.
        bytes: usize,
        /// Largest number of bytes.
        limit: usize,
    },
    /// Bytes that claim to be a key are not canonical.
    #[error("the bytes of key column {column} are not canonical: {why}")]
    NotCanonical {
        /// Place of the column, from 0.
        column: usize,
        /// What is wrong.
        why: &'static str,
    },
}

const TAG_BOOL: u8 = 0x10;
const TAG_INT: u8 = 0x20;
const TAG_DATE: u8 = 0x30;
const TAG_TIMESTAMP: u8 = 0x40;
const TAG_STRING: u8 = 0x50;
const TAG_BINARY: u8 = 0x60;

/// Appends the canonical bytes of `values`, checked against the entity's key columns, to `out`.
pub fn encode_key(types: &[KeyType], values: &[KeyValue], out: &mut Vec<u8>) -> Result<(), KeyError> {
    if types.len() != values.len() || types.is_empty() || types.len() > KEY_COLUMNS_MAX {
        return Err(KeyError::Count { given: values.len(), wanted: types.len() });
    }
    let start = out.len();
    for (column, (ty, value)) in types.iter().zip(values).enumerate() {
        encode_column(column, *ty, value, out).inspect_err(|_| out.truncate(start))?;
    }
    let bytes = out.len() - start;
    if bytes > KEY_BYTES_MAX {
        out.truncate(start);
        return Err(KeyError::TooLong { bytes, limit: KEY_BYTES_MAX });
    }
    Ok(())
}

fn encode_column(column: usize, ty: KeyType, value: &KeyValue, out: &mut Vec<u8>) -> Result<(), KeyError> {
    let number = |given: i64, out: &mut Vec<u8>| {
        let (low, high) = ty.range();
        if given < low || given > high {
            return Err(KeyError::Range { column, wanted: ty, low, high, given });
        }
        out.push(ty.tag());
        out.extend_from_slice(&(given as u64 ^ 1 << 63).to_be_bytes());
        Ok(())
    };
    match (ty, value) {
        (KeyType::Bool, KeyValue::Bool(v)) => {
            out.extend_from_slice(&[TAG_BOOL, u8::from(*v)]);
            Ok(())
        }
        (KeyType::Int8 | KeyType::Int16 | KeyType::Int32 | KeyType::Int64, KeyValue::Int(v)) => number(*v, out),
        (KeyType::Date, KeyValue::Date(v)) => number(i64::from(*v), out),
        (KeyType::Timestamp, KeyValue::Timestamp(v)) => number(*v, out),
        (KeyType::String, KeyValue::String(v)) => encode_bytes(column, ty, v.as_bytes(), out),
        (KeyType::Binary, KeyValue::Binary(v)) => encode_bytes(column, ty, v, out),
        (wanted, given) => Err(KeyError::Type { column, wanted, given: given.class() }),
    }
}

fn encode_bytes(column: usize, ty: KeyType, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), KeyError> {
    if bytes.is_empty() {
        return Err(KeyError::Empty { column });
    }
    if bytes.len() > KEY_COLUMN_BYTES_MAX {
        return Err(KeyError::TooLong { bytes: bytes.len(), limit: KEY_COLUMN_BYTES_MAX });
    }
    out.push(ty.tag());
    for &byte in bytes {
        out.push(byte);
        if byte == 0 {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 0]);
    Ok(())
}

/// The values that canonical bytes stand for. Accepts exactly what [`encode_key`] makes for these types.
pub fn decode_key(types: &[KeyType], bytes: &[u8]) -> Result<Vec<KeyValue>, KeyError> {
    if bytes.len() > KEY_BYTES_MAX {
        return Err(KeyError::TooLong { bytes: bytes.len(), limit: KEY_BYTES_MAX });
    }
    let mut values = Vec::with_capacity(types.len());
    let mut rest = bytes;
    for (column, ty) in types.iter().enumerate() {
        let (value, after) = decode_column(column, *ty, rest)?;
        values.push(value);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(KeyError::NotCanonical { column: types.len(), why: "bytes are left over" });
    }
    Ok(values)
}

/// Checks that `bytes` are the canonical bytes of some key of these types, without building its values.
#[inline]
pub fn check_key(types: &[KeyType], bytes: &[u8]) -> Result<(), KeyError> {
    // The common case, one integer, needs no more than this.
    if let ([KeyType::Int64], [TAG_INT, _, _, _, _, _, _, _, _]) = (types, bytes) {
        return Ok(());
    }
    decode_key(types, bytes).map(drop)
}

/// Bytes of an integer: its tag, and eight.
const INTEGER_BYTES: usize = 9;

fn decode_column(column: usize, ty: KeyType, bytes: &[u8]) -> Result<(KeyValue, &[u8]), KeyError> {
    let bad = |why| KeyError::NotCanonical { column, why };
    let (&tag, rest) = bytes.split_first().ok_or(bad("they end too early"))?;
    if tag != ty.tag() {
        return Err(bad("the tag is of another class"));
    }
    match ty {
        KeyType::Bool => match rest.split_first() {
            Some((&flag @ (0 | 1), rest)) => Ok((KeyValue::Bool(flag == 1), rest)),
            _ => Err(bad("a Bool is 0 or 1")),
        },
        KeyType::String | KeyType::Binary => {
            let (raw, rest) = decode_bytes(rest).ok_or(bad("the end mark 00 00 is missing"))?;
            if raw.is_empty() {
                return Err(KeyError::Empty { column });
            }
            if raw.len() > KEY_COLUMN_BYTES_MAX {
                return Err(KeyError::TooLong { bytes: raw.len(), limit: KEY_COLUMN_BYTES_MAX });
            }
            if ty == KeyType::Binary {
                return Ok((KeyValue::Binary(raw), rest));
            }
            let text = String::from_utf8(raw).map_err(|_| bad("a String is UTF-8"))?;
            Ok((KeyValue::String(text), rest))
        }
        _ => {
            let (number, rest) = rest.split_first_chunk::<8>().ok_or(bad("a number has 8 bytes"))?;
            let given = (u64::from_be_bytes(*number) ^ 1 << 63) as i64;
            let (low, high) = ty.range();
            if given < low || given > high {
                return Err(KeyError::Range { column, wanted: ty, low, high, given });
            }
            let value = match ty {
                KeyType::Date => KeyValue::Date(given as i32),
                KeyType::Timestamp => KeyValue::Timestamp(given),
                _ => KeyValue::Int(given),
            };
            Ok((value, rest))
        }
    }
}

fn decode_bytes(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut raw = Vec::new();
    let mut at = 0;
    loop {
        match (bytes.get(at)?, bytes.get(at + 1)) {
            (0, Some(0)) => return Some((raw, &bytes[at + 2..])),
            (0, Some(0xff)) => {
                raw.push(0);
                at += 2;
            }
            (0, _) => return None,
            (&byte, _) => {
                raw.push(byte);
                at += 1;
            }
        }
    }
}

/// The bytes of the first `columns` columns of a canonical key.
pub fn key_prefix<'a>(types: &[KeyType], bytes: &'a [u8], columns: usize) -> Result<&'a [u8], KeyError> {
    if columns >= types.len() {
        return Ok(bytes);
    }
    let mut end = 0;
    for (column, ty) in types[..columns].iter().enumerate() {
        let rest = &bytes[end..];
        end += match ty.canonical_width() {
            Some(width) if width <= rest.len() => width,
            Some(_) => return Err(KeyError::NotCanonical { column, why: "they end too early" }),
            None => {
                let (_, after) = decode_column(column, *ty, rest)?;
                rest.len() - after.len()
            }
        };
    }
    Ok(&bytes[..end])
}

/// The hash that decides an entity's partition: XXH3-64, seed 0, over the bytes of its partition key.
pub fn partition_hash(prefix: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(prefix)
}

/// Canonical keys one after the other, as a request carries them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyBlock {
    /// Where each key ends; one more than there are keys, the first 0.
    offsets: Vec<u32>,
    bytes: Vec<u8>,
}

impl KeyBlock {
    /// An empty block.
    pub fn new() -> Self {
        Self { offsets: vec![0], bytes: Vec::new() }
    }

    /// Adds a key that is canonical already.
    pub fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.offsets.push(self.bytes.len() as u32);
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key at a place; panics beyond the end.
    pub fn get(&self, at: usize) -> &[u8] {
        &self.bytes[self.offsets[at] as usize..self.offsets[at + 1] as usize]
    }

    /// Keys `first` to `first + count`; panics beyond the end.
    pub fn range(&self, first: usize, count: usize) -> KeyRange<'_> {
        assert!(first + count <= self.len(), "keys {first} to {} of {}", first + count, self.len());
        KeyRange { block: self, first, count }
    }

    /// Appends the bytes of one block with the keys of all of these.
    pub fn put_joined(blocks: &[&Self], out: &mut Vec<u8>) {
        (blocks.iter().map(|block| block.len()).sum::<usize>() as u32).put(out);
        blocks.iter().flat_map(|block| block.iter()).for_each(|key| (key.len() as u16).put(out));
        blocks.iter().for_each(|block| out.extend_from_slice(&block.bytes));
    }

    /// All keys in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.offsets.windows(2).map(|w| &self.bytes[w[0] as usize..w[1] as usize])
    }
}

/// Some keys of a [`KeyBlock`] that lie side by side.
#[derive(Debug, Clone, Copy)]
pub struct KeyRange<'a> {
    block: &'a KeyBlock,
    first: usize,
    count: usize,
}

impl<'a> KeyRange<'a> {
    /// Checks that all of them are canonical keys of these columns; the error comes with the place of the first that is not.
    ///
    /// # Errors
    /// As [`check_key`].
    pub fn check(&self, types: &[KeyType]) -> Result<(), (usize, KeyError)> {
        // The common case, one integer, needs no more than this: all are as long, and begin with its tag.
        if let [KeyType::Int64] = types {
            let Self { block, first, count } = *self;
            let ends = block.offsets.get(first..first + count + 1).unwrap_or_default();
            let is_long = |ends: &[u32; 2]| ends[1].wrapping_sub(ends[0]) as usize == INTEGER_BYTES;
            let start = ends.first().map_or(0, |start| *start as usize);
            let keys = block.bytes.get(start..start + count * INTEGER_BYTES).unwrap_or_default();
            let (keys, _) = keys.as_chunks::<INTEGER_BYTES>();
            if ends.array_windows().all(is_long) && keys.iter().all(|key| key[0] == TAG_INT) {
                return Ok(());
            }
        }
        self.iter().enumerate().try_for_each(|(at, key)| check_key(types, key).map_err(|error| (at, error)))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All of them in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let Self { block, first, count } = *self;
        // Of a block that never had a key there are no offsets.
        let ends = block.offsets.get(first..first + count + 1).unwrap_or_default();
        ends.windows(2).map(move |ends| &block.bytes[ends[0] as usize..ends[1] as usize])
    }
}

/// A u32 count, a u16 length each, then all bytes.
impl Wire for KeyBlock {
    fn put(&self, out: &mut Vec<u8>) {
        Self::put_joined(&[self], out);
    }

    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let n = input.count(2, "keys")?;
        let mut offsets = Vec::with_capacity(n + 1);
        offsets.push(0);
        let mut end = 0u32;
        for _ in 0..n {
            let len = u16::get(input)?;
            if usize::from(len) > KEY_BYTES_MAX {
                return Err(DecodeError::invalid("the length of a key", len, format!("1 to {KEY_BYTES_MAX}")));
            }
            end = end.checked_add(u32::from(len)).ok_or(DecodeError::invalid("keys", "too long", "4 GiB"))?;
            offsets.push(end);
        }
        let bytes = input.take(end as usize, "keys")?.to_vec();
        Ok(Self { offsets, bytes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_checked_together_as_each_by_itself() {
        let int = |tag: u8, bytes: usize| [vec![tag], vec![7; bytes]].concat();
        let texts = encode(&[KeyType::String], &[KeyValue::String("a key".to_owned())]).unwrap();
        // Among them pairs that are as long together as two integers are.
        let cases = [int(TAG_INT, 8), int(TAG_INT, 7), int(TAG_INT, 9), int(TAG_INT + 1, 8), texts, int(TAG_INT, 8)];
        for first in 0..cases.len() {
            for end in first..=cases.len() {
                for types in [&[KeyType::Int64][..], &[KeyType::String], &[KeyType::Int64, KeyType::Int64]] {
                    let mut block = KeyBlock::new();
                    block.push(&int(TAG_INT, 8));
                    cases[first..end].iter().for_each(|key| block.push(key));
                    let wanted = cases[first..end].iter().position(|key| check_key(types, key).is_err());
                    let checked = block.range(1, end - first).check(types);
                    assert_eq!(checked.err().map(|(at, _)| at), wanted, "{types:?}: {first} to {end}");
                }
            }
        }
    }

    fn encode(types: &[KeyType], values: &[KeyValue]) -> Result<Vec<u8>, KeyError> {
        let mut out = Vec::new();
        encode_key(types, values, &mut out).map(|()| out)
    }

    fn any_key() -> impl Strategy<Value = (Vec<KeyType>, Vec<KeyValue>)> {
        let column = prop_oneof![
            any::<bool>().prop_map(|v| (KeyType::Bool, KeyValue::Bool(v))),
            any::<i64>().prop_map(|v| (KeyType::Int64, KeyValue::Int(v))),
            any::<i32>().prop_map(|v| (KeyType::Date, KeyValue::Date(v))),
            any::<i64>().prop_map(|v| (KeyType::Timestamp, KeyValue::Timestamp(v))),
            "[a-c\u{0}]{1,6}".prop_map(|v| (KeyType::String, KeyValue::String(v))),
            prop::collection::vec(prop_oneof![Just(0u8), Just(255), any::<u8>()], 1..6)
                .prop_map(|v| (KeyType::Binary, KeyValue::Binary(v))),
        ];
        prop::collection::vec(column, 1..5).prop_map(|columns| columns.into_iter().unzip())
    }

    proptest! {
        #[test]
        fn keys_come_back_from_their_bytes((types, values) in any_key()) {
            let bytes = encode(&types, &values).unwrap();
            prop_assert_eq!(decode_key(&types, &bytes).unwrap(), values);
            prop_assert!(check_key(&types, &bytes).is_ok());
            for cut in 0..bytes.len() {
                prop_assert!(decode_key(&types, &bytes[..cut]).is_err());
            }
        }

        #[test]
        fn byte_order_is_value_order(a in prop::collection::vec(any_pair(), 3), b in prop::collection::vec(any_pair(), 3)) {
            let types = [KeyType::Int64, KeyType::String, KeyType::Binary];
            let key = |v: &[(i64, String, Vec<u8>)]| {
                vec![KeyValue::Int(v[0].0), KeyValue::String(v[1].1.clone()), KeyValue::Binary(v[2].2.clone())]
            };
            let (a, b) = (key(&a), key(&b));
            prop_assert_eq!(encode(&types, &a).unwrap().cmp(&encode(&types, &b).unwrap()), a.cmp(&b));
        }

        #[test]
        fn foreign_bytes_never_panic_and_only_canonical_ones_pass(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            for types in [&[KeyType::Int64][..], &[KeyType::String, KeyType::Int8], &[KeyType::Bool, KeyType::Binary]] {
                let _ = key_prefix(types, &bytes, 1);
                if let Ok(values) = decode_key(types, &bytes) {
                    prop_assert_eq!(encode(types, &values).unwrap(), bytes.clone());
                }
            }
        }
    }

    fn any_pair() -> impl Strategy<Value = (i64, String, Vec<u8>)> {
        (-3i64..3, "[a\u{0}]{1,3}", prop::collection::vec(prop_oneof![Just(0u8), Just(255)], 1..4))
    }

    #[test]
    fn integers_of_all_widths_are_one_key_and_other_classes_are_not() {
        let narrow = encode(&[KeyType::Int8], &[KeyValue::Int(7)]).unwrap();
        assert_eq!(narrow, encode(&[KeyType::Int64], &[KeyValue::Int(7)]).unwrap());
        assert_ne!(narrow, encode(&[KeyType::Date], &[KeyValue::Date(7)]).unwrap());
        assert_ne!(narrow, encode(&[KeyType::Timestamp], &[KeyValue::Timestamp(7)]).unwrap());
    }

    #[test]
    fn a_wrong_key_says_what_would_be_right() {
        let types = [KeyType::Int8, KeyType::String];
        let cases: [(Vec<KeyValue>, &str); 5] = [
            (vec![KeyValue::Int(7)], "has 2 key columns"),
            (vec![KeyValue::Int(300), "x".into()], "-128 to 127"),
            (vec!["7".into(), "x".into()], "is Int8, and String was given"),
            (vec![KeyValue::Int(7), "".into()], "1 to 1024 bytes"),
            (vec![KeyValue::Int(7), KeyValue::String("x".repeat(1_025))], "limit of 1024"),
        ];
        for (values, wanted) in cases {
            let mut out = vec![9];
            let message = encode_key(&types, &values, &mut out).unwrap_err().to_string();
            assert!(message.contains(wanted), "{message}");
            assert_eq!(out, [9], "a refused key leaves nothing behind");
        }
    }

    #[test]
    fn the_prefix_covers_the_partition_key_alone() {
        let types = [KeyType::String, KeyType::Int64];
        let key = encode(&types, &["ab\0".into(), KeyValue::Int(1)]).unwrap();
        let first = encode(&types[..1], &["ab\0".into()]).unwrap();
        assert_eq!(key_prefix(&types, &key, 1).unwrap(), first);
        assert_eq!(key_prefix(&types, &key, 2).unwrap(), key);
    }

    #[test]
    fn key_blocks_come_back_and_lying_lengths_are_refused() {
        let mut block = KeyBlock::new();
        block.push(b"one");
        block.push(b"");
        block.push(b"three");
        let bytes = block.to_bytes();
        assert_eq!(KeyBlock::from_bytes(&bytes).unwrap(), block);
        assert_eq!(block.iter().collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        for cut in 0..bytes.len() {
            assert!(KeyBlock::from_bytes(&bytes[..cut]).is_err());
        }
        assert!(KeyBlock::from_bytes(&u32::MAX.to_le_bytes()).is_err());
    }
}
