//! Convolutions of bytes: bands of rows, whose channels are gathered all together.
//!
//! A band is as high as its gathered words allow. For each output channel the row of weights is decoded
//! and multiplied with all pixels of the band, so a sum is complete before it is rounded to a byte.

use super::super::executor::{Accumulate, Executor, Params, Prologue, grow};
use super::super::map::{Map, Source, Values, part, part_mut};
use super::super::workspace::Workspace;
use super::input_quantizer::InputQuantizer;
use super::levels::{Levels, row_words};
use super::requantizer::Requantizer;
use super::{bytes, limit, words};
use crate::error::Result;
use crate::kernels::buckets::Layout;
use crate::kernels::pairs;
use crate::num;

/// Words of a gathered band that a layer aims at: 12 KiB.
const BAND: usize = 3072;

/// Rows that are gathered together.
#[derive(Clone, Copy, Debug)]
struct Band {
    /// The first row, which may be the margin above a map.
    first: isize,
    rows: usize,
    /// Columns of zeros on each side.
    margin: usize,
    /// Whether rows contain channels, or channels rows.
    rows_first: bool,
}

impl Executor<'_, '_> {
    /// A convolution of 3 x 3, as [`Executor::conv`].
    pub(in super::super) fn integer_conv(
        &mut self,
        params: &Params<'_>,
        source: Source,
        prologue: Prologue,
        to: Map,
        accumulate: Accumulate,
    ) -> Result<Map> {
        let channels = source.channels();
        let stride = if to.height == source.height() { 1 } else { 2 };
        let width = source.width() + 2;
        let across = channels.div_ceil(2).saturating_mul(width).max(1);
        // Output rows of a band read `stride rows + 3 - stride` rows.
        let most = (BAND / across).saturating_sub(3 - stride) / stride;
        let bands = to.height.div_ceil(most.min(to.height).max(1));
        let rows = to.height.div_ceil(bands.max(1)).max(1);
        let gathered = (stride * rows + 3 - stride).saturating_mul(across);
        let (pairs, decoded) = row_words(&params.weight, 3);
        grow(&mut self.sizes.gathered, gathered);
        grow(&mut self.sizes.row, pairs.saturating_add(decoded).saturating_add(to.width));
        let (before, to) = (to.values, self.next_bytes(to));
        if self.measured(&[to.len(), channels, 9]) {
            return Ok(to);
        }
        let limit = limit(params.weight.row_len());
        let Workspace { maps, gathered, row, vector, affine, floats, .. } = &mut self.memory;
        let (maps, gathered) = (bytes(maps), words(gathered));
        let (row, sums) = row.split_at_mut_checked(pairs + decoded).unwrap_or_default();
        let sums = part_mut(words(sums), 0, to.width);
        let bias = part_mut(vector, 0, to.channels);
        params.bias.decode_row(0, bias)?;
        let inputs = Inputs::new(&source, prologue, affine, self.peak, limit, floats);
        let mut levels = Levels::new(limit, inputs.most);
        let layout = Layout { side: 3, next_line: across, next_pair: width };
        for start in (0..to.height).step_by(rows) {
            let count = rows.min(to.height - start);
            let first = (start * stride).cast_signed() - 1;
            let band =
                Band { first, rows: stride * count + 3 - stride, margin: 1, rows_first: true };
            inputs.gather(&source, maps, floats, band, gathered);
            for (o, &bias) in bias.iter().enumerate() {
                let row = levels.row(&params.weight, o, layout, row)?;
                let requantizer =
                    Requantizer::new(to, before, accumulate, row.step * inputs.unit, bias);
                for y in 0..count {
                    let at = gathered.get(y * stride * across..).unwrap_or_default();
                    row.correlate(sums, at, (width, stride));
                    put_row(requantizer, to, (o, start + y, 1), sums, maps, floats);
                }
            }
        }
        Ok(to)
    }

