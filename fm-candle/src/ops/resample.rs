//! Nearest-neighbour doubling and 2x2 averaging of maps; patches of images.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};
use pulp::{Arch, Simd, WithSimd};

use super::lanes::{Function, fill, pieces};
use super::real::{elements, is_ours, slice};
use super::simd::Lanes;

/// Doubles height and width, each pixel becoming a 2x2 block.
///
/// # Shapes: `[n, h, w, c]` to `[n, 2h, 2w, c]`
///
/// # Errors
/// An input that is not 4-dimensional.
pub fn upsample2(x: &Tensor) -> Result<Tensor> {
    if is_ours(x) {
        return x.contiguous()?.apply_op1(Upsample);
    }
    upsample2_composite(x)
}

/// [`upsample2`] by candle's operations.
pub(super) fn upsample2_composite(x: &Tensor) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    let blocks = x.reshape((n * h, 1, w, 1, c))?.broadcast_as((n * h, 2, w, 2, c))?;
    blocks.contiguous()?.reshape((n, 2 * h, 2 * w, c))
}

/// Averages 2x2 blocks; an odd last row or column is left out, as in torch's `avg_pool2d(2)`.
///
/// # Shapes: `[n, h, w, c]` to `[n, h / 2, w / 2, c]`
///
/// # Errors
/// An input that is not 4-dimensional, or smaller than a block.
pub fn downsample2(x: &Tensor) -> Result<Tensor> {
    let (_, h, w, _) = x.dims4()?;
    if h < 2 || w < 2 {
        bail!("downsampling: {h} x {w} pixels are less than a block")
    }
    if is_ours(x) {
        return x.contiguous()?.apply_op1(Downsample);
    }
    downsample2_composite(x)
}

/// [`downsample2`] by candle's operations.
pub(super) fn downsample2_composite(x: &Tensor) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    let even = x.narrow(1, 0, h / 2 * 2)?.narrow(2, 0, w / 2 * 2)?.contiguous()?;
    let blocks = even.reshape((n * (h / 2), 2, w / 2, 2, c))?;
    (blocks.sum(3)?.sum(1)? * 0.25)?.reshape((n, h / 2, w / 2, c))
}

/// Sizes of the map with the blocks: `n` images of `h` rows of `w` pixels of `c` values.
struct ResizeGeometry {
    n: usize,
    h: usize,
    w: usize,
    c: usize,
}

impl ResizeGeometry {
    /// The sizes of a map.
    fn of(layout: &Layout) -> Result<Self> {
        let (n, h, w, c) = layout.shape().dims4()?;
        Ok(Self { n, h, w, c })
    }

    /// The map whose blocks are the pixels of this one.
    fn doubled(self) -> Self {
        Self { h: 2 * self.h, w: 2 * self.w, ..self }
    }

    /// Each pixel times `factor` becomes a block; what is outside of blocks becomes zero.
    ///
    /// # Shapes: `x: [n, h / 2, w / 2, c]`, result `[n, h, w, c]`
    fn spread<T: Lanes>(&self, x: &[T], factor: T) -> Vec<T> {
        let (row, half) = (self.w * self.c, self.w / 2 * self.c);
        let mut y = vec![T::zero(); self.n * self.h * row];
        if half == 0 || self.h < 2 {
            return y;
        }
        let (arch, values) = (Arch::new(), y.len());
        pieces(&mut y, self.h * row, values, |image, y| {
            let image_values = y.len();
            let x = &x[image * (self.h / 2) * half..][..self.h / 2 * half];
            pieces(y, 2 * row, image_values, |i, y| {
                let (upper, lower) = y.split_at_mut(row);
                if lower.is_empty() {
                    return;
                }
                arch.dispatch(Scatter { c: self.c, x: &x[i * half..][..half], factor, row: upper });
                lower.copy_from_slice(upper);
            });
        });
        y
    }

    /// The sum of each block times `factor`.
    ///
    /// # Shapes: `y: [n, h, w, c]`, result `[n, h / 2, w / 2, c]`
    fn gather<T: Lanes>(&self, y: &[T], factor: T) -> Vec<T> {
        let (row, half) = (self.w * self.c, self.w / 2 * self.c);
        let mut x = vec![T::zero(); self.n * (self.h / 2) * half];
        if x.is_empty() {
            return x;
        }
        let arch = Arch::new();
        pieces(&mut x, half, y.len(), |i, x| {
            let first = i / (self.h / 2) * self.h + i % (self.h / 2) * 2;
            let (upper, lower) = y[first * row..][..2 * row].split_at(row);
            arch.dispatch(Gather { c: self.c, rows: [upper, lower], factor, x });
        });
        x
    }
}

/// `row[2 i] = row[2 i + 1] = x[i] factor`, pixel by pixel.
struct Scatter<'a, T> {
    c: usize,
    x: &'a [T],
    factor: T,
    row: &'a mut [T],
}

impl<T: Lanes> WithSimd for Scatter<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let blocks = self.row.chunks_exact_mut(2 * self.c);
        for (block, x) in blocks.zip(self.x.chunks_exact(self.c)) {
            let (left, right) = block.split_at_mut(self.c);
            let f = Scaled(self.factor);
            fill(simd, left, [x], [], &f);
            fill(simd, right, [x], [], &f);
        }
    }
}

/// `x[i] = factor sum over both rows of row[2 i] + row[2 i + 1]`, pixel by pixel.
struct Gather<'a, T> {
    c: usize,
    rows: [&'a [T]; 2],
    factor: T,
    x: &'a mut [T],
}

