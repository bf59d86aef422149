//! 2-D convolution as im2col and GEMM, forward and both backwards.
//!
//! ```text
//! y[n, o, p] = b[o] + sum_r w[o, r] col[r, p],   r = (channel, ky, kx), p = (oy, ox)
//! dw = sum gy col^T        db = sum gy        dx = conv(gy, w flipped and transposed)
//! ```
//! Images are padded with zeros first and `p` runs over the *padded* width: then each row of
//! `col` is one contiguous piece of the padded image, and the few pixels that wrap around a
//! line's end are computed and dropped. A tile holds about [`TILE`] pixels, of several small
//! images or of some lines of a large one. Threads share the tiles; sums run in an order that
//! does not depend on their number. A stride other than 1 computes every pixel and keeps some.

use core::ops::Range;

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::gemm::{Mat, gemm};
use super::real::{Real, elements, slice};

/// Pixels of a tile: enough to feed the GEMM, few enough for `col` to stay in the L2 cache.
const TILE: usize = 512;
/// Partial sums of the weight gradient, the same number whatever the thread count.
const PARTIALS: usize = 8;

/// Convolution with bias and zero padding on all sides.
///
/// # Shapes
/// `x: [n, c, h, w]`, `weight: [o, c, kh, kw]`, `bias: [o]`, result
/// `[n, o, (h + 2 padding - kh) / stride + 1, (w + 2 padding - kw) / stride + 1]`.
///
/// # Errors
/// Shapes that do not fit together.
pub fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    if x.device().is_cpu() && matches!(x.dtype(), DType::F32 | DType::F64) {
        return x.contiguous()?.apply_op3(
            &weight.contiguous()?,
            &bias.contiguous()?,
            Conv2d { stride, padding },
        );
    }
    let bias = bias.reshape((1, (), 1, 1))?;
    x.conv2d(weight, padding, stride, 1, 1)?.broadcast_add(&bias)
}

/// The op itself; see the module.
struct Conv2d {
    stride: usize,
    padding: usize,
}

impl CustomOp3 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let g = Geometry::new(lx.dims(), lw.dims(), self.stride, self.padding)?;
        if lb.dims() != [g.o] {
            bail!("conv2d: bias has shape {:?}, the weight asks for [{}]", lb.dims(), g.o);
        }
        let y = match x {
            CpuStorage::F32(_) => CpuStorage::F32(
                self.strided(forward(slice(x, lx)?, slice(w, lw)?, slice(b, lb)?, &g), &g),
            ),
            _ => CpuStorage::F64(
                self.strided(forward(slice(x, lx)?, slice(w, lw)?, slice(b, lb)?, &g), &g),
            ),
        };
        Ok((y, Shape::from((g.n, g.o, self.kept(g.oh()), self.kept(g.ow())))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _b: &Tensor,
        _y: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let g = Geometry::new(x.dims(), w.dims(), self.stride, self.padding)?;
        let (dx, dw, db) = match x.dtype() {
            DType::F32 => self.gradients::<f32>(x, w, gy, &g)?,
            _ => self.gradients::<f64>(x, w, gy, &g)?,
        };
        Ok((Some(dx), Some(dw), Some(db)))
    }
}

impl Conv2d {
    /// Pixels along a side of the result, of `side` at stride 1.
    fn kept(&self, side: usize) -> usize {
        (side - 1) / self.stride + 1
    }

    /// Every `stride`-th pixel of every `stride`-th line.
    fn strided<T: Real>(&self, y: Vec<T>, g: &Geometry) -> Vec<T> {
        if self.stride == 1 {
            return y;
        }
        let lines = y.chunks_exact(g.oh() * g.ow()).flat_map(|image| {
            image
                .chunks_exact(g.ow())
                .step_by(self.stride)
                .flat_map(|l| l.iter().step_by(self.stride))
        });
        lines.copied().collect()
    }

    /// The reverse of [`strided`](Self::strided): zeros where pixels were left out.
    fn spread<T: Real>(&self, gy: &[T], g: &Geometry) -> Vec<T> {
        let (kept_h, kept_w) = (self.kept(g.oh()), self.kept(g.ow()));
        let mut full = vec![T::zero(); g.n * g.o * g.oh() * g.ow()];
        let images = full.chunks_exact_mut(g.oh() * g.ow()).zip(gy.chunks_exact(kept_h * kept_w));
        for (full, gy) in images {
            let lines = full.chunks_exact_mut(g.ow()).step_by(self.stride);
            for (full, gy) in lines.zip(gy.chunks_exact(kept_w)) {
                full.iter_mut().step_by(self.stride).zip(gy).for_each(|(f, &v)| *f = v);
            }
        }
        full
    }