    /// A convolution of 1 x 1, as [`Executor::pointwise`]: `to` may lie where one of the maps that it reads
    /// lies.
    pub(in super::super) fn integer_pointwise(
        &mut self,
        params: &Params<'_>,
        source: Source,
        prologue: Prologue,
        to: Map,
        accumulate: Accumulate,
    ) -> Result<Map> {
        let (channels, height, width) = (source.channels(), source.height(), source.width());
        let across = channels.div_ceil(2).saturating_mul(width).max(1);
        let rows = (BAND / across).min(height).max(1);
        let (pairs, decoded) = row_words(&params.weight, 1);
        let len = rows.saturating_mul(width);
        grow(&mut self.sizes.gathered, across.saturating_mul(rows));
        grow(&mut self.sizes.row, pairs.saturating_add(decoded).saturating_add(len));
        let (before, to) = (to.values, self.next_bytes(to));
        if self.measured(&[to.len(), channels]) {
            return Ok(to);
        }
        let limit = limit(params.weight.row_len());
        let Workspace { maps, gathered, row, vector, affine, floats, .. } = &mut self.memory;
        let (maps, gathered) = (bytes(maps), words(gathered));
        let (row, sums) = row.split_at_mut_checked(pairs + decoded).unwrap_or_default();
        let sums = words(sums);
        let bias = part_mut(vector, 0, to.channels);
        params.bias.decode_row(0, bias)?;
        let inputs = Inputs::new(&source, prologue, affine, self.peak, limit, floats);
        let mut levels = Levels::new(limit, inputs.most);
        for start in (0..height).step_by(rows) {
            let count = rows.min(height - start);
            let band =
                Band { first: start.cast_signed(), rows: count, margin: 0, rows_first: false };
            inputs.gather(&source, maps, floats, band, gathered);
            let sums = part_mut(sums, 0, count * width);
            let layout = Layout { side: 1, next_line: 0, next_pair: count * width };
            for (o, &bias) in bias.iter().enumerate() {
                let row = levels.row(&params.weight, o, layout, row)?;
                let requantizer =
                    Requantizer::new(to, before, accumulate, row.step * inputs.unit, bias);
                row.mix(sums, gathered, count * width);
                put_row(requantizer, to, (o, start, count), sums, maps, floats);
            }
        }
        Ok(to)
    }
}

/// Puts the sums of rows of a channel in their place.
fn put_row(
    requantizer: Requantizer,
    to: Map,
    (channel, y, rows): (usize, usize, usize),
    sums: &[i32],
    maps: &mut [i8],
    floats: &mut [f32],
) {
    let (at, len) = (y * to.width, rows * to.width);
    match to.values {
        Values::Bytes(_) => requantizer.bytes(sums, part_mut(to.plane_mut(maps, channel), at, len)),
        Values::Floats => {
            requantizer.floats(sums, part_mut(to.plane_mut(floats, channel), at, len))
        }
    }
}

/// How the values of a source become integers.
struct Inputs<'a> {
    quantizer: InputQuantizer<'a>,
    /// What one of the integers means.
    unit: f32,
    /// Integers in one, of floats.
    rate: f32,
    /// The largest magnitude of the integers.
    most: i32,
}

impl<'a> Inputs<'a> {
    fn new(
        source: &Source,
        prologue: Prologue,
        affine: &'a [f32],
        peak: i32,
        limit: i32,
        floats: &[f32],
    ) -> Self {
        let quantizer = InputQuantizer::new(source, prologue, affine, peak, limit);
        match source.first.values {
            Values::Bytes(_) => {
                Self { unit: quantizer.unit(), most: quantizer.most(), quantizer, rate: 0.0 }
            }
            Values::Floats => {
                let values = part(floats, 0, source.first.len()).iter();
                let most = values.fold(f32::MIN_POSITIVE, |most, &x| most.max(num::abs_f32(x)));
                let one = num::f32_of_i32(limit - 1);
                Self { quantizer, unit: most / one, rate: one / most, most: limit }
            }
        }
    }

    /// Writes a band of all channels, two in a word, with margins of zeros.
    fn gather(&self, source: &Source, maps: &[i8], floats: &[f32], band: Band, out: &mut [i32]) {
        let (width, height) = (source.width(), source.height());
        let across = width + 2 * band.margin;
        let pairs = source.channels().div_ceil(2);
        let (next_row, next_pair) =
            if band.rows_first { (pairs * across, across) } else { (across, band.rows * across) };
        part_mut(out, 0, pairs * band.rows * across).fill(0);
        for channel in 0..source.channels() {
            let values = source.values(channel);
            let line = self.quantizer.line(channel, values);
            let (plane, high) = (source.plane(maps, channel), channel % 2 == 1);
            let twice = source.repeats(channel) > 1;
            for row in 0..band.rows {
                let y = usize::try_from(band.first + row.cast_signed()).unwrap_or(usize::MAX);
                if y >= height {
                    continue;
                }
                let at = row * next_row + channel / 2 * next_pair + band.margin;
                let out = part_mut(out, at, width);
                if values == Values::Floats {
                    let row = part(source.plane(floats, channel), y * width, width);
                    self.floats(row, high, out);
                } else {
                    let (y, len) = if twice { (y / 2, width / 2) } else { (y, width) };
                    self.quantizer.row(line, high, (part(plane, y * len, len), twice), out);
                }
            }
        }
    }

    /// Puts a row of floats into the low or the high halves of words, which hold zeros.
    fn floats(&self, row: &[f32], high: bool, out: &mut [i32]) {
        for (out, &x) in out.iter_mut().zip(row) {
            let x = num::i32_of(num::round_even(x * self.rate));
            *out = out.wrapping_add(if high { x << 16 } else { pairs::low(x) });
        }
    }
}