impl<T: Lanes> WithSimd for Gather<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let f = Scaled(self.factor);
        let [upper, lower] = self.rows.map(|row| row.chunks_exact(2 * self.c));
        for (x, (upper, lower)) in self.x.chunks_exact_mut(self.c).zip(upper.zip(lower)) {
            let ((a, b), (c, d)) = (upper.split_at(self.c), lower.split_at(self.c));
            fill(simd, x, [a, b, c, d], [], &f);
        }
    }
}

/// A value, or a sum of four, times a factor.
struct Scaled<T>(T);

impl<T: Lanes> Function<T, 1, 0, 1> for Scaled<T> {
    #[inline(always)]
    fn of<S: Simd>(
        &self,
        simd: S,
        [x]: [T::Register<S>; 1],
        []: [T::Register<S>; 0],
    ) -> [T::Register<S>; 1] {
        [T::times(simd, x, T::splat(simd, self.0))]
    }
}

impl<T: Lanes> Function<T, 4, 0, 1> for Scaled<T> {
    #[inline(always)]
    fn of<S: Simd>(
        &self,
        simd: S,
        [a, b, c, d]: [T::Register<S>; 4],
        []: [T::Register<S>; 0],
    ) -> [T::Register<S>; 1] {
        let sum = T::plus(simd, T::plus(simd, a, b), T::plus(simd, c, d));
        [T::times(simd, sum, T::splat(simd, self.0))]
    }
}

struct Upsample;

impl CustomOp1 for Upsample {
    fn name(&self) -> &'static str {
        "upsample2"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let g = ResizeGeometry::of(layout)?.doubled();
        let shape = (g.n, g.h, g.w, g.c).into();
        let y = match x {
            CpuStorage::F32(_) => CpuStorage::F32(g.spread(slice(x, layout)?, 1.0)),
            _ => CpuStorage::F64(g.spread(slice(x, layout)?, 1.0)),
        };
        Ok((y, shape))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gy: &Tensor) -> Result<Option<Tensor>> {
        let g = ResizeGeometry::of(x.layout())?.doubled();
        gradient(x, gy, |gy| g.gather::<f32>(gy, 1.0), |gy| g.gather::<f64>(gy, 1.0))
    }
}

struct Downsample;

impl CustomOp1 for Downsample {
    fn name(&self) -> &'static str {
        "downsample2"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let g = ResizeGeometry::of(layout)?;
        let y = match x {
            CpuStorage::F32(_) => CpuStorage::F32(g.gather(slice(x, layout)?, 0.25)),
            _ => CpuStorage::F64(g.gather(slice(x, layout)?, 0.25)),
        };
        Ok((y, (g.n, g.h / 2, g.w / 2, g.c).into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gy: &Tensor) -> Result<Option<Tensor>> {
        let g = ResizeGeometry::of(x.layout())?;
        gradient(x, gy, |gy| g.spread::<f32>(gy, 0.25), |gy| g.spread::<f64>(gy, 0.25))
    }
}

/// The gradient of `x` from that of the result, by the function for its type.
fn gradient(
    x: &Tensor,
    gy: &Tensor,
    f32s: impl Fn(&[f32]) -> Vec<f32>,
    f64s: impl Fn(&[f64]) -> Vec<f64>,
) -> Result<Option<Tensor>> {
    let gy = gy.contiguous()?;
    let guard = gy.storage_and_layout();
    Ok(Some(match x.dtype() {
        DType::F32 => Tensor::from_vec(f32s(elements(&guard)?), x.shape(), x.device())?,
        _ => Tensor::from_vec(f64s(elements(&guard)?), x.shape(), x.device())?,
    }))
}

/// Makes each patch of `p` x `p` pixels one pixel of `p^2` times the channels (torch's
/// `pixel_unshuffle`): channel `c p^2 + dy p + dx` holds the pixels at (dy, dx) of channel c.
///
/// # Shapes: `[n, c, h, w]` to `[n, c p^2, h / p, w / p]`
///
/// # Errors
/// An input that is not 4-dimensional, or whose sides `p` does not divide.
pub fn unshuffle(x: &Tensor, p: usize) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let patches = x.reshape(&[n, c, h / p, p, w / p, p][..])?.permute(&[0, 1, 3, 5, 2, 4][..])?;
    patches.contiguous()?.reshape((n, c * p * p, h / p, w / p))
}

/// Undoes [`unshuffle`] (torch's `pixel_shuffle`).
///
/// # Shapes: `[n, c p^2, h, w]` to `[n, c, h p, w p]`
///
/// # Errors
/// An input that is not 4-dimensional, or whose channels `p^2` does not divide.
pub fn shuffle(x: &Tensor, p: usize) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let patches = x.reshape(&[n, c / (p * p), p, p, h, w][..])?.permute(&[0, 1, 4, 2, 5, 3][..])?;
    patches.contiguous()?.reshape((n, c / (p * p), h * p, w * p))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn patches_are_those_of_torch() {
        let x = Tensor::arange(0f32, 24.0, &Device::Cpu).unwrap().reshape((1, 1, 4, 6)).unwrap();
        let patches = unshuffle(&x, 2).unwrap();
        assert_eq!(patches.dims(), [1, 4, 2, 3]);
        let values = patches.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values[..6], [0.0, 2.0, 4.0, 12.0, 14.0, 16.0]);
        assert_eq!(values[6..12], [1.0, 3.0, 5.0, 13.0, 15.0, 17.0]);
        assert_eq!(values[12..14], [6.0, 8.0]);
        let x = Tensor::cat(&[&x, &(&x * 2.0).unwrap()], 1).unwrap();
        let back = shuffle(&unshuffle(&x, 2).unwrap(), 2).unwrap();
        let off = (back - &x).unwrap().abs().unwrap().max_all().unwrap();
        assert_eq!(off.to_scalar::<f32>().unwrap(), 0.0);
    }
}
