//! A row of codes → the integers that its codebook's levels are closest to, two channels in a word.

use super::super::map::part_mut;
use crate::error::{Error, Result};
use crate::format::Tensor;
use crate::kernels::{self, pairs};
use crate::num;

/// The levels of one codebook as integers: `level = step · integer`, off by half a step at most.
#[derive(Debug)]
pub(super) struct Levels {
    table: [i16; 256],
    step: f32,
    /// The codebook that they are of.
    codebook: Option<usize>,
    /// The largest magnitude of an integer.
    limit: i32,
}

/// Words that hold the pairs of a row, and those of what it is decoded by.
pub(super) const fn row_words(weight: &Tensor<'_>, side: usize) -> (usize, usize) {
    let len = weight.row_len();
    let taps = side * side;
    let channels = match len.checked_div(taps) {
        Some(channels) => channels,
        None => 0,
    };
    let coded = matches!(weight.encoding(), crate::format::Encoding::Coded(_));
    (channels.div_ceil(2).saturating_mul(taps), if coded { len.div_ceil(4) } else { len })
}

impl Levels {
    pub(super) const fn new(limit: i32) -> Self {
        Self { table: [0; 256], step: 0.0, codebook: None, limit }
    }

    /// Writes a row as pairs of channels, as [`pairs::join`] says, and returns the step of its integers.
    ///
    /// # Shapes
    /// `weight`: rows of `[channels, side, side]`; `memory`: as many floats as [`row_words`] says together;
    /// the first of them become words.
    ///
    /// # Errors
    /// Those of [`Tensor::decode_row`].
    pub(super) fn row(
        &mut self,
        weight: &Tensor<'_>,
        row: usize,
        side: usize,
        memory: &mut [f32],
    ) -> Result<f32> {
        let (pairs, rest) = row_words(weight, side);
        let (out, rest_memory) = memory.split_at_mut_checked(pairs).unwrap_or_default();
        let rest = part_mut(rest_memory, 0, rest);
        let out = super::words(out);
        let Some(coded) = weight.coded() else {
            return self.dense(weight, row, side, rest, out);
        };
        let len = weight.row_len();
        let bits = coded.coding().bits;
        let (Some(codes), Some(codebook)) = (coded.packed_row(row), coded.codebook(row)) else {
            return Err(Error::Encoding { needed: "codes" });
        };
        let which = row.checked_div(num::index(coded.coding().rows_per_codebook));
        if self.codebook != which {
            let mut most = 0f32;
            for code in 0..=u8::MAX >> (8 - bits.clamp(1, 8)) {
                most = most.max(num::abs_f32(codebook.value(code)));
            }
            let scale = self.start(most);
            for (code, level) in (0..=u8::MAX >> (8 - bits.clamp(1, 8))).zip(&mut self.table) {
                *level = num::i16_of(num::round_even(codebook.value(code) * scale));
            }
            self.codebook = which;
        }
        let unpacked: &mut [u8] = bytemuck::try_cast_slice_mut(rest).unwrap_or_default();
        let unpacked = part_mut(unpacked, 0, len);
        kernels::unpack(codes, bits, unpacked);
        let level = |code| self.table[usize::from(code)];
        if side == 3 && len.is_multiple_of(18) {
            pairs::join_nine(unpacked, level, out);
        } else {
            pairs::join(unpacked, (side, side), level, out);
        }
        Ok(coded.scale(row).map_or(self.step, |scale| self.step * scale))
    }

    /// The same for weights that are not coded.
    fn dense(
        &mut self,
        weight: &Tensor<'_>,
        row: usize,
        side: usize,
        values: &mut [f32],
        out: &mut [i32],
    ) -> Result<f32> {
        weight.decode_row(row, values)?;
        let most = values.iter().fold(0f32, |most, &x| most.max(num::abs_f32(x)));
        let scale = self.start(most);
        pairs::join(values, (side, side), |x| num::i16_of(num::round_even(x * scale)), out);
        Ok(self.step)
    }

    /// Sets the step for a largest magnitude; returns the integers in one.
    fn start(&mut self, most: f32) -> f32 {
        let limit = num::f32_of_i32(self.limit);
        let scale = limit / most;
        // Nothing but zeros, or next to nothing: a finite scale keeps integers right.
        let scale = if scale.is_finite() { scale } else { 0.0 };
        self.step = most / limit;
        scale
    }
}
