//! A row of codes → the integers that its codebook's levels are closest to, as the kernels want them: two
//! channels in a word, or sorted by their codes.

use super::super::map::part_mut;
use super::arena::words;
use crate::error::{Error, Result};
use crate::format::Tensor;
use crate::kernels::buckets::{self, Buckets, InputLayout};
use crate::kernels::{self, pairs};
use crate::num;

/// The levels of one codebook as integers: `level = scale · integer`, off by half a scale at most.
#[derive(Debug)]
pub(super) struct IntegerLevels {
    table: [i16; 256],
    scale: f32,
    /// The codebook that they are of.
    codebook: Option<usize>,
    /// The largest magnitude of an integer.
    limit: i32,
    /// The largest magnitude of the integers that they are multiplied with.
    most: i32,
}

/// A row of weights, ready to be multiplied with.
#[derive(Debug)]
pub(super) struct WeightRow<'a> {
    multipliers: Multipliers<'a>,
    /// Real value of its integer 1.
    pub(super) scale: f32,
}

#[derive(Debug)]
enum Multipliers<'a> {
    /// Pairs of multipliers in words, as [`pairs::join`] writes them.
    Words(&'a [i32]),
    Buckets(Buckets<'a>),
}

impl WeightRow<'_> {
    /// Writes a row of sums of 3 x 3 products, as [`pairs::correlate`].
    pub(super) fn correlate(
        &self,
        sums: &mut [i32],
        input: &[i32],
        (width, stride): (usize, usize),
    ) {
        match &self.multipliers {
            Multipliers::Words(words) => {
                pairs::correlate(sums, input, (width, stride), words.as_chunks().0);
            }
            Multipliers::Buckets(buckets) if cfg!(fmq_buckets) => {
                buckets.correlate(sums, input, stride);
            }
            Multipliers::Buckets(_) => {}
        }
    }

    /// Writes sums of products, one for each pixel, as [`pairs::mix`].
    pub(super) fn mix(&self, sums: &mut [i32], input: &[i32], plane: usize) {
        match &self.multipliers {
            Multipliers::Words(words) => pairs::mix(sums, input, plane, words),
            Multipliers::Buckets(buckets) if cfg!(fmq_buckets) => buckets.correlate(sums, input, 1),
            Multipliers::Buckets(_) => {}
        }
    }
}

/// Words that hold the pairs of a row, and those of what it is decoded by.
pub(super) const fn row_words(weight: &Tensor<'_>, side: usize) -> (usize, usize) {
    let len = weight.row_len();
    let taps = side * side;
    let channels = match len.checked_div(taps) {
        Some(channels) => channels,
        None => 0,
    };
    let coded = matches!(weight.encoding(), crate::format::Encoding::Quantized(_));
    (channels.div_ceil(2).saturating_mul(taps), if coded { len.div_ceil(4) } else { len })
}

impl IntegerLevels {
    /// Levels up to `limit`, for input up to `most`.
    pub(super) const fn new(limit: i32, most: i32) -> Self {
        Self { table: [0; 256], scale: 0.0, codebook: None, limit, most }
    }

    /// Makes a row ready to be multiplied with words that lie as `layout` says.
    ///
    /// # Shapes
    /// `weight`: rows of `[channels, side, side]`; `memory`: as many floats as [`row_words`] says together.
    ///
    /// # Errors
    /// Those of [`Tensor::decode_row`].
    pub(super) fn row<'a>(
        &'a mut self,
        weight: &Tensor<'_>,
        row: usize,
        layout: InputLayout,
        memory: &'a mut [f32],
    ) -> Result<WeightRow<'a>> {
        let side = layout.side;
        let (pairs, rest) = row_words(weight, side);
        let (out, rest_memory) = memory.split_at_mut_checked(pairs).unwrap_or_default();
        let rest = part_mut(rest_memory, 0, rest);
        let out = words(out);
        let Some(coded) = weight.quantized() else {
            self.dense(weight, row, side, rest, out)?;
            return Ok(WeightRow { multipliers: Multipliers::Words(out), scale: self.scale });
        };
        let len = weight.row_len();
        let bits = coded.layout().bits;
        let (Some(codes), Some(codebook)) = (coded.packed_row(row), coded.codebook(row)) else {
            return Err(Error::Encoding { needed: "codes" });
        };
        let which = row.checked_div(num::index(coded.layout().rows_per_codebook));
        if self.codebook != which {
            let mut most = 0f32;
            for code in 0..=bits.max_code() {
                most = most.max(num::abs_f32(codebook.value(code)));
            }
            let inverse = self.start(most);
            for (code, level) in (0..=bits.max_code()).zip(&mut self.table) {
                *level = num::i16_of(num::round_even(codebook.value(code) * inverse));
            }
            self.codebook = which;
        }
        let unpacked: &mut [u8] = bytemuck::try_cast_slice_mut(rest).unwrap_or_default();
        let unpacked = part_mut(unpacked, 0, len);
        kernels::unpack(codes, bits, unpacked);
        let scale = coded.scale(row).map_or(self.scale, |scale| self.scale * scale);
        let table = &self.table;
        if buckets::pay(bits.get(), layout, len) {
            let offsets = bytemuck::try_cast_slice_mut(out).unwrap_or_default();
            let buckets = Buckets::sort((unpacked, bits.get()), table, self.most, layout, offsets);
            return Ok(WeightRow { multipliers: Multipliers::Buckets(buckets), scale });
        }
        let level = |code| table[usize::from(code)];
        match side {
            3 if len.is_multiple_of(18) => pairs::join_nine(unpacked, level, out),
            1 if len.is_multiple_of(2) => pairs::join_one(unpacked, level, out),
            _ => pairs::join(unpacked, (side, side), level, out),
        }
        Ok(WeightRow { multipliers: Multipliers::Words(out), scale })
    }

    /// Makes a row of weights that are not coded ready.
    fn dense(
        &mut self,
        weight: &Tensor<'_>,
        row: usize,
        side: usize,
        values: &mut [f32],
        out: &mut [i32],
    ) -> Result<()> {
        weight.decode_row(row, values)?;
        let most = values.iter().fold(0f32, |most, &x| most.max(num::abs_f32(x)));
        let inverse = self.start(most);
        pairs::join(values, (side, side), |x| num::i16_of(num::round_even(x * inverse)), out);
        Ok(())
    }

    /// Sets the scale for a largest magnitude; returns the integers in 1.
    fn start(&mut self, most: f32) -> f32 {
        let limit = num::f32_of_i32(self.limit);
        let inverse = limit / most;
        // Nothing but zeros, or next to nothing: a finite number keeps integers right.
        let inverse = if inverse.is_finite() { inverse } else { 0.0 };
        self.scale = most / limit;
        inverse
    }
}
