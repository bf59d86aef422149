//! Pools of 3x3 pixels, for nets that are evaluated: they have no gradient.

use core::ops::Range;

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};
use pulp::{Arch, Simd, WithSimd};

use super::lanes::pieces;
use super::real::slice;

/// The greatest value under a 3x3 window; `padding` lines and columns around the map are no values.
///
/// # Shapes
/// `[n, h, w, c]` to `[n, (h + 2 padding - 3) / stride + 1, (w + 2 padding - 3) / stride + 1, c]`.
///
/// # Errors
/// An input that is not 4-dimensional or smaller than a window, or a padding above 1.
///
/// # Limits
/// Off the CPU a padding counts as zeros, which are no maximum of what a relu has left.
pub fn max_pool3(x: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    pool(x, Pool { kind: PoolKind::Max, stride, padding })
}

/// The mean of the values under a 3x3 window around each pixel; there are fewer at the border
/// (torch's `avg_pool2d(3, 1, 1, count_include_pad=False)`).
///
/// # Shapes: `[n, h, w, c]` to `[n, h, w, c]`
///
/// # Errors
/// An input that is not 4-dimensional.
pub fn avg_pool3(x: &Tensor) -> Result<Tensor> {
    pool(x, Pool { kind: PoolKind::Mean, stride: 1, padding: 1 })
}

fn pool(x: &Tensor, pool: Pool) -> Result<Tensor> {
    let (_, h, w, _) = x.dims4()?;
    if pool.stride == 0 || pool.padding > 1 || h.min(w) + 2 * pool.padding < SIDE {
        bail!("pool: {h} x {w} pixels, padding {} and stride {}", pool.padding, pool.stride)
    }
    if x.device().is_cpu() && x.dtype() == DType::F32 {
        return x.contiguous()?.apply_op1_no_bwd(&pool);
    }
    pool.composite(x)
}

/// Rows and columns of a window.
const SIDE: usize = 3;

#[derive(Clone, Copy)]
enum PoolKind {
    Max,
    Mean,
}

#[derive(Clone, Copy)]
struct Pool {
    kind: PoolKind,
    stride: usize,
    padding: usize,
}

impl Pool {
    /// The number of windows along a side.
    fn windows(self, side: usize) -> usize {
        (side + 2 * self.padding - SIDE) / self.stride + 1
    }

    /// The pixels of a side that window `i` covers.
    fn covered(self, i: usize, side: usize) -> Range<usize> {
        let first = i * self.stride;
        first.saturating_sub(self.padding)..(first + SIDE - self.padding).min(side)
    }

    /// The pooling by candle's operations.
    fn composite(self, x: &Tensor) -> Result<Tensor> {
        let padded = |x: &Tensor| {
            let x = x.pad_with_zeros(2, self.padding, self.padding)?;
            x.pad_with_zeros(3, self.padding, self.padding)?.contiguous()
        };
        let x = x.permute((0, 3, 1, 2))?;
        let y = match self.kind {
            PoolKind::Max => padded(&x)?.max_pool2d_with_stride(SIDE, self.stride)?,
            PoolKind::Mean => {
                let mean = |x: &Tensor| padded(x)?.avg_pool2d_with_stride(SIDE, self.stride);
                let ones = x.narrow(0, 0, 1)?.narrow(1, 0, 1)?.ones_like()?;
                mean(&x)?.broadcast_div(&mean(&ones)?)?
            }
        };
        y.permute((0, 2, 3, 1))?.contiguous()
    }
}

impl CustomOp1 for Pool {
    fn name(&self) -> &'static str {
        "pool3"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, h, w, c) = layout.shape().dims4()?;
        let (x, oh, ow) = (slice::<f32>(x, layout)?, self.windows(h), self.windows(w));
        let mut y = vec![0.0; n * oh * ow * c];
        if !y.is_empty() {
            let (arch, values) = (Arch::new(), SIDE * SIDE * y.len());
            pieces(&mut y, ow * c, values, |i, y| {
                let x = &x[i / oh * h * w * c..][..h * w * c];
                arch.dispatch(PooledLine {
                    pool: *self,
                    lines: self.covered(i % oh, h),
                    w,
                    c,
                    x,
                    y,
                });
            });
        }
        Ok((CpuStorage::F32(y), (n, oh, ow, c).into()))
    }
}

/// A line of windows over some lines of an image.
struct PooledLine<'a> {
    pool: Pool,
    lines: Range<usize>,
    w: usize,
    c: usize,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for PooledLine<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { pool, lines, w, c, x, y } = self;
        for (i, y) in y.chunks_exact_mut(c).enumerate() {
            let columns = pool.covered(i, w);
            let count = (lines.len() * columns.len()) as f32;
            let pixels =
                lines.clone().flat_map(|line| columns.clone().map(move |at| line * w + at));
            for (tap, pixel) in pixels.enumerate() {
                let x = &x[pixel * c..][..c];
                match pool.kind {
                    _ if tap == 0 => y.copy_from_slice(x),
                    PoolKind::Max => y.iter_mut().zip(x).for_each(|(y, &x)| *y = y.max(x)),
                    PoolKind::Mean => y.iter_mut().zip(x).for_each(|(y, &x)| *y += x),
                }
            }
            if let PoolKind::Mean = pool.kind {
                for y in y {
                    *y /= count;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn map(shape: [usize; 4]) -> Tensor {
        let n: usize = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|i| ((i * 37) % 101) as f32).collect();
        Tensor::from_vec(values, &shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn windows_are_those_of_torch() {
        // 0 1 2 / 3 4 5 / 6 7 8
        let x = Tensor::arange(0f32, 9.0, &Device::Cpu).unwrap().reshape((1, 3, 3, 1)).unwrap();
        let values = |y: &Tensor| y.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let means = [2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0];
        assert_eq!(values(&avg_pool3(&x).unwrap()), means);
        assert_eq!(values(&max_pool3(&x, 1, 0).unwrap()), [8.0]);
        assert_eq!(values(&max_pool3(&x, 2, 1).unwrap()), [4.0, 5.0, 7.0, 8.0]);
        let below = (x - 10.0).unwrap();
        assert_eq!(values(&max_pool3(&below, 2, 1).unwrap()), [-6.0, -5.0, -3.0, -2.0]);
        assert!(max_pool3(&below, 1, 2).is_err());
        assert!(max_pool3(&below.narrow(1, 0, 2).unwrap(), 1, 0).is_err());
    }

    #[test]
    fn pools_equal_candle() {
        for (shape, kind, stride, padding) in [
            ([2, 9, 7, 33], PoolKind::Max, 2, 0),
            ([1, 8, 8, 64], PoolKind::Max, 1, 1),
            ([3, 1, 1, 5], PoolKind::Mean, 1, 1),
            ([2, 17, 35, 48], PoolKind::Mean, 1, 1),
        ] {
            let (x, pool) = (map(shape), Pool { kind, stride, padding });
            let (ours, theirs) = (super::pool(&x, pool).unwrap(), pool.composite(&x).unwrap());
            assert_eq!(ours.dims(), theirs.dims());
            let off = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap();
            assert!(off.to_scalar::<f32>().unwrap() < 2e-5, "{shape:?}");
        }
    }
}
