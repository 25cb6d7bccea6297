//! IEEE 754 binary16, in which values of Float32 features may be kept ([`crate::storage`]).
//!
//! Rounding is to nearest, ties to even, by the method of Fabian Giesen's `float_to_half_fast3_rtne` (public domain). Replicas
//! must agree on every bit, whatever processor each runs on: all of it is integers, and sums of singles that IEEE 754 defines to
//! the last bit and that no NaN goes into. That is why it is not the `half` crate, which takes the processor's own instructions
//! where it finds some.

const EXPONENT_16: u16 = 0x1f << 10;
const FRACTION_16: u16 = (1 << 10) - 1;
const SIGN_16: u16 = 1 << 15;
/// The highest bit of a fraction: a NaN that has it raises no exception.
const QUIET_16: u16 = 1 << 9;
/// How many bits less a fraction has.
const SHIFT: u32 = 23 - 10;
/// How far the exponents of both lie apart, at its place in a single.
const BIAS: u32 = (127 - 15) << 23;

const MAGNITUDE_32: u32 = u32::MAX >> 1;
pub(crate) const INFINITY_32: u32 = 0xff << 23;
/// 2^-14, the least that is not subnormal in binary16.
const NORMAL_MIN_32: u32 = (127 - 14) << 23;
/// 2^16, which lies beyond it.
const BEYOND_32: u32 = (127 + 16) << 23;

/// The greatest value: 65,504.
pub(crate) const MAX: f32 = 65_504.0;

/// The binary16 that is nearest to the single with these bits. What rounds beyond [`MAX`] is infinite, as infinity is; a NaN stays
/// one, quiet, with its sign and the upper ten bits of its payload.
fn from_single(bits: u32) -> u16 {
    let magnitude = bits & MAGNITUDE_32;
    let rounded = if magnitude > INFINITY_32 {
        EXPONENT_16 | QUIET_16 | (magnitude >> SHIFT) as u16 & FRACTION_16
    } else if magnitude >= BEYOND_32 {
        EXPONENT_16
    } else if magnitude < NORMAL_MIN_32 {
        // The last bit of 0.5 is worth 2^-24, as that of a subnormal is: the sum is rounded to it.
        ((f32::from_bits(magnitude) + 0.5).to_bits() - 0.5_f32.to_bits()) as u16
    } else {
        let odd = magnitude >> SHIFT & 1;
        ((magnitude - BIAS + (1 << (SHIFT - 1)) - 1 + odd) >> SHIFT) as u16
    };
    (bits >> 16) as u16 & SIGN_16 | rounded
}

/// The bits of the single of the same value; of a NaN, of the same payload.
fn to_single(half: u16) -> u32 {
    let magnitude = u32::from(half & !SIGN_16) << SHIFT;
    let single = match half & EXPONENT_16 {
        // As the fraction of 2^-14, and that taken away again.
        0 => (f32::from_bits(magnitude + NORMAL_MIN_32) - f32::from_bits(NORMAL_MIN_32)).to_bits(),
        EXPONENT_16 => magnitude | INFINITY_32,
        _ => magnitude + BIAS,
    };
    u32::from(half & SIGN_16) << 16 | single
}

/// Whether a single is finite and beyond [`MAX`], by its bits.
pub(crate) fn is_beyond(bits: u32) -> bool {
    let magnitude = bits & MAGNITUDE_32;
    magnitude > MAX.to_bits() && magnitude < INFINITY_32
}

/// Narrows singles, 4 bytes each, to as many binary16, 2 bytes each.
pub(crate) fn narrow(singles: &[u8], out: &mut [u8]) {
    for (half, single) in out.as_chunks_mut::<2>().0.iter_mut().zip(singles.as_chunks::<4>().0) {
        *half = from_single(u32::from_le_bytes(*single)).to_le_bytes();
    }
}

