//! Convolutions of bytes: bands of rows, whose channels are gathered all together.
//!
//! A band is as high as its gathered words allow. For each output channel the row of weights is decoded
//! and multiplied with all pixels of the band, so a sum is complete before it is rounded to a byte.

use super::super::map::{LayerInput, Map, Values, part, part_mut};
use super::super::op::{Conv, ConvKernel, Prologue};
use super::super::workspace::{Sizes, Workspace, first};
use super::arena::{bytes, limit, words};
use super::input_quantizer::InputQuantizer;
use super::levels::{IntegerLevels, row_words};
use super::requantizer::Requantizer;
use crate::error::Result;
use crate::kernels::buckets::InputLayout;
use crate::kernels::pairs;
use crate::num;

/// Words of a gathered band that a layer aims at: 12 KiB.
const BAND: usize = 3072;

/// Rows that are gathered together.
#[derive(Clone, Copy, Debug)]
struct RowBand {
    /// The first row, which may be the margin above a map.
    first: isize,
    rows: usize,
    /// Columns of zeros on each side.
    margin: usize,
    /// Rows contain channels; else channels contain rows.
    rows_first: bool,
}

/// Bands that a convolution is cut into.
struct Bands {
    /// Rows and columns of the kernel.
    side: usize,
    /// Output pixels from one to the next.
    stride: usize,
    /// Words of a row of all channels, with its margins.
    across: usize,
    /// Output rows of a band, which reads `stride rows + side - stride` rows.
    rows: usize,
}

impl Bands {
    #[inline]
    fn of(op: &Conv<'_, '_>) -> Self {
        let (source, height) = (&op.source, op.to.height);
        let side = if op.kernel == ConvKernel::Three { 3 } else { 1 };
        let stride = if height == source.height() { 1 } else { 2 };
        let width = source.width() + side - 1;
        let across = source.channels().div_ceil(2).saturating_mul(width).max(1);
        let most = ((BAND / across).saturating_sub(side.saturating_sub(stride)) / stride)
            .min(height)
            .max(1);
        // Bands of 3 x 3 share rows, so they are as high as each other.
        let bands = if side == 3 { height.div_ceil(most).max(1) } else { 1 };
        let rows = if side == 3 { height.div_ceil(bands) } else { most };
        Self { side, stride, across, rows: rows.max(1) }
    }

    /// Rows that are read for output rows.
    const fn read(&self, rows: usize) -> usize {
        (self.stride * rows + self.side).saturating_sub(self.stride)
    }

    /// Words of sums that are made together.
    const fn sums(&self, width: usize) -> usize {
        if self.side == 3 { width } else { self.rows.saturating_mul(width) }
    }
}

/// Workspace of a convolution.
pub(super) fn sizes(op: &Conv<'_, '_>) -> Sizes {
    let bands = Bands::of(op);
    let (pairs, decoded) = row_words(&op.params.weight, bands.side);
    Sizes {
        gathered: bands.read(bands.rows).saturating_mul(bands.across),
        row: pairs.saturating_add(decoded).saturating_add(bands.sums(op.to.width)),
        vector: op.params.bias.numel(),
        ..Sizes::default()
    }
}

