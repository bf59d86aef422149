//! Sums → the bytes of a map, or floats.

use super::super::machine::Put;
use super::super::map::{Map, Values};
use crate::num;

/// What becomes of the sums of one channel: `out = factor sum + bias (+ kept out)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Outcome {
    factor: f32,
    bias: f32,
    kept: Option<f32>,
}

impl Outcome {
    /// The outcome in a map whose values were `before`, of sums in a unit.
    pub(super) fn new(to: Map, before: Values, put: Put, unit: f32, bias: f32) -> Self {
        let rate = match to.values {
            Values::Bytes(scale) => 1.0 / scale,
            Values::Floats => 1.0,
        };
        let kept = match (put, before) {
            (Put::Set, _) => None,
            (Put::Add, Values::Bytes(scale)) => Some(scale * rate),
            (Put::Add, Values::Floats) => Some(1.0),
        };
        Self { factor: unit * rate, bias: bias * rate, kept }
    }

    /// Rounds to bytes, the largest of which is 127 either way.
    pub(super) fn bytes(&self, sums: &[i32], out: &mut [i8]) {
        let value = |&sum: &i32| num::f32_of_i32(sum) * self.factor + self.bias;
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
            let value = num::f32_of_i32(sum) * self.factor + self.bias;
            *out = self.kept.map_or(value, |kept| value + kept * *out);
        }
    }
}

/// The nearest byte, ties to even.
pub(super) fn byte(x: f32) -> i8 {
    // Beyond 2^23 a float has no fraction: adding 1.5 of it rounds, and leaves the integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let [low, ..] = (x.clamp(-127.0, 127.0) + ROUND).to_bits().to_le_bytes();
    low.cast_signed()
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
            (f32::NAN, 0),
        ] {
            assert_eq!(byte(x), expected, "{x}");
        }
        for q in -127i8..=127 {
            assert_eq!(byte(f32::from(q)), q);
        }
    }
}