/// Widens binary16, 2 bytes each, to as many singles, 4 bytes each.
pub(crate) fn widen(halves: &[u8], out: &mut [u8]) {
    for (single, half) in out.as_chunks_mut::<4>().0.iter_mut().zip(halves.as_chunks::<2>().0) {
        *single = to_single(u16::from_le_bytes(*half)).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(value: f32) -> u16 {
        from_single(value.to_bits())
    }

    /// The value of a finite binary16 by the words of the standard.
    fn by_the_standard(half: u16) -> f64 {
        let (exponent, fraction) = (i32::from(half >> 10 & 0x1f), f64::from(half & 0x3ff));
        let magnitude = match exponent {
            0 => fraction * 2_f64.powi(-24),
            _ => (1024.0 + fraction) * 2_f64.powi(exponent - 25),
        };
        if half & SIGN_16 == 0 { magnitude } else { -magnitude }
    }

    #[test]
    fn every_binary16_is_the_single_of_its_value_and_comes_back() {
        for half in 0..=u16::MAX {
            let single = f32::from_bits(to_single(half));
            match (half & EXPONENT_16, half & FRACTION_16) {
                (EXPONENT_16, 0) => assert!(single.is_infinite()),
                (EXPONENT_16, payload) => {
                    assert!(single.is_nan());
                    assert_eq!(single.to_bits() & 0x7f_ffff, u32::from(payload) << 13);
                }
                _ => assert_eq!(f64::from(single), by_the_standard(half)),
            }
            assert_eq!(single.is_sign_negative(), half & SIGN_16 != 0);
            let quiet = if single.is_nan() { QUIET_16 } else { 0 };
            assert_eq!(round(single), half | quiet, "{half:04x}");
        }
    }

    #[test]
    fn what_lies_between_two_of_them_goes_to_the_nearer_one_and_from_the_middle_to_the_even_one() {
        for low in 0..0x7bff_u16 {
            let (a, b) = (by_the_standard(low), by_the_standard(low + 1));
            let middle = ((a + b) / 2.0) as f32;
            assert_eq!(f64::from(middle), (a + b) / 2.0, "a single has the middle");
            let even = if low & 1 == 0 { low } else { low + 1 };
            for (value, wanted) in [(middle.next_down(), low), (middle, even), (middle.next_up(), low + 1)] {
                assert_eq!(round(value), wanted, "{value:e} between {a:e} and {b:e}");
                assert_eq!(round(-value), wanted | SIGN_16, "-{value:e}");
            }
        }
    }

    #[test]
    fn the_error_is_what_it_is_said_to_be() {
        // Every 97th pattern of the whole range: all exponents, and fractions of every kind.
        for bits in (0..=MAX.to_bits()).step_by(97) {
            let value = f64::from(f32::from_bits(bits));
            let error = (f64::from(f32::from_bits(to_single(from_single(bits)))) - value).abs();
            let allowed = if bits < NORMAL_MIN_32 { 2_f64.powi(-25) } else { value * 2_f64.powi(-11) };
            assert!(error <= allowed, "{value:e}: {error:e} is over {allowed:e}");
        }
    }

    #[test]
    fn ends_signs_and_payloads() {
        let cases = [
            (0.0, 0),
            (-0.0, SIGN_16),
            (MAX, 0x7bff),
            (MAX.next_up(), 0x7bff),
            (65_520_f32.next_down(), 0x7bff),
            (65_520.0, EXPONENT_16),
            (f32::MAX, EXPONENT_16),
            (f32::INFINITY, EXPONENT_16),
            (f32::NEG_INFINITY, EXPONENT_16 | SIGN_16),
            (2_f32.powi(-24), 1),
            (2_f32.powi(-25), 0),
            (2_f32.powi(-25).next_up(), 1),
            (-(2_f32.powi(-25)), SIGN_16),
            (f32::from_bits(1), 0),
            (2_f32.powi(-14).next_down(), 0x400),
        ];
        for (value, wanted) in cases {
            assert_eq!(round(value), wanted, "{value:e}");
        }
        for (bits, wanted) in
            [(0x7f80_0001, 0x7e00), (0x7fc0_1fff, 0x7e00), (0x7fff_ffff, 0x7fff), (0xff80_2000, 0xfe01)]
        {
            assert_eq!(from_single(bits), wanted, "{bits:08x}");
        }
        for (value, beyond) in [(MAX, false), (MAX.next_up(), true), (-f32::MAX, true), (f32::INFINITY, false)] {
            assert_eq!(is_beyond(value.to_bits()), beyond, "{value:e}");
        }
        assert!(!is_beyond(f32::NAN.to_bits()));
    }
}
