//! Sums → the bytes of a map, or floats.

use super::super::map::Values;
use super::super::op::{Accumulate, Conv};
use crate::num;

/// Turns the sums of one channel into values: `out = scale sum + bias (+ kept out)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Requantizer {
    scale: f32,
    bias: f32,
    kept: Option<f32>,
}

impl Requantizer {
    /// The requantizer of a convolution, for sums whose 1 is `scale`.
    pub(super) fn new(op: &Conv<'_, '_>, scale: f32, bias: f32) -> Self {
        let inverse = 1.0 / op.to.values.scale();
        let kept = match (op.accumulate, op.before) {
            (Accumulate::No, _) => None,
            (Accumulate::Yes, Values::Bytes(before)) => Some(before * inverse),
            (Accumulate::Yes, Values::Floats) => Some(1.0),
        };
        Self { scale: scale * inverse, bias: bias * inverse, kept }
    }

    /// Rounds to bytes, the largest of which is 127 either way.
    pub(super) fn bytes(&self, sums: &[i32], out: &mut [i8]) {
        let value = |&sum: &i32| num::f32_of_i32(sum) * self.scale + self.bias;
        match self.kept {
            None => out.iter_mut().zip(sums).for_each(|(out, sum)| *out = byte(value(sum))),
            Some(kept) => {
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out = byte(value(sum) + kept * f32::from(*out));
                }
            }
        }
    }

    /// Floats as they are.
    pub(super) fn floats(&self, sums: &[i32], out: &mut [f32]) {
        for (out, &sum) in out.iter_mut().zip(sums) {
            let value = num::f32_of_i32(sum) * self.scale + self.bias;
            *out = self.kept.map_or(value, |kept| value + kept * *out);
        }
    }
}

/// The nearest byte from -127 to 127, ties to even; of NaN -127.
pub(super) fn byte(x: f32) -> i8 {
    if cfg!(fmq_buckets) { byte_of_bits(x) } else { byte_of_float(x) }
}

/// Rounds by float arithmetic, for chips with an FPU.
fn byte_of_float(x: f32) -> i8 {
    // Beyond 2^23 a float has no fraction: adding 1.5 of it rounds, and leaves the integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let least = if x > -127.0 { x } else { -127.0 };
    let clamped = if least < 127.0 { least } else { 127.0 };
    let [low, ..] = (clamped + ROUND).to_bits().to_le_bytes();
    low.cast_signed()
}

/// Rounds in integer code, for chips without an FPU.
fn byte_of_bits(x: f32) -> i8 {
    let bits = x.to_bits();
    let magnitude = match bits >> 23 & 0xff {
        0..126 => 0,
        exponent @ 126..134 => {
            // 1.0 is 2^23 at exponent 127.
            let (fine, mantissa) = (150 - exponent, bits & 0x7f_ffff | 0x80_0000);
            let (whole, rest, half) =
                (mantissa >> fine, mantissa & ((1 << fine) - 1), 1 << (fine - 1));
            let up = rest > half || (rest == half && whole & 1 == 1);
            (whole + u32::from(up)).min(127)
        }
        0xff if bits << 9 != 0 => return -127,
        _ => 127,
    };
    let [magnitude, ..] = magnitude.to_le_bytes();
    let magnitude = magnitude.cast_signed();
    if bits >> 31 == 1 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_rounded_to_even_and_clamped() {
        for (x, expected) in [
            (0.5, 0),
            (1.5, 2),
            (-0.5, 0),
            (-2.5, -2),
            (2.501, 3),
            (126.6, 127),
            (1e30, 127),
            (f32::NEG_INFINITY, -127),
            (f32::NAN, -127),
        ] {
            assert_eq!((byte_of_float(x), byte_of_bits(x)), (expected, expected), "{x}");
        }
        for q in -127i8..=127 {
            assert_eq!(byte(f32::from(q)), q);
        }
    }

    #[test]
    fn bytes_need_no_floats() {
        // Every exponent with many mantissas, and what lies beside every half.
        let halves = (-512i16..512).map(|i| (f32::from(i) / 2.0).to_bits());
        let beside = halves.flat_map(|bits| bits.saturating_sub(2)..bits.saturating_add(3));
        for bits in beside.chain((0..=u32::MAX).step_by(4099)) {
            let x = f32::from_bits(bits);
            assert_eq!(byte_of_bits(x), byte_of_float(x), "{x} {bits:#x}");
        }
    }
}