/// A convolution; see [`Op::Conv`](super::super::op::Op).
pub(super) fn conv(op: &Conv<'_, '_>, workspace: &mut Workspace<'_>) -> Result<()> {
    let Conv { params, source, to, .. } = op;
    let bands = Bands::of(op);
    let Bands { side, stride, across, rows } = bands;
    let width = source.width() + side - 1;
    let (pairs, decoded) = row_words(&params.weight, side);
    let limit = limit(params.weight.row_len());
    let Workspace { maps, gathered, row, vector, affine, floats, peak, .. } = workspace;
    let (maps, gathered) = (bytes(maps), words(gathered));
    let (row, sums) = row.split_at_mut_checked(pairs + decoded).unwrap_or_default();
    let sums = first(words(sums), bands.sums(to.width))?;
    let bias = first(vector, to.channels)?;
    params.bias.decode_row(0, bias)?;
    let inputs = SourceConversion::new(source, op.prologue, affine, *peak, limit, floats);
    let mut levels = IntegerLevels::new(limit, inputs.most);
    for start in (0..to.height).step_by(rows) {
        let count = rows.min(to.height - start);
        let margin = side / 2;
        let first = (start * stride).cast_signed() - margin.cast_signed();
        let rows_first = side == 3;
        let band = RowBand { first, rows: bands.read(count), margin, rows_first };
        inputs.gather(source, maps, floats, band, gathered);
        let (next_line, next_pair) = if rows_first { (across, width) } else { (0, count * width) };
        let layout = InputLayout { side, next_line, next_pair };
        for (o, &bias) in bias.iter().enumerate() {
            let row = levels.row(&params.weight, o, layout, row)?;
            let requantizer = Requantizer::new(op, row.scale * inputs.scale, bias);
            if rows_first {
                for y in 0..count {
                    let at = gathered.get(y * stride * across..).unwrap_or_default();
                    row.correlate(sums, at, (width, stride));
                    put_row(requantizer, *to, (o, start + y, 1), sums, maps, floats);
                }
            } else {
                let sums = part_mut(sums, 0, next_pair);
                row.mix(sums, gathered, next_pair);
                put_row(requantizer, *to, (o, start, count), sums, maps, floats);
            }
        }
    }
    Ok(())
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
            requantizer.floats(sums, part_mut(to.plane_mut(floats, channel), at, len));
        }
    }
}

/// Conversion of a source's values to integers.
struct SourceConversion<'a> {
    quantizer: InputQuantizer<'a>,
    /// The real value of the integer 1.
    scale: f32,
    /// Of floats, the integers in 1.
    inverse: f32,
    /// The largest magnitude of the integers.
    most: i32,
}

impl<'a> SourceConversion<'a> {
    fn new(
        source: &LayerInput,
        prologue: Prologue,
        affine: &'a [f32],
        peak: i32,
        limit: i32,
        floats: &[f32],
    ) -> Self {
        let quantizer = InputQuantizer::new(source, prologue, affine, peak, limit);
        match source.first.values {
            Values::Bytes(_) => {
                Self { scale: quantizer.scale(), most: quantizer.most(), quantizer, inverse: 0.0 }
            }
            Values::Floats => {
                let values = part(floats, 0, source.first.len()).iter();
                let most = values.fold(f32::MIN_POSITIVE, |most, &x| most.max(num::abs_f32(x)));
                let one = num::f32_of_i32(limit - 1);
                Self { quantizer, scale: most / one, inverse: one / most, most: limit }
            }
        }
    }

    /// Writes a band of all channels, two in a word, with margins of zeros.
    fn gather(
        &self,
        source: &LayerInput,
        maps: &[i8],
        floats: &[f32],
        band: RowBand,
        out: &mut [i32],
    ) {
        let (width, height) = (source.width(), source.height());
        let across = width + 2 * band.margin;
        let pairs = source.channels().div_ceil(2);
        let (next_row, next_pair) =
            if band.rows_first { (pairs * across, across) } else { (across, band.rows * across) };
        part_mut(out, 0, pairs * band.rows * across).fill(0);
        for channel in 0..source.channels() {
            let values = source.values(channel);
            let affine = self.quantizer.affine(channel, values);
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
                    self.quantizer.row(affine, high, (part(plane, y * len, len), twice), out);
                }
            }
        }
    }

    /// Puts a row of floats into the low or the high halves of words, which hold zeros.
    fn floats(&self, row: &[f32], high: bool, out: &mut [i32]) {
        for (out, &x) in out.iter_mut().zip(row) {
            let x = num::i32_of(num::round_even(x * self.inverse));
            *out = out.wrapping_add(if high { x << 16 } else { pairs::low(x) });
        }
    }
}
