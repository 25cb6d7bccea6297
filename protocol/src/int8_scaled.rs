//! Vectors of Float32 as one scale and an Int8 for each item, in which embeddings may be kept ([`crate::storage`]).
//!
//! ```text
//! 0  f32 scale, a normal number
//! 4  i8[n] items, -127 to 127; each stands for scale * item
//! ```
//!
//! The scale is max|x| / 127, rounded up to 17 significant bits, and 2^-126 at the least. Since an item has 7 bits, the product
//! of both has 24 at the most, and is a Float32 exactly. Three things follow. An item is off by the rounding to a whole number of
//! scales alone, half a scale at the most. What was read can be written again and is kept as the same bytes. And neither
//! subnormal numbers nor the rounding of a product are left to a processor.

/// The greatest magnitude: 127 times the greatest scale whose product with 127 is finite; about 3.4028e38.
pub(crate) const MAX: f32 = f32::from_bits(0x7f7f_fff8);

/// Bytes of the scale.
pub(crate) const SCALE_BYTES: usize = 4;

const ITEM_MAX: f64 = 127.0;
/// Bits that a double has behind the 17 that a scale has.
const ROUNDED_BITS: u32 = 52 - 16;
/// Added to a double of magnitude below 2^51, it leaves in the last bits the nearest whole number, ties to even.
const TO_WHOLE: f64 = 1.5 * (1_u64 << 52) as f64;

/// The scale of vectors whose greatest magnitude is this, up to [`MAX`].
fn scale_of(magnitude: f32) -> f32 {
    let least = (f64::from(magnitude) / ITEM_MAX).to_bits();
    let rounded_up = least.next_multiple_of(1 << ROUNDED_BITS);
    (f64::from_bits(rounded_up) as f32).max(f32::MIN_POSITIVE)
}

/// The place of the first single that is not finite or is beyond [`MAX`].
pub(crate) fn unfit(singles: &[u8]) -> Option<usize> {
    // NaN and infinities have greater bits than any number.
    let is_unfit = |single: &[u8; 4]| u32::from_le_bytes(*single) & (u32::MAX >> 1) > MAX.to_bits();
    singles.as_chunks::<4>().0.iter().position(is_unfit)
}

/// Narrows singles, 4 bytes each, none of which is [`unfit`], to a scale and as many items.
pub(crate) fn narrow(singles: &[u8], out: &mut [u8]) {
    let singles = singles.as_chunks::<4>().0;
    let magnitude = singles.iter().map(|single| u32::from_le_bytes(*single) & (u32::MAX >> 1)).max().unwrap_or(0);
    let scale = scale_of(f32::from_bits(magnitude));
    let (to, items) = out.split_at_mut(SCALE_BYTES);
    to.copy_from_slice(&scale.to_le_bytes());
    for (item, single) in items.iter_mut().zip(singles) {
        *item = (f64::from(f32::from_le_bytes(*single)) / f64::from(scale) + TO_WHOLE).to_bits() as u8;
    }
}

/// The scale of what was narrowed.
pub(crate) fn scale(stored: [u8; SCALE_BYTES]) -> f32 {
    f32::from_le_bytes(stored)
}

/// Widens items to as many singles, 4 bytes each.
pub(crate) fn widen(scale: f32, items: &[u8], out: &mut [u8]) {
    for (single, item) in out.as_chunks_mut::<4>().0.iter_mut().zip(items) {
        *single = (scale * f32::from(*item as i8)).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn narrowed(values: &[f32]) -> Vec<u8> {
        let mut out = vec![0xaa; SCALE_BYTES + values.len()];
        narrow(&bytes(values), &mut out);
        out
    }

    fn read(stored: &[u8]) -> (f32, Vec<f32>) {
        let (scale, items) = (super::scale(*stored.first_chunk().unwrap()), &stored[SCALE_BYTES..]);
        let mut out = vec![0; items.len() * 4];
        widen(scale, items, &mut out);
        (scale, out.as_chunks::<4>().0.iter().map(|single| f32::from_le_bytes(*single)).collect())
    }

    fn check(values: &[f32]) {
        let stored = narrowed(values);
        let (scale, back) = read(&stored);
        let most = values.iter().map(|value| f64::from(value.abs())).fold(0.0, f64::max);
        let least = most / 127.0;
        assert!(scale.is_normal() && f64::from(scale) >= least, "{scale:e} of {most:e}");
        let allowed = (least * (1.0 + 2_f64.powi(-16))).max(f64::from(f32::MIN_POSITIVE));
        assert!(f64::from(scale) <= allowed, "{scale:e} of {most:e}");
        for ((value, read), item) in values.iter().zip(&back).zip(&stored[SCALE_BYTES..]) {
            assert_eq!(f64::from(*read), f64::from(scale) * f64::from(*item as i8), "the product is exact");
            let error = (f64::from(*value) - f64::from(*read)).abs();
            assert!(error <= f64::from(scale) / 2.0, "{value:e} became {read:e} by {scale:e}");
        }
        assert_eq!(narrowed(&back), stored, "what was read and is written again: {values:?}");
    }

    #[test]
    fn ends_zeros_ties_and_tiny_vectors() {
        let tiny = f32::from_bits(1);
        let least = f32::MIN_POSITIVE;
        for values in [
            &[0.0, -0.0, 0.0][..],
            &[1.0, -1.0, 0.5],
            &[MAX, -MAX, 1.0],
            &[tiny, -tiny, 0.0],
            &[least, least / 2.0, least * 126.9],
            &[least * 127.0, least * 63.5, -least],
            &[least * 128.0, 1e-40, -least],
            &[3.4e38, 1e-38, -3.3e38],
        ] {
            check(values);
        }
        assert_eq!(narrowed(&[0.0, -0.0]), [&least.to_le_bytes()[..], &[0, 0]].concat(), "a zero has no sign");
        // With a scale of 1, ties go to the even one.
        let (scale, back) = read(&narrowed(&[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5]));
        assert_eq!((scale, &back[..]), (1.0, &[127.0, 0.0, 2.0, 2.0, 0.0, -2.0, -2.0, 126.0][..]));
    }

    #[test]
    fn what_has_no_scale_is_told_by_its_place() {
        assert_eq!(unfit(&bytes(&[MAX, -MAX, 0.0, -0.0, f32::from_bits(1)])), None);
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, MAX.next_up(), -f32::MAX] {
            assert_eq!(unfit(&bytes(&[1.0, 2.0, bad, bad])), Some(2), "{bad:e}");
        }
        assert_eq!(f64::from(scale_of(MAX)) * 127.0, f64::from(MAX));
        assert!(
            f64::from(scale_of(MAX.next_up())) * 127.0 > f64::from(f32::MAX),
            "no greater one has a finite product"
        );
    }

    proptest! {
        #[test]
        fn every_item_is_within_half_a_scale_and_what_was_read_is_kept_as_the_same_bytes(
            patterns in prop::collection::vec(any::<u32>(), 2..40),
            near in any::<Option<u8>>(),
        ) {
            // Patterns of any magnitude, or of few magnitudes near each other.
            let exponent = |bits: u32| near.map_or(bits, |near| {
                bits & !(0xff << 23) | (u32::from(near).saturating_sub(bits & 7)) << 23
            });
            let values: Vec<f32> = patterns.into_iter().map(|bits| f32::from_bits(exponent(bits))).collect();
            let values: Vec<f32> = values.into_iter().map(|value| if value.abs() <= MAX { value } else { 1.0 }).collect();
            check(&values);
        }
    }
}
