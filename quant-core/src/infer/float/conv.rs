//! Convolutions: 3 x 3 by gathered channels, 1 x 1 by gathered rows.
//!
//! The input of a layer is gathered first: the norm and `SiLU` are applied once per value, two maps
//! side by side and doubled ones become plain planes, and margins of zeros leave the inner loop
//! without a question. Of a row of weights, only the part for the gathered block is decoded at a
//! time.

use super::super::map::part_mut;
use super::super::op::{Accumulate, Conv};
use super::super::workspace::{Sizes, Workspace, first};
use super::norm_act::NormAct;
use crate::error::Result;

/// Floats of a gathered block that a layer with many channels aims at.
const BLOCK: usize = 2048;
/// Channels of which a gathered block has a multiple.
const CHANNELS: usize = 8;

/// Channels of a 3 x 3 convolution that are gathered together, and the length of one of them.
#[inline]
fn block(op: &Conv<'_, '_>, channels: usize) -> (usize, usize) {
    let (height, width) = (op.source.height(), op.source.width());
    let margined = (height + 2).saturating_mul(width + 2).max(1);
    let step = (BLOCK / margined / CHANNELS).max(1) * CHANNELS;
    (step.min(channels.max(1)), margined)
}

/// Workspace of a convolution of 3 x 3.
pub(super) fn sizes(op: &Conv<'_, '_>) -> Sizes {
    let (step, margined) = block(op, op.source.channels());
    Sizes {
        gathered: step.saturating_mul(margined),
        row: step.saturating_mul(9),
        vector: op.params.bias.numel(),
        ..Sizes::default()
    }
}

/// A convolution of 3 x 3 with a margin of zeros, at every pixel or at every second.
pub(super) fn conv(op: &Conv<'_, '_>, workspace: &mut Workspace<'_>) -> Result<()> {
    let Conv { source, to, .. } = op;
    let (channels, width) = (source.channels(), source.width());
    let (step, margined) = block(op, channels);
    let stride = if to.height == source.height() { 1 } else { 2 };
    start(op, workspace)?;
    for start in (0..channels).step_by(step) {
        let count = step.min(channels - start);
        gather(op, start, count, workspace);
        let Workspace { maps, gathered, row, .. } = workspace;
        let (gathered, row) = (first(gathered, count * margined)?, first(row, count * 9)?);
        for o in 0..to.channels {
            op.params.weight.decode_part(o, start * 9, row)?;
            let plane = to.plane_mut(maps, o);
            let taps = row.as_chunks().0.as_chunks().0;
            for (taps, input) in taps.iter().zip(gathered.chunks_exact(margined)) {
                correlate(plane, to.width, input, width + 2, stride, taps);
            }
        }
    }
    Ok(())
}

/// Copies channels `start..start + count` with a margin of zeros.
fn gather(op: &Conv<'_, '_>, start: usize, count: usize, workspace: &mut Workspace<'_>) {
    let Workspace { maps, gathered, affine, .. } = workspace;
    let (height, width) = (op.source.height(), op.source.width());
    let planes = gathered.chunks_exact_mut(((height + 2) * (width + 2)).max(1));
    for (channel, plane) in (start..start + count).zip(planes) {
        let norm_act = NormAct::new(op.prologue, affine, channel);
        plane.fill(0.0);
        let rows = plane.chunks_exact_mut((width + 2).max(1)).skip(1);
        for (y, row) in (0..height).zip(rows) {
            let inner = part_mut(row, 1, width);
            op.source.row(maps, channel, y, inner);
            for x in inner.iter_mut() {
                *x = norm_act.of(*x);
            }
        }
    }
}

/// Rows that a convolution of 1 x 1 gathers together.
#[inline]
fn rows(op: &Conv<'_, '_>) -> usize {
    let row = op.source.channels().saturating_mul(op.source.width()).max(1);
    (BLOCK / row).min(op.source.height()).max(1)
}

/// Workspace of a convolution of 1 x 1.
pub(super) fn pointwise_sizes(op: &Conv<'_, '_>) -> Sizes {
    let channels = op.source.channels();
    Sizes {
        gathered: channels.saturating_mul(op.source.width()).saturating_mul(rows(op)),
        row: channels,
        vector: op.params.bias.numel(),
        ..Sizes::default()
    }
}

/// A convolution of 1 x 1. It gathers all channels of a few rows before it writes these rows, so
/// `to` may lie where one of the maps that it reads lies.
pub(super) fn pointwise(op: &Conv<'_, '_>, workspace: &mut Workspace<'_>) -> Result<()> {
    let Conv { params, source, to, .. } = op;
    let (channels, height, width) = (source.channels(), source.height(), source.width());
    let rows = rows(op);
    let Workspace { maps, gathered, row, vector, affine, .. } = workspace;
    let (bias, row) = (first(vector, to.channels)?, first(row, channels)?);
    params.bias.decode_row(0, bias)?;
    for start in (0..height).step_by(rows) {
        let count = rows.min(height - start);
        let len = (count * width).max(1);
        let block = first(gathered, channels * len)?;
        let inputs = block.chunks_exact_mut(len);
        for (channel, input) in inputs.enumerate() {
            let norm_act = NormAct::new(op.prologue, affine, channel);
            for (y, row) in (start..).zip(input.chunks_exact_mut(width.max(1))) {
                source.row(maps, channel, y, row);
                for x in row.iter_mut() {
                    *x = norm_act.of(*x);
                }
            }
        }
        for (o, &bias) in bias.iter().enumerate() {
            params.weight.decode_row(o, row)?;
            let out = part_mut(to.plane_mut(maps, o), start * width, len);
            put(bias, op.accumulate, out);
            mix(out, row, block);
        }
    }
    Ok(())
}

