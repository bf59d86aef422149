//! Convolutions in 8-bit integers: the input rounded per image, the weights per output channel.
//!
//! ```text
//! x ≈ s (q - z),  q in 0..=255       s = (max x - min x) / 255,  z = round(-min x / s), 0 included
//! w ≈ r v,        v in -127..=127    r = max |w| / 127
//! y = b + s r (sum of q v - z sum of v)
//! ```
//! The sums are exact. Against f32 each input is off by at most `s / 2`, each weight by `r / 2`.

use core::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::dot::{COLUMNS, GROUP, Panel, product};
use super::geometry::{Band, ConvGeometry, split};
use super::im2col::im2col;
use super::weight_source::{Epilogue, WeightSource};
use crate::ops::scratch::scratch;

/// Pixels of a band.
const PIXELS: usize = 64;

/// Values that are compared at once.
const BLOCK: usize = 32;

/// An image in 8 bits: `x = scale (q - zero)`.
#[derive(Clone, Copy)]
struct Rounding {
    scale: f32,
    zero: u8,
}

/// `y`, `[n, oh, ow, o]`.
pub(super) fn forward(
    x: &[f32],
    weight: &dyn WeightSource,
    add: Epilogue<'_>,
    g: &ConvGeometry,
) -> Vec<f32> {
    let mut y = vec![0.0; g.n * g.image_out()];
    if y.is_empty() || x.is_empty() {
        return y;
    }
    let arch = Arch::new();
    let image = g.h * g.w * g.c;
    let mut rounded = vec![0; x.len()];
    let images = rounded.par_chunks_mut(image).zip(x.par_chunks(image));
    let roundings: Vec<Rounding> = images.map(|(out, x)| arch.dispatch(Round { x, out })).collect();
    let panels: Vec<Panel> = (0..g.o.div_ceil(COLUMNS))
        .into_par_iter()
        .map(|panel| {
            let channels = panel * COLUMNS..((panel + 1) * COLUMNS).min(g.o);
            round_rows(weight, channels, g)
        })
        .collect();
    let bands = Band::share(g.n, g.oh(), g.ow(), PIXELS);
    let lengths = bands.iter().map(|band| band.tiles(g.ow()) * g.o);
    let jobs: Vec<_> = split(&mut y, lengths).zip(&bands).collect();
    jobs.into_par_iter().for_each_init(Default::default, |buffers: &mut (Vec<_>, Vec<_>), job| {
        let ((columns, sums), (y, band)) = (buffers, job);
        let (pixels, depth) = (band.tiles(g.ow()), g.depth().next_multiple_of(GROUP));
        columns.resize(pixels * depth, 0);
        sums.resize(pixels, [0; COLUMNS]);
        im2col(&rounded, |image| roundings[image].zero, band, g, depth, columns);
        let before = (band.images.start * g.oh() + band.lines.start) * g.ow() * g.o;
        let residual = add.residual.map(|residual| &residual[before..][..y.len()]);
        for (panel, first) in panels.iter().zip((0..g.o).step_by(COLUMNS)) {
            product(columns, depth, panel, sums);
            let width = COLUMNS.min(g.o - first);
            let mut bias = [0.0; COLUMNS];
            bias[..width].copy_from_slice(&add.bias[first..first + width]);
            let pixels = band.lines.len() * g.ow();
            let images = sums.chunks_exact(pixels).zip(y.chunks_exact_mut(pixels * g.o));
            for ((sums, y), image) in images.zip(band.images.clone()) {
                let (rounding, y) = (roundings[image], &mut y[first..]);
                arch.dispatch(Dequantize {
                    panel,
                    sums,
                    rounding,
                    bias: &bias,
                    y,
                    stride: g.o,
                    width,
                });
            }
        }
        if let Some(residual) = residual {
            y.iter_mut().zip(residual).for_each(|(y, r)| *y += r);
        }
        add.rectify(y);
    });
    y
}

/// Writes `bias + s r (sum - z sum of v)` to columns of `y`, whose rows are `stride` apart.
struct Dequantize<'a> {
    panel: &'a Panel,
    sums: &'a [[i32; COLUMNS]],
    rounding: Rounding,
    bias: &'a [f32; COLUMNS],
    y: &'a mut [f32],
    stride: usize,
    width: usize,
}

