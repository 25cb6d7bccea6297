//! Values in wider types. A feature's type may be widened while rows stand: Int8 to Int16, Int32 and Int64, Float32 to
//! Float64. Every value of the narrower type is one of the wider, so that what was written can be read in either.
//!
//! A value that was widened can be taken back: [`narrow`] gives the bytes that [`widen`] was given, and `None` for a value
//! that the narrower type does not have. So a value has one form in which replicas compare it, whatever form it has in the
//! memory of each ([`narrowest`]). All of it is done on bits: no processor has a say in what becomes of a NaN.

use std::ops::Deref;

use crate::types::FeatureType;

/// Types that a feature may have had before the one it has: three, of an Int64 that was an Int8 once.
pub const EARLIER_TYPES_MAX: usize = 3;

const SCALAR_BYTES: usize = 8;

/// The little-endian bytes of one number, of whatever width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scalar {
    bytes: [u8; SCALAR_BYTES],
    width: usize,
}

impl Scalar {
    fn new(bytes: &[u8], width: usize, fill: u8) -> Self {
        let mut all = [fill; SCALAR_BYTES];
        let kept = bytes.len().min(width);
        all[..kept].copy_from_slice(&bytes[..kept]);
        Self { bytes: all, width }
    }
}

impl Deref for Scalar {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.width]
    }
}

/// Whether a feature of type `from` may become one of type `to`.
pub fn widens(from: FeatureType, to: FeatureType) -> bool {
    use FeatureType as T;
    let integer = integer_width(from).zip(integer_width(to)).is_some_and(|(from, to)| from < to);
    integer || (from, to) == (T::Float32, T::Float64)
}

/// A value of type `from` as one of type `to`. The caller has made sure that `from` widens to `to`, and that the bytes are
/// of its width.
pub fn widen(from: FeatureType, to: FeatureType, bytes: &[u8]) -> Scalar {
    debug_assert!(widens(from, to), "{from} does not widen to {to}");
    match integer_width(to) {
        Some(width) => Scalar::new(bytes, width, if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 }),
        None => Scalar::new(&widen_float(u32::from_le_bytes(*whole(bytes))).to_le_bytes(), 8, 0),
    }
}

/// A value of type `from` as one of the narrower type `to`, if `to` has it. As [`widen`], the other way round.
pub fn narrow(from: FeatureType, to: FeatureType, bytes: &[u8]) -> Option<Scalar> {
    debug_assert!(widens(to, from), "{to} does not widen to {from}");
    let narrowed = match integer_width(to) {
        Some(width) => Scalar::new(bytes, width, 0),
        None => Scalar::new(&narrow_float(u64::from_le_bytes(*whole(bytes))).to_le_bytes(), 4, 0),
    };
    (*widen(to, from, &narrowed) == *bytes).then_some(narrowed)
}

/// A value of type `ty` as one of the first of `earlier` that has it: narrow types come first. `None` if none has.
pub fn narrowest(ty: FeatureType, earlier: impl Iterator<Item = FeatureType>, bytes: &[u8]) -> Option<Scalar> {
    earlier.filter(|before| widens(*before, ty)).find_map(|before| narrow(ty, before, bytes))
}

fn integer_width(ty: FeatureType) -> Option<usize> {
    match ty {
        FeatureType::Int8 => Some(1),
        FeatureType::Int16 => Some(2),
        FeatureType::Int32 => Some(4),
        FeatureType::Int64 => Some(8),
        _ => None,
    }
}

fn whole<const N: usize>(bytes: &[u8]) -> &[u8; N] {
    bytes.try_into().expect("the caller has made sure of the width")
}

const EXPONENT_32: u32 = 0xff << 23;
const FRACTION_32: u32 = (1 << 23) - 1;
const EXPONENT_64: u64 = 0x7ff << 52;
const FRACTION_SHIFT: u32 = 52 - 23;

/// The bits of a single as those of the double of the same value; a NaN keeps its payload.
fn widen_float(bits: u32) -> u64 {
    if bits & EXPONENT_32 == EXPONENT_32 {
        let sign = u64::from(bits >> 31) << 63;
        return sign | EXPONENT_64 | u64::from(bits & FRACTION_32) << FRACTION_SHIFT;
    }
    f64::from(f32::from_bits(bits)).to_bits()
}

/// The bits of a single whose value is near that of a double; the same value if there is such a single.
fn narrow_float(bits: u64) -> u32 {
    if bits & EXPONENT_64 == EXPONENT_64 {
        let sign = ((bits >> 63) as u32) << 31;
        return sign | EXPONENT_32 | (bits >> FRACTION_SHIFT) as u32 & FRACTION_32;
    }
    (f64::from_bits(bits) as f32).to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use FeatureType::*;

    #[test]
    fn every_value_that_was_widened_comes_back_and_others_do_not() {
        let chains: [&[FeatureType]; 2] = [&[Int8, Int16, Int32, Int64], &[Float32, Float64]];
        for (low, from) in
            chains.iter().flat_map(|chain| chain.iter().enumerate().map(move |(at, ty)| (&chain[..=at], *ty)))
        {
            for (at, to) in low.iter().enumerate() {
                assert!(!widens(from, *to), "{from} to {to}");
                assert_eq!(widens(*to, from), at + 1 < low.len());
            }
        }
        for value in [i64::MIN, -32_769, -32_768, -129, -128, -1, 0, 1, 127, 128, 32_767, 32_768, i64::MAX] {
            let wide = value.to_le_bytes();
            for (ty, fits) in [(Int8, i8::try_from(value).is_ok()), (Int16, i16::try_from(value).is_ok())] {
                let narrowed = narrow(Int64, ty, &wide);
                assert_eq!(narrowed.is_some(), fits, "{value} as {ty}");
                assert!(narrowed.is_none_or(|bytes| *widen(ty, Int64, &bytes) == wide));
            }
        }
        assert_eq!(*widen(Int8, Int32, &(-5i8).to_le_bytes()), (-5i32).to_le_bytes());
        assert_eq!(
            *narrowest(Int64, [Int8, Int16, Int32].into_iter(), &300i64.to_le_bytes()).unwrap(),
            300i16.to_le_bytes()
        );
        assert_eq!(narrowest(Int64, [Int8].into_iter(), &300i64.to_le_bytes()), None);
    }

    #[test]
    fn every_kind_of_single_is_a_double_and_keeps_its_bits() {
        let singles = [0, 1, 0x8000_0000, 0x0080_0000, 0x3f80_0001, 0x7f7f_ffff, 0x7f80_0000, 0xff80_0000, 0x7fc0_0001];
        // A NaN that signals becomes no other one.
        for bits in singles.into_iter().chain([0x7f80_0001u32, 0xffbf_ffff]) {
            let wide = widen(Float32, Float64, &bits.to_le_bytes());
            assert_eq!(*narrow(Float64, Float32, &wide).unwrap(), bits.to_le_bytes(), "{bits:08x}");
            let double = f64::from_bits(u64::from_le_bytes(*whole(&wide)));
            let single = f32::from_bits(bits);
            assert!(double == f64::from(single) || (double.is_nan() && single.is_nan()));
        }
        for double in [0.1, f64::MAX, f64::MIN_POSITIVE, f64::from_bits(EXPONENT_64 | 1)] {
            assert_eq!(narrow(Float64, Float32, &double.to_bits().to_le_bytes()), None, "{double}");
        }
    }
}
