//! Narrower storage of features: fewer bytes in memory, in snapshots and in the limit on writes, for an error that is known.
//!
//! Writers give Float32 and readers are given Float32, so that batches and answers are the same bytes as ever. In between, where a
//! row is laid out in its lanes, a value is narrowed **once** ([`Storage::narrow`]), and what is kept from there on is the value
//! of record: digests and snapshots have its bytes, and every read widens those ([`Storage::widen`]). Both are functions of bits
//! alone, so that replicas agree. What cannot be kept is refused before that, row by row ([`Storage::check`]): by the client that
//! lays the batch out, by the leader, and by apply.
//!
//! | storage | of | bytes of a value | error | refused |
//! |---|---|---|---|---|
//! | `float16` | Float32, FixedArray of n | 2, 2 n | 2^-11 of the value from 2^-14 on, 2^-25 below | finite values beyond 65,504 |
//! | `int8_scaled` | FixedArray of n, n >= 2 | 4 + n | half a scale, the scale max\|x\| / 127 | NaN, infinities, beyond 3.4028e38 |
//!
//! `float16` is IEEE 754 binary16, rounded to nearest, ties to even. It keeps signs, of zeros too, and infinities; a NaN stays a NaN, with
//! its sign and the upper ten bits of its payload, and is quiet. `int8_scaled` has one scale for each value ([`crate::int8_scaled`]):
//! the scale is up to 2^-16 of itself greater than max|x| / 127, and 2^-126 at the least; it keeps no sign of a zero. Either way
//! what was read can be written again, and is kept as the same bytes.

use std::fmt;

use crate::batch::RowBatch;
use crate::catalog::FeatureGroup;
use crate::codec::DecodeError;
use crate::error::{ErrorBody, ErrorCode};
use crate::types::{FeatureType, Width};
use crate::{float16, int8_scaled};

/// How values are kept, if not in their type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Storage {
    /// Of Float32 and FixedArray: IEEE 754 binary16, 2 bytes an item.
    Float16,
    /// Of FixedArray: a Float32 scale for each value and an Int8 for each item, 4 bytes and 1 an item.
    Int8Scaled,
}
crate::wire_enum!(Storage { 1 => Float16, 2 => Int8Scaled });

/// Why a value cannot be kept in its feature's storage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// It is finite, and beyond what the storage has.
    #[error(
        "{} is {given}, and {storage} keeps values of up to {:?} alone: scale the feature, write a null, or define it in a new \
         version of the group without this storage",
        place(*item),
        storage.magnitude_max()
    )]
    TooLarge {
        /// The storage.
        storage: Storage,
        /// Which item of an array it is, from 0.
        item: Option<usize>,
        /// What was given, in words.
        given: String,
    },
    /// It is NaN or infinite, and has no place on a scale.
    #[error(
        "{} is {given}, and {storage} keeps finite values alone: write a number or a null, or define the feature in a new \
         version of the group with storage {}",
        place(*item),
        Storage::Float16
    )]
    NotFinite {
        /// The storage.
        storage: Storage,
        /// Which item of an array it is, from 0.
        item: Option<usize>,
        /// What was given, in words.
        given: String,
    },
}

fn place(item: Option<usize>) -> String {
    item.map_or_else(|| "the value".to_owned(), |item| format!("item {item}"))
}