impl WithSimd for Dequantize<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Rounding { scale, zero } = self.rounding;
        let (mut scales, mut zeros) = ([0.0; COLUMNS], [0; COLUMNS]);
        for i in 0..COLUMNS {
            scales[i] = self.panel.scales[i] * scale;
            zeros[i] = self.panel.sums[i] * i32::from(zero);
        }
        for (sums, y) in self.sums.iter().zip(self.y.chunks_mut(self.stride)) {
            let mut values = [0.0; COLUMNS];
            for i in 0..COLUMNS {
                values[i] = self.bias[i] + scales[i] * (sums[i] - zeros[i]) as f32;
            }
            y[..self.width].copy_from_slice(&values[..self.width]);
        }
    }
}

/// Rounds an image; zero is exact.
struct Round<'a> {
    x: &'a [f32],
    out: &'a mut [u8],
}

impl WithSimd for Round<'_> {
    type Output = Rounding;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> Rounding {
        let (mut low, mut high) = ([0f32; BLOCK], [0f32; BLOCK]);
        let (blocks, rest) = self.x.as_chunks::<BLOCK>();
        for block in blocks {
            for i in 0..BLOCK {
                low[i] = if block[i] < low[i] { block[i] } else { low[i] };
                high[i] = if block[i] > high[i] { block[i] } else { high[i] };
            }
        }
        let (mut least, mut most) = (0f32, 0f32);
        for &x in low.iter().chain(&high).chain(rest) {
            least = least.min(x);
            most = most.max(x);
        }
        let scale = ((most - least) / 255.0).max(f32::MIN_POSITIVE);
        let zero = nearest(-least / scale);
        let (factor, offset) = (1.0 / scale, zero as f32);
        for (q, &x) in self.out.iter_mut().zip(self.x) {
            *q = byte(nearest(x * factor + offset));
        }
        Rounding { scale, zero: byte(zero) }
    }
}

/// The nearest integer of a number below 2^22, in a form that becomes SIMD code.
#[inline(always)]
fn nearest(x: f32) -> i32 {
    // Adding 1.5 * 2^23 leaves the integer in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    (x + ROUND).to_bits().cast_signed() - ROUND.to_bits().cast_signed()
}

/// The nearest byte.
#[inline(always)]
#[expect(clippy::cast_sign_loss, reason = "within its range")]
fn byte(value: i32) -> u8 {
    value.clamp(0, 255) as u8
}

/// The nearest weight.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "within its range")]
fn signed_byte(value: i32) -> i8 {
    value.clamp(-127, 127) as i8
}

/// Rounds the rows of some output channels, at most [`COLUMNS`].
fn round_rows(weight: &dyn WeightSource, channels: Range<usize>, g: &ConvGeometry) -> Panel {
    let (depth, taps) = (g.depth(), g.kh * g.kw);
    let mut panel = Panel::new(depth.next_multiple_of(GROUP));
    scratch(channels.len() * depth, |buffer| {
        let rows = weight.rows(channels, buffer);
        let (mut rounded, mut ordered) = (vec![0i8; depth], vec![0i8; depth]);
        for (lane, row) in rows.chunks_exact(depth.max(1)).enumerate() {
            (panel.scales[lane], panel.sums[lane]) =
                Arch::new().dispatch(RoundRow { row, out: &mut rounded });
            for (c, kernel) in rounded.chunks_exact(taps).enumerate() {
                for (tap, &v) in kernel.iter().enumerate() {
                    ordered[tap * g.c + c] = v;
                }
            }
            panel.set(lane, &ordered);
        }
    });
    panel
}

/// Rounds a row; its unit, and the sum of the integers.
struct RoundRow<'a> {
    row: &'a [f32],
    out: &'a mut [i8],
}