    /// Gradients of input, weight and bias.
    fn gradients<T: Real>(
        &self,
        x: &Tensor,
        w: &Tensor,
        gy: &Tensor,
        g: &Geometry,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        let (x, w, gy) = (x.contiguous()?, w.contiguous()?, gy.contiguous()?);
        let (dx, dw, db) = {
            let sx = x.storage_and_layout();
            let sw = w.storage_and_layout();
            let sg = gy.storage_and_layout();
            let (x, w, gy) = (elements::<T>(&sx)?, elements::<T>(&sw)?, elements::<T>(&sg)?);
            let spread = if self.stride == 1 { Vec::new() } else { self.spread(gy, g) };
            let gy = if self.stride == 1 { gy } else { &spread };
            let (dw, db) = weight_gradient(x, gy, g);
            (input_gradient(w, gy, g), dw, db)
        };
        let device = x.device();
        Ok((
            Tensor::from_vec(dx, (g.n, g.c, g.h, g.w), device)?,
            Tensor::from_vec(dw, (g.o, g.c, g.kh, g.kw), device)?,
            Tensor::from_vec(db, g.o, device)?,
        ))
    }
}

/// The sizes of a convolution at stride 1.
struct Geometry {
    n: usize,
    c: usize,
    h: usize,
    w: usize,
    o: usize,
    kh: usize,
    kw: usize,
    /// Zeros above and below, and to the left and right.
    pad: (usize, usize),
}

/// Lines `lines` of images `images`: what one GEMM computes.
struct Tile {
    images: Range<usize>,
    lines: Range<usize>,
}

impl Geometry {
    fn new(x: &[usize], w: &[usize], stride: usize, padding: usize) -> Result<Self> {
        let (&[n, c, h, width], &[o, wc, kh, kw]) = (x, w) else {
            bail!("conv2d: input {x:?} and weight {w:?} must both have four dimensions")
        };
        if c != wc {
            bail!("conv2d: input {x:?} has {c} channels, weight {w:?} wants {wc}")
        }
        if stride == 0 || kh == 0 || kw == 0 || h + 2 * padding < kh || width + 2 * padding < kw {
            bail!("conv2d: input {x:?} is too small for weight {w:?} with padding {padding}")
        }
        // Such borders would be zeros only, and the input gradient would need a crop.
        if padding >= kh || padding >= kw {
            bail!("conv2d: padding {padding} must be smaller than the kernel, {kh} x {kw}")
        }
        Ok(Self { n, c, h, w: width, o, kh, kw, pad: (padding, padding) })
    }

    /// Height of the result.
    fn oh(&self) -> usize {
        self.h + 2 * self.pad.0 - self.kh + 1
    }

    /// Width of the result.
    fn ow(&self) -> usize {
        self.w + 2 * self.pad.1 - self.kw + 1
    }

    /// Pixels of a padded line.
    fn line(&self) -> usize {
        self.w + 2 * self.pad.1
    }

    /// Rows of `col`.
    fn depth(&self) -> usize {
        self.c * self.kh * self.kw
    }

    /// Images whose results are computed together, at least one.
    fn group(&self) -> usize {
        (TILE / (self.oh() * self.line()).max(1)).clamp(1, self.n.max(1))
    }

    /// The tiles of a group of images.
    fn tiles(&self, images: Range<usize>) -> impl Iterator<Item = Tile> + use<> {
        let oh = self.oh();
        let parts = if images.len() > 1 { 1 } else { (oh * self.line()).div_ceil(TILE).min(oh) };
        (0..parts).map(move |i| Tile {
            images: images.clone(),
            lines: i * oh / parts..(i + 1) * oh / parts,
        })
    }

    /// Columns of `col` in a tile.
    fn columns(&self, tile: &Tile) -> usize {
        tile.images.len() * tile.lines.len() * self.line()
    }

    /// Writes `col`, `[depth, columns]`, for a tile of the batch `x`.
    fn im2col<T: Real>(&self, x: &[T], tile: &Tile, padded: &mut Vec<T>, col: &mut Vec<T>) {
        let (line, lines) = (self.line(), tile.lines.len());
        let (span, columns) = (lines * line, self.columns(tile));
        col.resize(self.depth() * columns, T::zero());
        // The wrapped pixels of the last line read up to kw - 1 values beyond it.
        padded.resize((lines + self.kh - 1) * line + self.kw - 1, T::zero());
        for (place, image) in tile.images.clone().enumerate() {
            for c in 0..self.c {
                let plane = &x[(image * self.c + c) * self.h * self.w..][..self.h * self.w];
                if (self.kh, self.kw) == (1, 1) {
                    let row = &mut col[c * columns + place * span..][..span];
                    row.copy_from_slice(&plane[tile.lines.start * line..][..span]);
                    continue;
                }
                for (y, row) in (tile.lines.start..).zip(padded.chunks_exact_mut(line)) {
                    let (inside, border) = (self.pad.1..self.pad.1 + self.w, T::zero());
                    match y.checked_sub(self.pad.0).filter(|&y| y < self.h) {
                        Some(y) => {
                            row[..inside.start].fill(border);
                            row[inside.end..].fill(border);
                            row[inside].copy_from_slice(&plane[y * self.w..][..self.w]);
                        }
                        None => row.fill(border),
                    }
                }
                for tap in 0..self.kh * self.kw {
                    let from = tap / self.kw * line + tap % self.kw;
                    let row = (c * self.kh * self.kw + tap) * columns + place * span;
                    col[row..row + span].copy_from_slice(&padded[from..from + span]);
                }
            }
        }
    }