impl Storage {
    const ALL: [(Self, &'static str); 2] = [(Self::Float16, "float16"), (Self::Int8Scaled, "int8_scaled")];

    /// Reads a storage as people write it: `float16` or `int8_scaled`.
    pub fn parse(text: &str) -> Result<Self, DecodeError> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        let bad = || DecodeError::invalid("a storage", format!("{text:?}"), "float16 or int8_scaled");
        found.map(|(storage, _)| *storage).ok_or_else(bad)
    }

    /// Checks that values of a type can be kept so, and take fewer bytes than they do else.
    pub fn check_type(self, ty: FeatureType) -> Result<(), DecodeError> {
        let (fits, of) = match self {
            Self::Float16 => {
                (matches!(ty, FeatureType::Float32 | FeatureType::FixedArray { .. }), "Float32 and FixedArray")
            }
            Self::Int8Scaled => {
                (matches!(ty, FeatureType::FixedArray { items: 2.. }), "FixedArray of 2 items and more")
            }
        };
        if fits {
            return Ok(());
        }
        Err(DecodeError::invalid("the storage of a feature", format!("{self} of {ty}"), format!("of {of} alone")))
    }

    /// Bytes of a value in memory and in snapshots, of a type that it fits ([`Storage::check_type`]).
    pub fn width(self, ty: FeatureType) -> usize {
        let Width::Fixed(wide) = ty.width() else { unreachable!("{self} of {ty} has been checked") };
        match self {
            Self::Float16 => wide / 2,
            Self::Int8Scaled => int8_scaled::SCALE_BYTES + wide / 4,
        }
    }

    /// The greatest magnitude that is kept, infinity apart: 65,504 and about 3.4028e38.
    pub fn magnitude_max(self) -> f32 {
        match self {
            Self::Float16 => float16::MAX,
            Self::Int8Scaled => int8_scaled::MAX,
        }
    }

    /// The error, for people.
    pub fn error(self) -> &'static str {
        match self {
            Self::Float16 => {
                "within 2^-11 of the value (2^-25 where that is below 2^-14); finite values beyond 65504 are refused"
            }
            Self::Int8Scaled => {
                "within half a scale, the scale of a value being max|x| / 127; NaN and infinities are refused"
            }
        }
    }

    /// Checks that a value, whose bytes are of its type, can be kept.
    ///
    /// # Errors
    /// The first item that cannot.
    pub fn check(self, value: &[u8]) -> Result<(), StorageError> {
        let singles = value.as_chunks::<4>().0;
        let unfit = match self {
            Self::Float16 => singles.iter().position(|single| float16::is_beyond(u32::from_le_bytes(*single))),
            Self::Int8Scaled => int8_scaled::unfit(value),
        };
        let Some(at) = unfit else { return Ok(()) };
        let (single, item) = (f32::from_le_bytes(singles[at]), (singles.len() > 1).then_some(at));
        let (storage, given) = (self, format!("{single:?}"));
        Err(match single.is_finite() {
            true => StorageError::TooLarge { storage, item, given },
            false => StorageError::NotFinite { storage, item, given },
        })
    }

    /// Narrows a value that [`Storage::check`] has passed; `out` has [`Storage::width`] bytes.
    pub fn narrow(self, value: &[u8], out: &mut [u8]) {
        match self {
            Self::Float16 => float16::narrow(value, out),
            Self::Int8Scaled => int8_scaled::narrow(value, out),
        }
    }

    /// Widens what was narrowed; `read` reads bytes of it, from a byte on. That of a null, zero bytes, is widened to zero bytes.
    pub fn widen(self, out: &mut [u8], read: impl Fn(usize, &mut [u8])) {
        // Piece by piece: what was narrowed lies in words that are copied out, and has no limit that a stack would like.
        const ITEMS: usize = 128;
        let mut stored = [0; 2 * ITEMS];
        let (item_bytes, first) = match self {
            Self::Float16 => (2, 0),
            Self::Int8Scaled => (1, int8_scaled::SCALE_BYTES),
        };
        let mut scale = [0; int8_scaled::SCALE_BYTES];
        if self == Self::Int8Scaled {
            read(0, &mut scale);
        }
        let scale = int8_scaled::scale(scale);
        for (piece, out) in out.chunks_mut(4 * ITEMS).enumerate() {
            let stored = &mut stored[..out.len() / 4 * item_bytes];
            read(first + piece * ITEMS * item_bytes, stored);
            match self {
                Self::Float16 => float16::widen(stored, out),
                Self::Int8Scaled => int8_scaled::widen(scale, stored, out),
            }
        }
    }

    /// A value as it is read once it has been written: narrowed and widened.
    pub fn as_read(self, value: &[u8]) -> Vec<u8> {
        let items = value.len() / 4;
        let ty = FeatureType::FixedArray { items: u16::try_from(items).expect("an array has up to 4,096 items") };
        let (mut stored, mut out) = (vec![0; self.width(ty)], vec![0; value.len()]);
        self.narrow(value, &mut stored);
        self.widen(&mut out, |from, bytes| bytes.copy_from_slice(&stored[from..from + bytes.len()]));
        out
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(storage, _)| storage == self).expect("the table lists every storage").1;
        f.write_str(name)
    }
}