/// Puts a bias into each plane.
fn start(op: &Conv<'_, '_>, workspace: &mut Workspace<'_>) -> Result<()> {
    let bias = first(workspace.vector, op.to.channels)?;
    op.params.bias.decode_row(0, bias)?;
    for (o, &bias) in bias.iter().enumerate() {
        put(bias, op.accumulate, op.to.plane_mut(workspace.maps, o));
    }
    Ok(())
}

/// Starts sums with a bias, and what is there if they accumulate.
fn put(bias: f32, accumulate: Accumulate, out: &mut [f32]) {
    match accumulate {
        Accumulate::No => out.fill(bias),
        Accumulate::Yes => out.iter_mut().for_each(|out| *out += bias),
    }
}

/// Adds weighted planes to a plane, in their order; four at a time, so that a sum is read and written
/// less often.
///
/// # Shapes
/// `out`: `[n]`; `planes`: `[weights, n]`.
fn mix(out: &mut [f32], weights: &[f32], planes: &[f32]) {
    let len = out.len().max(1);
    let (fours, rest) = weights.as_chunks();
    let mut planes = planes;
    for &[a, b, c, d] in fours {
        let mut next = || {
            let (plane, rest) = planes.split_at_checked(len).unwrap_or_default();
            planes = rest;
            plane.iter()
        };
        let values = next().zip(next()).zip(next().zip(next()));
        for (out, ((x, y), (z, w))) in out.iter_mut().zip(values) {
            *out = *out + a * x + b * y + c * z + d * w;
        }
    }
    for (&weight, plane) in rest.iter().zip(planes.chunks_exact(len)) {
        out.iter_mut().zip(plane).for_each(|(out, &x)| *out += weight * x);
    }
}

/// Pixels of a row that are computed together: weights and what neighbours share stay in registers.
const TOGETHER: usize = 7;

/// Adds to each pixel of a plane the nine products around it, in the order of the taps.
///
/// # Shapes
/// `plane`: `[h, width]`; `input`: rows of `input_width`, with a margin of one on each side.
fn correlate(
    plane: &mut [f32],
    width: usize,
    input: &[f32],
    input_width: usize,
    stride: usize,
    taps: &[[f32; 3]; 3],
) {
    let &[a, b, c] = taps;
    let mut from = input;
    for out in plane.chunks_exact_mut(width.max(1)) {
        let mut at = from;
        from = from.get(stride * input_width..).unwrap_or_default();
        let (blocks, rest) = if stride == 1 { out.as_chunks_mut() } else { (&mut [][..], out) };
        for out in blocks {
            if let Some((xs, ys, zs)) = around(at, input_width) {
                *out = seven(seven(seven(*out, a, xs), b, ys), c, zs);
            }
            at = at.get(TOGETHER..).unwrap_or_default();
        }
        for out in rest {
            if let Some((xs, ys, zs)) = around(at, input_width) {
                *out = one(one(one(*out, a, xs), b, ys), c, zs);
            }
            at = at.get(stride..).unwrap_or_default();
        }
    }
}

/// The starts of three rows.
#[inline]
fn around<const N: usize>(at: &[f32], width: usize) -> Option<(&[f32; N], &[f32; N], &[f32; N])> {
    let (above, rest) = at.split_at_checked(width)?;
    let (here, below) = rest.split_at_checked(width)?;
    Some((above.first_chunk()?, here.first_chunk()?, below.first_chunk()?))
}

/// Adds the products of a row of taps to a pixel.
#[inline]
fn one(sum: f32, [a, b, c]: [f32; 3], &[x0, x1, x2]: &[f32; 3]) -> f32 {
    sum + a * x0 + b * x1 + c * x2
}

/// Adds the products of a row of taps to neighbours; written out, as a compiler that wants small code
/// keeps a loop.
#[inline]
fn seven(
    sums: [f32; TOGETHER],
    taps: [f32; 3],
    &[x0, x1, x2, x3, x4, x5, x6, x7, x8]: &[f32; TOGETHER + 2],
) -> [f32; TOGETHER] {
    let [s0, s1, s2, s3, s4, s5, s6] = sums;
    [
        one(s0, taps, &[x0, x1, x2]),
        one(s1, taps, &[x1, x2, x3]),
        one(s2, taps, &[x2, x3, x4]),
        one(s3, taps, &[x3, x4, x5]),
        one(s4, taps, &[x4, x5, x6]),
        one(s5, taps, &[x5, x6, x7]),
        one(s6, taps, &[x6, x7, x8]),
    ]
}
