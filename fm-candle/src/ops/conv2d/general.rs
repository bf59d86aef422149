//! Convolutions of every size in f32: im2col, a band of pixels at a time, and a matrix product.
//!
//! ```text
//! y[p, o] = sum over r of col[p, r] w[r, o],     r = (ky, kx, c)
//! dw      = col^T gy
//! ```
//! The pixels of a 1x1 convolution are rows of `col` as they lie.

use rayon::prelude::*;

use super::geometry::{Band, ConvGeometry, split};
use super::im2col::im2col;
use super::product::{COLUMNS, ProductOutput, ROWS, Start, product, product_of_transposed};
use super::weight_source::{Epilogue, WeightSource};
use crate::ops::scratch::scratch;

/// Pixels of a band.
const PIXELS: usize = 64;
/// Partial sums of the weight gradient, the same number whatever the thread count.
const PARTIALS: usize = 8;

/// `y`, `[n, oh, ow, o]`.
pub(super) fn forward(
    x: &[f32],
    weight: &dyn WeightSource,
    add: Epilogue<'_>,
    g: &ConvGeometry,
) -> Vec<f32> {
    let (oh, ow, depth) = (g.oh(), g.ow(), g.depth());
    let mut y = match add.residual {
        Some(residual) => residual.to_vec(),
        None => vec![0.0; g.n * g.image_out()],
    };
    if y.is_empty() {
        return y;
    }
    let panels = g.o.div_ceil(COLUMNS);
    let mut biases = vec![[0.0; COLUMNS]; panels];
    biases.as_flattened_mut()[..g.o].copy_from_slice(add.bias);
    scratch(panels * COLUMNS * depth, |factors| {
        factors.par_chunks_mut(COLUMNS * depth).enumerate().for_each(|(panel, out)| {
            let first = panel * COLUMNS;
            let channels = first..(first + COLUMNS).min(g.o);
            scratch(COLUMNS * depth, |buffer| {
                let rows = weight.rows(channels.clone(), &mut buffer[..channels.len() * depth]);
                right_factor(rows, g, out);
            });
        });
        let bands = Band::share(g.n, oh, ow, PIXELS);
        let lengths = bands.iter().map(|band| band.tiles(ow) * g.o);
        let jobs: Vec<_> = split(&mut y, lengths).zip(&bands).collect();
        jobs.into_par_iter().for_each(|(y, band)| {
            with_columns(x, band, g, depth, |columns| {
                for (panel, factor) in factors.chunks_exact(COLUMNS * depth).enumerate() {
                    let first = panel * COLUMNS;
                    let target = ProductOutput {
                        dst: &mut y[first..],
                        stride: g.o,
                        rows: band.tiles(ow),
                        columns: COLUMNS.min(g.o - first),
                        start: match add.residual {
                            Some(_) => Start::Target,
                            None => Start::Row(&biases[panel]),
                        },
                    };
                    product(columns, factor, target);
                }
            });
            if add.residual.is_some() {
                for pixel in y.chunks_exact_mut(g.o) {
                    pixel.iter_mut().zip(add.bias).for_each(|(y, b)| *y += b);
                }
            }
            add.rectify(y);
        });
    });
    y
}

/// `dw`, `[o, c, kh, kw]`.
pub(super) fn weight_gradient(x: &[f32], gy: &[f32], g: &ConvGeometry) -> Vec<f32> {
    let (oh, ow, depth) = (g.oh(), g.ow(), g.depth());
    let (panels, stride) = (g.o.div_ceil(COLUMNS), depth.next_multiple_of(ROWS));
    let bands = Band::cut(g.n, oh, ow, PIXELS);
    let mut dw = vec![0.0; g.o * depth];
    let mut sums = vec![0.0; PARTIALS * panels * COLUMNS * depth];
    if sums.is_empty() || bands.is_empty() {
        return dw;
    }
    sums.par_chunks_mut(panels * COLUMNS * depth).enumerate().for_each(|(part, sums)| {
        for band in &bands[part * bands.len() / PARTIALS..(part + 1) * bands.len() / PARTIALS] {
            let pixels = band.tiles(ow);
            let first = (band.images.start * oh + band.lines.start) * ow * g.o;
            let gy = &gy[first..][..pixels * g.o];
            with_columns(x, band, g, stride, |columns| {
                for (panel, sums) in sums.chunks_exact_mut(COLUMNS * depth).enumerate() {
                    scratch(pixels * COLUMNS, |right| {
                        let first = panel * COLUMNS;
                        let width = COLUMNS.min(g.o - first);
                        for (right, gy) in right.chunks_exact_mut(COLUMNS).zip(gy.chunks(g.o)) {
                            right[..width].copy_from_slice(&gy[first..first + width]);
                            right[width..].fill(0.0);
                        }
                        let target = ProductOutput {
                            dst: sums,
                            stride: COLUMNS,
                            rows: depth,
                            columns: COLUMNS,
                            start: Start::Target,
                        };
                        product_of_transposed(columns, stride, right, target);
                    });
                }
            });
        }
    });
    let size = panels * COLUMNS * depth;
    for (o, dw) in dw.chunks_exact_mut(depth).enumerate() {
        for c in 0..g.c {
            for tap in 0..g.kh * g.kw {
                let at = (o / COLUMNS * depth + tap * g.c + c) * COLUMNS + o % COLUMNS;
                dw[c * g.kh * g.kw + tap] = sums.iter().skip(at).step_by(size).sum();
            }
        }
    }
    dw
}

/// Rows of a weight `[o, c, kh, kw]` as right factor `[kh, kw, c, COLUMNS]`.
fn right_factor(rows: &[f32], g: &ConvGeometry, out: &mut [f32]) {
    let (depth, taps) = (g.depth(), g.kh * g.kw);
    if rows.len() < COLUMNS * depth {
        out.fill(0.0);
    }
    for (lane, row) in rows.chunks_exact(depth).enumerate() {
        for (c, row) in row.chunks_exact(taps).enumerate() {
            for (tap, &value) in row.iter().enumerate() {
                out[(tap * g.c + c) * COLUMNS + lane] = value;
            }
        }
    }
}

/// Calls `f` with `col` for the pixels of a band, rows `stride` apart.
fn with_columns<R>(
    x: &[f32],
    band: &Band,
    g: &ConvGeometry,
    stride: usize,
    f: impl FnOnce(&[f32]) -> R,
) -> R {
    let (oh, ow, c) = (g.oh(), g.ow(), g.c);
    if (g.kh, g.kw, g.stride, stride) == (1, 1, 1, c) {
        let first = (band.images.start * oh + band.lines.start) * ow * c;
        return f(&x[first..][..band.tiles(ow) * c]);
    }
    scratch(band.tiles(ow) * stride, |columns| {
        for row in columns.chunks_exact_mut(stride) {
            row[g.depth()..].fill(0.0);
        }
        im2col(x, |_| 0.0, band, g, stride, columns);
        f(columns)
    })
}
