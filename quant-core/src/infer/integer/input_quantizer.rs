//! Bytes of a map → what a convolution multiplies: norm and `SiLU` in fixed point.
//!
//! `SiLU(y) = max(y, 0) - h(|y|)` with `h(a) = a / (1 + e^a)`, which is small, smooth and nothing from
//! 16 on: a table with a value at every sixteenth, and straight lines between them, which are off by
//! 2.7e-4 at most.

use super::super::map::{LayerInput, Values};
use super::super::op::Prologue;
use crate::kernels::pairs;
use crate::num;

/// Fixed-point 1: numbers have 16 bits after the point.
const ONE: f32 = 65536.0;
/// Bits of a number after its sixteenths.
const FINE: u32 = 12;
/// `h` at every sixteenth from 0 to 16.
static CURVE: [i16; 257] = curve();

/// `e^(1/16)`.
const STEP: f64 = 1.064_494_458_917_859_4;

#[expect(clippy::cast_possible_truncation, reason = "`h` is at most 0.28, 18250 in fixed point")]
#[expect(clippy::cast_precision_loss, reason = "256 is exact")]
const fn curve() -> [i16; 257] {
    let mut curve = [0; 257];
    let (mut i, mut power) = (0, 1.0);
    while i < curve.len() {
        curve[i] = (65536.0 * (i as f64 / 16.0) / (1.0 + power) + 0.5) as i16;
        power *= STEP;
        i += 1;
    }
    curve
}

/// `SiLU` of a fixed-point number.
fn silu(y: i32) -> i32 {
    let magnitude = y.unsigned_abs();
    let at = num::index(magnitude >> FINE);
    let (Some(&from), Some(&to)) = (CURVE.get(at), CURVE.get(at + 1)) else { return y.max(0) };
    let (from, to) = (i32::from(from), i32::from(to));
    let part = (magnitude & ((1 << FINE) - 1)).cast_signed();
    y.max(0) - (from + (((to - from) * part) >> FINE))
}

/// A norm of a channel in fixed point: `y = gain q + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FixedPointAffine {
    gain: i32,
    offset: i32,
}

impl FixedPointAffine {
    /// Gain and offset for bytes of a scale, kept so small that nothing overflows.
    pub(super) fn new([gain, offset]: [f32; 2], scale: f32) -> Self {
        let near = |x: f32, most: f32| num::i32_of(num::round_even(x.min(most).max(-most)));
        Self { gain: near(gain * scale * ONE, 4_194_304.0), offset: near(offset * ONE, 1e9) }
    }

    pub(super) fn of(self, q: i8) -> i32 {
        self.gain * i32::from(q) + self.offset
    }
}

/// Turns bytes into the integers that a layer multiplies.
#[derive(Clone, Copy, Debug)]
pub(super) struct InputQuantizer<'a> {
    prologue: Prologue,
    affine: &'a [[f32; 2]],
    /// Real value of fixed-point 1.
    base: f32,
    /// The largest magnitude in fixed point.
    peak: i32,
    shift: u32,
}

impl<'a> InputQuantizer<'a> {
    /// The input quantizer of a source.
    ///
    /// # Shapes
    /// `affine`: gain and offset of each channel; `peak`: the largest magnitude after the norm in fixed
    /// point; `limit`: the largest magnitude that may come out.
    pub(super) fn new(
        source: &LayerInput,
        prologue: Prologue,
        affine: &'a [f32],
        peak: i32,
        limit: i32,
    ) -> Self {
        let affine = affine.as_chunks().0;
        let scales =
            [source.first.values, source.second.unwrap_or(source.first).values].map(Values::scale);
        // The bytes of two maps meet in the larger scale.
        let plain = prologue == Prologue::Plain;
        let (base, peak) = if plain { (scales[0].max(scales[1]), 127 << 16) } else { (1.0, peak) };
        let mut shift = 0;
        while (peak >> shift) >= limit && shift < 31 {
            shift += 1;
        }
        Self { prologue, affine, base, peak, shift }
    }

    /// Real value of the integer 1 that comes out.
    pub(super) fn scale(&self) -> f32 {
        num::f32_of_u32(1 << self.shift) / ONE * self.base
    }

    /// The largest magnitude of the integers that come out.
    pub(super) const fn most(&self) -> i32 {
        (self.peak >> self.shift) + 1
    }

    /// Norm and scale of a channel's bytes, in fixed point.
    pub(super) fn affine(&self, channel: usize, values: Values) -> FixedPointAffine {
        let affine = match self.prologue {
            Prologue::Plain => [1.0 / self.base, 0.0],
            _ => self.affine.get(channel).copied().unwrap_or_default(),
        };
        FixedPointAffine::new(affine, values.scale())
    }

    /// A value of a channel in fixed point, before it is shifted.
    pub(super) fn exact(&self, affine: FixedPointAffine, q: i8) -> i32 {
        let y = affine.of(q);
        if self.prologue == Prologue::NormSilu { silu(y) } else { y }
    }

    /// Puts a row of bytes into the low or the high halves of words, which hold zeros.
    ///
    /// # Shapes
    /// `out`: `[w]`; `row`: `[w]`, or `[w / 2]` of which each byte is read twice.
    pub(super) fn row(
        &self,
        affine: FixedPointAffine,
        high: bool,
        row: (&[i8], bool),
        out: &mut [i32],
    ) {
        // Four loops without a question.
        match (self.prologue == Prologue::NormSilu, high) {
            (false, false) => self.put::<false, false>(affine, row, out),
            (false, true) => self.put::<false, true>(affine, row, out),
            (true, false) => self.put::<true, false>(affine, row, out),
            (true, true) => self.put::<true, true>(affine, row, out),
        }
    }

    #[inline]
    fn put<const SILU: bool, const HIGH: bool>(
        &self,
        affine: FixedPointAffine,
        (row, twice): (&[i8], bool),
        out: &mut [i32],
    ) {
        let shift = self.shift;
        let half = (1 << shift) >> 1;
        let value = |q: i8| {
            let y = affine.of(q);
            let x = (if SILU { silu(y) } else { y } + half) >> shift;
            if HIGH { x << 16 } else { pairs::low(x) }
        };
        if twice {
            for (pair, &q) in out.chunks_mut(2).zip(row) {
                let x = value(q);
                for out in pair {
                    *out = out.wrapping_add(x);
                }
            }
        } else {
            out.iter_mut().zip(row).for_each(|(out, &q)| *out = out.wrapping_add(value(q)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::silu as float_silu;

    #[test]
    fn silu_is_as_close_as_said() {
        let mut worst = 0f32;
        for y in (-1_500_000..1_500_000).step_by(7) {
            let exact = float_silu(num::f32_of_i32(y) / ONE);
            worst = worst.max((num::f32_of_i32(silu(y)) / ONE - exact).abs());
        }
        assert!(worst < 2.7e-4, "{worst}");
        assert_eq!(silu(i32::MAX), i32::MAX);
        assert_eq!(silu(i32::MIN), 0);
    }

    #[test]
    fn lines_do_not_overflow() {
        for x in [f32::MAX, f32::MIN, f32::INFINITY, f32::NAN, 1e-40, 1.0] {
            for q in [-128, -1, 0, 127] {
                let y = FixedPointAffine::new([x, -x], 1.0).of(q);
                assert!(y.unsigned_abs() < 1 << 31);
            }
        }
        assert_eq!(FixedPointAffine::new([0.5, 2.0], 0.25).of(8), 3 << 16);
    }
}