    /// Calls `f` with matching lines of an output batch and of a tile's result
    /// `[o, columns]`: (channel, range in the batch, range in the result).
    fn lines(&self, tile: &Tile, mut f: impl FnMut(usize, Range<usize>, Range<usize>)) {
        let (oh, ow, line) = (self.oh(), self.ow(), self.line());
        let columns = self.columns(tile);
        for (place, image) in tile.images.clone().enumerate() {
            for o in 0..self.o {
                for (i, y) in tile.lines.clone().enumerate() {
                    let batch = ((image * self.o + o) * oh + y) * ow;
                    let result = o * columns + (place * tile.lines.len() + i) * line;
                    f(o, batch..batch + ow, result..result + ow);
                }
            }
        }
    }
}

/// `y` at stride 1, in row-major order.
fn forward<T: Real>(x: &[T], w: &[T], b: &[T], g: &Geometry) -> Vec<T> {
    let (depth, group) = (g.depth(), g.group());
    let (image_in, image_out) = (g.c * g.h * g.w, g.o * g.oh() * g.ow());
    let mut y = vec![T::zero(); g.n * image_out];
    if y.is_empty() {
        return y;
    }
    let jobs = y.par_chunks_mut(group * image_out).zip(x.par_chunks(group * image_in));
    jobs.for_each_init(Default::default, |buffers: &mut [Vec<T>; 3], (y, x)| {
        let [padded, col, result] = buffers;
        for tile in g.tiles(0..y.len() / image_out) {
            let columns = g.columns(&tile);
            g.im2col(x, &tile, padded, col);
            result.resize(g.o * columns, T::zero());
            let col = Mat::new(col, depth, columns, columns);
            gemm(Mat::new(w, g.o, depth, depth), col, result, columns, false);
            g.lines(&tile, |o, batch, line| {
                y[batch].iter_mut().zip(&result[line]).for_each(|(y, &v)| *y = v + b[o]);
            });
        }
    });
    y
}

/// `dx`: the convolution of `gy` with the flipped kernel.
fn input_gradient<T: Real>(w: &[T], gy: &[T], g: &Geometry) -> Vec<T> {
    let taps = g.kh * g.kw;
    let mut flipped = vec![T::zero(); w.len()];
    for o in 0..g.o {
        for c in 0..g.c {
            for tap in 0..taps {
                flipped[(c * g.o + o) * taps + taps - 1 - tap] = w[(o * g.c + c) * taps + tap];
            }
        }
    }
    let pad = (g.kh - 1 - g.pad.0, g.kw - 1 - g.pad.1);
    let geometry = Geometry { c: g.o, o: g.c, h: g.oh(), w: g.ow(), pad, ..*g };
    forward(gy, &flipped, &vec![T::zero(); g.c], &geometry)
}

/// `dw` and `db`.
fn weight_gradient<T: Real>(x: &[T], gy: &[T], g: &Geometry) -> (Vec<T>, Vec<T>) {
    let (depth, group) = (g.depth(), g.group());
    let jobs = g.n.div_ceil(group);
    let partials = PARTIALS.min(jobs).max(1);
    let sums: Vec<_> = (0..partials)
        .into_par_iter()
        .map(|part| {
            let (mut dw, mut db) = (vec![T::zero(); g.o * depth], vec![T::zero(); g.o]);
            let (mut padded, mut col, mut tile_gy) = (Vec::new(), Vec::new(), Vec::new());
            for job in part * jobs / partials..(part + 1) * jobs / partials {
                for tile in g.tiles(job * group..g.n.min((job + 1) * group)) {
                    let columns = g.columns(&tile);
                    g.im2col(x, &tile, &mut padded, &mut col);
                    // Zeros at the wrapped pixels keep them out of the product.
                    tile_gy.clear();
                    tile_gy.resize(g.o * columns, T::zero());
                    g.lines(&tile, |o, batch, line| {
                        let gy = &gy[batch];
                        tile_gy[line].copy_from_slice(gy);
                        db[o] += gy.iter().copied().sum::<T>();
                    });
                    let col = Mat::new(&col, depth, columns, columns);
                    let gy = Mat::new(&tile_gy, g.o, columns, columns);
                    gemm(gy, col.t(), &mut dw, depth, true);
                }
            }
            (dw, db)
        })
        .collect();
    let mut sums = sums.into_iter();
    let (mut dw, mut db) = sums.next().unwrap_or_default();
    for (w, b) in sums {
        dw.iter_mut().zip(w).for_each(|(a, v)| *a += v);
        db.iter_mut().zip(b).for_each(|(a, v)| *a += v);
    }
    (dw, db)
}