impl WithSimd for RoundRow<'_> {
    type Output = (f32, i32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> (f32, i32) {
        let mut highest = [0f32; BLOCK];
        let (blocks, rest) = self.row.as_chunks::<BLOCK>();
        for block in blocks {
            for i in 0..BLOCK {
                let size = block[i].abs();
                highest[i] = if size > highest[i] { size } else { highest[i] };
            }
        }
        let mut most = 0f32;
        for w in highest.iter().chain(rest) {
            most = most.max(w.abs());
        }
        let scale = (most / 127.0).max(f32::MIN_POSITIVE);
        let (factor, mut sum) = (1.0 / scale, 0);
        for (v, &w) in self.out.iter_mut().zip(self.row) {
            let nearest = nearest(w * factor);
            sum += nearest;
            *v = signed_byte(nearest);
        }
        (scale, sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::conv2d::weight_source::DenseWeight;
    use crate::ops::conv2d::{ConvGeometry, reference};

    /// Irregular values in `[low, low + 2)`.
    fn values(n: usize, low: f32, salt: usize) -> Vec<f32> {
        let value = |i: usize| (i.wrapping_mul(2_654_435_761 + salt) >> 8) % 4096;
        (0..n).map(|i| low + value(i) as f32 / 2048.0).collect()
    }

    #[test]
    fn results_are_within_half_a_step_of_each_factor() {
        // (n, h, w, c, o, kernel, stride, padding)
        for [n, h, w, c, o, size, stride, padding] in [
            [2, 5, 7, 32, 32, 3, 1, 1],
            [3, 8, 8, 64, 96, 3, 1, 1],
            [5, 2, 3, 33, 40, 1, 1, 0],
            [1, 9, 6, 6, 3, 3, 2, 1],
        ] {
            let g =
                ConvGeometry::new(&[n, h, w, c], &[o, c, size, size], stride, (padding, padding))
                    .unwrap();
            for low in [-0.25, -2.5, 0.5] {
                let x = values(n * h * w * c, low, 1);
                let weight = values(o * g.depth(), -1.0, 2);
                let (bias, residual) = (values(o, -1.0, 3), values(n * g.image_out(), -1.0, 4));
                let rows = DenseWeight::new(&weight, g.depth());
                let add = Epilogue { bias: &bias, residual: Some(&residual), relu: false };
                let rounded = forward(&x, &rows, add, &g);
                let exact = reference::forward(&x, &weight, &bias, &g);
                let sizes = |values: &[f32]| values.iter().map(|v| v.abs()).collect::<Vec<_>>();
                let ones = |values: &[f32]| vec![1.0; values.len()];
                let zeros = vec![0.0; o];
                let sum = |x: &[f32], w: &[f32]| reference::forward(x, w, &zeros, &g);
                let (x_sizes, w_sizes) =
                    (sum(&sizes(&x), &ones(&weight)), sum(&ones(&x), &sizes(&weight)));
                let image = h * w * c;
                for i in 0..rounded.len() {
                    let pixels = &x[i / g.image_out() * image..][..image];
                    let ends = pixels.iter().fold((0f32, 0f32), |e, &v| (e.0.min(v), e.1.max(v)));
                    let row = &weight[i % o * g.depth()..][..g.depth()];
                    let step = (ends.1 - ends.0) / 255.0;
                    let unit = row.iter().fold(0f32, |m, w| m.max(w.abs())) / 127.0;
                    let bound = 0.5 * (step * w_sizes[i] + unit * x_sizes[i])
                        + 0.25 * step * unit * g.depth() as f32;
                    let off = (rounded[i] - residual[i] - exact[i]).abs();
                    assert!(off <= bound * 1.001 + 1e-4, "{off} beyond {bound}");
                    assert!(bound < 0.1 * x_sizes[i] * unit * 127.0, "the bound says nothing");
                }
            }
        }
    }

    #[test]
    fn whole_numbers_are_exact() {
        let g = ConvGeometry::new(&[2, 4, 5, 32], &[32, 32, 3, 3], 1, (1, 1)).unwrap();
        // Both ends of the range occur in each image and row, so that the steps are 1.
        let x: Vec<f32> = (0..2 * 4 * 5 * 32).map(|i| (i * 37 % 256) as f32 - 100.0).collect();
        let weight: Vec<f32> = (0..32 * 288).map(|i| (i * 29 % 255) as f32 - 127.0).collect();
        let bias = vec![0.5; 32];
        let rows = DenseWeight::new(&weight, g.depth());
        let rounded = forward(&x, &rows, Epilogue { bias: &bias, residual: None, relu: false }, &g);
        let exact = reference::forward(
            &x.iter().map(|&v| f64::from(v)).collect::<Vec<_>>(),
            &weight.iter().map(|&v| f64::from(v)).collect::<Vec<_>>(),
            &vec![0.5; 32],
            &g,
        );
        let most = exact.iter().fold(0f64, |m, v| m.max(v.abs()));
        for (y, exact) in rounded.iter().zip(exact) {
            assert!((f64::from(*y) - exact).abs() < 1e-6 * most, "{y}, not {exact}");
        }
    }
}