impl RowBatch {
    /// Checks that each value can be kept in its feature's storage, of a batch whose features and types are those of the group:
    /// apply relies on it.
    ///
    /// # Errors
    /// [`ErrorCode::BadValue`], which names row and feature.
    pub fn check_storage(&self, group: &FeatureGroup) -> Result<(), ErrorBody> {
        for (at, column) in self.columns().iter().enumerate() {
            let feature = &group.features[usize::from(column.feature)];
            let Some(storage) = feature.storage.filter(|_| !feature.dropped) else { continue };
            let values = self.column(at);
            for row in 0..self.rows() {
                if let Some(Err(error)) = values.value(row).map(|value| storage.check(value)) {
                    let message = format!("row {row}, feature {}: {error}", feature.name);
                    return Err(ErrorBody::new(ErrorCode::BadValue, message));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Wire;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn array(items: u16) -> FeatureType {
        FeatureType::FixedArray { items }
    }

    #[test]
    fn a_storage_has_a_name_and_is_of_types_that_it_makes_narrower() {
        for storage in [Storage::Float16, Storage::Int8Scaled] {
            assert_eq!(Storage::parse(&storage.to_string()), Ok(storage));
            assert_eq!(Storage::from_bytes(&storage.to_bytes()), Ok(storage));
            let fits = |ty: &FeatureType| storage.check_type(*ty).is_ok();
            let types =
                [FeatureType::Float32, array(1), array(2), array(4_096), FeatureType::Float64, FeatureType::String];
            let fitting: Vec<FeatureType> = types.into_iter().filter(fits).collect();
            let wanted = if storage == Storage::Float16 { &types[..4] } else { &types[2..4] };
            assert_eq!(fitting, wanted, "{storage}");
            for ty in fitting {
                let Width::Fixed(wide) = ty.width() else { panic!("{ty}") };
                assert!(storage.width(ty) < wide, "{storage} of {ty}");
            }
        }
        assert_eq!((Storage::Float16.width(array(128)), Storage::Int8Scaled.width(array(128))), (256, 132));
        let message = Storage::parse("Float16").unwrap_err().to_string();
        assert!(message.contains("may be float16 or int8_scaled"), "{message}");
        assert!(Storage::from_bytes(&[0]).is_err() && Storage::from_bytes(&[3]).is_err());
    }

    #[test]
    fn values_of_any_length_come_back_piece_by_piece() {
        for items in [1, 2, 127, 128, 129, 257, 4_096_usize] {
            // Whole numbers, of which the greatest is 127: both storages have them.
            let values: Vec<f32> =
                (0..items).map(|at| if at == 0 { 127.0 } else { (at * 7 % 255) as f32 - 127.0 }).collect();
            assert_eq!(Storage::Float16.as_read(&bytes(&values)), bytes(&values), "{items} items");
            if items > 1 {
                assert_eq!(Storage::Int8Scaled.as_read(&bytes(&values)), bytes(&values), "{items} items");
            }
        }
        for storage in [Storage::Float16, Storage::Int8Scaled] {
            let mut out = bytes(&[1.0; 300]);
            storage.widen(&mut out, |_, stored| stored.fill(0));
            assert_eq!(out, [0; 1_200], "a null stays zero bytes");
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_what_would_be_right() {
        let (float16, int8) = (Storage::Float16, Storage::Int8Scaled);
        let kept = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 65_504.0, -65_504.0, 1e-45, -0.0];
        assert_eq!(float16.check(&bytes(&kept)), Ok(()));
        assert_eq!(int8.check(&bytes(&[int8.magnitude_max(), -0.0, 1e-45])), Ok(()));
        let cases = [
            (float16, &[70_000.0][..], "the value is 70000.0, and float16 keeps values of up to 65504.0 alone: scale"),
            (float16, &[0.0, f32::NAN, -65_504.01], "item 2 is -65504.01"),
            (
                int8,
                &[0.0, f32::NAN],
                "item 1 is NaN, and int8_scaled keeps finite values alone: write a number or a null",
            ),
            (int8, &[f32::NEG_INFINITY, 0.0], "item 0 is -inf"),
            (int8, &[0.0, f32::MAX], "item 1 is 3.4028235e38, and int8_scaled keeps values of up to 3.402822e38 alone"),
        ];
        for (storage, values, wanted) in cases {
            let message = storage.check(&bytes(values)).unwrap_err().to_string();
            assert!(message.contains(wanted), "{message}\nshould have\n{wanted}");
            assert!(message.contains("version of the group"), "{message}");
        }
    }
}
