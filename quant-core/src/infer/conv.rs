//! Convolutions: 3 x 3 by gathered channels, 1 x 1 by gathered rows.
//!
//! What a layer reads is gathered first: the norm and `SiLU` are applied once per value, two maps side
//! by side and doubled ones become plain planes, and margins of zeros leave the inner loop without
//! a question. A row of weights is decoded once per gathered block.

use super::arena::Memory;
use super::machine::{Enter, Entry, Machine, Params, Put, grow};
use super::map::{Map, Source, part, part_mut};
use crate::error::Result;
use crate::format::Tensor;

/// Floats of a gathered block that a layer with many channels aims at.
const BLOCK: usize = 2048;
/// Channels of which a gathered block has a multiple.
const CHANNELS: usize = 8;

impl Machine<'_, '_> {
    /// A convolution of 3 x 3 with a margin of zeros, at every pixel or at every second.
    pub(super) fn conv(
        &mut self,
        params: &Params<'_>,
        source: Source,
        entry: Entry,
        to: Map,
        put: Put,
    ) -> Result<()> {
        let (channels, height, width) = (source.channels(), source.height(), source.width());
        let margined = (height + 2).saturating_mul(width + 2).max(1);
        let step = (BLOCK / margined / CHANNELS).max(1) * CHANNELS;
        let step = step.min(channels.max(1));
        grow(&mut self.sizes.gathered, step.saturating_mul(margined));
        if self.measured(&[to.len(), channels, 9]) {
            return Ok(());
        }
        let stride = if to.height == height { 1 } else { 2 };
        self.start(params.bias, to, put)?;
        for start in (0..channels).step_by(step) {
            let count = step.min(channels - start);
            self.gather(source, entry, start, count);
            let Memory { maps, gathered, row, .. } = &mut self.memory;
            for o in 0..to.channels {
                let row = part_mut(row, 0, channels * 9);
                params.weight.decode_row(o, row)?;
                let plane = to.plane_mut(maps, o);
                let taps = part(row, start * 9, count * 9).as_chunks().0;
                for (taps, input) in taps.iter().zip(gathered.chunks_exact(margined)) {
                    correlate(plane, to.width, input, width + 2, stride, taps);
                }
            }
        }
        Ok(())
    }

    /// Copies channels `start..start + count` with a margin of zeros.
    fn gather(&mut self, source: Source, entry: Entry, start: usize, count: usize) {
        let Memory { maps, gathered, affine, .. } = &mut self.memory;
        let (height, width) = (source.height(), source.width());
        let planes = gathered.chunks_exact_mut(((height + 2) * (width + 2)).max(1));
        for (channel, plane) in (start..start + count).zip(planes) {
            let enter = Enter::new(entry, affine, channel);
            plane.fill(0.0);
            let rows = plane.chunks_exact_mut((width + 2).max(1)).skip(1);
            for (y, row) in (0..height).zip(rows) {
                let inner = part_mut(row, 1, width);
                source.row(maps, channel, y, inner);
                for x in inner.iter_mut() {
                    *x = enter.of(*x);
                }
            }
        }
    }

    /// A convolution of 1 x 1. It gathers all channels of a few rows before it writes these rows, so
    /// `to` may lie where one of the maps that it reads lies.
    pub(super) fn pointwise(
        &mut self,
        params: &Params<'_>,
        source: Source,
        entry: Entry,
        to: Map,
        put: Put,
    ) -> Result<()> {
        let (channels, height, width) = (source.channels(), source.height(), source.width());
        let rows = (BLOCK / channels.saturating_mul(width).max(1)).min(height).max(1);
        grow(&mut self.sizes.gathered, channels.saturating_mul(width).saturating_mul(rows));
        if self.measured(&[to.len(), channels]) {
            return Ok(());
        }
        let Memory { maps, gathered, row, vector, affine, .. } = &mut self.memory;
        let bias = part_mut(vector, 0, to.channels);
        params.bias.decode_row(0, bias)?;
        for first in (0..height).step_by(rows) {
            let count = rows.min(height - first);
            let len = (count * width).max(1);
            let block = part_mut(gathered, 0, channels * len);
            let inputs = block.chunks_exact_mut(len);
            for (channel, input) in inputs.enumerate() {
                let enter = Enter::new(entry, affine, channel);
                for (y, row) in (first..).zip(input.chunks_exact_mut(width.max(1))) {
                    source.row(maps, channel, y, row);
                    for x in row.iter_mut() {
                        *x = enter.of(*x);
                    }
                }
            }
            for (o, &bias) in bias.iter().enumerate() {
                let row = part_mut(row, 0, channels);
                params.weight.decode_row(o, row)?;
                let out = part_mut(to.plane_mut(maps, o), first * width, len);
                match put {
                    Put::Set => out.fill(bias),
                    Put::Add => out.iter_mut().for_each(|out| *out += bias),
                }
                for (&weight, input) in row.iter().zip(block.chunks_exact(len)) {
                    out.iter_mut().zip(input).for_each(|(out, &x)| *out += weight * x);
                }
            }
        }
        Ok(())
    }

    /// Puts a bias into each plane.
    fn start(&mut self, bias: Tensor<'_>, to: Map, put: Put) -> Result<()> {
        let vector = part_mut(self.memory.vector, 0, to.channels);
        bias.decode_row(0, vector)?;
        for (o, &bias) in vector.iter().enumerate() {
            let plane = to.plane_mut(self.memory.maps, o);
            match put {
                Put::Set => plane.fill(bias),
                Put::Add => plane.iter_mut().for_each(|out| *out += bias),
            }
        }
        Ok(())
    }
}

/// Adds to each pixel of a plane the nine products around it, in the order of the taps.
///
/// # Shapes
/// `plane`: `[h, width]`; `input`: rows of `stride`, with a margin of one on each side.
fn correlate(
    plane: &mut [f32],
    width: usize,
    input: &[f32],
    input_width: usize,
    stride: usize,
    taps: &[f32; 9],
) {
    let &[a, b, c, d, e, f, g, h, i] = taps;
    for (y, out) in plane.chunks_exact_mut(width.max(1)).enumerate() {
        let row = |dy: usize| part(input, (y * stride + dy) * input_width, input_width).windows(3);
        let rows = row(0).zip(row(1)).zip(row(2)).step_by(stride.max(1));
        for (out, ((above, here), below)) in out.iter_mut().zip(rows) {
            if let (&[x0, x1, x2], &[x3, x4, x5], &[x6, x7, x8]) = (above, here, below) {
                let sum = *out + a * x0 + b * x1 + c * x2 + d * x3 + e * x4 + f * x5;
                *out = sum + g * x6 + h * x7 + i * x8;
            }
        }
    }
}
